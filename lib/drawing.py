"""Drawing with OpenCV alone: the 2D skeleton over a frame, the 3D skeleton over a floor grid.

J joints of any skeleton.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from lib.arrays import Floats
from lib.film import Frame
from lib.skeleton import H36M, Skeleton

BACKGROUND = (250, 248, 246)  # BGR, as everything OpenCV draws
GRID = (214, 208, 202)
SHADOW = (226, 221, 216)
TRAIL = (205, 170, 120)
UNSEEN = (170, 170, 170)
TEXT = (110, 100, 92)

SUBPIXEL_BITS = 3  # OpenCV draws at coordinates in units of 1/8 pixel
GRID_MM = 500.0
ELEVATION = 12.0  # degrees the viewer looks down
START = -35.0  # degrees the viewer stands to the side of the camera
TURN_SECONDS = 20.0  # of a full turn
DISTANCE = 4.5  # of the viewer, in radii of what is shown
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class View:
    """Where the 3D skeleton is seen from.

    azimuth: degrees to the side of the filming camera, at the start; turning: whether it goes
    round from there.
    """

    azimuth: float = START
    turning: bool = True

    def at(self, seconds: float) -> float:
        return self.azimuth + (360 * seconds / TURN_SECONDS if self.turning else 0)


def _fixed(points: Floats) -> NDArray[np.int32]:
    """Pixels -> OpenCV's integers with SUBPIXEL_BITS."""
    limit = 2**15  # beyond it OpenCV's lines overflow
    fixed: NDArray[np.int32] = np.clip(np.round(points * 2**SUBPIXEL_BITS), -limit, limit).astype(
        np.int32
    )
    return fixed


def _draw_skeleton(
    image: Frame,
    skeleton: Skeleton,
    points: Floats,
    seen: NDArray[np.bool_],
    thickness: int,
    order: Iterable[int],
    outline: tuple[int, int, int] | None = None,
) -> None:
    """points: (J, 2) pixels; seen: (J,) bool; order: the bones, the farthest first."""
    fixed = _fixed(points)
    colors = [color[::-1] for color in skeleton.colors]
    for bone in order:
        parent, child = skeleton.bones[bone]
        ends = (fixed[parent].tolist(), fixed[child].tolist())
        color = colors[child] if seen[parent] and seen[child] else UNSEEN
        if outline is not None:
            cv2.line(image, *ends, outline, thickness + 2, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.line(image, *ends, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    radius = max(2, round(0.8 * thickness)) << SUBPIXEL_BITS
    for joint, (x, y) in enumerate(fixed.tolist()):
        color = colors[joint] if seen[joint] else UNSEEN
        cv2.circle(image, (x, y), radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_2d(frame: Frame, keypoints: Floats, label: str = "", skeleton: Skeleton = H36M) -> None:
    """Draw keypoints (J, 3) in the frame's pixels onto it; grey where the confidence is 0."""
    thickness = max(2, round(min(frame.shape[:2]) / 180))
    seen = keypoints[:, 2] > 0
    bones = range(len(skeleton.bones))
    white = (255, 255, 255)
    _draw_skeleton(frame, skeleton, keypoints[:, :2], seen, thickness, bones, outline=white)
    if label:
        _write_above(frame, keypoints[skeleton.index("head"), :2], label, thickness)


def _write_above(image: Frame, point: Floats, label: str, thickness: int) -> None:
    """Where there is no room above, at the upper edge."""
    x, y = np.clip(point, -9999, 9999).astype(int).tolist()
    at, scale = (x, max(y - 4 * thickness, 7 * thickness)), thickness / 4
    cv2.putText(image, label, at, FONT, scale, (255, 255, 255), thickness + 2, cv2.LINE_AA)
    cv2.putText(image, label, at, FONT, scale, (40, 40, 40), thickness, cv2.LINE_AA)


class Room:
    """Draws poses in world axes into a panel, at one scale for the whole video."""

    def __init__(
        self,
        centre: Floats,
        radius: float,
        size: tuple[int, int],
        view: View,
        skeleton: Skeleton = H36M,
    ) -> None:
        """centre: (3,), what the viewer turns around, and radius around it, in mm; the centre may
        be changed between two pictures. size: of the panel, (width, height) in pixels.
        """
        self.centre, self._radius, self.size, self._view = centre, radius, size, view
        self._skeleton = skeleton
        # Fits the ball of that radius into the panel, seen in perspective.
        self._focal = 0.5 * min(size) * np.sqrt(DISTANCE**2 - 1)
        self._thickness = max(2, round(min(size) / 130))
        # The floor as last drawn, and from where; in a turning view only the background.
        self._floor: tuple[tuple[float, ...] | None, Frame] = (
            None,
            np.full((size[1], size[0], 3), BACKGROUND, dtype=np.uint8),
        )

    @classmethod
    def around(
        cls,
        pose_world: Floats,
        size: tuple[int, int],
        view: View,
        skeleton: Skeleton = H36M,
    ) -> "Room":
        """A room that is large enough for all points (..., 3)."""
        points = rearrange(pose_world, "... xyz -> (...) xyz")
        low, high = np.percentile(points, [0.5, 99.5], axis=0)
        low[2] = 0
        centre = (low + high) / 2
        away = np.linalg.norm(points - centre, axis=-1)
        return cls(centre, float(np.percentile(away, 99.8)) * 1.05, size, view, skeleton)

    def project(self, points: Floats, azimuth: float) -> tuple[Floats, Floats]:
        """World points (..., 3) -> pixels (..., 2), and depths (...)."""
        turn, tilt = np.deg2rad(azimuth), np.deg2rad(ELEVATION)
        x, y, z = np.moveaxis((points - self.centre) / self._radius, -1, 0)
        right = np.cos(turn) * x - np.sin(turn) * y
        away = np.sin(turn) * x + np.cos(turn) * y
        depth = DISTANCE + np.cos(tilt) * away - np.sin(tilt) * z
        up = np.cos(tilt) * z + np.sin(tilt) * away
        pixels = np.stack([right, -up], axis=-1) * (self._focal / depth)[..., None]
        return pixels + np.array(self.size) / 2, depth

    def _draw_floor(self, panel: Frame, azimuth: float) -> None:
        cached, background = self._floor
        panel[:] = background
        here = (azimuth, *self.centre.tolist())
        if cached == here:
            return
        panel[:] = BACKGROUND
        steps = int(np.ceil(self._radius / GRID_MM))
        middle = np.round(self.centre[:2] / GRID_MM) * GRID_MM
        reach, across = steps * GRID_MM, np.arange(-steps, steps + 1) * GRID_MM
        ends = np.array([[[a, -reach], [a, reach]] for a in across])  # (lines, 2, 2)
        ends = np.concatenate([ends, ends[..., ::-1]]) + middle
        grid, _ = self.project(np.concatenate([ends, np.zeros_like(ends[..., :1])], -1), azimuth)
        for start, end in _fixed(grid).tolist():
            cv2.line(panel, start, end, GRID, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        if not self._view.turning:
            self._floor = (here, panel.copy())

    def draw(
        self,
        panel: Frame,
        poses: Floats,
        seen: NDArray[np.bool_],
        seconds: float,
        trails: Iterable[Floats] = (),
        labels: Sequence[str] = (),
    ) -> None:
        """Fill a panel. poses: (P, J, 3) world mm; seen: (P, J) bool; trails: lines on the floor,
        (N, 2) each; labels: what is written above each head, if anything.
        """
        azimuth = self._view.at(seconds)
        self._draw_floor(panel, azimuth)
        for level in trails:
            line, _ = self.project(np.concatenate([level, np.zeros_like(level[:, :1])], 1), azimuth)
            thin = max(1, self._thickness // 2)
            cv2.polylines(panel, [_fixed(line)], False, TRAIL, thin, cv2.LINE_AA, SUBPIXEL_BITS)
        shadows, _ = self.project(poses * [1, 1, 0], azimuth)
        for fixed in _fixed(shadows):
            for parent, child in self._skeleton.bones:
                ends = (fixed[parent].tolist(), fixed[child].tolist())
                cv2.line(panel, *ends, SHADOW, self._thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        pixels, depth = self.project(poses, azimuth)
        for person in np.argsort(-depth.mean(axis=-1)):
            start, end = (
                depth[person][list(joints)]
                for joints in (self._skeleton.bone_parents, self._skeleton.bone_children)
            )
            order = np.argsort(-(start + end))
            _draw_skeleton(
                panel, self._skeleton, pixels[person], seen[person], self._thickness, order
            )
        head = self._skeleton.index("head")
        for label, points in zip(labels, pixels, strict=bool(labels)):
            _write_above(panel, points[head], label, self._thickness)
