"""Lifting a track of any length with a model that takes clips of T frames.

The clips overlap and are blended by weight, so no time is stretched and nothing jumps where one
clip ends; a track shorter than T is continued by reflection and cut back.

The network is shown people about as large and as central in the picture as in its training. One
trained on Human3.6M's square pictures has never seen a person who fills a tall one, one who is
tiny, or one at its upper border, and bends them out of shape. A longer lens and a turned camera
would have filmed nearly the same; so the picture is cropped, once for the whole video, but only as
far as needed.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lib.camera import to_screen
from lib.evaluation.frames import blend_weights

# The range of a person's longer side, in half picture widths. Outside of it, poses get worse.
EXTENT = (0.6, 1.2)
# Where the middle of a person's box may lie, on the screen.
MIDDLE = np.array([[-0.6, -0.05], [0.6, 0.2]])


class Lifter(Protocol):
    """What lifting needs to know of a model."""

    n_frames: int  # T

    def lift(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, 17, 3) x, y on the normalised screen, confidence -> (N, T, 17, 3)."""
        ...


@dataclass(frozen=True)
class Framing:
    """A square window: its centre (2,), and the pixels from there to its side."""

    centre: np.ndarray
    half: float

    @classmethod
    def of(cls, keypoints: np.ndarray, size: tuple[int, int]) -> "Framing":
        """The whole picture if it suits the person (F, J, 3), else what comes nearest to it."""
        seen = keypoints[..., 2].max(axis=-1) > 0
        points = keypoints[seen if seen.any() else ..., :, :2].astype(np.float64)
        low, high = points.min(axis=1), points.max(axis=1)
        extent = max(float(np.median((high - low).max(axis=-1))), 1e-6)
        half = float(np.clip(size[0] / 2, extent / EXTENT[1], extent / EXTENT[0]))
        middle = np.median((low + high) / 2, axis=0)
        wanted = np.clip((middle - np.array(size) / 2) / half, *MIDDLE)
        return cls(middle - wanted * half, half)

    def to_screen(self, keypoints: np.ndarray) -> np.ndarray:
        """Pixels (..., 3: x, y, confidence) -> normalised screen, as lib.camera's."""
        screen = keypoints.astype(np.float32)
        in_window = keypoints[..., :2] - (self.centre - self.half)
        screen[..., :2] = to_screen(in_window, (2 * self.half, 2 * self.half))
        return screen


def reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices of any range -> 0 .. length - 1, running back and forth: … 2 1 0 1 2 …"""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.where(index < length, index, period - index)


def clip_frames(length: int, n_frames: int) -> np.ndarray:
    """The frame each position of each clip shows, (N, T); each clip overlaps the next by half.

    The last one ends with the track. A track shorter than T stands in the middle of one clip;
    the positions before and after it hold indices below 0 and from `length` on.
    """
    if length <= n_frames:
        starts = np.array([-((n_frames - length) // 2)])
    else:
        stride = (n_frames + 1) // 2
        starts = np.append(np.arange(0, length - n_frames, stride), length - n_frames)
    return starts[:, None] + np.arange(n_frames)


def bridge_confidence(screen: np.ndarray) -> np.ndarray:
    """(F, 17, 3): where a joint was not seen, the confidence of its neighbours in time.

    Its position is already theirs. The network takes a confidence of 0 for a joint that is
    somewhere else, and bends the frames around it too.
    """
    bridged, frames = screen.copy(), np.arange(len(screen))
    for joint in range(screen.shape[1]):
        seen = np.flatnonzero(screen[:, joint, 2] > 0)
        if 0 < len(seen) < len(screen):
            bridged[:, joint, 2] = np.interp(frames, seen, screen[seen, joint, 2])
    return bridged


def lift_track(lifter: Lifter, screen: np.ndarray, clips_at_once: int = 64) -> np.ndarray:
    """(F, 17, 3) x, y on the normalised screen, confidence -> (F, 17, 3), root at 0."""
    length, n_frames = len(screen), lifter.n_frames
    frames = clip_frames(length, n_frames)
    weights = blend_weights(n_frames)
    total, weight = np.zeros((length, *screen.shape[1:])), np.zeros(length)
    for start in range(0, len(frames), clips_at_once):
        chunk = frames[start : start + clips_at_once]
        poses = lifter.lift(screen[reflected(chunk, length)])
        # Each clip root-relative before the blend: clips may disagree about the root.
        poses = poses - poses[..., :1, :]
        for shown, pose in zip(chunk, poses, strict=True):
            inside = (shown >= 0) & (shown < length)
            total[shown[inside]] += weights[inside, None, None] * pose[inside]
            weight[shown[inside]] += weights[inside]
    return (total / weight[:, None, None]).astype(np.float32)
