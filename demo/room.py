"""Into the room: everybody of a shot before one camera, on one floor.

A track's frames are F; see demo.lifting.Lifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo.grounding import walk
from demo.lifting import Lifted
from demo.path import Sight, turned_back
from demo.tracks import Track
from demo.world import estimate_pitch, places, to_room


@dataclass(frozen=True)
class Placed:
    """Tracks, each (F, 17, 3) mm.

    camera: in the camera's axes, root at 0; world: in the room, on the floor; pitch: degrees the
    camera looks down, in the longest shot.
    """

    camera: list[np.ndarray]
    world: list[np.ndarray]
    pitch: float


def place_shots(
    tracks: Sequence[Track],
    lifted: Sequence[Lifted],
    cuts: np.ndarray,
    size: tuple[int, int],
    fov: float | None,
    pitch: float | None,
) -> Placed:
    """Each shot has a camera of its own.

    cuts: the frames that begin a new one; size: of the picture; fov: degrees over its longer side,
    None: people stay in place; pitch: None to estimate it.
    """
    shot = np.searchsorted(cuts, [track.start for track in tracks], side="right")
    camera: list[np.ndarray] = [one.pose for one in lifted]
    world = list(camera)
    longest, result = 0, 0.0
    for number in np.unique(shot):
        group = np.flatnonzero(shot == number).tolist()
        own = [tracks[index] for index in group], [lifted[index] for index in group]
        placed = _in_place(*own, size, pitch) if fov is None else _going(*own, size, fov, pitch)
        for index, pose, room in zip(group, placed.camera, placed.world, strict=True):
            camera[index], world[index] = pose, room
        frames = sum(len(track.times) for track in own[0])
        if frames > longest:
            longest, result = frames, placed.pitch
    return Placed(camera, world, result)


def _going(
    tracks: Sequence[Track],
    lifted: Sequence[Lifted],
    size: tuple[int, int],
    fov: float,
    pitch: float | None,
) -> Placed:
    """x = y = 0 is where the first one is at first."""
    camera = [turned_back(one.pose, one.centre, size, fov) for one in lifted]
    times = [track.times for track in tracks]
    sights = [
        Sight.of(pose, track.joints, track.times, size, fov)
        for pose, track in zip(camera, tracks, strict=True)
    ]
    told = estimate_pitch(camera, times) if pitch is None else pitch
    world, found = walk(sights, told, refine=pitch is None)
    start = world[0][0, 0] * [1, 1, 0]
    return Placed(camera, [pose - start for pose in world], found)


def _in_place(
    tracks: Sequence[Track],
    lifted: Sequence[Lifted],
    size: tuple[int, int],
    pitch: float | None,
) -> Placed:
    """The roots stay; several people stand as far from each other as they are seen."""
    camera = [one.pose for one in lifted]
    times = [track.times for track in tracks]
    told = estimate_pitch(camera, times) if pitch is None else pitch
    world = [to_room(pose, told, seconds) for pose, seconds in zip(camera, times, strict=True)]
    if len({track.person for track in tracks}) > 1:
        joints = [track.joints for track in tracks]
        for pose, spot in zip(
            world, places(joints, [one.mm_per_pixel for one in lifted], size), strict=True
        ):
            pose[..., :2] += spot
    return Placed(camera, world, told)
