"""The default: MoveNet MultiPose finds people, BlazePose's landmark network follows each of them.

Both are in this repository and run on ONNX Runtime. MultiPose looks where somebody may be new: at
first, then every half second, sooner after a loss; every third time at a part of the picture, too.
Landmarks are found in each frame, in the region that the person's last frame gave. Whom they lose,
among others or in an odd pose, is MultiPose's to follow for a while.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo.detectors import landmarks, multipose
from demo.detectors.landmarks import Landmarks, Region, find_landmarks
from demo.detectors.multipose import MAX_PEOPLE, find_everybody, find_in_tile, tiles
from demo.detectors.networks import open_network
from demo.people import Detector, Found, bounding_box, nobody
from demo.tracking import MIN_AGREEMENT, agreement
from lib.film import Frame
from lib.keypoints import BLAZEPOSE_33, COCO_17

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LOOK_AROUND = 0.5  # seconds between two searches
CLOSER = 3  # every third search looks closer at a part of the picture, too
LOOK_SOON = 0.15  # seconds, at first, while nobody is there, and after a loss
MISSED = 2.0  # seconds for which a loss counts
PRESENT = 0.5  # the landmark network's belief from which somebody is there
SAME_PERSON = 0.5  # with more agreement, two regions hold the same person
# MultiPose's person is known where their keypoints are so close to somebody's, on average.
KNOWN, REACH = 0.4, 0.1  # mean of exp(-(distance / REACH)^2), distances in sizes of the box
MOST = 10  # people who are followed
NEAR = 0.5  # sizes of the box: how far from their last place a lost person is looked for
GONE = 0.5  # seconds after which MultiPose looks no more in each frame for somebody unseen
# With a larger change from frame to frame, two other regions are tried: so much wider, and turned
# so far (radians) towards upright.
SHAKE, WIDER, TURN = 0.04, 1.1, 0.15
INSIST = 1.0  # seconds after which the network's left and right are believed
SETTLE = 2  # rounds in which a newcomer's region is found
BODY = slice(BLAZEPOSE_33.names.index("left_shoulder"), None)  # without the face
COCO_OF_BLAZEPOSE = [BLAZEPOSE_33.names.index(name) for name in COCO_17.names]


def open_detector(weights_dir: Path) -> Detector:
    """With weights of its own. Raises UserError: no ONNX Runtime."""
    networks = open_network(multipose.FILE), open_network(landmarks.FILE)
    return Detector(
        lambda: BlazePose(*networks),
        sections=True,
        at_rate=lambda fps: BlazePose(*networks, fps=fps),
        jitters=True,
        most=MOST,
    )


@dataclass(frozen=True)
class _Lost:
    """Somebody whom the landmark network has lost: keypoints (33, 3) of their last sighting, its
    frame, and the frame in which they were lost.
    """

    keypoints: np.ndarray
    seen: int
    since: int


class BlazePose:
    """Follows up to ten people."""

    layout = BLAZEPOSE_33

    def __init__(
        self, search: "InferenceSession", follow: "InferenceSession", fps: float = 25.0
    ) -> None:
        """search: MultiPose; follow: the landmark network; fps: of the frames to come."""
        self._search, self._follow, self._fps = search, follow, fps

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        followed: list[Landmarks] = []
        lost: list[_Lost] = []
        searches = 0
        next_search, soon_until = 0.0, LOOK_SOON * self._fps  # frames
        for number, frame in enumerate(frames):
            found = find_landmarks(self._follow, frame, [person.region for person in followed])
            found = [
                self._steadier(frame, before, now)
                for before, now in zip(followed, found, strict=True)
            ]
            people = _distinct(found)
            for before, now in zip(followed, found, strict=True):
                if not any(now is person for person in people):
                    lost.append(_Lost(before.keypoints, number - 1, number))
                    soon_until = number + MISSED * self._fps
                    next_search = min(next_search, number)
            is_due = number >= next_search
            candidates = self._look(frame, searches if is_due else None) if is_due or lost else []
            if is_due:
                new = self._newcomers(frame, people, candidates)
                lost = _without(lost, new)
                people += new
                searches += 1
                wait = LOOK_AROUND if people and number >= soon_until else LOOK_SOON
                next_search = number + max(1, wait * self._fps)
            lost = self._sightings(lost, candidates, people, number)
            followed = [person for person in people if person.region.is_in(frame)]
            everybody = [person.keypoints for person in people]
            everybody += [person.keypoints for person in lost if person.seen == number]
            yield np.stack(everybody) if everybody else nobody(self.layout)

    def _steadier(self, frame: Frame, before: Landmarks, now: Landmarks) -> Landmarks:
        """The landmarks of two other regions in place of `now`, where they change less.

        In odd poses the network jumps between answers; who moves fast does so in each region.
        """
        longest = round(INSIST * self._fps)
        now = _same_sides(before, now, longest)
        if _change(before, now) <= SHAKE:
            return now
        region = before.region
        upright = region.angle - np.copysign(TURN, region.angle)
        tries = [
            replace(region, side=region.side * WIDER),
            replace(region, angle=float(upright)),
        ]
        more = [
            _same_sides(before, one, longest)
            for one in find_landmarks(self._follow, frame, tries)
            if one.presence >= PRESENT
        ]
        return min([now, *more], key=lambda one: _change(before, one))

    def _look(self, frame: Frame, search: int | None) -> list[np.ndarray]:
        """Those whom MultiPose finds: (17, 3) each.

        search: the how manieth look around, from 0; the first looks closer at all parts of the
        frame, every third of the others at one of them, and all in a crowd; None: at the whole
        only.
        """
        candidates = [*find_everybody(self._search, frame)]
        if search is None:
            return candidates
        parts = tiles(*frame.shape[:2])
        turn, rest = divmod(search, 1 if len(candidates) >= MAX_PEOPLE else CLOSER)
        closer = [] if rest else [parts[turn % len(parts)]]
        for part in parts if search == 0 else closer:
            candidates.extend(find_in_tile(self._search, frame, part))
        return candidates

    def _newcomers(
        self, frame: Frame, known: list[Landmarks], candidates: list[np.ndarray]
    ) -> list[Landmarks]:
        """Those of MultiPose's candidates whom nobody follows yet."""
        new: list[Landmarks] = []
        for candidate in candidates:
            if len(known) + len(new) >= MOST:
                break
            if any(_is_known(candidate, person.keypoints) for person in known + new):
                continue
            region = Region.of_coco(candidate)
            for _ in range(SETTLE):
                if not region.is_in(frame):
                    break
                (found,) = find_landmarks(self._follow, frame, [region])
                region = found.region
            else:
                new = _distinct([*known, *new, found])[len(known) :]
        return new

    def _sightings(
        self,
        lost: list[_Lost],
        candidates: list[np.ndarray],
        people: list[Landmarks],
        number: int,
    ) -> list[_Lost]:
        """The lost, where MultiPose sees them still, without those who are gone."""
        others = [one.keypoints for one in people]
        still = []
        for person in lost:
            # Whoever MultiPose sees is the one to whom they are nearest.
            near = [
                score if score > max((_nearness(o, one) for o in others), default=0) else 0.0
                for one in candidates
                for score in [_nearness(person.keypoints, one)]
            ]
            if near and max(near) >= MIN_AGREEMENT:
                sighting = _as_blazepose(candidates[int(np.argmax(near))])
                person = _Lost(sighting, number, person.since)
                others.append(sighting)
            unseen, away = number - person.seen, number - person.since
            if unseen <= GONE * self._fps and away <= MISSED * self._fps:
                still.append(person)
        return still


def _without(lost: list[_Lost], found: list[Landmarks]) -> list[_Lost]:
    """Those of the lost who are not found again."""
    for one in found:
        near = [agreement(person.keypoints, one.keypoints, NEAR) for person in lost]
        if near and max(near) >= MIN_AGREEMENT:
            index = int(np.argmax(near))
            lost = lost[:index] + lost[index + 1 :]
    return lost


def _nearness(person: np.ndarray, candidate: np.ndarray) -> float:
    """0 to 1: how near MultiPose's keypoints (17, 3) are to those of a person (33, 3)."""
    return agreement(person[COCO_OF_BLAZEPOSE], candidate, NEAR)


def _as_blazepose(candidate: np.ndarray) -> np.ndarray:
    """MultiPose's keypoints (17, 3) -> (33, 3); what it does not see has a confidence of 0."""
    keypoints = np.zeros((BLAZEPOSE_33.num_keypoints, 3), dtype=np.float32)
    keypoints[COCO_OF_BLAZEPOSE] = candidate
    keypoints[keypoints[:, 2] < landmarks.SEEN, 2] = 0
    return keypoints


def _change(before: Landmarks, now: Landmarks) -> float:
    """How far the body's keypoints move against each other, on average, in sides of the region."""
    way = (now.keypoints - before.keypoints)[BODY, :2]
    away = np.linalg.norm(way - np.median(way, axis=0), axis=1)
    return float(away.mean()) / before.region.side


def _same_sides(before: Landmarks, now: Landmarks, longest: int) -> Landmarks:
    """Landmarks with left and right as before: nobody turns round from one frame to the next.

    longest: the number of frames in a row after which the network is believed.
    """
    exchanged = now.keypoints[list(BLAZEPOSE_33.mirror)]
    limit = SHAKE * before.region.side
    apart, apart_exchanged = (
        float(np.linalg.norm((keypoints - before.keypoints)[BODY, :2], axis=1).mean())
        for keypoints in (now.keypoints, exchanged)
    )
    if max(limit, 2 * apart_exchanged) < apart and before.exchanged < longest:
        return replace(now, keypoints=exchanged, exchanged=before.exchanged + 1)
    return now


def _is_known(candidate: np.ndarray, person: np.ndarray) -> bool:
    """Whether MultiPose's keypoints (17, 3) are those of a person (33, 3), or of a part of them."""
    seen = candidate[:, 2] >= landmarks.SEEN
    if not seen.any():
        return True
    box = bounding_box(person)
    size = max(float(np.sqrt(np.prod(box[2:] - box[:2]))), 1.0)
    apart = np.linalg.norm(candidate[:, :2] - person[COCO_OF_BLAZEPOSE, :2], axis=1) / size
    return float(np.exp(-((apart[seen] / REACH) ** 2)).mean()) >= KNOWN


def _distinct(found: list[Landmarks]) -> list[Landmarks]:
    """Without regions where nobody is, and those that hold the same person as an earlier one."""
    people: list[Landmarks] = []
    for one in found:
        twice = (agreement(other.keypoints, one.keypoints) > SAME_PERSON for other in people)
        if one.presence >= PRESENT and not any(twice):
            people.append(one)
    return people
