"""Several calibrated cameras: Qualisys' calibration files, and points in space from their pictures.

C cameras. World in mm, z up; a camera's own axes: x right, y down, z forward. Pixels are those of
the calibration. Places on a camera's screen are relative to its axis, over the focal length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from lib.errors import UserError

SUBPIXELS = 64.0  # of a pixel in Qualisys' files
ROUNDS = 5  # of the refinement
USUAL = 10.0  # pixels: what is missed by more counts less
STIFF = 0.1  # how much it counts that a turn moves a picture, against what is missed


@dataclass(frozen=True)
class Calibrated:
    """A camera. size: width and height; matrix: (3, 3) intrinsics; distortion: OpenCV's k1, k2, p1,
    p2, k3; rotation: (3, 3) from the world's axes to the camera's; position: (3,) of the lens.
    """

    name: str
    size: tuple[int, int]
    matrix: np.ndarray
    distortion: np.ndarray
    rotation: np.ndarray
    position: np.ndarray

    @property
    def focal(self) -> float:
        """Pixels, over both axes on average."""
        return float(self.matrix[0, 0] + self.matrix[1, 1]) / 2

    @property
    def fov(self) -> float:
        """Degrees over the picture's longer side."""
        return float(np.rad2deg(2 * np.arctan(max(self.size) / 2 / self.focal)))

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the world -> (..., 3) in the camera's axes."""
        return (points - self.position) @ self.rotation.T

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) in the world -> (..., 2) pixels."""
        flat = self.to_camera(points).reshape(-1, 1, 3)
        pixels, _ = cv2.projectPoints(flat, np.zeros(3), np.zeros(3), self.matrix, self.distortion)
        return pixels.reshape(*points.shape[:-1], 2)

    def to_screen(self, pixels: np.ndarray) -> np.ndarray:
        """(..., 2) pixels -> (..., 2) on the screen, without the lens's distortion."""
        flat = pixels.reshape(-1, 1, 2).astype(np.float64)
        exact = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-12)
        undone = cv2.undistortPointsIter(flat, self.matrix, self.distortion, None, None, exact)
        return undone.reshape(pixels.shape)


def read_qualisys(path: Path) -> list[Calibrated]:
    """The cameras of a .qca.txt file, in its order. Raises UserError."""
    try:
        found = [_camera(one) for one in ElementTree.parse(path).getroot().iter("camera")]
    except (OSError, ElementTree.ParseError, AttributeError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a Qualisys calibration file (.qca.txt): {error}") from error
    if len(found) < 3:
        raise UserError(f"{path}: {len(found)} cameras; the benchmark needs three or more")
    return found


def _camera(element: ElementTree.Element) -> Calibrated:
    def numbers(tag: str, names: str) -> np.ndarray:
        attributes = element.find(tag).attrib  # type: ignore[union-attr]
        return np.array([float(attributes[name]) for name in names.split()])

    left, right, top, bottom = numbers("fov_video", "left right top bottom")
    size = round(right - left + 1), round(bottom - top + 1)
    names = "focalLengthU focalLengthV centerPointU centerPointV"
    fu, fv, cu, cv = numbers("intrinsic", names) / SUBPIXELS
    radial = numbers("intrinsic", "radialDistortion1 radialDistortion2 radialDistortion3")
    tangential = numbers("intrinsic", "tangentalDistortion1 tangentalDistortion2")
    rows = numbers("transform", "r11 r12 r13 r21 r22 r23 r31 r32 r33").reshape(3, 3)
    return Calibrated(
        element.attrib["serial"],
        size,
        np.array([[fu, 0, cu - left], [0, fv, cv - top], [0, 0, 1]]),
        np.array([*radial[:2], *tangential, radial[2]]),
        # Qualisys' cameras have y up and look along -z.
        np.diag([1.0, -1.0, -1.0]) @ rows,
        numbers("transform", "x y z"),
    )


@dataclass(frozen=True)
class Points:
    """Points in space. places: (..., 3) mm, NaN where too few cameras saw them; miss: (...) pixels,
    how far their pictures lie from what was seen, on average over the cameras that count; used:
    (C, ...) which do.
    """

    places: np.ndarray
    miss: np.ndarray
    used: np.ndarray


def triangulate(
    cameras: Sequence[Calibrated],
    pixels: np.ndarray,
    weights: np.ndarray,
    limit: float = float("inf"),
) -> Points:
    """pixels: (C, ..., 2); weights: (C, ...), 0: not seen.

    Where three or more cameras miss a point by more than `limit` pixels, on average, the camera is
    left out without which the rest agree best.
    """
    rays = _Rays.of(cameras, pixels.reshape(len(cameras), -1, 2))
    shape, flat = weights.shape[1:], weights.reshape(len(cameras), -1).astype(np.float64)
    best = rays.points(flat)
    doubtful = np.flatnonzero((best.miss > limit) & (best.used.sum(axis=0) > 2))
    some, rest = rays.only(doubtful), flat[:, doubtful]
    for camera in range(len(cameras) if len(doubtful) else 0):
        fewer = rest.copy()
        fewer[camera] = 0
        found = some.points(fewer)
        better = found.miss < best.miss[doubtful]
        rows = doubtful[better]
        best.places[rows], best.miss[rows] = found.places[better], found.miss[better]
        best.used[:, rows] = found.used[:, better]
    used = best.used.reshape(len(cameras), *shape)
    return Points(best.places.reshape(*shape, 3), best.miss.reshape(shape), used)


def turned(
    cameras: Sequence[Calibrated], pixels: np.ndarray, weights: np.ndarray, stiff: float = STIFF
) -> list[Calibrated]:
    """The cameras, each turned where it stands so that all agree best about the points that they
    see: pixels (C, N, 2), weights (C, N). Their positions stay, and so does the size of the world.

    stiff: what the points leave open stays as it was calibrated; 0: only the points count.
    """
    result, count = list(cameras), len(cameras)
    for _ in range(ROUNDS):
        rays = _Rays.of(result, pixels)
        places = rays.points(weights).places
        known = np.isfinite(places).all(axis=-1)
        rays, places = rays.only(known), places[known]
        off, by_place, by_turn = rays.misses(places)
        size = np.linalg.norm(off, axis=-1)
        trust = np.sqrt(weights[:, known] / (1 + (size / USUAL) ** 2))[..., None]
        # Of each point its own three unknowns are eliminated; the turns are left.
        sides = (trust[..., None] * by_place).transpose(1, 0, 2, 3).reshape(len(places), -1, 3)
        blocks = np.zeros((len(places), count, 2, count, 3))
        for camera in range(count):
            blocks[:, camera, :, camera] = (trust[..., None] * by_turn)[camera]
        own, _ = np.linalg.qr(sides)
        rows = np.concatenate(
            [
                blocks.reshape(len(places), 2 * count, 3 * count),
                (trust * off).transpose(1, 0, 2).reshape(len(places), -1, 1),
            ],
            axis=-1,
        )
        rows = (rows - own @ (own.transpose(0, 2, 1) @ rows)).reshape(-1, 3 * count + 1)
        moved = stiff * np.repeat(rays.focal**2 * weights.sum(axis=1), 3)
        so_far = np.ravel(
            [
                cv2.Rodrigues(one.rotation @ camera.rotation.T)[0]
                for one, camera in zip(result, cameras, strict=True)
            ]
        )
        square = rows[:, :-1].T @ rows[:, :-1] + np.diag(moved)
        turns = np.linalg.solve(square, rows[:, :-1].T @ rows[:, -1] - moved * so_far)
        result = [
            replace(camera, rotation=cv2.Rodrigues(turn)[0] @ camera.rotation)
            for camera, turn in zip(result, turns.reshape(count, 3), strict=True)
        ]
    return result


@dataclass(frozen=True)
class _Rays:
    """Where C cameras see N points. rotation: (C, 3, 3); position: (C, 3); focal: (C,) pixels;
    screen: (C, N, 2).
    """

    rotation: np.ndarray
    position: np.ndarray
    focal: np.ndarray
    screen: np.ndarray

    @classmethod
    def of(cls, cameras: Sequence[Calibrated], pixels: np.ndarray) -> "_Rays":
        return cls(
            np.stack([camera.rotation for camera in cameras]),
            np.stack([camera.position for camera in cameras]),
            np.array([camera.focal for camera in cameras]),
            np.stack([c.to_screen(p) for c, p in zip(cameras, pixels, strict=True)]),
        )

    def only(self, points: np.ndarray) -> "_Rays":
        return replace(self, screen=self.screen[:, points])

    def points(self, weights: np.ndarray) -> Points:
        """weights: (C, N). The places with the least squared misses."""
        used = weights > 0
        enough = used.sum(axis=0) >= 2
        # A point X is seen where (x r3 - r1) (X - C) = 0, and with y and r2 alike: linear in X.
        rows = self.screen[..., None] * self.rotation[:, None, None, 2] - self.rotation[:, None, :2]
        wanted = np.einsum("cnai,ci->cna", rows, self.position)
        places = _least_squares(rows, wanted, weights, enough)
        for _ in range(ROUNDS):
            off, by_place, _ = self.misses(places)
            places = places + _least_squares(by_place, off, weights, enough)
        apart = np.linalg.norm(self.misses(places)[0], axis=-1)
        miss = (apart * used).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        places[~enough], miss[~enough] = np.nan, np.inf
        return Points(places, miss, used & enough)

    def misses(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels from each place's picture to where it is seen, (C, N, 2); and how far the picture
        goes for each mm of the place and for each radian of the camera's turn, (C, N, 2, 3).

        places: (N, 3).
        """
        own = np.einsum("cij,cnj->cni", self.rotation, places - self.position[:, None])
        picture = own[..., :2] / own[..., 2:]
        slope = np.zeros((*own.shape[:2], 2, 3))
        slope[..., 0, 0] = slope[..., 1, 1] = 1
        slope[..., 2] = -picture
        slope *= (self.focal[:, None] / own[..., 2])[..., None, None]
        spin = -np.cross(own[..., None, :], np.eye(3)).transpose(0, 1, 3, 2)
        off = (self.screen - picture) * self.focal[:, None, None]
        return off, slope @ self.rotation[:, None], slope @ spin


def _least_squares(
    rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray, enough: np.ndarray
) -> np.ndarray:
    square = np.einsum("cnai,cnaj,cn->nij", rows, rows, weights)
    mixed = np.einsum("cnai,cna,cn->ni", rows, wanted, weights)
    square[~enough] = np.eye(3)
    return np.linalg.solve(square, mixed[..., None])[..., 0]
