"""Screen coordinates and cameras.

Normalised screen coordinates divide pixels by half the image width: x runs from -1 to 1,
y from -h/w to h/w, and a depth in pixels is divided alike. That is `to_screen`; there is no other.
"""

from dataclasses import dataclass

import numpy as np

from lib.arrays import Floats


def _half_width_and_centre(size: Floats | tuple[float, float]) -> tuple[Floats, Floats]:
    size = np.asarray(size, dtype=np.float64)[..., None, :]  # (..., 1, 2): over joints
    width, height = size[..., :1], size[..., 1:]
    return width / 2, np.concatenate([np.ones_like(width), height / width], axis=-1)


def to_screen(pixels: Floats, size: Floats | tuple[float, float]) -> Floats:
    """Pixels -> normalised screen coordinates: xy/w·2 - [1, h/w], z/w·2.

    pixels: (..., J, 2 or 3); size: (width, height), or (..., 2), one for each pose.
    """
    half, centre = _half_width_and_centre(size)
    screen = pixels / half
    screen[..., :2] -= centre
    dtype = np.result_type(pixels, np.float32)
    return screen.astype(dtype, copy=False)


def from_screen(screen: Floats, size: Floats | tuple[float, float]) -> Floats:
    """The inverse of `to_screen`: (xy + [1, h/w])·w/2, z·w/2, in pixels."""
    half, centre = _half_width_and_centre(size)
    pixels = screen * half
    pixels[..., :2] += centre * half
    return pixels.astype(screen.dtype, copy=False)


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in pixels, without lens distortion."""

    name: str
    size: tuple[int, int]  # width, height
    focal: tuple[float, float]
    center: tuple[float, float]

    def project(self, points: Floats) -> Floats:
        """Camera-space points (..., 3), z forward -> pixels (..., 2)."""
        return points[..., :2] / points[..., 2:] * self.focal + self.center


# Human3.6M's four cameras: the dataset's published intrinsics, as in VideoPose3D's tables.
H36M_FPS = 50.0
H36M_CAMERAS = {
    camera.name: camera
    for camera in (
        Camera(
            "54138969", (1000, 1002), (1145.04940459, 1143.78109572), (512.54150496, 515.45148698)
        ),
        Camera(
            "55011271", (1000, 1000), (1149.67569987, 1147.59161666), (508.84864645, 508.06491775)
        ),
        Camera(
            "58860488", (1000, 1000), (1149.14071677, 1148.79896857), (519.81583718, 501.40264697)
        ),
        Camera(
            "60457274", (1000, 1002), (1145.51133842, 1144.77392808), (514.96819732, 501.88201854)
        ),
    )
}


def rotate(points: Floats, rotation: Floats) -> Floats:
    """(..., 3) points by a (3, 3) rotation matrix."""
    return points @ np.swapaxes(rotation, -1, -2)


def camera_to_world(points: Floats, pitch: float) -> Floats:
    """Camera axes (x right, y down, z forward) -> world axes (x right, y forward, z up).

    points: (..., 3); pitch: how far the camera looks down, in degrees.
    """
    angle = np.deg2rad(pitch)
    cos, sin = np.cos(angle), np.sin(angle)
    # World up in camera axes is (0, -cos, -sin): a camera looking down sees "up" recede from it.
    rotation = np.array([[1, 0, 0], [0, -sin, cos], [0, -cos, -sin]])
    return rotate(points, rotation)
