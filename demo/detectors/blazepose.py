"""The default: MoveNet MultiPose finds people, BlazePose's landmark network follows each of them.

Both are in this repository and run on ONNX Runtime. MultiPose looks where somebody may be new: at
first, then every half second, sooner after a loss. Landmarks are found in each frame, in the region
that the person's last frame gave.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo.detectors import landmarks, multipose
from demo.detectors.landmarks import Landmarks, Region, find_landmarks
from demo.detectors.multipose import MAX_PEOPLE, find_everybody
from demo.detectors.networks import open_network
from demo.people import Detector, Found, bounding_box, nobody
from demo.tracking import agreement
from lib.film import Frame
from lib.keypoints import BLAZEPOSE_33, COCO_17

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LOOK_AROUND = 0.5  # seconds between two searches
LOOK_SOON = 0.15  # seconds, at first, while nobody is there, and after a loss
MISSED = 2.0  # seconds for which a loss counts
PRESENT = 0.5  # the landmark network's belief from which somebody is there
SAME_PERSON = 0.5  # with more agreement, two regions hold the same person
# MultiPose's person is known where their keypoints are so close to somebody's, on average.
KNOWN, REACH = 0.4, 0.1  # mean of exp(-(distance / REACH)^2), distances in sizes of the box
SETTLE = 2  # rounds in which a newcomer's region is found
COCO_OF_BLAZEPOSE = [BLAZEPOSE_33.names.index(name) for name in COCO_17.names]


def open_detector(weights_dir: Path) -> Detector:
    """With weights of its own. Raises UserError: no ONNX Runtime."""
    networks = open_network(multipose.FILE), open_network(landmarks.FILE)
    return Detector(
        lambda: BlazePose(*networks),
        sections=True,
        at_rate=lambda fps: BlazePose(*networks, fps=fps),
        jitters=True,
    )


class BlazePose:
    """Follows up to six people."""

    layout = BLAZEPOSE_33

    def __init__(
        self, search: "InferenceSession", follow: "InferenceSession", fps: float = 25.0
    ) -> None:
        """search: MultiPose; follow: the landmark network; fps: of the frames to come."""
        self._search, self._follow, self._fps = search, follow, fps

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        regions: list[Region] = []
        next_search, soon_until = 0.0, LOOK_SOON * self._fps  # frames
        for number, frame in enumerate(frames):
            people = _distinct(find_landmarks(self._follow, frame, regions))
            if len(people) < len(regions):
                soon_until = number + MISSED * self._fps
                next_search = min(next_search, number)
            if number >= next_search:
                people += self._newcomers(frame, people)
                wait = LOOK_AROUND if people and number >= soon_until else LOOK_SOON
                next_search = number + max(1, wait * self._fps)
            regions = [person.region for person in people if person.region.is_in(frame)]
            yield (
                np.stack([person.keypoints for person in people]) if people else nobody(self.layout)
            )

    def _newcomers(self, frame: Frame, known: list[Landmarks]) -> list[Landmarks]:
        """Those whom MultiPose finds and nobody follows yet."""
        new: list[Landmarks] = []
        for candidate in find_everybody(self._search, frame):
            if len(known) + len(new) >= MAX_PEOPLE:
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
