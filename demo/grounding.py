"""Feet on the floor: where it is, how the camera looks at it, and feet that stay where they rest.

F frames at `times` (F,) in seconds; world axes: x right, y away from the camera, z up; mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo.path import FEET, SEEN, Floor, Sight, fit_places, resting_feet, runs, smooth_path
from demo.poses import unit
from lib.camera import camera_to_world
from lib.skeleton import H36M

STRIDE = 0.5  # seconds in which something surely touches the floor
# How far the pitch that poses tell may be off, in degrees, and the height of a touch, in mm.
PITCH_OFF, TOUCH_OFF = 5.0, 40.0
PITCH_RANGE, PITCH_STEP = 15.0, 0.25  # degrees around it that are tried
MOST_TOUCHES = 20  # more than so many tell no more: their errors are alike
MOST_PLACES = 300  # touches of a person that are looked at
NOT_LEVEL = 2.0  # in TOUCH_OFF
LOWEST = 0.1  # the share of all touches below which the floor surely is
NEAR_FLOOR = 120.0  # mm above the lowest touches: on the floor, not on a step or a chair
HELD = 100.0  # mm that a foot may be moved to where it rests
LET_GO = 0.2  # seconds in which a foot comes back from there to its own way


@dataclass(frozen=True)
class Touches:
    """Where the lowest joint of each moment is lowest: mostly a foot on the floor.

    frame, joint: (N,); place: (N, 3) in camera axes; seen: (N,) whether the detector saw it.
    """

    frame: np.ndarray
    joint: np.ndarray
    place: np.ndarray
    seen: np.ndarray


def find_touches(sight: Sight, path: np.ndarray, pitch: float) -> Touches:
    joints = path[:, None] + sight.pose
    height = camera_to_world(joints, pitch)[..., 2]
    moment = ((sight.times - sight.times[0]) / STRIDE).astype(int)
    borders = np.flatnonzero(np.diff(moment, prepend=-1))
    lowest = height.min(axis=1)
    frame = np.array(
        [
            start + int(part.argmin())
            for start, part in zip(borders, np.split(lowest, borders[1:]), strict=True)
        ]
    )
    joint = height[frame].argmin(axis=1)
    seen = sight.keypoints[frame, joint, 2] > SEEN
    return Touches(frame, joint, joints[frame, joint], seen)


def refine_pitch(people: Sequence[Touches], pitch: float) -> float:
    """How far the camera looks down, in degrees: that at which a person's touches are level.

    Tells the more the farther people go from the camera and back; else it stays the given one.
    """
    candidates = pitch + np.arange(-PITCH_RANGE, PITCH_RANGE + PITCH_STEP, PITCH_STEP)
    off = np.abs(candidates - pitch) / PITCH_OFF
    cost = np.where(off < 1, off**2, 2 * off - 1)
    for touches in people:
        places = touches.place[touches.seen]
        if not len(places):
            continue
        places = places[:: -(-len(places) // MOST_PLACES)]
        weight = min(1.0, MOST_TOUCHES / len(places))
        heights = np.stack([camera_to_world(places, p)[:, 2] for p in candidates])
        levels = np.quantile(heights, np.linspace(0, 1, 21), axis=1)  # (levels, candidates)
        uneven = ((heights[None] - levels[..., None]) / TOUCH_OFF) ** 2
        # A touch of a step or a chair counts as any other that is not level.
        cost += weight * np.minimum(uneven, NOT_LEVEL**2).sum(axis=-1).min(axis=0)
    return float(np.clip(candidates[cost.argmin()], -90, 90))


def walk(sights: Sequence[Sight], pitch: float, refine: bool) -> tuple[list[np.ndarray], float]:
    """People's poses (F, 17, 3) in the world, each on the floor z = 0, and the camera's pitch.

    The camera stands above x = y = 0. pitch: how far it looks down, in degrees; refine: whether
    feet may correct it.
    """
    fits, rough, resting = [], [], []
    for sight in sights:
        places, weights = fit_places(sight)
        nothing = np.zeros((len(places), 2), dtype=bool)
        feet = resting_feet(sight, smooth_path(sight, places, weights, nothing))
        fits.append((places, weights))
        rough.append(smooth_path(sight, places, weights, feet))
        resting.append(feet)
    if refine:
        touches = [find_touches(*pair, pitch) for pair in zip(sights, rough, strict=True)]
        pitch = refine_pitch(touches, pitch)
    worlds = []
    for sight, fit, path, rests in zip(sights, fits, rough, resting, strict=True):
        floor, on_floor = find_floor(sight, path, rests, pitch)
        path = smooth_path(sight, *fit, rests, floor, on_floor)
        world = camera_to_world(sight.pose + path[:, None], pitch)
        world[..., 2] -= floor.level
        worlds.append(hold_feet(world, sight.times, rests, rests & on_floor))
    return worlds, pitch


def find_floor(
    sight: Sight, path: np.ndarray, resting: np.ndarray, pitch: float
) -> tuple[Floor, np.ndarray]:
    """The floor, where most of the lowest touches are, and which feet are on it (F, 2)."""
    up = camera_to_world(np.eye(3), pitch)[:, 2]
    touches = find_touches(sight, path, pitch)
    heights = touches.place @ up
    known = touches.seen if touches.seen.any() else ~touches.seen
    near = known & (heights < np.quantile(heights[known], LOWEST) + NEAR_FLOOR)
    floor = Floor(up, float(np.median(heights[near])))
    on_floor = np.zeros_like(resting)
    for side, foot in enumerate(FEET):
        lowest = near & touches.seen & (touches.joint == foot)
        on_floor[touches.frame[lowest], side] = True
        height = (path + sight.pose[:, foot]) @ up - floor.level
        for start, end in runs(resting[:, side]):
            on_floor[start:end, side] |= height[start:end].mean() < NEAR_FLOOR
    return floor, on_floor


# --- Legs -------------------------------------------------------------------------------------


def hold_feet(
    world: np.ndarray, times: np.ndarray, resting: np.ndarray, on_floor: np.ndarray
) -> np.ndarray:
    """World poses (F, 17, 3) whose resting feet stay in one place; the knees follow.

    Before and after a rest the foot comes to its place and leaves it within LET_GO.
    """
    held = world.copy()
    across = world[:, H36M.index("right_hip")] - world[:, H36M.index("left_hip")]
    ahead = unit(np.cross([0, 0, 1], across))
    for side, name in enumerate(("left", "right")):
        hip, knee, ankle = (H36M.index(f"{name}_{part}") for part in ("hip", "knee", "ankle"))
        moved = np.zeros((len(world), 3))
        free = np.ones(len(world), dtype=bool)
        for start, end in runs(resting[:, side]):
            for piece in _pieces(world[start:end, ankle], times[start:end]):
                frames = start + piece
                place = np.median(world[frames, ankle], axis=0)
                if on_floor[frames, side].all():
                    place[2] = 0.0
                moved[frames] = place - world[frames, ankle]
                free[frames] = False
        target = world[:, ankle] + _faded(moved, free, times)
        leg = [world[:, joint] for joint in (hip, knee, ankle)]
        held[:, knee], held[:, ankle] = bend_leg(leg[0], leg[1], leg[2], target, ahead)
    return held


def _pieces(foot: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """(N, 3) -> the frames of each part of a rest in which the foot stays within HELD of where the
    part began; between two parts it has LET_GO to come from one to the next."""
    starts = [0]
    for frame in range(1, len(foot)):
        if np.linalg.norm(foot[frame] - foot[starts[-1]]) > HELD:
            starts.append(frame)
    pieces = []
    for start, end in zip(starts, [*starts[1:], len(foot)], strict=True):
        inside = np.arange(start, end)
        if start > 0:
            inside = inside[times[inside] >= times[start] + LET_GO / 2]
        if end < len(foot):
            inside = inside[times[inside] <= times[end] - LET_GO / 2]
        if len(inside):
            pieces.append(inside)
    return pieces


def _faded(moved: np.ndarray, free: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(F, 3), known where not free: elsewhere it fades to 0 on either side."""
    result = moved.copy()
    for start, end in runs(free):
        inside = times[start:end]
        for edge in (start - 1, end):
            if 0 <= edge < len(moved):
                share = np.clip(1 - np.abs(inside - times[edge]) / LET_GO, 0, 1)[:, None]
                result[start:end] += moved[edge] * share**2 * (3 - 2 * share)
    return result


def bend_leg(
    hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray, target: np.ndarray, ahead: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Knee and ankle (F, 3) with the ankle at the target, or as near as the leg reaches.

    Thigh and shin keep their lengths; the knee stays on its side, that of a straight leg goes
    ahead (F, 3), a unit vector. A leg comes to be straight slowly: no knee snaps.
    """
    thigh = np.linalg.norm(knee - hip, axis=-1, keepdims=True)
    shin = np.linalg.norm(ankle - knee, axis=-1, keepdims=True)
    axis = unit(target - hip)
    reach = np.linalg.norm(target - hip, axis=-1, keepdims=True)
    own = np.linalg.norm(ankle - hip, axis=-1, keepdims=True)
    room = np.maximum(thigh + shin - own, 1e-6)
    longer = own + room * (1 - np.exp(-np.maximum(reach - own, 0) / room))
    reach = np.clip(np.where(reach > own, longer, reach), np.abs(thigh - shin), thigh + shin)
    along = (thigh**2 - shin**2 + reach**2) / (2 * np.maximum(reach, 1e-9))
    out = np.sqrt(np.maximum(thigh**2 - along**2, 0))
    side = knee - hip + 1e-3 * ahead
    side = unit(side - (side * axis).sum(-1, keepdims=True) * axis)
    return hip + along * axis + out * side, hip + reach * axis
