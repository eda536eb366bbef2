"""Several people live: each with a number, a past and a place in the room of their own."""

from collections.abc import Callable

import numpy as np

from demo.looks import describe
from demo.people import Found, bounding_box
from demo.tracking import PATIENCE, Tracker
from demo.world import places
from lib.film import Frame
from lib.keypoints import Layout

# Keypoints (17, 3) in pixels at a time in seconds -> pose (17, 3) in camera axes, mm, root at 0.
Sliding = Callable[[np.ndarray, float], np.ndarray]

SETTLE = 0.5  # seconds in which a place in the room follows where somebody is seen
REACH_MM = 1600.0  # how far from the middle of the group somebody is drawn


class LivePeople:
    """Lifts the people of each moment, all of them or the largest."""

    def __init__(
        self, make: Callable[[], Sliding], layout: Layout, size: tuple[int, int], fps: float
    ) -> None:
        """make: what lifts one person; size and fps: of the frames."""
        self._make, self._layout, self._size = make, layout, size
        self._tracker, self._fps = Tracker(fps), fps
        self._lifters: dict[int, Sliding] = {}
        self._seen: dict[int, float] = {}  # when each was seen last
        self._spots: dict[int, np.ndarray] = {}  # (2,) mm in the room
        self._now, self._last = 0.0, 0.0  # seconds of the last update and of the last spots

    def largest(self, people: Found, seconds: float) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Like `everybody`, of the largest person; they stand in the middle."""
        if not len(people):
            return [], np.zeros((0, 17, 3)), np.zeros((0, 17, 3))
        areas = [np.prod(box[2:] - box[:2]) for box in map(bounding_box, people)]
        keypoints = self._layout.to_h36m(people[int(np.argmax(areas))])
        lifter = self._lifters.setdefault(0, self._make())
        return [0], keypoints[None], lifter(keypoints, seconds)[None]

    def everybody(
        self, frame: Frame, people: Found, seconds: float
    ) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Numbers, 0 the first to appear; keypoints (P, 17, 3) in pixels; poses (P, 17, 3) in mm.

        Each pose in camera axes with its root at 0.
        """
        looks = describe(frame, people, self._layout)
        frames = max(1, round((seconds - self._now) * self._fps))
        self._now = seconds
        numbers = self._tracker.update(people, looks, frames)
        keypoints = self._layout.to_h36m(people)
        for number in numbers:
            self._lifters.setdefault(number, self._make())
            self._seen[number] = seconds
        poses = [
            self._lifters[number](points, seconds)
            for number, points in zip(numbers, keypoints, strict=True)
        ]
        for number in [n for n, last in self._seen.items() if seconds - last > PATIENCE]:
            for known in (self._lifters, self._seen, self._spots):
                known.pop(number, None)
        return numbers, keypoints, np.array(poses).reshape(-1, 17, 3)

    def spots(
        self, numbers: list[int], keypoints: np.ndarray, poses: np.ndarray, seconds: float
    ) -> np.ndarray:
        """(P, 2): where they stand against each other, x right and y away, in mm."""
        if len(numbers) < 2:
            return np.zeros((len(numbers), 2))
        scales = [
            float(np.ptp(p[:, 1]) / max(np.ptp(k[:, 1]), 1.0))
            for p, k in zip(poses, keypoints, strict=True)
        ]
        now = np.clip(places(list(keypoints[:, None]), scales, self._size), -REACH_MM, REACH_MM)
        gain = 1 - np.exp(-max(seconds - self._last, 0.0) / SETTLE)
        self._last = seconds
        for number, spot in zip(numbers, now, strict=True):
            before = self._spots.get(number, spot)
            self._spots[number] = before + gain * (spot - before)
        return np.array([self._spots[number] for number in numbers])
