"""What the default detector finds in the videos of several cameras: in 2D, and as its own 3D.

P people, F frames; J = 33 keypoints of BlazePose.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo.detectors import choose_detector
from demo.detectors.blazepose import COCO_OF_BLAZEPOSE
from demo.detectors.landmarks import FILE, NUM_KEYPOINTS, SIDE, Region, find_landmarks
from demo.detectors.networks import open_network
from demo.people import People
from demo.pipeline import people_in_video
from demo.video import Video
from lib.files import write_atomic
from lib.film import Frame
from lib.keypoints import BLAZEPOSE_33

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from onnxruntime.capi.onnxruntime_inference_collection import NodeArg


@dataclass(frozen=True)
class Seen:
    """One video's people. keypoints: (P, F, J, 3) pixels and confidence, 0 where somebody is not
    seen; own: (P, F, J, 3) the detector's own 3D, mm in the axes of the picture (x right, y down, z
    away), NaN there; size: of the picture; times: (F,) seconds.
    """

    keypoints: np.ndarray
    own: np.ndarray
    size: tuple[int, int]
    times: np.ndarray

    def person(self, number: int) -> People:
        """The person in row `number` of the arrays, as the detector gives them."""
        people = People.of_array(self.keypoints[number][None], BLAZEPOSE_33)
        return people.filmed(0.0, self.size).at(self.times.tolist())


class Heard:
    """The landmark network, whose last answers are kept: the demo leaves its 3D alone."""

    def __init__(self, network: "InferenceSession") -> None:
        self._network = network
        self.answers: list[np.ndarray] = []

    def get_inputs(self) -> "list[NodeArg]":
        inputs: list[NodeArg] = self._network.get_inputs()
        return inputs

    def run(self, names: list[str] | None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.answers = self._network.run(names, inputs)
        return self.answers


def own_3d(network: Heard, frame: Frame, keypoints: np.ndarray) -> np.ndarray:
    """The detector's 3D of people (P, J, 3) of a frame -> (P, J, 3) mm, see `Seen`.

    As in MediaPipe: of a crop turned upright, and turned back with it. Left and right are as in the
    keypoints, where the demo has exchanged them.
    """
    regions = [Region.of_coco(person[COCO_OF_BLAZEPOSE]) for person in keypoints]
    regions = [found.region for found in find_landmarks(network, frame, regions)]
    landmarks = find_landmarks(network, frame, regions)
    points = 1000 * network.answers[2].reshape(len(regions), -1, 3)[:, :NUM_KEYPOINTS]
    mirror = list(BLAZEPOSE_33.mirror)
    for index, (found, person) in enumerate(zip(landmarks, keypoints, strict=True)):
        seen = person[:, 2] > 0
        apart, exchanged = (
            np.linalg.norm((one - person)[seen, :2], axis=1).mean()
            for one in (found.keypoints, found.keypoints[mirror])
        )
        if exchanged < apart:
            points[index] = points[index, mirror]
    turn = np.stack([region.to_frame[:, :2] * SIDE / region.side for region in regions])
    points[..., :2] = np.einsum("pik,pjk->pji", turn, points[..., :2])
    return points


def see(video: Path, kept: Path) -> Seen:
    """From the file `kept`, which is written where it is missing. Raises UserError."""
    if not kept.exists():
        _detect(video, kept)
    with np.load(kept) as file:
        width, height = file["size"].tolist()
        return Seen(file["keypoints"], file["own"], (width, height), file["times"])


def _detect(video: Path, kept: Path) -> None:
    with Video(str(video)) as opened:
        people = people_in_video(opened, choose_detector("blazepose"), "all", raw=True)
    rows = np.searchsorted(people.numbers, people.person)
    shape = (len(people.numbers), people.num_frames, NUM_KEYPOINTS, 3)
    keypoints, own = np.zeros(shape, np.float32), np.full(shape, np.nan, np.float32)
    keypoints[rows, people.frame] = people.keypoints
    network = Heard(open_network(FILE))
    with Video(str(video)) as opened:
        for number, frame in enumerate(opened.frames()):
            here = people.frame == number
            if here.any():
                own[rows[here], number] = own_3d(network, frame, people.keypoints[here])
    kept.parent.mkdir(parents=True, exist_ok=True)
    with write_atomic(kept) as out:
        facts = {"size": np.array(people.size), "times": people.seconds}
        np.savez_compressed(out, allow_pickle=False, keypoints=keypoints, own=own, **facts)
