"""What a 2D detector makes of a picture: errors that last, confidence, a convention of its own.

2.5D poses: pixels, and as z the depth behind the root at the root's scale. T frames, J = 17 joints,
K = 16 bones.
"""

from dataclasses import dataclass

import numpy as np

from data.cameras import log_uniform
from lib.arrays import Floats
from lib.camera import H36M_FPS
from lib.skeleton import H36M

# Standard deviation of an easy joint, in mm at the person's distance: 12 mm are about 3 pixels.
EASY_MM = 12.0
PART_DIFFICULTY = {
    "pelvis": 0.9,
    "spine": 1.0,
    "thorax": 0.8,
    "neck": 0.8,
    "head": 0.8,
    "hip": 1.2,
    "knee": 1.0,
    "ankle": 1.2,
    "shoulder": 1.0,
    "elbow": 1.1,
    "wrist": 1.4,
}
JOINT_MM = EASY_MM * np.array([PART_DIFFICULTY[name.split("_")[-1]] for name in H36M.names])
FAST_MM = 40.0  # per frame at 50 frames/s, that is 2 m/s: blurred
DRIFT_FRAMES = 9  # how long an error lasts

# How far from a bone's axis the body hides what is behind it.
TORSO_MM, LIMB_MM = 120.0, 50.0
BONE_RADIUS = np.array(
    [TORSO_MM if H36M.names[j] in ("spine", "thorax") else LIMB_MM for j in H36M.bone_children]
)
# (J, K) how far behind a bone a joint is hidden by it: never by the bones that it belongs to.
BEHIND_MM = np.array(
    [
        [np.inf if joint in bone else LIMB_MM for bone in H36M.bones]
        for joint in range(H36M.num_joints)
    ]
)
_PARENTS, _CHILDREN = list(H36M.bone_parents), list(H36M.bone_children)


@dataclass(frozen=True)
class Detector:
    """How well a detector does.

    strength: of all errors. An error is made of a part that changes over DRIFT_FRAMES frames, one
    that is new in each frame, and one that stays for the whole clip; these are their shares, each
    the standard deviation for an easy joint of strength 1. sure_mm: the error at which confidence
    has fallen to one half.
    """

    strength: float = 1.0
    drifting: float = 0.8
    jitter: float = 0.6
    bias: float = 0.0
    sure_mm: float = 60.0


# Detectors from smooth and precise to rough, and sure of themselves or not: a model of today that
# runs on video jitters 1 to 3 mm and is sure of nearly everything.
STRENGTH = (0.2, 1.6)
SURENESS = (0.8, 3.0)  # factor of sure_mm
JITTER, BIAS = (0.05, 0.6), (0.0, 0.8)
LEAST_DRIFT = 0.1  # of the squared shares, which else add up to one


def draw_detector(rng: np.random.Generator) -> Detector:
    strength, sureness = log_uniform(rng, *STRENGTH), log_uniform(rng, *SURENESS)
    jitter, bias = rng.uniform(*JITTER), rng.uniform(*BIAS)
    drifting = np.sqrt(max(1 - jitter**2 - bias**2, LEAST_DRIFT))
    return Detector(strength, drifting, jitter, bias, Detector.sure_mm * sureness)


def drift(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Unit normal noise (T, ...) that changes over DRIFT_FRAMES frames, not at once."""
    total = np.cumsum(rng.standard_normal((shape[0] + DRIFT_FRAMES, *shape[1:])), axis=0)
    changing: Floats = (total[DRIFT_FRAMES:] - total[:-DRIFT_FRAMES]) / np.sqrt(DRIFT_FRAMES)
    return changing


def hidden(pose: Floats) -> Floats:
    """How much of each joint is hidden behind another part of the body: (T, J, 3) -> (T, J), 0..1.

    pose: 2.5D in mm; the result has its type.
    """
    # One array a coordinate: (T, J, K) each, the joint's offset from the bone's start and then
    # from the bone's nearest point; in place, because this is most of the time that a clip takes.
    joints = [np.ascontiguousarray(pose[..., axis]) for axis in range(3)]
    starts = [joint[:, None, _PARENTS] for joint in joints]  # (T, 1, K)
    bone_x, bone_y, bone_z = (
        joint[:, None, _CHILDREN] - start for joint, start in zip(joints, starts, strict=True)
    )
    x, y, z = (joint[:, :, None] - start for joint, start in zip(joints, starts, strict=True))
    along, share = x * bone_x, y * bone_y
    along += share
    along /= np.maximum(bone_x * bone_x + bone_y * bone_y, 1.0)
    np.maximum(along, 0.0, out=along)
    np.minimum(along, 1.0, out=along)
    for offset, bone in ((x, bone_x), (y, bone_y), (z, bone_z)):
        offset -= np.multiply(along, bone, out=share)
    x *= x
    y *= y
    x += y
    x *= -0.5
    x /= (BONE_RADIUS**2).astype(pose.dtype)
    # The largest of the exponentials is that of the largest exponent.
    most: Floats = np.exp(np.where(z > BEHIND_MM.astype(pose.dtype), x, -np.inf).max(-1))
    return most


def detect(
    rng: np.random.Generator,
    image: Floats,
    factor: Floats,
    detector: Detector = Detector(),
    fps: float = H36M_FPS,
) -> tuple[Floats, Floats]:
    """A 2D detector's answer to a 2.5D pose: joint_2d (T, J, 2) px and confidence (T, J).

    factor: (T,) mm per pixel at the root. Errors last some frames, are larger for fast and hidden
    joints, and heavier-tailed there: their scale is itself log-normal. Confidence falls with that
    scale, as a detector's heatmap widens.
    """
    pose = image * factor[:, None, None]
    step = np.zeros((*image.shape[:2], 2), image.dtype)
    np.subtract(image[1:, :, :2], image[:-1, :, :2], out=step[1:])
    step *= factor[:, None, None]
    step *= step
    speed = np.sqrt(step[..., 0] + step[..., 1]) * (fps / H36M_FPS)
    difficulty = np.minimum(speed / FAST_MM, 1.5) + hidden(pose)  # (T, J), 0..2.5
    tail = np.exp((0.35 + 0.25 * difficulty) * drift(rng, difficulty.shape))
    scale = JOINT_MM * (1 + difficulty) * tail  # (T, J) mm
    noise = detector.jitter * rng.standard_normal((*scale.shape, 2))
    noise = detector.drifting * drift(rng, noise.shape) + noise
    if detector.bias:
        noise += detector.bias * rng.standard_normal(noise.shape[1:])
    error = detector.strength * scale[..., None] * noise
    unsure = 0.03 * min(detector.strength, 1.0) * rng.standard_normal(scale.shape)
    confidence = 1 / (1 + (scale / detector.sure_mm) ** 2) + unsure
    joint_2d = image[..., :2] + error / factor[:, None, None]
    return joint_2d, np.clip(confidence, 0.01, 1.0)


# --- Conventions ------------------------------------------------------------------------------

# Where a detector's joints lie compared with ours, the same in all frames of a clip.
ALONG_LIMB = 0.1  # hips and shoulders: at most so much of the bone below them, or twice that of
# the bone above; the same on the left and the right
ALONG_TRUNK = 0.03  # the joints of the middle line: standard deviation, a share of the trunk
LIMBS = (("pelvis", "hip", "knee"), ("thorax", "shoulder", "elbow"))  # above, what moves, below
MIDDLE = ("pelvis", "spine", "thorax", "neck", "head")


def _shifts() -> Floats:
    """(9, J, J): each a linear map of the joints, the shift of strength 1 of one kind."""
    index = H36M.index
    shifts = np.zeros((4, H36M.num_joints, H36M.num_joints))
    for kind, (above, joint, below) in enumerate(LIMBS):
        for side in ("left", "right"):
            here = index(f"{side}_{joint}")
            shifts[2 * kind, here, [index(f"{side}_{below}"), here]] = 1, -1
            shifts[2 * kind + 1, here, [here, index(above)]] = 2, -2
    trunk = np.zeros((len(MIDDLE), H36M.num_joints, H36M.num_joints))
    for kind, name in enumerate(MIDDLE):
        trunk[kind, index(name), [index("thorax"), index("pelvis")]] = 1, -1
    return np.concatenate([shifts, trunk])


_SHIFTS = _shifts()


def shift_joints(rng: np.random.Generator, pixels: Floats) -> Floats:
    """Joints (T, J, 2) where another convention has them: moved along the body, by a random
    amount up to ALONG_LIMB and ALONG_TRUNK."""
    limbs = rng.uniform(-ALONG_LIMB, ALONG_LIMB, 2 * len(LIMBS)) * rng.random()
    trunk = rng.standard_normal(len(MIDDLE)) * ALONG_TRUNK * rng.random()
    strength = np.concatenate([limbs, trunk])
    shift = (strength[:, None, None] * _SHIFTS).sum(0)
    shifted: Floats = pixels + shift @ pixels
    return shifted


# --- Missing joints ---------------------------------------------------------------------------

# What is lost together.
LOST = (
    ("left_ankle",),
    ("right_ankle",),
    ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"),
    ("left_wrist",),
    ("right_wrist",),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("neck", "head"),
)
MOST_LOSSES = 3
_LOST = [[H36M.index(name) for name in names] for names in LOST]


def lose_joints(rng: np.random.Generator, joint_2d: Floats, confidence: Floats) -> None:
    """In place: one to MOST_LOSSES parts of the body are not found in some of the T frames.

    Their confidence is 0 there; they follow the rest of the body from where they were last seen.
    """
    frames = len(joint_2d)
    for _ in range(int(rng.integers(1, MOST_LOSSES + 1))):
        part = _LOST[int(rng.integers(len(_LOST)))]
        start, end = np.sort(rng.integers(0, frames + 1, 2)).tolist()
        if start == end:
            continue
        for joint in part:  # parents come before their children
            parent = H36M.parents[joint]
            last = joint_2d[start - 1, joint] - joint_2d[start - 1, parent] if start else 0.0
            joint_2d[start:end, joint] = joint_2d[start:end, parent] + last
        confidence[start:end, part] = 0.0
