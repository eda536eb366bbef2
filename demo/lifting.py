"""Lifting a track of any length and frame rate with a model that takes clips of T frames.

The network knows motion at a rate of its own: a track is brought to it, lifted, and brought back
to the times of the video. The clips overlap and are blended by weight, so no time is stretched and
nothing jumps where one clip ends; a track shorter than T is continued by reflection and cut back.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from demo.framing import Framing
from demo.poses import bone_variation, fit_bones
from demo.timeline import at_times, even_times
from demo.tracks import Track
from demo.world import millimetres_per_unit
from lib.evaluation.frames import blend_weights, mean_of_parts


class Lifter(Protocol):
    """What lifting needs to know of a model."""

    n_frames: int  # T
    frame_rate: float  # of the clips, frames a second

    def lift(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, 17, 3) x, y on the normalised screen, confidence -> (N, T, 17, 3)."""
        ...


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


@dataclass(frozen=True)
class Lifted:
    """A track in 3D.

    pose: (F, 17, 3) mm in the axes of a camera that looks at centre, (F, 2) pixels; root at 0;
    bone_variation: see demo.poses.Poses; mm_per_pixel: of the picture, at the person.
    """

    pose: np.ndarray
    centre: np.ndarray
    bone_variation: float
    mm_per_pixel: float


def lift_track(
    lifter: Lifter,
    track: Track,
    size: tuple[int, int],
    constant_bones: bool,
    height: float | None = None,
) -> Lifted:
    """size: of the picture in pixels; constant_bones: each bone has one length in all frames;
    height: of the person in metres, None: average."""
    framing = Framing.along(track.joints, track.times, size)
    screen = bridge_confidence(framing.to_screen(track.joints))
    pose = lift_screen(lifter, screen, track.times)
    scale = millimetres_per_unit(pose, height)
    pose = pose * np.float32(scale)
    return Lifted(
        fit_bones(pose) if constant_bones else pose,
        framing.centre,
        bone_variation(pose),
        scale / float(np.median(framing.half)),
    )


def lift_screen(lifter: Lifter, screen: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(F, 17, 3) x, y on the normalised screen, confidence -> (F, 17, 3), root at 0.

    times: (F,) seconds. A faster video than the network's is lifted in several interleaved parts,
    so that each of its frames is seen, and each has their mean.
    """
    parts = 1
    if len(times) > 1:
        ratio = 1 / float(np.median(np.diff(times))) / lifter.frame_rate
        parts = max(1, math.ceil(ratio - 0.25))  # a fifth faster: nothing is lost in one part
    grid = even_times(times[0], times[-1], parts * lifter.frame_rate)
    even = at_times(screen, times, grid)
    poses = np.empty_like(even)
    for part in range(min(parts, len(even))):
        poses[part::parts] = lift_even(lifter, even[part::parts])
    return at_times(mean_of_parts(poses, parts), grid, times)


def lift_even(lifter: Lifter, screen: np.ndarray, clips_at_once: int = 64) -> np.ndarray:
    """As `lift_screen`, of frames at the network's own rate."""
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
