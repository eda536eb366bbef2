"""A video for the demo's tests, whose frames can be told apart."""

from pathlib import Path

import cv2
import numpy as np


def make_video(path: Path, frames: int, size=(160, 120), fps: float = 25.0) -> Path:
    """Frames that show their number: bit b of it is a white block in column b."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for number in range(frames):
        image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        for bit in range(10):
            if number >> bit & 1:
                image[:60, 16 * bit : 16 * bit + 16] = 255
        writer.write(image)
    writer.release()
    return path


def number_in(frame: np.ndarray) -> int:
    return sum(1 << bit for bit in range(10) if frame[30, 16 * bit + 8].mean() > 128)
