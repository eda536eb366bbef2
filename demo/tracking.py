"""Following people: which sightings are of one person, and which people are wanted.

P people, J keypoints; a keypoint is x, y in pixels and a confidence.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, combinations, pairwise

import numpy as np

from demo.people import ASSUMED_FPS, Found, People, bounding_box
from lib.errors import UserError
from lib.numbers import parse_whole

# A person out of sight this long (seconds) is taken for a new one on return.
PATIENCE = 2.0
# People are expected to move on as they did in their last moments (seconds): where two cross, the
# places alone do not tell who is who.
MOMENT = 0.6
# Tracks shorter than this (seconds) are a detector's false alarms, unless nothing longer exists.
MIN_SECONDS = 0.25
# Whoever is seen in a smaller share of the frames, and never for so long (seconds), is nobody.
LEAST_SHARE, LEAST_SECONDS = 0.02, 1.0
# Two detections look like one person where their boxes or their keypoints agree this much.
MIN_AGREEMENT = 0.25
# The distance at which the closeness of keypoints is 1/e, in sizes of the box. It grows with the
# time a person was out of sight: after three times UNSURE (seconds) it is twice as large.
REACH = 0.18
UNSURE = 0.25
# By place alone, whatever the pose, the distance is so many times as large, among boxes of which
# one is at most so many times larger than the other.
WIDE, ALIKE_SIZE = 3.0, 2.0
# How much it counts that people look like those of a track, where several are possible: looks that
# agree by ALIKE[0] or less are those of somebody else, by ALIKE[1] or more those of the same.
LOOKS, ALIKE = 0.6, (0.5, 0.95)
NOT_KNOWN = 0.5  # of somebody who was never seen without others, 0 to 1
# Somebody who comes back (within seconds) is known by looks so much alike, and so much more than
# anybody else's.
REMEMBERED, UNIQUE, MARGIN = 20.0, 0.6, 0.3
LOOKS_SECONDS = 1.0  # in which a track's looks follow those of its sightings
# Nobody moves faster (sizes of the box a second) or grows or shrinks more from moment to moment.
SPEED = 2.0
GROWTH = 1.5


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


def closeness(a: np.ndarray, b: np.ndarray, reach: float = REACH) -> float:
    """As `agreement`, by the middles of the boxes alone."""
    boxes = np.stack([bounding_box(a), bounding_box(b)])
    sizes = np.maximum(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)), 1.0)
    if sizes.max() > ALIKE_SIZE * sizes.min():
        return 0.0
    away = np.linalg.norm(np.diff(boxes[:, :2] + boxes[:, 2:], axis=0)) / 2 / sizes.max()
    return float(np.exp(-((away / (WIDE * reach)) ** 2)))


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
    """The last sighting of a person, and where they are going."""

    def __init__(
        self, frame: int, keypoints: np.ndarray, look: np.ndarray | None, moment: int
    ) -> None:
        """moment: how many sightings the speed is taken from."""
        self.frame, self.keypoints, self._look = frame, keypoints, look
        self._steps: deque[np.ndarray] = deque(maxlen=moment)  # (2,) pixels a frame

    def see(self, frame: int, keypoints: np.ndarray) -> None:
        known = (self.keypoints[:, 2] > 0) & (keypoints[:, 2] > 0)
        if known.any():
            # The median keypoint: that of the body, whatever the arms do.
            way = np.median(keypoints[known, :2] - self.keypoints[known, :2], axis=0)
            self._steps.append(way / (frame - self.frame))
        self.frame, self.keypoints = frame, keypoints

    def learn(self, look: np.ndarray, rate: float) -> None:
        """Remember how somebody looks who is seen without others; not the looks of others."""
        if self.likeness(look, unknown=1.0) > 0.5:
            known = look if self._look is None else self._look
            self._look = known + rate * (look - known)

    def likeness(self, look: np.ndarray | None, unknown: float) -> float:
        """0 to 1: how much somebody looks like the person; `unknown` where nothing is known."""
        if look is None or self._look is None:
            return unknown
        return float(np.clip((look @ self._look - ALIKE[0]) / (ALIKE[1] - ALIKE[0]), 0, 1))

    @property
    def trust(self) -> float:
        """0 to 1: a track of a few sightings may be a false alarm beside somebody real."""
        return (1 + len(self._steps)) / (1 + (self._steps.maxlen or 0))

    def absence(self, frame: int) -> int:
        """How many frames without a sighting lie before `frame`."""
        return frame - self.frame - 1

    def expected(self, frame: int) -> np.ndarray:
        """The last sighting, moved on until `frame`."""
        moved = self.keypoints.copy()
        if self._steps:
            # The median step: where one person hides another, detectors jump between them.
            way = np.median(np.stack(self._steps), axis=0)
            moved[:, :2] += way * (frame - self.frame)
        return moved


class Tracker:
    """Numbers the people of each frame, the best agreement with those before first."""

    def __init__(self, fps: float) -> None:
        self._people: list[_Follower] = []
        self._patience = max(1, round(PATIENCE * fps))
        self._moment = max(1, round(MOMENT * fps))
        self._unsure = UNSURE * fps
        self._remembered = REMEMBERED * fps
        self._rate = min(1.0, 1 / (LOOKS_SECONDS * fps))
        self._frame = -1

    def update(self, people: Found, looks: np.ndarray | None = None, frames: int = 1) -> list[int]:
        """The number of each person in the next frame, 0 the first to appear.

        looks: (P, D) of demo/looks.py, where they are known; frames: how many have gone by since
        the last call, this one included.
        """
        self._frame += frames
        alive = {
            index: person
            for index, person in enumerate(self._people)
            if person.absence(self._frame) < self._patience
        }
        numbers: dict[int, int] = {}
        expected = {i: p.expected(self._frame) for i, p in alive.items()}
        self._join(people, looks, expected, numbers)
        # A person who is not at the expected place may have stopped.
        last = {i: p.keypoints for i, p in alive.items()}
        self._join(people, looks, last, numbers)
        # Who turns over, as in a somersault, is near that place in quite another pose.
        self._join(people, looks, last, numbers, closeness)
        if looks is not None:
            self._return(looks, numbers)
        alone = _alone(people)
        for number, keypoints in enumerate(people):
            look = None if looks is None else looks[number]
            if number in numbers:
                person = self._people[numbers[number]]
                person.see(self._frame, keypoints)
                if look is not None and alone[number]:
                    person.learn(look, self._rate)
            else:
                numbers[number] = len(self._people)
                first = look if alone[number] else None
                self._people.append(_Follower(self._frame, keypoints, first, self._moment))
        return [numbers[number] for number in range(len(people))]

    def _join(
        self,
        people: Found,
        looks: np.ndarray | None,
        places: dict[int, np.ndarray],
        numbers: dict[int, int],
        agree: Callable[[np.ndarray, np.ndarray, float], float] = agreement,
    ) -> None:
        """Adds to numbers (person -> track) the pairs of those still free, the best first.

        places: where the people of the tracks are thought to be, (J, 3) each; agree: how much
        such a place and a sighting do, with the reach for it.
        """
        pairs = []
        for index, place in places.items():
            absence = self._people[index].absence(self._frame)
            doubt = np.sqrt(1 + absence / self._unsure)
            for number, person in enumerate(people):
                score = agree(place, person, REACH * doubt)
                like = 1.0
                if looks is not None:
                    like = self._people[index].likeness(looks[number], unknown=NOT_KNOWN)
                like *= self._people[index].trust
                # People seen a moment ago go first; the others are looked for in a wide area.
                order = score / doubt * (1 - LOOKS + LOOKS * like)
                pairs.append((order, score, index, number))
        for _, score, index, number in sorted(pairs, reverse=True):
            free = index not in numbers.values() and number not in numbers
            if free and score >= MIN_AGREEMENT:
                numbers[number] = index

    def _return(self, looks: np.ndarray, numbers: dict[int, int]) -> None:
        """Adds to numbers those of the people still free who look like one track and no other."""
        for number, look in enumerate(looks):
            alike = {i: person.likeness(look, unknown=0.0) for i, person in enumerate(self._people)}
            if number in numbers or not alike:
                continue
            best, *others = sorted(alike, key=lambda i: -alike[i])
            gone = self._people[best].absence(self._frame)
            unique = all(alike[other] <= alike[best] - MARGIN for other in others)
            free = best not in numbers.values() and gone < self._remembered
            if free and unique and alike[best] >= UNIQUE:
                numbers[number] = best


def _alone(people: Found) -> np.ndarray:
    """(P,) whose box does not overlap another's: what is seen there is theirs."""
    boxes = [bounding_box(person) for person in people]
    alone = np.ones(len(people), dtype=bool)
    for (i, a), (j, b) in combinations(enumerate(boxes), 2):
        if (np.maximum(a[:2], b[:2]) < np.minimum(a[2:], b[2:])).all():
            alone[[i, j]] = False
    return alone


def follow(people: People) -> People:
    """The same sightings with their person's number, without false alarms.

    Sightings that have numbers already stay as they are.
    """
    if people.person.any() or not len(people.person):
        return people
    fps = people.fps or ASSUMED_FPS
    tracker = Tracker(fps)
    borders = np.searchsorted(people.frame, np.arange(people.num_frames + 1))
    looks = people.looks
    numbers = (
        tracker.update(people.keypoints[a:b], None if looks is None else looks[a:b])
        for a, b in pairwise(borders)
    )
    person = np.fromiter(chain.from_iterable(numbers), dtype=int)
    is_long = np.bincount(person) >= MIN_SECONDS * fps
    real = is_long[person] if is_long.any() else np.ones(len(person), dtype=bool)
    _, renumbered = np.unique(person[real], return_inverse=True)
    return replace(people.only(real), person=renumbered + 1)


def choose(people: People, person: str) -> People:
    """The wanted people: by number, 'largest' or 'all'.

    'largest' follows the largest person; where they are out of sight, the next largest.
    Raises UserError: there is nobody, or next to nobody.
    """
    numbers = people.numbers.tolist()
    if not numbers:
        raise UserError(
            "nobody was found in the whole video; try another --detector, or a video where the"
            " person is larger and in full view"
        )
    crowd = tuple((n, int((people.person == n).sum())) for n in numbers)
    people = replace(people, crowd=crowd, tracked=people.person)
    if person in ("all", "largest"):
        chosen = people if person == "all" else _largest(people)
        _refuse_too_little(chosen)
        return chosen
    number = parse_whole(person)
    if number not in numbers:
        frames = {n: people.frame[people.person == n] for n in numbers}
        listed = "; ".join(f"{n}: frames {seen[0]} to {seen[-1]}" for n, seen in frames.items())
        raise UserError(
            f"--person {person}: give largest, all or a number of the people found ({listed})"
        )
    return people.only(people.person == number)


def _refuse_too_little(people: People) -> None:
    """Raises UserError where what was found is too little to be somebody."""
    frames, fps = np.unique(people.frame), people.fps or ASSUMED_FPS
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    longest = max(len(run) for run in runs)
    if len(frames) < LEAST_SHARE * people.num_frames and longest < LEAST_SECONDS * fps:
        raise UserError(
            f"something like a person was found in {len(frames)} of {people.num_frames} frames"
            f" only (frames {frames[0]} to {frames[-1]}), too little to lift; cut the video to the"
            f" part with a person, or give --person {people.numbers[0]} to see it all the same"
        )


def _largest(people: People) -> People:
    """Whoever is near and stays long, and in frames without them whoever is next."""
    boxes = np.stack([bounding_box(keypoints) for keypoints in people.keypoints])
    areas = np.bincount(people.person, np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1))
    order = sorted(people.numbers.tolist(), key=lambda number: -areas[number])
    rows = np.zeros(len(people.person), dtype=bool)
    for number in order:
        theirs = people.person == number
        if not np.isin(people.frame[theirs], people.frame[rows]).any():
            rows |= theirs
    chosen = people.only(rows)
    return replace(chosen, person=np.full_like(chosen.person, order[0]))
