"""Video or keypoints in, poses out: detect, follow, lift, place people in a room.

A video is read twice, once for its people and once for the film, so no more than a few frames are
ever in memory; keypoints and poses of all frames are (about 1 kB a frame and person).
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from demo.detection import detect_people
from demo.detectors import DETECTORS, choose_detector
from demo.lifting import Lifted, lift_track
from demo.path import DEFAULT_FOV
from demo.people import ASSUMED_FPS, Detector, People
from demo.poses import Poses
from demo.room import place_shots
from demo.smoothing import steady
from demo.tilt import tilt_of_longest, tilts_of, turned, upright
from demo.tracking import choose, follow
from demo.tracks import Timeline, Track, tracks_of
from demo.video import Video, find_video
from lib.errors import UserError
from lib.keypoints import find_layout
from lib.skeleton import H36M

if TYPE_CHECKING:  # importing them loads torch
    from torch import Tensor

    from model.mdtf import MDTF

DEFAULT_CHECKPOINT = "checkpoint/mocap/tiny"


def people_in_video(
    video: Video,
    detector: Detector,
    person: str,
    fps: float = 0.0,
    on_frame: Callable[[], object] = lambda: None,
    *,
    raw: bool = False,
) -> People:
    """Detect and follow the wanted people. Raises UserError.

    video: at its start; person: 'largest', 'all' or a number; fps: in place of the video's own
    times; raw: keypoints as the detector gives them, though a body at rest may tremble.
    """
    people = detect_people(video, detector, on_frame)
    people = people.filmed(fps or video.fps or ASSUMED_FPS)
    people = follow(people if fps else people.at(video.times))
    return choose(steady(people) if detector.jitters and not raw else people, person)


class VideoLifter:
    """A trained MDTF, and all else that turns a video into 3D poses.

    >>> poses = VideoLifter.from_checkpoint()("jump.mp4")
    >>> poses.pose_world.shape  # (people, frames, 17, 3), mm, z up
    """

    def __init__(self, model: "MDTF", *, flip: bool = True, device: str = "cpu") -> None:
        """model: in eval mode; flip: average with the mirrored view. Raises UserError."""
        if model.skeleton.names != H36M.names:
            raise UserError(
                "this checkpoint was trained on other joints than Human3.6M's; the demo needs one"
                " of Human3.6M or of mocap"
            )
        self._model, self._flip, self._device = model.to(device), flip, device
        self.n_frames: int = model.n_frames
        self.frame_rate: float = model.frame_rate
        # On a GPU, where launching the kernels of one clip takes longer than running them.
        self._one_clip: Callable[[Tensor], Tensor] | None = None
        self.backend = ""  # what computes the scan, in words

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | os.PathLike[str] = DEFAULT_CHECKPOINT,
        config: str | os.PathLike[str] | None = None,
        stage1_checkpoint: str | os.PathLike[str] | None = None,
        *,
        flip: bool = True,
        device: str = "auto",
    ) -> "VideoLifter":
        """From a checkpoint's folder or file, ours or a released one.

        config: YAML, needed for a released checkpoint; stage1_checkpoint: stage-1 weights in place
        of the file's own. Raises UserError.
        """
        from data.benchmarks import skeleton_of
        from lib.checkpoint import BEST, find_checkpoint
        from lib.config import load_config
        from lib.device import choose_device
        from model.build import load_mdtf
        from model.ops import resolve_backend

        path = find_checkpoint(checkpoint, BEST)
        settings = None if config is None else load_config(config, stage=2)
        model = load_mdtf(path, settings, stage1_checkpoint, skeleton_of)
        place = choose_device(device)
        lifter = cls(model, flip=flip, device=str(place))
        name, reason = resolve_backend("auto", place, next(model.parameters()).dtype)
        lifter.backend = f"{name} ({reason})"
        return lifter

    def lift(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, 17, 3) normalised clips -> (N, T, 17, 3) normalised poses.

        Raises UserError: the network gives NaN or infinity.
        """
        from lib.cuda_graphs import Replayed
        from lib.evaluation.predict import predict, predict_batch

        if self._one_clip is None and str(self._device).startswith("cuda"):
            self._one_clip = Replayed(
                lambda clip: predict_batch(self._model, clip, H36M, flip=self._flip)
            )
        # A batch's size in frames, so that long clips take no more memory than short ones.
        batch_size = max(1, 864 // self.n_frames)
        poses = predict(
            self._model,
            clips,
            H36M,
            flip=self._flip,
            batch_size=batch_size,
            device=self._device,
            lift=self._one_clip if len(clips) == 1 else None,
        )
        if not np.isfinite(poses).all():
            raise UserError(
                "the network's poses are not finite: its weights are damaged; use another"
                " --checkpoint"
            )
        return poses

    def __call__(
        self,
        video: str,
        *,
        detector: str = DETECTORS[0],
        person: str = "largest",
        smooth: bool = False,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        fov: float | None = DEFAULT_FOV,
        height: float | None = None,
    ) -> Poses:
        """Poses of a video's people. Raises UserError.

        person: 'largest', 'all' or a number; smooth: One-Euro filter on the keypoints;
        camera_pitch: degrees the camera looks down, camera_roll: by which what is upright leans to
        the right in the picture, None to estimate them; fov: the camera's field of view over the
        picture's longer side in degrees, None: people stay in place; height: of everybody in
        metres, None: average.
        """
        found = choose_detector(detector)
        with Video(find_video(video)) as opened:
            people = people_in_video(opened, found, person)
        return self.lift_people(
            people,
            smooth=smooth,
            camera_pitch=camera_pitch,
            camera_roll=camera_roll,
            fov=fov,
            height=height,
        )

    def lift_keypoints(
        self,
        keypoints: np.ndarray,
        size: tuple[int, int],
        fps: float,
        *,
        layout: str = "h36m17",
        smooth: bool = False,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        fov: float | None = DEFAULT_FOV,
        height: float | None = None,
    ) -> Poses:
        """Poses from keypoints (F, J, 3) or (P, F, J, 3): x and y in pixels, confidence.

        size: width and height of the images; layout: a name in lib.keypoints.LAYOUTS. A
        confidence of 0 marks a keypoint that was not found. Raises UserError.
        """
        found = find_layout(layout)
        array = np.asarray(keypoints, dtype=np.float32)
        if array.ndim not in (3, 4) or array.shape[-2:] != (found.num_keypoints, 3):
            raise UserError(
                f"keypoints of shape {array.shape}; {layout} wants (frames,"
                f" {found.num_keypoints}, 3) or (people, frames, {found.num_keypoints}, 3)"
            )
        people = People.of_array(array[None] if array.ndim == 3 else array, found)
        if not len(people.frame):
            raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
        people = people.filmed(fps, size)
        return self.lift_people(
            people,
            smooth=smooth,
            camera_pitch=camera_pitch,
            camera_roll=camera_roll,
            fov=fov,
            height=height,
        )

    def lift_people(
        self,
        people: People,
        *,
        smooth: bool = False,
        camera_pitch: float | None = None,
        camera_roll: float | None = None,
        fov: float | None = DEFAULT_FOV,
        height: float | None = None,
        constant_bones: bool = True,
    ) -> Poses:
        """Lift each person in each shot, then put them into one room. Raises UserError.

        constant_bones: keep the directions of the network's bones, but give each bone one length
        in a shot, left and right alike. The rest is as in `__call__`.
        """
        people.check_facts()
        people = people.in_square_pixels()
        fps, size = people.check_facts()
        tracks = tracks_of(people)
        if smooth:
            tracks = [track.smoothed() for track in tracks]

        def lift(track: Track) -> Lifted:
            return lift_track(self, track, size, constant_bones, height)

        lifted = [lift(track) for track in tracks]
        tilts = (
            tilts_of(tracks, lifted, people.cuts, size, fov)
            if camera_roll is None
            else np.full(len(tracks), camera_roll)
        )
        level = [upright(*pair, size) for pair in zip(tracks, tilts, strict=True)]
        # The network knows people as level cameras see them.
        lifted = [
            lift(track) if tilt else one
            for track, tilt, one in zip(level, tilts, lifted, strict=True)
        ]
        placed = place_shots(level, lifted, people.cuts, size, fov, camera_pitch)
        camera = [turned(*pair) for pair in zip(placed.camera, tilts, strict=True)]
        timeline = Timeline.of(tracks, people)
        return Poses(
            persons=people.numbers,
            keypoints_2d=timeline.whole([track.joints for track in tracks], unseen=2),
            pose_3d=timeline.whole(camera).astype(np.float32),
            pose_world=timeline.whole(placed.world).astype(np.float32),
            bone_variation=timeline.mean([one.bone_variation for one in lifted]),
            fps=fps,
            size=size,
            camera_pitch=placed.pitch,
            camera_roll=tilt_of_longest(tracks, tilts, people.cuts),
            fov=fov or 0.0,
            times=people.seconds,
            stretch=timeline.stretch,
        )
