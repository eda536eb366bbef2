"""The released demo's pair: YOLOv3 finds people, HRNet-W48 their keypoints."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from demo.detectors.hrnet_model import HRNet
from demo.detectors.yolo import PersonDetector
from demo.people import Detector, Found, nobody
from lib.errors import UserError
from lib.film import Frame
from lib.keypoints import COCO_17

YOLO_FILE, HRNET_FILE = "yolov3.weights", "pose_hrnet_w48_384x288.pth"
WEIGHTS_URL = "https://drive.google.com/drive/folders/1_ENAMOsPM7FXmdYRbkwbFHgzQq_B_NQA"
CROP = (288, 384)  # width, height
STRIDE = 4  # of the heatmaps
MARGIN = 1.25
# ImageNet's, RGB
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def open_detector(weights_dir: Path) -> Detector:
    """Raises UserError where a weights file is missing."""
    missing = [name for name in (YOLO_FILE, HRNET_FILE) if not (weights_dir / name).is_file()]
    if missing:
        raise UserError(
            f"--detector hrnet: {' and '.join(missing)} not found in {weights_dir}; download them"
            f" from {WEIGHTS_URL} (as in README.md) into that folder, or use --detector blazepose"
        )
    return Detector(
        lambda: YoloHRNet(
            PersonDetector(weights_dir / YOLO_FILE), load_hrnet(weights_dir / HRNET_FILE)
        )
    )


def load_hrnet(path: Path) -> HRNet:
    """HRNet-W48 with the published weights, in eval mode. Never runs code from the file.

    Raises UserError.
    """
    model = HRNet()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # a damaged file can raise almost anything
        raise UserError(
            f"{path}: not the published weights of HRNet-W48 (384x288); download it again"
        ) from error
    return model.eval()


def crop_region(box: np.ndarray) -> tuple[np.ndarray, float]:
    """A person's box x0, y0, x1, y1 -> centre and width (pixels) of the region to crop.

    The region has the crop's aspect ratio and a margin, so nothing is stretched.
    """
    width, height = np.maximum(box[2:] - box[:2], 1)
    return (box[:2] + box[2:]) / 2, float(max(width, height * CROP[0] / CROP[1]) * MARGIN)


def crop(frame: Frame, centre: np.ndarray, width: float) -> np.ndarray:
    """(3, 384, 288) float32 RGB, normalised; black outside the frame."""
    scale = CROP[0] / width
    shift = np.array(CROP) / 2 - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    patch = cv2.warpAffine(frame, matrix, CROP, flags=cv2.INTER_LINEAR)
    rgb = cv2.cvtColor(patch, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return rearrange((rgb - MEAN) / DEVIATION, "y x rgb -> rgb y x")


@torch.inference_mode()
def heatmaps(model: torch.nn.Module, crops: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 17, H/4, W/4): the mean with the mirrored crop's, mirrored back."""
    direct, mirrored = model(torch.cat((crops, crops.flip(-1)))).chunk(2)
    mirrored = mirrored[:, list(COCO_17.mirror)].flip(-1)
    # Mirrored back, a heatmap lies one cell to the left of the direct one (HRNet's SHIFT_HEATMAP).
    aligned = mirrored.clone()
    aligned[..., 1:] = mirrored[..., :-1]
    return (direct + aligned) / 2


def decode(maps: np.ndarray) -> np.ndarray:
    """Heatmaps (B, J, h, w) -> (B, J, 3): x, y in cells and the maximum.

    The maximum's cell, moved by a quarter cell towards the larger of its neighbours.
    """
    batch, joints, height, width = maps.shape
    flat = rearrange(maps, "b j y x -> b j (y x)")
    best = flat.argmax(-1)
    y, x = np.divmod(best, width)
    b, j = np.ogrid[:batch, :joints]

    left, right = maps[b, j, y, np.maximum(x - 1, 0)], maps[b, j, y, np.minimum(x + 1, width - 1)]
    up, down = maps[b, j, np.maximum(y - 1, 0), x], maps[b, j, np.minimum(y + 1, height - 1), x]
    # As published: no shift for a maximum within a cell of the border.
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return np.stack(
        [
            x + inside * np.sign(right - left) / 4,
            y + inside * np.sign(down - up) / 4,
            np.clip(flat.max(-1), 0, 1),
        ],
        axis=-1,
    )


class YoloHRNet:
    """Every person YOLOv3 finds, in COCO-17 keypoints."""

    layout = COCO_17

    def __init__(self, people: PersonDetector, model: torch.nn.Module) -> None:
        self._people, self._model = people, model

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        for frame in frames:
            regions = [crop_region(box) for box in self._people(frame)]
            if not regions:
                yield nobody(self.layout)
                continue
            crops = np.stack([crop(frame, centre, width) for centre, width in regions])
            found = decode(heatmaps(self._model, torch.from_numpy(crops)).numpy())
            for person, (centre, width) in zip(found, regions, strict=True):
                cell = width * STRIDE / CROP[0]  # pixels
                person[:, :2] = (person[:, :2] - np.array(CROP) / (2 * STRIDE)) * cell + centre
            yield found.astype(np.float32)
