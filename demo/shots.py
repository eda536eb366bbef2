"""Where a video cuts from one shot to the next: the whole picture changes at once, and stays so."""

from collections.abc import Sequence

import cv2
import numpy as np

from lib.film import Frame

SMALL = (16, 9)  # what is compared of a picture: width and height
GLANCE = (128, 72)  # large enough a picture to make it from
CHANGE = 20.0  # of 255: a cut changes the small picture by more, on average
OUTLIER = 4.0  # … and by so many times as much as the frames around, which a fast camera does not
AROUND = 5  # frames


def small_picture(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 -> (9, 16, 3) uint8."""
    height, width = frame.shape[:2]
    thin = frame[:: max(1, height // GLANCE[1]), :: max(1, width // GLANCE[0])]
    thin = np.ascontiguousarray(thin)
    return np.asarray(cv2.resize(thin, SMALL, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def find_cuts(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Small pictures of the frames, in order -> the frames that begin a new shot, rising.

    A flash is none: after it the picture is as before.
    """
    if len(pictures) < 2:
        return np.zeros(0, dtype=np.int64)
    film = np.stack(pictures).astype(np.int16)
    change = _change(film[:-1], film[1:])  # from each frame to the next
    cuts = []
    for step in np.flatnonzero(change > CHANGE):
        near = np.arange(max(0, step - AROUND), min(len(change), step + AROUND + 1))
        usual = float(np.median(np.delete(change[near], step - near[0]))) if len(near) > 1 else 0.0
        across = [
            float(_change(film[a], film[b]))
            for a, b in ((step - 1, step + 1), (step, step + 2))
            if a >= 0 and b < len(film)
        ]
        if change[step] > OUTLIER * usual and min(across, default=CHANGE + 1) > CHANGE:
            cuts.append(step + 1)
    return np.array(cuts, dtype=np.int64)


def _change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(after - before).mean(axis=(-1, -2, -3))
