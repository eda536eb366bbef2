"""Motion in the world -> what Human3.6M's cameras and a 2D detector see of it, on any body.

World: millimetres, z up, floor at 0. Camera: x right, y down, z forward. T frames, J = 17 joints.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from einops import rearrange

from data.sequences import Sequences, Video
from lib.camera import H36M_CAMERAS, H36M_FPS, Camera
from lib.errors import UserError
from lib.skeleton import H36M

CAMERAS = tuple(H36M_CAMERAS.values())

# --- Bodies -----------------------------------------------------------------------------------

STATURE = (0.9, 1.1)
# Bones that grow and shrink together, besides the whole body: long legs do not mean long arms.
PROPORTION = (0.92, 1.08)
BONE_GROUPS = (
    ("left_hip", "right_hip"),
    ("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ("spine", "thorax"),
    ("neck", "head"),
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
LEGS = BONE_GROUPS[1]


def random_body(rng: np.random.Generator) -> np.ndarray:
    """(J,) the factor of each joint's bone to its parent; the same on the left and the right."""
    factors = np.full(H36M.num_joints, rng.uniform(*STATURE))
    for group in BONE_GROUPS:
        factors[[H36M.index(name) for name in group]] *= rng.uniform(*PROPORTION)
    return factors


def scale_bones(motion: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The same joint angles (T, J, 3) on another body; factors (J,), one for each joint's bone.

    Steps grow with the legs, so that feet still stand where they stood, and the lowest point of
    the motion stays where it was.
    """
    scaled = np.empty_like(motion)
    scaled[:, H36M.root] = motion[:, H36M.root] * factors[H36M.index(LEGS[0])]
    for parent, child in H36M.bones:  # parents come before their children
        bone = motion[:, child] - motion[:, parent]
        scaled[:, child] = scaled[:, parent] + factors[child] * bone
    scaled[..., 2] += motion[..., 2].min() - scaled[..., 2].min()
    return scaled


# --- Cameras ----------------------------------------------------------------------------------

# Where Human3.6M's cameras stand, around a person who walks about: mm and degrees.
DISTANCE = (4000.0, 6500.0)
HEIGHT = (1000.0, 2000.0)
HEADING_SPREAD = 25.0  # around the four corners of the room
AIM_SPREAD = (400.0, 400.0, 150.0)
MIN_DEPTH = 1500.0
BORDER = 10.0  # pixels between the person and the edge of the image
TRIES = 24


@dataclass(frozen=True)
class View:
    """A camera that stands somewhere."""

    camera: Camera
    position: np.ndarray  # (3,) world
    target: np.ndarray  # (3,) world: the point on the optical axis

    @cached_property
    def rotation(self) -> np.ndarray:
        """(3, 3): its rows are the camera's right, down and forward, in the world; no roll."""
        forward = (self.target - self.position) / np.linalg.norm(self.target - self.position)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward])

    def to_camera(self, world: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> camera points (..., 3), mm."""
        return (world - self.position) @ self.rotation.T

    def sees(self, world: np.ndarray) -> bool:
        """Whether every point is inside the image and far enough from the lens."""
        points = self.to_camera(world)
        if points[..., 2].min() <= MIN_DEPTH:
            return False
        pixels = self.camera.project(points)
        edge = np.asarray(self.camera.size) - BORDER
        return bool((pixels >= BORDER).all() and (pixels <= edge).all())


def draw_view(
    rng: np.random.Generator, motion: np.ndarray, camera: Camera, heading: float
) -> View | None:
    """A random view, from about `heading` degrees, of the whole motion; None if none is found."""
    flat = rearrange(motion, "t j xyz -> (t j) xyz")
    middle = (flat.min(0) + flat.max(0)) / 2
    for _ in range(TRIES):
        target = middle + rng.uniform(-1, 1, 3) * AIM_SPREAD
        angle = np.deg2rad(heading + rng.uniform(-1, 1) * HEADING_SPREAD)
        distance, height = rng.uniform(*DISTANCE), rng.uniform(*HEIGHT)
        ground = middle[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        view = View(camera, np.array([*ground, height]), target)
        if view.sees(motion):
            return view
    return None


def film(
    rng: np.random.Generator, motion: np.ndarray, num_cameras: int
) -> Iterator[tuple[np.ndarray, list[tuple[int, View]]]]:
    """Windows of a motion (T, J, 3), each with the views that see the person in all its frames.

    Like Human3.6M's, the four cameras stand in the corners of a room, here turned at random;
    `num_cameras` of them, drawn at random, are used: (index in CAMERAS, view). Cameras do not
    move, so a person who walks out of the picture is filmed in two halves.
    """
    used = np.sort(rng.permutation(len(CAMERAS))[:num_cameras])
    room = rng.uniform(0, 360)
    found = [(i, draw_view(rng, motion, CAMERAS[i], room + 360 / len(CAMERAS) * i)) for i in used]
    views = [(int(i), view) for i, view in found if view is not None]
    if len(views) == num_cameras:
        yield motion, views
    elif len(motion) > 1:
        half = len(motion) // 2
        yield from film(rng, motion[:half], num_cameras)
        yield from film(rng, motion[half:], num_cameras)
    else:
        raise UserError("a pose is too large for the image: are the lengths in the unit stated?")


def image_and_depth(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Camera points (T, J, 3) in mm -> Human3.6M's 2.5D pose and its scale.

    Returns joint3d_image (T, J, 3): pixels, z the depth behind the root at the root's scale;
    and 2.5d_factor (T,): mm per pixel at the root.
    """
    root_depth = points[:, H36M.root, 2]
    factor = root_depth / np.mean(camera.focal)
    depth = (points[..., 2] - root_depth[:, None]) / factor[:, None]
    return np.concatenate([camera.project(points), depth[..., None]], axis=-1), factor


# --- The detector -----------------------------------------------------------------------------

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
FAST_MM = 40.0  # per frame, that is 2 m/s: blurred
DRIFT_FRAMES = 9  # how long an error lasts
SURE_MM = 60.0  # the error at which confidence has fallen to one half

# How far from a bone's axis the body hides what is behind it.
TORSO_MM, LIMB_MM = 120.0, 50.0
BONE_RADIUS = np.array(
    [TORSO_MM if H36M.names[j] in ("spine", "thorax") else LIMB_MM for j in H36M.bone_children]
)
# A joint is not hidden by the bones it belongs to.
TOUCHES = np.array([[joint in bone for bone in H36M.bones] for joint in range(H36M.num_joints)])


def drift(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit normal noise (T, ...) that changes over DRIFT_FRAMES frames, not at once."""
    total = np.cumsum(rng.standard_normal((shape[0] + DRIFT_FRAMES, *shape[1:])), axis=0)
    return (total[DRIFT_FRAMES:] - total[:-DRIFT_FRAMES]) / np.sqrt(DRIFT_FRAMES)


def hidden(pose: np.ndarray) -> np.ndarray:
    """How much of each joint is hidden behind another part of the body: (T, J, 3) -> (T, J), 0..1.

    pose: 2.5D in mm.
    """
    start = pose[:, None, H36M.bone_parents]  # (T, 1, bones, 3)
    bone = pose[:, None, H36M.bone_children] - start
    offset = pose[:, :, None] - start  # (T, J, bones, 3)
    squared = np.maximum((bone[..., :2] ** 2).sum(-1), 1.0)
    along = np.clip((offset[..., :2] * bone[..., :2]).sum(-1) / squared, 0.0, 1.0)
    gap = offset - along[..., None] * bone  # from the nearest point of the bone, in the image
    behind = (gap[..., 2] > LIMB_MM) & ~TOUCHES
    return (behind * np.exp(-0.5 * (gap[..., :2] ** 2).sum(-1) / BONE_RADIUS**2)).max(-1)


def detect(
    rng: np.random.Generator, image: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A 2D detector's answer to a 2.5D pose: joint_2d (T, J, 2) px and confidence (T, J, 1).

    Errors last some frames, are larger for fast and hidden joints, and heavier-tailed there: their
    scale is itself log-normal. Confidence falls with that scale, as a detector's heatmap widens.
    """
    pose = image * factor[:, None, None]
    step = np.diff(image[..., :2], axis=0, prepend=image[:1, :, :2]) * factor[:, None, None]
    speed = np.linalg.norm(step, axis=-1)
    difficulty = np.minimum(speed / FAST_MM, 1.5) + hidden(pose)  # (T, J), 0..2.5
    tail = np.exp((0.35 + 0.25 * difficulty) * drift(rng, difficulty.shape))
    scale = JOINT_MM * (1 + difficulty) * tail  # (T, J) mm
    jitter = rng.standard_normal((*scale.shape, 2))
    error = scale[..., None] * (0.8 * drift(rng, jitter.shape) + 0.6 * jitter)
    confidence = 1 / (1 + (scale / SURE_MM) ** 2) + 0.03 * rng.standard_normal(scale.shape)
    joint_2d = image[..., :2] + error / factor[:, None, None]
    return joint_2d, np.clip(confidence, 0.01, 1.0)[..., None]


# --- Videos -----------------------------------------------------------------------------------


def video_of(
    rng: np.random.Generator, motion: np.ndarray, view: View, name: str, action: str, subject: str
) -> Sequences:
    """One video: a motion (T, J, 3) as a view and a detector see it, in Human3.6M's 2.5D."""
    image, factor = image_and_depth(view.to_camera(motion), view.camera)
    joint_2d, confidence = detect(rng, image, factor)
    return Sequences(
        [Video(name, view.camera, action, subject, H36M_FPS, len(motion))],
        joint_2d.astype(np.float32),
        confidence[..., 0].astype(np.float32),
        image.astype(np.float32),
        factor.astype(np.float32),
        (image * factor[:, None, None]).astype(np.float32),
    )


def film_videos(
    rng: np.random.Generator,
    motion: np.ndarray,
    *,
    num_cameras: int,
    subject: str,
    action: str,
    action_number: int,
    takes: Counter[str],
) -> Iterator[Sequences]:
    """The videos of a motion (T, J, 3), each with a name of its own, like Human3.6M's.

    takes: how many windows each act of each subject has had so far.
    """
    act = f"s_{subject}_act_{action_number:02d}"
    for window, views in film(rng, motion, num_cameras):
        takes[act] += 1
        for index, view in views:
            name = f"{act}_subact_{takes[act]:02d}_ca_{index + 1:02d}"
            yield video_of(rng, window, view, name, action, subject)
