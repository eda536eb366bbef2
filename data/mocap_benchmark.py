"""The motion capture benchmark's sets: who is in which, what is taken of them, how they are filmed.

docs/benchmark.md describes it. Training has motion, which data/views.py films anew in each epoch;
the other sets are videos at 50 frames a second of whole recordings, the actor's own bones filmed
by one camera each, with what a detector sees and, as a set of its own, with exact 2D.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.cameras import draw_anywhere, image_and_depth
from data.detector_noise import detect, draw_detector, shift_joints
from data.motions import UNIT_MM, Motion
from data.sequences import Sequences, Video
from data.sources.mocap import Clip
from lib.arrays import Floats, Ints
from lib.camera import H36M_FPS, from_screen, to_screen
from lib.errors import UserError

VERSION = 1  # grows with every change of what is in a set
SEED = 20251125  # of the cameras and the detector

# The subjects of each set that is not trained on; all others train.
VALIDATION = "validation"
HELD_OUT = {
    VALIDATION: ("cmu03", "cmu14", "prmd08", "accad_male2"),
    "sport": ("cmu02", "cmu131", "cmu135"),
    "everyday": ("prmd09", "prmd10", "accad_female1", "cmu49"),
}


@dataclass(frozen=True)
class Limit:
    """What is taken of a source that repeats itself.

    share: of its training windows in an epoch; frames: of each held-out recording, from its start.
    """

    share: float = 1.0
    frames: int | None = None


# By the subject, or by its name without the number.
LIMITS = {
    "prmd": Limit(share=0.25, frames=400),  # ten repetitions of one exercise
    "idle": Limit(share=0.1),  # little variety
    "cmu14": Limit(frames=600),  # minutes of mopping and window washing
}

# Steps of the stored numbers, powers of two: far above the last bits in which machines differ, so
# that the checksums agree, and far below what can be seen (0.03 pixels; of the factor, 0.06 µm).
SCREEN_STEP, CONFIDENCE_STEP, FACTOR_STEP = 2.0**-14, 2.0**-10, 2.0**-14


def limit_of(subject: str) -> Limit:
    return LIMITS.get(subject) or LIMITS.get(subject.rstrip("0123456789"), Limit())


def set_of(subject: str) -> str | None:
    """The held-out set of a subject, None for those that train."""
    return next((name for name, subjects in HELD_OUT.items() if subject in subjects), None)


def check_complete(clips: Iterable[Clip]) -> None:
    """Raise UserError unless every held-out subject is there, and somebody to train on."""
    there = {clip.subject for clip in clips}
    missing = [s for subjects in HELD_OUT.values() for s in subjects if s not in there]
    if missing:
        raise UserError(
            f"these files lack the subjects {', '.join(missing)} of the benchmark; give all files"
            " of its motion capture, or use data/preprocess/mocap.py for other motion"
        )
    if not any(set_of(subject) is None for subject in there):
        raise UserError("these files have nobody to train on; give all files of the motion capture")


def training_motions(clips: Iterable[Clip]) -> list[Motion]:
    """The recordings of all who are not held out."""
    return [
        Motion(clip.name, clip.subject, limit_of(clip.subject).share, _as_integers(clip))
        for clip in clips
        if set_of(clip.subject) is None
    ]


def _as_integers(clip: Clip) -> Ints:
    steps = np.rint(clip.motion / UNIT_MM)
    if np.abs(steps).max() > np.iinfo(np.int16).max:
        raise UserError(f"{clip.name}: goes farther than 16 m from where it started; cut it")
    return steps.astype(np.int16)


# --- Videos -----------------------------------------------------------------------------------


def held_out_videos(clips: Sequence[Clip], name: str) -> Iterator[Sequences]:
    """One video for each recording of a held-out set, in the order of their names."""
    for clip in sorted(clips, key=lambda clip: clip.name):
        if set_of(clip.subject) == name:
            yield film(clip)


def film(clip: Clip) -> Sequences:
    """A recording as one camera and one detector see it; all follows from its name and SEED."""
    rng = np.random.default_rng([SEED, zlib.crc32(clip.name.encode())])
    motion = clip.motion[: limit_of(clip.subject).frames].astype(np.float64)
    view = draw_anywhere(rng, motion)
    image, factor = image_and_depth(view.to_camera(motion), view.camera)
    meant = np.concatenate([shift_joints(rng, image[..., :2]), image[..., 2:]], axis=-1)
    joint_2d, confidence = detect(rng, meant, factor, draw_detector(rng))
    size = view.camera.size
    image, joint_2d = (_rounded_pixels(pose, size) for pose in (image, joint_2d))
    factor = _rounded(factor, FACTOR_STEP)
    return Sequences(
        [Video(clip.name, view.camera, clip.action, clip.subject, H36M_FPS, len(motion))],
        joint_2d,
        _rounded(confidence, CONFIDENCE_STEP),
        image,
        factor,
        (image * factor[:, None, None]).astype(np.float32),
    )


def _rounded(values: Floats, step: float) -> Floats:
    return np.rint(values / step) * step


def _rounded_pixels(pose: Floats, size: tuple[int, int]) -> Floats:
    """Pixels that lie on whole steps of the normalised screen."""
    return from_screen(_rounded(to_screen(pose, size), SCREEN_STEP), size)


def exact(videos: Sequences) -> Sequences:
    """The same videos with exact 2D, of confidence 1."""
    return replace(
        videos,
        joint_2d=videos.joint_3d[..., :2],
        confidence=np.ones_like(videos.confidence),
    )


def checksum(arrays: dict[str, np.ndarray], names: Sequence[Sequence[str]]) -> str:
    """sha256 over arrays, each with its name, type and shape, little-endian, and over names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {plain.dtype.str} {plain.shape}\n".encode())
        digest.update(plain.data)
    for part in names:
        digest.update(("\n".join(part) + "\n\n").encode())
    return digest.hexdigest()
