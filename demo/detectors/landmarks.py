"""BlazePose's landmark network: the 33 keypoints of one person in an upright square crop.

Sources: Bazarevsky et al. 2020, "BlazePose"; the graphs of Google's MediaPipe (Apache-2.0), which
crops likewise; see weights/README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lib.film import Frame
from lib.keypoints import COCO_17

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILE = "blazepose_landmarks.onnx"
SIDE = 256  # of the crop
NUM_KEYPOINTS = 33
HIPS, RIM = 33, 34  # the two points that tell the next frame's region
MARGIN = 1.25
SMALLEST = 12.0  # pixels of a region's side
SEEN = 0.3  # a score of MultiPose from which a keypoint counts


@dataclass(frozen=True)
class Region:
    """A square around a person, turned so that they stand upright in it.

    centre: (2,) pixels of the frame; side: pixels; angle: radians, clockwise.
    """

    centre: np.ndarray
    side: float
    angle: float

    @classmethod
    def around(cls, hips: np.ndarray, rim: np.ndarray) -> "Region":
        """hips: (2,) their middle; rim: (2,) above the head, on a circle around the body."""
        up = rim - hips
        side = 2 * MARGIN * float(np.linalg.norm(up))
        return cls(hips, side, float(np.arctan2(up[0], -up[1])))

    @classmethod
    def of_coco(cls, keypoints: np.ndarray) -> "Region":
        """Of somebody whom another network found: (17, 3)."""
        joint = dict(zip(COCO_17.names, keypoints, strict=True))
        hips = (joint["left_hip"] + joint["right_hip"])[:2] / 2
        up = (joint["left_shoulder"] + joint["right_shoulder"])[:2] / 2 - hips
        seen = keypoints[keypoints[:, 2] >= SEEN]
        far = np.linalg.norm((seen if len(seen) else keypoints)[:, :2] - hips, axis=1).max()
        return cls.around(hips, hips + far * up / max(float(np.linalg.norm(up)), 1e-6))

    def is_in(self, frame: Frame) -> bool:
        """Whether there is something to see there."""
        size = np.array(frame.shape[1::-1])
        inside = (self.centre > -self.side / 2).all() and (self.centre < size + self.side / 2).all()
        return bool(SMALLEST <= self.side <= 8 * size.max() and inside)

    @property
    def to_frame(self) -> np.ndarray:
        """(2, 3): pixels of the crop -> pixels of the frame."""
        turn = [
            [np.cos(self.angle), -np.sin(self.angle)],
            [np.sin(self.angle), np.cos(self.angle)],
        ]
        linear = np.array(turn) * self.side / SIDE
        return np.column_stack([linear, self.centre - linear @ [SIDE / 2, SIDE / 2]])


@dataclass(frozen=True)
class Landmarks:
    """What the network says of a region: (33, 3) keypoints, x and y in pixels of the frame and
    whether they are visible, 0 to 1; whether somebody is there, 0 to 1; the next frame's region;
    for how many frames left and right have been exchanged, since the network has them wrong.
    """

    keypoints: np.ndarray
    presence: float
    region: Region
    exchanged: int = 0


def find_landmarks(
    network: "InferenceSession", frame: Frame, regions: Sequence[Region]
) -> list[Landmarks]:
    """Of each region, in their order; the network sees all of them at once."""
    if not regions:
        return []
    crops = np.empty((len(regions), SIDE, SIDE, 3), dtype=np.float32)
    for crop, region in zip(crops, regions, strict=True):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(frame, region.to_frame, (SIDE, SIDE), flags=flags)
        # OpenCV turns BGR round several times faster than numpy.
        np.multiply(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.float32(1 / 255), out=crop)
    answers = network.run(None, {network.get_inputs()[0].name: crops})
    points = np.asarray(answers[0]).reshape(len(regions), -1, 5)  # x, y, z, visibility, presence
    found = []
    for region, there, point in zip(regions, np.asarray(answers[1]), points, strict=True):
        matrix = region.to_frame
        places = point[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        visible = (1 + np.tanh(point[:NUM_KEYPOINTS, 3:4] / 2)) / 2  # the sigmoid, without overflow
        keypoints = np.concatenate([places[:NUM_KEYPOINTS], visible], axis=1).astype(np.float32)
        found.append(
            Landmarks(keypoints, float(there[0]), Region.around(places[HIPS], places[RIM]))
        )
    return found
