"""Poses for the web page, and what its tests look at."""

import numpy as np

from demo.poses import Poses


def sample_poses(people: int = 1, frames: int = 50, size: tuple[int, int] = (640, 480)) -> Poses:
    """Someone of 1.6 m whose left wrist goes up by 10 mm a frame."""
    pose = np.zeros((people, frames, 17, 3), dtype=np.float32)
    heights = [900, 900, 480, 60, 900, 480, 60, 1130, 1380, 1500, 1600]
    pose[:, :, :11, 2] = heights
    pose[:, :, 1:4, 0], pose[:, :, 4:7, 0] = 130, -130
    for side, first in ((-1, 11), (1, 14)):
        pose[:, :, first : first + 3, 0] = side * np.array([150, 400, 600])
        pose[:, :, first : first + 3, 2] = 1350
    pose[:, :, 13, 2] += 10 * np.arange(frames)
    pose[..., 0] += 1500 * np.arange(people)[:, None, None]
    flat = np.empty((people, frames, 17, 3), dtype=np.float32)
    flat[..., 0], flat[..., 1] = 320 + 0.25 * pose[..., 0], 440 - 0.25 * pose[..., 2]
    flat[..., 2] = 0.9
    flat[:, :5, 3, 2] = 0
    return Poses(
        np.arange(1, people + 1),
        flat,
        pose - pose[:, :, :1],
        pose,
        np.zeros(people),
        25.0,
        size,
        5.0,
        np.arange(frames) / 25.0,
        np.ones((people, frames), dtype=np.int32),
    )


def record(browser, method: str) -> None:
    """From now on the arguments of a canvas's method are in `calls`."""
    browser.run(
        f"calls = []; drawer = CanvasRenderingContext2D.prototype; plain = drawer.{method};"
        f"drawer.{method} = function (...what) {{ calls.push(what); plain.apply(this, what); }}; 0"
    )
