"""The One-Euro filter: steady when the body is still, prompt when it moves.

Source: Casiez, Roussel and Vogel 2012, "1 € Filter". Positions are filtered in units of the body's
size, so the same numbers serve a small and a large person, in pixels and in millimetres.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from demo.people import People
from demo.stretches import split

DERIVATIVE_CUTOFF = 1.0  # Hz


class Strength(NamedTuple):
    """min_cutoff: Hz, of a body at rest: lower is steadier. beta: per (body size / second): higher
    follows fast motion with less delay.
    """

    min_cutoff: float
    beta: float


STRONG = Strength(1.5, 3.0)
# As steady as MediaPipe's keypoints are (which lag behind instead).
LIGHT = Strength(1.5, 8.0)


def _gain(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    ratio = 2 * np.pi * cutoff * seconds
    return ratio / (ratio + 1)


class OneEuro:
    """Filters points (..., D) that arrive one after another."""

    def __init__(self, scale: float, strength: Strength = STRONG) -> None:
        """scale: the body's size in the units of the points."""
        self._scale, self._strength = max(scale, 1e-9), strength
        self._points: np.ndarray | None = None
        self._speed: np.ndarray | float = 0.0

    def __call__(self, points: np.ndarray, seconds: float) -> np.ndarray:
        """The points' filtered position, `seconds` after the last call."""
        if self._points is None:
            self._points = points.astype(np.float64)
            return points.copy()
        speed = (points - self._points) / (seconds * self._scale)
        self._speed += _gain(DERIVATIVE_CUTOFF, seconds) * (speed - self._speed)
        # One cutoff for a point, not one a coordinate: otherwise the filter would bend its path.
        pace = np.linalg.norm(self._speed, axis=-1, keepdims=True)
        gain = _gain(self._strength.min_cutoff + self._strength.beta * pace, seconds)
        self._points = self._points + gain * (points - self._points)
        return self._points.astype(points.dtype)


def smooth_track(
    keypoints: np.ndarray, times: np.ndarray, strength: Strength = STRONG
) -> np.ndarray:
    """(F, J, 3) -> the same, smoothed without delay: the mean of a pass forth and one back.

    times: (F,) seconds. The confidences stay as they are.
    """
    xy = keypoints[..., :2]
    scale = float(np.median(np.ptp(xy, axis=1).max(axis=-1)))
    forth, back = OneEuro(scale, strength), OneEuro(scale, strength)
    passes = np.zeros_like(xy)
    steps = np.diff(times)
    for frame in range(len(xy)):
        passes[frame] += forth(xy[frame], steps[frame - 1] if frame else 0.0) / 2
    for frame in reversed(range(len(xy))):
        passes[frame] += back(xy[frame], steps[frame] if frame < len(steps) else 0.0) / 2
    return np.concatenate([passes, keypoints[..., 2:]], axis=-1)


def steady(people: People) -> People:
    """The same people, smoothed lightly, each stretch of each person by itself."""
    keypoints = people.keypoints.copy()
    for number in people.numbers.tolist():
        rows = np.flatnonzero(people.person == number)
        frame = people.frame[rows]
        times = people.seconds[frame]
        for part in split(people.keypoints[rows], frame, times, people.cuts):
            theirs = rows[part]
            keypoints[theirs] = smooth_track(people.keypoints[theirs], times[part], LIGHT)
    return replace(people, keypoints=keypoints)
