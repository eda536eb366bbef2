"""What people look like: the colours of their clothes, to tell them apart where ways cross."""

import cv2
import numpy as np
from einops import rearrange

from demo.people import Found
from lib.film import Frame
from lib.keypoints import Layout

# Four corners of each part, and how many samples lie along its sides.
TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
THIGHS = ("left_hip", "right_hip", "left_knee", "right_knee")
SAMPLES = 8
# Cells of a histogram of each channel of CIELAB, between the values where clothes differ.
CELLS = 8
RANGE = np.array([[0, 255], [98, 158], [98, 158]], dtype=np.float32)  # OpenCV's 8 bits


def describe(frame: Frame, people: Found, layout: Layout) -> np.ndarray:
    """(P, 48): the square roots of histograms of the colours of trunk and thighs.

    Of equal clothes the product of two of them is 1, of clothes without a common colour 0.
    """
    if not len(people):
        return np.zeros((0, 2 * 3 * CELLS), dtype=np.float32)
    steps = (np.arange(SAMPLES, dtype=np.float32) + 0.5) / SAMPLES
    across = np.stack([1 - steps, steps], axis=-1)  # (S, 2)
    corners = np.stack(
        [[[p[layout.names.index(n), :2] for n in part] for part in (TRUNK, THIGHS)] for p in people]
    )
    square = rearrange(corners, "p part (y x) d -> p part y x d", y=2)
    points = np.einsum("iy,jx,qcyxd->qcijd", across, across, square)
    # Not beyond the picture, however far from it a keypoint may lie.
    x = np.clip(np.nan_to_num(points[..., 0]), 0, frame.shape[1] - 1).astype(int)
    y = np.clip(np.nan_to_num(points[..., 1]), 0, frame.shape[0] - 1).astype(int)
    pixels = rearrange(frame[y, x], "q c i j d -> (q c) (i j) d")
    lab = cv2.cvtColor(pixels, cv2.COLOR_BGR2LAB).astype(np.float32)
    # Each value belongs to its two nearest cells, so that no border parts alike colours.
    place = (np.clip(lab, *RANGE.T) - RANGE[:, 0]) / (RANGE[:, 1] - RANGE[:, 0]) * (CELLS - 1)
    share = np.maximum(1 - np.abs(place[..., None] - np.arange(CELLS)), 0)
    histograms = share.mean(axis=1) / (2 * 3)  # (P * 2, 3, cells): sums of 1 a person
    return rearrange(np.sqrt(histograms), "(q c) d k -> q (c d k)", c=2).astype(np.float32)
