"""What the demo computes: 2D keypoints and 3D poses of each person in each frame."""

from dataclasses import dataclass

import numpy as np

from lib.skeleton import H36M


@dataclass(frozen=True)
class Poses:
    """P people, F frames, 17 joints of lib.skeleton.H36M.

    persons: (P,) numbers, 1 the first to appear in the video.
    keypoints_2d: (P, F, 17, 3): x and y in pixels, confidence; 0: not seen, filled in.
    pose_3d: (P, F, 17, 3): x right, y down, z away from the camera; root at 0.
    pose_world: (P, F, 17, 3): x right, y away from the camera, z up, the floor at z = 0, on which
    ankles rest.
    fov: degrees that the camera sees over the picture's longer side, as was assumed for the paths;
    0: everybody stays in place.
    bone_variation: (P,) how much the bone lengths of the network's own poses vary, standard
    deviation over mean, averaged over the bones; in the poses above they are constant unless
    asked otherwise.
    fps: frames a second, on average; times: (F,) seconds of each frame, from 0.
    size: width and height of the video in square pixels, as it is shown, as keypoints_2d are.
    stretch: (P, F) 1 for a person's first stretch (one shot, seen without a long absence), 2 for
    the next …; 0 where the person is not there, and as in the nearest frame in which they are.
    Lengths are like millimetres: scaled, once for each stretch, to a body of average size. A single
    camera does not know true sizes.
    """

    persons: np.ndarray
    keypoints_2d: np.ndarray
    pose_3d: np.ndarray
    pose_world: np.ndarray
    bone_variation: np.ndarray
    fps: float
    size: tuple[int, int]
    camera_pitch: float  # degrees the camera looks down; in the longest shot
    times: np.ndarray
    stretch: np.ndarray
    fov: float = 0.0
    camera_roll: float = 0.0  # degrees that what is upright leans to the right; likewise

    @property
    def confidence(self) -> np.ndarray:
        """(P, F, 17)"""
        return self.keypoints_2d[..., 2]

    @property
    def present(self) -> np.ndarray:
        """(P, F) whether a person has come and not yet gone."""
        return self.stretch > 0

    @property
    def num_frames(self) -> int:
        return self.keypoints_2d.shape[1]


def bone_lengths(pose: np.ndarray) -> np.ndarray:
    """(..., 17, 3) -> (..., 16), bone k ending at joint k + 1."""
    ends = pose[..., list(H36M.bone_children), :] - pose[..., list(H36M.bone_parents), :]
    return np.linalg.norm(ends, axis=-1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) brought to length 1; those of no length stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def bone_variation(pose: np.ndarray) -> float:
    """(F, 17, 3) -> standard deviation over mean of the bone lengths, averaged over the bones."""
    lengths = bone_lengths(pose)
    return float(np.mean(lengths.std(axis=0) / np.maximum(lengths.mean(axis=0), 1e-9)))


def fixed_lengths(pose: np.ndarray) -> np.ndarray:
    """(F, 17, 3) -> (16,): each bone's median length, left and right made equal."""
    lengths = np.median(bone_lengths(pose), axis=0)
    mirror = [H36M.flip_order[child] - 1 for child in H36M.bone_children]
    return (lengths + lengths[mirror]) / 2


def fit_bones(pose: np.ndarray) -> np.ndarray:
    """The same bone directions with `fixed_lengths`, (F, 17, 3) -> (F, 17, 3); the root stays."""
    fitted = pose.copy()
    for (parent, child), length in zip(H36M.bones, fixed_lengths(pose), strict=True):
        fitted[:, child] = fitted[:, parent] + unit(pose[:, child] - pose[:, parent]) * length
    return fitted


def shortest_turn(start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Rotations (F, 3, 3) that take the unit vector start (3,) to the unit vectors ends (F, 3)."""
    cos = ends @ start
    axis = np.cross(start, ends)  # length: the sine
    # Opposite to the start any axis across it will do: take one that depends on `start` alone.
    across = np.cross(start, [1.0, 0, 0] if abs(start[0]) < 0.9 else [0, 1.0, 0])
    half_turn = 2 * np.outer(across, across) / (across @ across) - np.eye(3)
    skew = np.zeros((len(ends), 3, 3))
    skew[:, [2, 0, 1], [1, 2, 0]], skew[:, [1, 2, 0], [2, 0, 1]] = axis, -axis
    turn = np.eye(3) + skew + skew @ skew / np.maximum(1 + cos, 1e-9)[:, None, None]
    return np.where((cos < -1 + 1e-9)[:, None, None], half_turn, turn)
