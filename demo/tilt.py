"""A camera that is tilted sideways: how far, by people who stand, and tracks turned upright.

Tilts are the degrees by which what is upright leans to the right in the picture. F frames.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from demo.lifting import Lifted
from demo.path import DEFAULT_FOV, turned_back
from demo.tracks import Track
from demo.world import joint_of, standing

# People lean by some degrees themselves, and who lies is not tilted.
LEAST, MOST = 8.0, 45.0
AGREE = 10.0  # degrees: trunks and legs that differ more lean by themselves
STANDING_SECONDS = 0.5  # so long all people together must stand


def estimate_tilt(poses: Sequence[np.ndarray], times: Sequence[np.ndarray]) -> float:
    """From poses (F, 17, 3) in camera axes and the times (F,) of their frames; 0: level."""
    trunks, legs, seconds = [np.zeros(0)], [np.zeros(0)], 0.0
    for pose, moments in zip(poses, times, strict=True):
        upright = standing(pose)
        if not upright.any() or len(moments) < 2:
            continue
        seconds += upright.sum() * float(np.median(np.diff(moments)))
        pelvis, thorax = joint_of(pose, "pelvis"), joint_of(pose, "thorax")
        ankles = joint_of(pose, "left_ankle"), joint_of(pose, "right_ankle")
        trunks.append(_lean(thorax - pelvis)[upright])
        legs.append(_lean(pelvis - (ankles[0] + ankles[1]) / 2)[upright])
    if seconds < STANDING_SECONDS:
        return 0.0
    of_trunks, of_legs = (float(np.median(np.concatenate(leans))) for leans in (trunks, legs))
    tilt = float(np.median(np.concatenate([*trunks, *legs])))
    believed = LEAST <= abs(tilt) <= MOST and abs(of_trunks - of_legs) <= AGREE
    return tilt if believed else 0.0


def _lean(up: np.ndarray) -> np.ndarray:
    """(F, 3) lines upwards in camera axes -> (F,) degrees to the right."""
    return np.rad2deg(np.arctan2(up[:, 0], -up[:, 1]))


def tilts_of(
    tracks: Sequence[Track],
    lifted: Sequence[Lifted],
    cuts: np.ndarray,
    size: tuple[int, int],
    fov: float | None,
) -> np.ndarray:
    """(N,) the tilt of each track's camera; each shot has one of its own.

    cuts: the frames that begin a new shot; size: of the picture; fov: degrees over its longer side.
    """
    tilts = np.zeros(len(tracks))
    shot = np.searchsorted(cuts, [track.start for track in tracks], side="right")
    poses = [turned_back(one.pose, one.centre, size, fov or DEFAULT_FOV) for one in lifted]
    for number in np.unique(shot):
        group = np.flatnonzero(shot == number)
        tilts[group] = estimate_tilt(
            [poses[index] for index in group], [tracks[index].times for index in group]
        )
    return tilts


def upright(track: Track, tilt: float, size: tuple[int, int]) -> Track:
    """The track as a level camera would have seen it; size: of the picture."""
    joints = track.joints.copy()
    middle = np.array(size) / 2
    joints[..., :2] = turned(joints[..., :2] - middle, -tilt) + middle
    return replace(track, joints=joints)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (..., 2 or 3), x right and y down, turned clockwise as seen in the picture."""
    if not degrees:
        return points
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    result = points.copy()
    result[..., 0] = cos * points[..., 0] - sin * points[..., 1]
    result[..., 1] = sin * points[..., 0] + cos * points[..., 1]
    return result


def tilt_of_longest(tracks: Sequence[Track], tilts: np.ndarray, cuts: np.ndarray) -> float:
    """That of the shot in which most is seen of people."""
    shot = np.searchsorted(cuts, [track.start for track in tracks], side="right")
    frames = np.bincount(shot, [len(track.times) for track in tracks])
    return float(tilts[int(np.argmax(shot == int(frames.argmax())))])
