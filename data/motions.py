"""Motion for training: all recordings of a folder, memory-mapped.

N frames of all recordings, M recordings, J joints; z up, 50 frames a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.store import Entry, open_arrays
from lib.arrays import Ints
from lib.errors import UserError
from lib.files import UNREADABLE

UNIT_MM = 0.5  # of the stored integers


@dataclass(frozen=True)
class Motion:
    """A recording. share: how much of it an epoch takes; 1 is all of it."""

    name: str
    subject: str
    share: float
    frames: Ints  # (T, J, 3) int16, in UNIT_MM


def to_arrays(motions: Sequence[Motion]) -> tuple[dict[str, np.ndarray], Entry]:
    """What the store keeps of them."""
    arrays = {
        "motion": np.concatenate([motion.frames for motion in motions]),
        "length": np.array([len(motion.frames) for motion in motions], np.int32),
        "share": np.array([motion.share for motion in motions], np.float32),
    }
    names = [motion.name for motion in motions]
    return arrays, {"names": names, "subjects": [motion.subject for motion in motions]}


def read_motions(directory: Path, split: str, num_joints: int, door: str) -> list[Motion]:
    """The recordings of a split. Raises UserError: there are none, or they are damaged."""
    entry, arrays = open_arrays(directory, split, ("motion", "length", "share"), door)
    try:
        # A plain view of the mapped file: each slice of a memmap object takes microseconds.
        frames = np.asarray(arrays["motion"])
        lengths, shares = arrays["length"].tolist(), arrays["share"].tolist()
        if frames.dtype != np.int16 or frames.shape != (sum(lengths), num_joints, 3):
            raise ValueError
        if not lengths or min(lengths) < 1 or not all(0 < share <= 1 for share in shares):
            raise ValueError
        starts = np.cumsum([0, *lengths]).tolist()
        return [
            Motion(str(name), str(subject), share, frames[start : start + length])
            for name, subject, share, start, length in zip(
                entry["names"], entry["subjects"], shares, starts[:-1], lengths, strict=True
            )
        ]
    except UNREADABLE as error:
        raise UserError(f"{directory}: damaged; make it anew with {door}") from error
