"""From people found frame by frame to one keypoint track a person, with an entry for every frame.

F frames, P people, J keypoints; a keypoint is x, y in pixels and a confidence.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lib.errors import UserError
from lib.numbers import parse_whole

# A person out of sight this long (seconds) is taken for a new one on return.
PATIENCE = 2.0
# People are expected to move on as they did in their last moments (seconds): where two cross, the
# places alone do not tell who is who.
MOMENT = 0.6
# Tracks shorter than this (seconds) are a detector's false alarms, unless nothing longer exists.
MIN_SECONDS = 0.25
# Two detections look like one person where their boxes or their keypoints agree this much.
MIN_AGREEMENT = 0.25
LARGEST_PIXEL = 1e6  # coordinates beyond it are nonsense
# How far keypoints lie apart that agree by 1/e, in sizes of the box. After an absence nobody knows
# where a person went: three times UNSURE (seconds) makes it twice as far.
REACH = 0.18
UNSURE = 0.25
# Nobody moves faster (sizes of the box a second) or grows or shrinks more from moment to moment.
SPEED = 2.0
GROWTH = 1.5


@dataclass
class Track:
    """One person: the frames with a detection, and the detections."""

    frames: list[int] = field(default_factory=list)
    keypoints: list[np.ndarray] = field(default_factory=list)  # (J, 3) each

    def area(self) -> float:
        """Summed area of the boxes: large for people who are near and stay long."""
        return float(sum(np.prod(box[2:] - box[:2]) for box in map(bounding_box, self.keypoints)))


def bounding_box(keypoints: np.ndarray) -> np.ndarray:
    """(J, 3) -> x0, y0, x1, y1 of the keypoints with any confidence."""
    points = keypoints[keypoints[:, 2] > 0, :2]
    if not len(points):
        return np.zeros(4)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def without_nonsense(keypoints: np.ndarray) -> np.ndarray:
    """(..., 3) or more: those with numbers that cannot be become 0, that is unseen."""
    sane = np.isfinite(keypoints).all(axis=-1) & (np.abs(keypoints) < LARGEST_PIXEL).all(axis=-1)
    return np.where(sane[..., None], keypoints, 0)


def agreement(a: np.ndarray, b: np.ndarray, reach: float = REACH) -> float:
    """0 to 1: how likely two sets of keypoints (J, 3) are the same person a moment later.

    The mean of the boxes' intersection over union and of the keypoints' closeness (1 at no
    distance, 1/e at `reach` sizes of the box).
    """
    box_a, box_b = bounding_box(a), bounding_box(b)
    overlap = np.minimum(box_a[2:], box_b[2:]) - np.maximum(box_a[:2], box_b[:2])
    intersection = np.prod(np.maximum(overlap, 0))
    union = np.prod(box_a[2:] - box_a[:2]) + np.prod(box_b[2:] - box_b[:2]) - intersection
    seen = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not seen.any():
        return 0.0
    size = max(np.sqrt(np.prod(box_a[2:] - box_a[:2])), 1.0)
    distance = np.linalg.norm(a[seen, :2] - b[seen, :2], axis=-1) / size
    closeness = float(np.mean(np.exp(-((distance / reach) ** 2))))
    iou = float(intersection / union) if union > 0 else 0.0
    return (iou + closeness) / 2


def same_person(last: np.ndarray, now: np.ndarray, elapsed: float) -> bool:
    """Whether keypoints (J, 3) may be those of the person seen `elapsed` seconds before."""
    both = (last[:, 2] > 0) & (now[:, 2] > 0)
    if not both.any():
        return False
    sizes = [float(np.ptp(keypoints[both, :2], axis=0).max()) for keypoints in (last, now)]
    if max(sizes) > GROWTH * min(sizes):
        return False
    return agreement(last, now, REACH + SPEED * elapsed) >= MIN_AGREEMENT


class _Follower:
    """A track being made, and where its person is going."""

    def __init__(self, moment: int) -> None:
        """moment: how many detections the speed is taken from."""
        self.track = Track()
        self._steps: deque[np.ndarray] = deque(maxlen=moment)  # (2,) pixels a frame

    def add(self, frame: int, keypoints: np.ndarray) -> None:
        track = self.track
        if track.frames:
            last, elapsed = track.keypoints[-1], frame - track.frames[-1]
            known = (last[:, 2] > 0) & (keypoints[:, 2] > 0)
            if known.any():
                # The median keypoint: that of the body, whatever the arms do.
                way = np.median(keypoints[known, :2] - last[known, :2], axis=0)
                self._steps.append(way / elapsed)
        track.frames.append(frame)
        track.keypoints.append(keypoints)

    def absence(self, frame: int) -> int:
        """How many frames without a detection lie before `frame`."""
        return frame - self.track.frames[-1] - 1

    def expected(self, frame: int) -> np.ndarray:
        """The last detection, moved on until `frame`."""
        moved = self.track.keypoints[-1].copy()
        if self._steps:
            # The median step: where one person hides another, detectors jump between them.
            way = np.median(np.stack(self._steps), axis=0)
            moved[:, :2] += way * (frame - self.track.frames[-1])
        return moved


class Tracker:
    """Joins detections to tracks, frame by frame, the best agreement first."""

    def __init__(self, fps: float) -> None:
        self._people: list[_Follower] = []
        self._patience = max(1, round(PATIENCE * fps))
        self._moment = max(1, round(MOMENT * fps))
        self._unsure = UNSURE * fps
        self._frame = -1

    @property
    def tracks(self) -> list[Track]:
        return [person.track for person in self._people]

    def update(self, people: np.ndarray) -> list[int]:
        """The next frame's people (P, J, 3) -> the number of each one's track."""
        self._frame += 1
        alive = {
            index: person
            for index, person in enumerate(self._people)
            if person.absence(self._frame) < self._patience
        }
        numbers: dict[int, int] = {}
        self._join(people, {i: p.expected(self._frame) for i, p in alive.items()}, numbers)
        # Whoever is not where they were going may have stopped.
        self._join(people, {i: p.track.keypoints[-1] for i, p in alive.items()}, numbers)
        for number, keypoints in enumerate(people):
            if number not in numbers:
                numbers[number] = len(self._people)
                self._people.append(_Follower(self._moment))
            self._people[numbers[number]].add(self._frame, keypoints)
        return [numbers[number] for number in range(len(people))]

    def _join(
        self, people: np.ndarray, places: dict[int, np.ndarray], numbers: dict[int, int]
    ) -> None:
        """Adds to numbers (person -> track) the pairs of those still free, the best first.

        places: where the people of the tracks are thought to be, (J, 3) each.
        """
        pairs = []
        for index, place in places.items():
            absence = self._people[index].absence(self._frame)
            doubt = np.sqrt(1 + absence / self._unsure)
            for number, person in enumerate(people):
                score = agreement(place, person, REACH * doubt)
                # Whoever was seen a moment ago goes before those who are looked for in a wide area.
                pairs.append((score / doubt, score, index, number))
        for _, score, index, number in sorted(pairs, reverse=True):
            free = index not in numbers.values() and number not in numbers
            if free and score >= MIN_AGREEMENT:
                numbers[number] = index


def track_people(detections: Iterable[np.ndarray], fps: float) -> tuple[list[Track], int]:
    """Detections of each frame, (P, J, 3) with any P -> tracks in order of appearance, F."""
    tracker, frames = Tracker(fps), 0
    for people in detections:
        tracker.update(people)
        frames += 1
    long = [t for t in tracker.tracks if len(t.frames) >= MIN_SECONDS * fps]
    return long or tracker.tracks, frames


def choose_tracks(tracks: list[Track], person: str) -> dict[int, Track]:
    """The wanted people by their number, 1 being the first to appear: 'N', 'largest' or 'all'.

    'largest' follows the largest person; where they are out of sight, the next largest.
    Raises UserError.
    """
    if not tracks:
        raise UserError(
            "nobody was found in the whole video; try another --detector, or a video where the"
            " person is larger and in full view"
        )
    if person == "all":
        return dict(enumerate(tracks, 1))
    if person == "largest":
        order = sorted(range(len(tracks)), key=lambda index: -tracks[index].area())
        taken: dict[int, np.ndarray] = {}
        for index in order:
            track = tracks[index]
            if not taken.keys() & set(track.frames):
                taken.update(zip(track.frames, track.keypoints, strict=True))
        frames = sorted(taken)
        return {order[0] + 1: Track(frames, [taken[frame] for frame in frames])}
    number = parse_whole(person, 1, len(tracks))
    if number is None:
        listed = "; ".join(
            f"{index}: frames {track.frames[0]} to {track.frames[-1]}"
            for index, track in enumerate(tracks, 1)
        )
        raise UserError(
            f"--person {person}: give largest, all or a number of the people found ({listed})"
        )
    return {number: tracks[number - 1]}


def fill_gaps(track: Track, frames: int, mirror: tuple[int, ...]) -> np.ndarray:
    """A track -> (F, J, 3) with an entry for every frame.

    A keypoint that was not seen in a frame lies between its neighbours in time, with confidence 0;
    one that was never seen lies on its mirror image, or else in the middle of the body.
    mirror: where each keypoint's counterpart on the other side is found.
    """
    count = len(mirror)
    filled = np.zeros((frames, count, 3), dtype=np.float32)
    filled[track.frames] = without_nonsense(np.stack(track.keypoints))
    seen = np.asarray(filled[..., 2] > 0)  # (F, J)
    if seen.all():
        return filled
    times = np.arange(frames)
    ever = np.flatnonzero(seen.any(axis=0))
    never = np.flatnonzero(~seen.any(axis=0))
    if not len(ever):
        raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
    for joint in ever:
        known = np.flatnonzero(seen[:, joint])
        for axis in (0, 1):
            filled[:, joint, axis] = np.interp(times, known, filled[known, joint, axis])
    middle = filled[:, ever, :2].mean(axis=1)
    for joint in never:
        filled[:, joint, :2] = middle if mirror[joint] in never else filled[:, mirror[joint], :2]
    filled[~seen, 2] = 0
    return filled
