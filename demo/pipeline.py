"""Video or keypoints in, poses out: detect, follow, lift, stand in a room.

A video is read twice, once for its people and once for the film, so no more than a few frames are
ever in memory; keypoints and poses of all frames are (about 1 kB a frame and person).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from demo.detection import detect_people
from demo.detectors import choose_detector
from demo.framing import Framing
from demo.keypoint_files import KeypointFile
from demo.lifting import bridge_confidence, lift_track
from demo.poses import Poses, bone_variation, fit_bones
from demo.smoothing import smooth_track
from demo.tracking import Track, choose_tracks, fill_gaps, track_people
from demo.video import Video, find_video
from demo.world import estimate_pitch, millimetres_per_unit, places, to_room
from lib.errors import UserError
from lib.keypoints import Layout, find_layout
from lib.skeleton import H36M

if TYPE_CHECKING:
    from model.mdtf import MDTF

DEFAULT_CHECKPOINT = "checkpoint/mocap/tiny"
# For files and cameras that do not say; told to the user where it is used.
ASSUMED_FPS = 25.0
MAX_FPS = 1000
LEG = 0.9  # length of a thigh or shin against the trunk's


@dataclass(frozen=True)
class People2D:
    """The chosen people of a video, before lifting.

    keypoints: person number -> (F, J, 3) in the detector's layout, an entry for every frame.
    """

    keypoints: dict[int, np.ndarray]
    layout: Layout
    fps: float
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not 0 < self.fps <= MAX_FPS:
            raise UserError(f"{self.fps} frames/s is no frame rate; give one up to {MAX_FPS}")
        if min(self.size) < 1:
            raise UserError(f"{self.size[0]}x{self.size[1]} is no image size; give --size 1280x720")

    @property
    def stacked(self) -> np.ndarray:
        """(P, F, J, 3)"""
        return np.stack(list(self.keypoints.values()))

    @property
    def num_frames(self) -> int:
        return len(next(iter(self.keypoints.values())))

    @cached_property
    def h36m(self) -> dict[int, np.ndarray]:
        """Person number -> (F, 17, 3)."""
        found = {n: self.layout.to_h36m(points) for n, points in self.keypoints.items()}
        return {n: with_straight_legs(track) for n, track in found.items()}


def with_straight_legs(track: np.ndarray) -> np.ndarray:
    """(F, 17, 3): knees and ankles that are never seen are straight below the hips."""
    never = (track[..., 2] == 0).all(axis=0)
    standing = track.copy()
    trunk = track[:, H36M.index("thorax"), :2] - track[:, H36M.index("pelvis"), :2]
    for side in ("left", "right"):
        for above, below in (("hip", "knee"), ("knee", "ankle")):
            joint = H36M.index(f"{side}_{below}")
            if never[joint]:
                standing[:, joint, :2] = standing[:, H36M.index(f"{side}_{above}"), :2]
                standing[:, joint, 1] += LEG * np.linalg.norm(trunk, axis=-1)
    return standing


def _filled(
    tracks: dict[int, Track], frames: int, layout: Layout, fps: float, size: tuple[int, int]
) -> People2D:
    keypoints = {n: fill_gaps(track, frames, layout.mirror) for n, track in tracks.items()}
    return People2D(keypoints, layout, fps, size)


def people_in_video(
    source: str,
    detector: str = "mediapipe",
    person: str = "largest",
    weights_dir: str | os.PathLike[str] | None = None,
    fps: float = 0.0,
    on_frame: Callable[[], object] = lambda: None,
) -> People2D:
    """Detect and follow people. fps: 0 takes the video's. Raises UserError."""
    choice = choose_detector(detector, weights_dir, several_people=person != "largest")
    with Video(source) as video:
        fps, size = fps or video.fps or ASSUMED_FPS, video.size
    detections, layout = detect_people(source, choice, on_frame)
    tracks, frames = track_people(detections, fps)
    return _filled(choose_tracks(tracks, person), frames, layout, fps, size)


def people_in_file(
    file: KeypointFile, person: str, fps: float, size: tuple[int, int] | None
) -> People2D:
    """People of a keypoint file; fps and size, where given, go before the file's own.

    Raises UserError.
    """
    size = size or file.size
    if size is None:
        raise UserError(
            "the keypoint file does not say how large its images are; give --size 1280x720, or"
            " --video with the video they were found in"
        )
    chosen = choose_tracks(file.tracks, person)
    return _filled(chosen, file.frames, file.layout, fps or file.fps or ASSUMED_FPS, size)


class VideoLifter:
    """A trained MDTF and all around it that takes a video to 3D poses.

    >>> poses = VideoLifter.from_checkpoint()("jump.mp4")
    >>> poses.pose_world.shape  # (people, frames, 17, 3), mm, z up
    """

    def __init__(self, model: "MDTF", *, flip: bool = True, device: str = "cpu") -> None:
        """model: in eval mode; flip: average with the mirrored view."""
        if model.skeleton.names != H36M.names:
            raise UserError(
                "this checkpoint was trained on other joints than Human3.6M's (dataset:"
                " mpi_inf_3dhp?); the demo needs one of Human3.6M or of mocap"
            )
        self._model, self._flip, self._device = model.to(device), flip, device
        self.n_frames: int = model.n_frames
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
        from lib.checkpoint import BEST, find_checkpoint
        from lib.config import load_config
        from lib.device import choose_device
        from model.build import load_mdtf
        from model.ops import resolve_backend

        path = find_checkpoint(checkpoint, BEST)
        settings = None if config is None else load_config(config, stage=2)
        model = load_mdtf(path, settings, stage1_checkpoint)
        place = choose_device(device)
        lifter = cls(model, flip=flip, device=str(place))
        name, reason = resolve_backend("auto", place, next(model.parameters()).dtype)
        lifter.backend = f"{name} ({reason})"
        return lifter

    def lift(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, 17, 3) normalised clips -> (N, T, 17, 3) normalised poses."""
        from lib.evaluation import predict

        # A batch's size in frames, so that long clips take no more memory than short ones.
        batch_size = max(1, 864 // self.n_frames)
        return predict(
            self._model,
            clips,
            H36M,
            flip=self._flip,
            batch_size=batch_size,
            device=self._device,
        )

    def __call__(
        self,
        video: str,
        *,
        detector: str = "mediapipe",
        person: str = "largest",
        smooth: bool = False,
        camera_pitch: float | None = None,
    ) -> Poses:
        """Poses of a video's people. Raises UserError.

        person: 'largest', 'all' or a number; smooth: One-Euro filter on the keypoints;
        camera_pitch: degrees the camera looks down, None to estimate it.
        """
        people = people_in_video(find_video(video), detector, person)
        return self.lift_people(people, smooth=smooth, camera_pitch=camera_pitch)

    def lift_keypoints(
        self,
        keypoints: np.ndarray,
        size: tuple[int, int],
        fps: float,
        *,
        layout: str = "h36m17",
        smooth: bool = False,
        camera_pitch: float | None = None,
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
        tracks = {}
        people = array[None] if array.ndim == 3 else array
        for number, person in enumerate(people, 1):
            seen = np.flatnonzero((person[..., 2] > 0).any(axis=-1)).tolist()
            if seen:
                tracks[number] = Track(seen, list(person[seen]))
        if not tracks:
            raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
        filled = _filled(tracks, people.shape[1], found, fps, size)
        return self.lift_people(filled, smooth=smooth, camera_pitch=camera_pitch)

    def lift_people(
        self,
        people: People2D,
        *,
        smooth: bool = False,
        camera_pitch: float | None = None,
        constant_bones: bool = True,
    ) -> Poses:
        """Lift each person, then put them into one room.

        constant_bones: keep the directions of the network's bones, but give each bone one length
        for the whole video, left and right alike.
        """
        fps, size = people.fps, people.size
        tracks = list(people.h36m.values())
        if smooth:
            tracks = [smooth_track(track, fps) for track in tracks]
        poses, scales, variation = [], [], []
        for track in tracks:
            framing = Framing.of(track, size)
            pose = lift_track(self, bridge_confidence(framing.to_screen(track)))
            scale = millimetres_per_unit(pose)
            pose = pose * np.float32(scale)
            variation.append(bone_variation(pose))
            poses.append(fit_bones(pose) if constant_bones else pose)
            scales.append(scale / framing.half)  # mm per pixel
        pitch = estimate_pitch(poses, fps) if camera_pitch is None else float(camera_pitch)
        world = np.stack([to_room(pose, pitch, fps) for pose in poses])
        if len(tracks) > 1:
            world[..., :2] += places(tracks, scales, size)[:, None, None, :]
        return Poses(
            persons=np.array(list(people.keypoints)),
            keypoints_2d=np.stack(tracks),
            pose_3d=np.stack(poses),
            pose_world=world,
            bone_variation=np.array(variation),
            fps=fps,
            size=size,
            camera_pitch=pitch,
        )
