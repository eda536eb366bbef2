"""Stretches: one person in one shot. Each is filled, framed, scaled and lifted by itself.

N sightings of one person, J keypoints.
"""

import numpy as np

# A longer absence (seconds) ends a stretch: what happened meanwhile is not known.
PATIENCE = 2.0
# How far a person's keypoints may be, on average, from where they were going: in sizes of the
# person, at once and for each second between two sightings.
LEAP, LEAP_PER_SECOND = 0.035, 1.4
MOST = 0.75  # of the keypoints: a few may be far off, as fast hands and mistakes are
SPREADS = 3.5  # the longer side of somebody who stands, in mean distances from the middle
# How much larger or smaller they may become, as a natural logarithm, at once and for each second.
GROWTH, GROWTH_PER_SECOND = 0.2, 1.8
MOMENT = 3  # sightings before and after that tell where somebody was going
# A piece shorter than this (seconds) after which the person goes on from where they were before it
# is a slip of the detector.
SLIP = 0.25


def split(
    keypoints: np.ndarray, frame: np.ndarray, times: np.ndarray, cuts: np.ndarray
) -> list[np.ndarray]:
    """One person's sightings (N, J, 3) -> the indices of each stretch; those of slips are left out.

    frame: (N,) rising; times: (N,) seconds; cuts: the frames that begin a new shot.
    """
    shot = np.searchsorted(cuts, frame, side="right")
    apart = (np.diff(times) > PATIENCE) | (np.diff(shot) > 0)
    borders = np.flatnonzero(apart | leaps(keypoints, times)) + 1
    pieces = np.split(np.arange(len(frame)), borders)
    stretches: list[np.ndarray] = []
    while pieces:
        piece = pieces.pop(0)
        while after := _after_slip(piece, pieces, keypoints, times, shot):
            piece = np.concatenate([piece, pieces[after]])
            del pieces[: after + 1]
        stretches.append(piece)
    return stretches


def _after_slip(
    before: np.ndarray,
    pieces: list[np.ndarray],
    keypoints: np.ndarray,
    times: np.ndarray,
    shot: np.ndarray,
) -> int:
    """The index of the piece in which a person is seen on after a slip of the detector, 0: none.

    pieces: those after `before`. A slip may be several of them: detectors jump to and fro.
    """
    for after in range(1, len(pieces)):
        slip = np.concatenate(pieces[:after])
        if times[slip[-1]] - times[slip[0]] > SLIP:
            break
        if _goes_on(before, slip, pieces[after], keypoints, times, shot):
            return after
    return 0


def _goes_on(
    before: np.ndarray,
    slip: np.ndarray,
    after: np.ndarray,
    keypoints: np.ndarray,
    times: np.ndarray,
    shot: np.ndarray,
) -> bool:
    """Whether a person is seen on after a slip."""
    ends = np.array([before[-1], after[0]])
    if len(slip) >= min(len(before), len(after)):
        return False
    if np.diff(times[ends]) > PATIENCE or np.diff(shot[ends]):
        return False
    around = np.concatenate([before[-MOMENT - 1 :], after[: MOMENT + 1]])
    return not leaps(keypoints[around], times[around])[len(before[-MOMENT - 1 :]) - 1]


def leaps(keypoints: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(N - 1,) whether two sightings (N, J, 3) that follow each other are of two people or shots.

    They are where the person's size changes at once, and where the keypoints are elsewhere than the
    person's speed leads to, be it none, that of the moment before or that of the moment after.
    """
    seconds = np.diff(times)
    both = (keypoints[1:, :, 2] > 0) & (keypoints[:-1, :, 2] > 0)  # (N - 1, J)
    steps = np.where(both[..., None], np.diff(keypoints[..., :2], axis=0), np.nan)
    ends = [np.where(both[..., None], k[..., :2], np.nan) for k in (keypoints[:-1], keypoints[1:])]
    before, after = (_spread(points) for points in ends)
    limit = SPREADS * np.minimum(before, after) * (LEAP + LEAP_PER_SECOND * seconds)
    known = np.flatnonzero(both.sum(axis=-1) >= 2)
    speed = np.full((len(steps), 2), np.nan)
    # The median keypoint's speed is that of the body, whatever the arms do.
    speed[known] = np.nanmedian(steps[known], axis=1) / seconds[known, None]
    result = np.zeros(len(steps), dtype=bool)
    result[known] = _distance(steps[known]) > limit[known]
    for index in np.flatnonzero(result):
        for moment in (speed[max(0, index - MOMENT) : index], speed[index + 1 :][:MOMENT]):
            moment = moment[np.isfinite(moment).all(axis=-1)]
            if len(moment):
                way = np.median(moment, axis=0) * seconds[index]
                result[index] &= _distance(steps[index] - way) > limit[index]
    return result | (np.abs(np.log(after / before)) > GROWTH + GROWTH_PER_SECOND * seconds)


def _distance(steps: np.ndarray) -> np.ndarray:
    """(..., J, 2) -> (...), the mean length of the shortest MOST of those that are known."""
    lengths = np.sort(np.linalg.norm(steps, axis=-1), axis=-1)  # those that are unknown come last
    count = np.ceil(MOST * np.isfinite(lengths).sum(axis=-1, keepdims=True))
    counts = np.arange(lengths.shape[-1]) < count
    return np.where(counts, lengths, 0).sum(axis=-1) / np.maximum(count[..., 0], 1)


def _spread(points: np.ndarray) -> np.ndarray:
    """(N, J, 2) -> (N,), the mean distance from the middle of those that are known, at least 1."""
    spread = np.ones(len(points))
    known = np.isfinite(points[..., 0]).any(axis=-1)
    some = points[known]
    away = np.linalg.norm(some - np.nanmean(some, axis=1, keepdims=True), axis=-1)
    spread[known] = np.maximum(np.nanmean(away, axis=-1), 1)
    return spread
