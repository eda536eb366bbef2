"""Places that programs write for keypoints that they did not find.

Such marks are pairs of negative pixels, and one place that several keypoints share, or that they
jump to and return from, again and again. N sightings, J keypoints, E keypoints that have a place.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from demo.keypoint_files.found import Sightings

AT_0 = 0.01  # pixels
OFTEN = 5  # keypoints that have exactly the same place
FEWEST = 3  # places in a file that can be told apart from marks
TOGETHER = 3  # keypoints at one place in one image, in as many images
# A jump: keypoints move less against the body from image to image, in sizes of the person.
JUMP = 0.1
NEAR = 30  # frames
MOSTLY = 0.6  # of the keypoints at a place, that jump there and back
ALWAYS = 0.9  # of a keypoint's sightings: where it is always at one place,
STAYS = 0.02  # and the body moves against it so much, in sizes of the person


def without_marks(
    sightings: Sightings, places: np.ndarray, confidence: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """Confidences (N, J), 0 where the place in pixels (N, J, 2) is such a mark; which is said."""
    kept = confidence.copy()
    kept[(places < 0).all(axis=-1)] = 0
    kept[(np.abs(places) < AT_0).all(axis=-1)] = 0  # 0, 0 before it became -1 to 1
    kept[_marks(places, kept > 0, frame)] = 0
    count = int(((kept == 0) & (confidence > 0)).sum())
    if count:
        sightings.assumed.append(
            f"{count} keypoints at 0, 0, at negative x and y, or at one place again and again, are"
            " taken as not found"
        )
    return kept


def _marks(places: np.ndarray, seen: np.ndarray, frame: np.ndarray) -> np.ndarray:
    marks = np.zeros(seen.shape, dtype=bool)
    if not seen.any():
        return marks
    _, group, counts = np.unique(places[seen], axis=0, return_inverse=True, return_counts=True)
    if counts.max() < OFTEN or len(counts) < FEWEST:
        return marks
    number = np.full(seen.shape, -1)  # of its place
    number[seen] = group.reshape(-1)
    middle, offset = _against_the_body(places, seen)
    runs = _Runs.of(number, offset, frame, _tracks(middle, frame))
    jumping = np.bincount(runs.number, runs.length * runs.jumps, len(counts))
    staying = np.bincount(runs.number, runs.stays, len(counts))
    is_mark = _shared(number, len(counts)) >= TOGETHER
    is_mark |= (jumping >= OFTEN) & (jumping >= MOSTLY * counts)
    is_mark |= staying > 0
    marks[seen] = (is_mark & (counts >= OFTEN))[number[seen]]
    return marks


def _against_the_body(places: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each person (N, 2), and places from there in sizes of people (N, J, 2)."""
    inside = np.where(seen[..., None], places, np.nan)
    known = seen.any(axis=1)
    middle = np.full((len(places), 2), np.nan)
    middle[known] = np.nanmedian(inside[known], axis=1)
    extent = np.nanmax(inside[known], axis=1) - np.nanmin(inside[known], axis=1)
    size = max(float(np.median(extent.max(axis=-1))), 1e-9)
    return middle, (inside - middle[:, None]) / size


def _shared(number: np.ndarray, count: int) -> np.ndarray:
    """Of each place, in how many sightings several keypoints have it."""
    rows = np.broadcast_to(np.arange(len(number))[:, None], number.shape)[number >= 0]
    pairs, times = np.unique(
        np.stack([number[number >= 0], rows], axis=-1), axis=0, return_counts=True
    )
    return np.bincount(pairs[times >= TOGETHER, 0], minlength=count)


def _tracks(middle: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(N,) a number for each person, by who is nearest from image to image."""
    track = np.arange(len(frame))
    order = np.argsort(frame, kind="stable")
    _, starts = np.unique(frame[order], return_index=True)
    for before, after in pairwise(np.split(order, starts[1:])):
        if len(before) == len(after) == 1:
            track[after] = track[before]
            continue
        apart = np.linalg.norm(middle[before, None] - middle[None, after], axis=-1)
        apart = np.where(np.isfinite(apart), apart, np.inf)
        for place, nearest in enumerate(apart.argmin(axis=1)):
            if apart[:, nearest].argmin() == place:  # each is the other's nearest
                track[after[nearest]] = track[before[place]]
    return track


@dataclass(frozen=True)
class _Runs:
    """Stretches (R,) over which a keypoint of a person stays at one place.

    number: of the place; length: in sightings; jumps: whether the keypoint jumps there and comes
    back to about where it was; stays: whether it is there always, but the body moves.
    """

    number: np.ndarray
    length: np.ndarray
    jumps: np.ndarray
    stays: np.ndarray

    @classmethod
    def of(
        cls, number: np.ndarray, offset: np.ndarray, frame: np.ndarray, track: np.ndarray
    ) -> "_Runs":
        """number: (N, J) of each place, -1: unseen; offset: (N, J, 2) against the body."""
        rows, joints = np.nonzero(number >= 0)
        order = np.lexsort((frame[rows], joints, track[rows]))
        rows, joints = rows[order], joints[order]
        number, offset, frame = number[rows, joints], offset[rows, joints], frame[rows]  # (E, …)
        one = (np.diff(track[rows]) == 0) & (np.diff(joints) == 0)  # of one person's keypoint
        starts = np.append(True, ~one | (np.diff(number) != 0))
        first = np.flatnonzero(starts)
        last = np.append(first[1:], len(rows)) - 1
        one = one & (np.diff(frame) <= NEAR)
        comes, goes = np.append(False, one)[first], np.append(one, False)[last]
        before, after = np.maximum(first - 1, 0), np.minimum(last + 1, len(rows) - 1)
        far_in = np.linalg.norm(offset[first] - offset[before], axis=-1)
        far_out = np.linalg.norm(offset[after] - offset[last], axis=-1)
        across = np.linalg.norm(offset[after] - offset[before], axis=-1)
        nearer = np.minimum(np.where(comes, far_in, np.inf), np.where(goes, far_out, np.inf))
        back = ~(comes & goes) | (across < nearer)
        length = last - first + 1
        return cls(
            number[first],
            length,
            (comes | goes) & (nearer > JUMP) & back,
            _stays(offset, starts, first, length, np.append(True, ~one)),
        )


def _stays(
    offset: np.ndarray,
    starts: np.ndarray,
    first: np.ndarray,
    length: np.ndarray,
    keypoints: np.ndarray,
) -> np.ndarray:
    """(R,) whether a run is nearly all of its keypoint and moves against the body.

    starts, keypoints: (E,) where a run, and where a person's keypoint, begins.
    """
    run, keypoint = np.cumsum(starts) - 1, np.cumsum(keypoints) - 1
    whole = np.bincount(keypoint)[keypoint[first]]  # sightings of the run's keypoint
    mean = [np.bincount(run, offset[:, axis]) / length for axis in (0, 1)]
    square = [np.bincount(run, offset[:, axis] ** 2) / length for axis in (0, 1)]
    variance = square[0] - mean[0] ** 2 + square[1] - mean[1] ** 2
    moves = np.sqrt(np.maximum(variance, 0)) > STAYS
    stays: np.ndarray = moves & (length >= ALWAYS * whole) & (length >= OFTEN)
    return stays
