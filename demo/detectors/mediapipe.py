"""BlazePose through MediaPipe, whose wheel carries the weights: nothing is downloaded.

Source: Bazarevsky et al. 2020, "BlazePose". The solution follows one person; several people are
followed by one instance each, started on a frame where all others are painted over.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.people import Detector, Found, bounding_box, nobody
from demo.tracking import agreement
from lib.errors import UserError
from lib.film import Frame
from lib.keypoints import BLAZEPOSE_33
from lib.quiet import quiet_stderr

LOOK_AROUND = 6  # frames between two searches for further people
MAX_PEOPLE = 8
SAME_PERSON = 0.5  # with more agreement, two instances follow the same person

# MediaPipe's own search for people, as a graph by itself.
_SEARCH_GRAPH = """
input_stream: "image"
output_stream: "detections"
node {
  calculator: "PoseDetectionCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
}
"""


def _import_mediapipe() -> Any:
    # Read when its libraries load: warnings about its own internals stay off the terminal.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Its protobuf files use a call that protobuf deprecates.
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype")
    try:
        import mediapipe
    except ImportError as error:
        raise UserError(
            "--detector mediapipe: not installed; pip install -r requirements-demo.txt"
            " (Python 3.12 or older, protobuf below 5), or give --keypoints FILE"
        ) from error
    if not hasattr(mediapipe, "solutions"):
        raise UserError(
            "--detector mediapipe: the installed version has no pose solution any more;"
            " pip install mediapipe==0.10.14"
        )
    return mediapipe


def open_detector(weights_dir: Path, several_people: bool) -> Detector:
    """Its weights are in its wheel. Raises UserError where MediaPipe is missing."""
    mediapipe = _import_mediapipe()
    if several_people:
        return Detector(lambda: SeveralPeople(mediapipe))
    return Detector(lambda: OnePerson(mediapipe), sections=True)


def _start(solution: Any) -> Any:
    """A Pose that has loaded its networks."""
    with quiet_stderr():
        # Complexity 1: the other models are not in the wheel.
        pose = solution.Pose(model_complexity=1)
        pose.process(np.zeros((64, 64, 3), dtype=np.uint8))
    return pose


def _keypoints(result: Any, frame: Frame) -> np.ndarray | None:
    """(33, 3), or None where nobody was found."""
    if result.pose_landmarks is None:
        return None
    height, width = frame.shape[:2]
    return np.array(
        [
            (point.x * width, point.y * height, point.visibility)
            for point in result.pose_landmarks.landmark
        ],
        dtype=np.float32,
    )


class OnePerson:
    """Follows the most prominent person."""

    layout = BLAZEPOSE_33

    def __init__(self, mediapipe: Any) -> None:
        self._solution = mediapipe.solutions.pose

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        with _start(self._solution) as pose:
            for frame in frames:
                person = _keypoints(pose.process(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), frame)
                yield nobody(self.layout) if person is None else person[None]


class SeveralPeople:
    """Follows everybody MediaPipe's detector finds."""

    layout = BLAZEPOSE_33

    def __init__(self, mediapipe: Any) -> None:
        from mediapipe.python.solution_base import SolutionBase

        self._solution = mediapipe.solutions.pose
        with quiet_stderr():
            self._search = SolutionBase(graph_config=_SEARCH_GRAPH, outputs=["detections"])
            self._search.process(np.zeros((64, 64, 3), dtype=np.uint8))

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        followed: list[Any] = []  # a Pose each
        try:
            for number, frame in enumerate(frames):
                image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                found = [(pose, _keypoints(pose.process(image), frame)) for pose in followed]
                if number % LOOK_AROUND == 0:
                    found += self._newcomers(image, [p for _, p in found if p is not None])
                followed, people = _settle(found)
                yield np.stack(people) if people else nobody(self.layout)
        finally:
            for pose in followed:
                pose.close()

    def _newcomers(
        self, image: np.ndarray, known: list[np.ndarray]
    ) -> list[tuple[Any, np.ndarray | None]]:
        """An instance for each person that no known keypoints (33, 3) belong to."""
        height, width = image.shape[:2]
        new: list[tuple[Any, np.ndarray | None]] = []
        for detection in self._search.process(image).detections or ():
            # Its keypoints 0 and 1: the hips' middle, and a point on a circle around the body.
            hips, rim = (
                np.array([point.x * width, point.y * height])
                for point in detection.location_data.relative_keypoints[:2]
            )
            boxes = [bounding_box(person) for person in known]
            inside = any((box[:2] <= hips).all() and (hips <= box[2:]).all() for box in boxes)
            if inside or len(known) + len(new) >= MAX_PEOPLE:
                continue
            radius = 1.25 * np.linalg.norm(rim - hips)
            x0, y0 = np.maximum(hips - radius, 0).astype(int)
            x1, y1 = (hips + radius).astype(int)
            alone = np.full_like(image, 128)
            alone[y0:y1, x0:x1] = image[y0:y1, x0:x1]
            pose = _start(self._solution)
            new.append((pose, _keypoints(pose.process(alone), image)))
        return new


def _settle(found: list[tuple[Any, np.ndarray | None]]) -> tuple[list[Any], list[np.ndarray]]:
    """Closes instances that lost their person or follow one that an earlier instance has."""
    kept: list[Any] = []
    people: list[np.ndarray] = []
    for pose, person in found:
        if person is None or any(agreement(other, person) > SAME_PERSON for other in people):
            pose.close()
        else:
            kept.append(pose)
            people.append(person)
    return kept, people
