"""Finds the people in every frame of a video, in sections side by side where that is faster."""

import os
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import tee
from threading import Condition, Event

import numpy as np

from demo.looks import describe
from demo.people import Detector, Found, People, Pose2D
from demo.shots import find_cuts, small_picture
from demo.tracking import agreement
from demo.video import Video
from lib.keypoints import Layout

# Frames before its section that a detector sees first, so that it follows its people already.
WARM_UP = 6
# Shorter sections are not worth their warm-up.
MIN_SECTION = 60
MAX_WORKERS = 8
SAME_PERSON = 0.5  # with this agreement or more, two sections follow the same person


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def sections(count: int, workers: int) -> list[tuple[int, int | None]]:
    """Splits `count` frames among workers: (first frame, end), the last one without an end.

    The count may be wrong or 0 (unknown): every frame of the video is still in some section.
    """
    parts = max(1, min(workers, count // MIN_SECTION))
    borders = [count * part // parts for part in range(parts)]
    ends: list[int | None] = [*borders[1:], None]
    return list(zip(borders, ends, strict=True))


@dataclass
class _Section:
    """Frames start to end, and the people found in each, in order, maybe beyond the end."""

    start: int
    end: int | None
    people: list[Found] = field(default_factory=list)
    looks: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)  # small, to find cuts by
    times: "array[float]" = field(default_factory=lambda: array("d"))
    done: bool = False
    successor: "_Section | None" = None  # the section that goes on where this one stops


def may_go_on(found: Found, other: Found) -> bool:
    """Whether the detector that found `other` in a frame follows all the people in `found`."""
    return all(any(agreement(one, another) >= SAME_PERSON for another in other) for one in found)


class _Detection:
    """A video's sections, each with a detector of its own."""

    def __init__(
        self, video: Video, detector: Detector, on_frame: Callable[[], object], workers: int
    ) -> None:
        self._video, self._detector, self._on_frame = video, detector, on_frame
        self.parts = [_Section(start, end) for start, end in sections(video.count, workers)]
        self._changed = Condition()
        self._stopped = Event()  # an error in one section, or Control-C, ends all

    def run(self) -> Layout:
        """Fills the sections; returns the detector's layout."""
        if len(self.parts) == 1:
            return self._work(self.parts[0])
        with ThreadPoolExecutor(len(self.parts)) as pool:
            try:
                layout, *_ = pool.map(self._work, self.parts)
            except BaseException:
                self._stopped.set()
                raise
        # The section that got farthest has passed all frames from the first on.
        self._video.times = max((part.times for part in self.parts), key=len)
        return layout

    def _work(self, part: _Section) -> Layout:
        try:
            pose_2d = self._detector.for_frames(self._video.fps)
            # The first section reads on where the video is: at its start.
            with Video(self._video.source) if part.start else nullcontext(self._video) as video:
                part.times = video.times
                self._detect(part, pose_2d, video)
            return pose_2d.layout
        except BaseException:
            self._stopped.set()
            raise
        finally:
            with self._changed:
                part.done = True
                self._changed.notify_all()

    def _detect(self, part: _Section, pose_2d: Pose2D, video: Video) -> None:
        first = part.start - min(WARM_UP, part.start)
        for _ in range(first):
            if self._stopped.is_set() or not video.skip():
                return
        frames, shown = tee(video.frames())
        for number, (found, frame) in enumerate(zip(pose_2d(frames), shown, strict=False), first):
            if self._stopped.is_set() or self._hands_over(part, number, found):
                return
            if number >= part.start:
                part.looks.append(describe(frame, found, pose_2d.layout))
                part.pictures.append(small_picture(frame))
                with self._changed:
                    part.people.append(found)
                    self._changed.notify_all()
                if part.end is None or number < part.end:
                    self._on_frame()

    def _hands_over(self, part: _Section, number: int, found: Found) -> bool:
        """Whether a later section has frame `number` and follows the same people in it.

        Until then this section goes on: the result must not depend on the number of cores.
        """
        if part.end is None or number < part.end:
            return False
        later = next(other for other in reversed(self.parts) if other.start <= number)
        index = number - later.start
        with self._changed:
            self._changed.wait_for(lambda: len(later.people) > index or later.done)
            known = later.people[index] if len(later.people) > index else None
        if known is not None and may_go_on(found, known):
            part.successor = later
        return part.successor is not None


def detect_people(video: Video, detector: Detector, on_frame: Callable[[], object]) -> People:
    """Everybody in a video, not followed yet. Raises UserError.

    video: at its start; afterwards it has the times of all frames. on_frame: called once a frame,
    maybe from several threads.
    """
    workers = min(usable_cores(), MAX_WORKERS) if detector.sections else 1
    detection = _Detection(video, detector, on_frame, workers)
    layout = detection.run()
    frames: list[Found] = []
    looks: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    part: _Section | None = detection.parts[0]
    while part is not None:
        looks += part.looks[len(frames) - part.start :]
        pictures += part.pictures[len(frames) - part.start :]
        frames += part.people[len(frames) - part.start :]
        part = part.successor
    people = People.of_frames(frames, layout, looks).filmed(video.fps, video.size)
    return replace(people, cuts=find_cuts(pictures))
