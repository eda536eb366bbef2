"""From camera axes to a room: the body's size, which way is up, and where the floor is."""

import numpy as np

from demo.poses import bone_lengths, unit
from demo.timeline import averaged
from lib.camera import camera_to_world
from lib.skeleton import H36M

# Mean bone lengths of Human3.6M's subjects in mm; trunk and legs set the scale, because they are
# long and the same in every pose.
REFERENCE_MM = {
    **{f"{side}_knee": 450.0 for side in ("left", "right")},
    **{f"{side}_ankle": 450.0 for side in ("left", "right")},
    "spine": 233.0,
    "thorax": 257.0,
}
AVERAGE_HEIGHT = 1.75  # metres: of a person with these bones
PITCH_RANGE = (-60.0, 60.0)  # degrees
STANDING = np.cos(np.deg2rad(30))  # thigh, shin and trunk deviate less than this from a line
STILL_MM_PER_SECOND = 150.0  # feet that move less against each other are both on the ground
FEET_APART_MM = 150.0
FLOOR_SECONDS = 0.12  # over which the floor's height is averaged
# Human3.6M's focal length over its image width; tells how far away a person of a given size is.
FOCAL_PER_WIDTH = 1.15


def millimetres_per_unit(pose: np.ndarray, height: float | None = None) -> float:
    """The one scale of a track: poses (F, 17, 3) in any unit -> mm in that unit.

    height: of the person in metres, None: average.
    """
    joints = [H36M.index(name) - 1 for name in REFERENCE_MM]
    size = np.median(bone_lengths(pose)[:, joints].sum(axis=-1))
    share = (height or AVERAGE_HEIGHT) / AVERAGE_HEIGHT
    return share * float(sum(REFERENCE_MM.values()) / max(size, 1e-9))


def joint_of(pose: np.ndarray, name: str) -> np.ndarray:
    """(..., 17, 3) -> (..., 3)."""
    return pose[..., H36M.index(name), :]


def standing(pose: np.ndarray) -> np.ndarray:
    """(F,) whether trunk and both legs make nearly a straight line."""
    trunk = unit(joint_of(pose, "thorax") - joint_of(pose, "pelvis"))
    straight = np.ones(len(pose), dtype=bool)
    for side in ("left", "right"):
        hip, knee, ankle = (joint_of(pose, f"{side}_{part}") for part in ("hip", "knee", "ankle"))
        thigh, shin = unit(hip - knee), unit(knee - ankle)
        straight &= (thigh * shin).sum(-1) > STANDING
        straight &= (thigh * trunk).sum(-1) > STANDING
    return straight


def _huber(error: np.ndarray, width: float) -> np.ndarray:
    error = np.abs(error) / width
    return np.where(error < 1, error**2 / 2, error - 0.5)


def estimate_pitch(poses: list[np.ndarray], times: list[np.ndarray]) -> float:
    """How far the camera looks down, in degrees, from people's poses (F, 17, 3) in camera mm.

    times: (F,) seconds of each one's frames.

    Three signs of the vertical: the trunk of people who stand, the line from their feet to the
    pelvis, and the line between two feet that both rest on the ground, which is level.
    """
    upright, feet = [], []
    for pose, seconds in zip(poses, times, strict=True):
        upright_frames = standing(pose)
        if not upright_frames.any():
            upright_frames = np.ones(len(pose), dtype=bool)
        pelvis, thorax = joint_of(pose, "pelvis"), joint_of(pose, "thorax")
        ankles = joint_of(pose, "left_ankle"), joint_of(pose, "right_ankle")
        for line in (thorax - pelvis, pelvis - (ankles[0] + ankles[1]) / 2):
            up = line[upright_frames]
            # Up is (·, -cos pitch, -sin pitch) in camera axes.
            upright.append(np.rad2deg(np.arctan2(-up[:, 2], -up[:, 1])))
        between = ankles[1] - ankles[0]
        if len(pose) > 1:
            speed = np.linalg.norm(np.gradient(between, seconds, axis=0), axis=-1)
            apart = np.linalg.norm(between, axis=-1) > FEET_APART_MM
            feet.append(between[apart & (speed < STILL_MM_PER_SECOND)])
    angles = np.concatenate(upright)
    candidates = np.arange(PITCH_RANGE[0], PITCH_RANGE[1] + 0.25, 0.25)
    cost = np.array([_huber(angles - pitch, width=8.0).mean() for pitch in candidates])
    lines = np.concatenate(feet) if feet else np.zeros((0, 3))
    if len(lines):
        radians = np.deg2rad(candidates)[:, None]
        rise = -np.cos(radians) * lines[:, 1] - np.sin(radians) * lines[:, 2]
        cost += _huber(rise, width=60.0).mean(axis=1)
    return float(candidates[cost.argmin()])


def floor_height(world: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(F,) height of the lowest joint of (F, 17, 3), averaged over a moment; times: seconds."""
    return averaged(world[..., 2].min(axis=-1), times, FLOOR_SECONDS)


def to_room(pose: np.ndarray, pitch: float, times: np.ndarray) -> np.ndarray:
    """Camera axes (F, 17, 3), root at 0 -> world axes, z up, standing on the floor z = 0.

    times: (F,) seconds. The lowest joint touches the floor in every frame; sizes stay as they are.
    """
    world = camera_to_world(pose.astype(np.float64), pitch)
    world[..., 2] -= floor_height(world, times)[:, None]
    return world


def places(
    keypoints_2d: list[np.ndarray], scales: list[float], size: tuple[int, int]
) -> np.ndarray:
    """Where people stand against each other: (P, 2), x right and y away, in mm.

    keypoints_2d: (F, 17, 3) pixels each; scales: mm per pixel of each. Weak perspective: a person
    who looks half as large is twice as far away. The middle of the group is the origin.
    """
    spots = []
    for keypoints, scale in zip(keypoints_2d, scales, strict=True):
        seen = keypoints[..., 2].max(axis=-1) > 0
        x = np.median(keypoints[seen, 0, 0]) - size[0] / 2
        spots.append((x * scale, FOCAL_PER_WIDTH * size[0] * scale))
    return np.array(spots) - np.mean(spots, axis=0)
