"""RTMPose through the rtmlib package, which downloads its own weights: for people online."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from demo.people import Detector, Found
from lib.errors import UserError
from lib.film import Frame
from lib.keypoints import COCO_17, HALPE_26, Layout

MIN_SCORE = 0.3  # mean over the keypoints: rtmlib takes the whole frame where it finds nobody


def open_detector(weights_dir: Path) -> Detector:
    """With weights of its own. Raises UserError: rtmlib is missing."""
    try:
        import rtmlib
    except ImportError as error:
        raise UserError(
            "--detector rtmpose: not installed; pip install rtmlib onnxruntime"
        ) from error

    # Older versions have the 17 keypoints only.
    with_feet = hasattr(rtmlib, "BodyWithFeet")
    body = rtmlib.BodyWithFeet if with_feet else rtmlib.Body
    layout = HALPE_26 if with_feet else COCO_17

    def make() -> "RTMPose":
        try:
            return RTMPose(body(mode="balanced", backend="onnxruntime", device="cpu"), layout)
        except Exception as error:  # whatever its downloader raises
            raise UserError(
                f"--detector rtmpose: its weights cannot be loaded ({error}); it downloads them"
                " once, so it needs a network; offline, use --detector blazepose"
            ) from error

    return Detector(make)


class RTMPose:
    """People found by rtmlib's detector, keypoints by RTMPose (Jiang et al. 2023)."""

    def __init__(self, body: Any, layout: Layout) -> None:
        """body: frame -> keypoints (P, J, 2), scores (P, J)."""
        self._body, self.layout = body, layout

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        for frame in frames:
            keypoints, scores = self._body(frame)
            confidence = np.clip(scores, 0, 1)[..., None]
            people = np.concatenate([keypoints, confidence], axis=-1).astype(np.float32)
            people = rearrange(people, "... j d -> (...) j d", j=self.layout.num_keypoints)
            yield people[people[..., 2].mean(axis=1) >= MIN_SCORE]
