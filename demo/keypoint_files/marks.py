"""Places that programs write for keypoints that they did not find.

Such marks are pairs of negative pixels, and one place that several keypoints share or jump to.
N sightings, J keypoints.
"""

from itertools import pairwise

import numpy as np

from demo.keypoint_files.found import Sightings

OFTEN = 5  # sightings that have exactly the same place
TOGETHER = 3  # keypoints at one place in one image, in as many images
# A jump: keypoints move less against the body from image to image, in sizes of the person.
JUMP = 0.1
NEAR = 30  # frames
ALWAYS = 0.9  # of a keypoint's sightings: where it is always at one place,
STAYS = 0.02  # and the body moves against it so much, in sizes of the person


def without_marks(
    sightings: Sightings, places: np.ndarray, confidence: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """Confidences (N, J), 0 where the place in pixels (N, J, 2) is such a mark; which is said."""
    kept = confidence.copy()
    kept[(places < 0).all(axis=-1)] = 0
    kept[_marks(places, kept > 0, frame)] = 0
    count = int(((kept == 0) & (confidence > 0)).sum())
    if count:
        sightings.assumed.append(
            f"{count} keypoints at negative x and y, or at one place again and again, are taken as"
            " not found"
        )
    return kept


def _marks(places: np.ndarray, seen: np.ndarray, frame: np.ndarray) -> np.ndarray:
    marks = np.zeros(seen.shape, dtype=bool)
    if not seen.any():
        return marks
    _, group, counts = np.unique(places[seen], axis=0, return_inverse=True, return_counts=True)
    often = counts >= OFTEN
    if not often.any():
        return marks
    inside = np.where(seen[..., None], places, np.nan)
    is_known = seen.any(axis=1)
    middle = np.full((len(places), 2), np.nan)
    middle[is_known] = np.nanmedian(inside[is_known], axis=1)
    extent = np.nanmax(inside[is_known], axis=1) - np.nanmin(inside[is_known], axis=1)
    size = max(float(np.median(extent.max(axis=-1))), 1e-9)
    offset = (inside - middle[:, None]) / size  # (N, J, 2)
    jumps = _jumps(offset, middle, frame)
    number = np.full(seen.shape, -1)
    number[seen] = group.reshape(-1)
    for one in np.flatnonzero(often):
        members = number == one
        together = members.sum(axis=1) >= TOGETHER
        if together.sum() >= TOGETHER or _is_jumped_to(members, jumps, offset, seen):
            marks |= members
    return marks


def _jumps(offset: np.ndarray, middle: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(2, N, J): the way of each keypoint against the body to the same person's next and previous
    sighting, NaN where it is not seen in both."""
    jumps = np.full((2, *offset.shape[:2]), np.nan)
    order = np.argsort(frame, kind="stable")
    _, starts = np.unique(frame[order], return_index=True)
    groups = np.split(order, starts[1:])
    for before, after in pairwise(groups):
        if frame[after[0]] - frame[before[0]] > NEAR:
            continue
        apart = np.linalg.norm(middle[before, None] - middle[None, after], axis=-1)
        if not np.isfinite(apart).any():
            continue
        for place, row in enumerate(before):
            if np.isfinite(apart[place]).any():
                partner = after[np.nanargmin(apart[place])]
                way = np.linalg.norm(offset[row] - offset[partner], axis=-1)
                jumps[0, row], jumps[1, partner] = way, way
    return jumps


def _is_jumped_to(
    members: np.ndarray, jumps: np.ndarray, offset: np.ndarray, seen: np.ndarray
) -> bool:
    """Whether keypoints jump to and from their common place, or stay there as the body walks on."""
    for joint in np.flatnonzero(members.sum(axis=0)):
        at = members[:, joint]
        if at.sum() >= ALWAYS * seen[:, joint].sum() and at.sum() >= OFTEN:
            spread = np.linalg.norm(offset[at, joint].std(axis=0))
            if spread > STAYS:
                return True
    rows, joints = np.nonzero(members)
    ways = jumps[:, rows, joints].ravel()
    ways = ways[np.isfinite(ways)]
    # Inside of a run of marks the body moves on, which is no jump: the ends of the runs count.
    far = ways[ways > JUMP]
    return len(far) >= 2 and len(far) >= 0.1 * len(ways)
