"""Invented motion, so that everything runs without data.

Six actions are curves of joint angles; forward kinematics puts them on bodies of several sizes,
whose bones keep their length; Human3.6M's cameras film them.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from data.bodies import random_body
from data.filming import film_videos
from data.sequences import Sequences
from lib.camera import H36M_FPS
from lib.skeleton import H36M

# Subjects have numbers that Human3.6M does not use.
FIRST_TRAIN_SUBJECT, FIRST_TEST_SUBJECT, MAX_SUBJECTS = 21, 61, 39

# A person of 1.75 m who stands with hanging arms: each joint seen from its parent, in mm.
# Body axes: x forward, y left, z up.
REST_POSE = {
    "pelvis": (0, 0, 0),
    "hip": (0, 130, 0),
    "knee": (0, 0, -445),
    "ankle": (0, 0, -450),
    "spine": (0, 0, 235),
    "thorax": (0, 0, 255),
    "neck": (45, 0, 110),
    "head": (-15, 0, 115),
    "shoulder": (0, 150, -10),
    "elbow": (0, 0, -280),
    "wrist": (0, 0, -250),
}
ANKLE_HEIGHT = 80.0  # mm above the floor
GRAVITY = 9810.0  # mm/s²
SIDES = {"left": 1, "right": -1}

Turns = dict[str, np.ndarray]  # joint -> (T, 3, 3): how the bone that ends there is turned
Curve = np.ndarray | float  # degrees, (T,) or constant


def rest_pose() -> np.ndarray:
    """(J, 3) mm: REST_POSE with its right side."""
    parts = np.array([REST_POSE[name.split("_")[-1]] for name in H36M.names], dtype=np.float64)
    parts[:, 1] *= [SIDES.get(side, 1) for side in H36M.sides]
    return parts


# --- Kinematics -------------------------------------------------------------------------------


def turn(axes: str, *degrees: Curve) -> np.ndarray:
    """Rotations about body axes, the last one first: (T, 3, 3), or (3, 3) if all are constant."""
    result = np.eye(3)
    for axis, angle in zip(axes, degrees, strict=True):
        radians = np.deg2rad(angle)
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        matrix = np.zeros((*np.shape(radians), 3, 3)) + np.eye(3)
        matrix[..., i, i] = matrix[..., j, j] = np.cos(radians)
        matrix[..., j, i] = np.sin(radians)
        matrix[..., i, j] = -matrix[..., j, i]
        result = result @ matrix
    return result


def leg(side: str, swing: Curve, knee: Curve, spread: Curve = 3.0) -> Turns:
    """swing: the thigh forward, knee: bent, spread: the thigh outward."""
    sign = SIDES[side]
    return {
        f"{side}_knee": turn("xy", sign * spread, -swing),
        f"{side}_ankle": turn("y", knee),
    }


def arm(side: str, swing: Curve, elbow: Curve, spread: Curve = 8.0, roll: Curve = 0.0) -> Turns:
    """swing: forward, elbow: bent, spread: outward, roll: of the upper arm, outward."""
    sign = SIDES[side]
    return {
        f"{side}_elbow": turn("xyz", sign * spread, -swing, sign * roll),
        f"{side}_wrist": turn("y", -elbow),
    }


def trunk(bend: Curve, twist: Curve = 0.0, side: Curve = 0.0) -> Turns:
    """bend: forward, twist: to the left, side: to the right; half at the spine, half above it."""
    half = turn("zyx", twist / 2, bend / 2, side / 2)
    return {"spine": half, "thorax": half}


def pose_body(offsets: np.ndarray, turns: Turns, num_frames: int) -> np.ndarray:
    """Forward kinematics: joints (T, J, 3) with the root at 0.

    offsets: (J, 3), each joint seen from its parent. Joints without a turn follow their parent.
    """
    frames = np.empty((num_frames, H36M.num_joints, 3, 3))
    joints = np.zeros((num_frames, H36M.num_joints, 3))
    frames[:, H36M.root] = turns["pelvis"]
    for parent, child in H36M.bones:  # parents come before their children
        frames[:, child] = frames[:, parent] @ turns.get(H36M.names[child], np.eye(3))
        joints[:, child] = joints[:, parent] + frames[:, child] @ offsets[child]
    return joints


def plant_feet(joints: np.ndarray, lift: np.ndarray) -> np.ndarray:
    """Move the root so that the foot that stands hardly slides or sinks: (T, J, 3), floor at z = 0.

    lift: (T,) mm, how high the lower foot is above where it stands.
    """
    ankles = joints[:, [H36M.index("left_ankle"), H36M.index("right_ankle")]]
    above = ankles[..., 2] - ankles[..., 2].min(-1, keepdims=True)
    weight = np.exp(-above / 30.0)  # mm: which foot carries the body, without a sudden change
    weight /= weight.sum(-1, keepdims=True)
    step = -(weight[1:, :, None] * np.diff(ankles[..., :2], axis=0)).sum(1)
    root = np.zeros((len(joints), 1, 3))
    root[1:, 0, :2] = np.cumsum(smooth(step), axis=0)
    root[:, 0, 2] = ANKLE_HEIGHT + lift - (weight * ankles[..., 2]).sum(-1)
    return joints + root


# --- Curves -----------------------------------------------------------------------------------


def wander(rng: np.random.Generator, t: np.ndarray, period: float = 3.0) -> np.ndarray:
    """A smooth random curve (T,), about -1..1, that turns about once in `period` seconds."""
    rates = rng.uniform(0.5, 1.5, 4) / period
    phases = rng.uniform(0, 2 * np.pi, 4)
    return np.sin(2 * np.pi * rates * t[:, None] + phases).sum(-1) / 2


def cycles(rng: np.random.Generator, t: np.ndarray, rate: float) -> np.ndarray:
    """The phase (T,) in radians of something done `rate` times a second, never quite evenly."""
    speed = rate * (1 + 0.12 * wander(rng, t, period=4.0))
    return 2 * np.pi * (rng.uniform() + np.cumsum(speed) / H36M_FPS)


def bump(phase: np.ndarray, centre: float, width: float) -> np.ndarray:
    """A periodic bump (T,) of height 1; centre and width in parts of a cycle."""
    return np.exp((np.cos(phase - 2 * np.pi * centre) - 1) / (2 * np.pi * width) ** 2)


def smooth(curve: np.ndarray) -> np.ndarray:
    """A moving average (T, ...) with a Hann window of 0.16 s: a body has mass."""
    reach = round(0.16 * H36M_FPS / 2)
    window = np.hanning(2 * reach + 3)[1:-1]
    padded = np.pad(curve, [(reach, reach)] + [(0, 0)] * (curve.ndim - 1), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(window), axis=0)
    return windows @ (window / window.sum())


def smooth_step(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def hermite(
    t: np.ndarray, times: list[float], values: list[float], slopes: list[float]
) -> np.ndarray:
    """The cubic through the given values with the given slopes; outside, the end values."""
    x, y, dy = np.array(times), np.array(values), np.array(slopes)
    k = np.clip(np.searchsorted(x, t, side="right") - 1, 0, len(x) - 2)
    width = x[k + 1] - x[k]
    s = np.clip((t - x[k]) / width, 0.0, 1.0)
    return (
        y[k] * (1 + 2 * s) * (1 - s) ** 2
        + dy[k] * width * s * (1 - s) ** 2
        + y[k + 1] * s**2 * (3 - 2 * s)
        + dy[k + 1] * width * s**2 * (s - 1)
    )


# --- Actions: seconds (T,) -> turns of the joints, and how high the feet are off the ground ----

Action = Callable[[np.random.Generator, np.ndarray], tuple[Turns, np.ndarray]]


def idle(rng: np.random.Generator, t: np.ndarray) -> Turns:
    """Someone who stands, breathes and looks about: what the other actions start from."""
    sway = 2 * wander(rng, t)
    turns = {
        "pelvis": turn("zx", 8 * wander(rng, t, 5.0), sway),
        "neck": turn("zy", 30 * wander(rng, t), 8 * wander(rng, t)),
        **trunk(4 + 3 * wander(rng, t), 5 * wander(rng, t), -sway),
    }
    for side, sign in SIDES.items():
        knee = 6 + 2 * wander(rng, t)
        turns |= leg(side, knee / 2, knee, 4 - sign * sway)
        turns |= arm(side, 4 + 5 * wander(rng, t), 16 + 10 * wander(rng, t), 9)
    return turns


def stride(phase: np.ndarray, size: Curve) -> tuple[np.ndarray, np.ndarray]:
    """The thigh's swing and the knee's bend in a step of a size (1: a brisk walk).

    Heel strike at phase 0, toe off at 0.62 of the cycle; curves after Winter 1991.
    """
    swing = size * (8 + 22 * np.cos(phase) + 3 * np.cos(2 * phase))
    knee = 6 + size * (52 * bump(phase, 0.74, 0.10) + 12 * bump(phase, 0.14, 0.06))
    return swing, knee


def gait(rng: np.random.Generator, phase: np.ndarray, size: Curve, heading: np.ndarray) -> Turns:
    """Walking, arms against legs."""
    arms, elbow = rng.uniform(12, 26), rng.uniform(12, 40)
    sway = size * np.sin(phase)
    turns = {
        "pelvis": turn("zyx", heading - 4 * size * np.cos(phase), 3 * size, 2 * sway),
        **trunk(rng.uniform(1, 6), 10 * size * np.cos(phase), -2 * sway),
    }
    for side, shift in (("right", 0.0), ("left", np.pi)):
        turns |= leg(side, *stride(phase + shift, size))
        forward = -size * np.cos(phase + shift)
        turns |= arm(side, 3 + arms * forward, elbow + 12 * np.maximum(forward, 0))
    return turns


def walk(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """Round and round, as in a room."""
    size = rng.uniform(0.75, 1.15) * (1 + 0.1 * wander(rng, t))
    rate = rng.uniform(0.75, 1.05)
    curve = rng.choice([-1, 1]) * rng.uniform(35, 70)  # degrees per second
    heading = curve * t + 20 * wander(rng, t)
    turns = gait(rng, cycles(rng, t, rate), size, heading)
    neck = {"neck": turn("zy", 0.2 * curve + 15 * wander(rng, t), 8 * wander(rng, t))}
    return idle(rng, t) | turns | neck, np.zeros_like(t)


def turn_around(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """On the spot, in small steps; the head goes first."""
    heading = rng.uniform(70, 130) * wander(rng, t, period=rng.uniform(4, 6))
    rate = np.gradient(heading, t)
    size = 0.45 * np.minimum(1.0, np.abs(rate) / 60)
    turns = gait(rng, cycles(rng, t, rng.uniform(0.8, 1.1)), size, heading)
    neck = {"neck": turn("zy", np.clip(0.3 * rate, -50, 50), 8 * wander(rng, t))}
    return idle(rng, t) | turns | neck, np.zeros_like(t)


def squat(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """Knee bends; the arms hang or reach forward."""
    depth = (1 - np.cos(cycles(rng, t, rng.uniform(0.25, 0.5)))) / 2
    depth *= np.clip(rng.uniform(0.6, 1.0) * (1 + 0.15 * wander(rng, t)), 0, 1)
    lean = depth * rng.uniform(18, 30)
    reach, spread = rng.uniform(5, 95), rng.uniform(5, 22)
    turns = {"pelvis": turn("zy", 6 * wander(rng, t), lean), **trunk(4 + 0.6 * lean)}
    for side in SIDES:
        thigh, shank = 100 * depth, 32 * depth
        turns |= leg(side, lean + thigh + 4, thigh + shank + 8, spread)
        turns |= arm(side, 5 + depth * (lean + reach), 15 + 10 * wander(rng, t), 10)
    return idle(rng, t) | turns, np.zeros_like(t)


def wave(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """With one arm, at times with both: the upper arm outward, the forearm up and to and fro."""
    turns = idle(rng, t)
    first = rng.choice(list(SIDES))
    for side in SIDES:
        raised = smooth_step(0.5 + 1.2 * wander(rng, t, 5.0) + (0.6 if side == first else -0.6))
        beat = np.sin(cycles(rng, t, rng.uniform(0.8, 1.5)))
        spread = 9 + raised * (rng.uniform(60, 95) + 8 * beat)
        elbow = 16 + raised * (rng.uniform(50, 75) + rng.uniform(18, 32) * beat)
        forward = 4 + raised * rng.uniform(0, 15)
        turns |= arm(side, forward, elbow, spread, 85 * raised)
    return turns, np.zeros_like(t)


def sit(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """Down on a chair, some gestures, and up again."""
    down = smooth_step(0.7 + 1.6 * np.sin(cycles(rng, t, rng.uniform(0.12, 0.2))))
    thigh, shank = down * rng.uniform(78, 92), down * rng.uniform(-5, 12)
    moving = 4 * down * (1 - down)
    lean = 22 * moving - 6 * down
    bend = 4 + 16 * moving + down * (10 + 10 * wander(rng, t))
    turns = {
        "pelvis": turn("zy", 5 * wander(rng, t), lean),
        **trunk(bend, 10 * down * wander(rng, t)),
    }
    for side in SIDES:
        turns |= leg(side, lean + thigh + 3, thigh + shank + 6, 4 + down * rng.uniform(2, 14))
        gesture = down * smooth_step(wander(rng, t, 2.5))
        swing = 4 + down * 22 + 25 * moving + 25 * gesture
        turns |= arm(side, swing, 16 + 40 * down + 35 * gesture, 8 + 12 * gesture)
    return idle(rng, t) | turns, np.zeros_like(t)


SHANK_SHARE = 0.6  # how far the shanks lean back for each degree the thighs lean forward


def leg_bend(sunk: np.ndarray) -> np.ndarray:
    """How many degrees the thighs lean when the hips have sunk by so many mm."""
    lean = np.arange(110.0)
    thigh, shank = np.cos(np.deg2rad(lean)), np.cos(np.deg2rad(SHANK_SHARE * lean))
    lengths = np.abs([REST_POSE["knee"][2], REST_POSE["ankle"][2]])
    return np.interp(sunk, lengths[0] * (1 - thigh) + lengths[1] * (1 - shank), lean)


def jump(rng: np.random.Generator, t: np.ndarray) -> tuple[Turns, np.ndarray]:
    """On the spot: dip, push off, fly a parabola, land softly."""
    times, values, slopes = [0.0], [0.0], [0.0]  # of the hips' height, mm, against standing
    while times[-1] < t[-1]:
        speed = np.sqrt(2 * GRAVITY * rng.uniform(80, 350))
        dip, landing = rng.uniform(150, 300, 2)
        start = times[-1] + rng.uniform(0.1, 0.8)
        # A dip d that is left with even acceleration takes 2 d / v: the cubic is that parabola.
        lasts = [0, rng.uniform(0.4, 0.7), 2 * dip / speed, 2 * speed / GRAVITY]
        lasts += [2 * landing / speed, rng.uniform(0.4, 0.7)]
        times += list(start + np.cumsum(lasts))
        values += [0, -dip, 0, 0, -landing, 0]
        slopes += [0, 0, speed, -speed, 0, 0]
    height = hermite(t + rng.uniform(0, times[1]), times, values, slopes)
    lift = np.maximum(height, 0.0)
    bent = leg_bend(np.maximum(-height, 0.0) + 0.1 * lift + 15)
    arms = smooth(np.gradient(height, t)) / 2000  # swung up at the push off, down in the fall
    lean = 0.35 * smooth(bent)
    turns = {"pelvis": turn("zy", 5 * wander(rng, t), lean), **trunk(4 + 0.3 * lean)}
    for side in SIDES:
        turns |= leg(side, lean + bent, bent * (1 + SHANK_SHARE), 4 + rng.uniform(0, 4))
        turns |= arm(side, 10 + 55 * arms, 20 + 25 * np.abs(arms), 12 + 15 * np.maximum(arms, 0))
    return idle(rng, t) | turns, lift


ACTIONS: dict[str, Action] = {
    "walk": walk,
    "squat": squat,
    "wave": wave,
    "turn": turn_around,
    "sit": sit,
    "jump": jump,
}


def perform(
    rng: np.random.Generator, action: str, offsets: np.ndarray, num_frames: int
) -> np.ndarray:
    """An action by a body of these offsets (J, 3): world joints (T, J, 3) in mm."""
    turns, lift = ACTIONS[action](rng, np.arange(num_frames) / H36M_FPS)
    facing = turn("z", rng.uniform(0, 360))
    return plant_feet(pose_body(offsets, turns, num_frames), lift) @ facing.T


def synthetic_videos(
    first_subject: int, num_subjects: int, *, num_frames: int, num_cameras: int, seed: int
) -> Iterator[Sequences]:
    """The videos of some subjects, each doing every action; randomness depends on the subject."""
    takes: Counter[str] = Counter()
    for subject in range(first_subject, first_subject + num_subjects):
        body_rng, *rngs = np.random.default_rng([seed, subject]).spawn(1 + len(ACTIONS))
        offsets = rest_pose() * random_body(body_rng)[:, None]
        for number, (action, rng) in enumerate(zip(ACTIONS, rngs, strict=True), 1):
            yield from film_videos(
                rng,
                perform(rng, action, offsets, num_frames),
                num_cameras=num_cameras,
                subject=f"{subject:02d}",
                action=action,
                action_number=number,
                takes=takes,
            )
