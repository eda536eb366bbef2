"""Cameras that stand somewhere, and what they see: Human3.6M's 2.5D pose.

World: millimetres, z up, floor at 0. Camera: x right, y down, z forward. T frames, J = 17 joints.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from einops import rearrange

from lib.arrays import Floats
from lib.camera import H36M_CAMERAS, Camera
from lib.skeleton import H36M

CAMERAS = tuple(H36M_CAMERAS.values())
MIN_DEPTH = 1500.0
BORDER = 10.0  # pixels between the person and the edge of the image
AIM_SPREAD = (300.0, 300.0, 150.0)


@dataclass(frozen=True)
class View:
    """A camera that stands somewhere."""

    camera: Camera
    position: Floats  # (3,) world
    target: Floats  # (3,) world: the point on the optical axis
    roll: float = 0.0  # about the optical axis, in radians

    @cached_property
    def rotation(self) -> Floats:
        """(3, 3): its rows are the camera's right, down and forward, in the world."""
        forward = (self.target - self.position) / np.linalg.norm(self.target - self.position)
        x, y, z = forward.tolist()
        right = np.array([y, -x, 0.0])  # forward × up
        right /= np.linalg.norm(right)
        a, b, _ = right.tolist()
        down = np.array([-z * b, z * a, x * b - y * a])  # forward × right
        if self.roll:
            sine, cosine = math.sin(self.roll), math.cos(self.roll)
            right, down = cosine * right + sine * down, cosine * down - sine * right
        return np.stack([right, down, forward])

    def to_camera(self, world: Floats) -> Floats:
        """World points (..., 3) -> camera points (..., 3), mm."""
        points: Floats = (world - self.position) @ self.rotation.T
        return points

    def sees(self, world: Floats) -> bool:
        """Whether every point is inside the image and far enough from the lens."""
        points = self.to_camera(world)
        if points[..., 2].min() <= MIN_DEPTH:
            return False
        pixels = self.camera.project(points)
        edge = np.asarray(self.camera.size) - BORDER
        return bool((pixels >= BORDER).all() and (pixels <= edge).all())


def middle_of(motion: Floats) -> Floats:
    """(3,) the centre of the box around all joints of all frames (T, J, 3)."""
    flat = rearrange(motion, "t j xyz -> (t j) xyz")
    middle: Floats = (flat.min(0) + flat.max(0)) / 2
    return middle


def image_and_depth(points: Floats, camera: Camera) -> tuple[Floats, Floats]:
    """Camera points (T, J, 3) in mm -> Human3.6M's 2.5D pose and its scale.

    Returns joint3d_image (T, J, 3): pixels, z the depth behind the root at the root's scale;
    and 2.5d_factor (T,): mm per pixel at the root.
    """
    root_depth = points[:, H36M.root, 2]
    factor = root_depth / np.mean(camera.focal)
    depth = (points[..., 2] - root_depth[:, None]) / factor[:, None]
    return np.concatenate([camera.project(points), depth[..., None]], axis=-1), factor


# --- Anybody's camera, anywhere ---------------------------------------------------------------

IMAGE = 1000  # pixels: height and width
FOCAL = (800.0, 2000.0)  # pixels
DISTANCE = (2500.0, 8000.0)
HEIGHT = (500.0, 2600.0)
ROLL_DEGREES = 3.0  # standard deviation
NEAREST = 1000.0  # no joint is nearer to the lens
LARGEST = 960.0  # pixels that a person and all places where they go may fill
# The person may stand anywhere in the picture; the optical axis stays near its centre.
OFF_CENTRE, MAX_SHIFT = 0.7, 150.0
FARTHER, WIDER = 1.25, 0.9  # when the picture is too small for the motion


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_anywhere(rng: np.random.Generator, motion: Floats) -> View:
    """A random camera somewhere around a motion (T, J, 3), which it has in the picture.

    For a motion that goes far it stands farther off than DISTANCE.
    """
    points = np.ascontiguousarray(rearrange(motion, "t j xyz -> xyz (t j)"))
    middle = (points.min(1) + points.max(1)) / 2
    focal, distance = log_uniform(rng, *FOCAL), log_uniform(rng, *DISTANCE)
    height, heading = rng.uniform(*HEIGHT), rng.uniform(0, 2 * math.pi)
    roll = math.radians(ROLL_DEGREES * rng.standard_normal())
    target = middle + rng.uniform(-1, 1, 3) * AIM_SPREAD
    place = rng.uniform(-1, 1, 2)
    camera = Camera("anywhere", (IMAGE, IMAGE), (0.0, 0.0), (0.0, 0.0))
    while True:
        x, y = middle[0] + distance * math.cos(heading), middle[1] + distance * math.sin(heading)
        view = View(camera, np.array([x, y, height]), target, roll)
        right, down, depth = view.rotation @ (points - view.position[:, None])
        if depth.min() > NEAREST:
            pixels = focal * np.stack([right, down]) / depth
            low, high = pixels.min(1), pixels.max(1)
            if (high - low).max() < LARGEST:
                break
        distance, focal = distance * FARTHER, max(focal * WIDER, FOCAL[0])
    free = np.maximum(IMAGE - 2 * BORDER - (high - low), 0) / 2
    shift = -(low + high) / 2 + place * free * OFF_CENTRE
    cx, cy = (IMAGE / 2 + np.clip(shift, -MAX_SHIFT, MAX_SHIFT)).tolist()
    return replace(view, camera=replace(camera, focal=(focal, focal), center=(cx, cy)))
