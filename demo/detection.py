"""People in every frame of a video: read as a stream, in sections side by side where that helps."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Event

from demo.detectors import Choice
from demo.detectors.base import People
from demo.tracking import agreement
from demo.video import Video
from lib.keypoints import Layout

# A detector that follows a person settles on the frames before its section, not on the section's.
WARM_UP = 6
# Shorter sections are not worth their warm-up.
MIN_SECTION = 60
MAX_WORKERS = 8
SAME_PERSON = 0.5  # agreement from which two sections follow one person


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


@dataclass
class _Section:
    """Frames start to end, and what was found in them, in order, maybe beyond the end."""

    start: int
    end: int | None
    people: list[People] = field(default_factory=list)
    done: bool = False
    successor: "_Section | None" = None  # the section that goes on where this one stops


def agree(found: People, other: People) -> bool:
    """Whether the second of two detectors may go on in place of the first.

    Each follows one person, who need not be the same.
    """
    if not len(found) or not len(other):
        return not len(found)
    return agreement(found[0], other[0]) >= SAME_PERSON


def detect_people(
    source: str, detector: Choice, on_frame: Callable[[], object] = lambda: None
) -> tuple[list[People], Layout]:
    """Each frame's people, and their keypoint layout. Raises UserError.

    on_frame: called once a frame, maybe from several threads.
    """
    with Video(source) as video:
        count = video.count
    workers = min(usable_cores(), MAX_WORKERS) if detector.sections else 1
    parts = [_Section(start, end) for start, end in sections(count, workers)]
    changed = Condition()
    stopped = Event()  # an error in one section, or Control-C, ends all

    def work(part: _Section) -> Layout:
        try:
            return detect_section(part)
        except BaseException:
            stopped.set()
            raise
        finally:
            with changed:
                part.done = True
                changed.notify_all()

    def detect_section(part: _Section) -> Layout:
        warm_up = min(WARM_UP, part.start)
        pose_2d = detector.make()
        with Video(source) as video:
            for _ in range(part.start - warm_up):
                if stopped.is_set() or not video.skip():
                    return pose_2d.layout
            for number, found in enumerate(pose_2d(video.frames()), part.start - warm_up):
                if stopped.is_set() or hands_over(part, number, found):
                    break
                if number >= part.start:
                    with changed:
                        part.people.append(found)
                        changed.notify_all()
                    if part.end is None or number < part.end:
                        on_frame()
        return pose_2d.layout

    def hands_over(part: _Section, number: int, found: People) -> bool:
        """Whether a later section has frame `number` and follows the same person in it.

        Until then this section goes on: the people in a film must not depend on the cores.
        """
        if part.end is None or number < part.end:
            return False
        later = next(other for other in reversed(parts) if other.start <= number)
        index = number - later.start
        with changed:
            changed.wait_for(lambda: len(later.people) > index or later.done)
            known = later.people[index] if len(later.people) > index else None
        if known is None or not agree(found, known):
            return False
        part.successor = later
        return True

    if len(parts) == 1:
        layout = work(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            try:
                layout, *_ = pool.map(work, parts)
            except BaseException:
                stopped.set()
                raise
    people: list[People] = []
    part: _Section | None = parts[0]
    while part is not None:
        people += part.people[len(people) - part.start :]
        part = part.successor
    return people, layout
