"""People in every frame of a video: read as a stream, in sections side by side where that helps."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Event

from demo.detectors import Choice
from demo.detectors.base import People
from demo.video import Video
from lib.keypoints import Layout

# A detector that follows a person settles on the frames before its section, not on the section's.
WARM_UP = 6
# Shorter sections are not worth their warm-up.
MIN_SECTION = 60
MAX_WORKERS = 8


def usable_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def sections(count: int, workers: int) -> list[tuple[int, int | None]]:
    """Splits `count` frames among workers: (first frame, end), the last one without an end.

    The count may be wrong or 0 (unknown): every frame of the video still is in one section.
    """
    parts = max(1, min(workers, count // MIN_SECTION))
    borders = [count * part // parts for part in range(parts)]
    ends: list[int | None] = [*borders[1:], None]
    return list(zip(borders, ends, strict=True))


def detect_people(
    source: str, detector: Choice, on_frame: Callable[[], object] = lambda: None
) -> tuple[list[People], Layout]:
    """Each frame's people, and their keypoint layout. Raises UserError.

    on_frame: called once a frame, maybe from several threads.
    """
    with Video(source) as video:
        count = video.count
    workers = min(usable_cores(), MAX_WORKERS) if detector.sections else 1
    stopped = Event()  # an error in one section, or Control-C, ends all

    def work(section: tuple[int, int | None]) -> tuple[list[People], Layout]:
        try:
            return detect_section(*section)
        except BaseException:
            stopped.set()
            raise

    def detect_section(start: int, end: int | None) -> tuple[list[People], Layout]:
        warm_up = min(WARM_UP, start)
        pose_2d = detector.make()
        people: list[People] = []
        with Video(source) as video:
            for _ in range(start - warm_up):
                if stopped.is_set() or not video.skip():
                    return [], pose_2d.layout
            frames = islice(video.frames(), None if end is None else end - start + warm_up)
            for index, found in enumerate(pose_2d(frames)):
                if stopped.is_set():
                    break
                if index >= warm_up:
                    people.append(found)
                    on_frame()
        return people, pose_2d.layout

    parts = sections(count, workers)
    if len(parts) == 1:
        return work(parts[0])
    with ThreadPoolExecutor(len(parts)) as pool:
        try:
            results = list(pool.map(work, parts))
        except BaseException:
            stopped.set()
            raise
    return [found for people, _ in results for found in people], results[0][1]
