"""Where the viewer of a film or a page looks: at all of the room, or along with those who walk."""

from dataclasses import dataclass

import numpy as np

from demo.poses import Poses

FOLLOW_SECONDS = 1.0  # over which the way that the viewer follows is averaged
# People who need no more room than this many times what they need when followed are not followed.
SPACIOUS = 1.4
TRAIL_SECONDS = 0.1  # from point to point of the line that people leave on the floor


@dataclass(frozen=True)
class Focus:
    """middle: (F, 3) world mm, what is in the middle of the view; radius: mm around it."""

    middle: np.ndarray
    radius: float

    @classmethod
    def of(cls, poses: Poses) -> "Focus":
        everything = np.ones_like(poses.present)
        joints = poses.pose_world[..., :2].reshape(-1, 2)
        low, high = np.percentile(joints, [0.5, 99.5], axis=0)
        still = np.tile((low + high) / 2, (poses.num_frames, 1))
        whole = cls._around(poses, still, everything)
        along = cls._around(poses, _smooth(_middle_of_each(poses), poses.fps), poses.present)
        return whole if whole.radius <= SPACIOUS * along.radius else along

    @classmethod
    def _around(cls, poses: Poses, level: np.ndarray, who: np.ndarray) -> "Focus":
        """level: (F, 2) x and y of the middle; who: (P, F) is to be seen."""
        height = np.percentile(poses.pose_world[who][..., 2], 99.5) / 2
        middle = np.concatenate([level, np.full((len(level), 1), height)], axis=1)
        away = np.linalg.norm(poses.pose_world - middle[:, None], axis=-1)[who]
        return cls(middle, max(float(np.percentile(away, 99.8)) * 1.05, 1.0))


def _middle_of_each(poses: Poses) -> np.ndarray:
    """(F, 2) the mean of those who are there; where nobody is, between the frames around."""
    there = poses.present.astype(np.float64)[..., None]  # (P, F, 1)
    count = there.sum(axis=0)
    mean = (poses.pose_world[:, :, 0, :2] * there).sum(axis=0) / np.maximum(count, 1)
    frames, known = np.arange(len(mean)), np.flatnonzero(count[:, 0])
    return np.stack([np.interp(frames, known, mean[known, axis]) for axis in (0, 1)], axis=-1)


def _smooth(way: np.ndarray, fps: float) -> np.ndarray:
    reach = round(2 * FOLLOW_SECONDS * fps)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(FOLLOW_SECONDS * fps, 1e-9)) ** 2)
    # Mirrored at the ends, so that the viewer does not lag behind those who walk in and out.
    padded = np.pad(way, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(c, kernel / kernel.sum(), mode="valid") for c in padded.T], -1)


def trail(poses: Poses, row: int, frame: int) -> np.ndarray:
    """(N, 2) where a person's root has been up to a frame, since their stretch began."""
    before = np.flatnonzero(poses.stretch[row, :frame] != poses.stretch[row, frame])
    start = int(before[-1]) + 1 if len(before) else 0
    step = max(1, round(TRAIL_SECONDS * poses.fps))
    return poses.pose_world[row, np.append(np.arange(start, frame, step), frame), 0, :2]
