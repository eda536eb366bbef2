"""Clips rendered anew in each epoch: somebody's motion on anybody, seen by a camera and a detector.

A clip is a function of (seed, epoch, clip number): who asks for it, and when, does not matter.
World: millimetres, z up, floor at 0. T frames, J = 17 joints, K = 16 bones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.bodies import bones_of, draw_lengths, mix, turn_limbs, with_lengths
from data.cameras import draw_anywhere, image_and_depth, log_uniform
from data.detector_noise import detect, draw_detector, lose_joints, shift_joints
from data.motions import UNIT_MM, Motion
from lib.arrays import Floats
from lib.batch import Batch
from lib.camera import H36M_FPS, to_screen
from lib.skeleton import H36M

TIME_SCALE = (0.75, 1.35)  # how fast a motion is played, compared with how it was recorded
LIMB_SPREAD = 0.25  # radians: the largest spread of random limb rotations; each clip has its own
# Some people jump, or their feet are not where the floor was thought to be.
ABOVE_FLOOR, ABOVE_FLOOR_MM = 0.3, 50.0  # share of the clips; standard deviation


@dataclass(frozen=True)
class Rendering:
    """What is drawn for a clip. Shares of the clips are 0 to 1.

    frame_rates: the least and the largest of the videos; mixed_bodies: the share of clips whose
    upper body moves as in another recording; limb_rotations: … whose limbs are turned;
    missing_joints: … in which joints are not found; exact_keypoints: … whose 2D is exact;
    per_epoch: how many clips an epoch has of the same motion; fixed: each epoch has the same clips.
    """

    frame_rates: tuple[float, float] = (15.0, 60.0)
    mixed_bodies: float = 0.25
    limb_rotations: float = 0.3
    missing_joints: float = 0.1
    exact_keypoints: float = 0.1
    per_epoch: int = 1
    fixed: bool = False


class RenderedClips:
    """Training clips of T frames of some recordings."""

    def __init__(self, motions: Sequence[Motion], n_frames: int, rendering: Rendering) -> None:
        self.motions, self.n_frames, self.rendering = motions, n_frames, rendering
        # (recording, which of its parts, number of parts): a clip begins somewhere in its part.
        self._parts: list[tuple[int, int, int]] = []
        for number, motion in enumerate(motions):
            count = max(1, round(motion.share * len(motion.frames) / n_frames))
            self._parts += [(number, part, count) for part in range(count)] * rendering.per_epoch

    def __len__(self) -> int:
        return len(self._parts)

    def draw(self, clips: Sequence[int], *, seed: int, epoch: int) -> Batch:
        """The clips of these numbers, as they are in an epoch of a training with this seed."""
        shape = (len(clips), self.n_frames, H36M.num_joints, 3)
        poses = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for row, clip in enumerate(clips):
            for pose, rendered in zip(poses, self.render(clip, seed, epoch), strict=True):
                pose[row] = rendered
        return Batch(torch.from_numpy(poses[0]), torch.from_numpy(poses[1]), list(clips))

    def render(self, clip: int, seed: int, epoch: int) -> tuple[Floats, Floats]:
        """Two (T, J, 3) arrays: x and y on the normalised screen and confidence; the 2.5D pose in
        the same unit."""
        rendering = self.rendering
        rng = np.random.default_rng([seed, 0 if rendering.fixed else epoch, clip])
        fps = log_uniform(rng, *rendering.frame_rates)
        motion = self._motion(rng, clip, H36M_FPS / fps * log_uniform(rng, *TIME_SCALE))
        view = draw_anywhere(rng, motion)
        image, factor = image_and_depth(view.to_camera(motion), view.camera)
        size = view.camera.size
        # Half the numbers, twice the speed, and less than a thousandth of a pixel.
        image, factor = image.astype(np.float32), factor.astype(np.float32)
        pose_2d = np.empty_like(image)
        if rng.random() < rendering.exact_keypoints:
            pose_2d[..., :2], pose_2d[..., 2] = image[..., :2], 1.0
        else:
            detector = draw_detector(rng)
            meant = np.concatenate([shift_joints(rng, image[..., :2]), image[..., 2:]], axis=-1)
            joint_2d, confidence = detect(rng, meant, factor, detector, fps)
            if rng.random() < rendering.missing_joints:
                lose_joints(rng, joint_2d, confidence)
            pose_2d[..., :2], pose_2d[..., 2] = joint_2d, confidence
        pose_2d[..., :2] = to_screen(pose_2d[..., :2], size)
        return pose_2d, to_screen(image, size)

    def _motion(self, rng: np.random.Generator, clip: int, step: float) -> Floats:
        """(T, J, 3) in the world; step: recorded frames from one frame to the next."""
        number, part, parts = self._parts[clip]
        pose = self._cut(number, (part + rng.random()) / parts, step)
        root, bones = pose[:, H36M.root], bones_of(pose)
        if rng.random() < self.rendering.mixed_bodies:
            other = self._parts[int(rng.integers(len(self._parts)))][0]
            bones = mix(bones, bones_of(self._cut(other, rng.random(), step)))
        if rng.random() < self.rendering.limb_rotations:
            bones = turn_limbs(rng, bones, LIMB_SPREAD * rng.random())
        motion = with_lengths(root, bones, draw_lengths(rng))
        lowest = abs(rng.standard_normal()) * ABOVE_FLOOR_MM if rng.random() < ABOVE_FLOOR else 0.0
        motion[..., 2] += lowest - motion[..., 2].min()
        return motion

    def _cut(self, number: int, place: float, step: float) -> Floats:
        """T poses of a recording in mm, `step` frames apart, less where it is too short for that.

        place: where it begins, from 0, at the start, to 1, as late as it can.
        """
        frames = self.motions[number].frames
        last = len(frames) - 1
        step = min(step, last / max(self.n_frames - 1, 1))
        start = place * (last - step * (self.n_frames - 1))
        times = np.clip(start + step * np.arange(self.n_frames), 0, last)
        before = np.minimum(times.astype(np.int64), max(last - 1, 0))
        after = np.minimum(before + 1, last)
        weight = (times - before)[:, None, None]
        pose: Floats = (frames[before] * (1 - weight) + frames[after] * weight) * UNIT_MM
        return pose
