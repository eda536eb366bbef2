"""MoveNet MultiPose: up to six people of a picture, without knowing anything of them before.

Source: Google's MoveNet (multipose lightning), Apache-2.0; see weights/README.md.
"""

from math import ceil
from typing import TYPE_CHECKING

import cv2
import numpy as np
from einops import rearrange

from demo.people import Found
from lib.film import Frame

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILE = "movenet_multipose.onnx"
SIZE = (512, 288)  # of its picture: width, height
MAX_PEOPLE = 6  # whom the network tells of one picture
MIN_SCORE = 0.2  # of a person
ZOOM = 1.6  # of a tile: people too small for the network in the whole picture are found there

Tile = tuple[slice, slice]  # rows and columns of a frame


def find_everybody(network: "InferenceSession", frame: Frame) -> Found:
    """(P, 17, 3) COCO keypoints of the people in a frame, the surest first."""
    height, width = frame.shape[:2]
    scale = min(SIZE[0] / width, SIZE[1] / height)
    inside = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, inside, interpolation=cv2.INTER_AREA)
    picture = np.zeros((1, SIZE[1], SIZE[0], 3), dtype=np.int32)
    picture[0, : inside[1], : inside[0]] = small[..., ::-1]
    (answer,) = network.run(None, {network.get_inputs()[0].name: picture})
    people = np.asarray(answer)[0]  # (6, 56): 17 of y, x, score; a box of 4; the person's score
    people = people[people[:, 55] >= MIN_SCORE]
    keypoints = rearrange(people[:, :51], "p (j d) -> p j d", d=3)[..., [1, 0, 2]]
    # Units of the whole picture, its empty part included.
    to_frame = [SIZE[0] * width / inside[0], SIZE[1] * height / inside[1], 1]
    return (keypoints * to_frame).astype(np.float32)


def tiles(height: int, width: int) -> list[Tile]:
    """Parts of a frame that overlap and cover it, in each of which the network sees more detail."""
    scale = ZOOM * min(SIZE[0] / width, SIZE[1] / height)
    rows, columns = (
        _spread(length, min(length, ceil(side / scale)))
        for length, side in ((height, SIZE[1]), (width, SIZE[0]))
    )
    return [(row, column) for row in rows for column in columns]


def _spread(length: int, part: int) -> list[slice]:
    count = ceil(length / part)
    starts = [round((length - part) * n / max(count - 1, 1)) for n in range(count)]
    return [slice(start, start + part) for start in starts]


def find_in_tile(network: "InferenceSession", frame: Frame, tile: Tile) -> Found:
    """Like `find_everybody`, of the people in a part of the frame; in pixels of the frame."""
    rows, columns = tile
    people = find_everybody(network, frame[rows, columns])
    people[..., :2] += np.array([columns.start, rows.start], dtype=np.float32)
    return people
