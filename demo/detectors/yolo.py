"""YOLOv3 finds people, through OpenCV's dnn module.

Source: Redmon and Farhadi 2018, "YOLOv3: An Incremental Improvement". OpenCV wants the network as
a .cfg file, which is written here from the published architecture; the weights are the published
yolov3.weights.
"""

import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from lib.errors import UserError
from lib.film import Frame

CLASSES = 80
PERSON = 0  # its class
ANCHORS = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)
STAGES = (1, 2, 8, 8, 4)  # residual blocks of Darknet-53 at each halving of the resolution
THRESHOLD = 0.5  # least confidence of a person
OVERLAP = 0.45  # boxes that overlap more show the same person
# The output layers, coarsest first, and the anchors each one has.
MASKS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))


class _Cfg:
    """Writes sections and counts layers and weights as darknet does."""

    def __init__(self, size: int) -> None:
        self.sections = [f"[net]\nwidth={size}\nheight={size}\nchannels=3\n"]
        self.filters: list[int] = []  # output channels of each layer
        self.weights = 0

    def _add(self, text: str, filters: int) -> int:
        self.sections.append(text + "\n")
        self.filters.append(filters)
        return len(self.filters) - 1

    def convolution(self, filters: int, kernel: int, stride: int = 1, last: bool = False) -> int:
        """last: with bias and linear, in place of batch norm and leaky ReLU."""
        into = self.filters[-1] if self.filters else 3
        self.weights += filters * into * kernel**2 + (filters if last else 4 * filters)
        norm = "" if last else "batch_normalize=1\n"
        return self._add(
            f"[convolutional]\n{norm}filters={filters}\nsize={kernel}\nstride={stride}\npad=1\n"
            f"activation={'linear' if last else 'leaky'}",
            filters,
        )

    def shortcut(self) -> int:
        return self._add("[shortcut]\nfrom=-3\nactivation=linear", self.filters[-1])

    def route(self, *layers: int) -> int:
        names = ",".join(map(str, layers))
        return self._add(f"[route]\nlayers={names}", sum(self.filters[i] for i in layers))

    def upsample(self) -> int:
        return self._add("[upsample]\nstride=2", self.filters[-1])

    def yolo(self, mask: tuple[int, ...]) -> int:
        return self._add(
            f"[yolo]\nmask={','.join(map(str, mask))}\nanchors={','.join(map(str, ANCHORS))}\n"
            f"classes={CLASSES}\nnum={len(ANCHORS) // 2}",
            self.filters[-1],
        )


def _network(size: int, width: int) -> _Cfg:
    cfg = _Cfg(size)
    cfg.convolution(width, 3)
    ends = []  # the last layer of each stage
    for stage, blocks in enumerate(STAGES):
        filters = width * 2 ** (stage + 1)
        end = cfg.convolution(filters, 3, stride=2)
        for _ in range(blocks):
            cfg.convolution(filters // 2, 1)
            cfg.convolution(filters, 3)
            end = cfg.shortcut()
        ends.append(end)
    skips = (None, ends[3], ends[2])
    narrow = 0
    for level, (mask, skip) in enumerate(zip(MASKS, skips, strict=True)):
        filters = width * 2 ** (4 - level)
        if skip is not None:
            cfg.route(narrow)
            cfg.convolution(filters, 1)
            cfg.route(cfg.upsample(), skip)
        for _ in range(3):
            narrow = cfg.convolution(filters, 1)
            cfg.convolution(2 * filters, 3)
        cfg.convolution(len(mask) * (5 + CLASSES), 1, last=True)
        cfg.yolo(mask)
    return cfg


def darknet_cfg(size: int, width: int) -> str:
    """YOLOv3 as darknet configuration text.

    size: of the square input, a multiple of 32; width: filters of the first layer (published: 32).
    """
    return "\n".join(_network(size, width).sections)


def weight_count(width: int = 32) -> int:
    """How many numbers the weights file of darknet_cfg(width=width) holds after its header."""
    return _network(32, width).weights


def letterbox(frame: Frame, size: int) -> tuple[np.ndarray, float, np.ndarray]:
    """The frame in the middle of a grey square: image, its scale, and its offset (x, y)."""
    height, width = frame.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    offset = np.array([(size - shape[0]) // 2, (size - shape[1]) // 2])
    square = np.full((size, size, 3), 128, dtype=np.uint8)
    square[offset[1] : offset[1] + shape[1], offset[0] : offset[0] + shape[0]] = cv2.resize(
        frame, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return square, scale, offset


class PersonDetector:
    """Boxes of the people in a frame."""

    def __init__(self, weights: str | os.PathLike[str], size: int = 416, width: int = 32) -> None:
        """size and width: as for darknet_cfg. Raises UserError: not such weights."""
        self._size = size
        wanted = weight_count(width) * 4
        found = Path(weights).stat().st_size
        # The header: three version numbers and the images seen, 32 or 64 bits by version.
        if found - wanted not in (16, 20):
            raise UserError(
                f"{weights}: {found:,} bytes, but YOLOv3's weights take {wanted + 20:,};"
                " download it again"
            )
        with tempfile.TemporaryDirectory() as folder:
            cfg = Path(folder) / "yolov3.cfg"
            cfg.write_text(darknet_cfg(size, width), encoding="ascii")
            try:
                self._net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
            except cv2.error as error:
                raise UserError(f"{weights}: cannot be read as YOLOv3 weights") from error
        self._outputs = self._net.getUnconnectedOutLayersNames()

    def __call__(self, frame: Frame) -> np.ndarray:
        """(P, 4): x0, y0, x1, y1 in pixels, the most confident first."""
        square, scale, offset = letterbox(frame, self._size)
        self._net.setInput(cv2.dnn.blobFromImage(square, 1 / 255, swapRB=True))
        found = np.concatenate(self._net.forward(self._outputs))  # (N, 5 + classes)
        # OpenCV has multiplied the class probabilities by the box's own.
        scores = found[:, 5 + PERSON]
        likely = scores >= THRESHOLD
        if not likely.any():
            return np.zeros((0, 4), dtype=np.float32)
        centres = (found[likely, :2] * self._size - offset) / scale
        sizes = found[likely, 2:4] * self._size / scale
        corners = centres - sizes / 2
        boxes = np.concatenate([corners, sizes], axis=1)
        chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores[likely].tolist(), THRESHOLD, OVERLAP)
        kept = np.asarray(chosen, dtype=int).flatten()
        return np.concatenate([corners[kept], corners[kept] + sizes[kept]], 1).astype(np.float32)
