"""Where a person goes: the root's path before the camera, from how their pose looks in the picture.

A pose of known size fits the 2D keypoints at one place only: nearer it would look larger, elsewhere
it would lie elsewhere. Each frame's place is a weighted least-squares fit; across the line of sight
it is exact to some millimetres, along it to some percent. So the path is the smooth one that comes
nearest to all of them, on which feet that rest stay where they are.

F frames at `times` (F,) in seconds; camera axes (x right, y down, z forward), mm, the lens at 0.
"""

from dataclasses import dataclass

import numpy as np

from demo.poses import shortest_turn, unit
from demo.timeline import averaged
from lib.skeleton import H36M

DEFAULT_FOV = 55.0  # degrees over the picture's longer side: between phones (65) and zooms (45)
FEET = tuple(H36M.index(f"{side}_ankle") for side in ("left", "right"))

# A fitted place's standard deviation: across the line of sight in mm, along it as a share of the
# distance; and how long (seconds) such an error lasts.
ACROSS_MM, ALONG, ERROR_SECONDS = 12.0, 0.025, 0.1
# Accelerations of the root, mm/s²: along the line of sight slow, for there the fits are worst.
ACROSS_ACCELERATION, ALONG_ACCELERATION = 8000.0, 1500.0
SLIDE_MM_PER_SECOND = 300.0  # how much a resting foot of a pose may seem to move
FLOOR_MM = 20.0  # how far from the floor a foot that rests on it may seem to be
OUTLIER = 2.0  # standard deviations from which a fit counts less and less

# A foot rests while it moves less than this in the picture, and in space as far as that is known.
REST_MM_PER_SECOND, REST_IN_SPACE = 300.0, 700.0
REST_SECONDS, BLINK_SECONDS = 0.1, 0.06  # a rest lasts so long; a shorter break is none
MOMENT = 0.05  # seconds over which speeds in the picture are averaged
SEEN = 0.1  # feet of a lower confidence tell nothing


def focal_length(size: tuple[int, int], fov: float) -> float:
    """Pixels; fov: degrees over the longer side of a picture of this width and height."""
    return max(size) / 2 / float(np.tan(np.deg2rad(fov) / 2))


def turned_back(
    pose: np.ndarray, centre: np.ndarray, size: tuple[int, int], fov: float
) -> np.ndarray:
    """Poses (F, 17, 3) in the axes of a camera that looks at `centre` (F, 2), pixels of the picture
    -> in those of the camera that filmed the picture."""
    off = (centre - np.array(size) / 2) / focal_length(size, fov)
    ray = unit(np.concatenate([off, np.ones((len(off), 1))], axis=1))
    return np.einsum("fik,fjk->fji", shortest_turn(np.array([0.0, 0, 1]), ray), pose)


@dataclass(frozen=True)
class Sight:
    """A person's pose (F, 17, 3), root at 0, mm in camera axes, and how it looks in the picture.

    keypoints: (F, 17, 3): x and y relative to the picture's middle over the focal length, and a
    confidence.
    """

    pose: np.ndarray
    keypoints: np.ndarray
    times: np.ndarray

    @classmethod
    def of(
        cls,
        pose: np.ndarray,
        keypoints: np.ndarray,
        times: np.ndarray,
        size: tuple[int, int],
        fov: float,
    ) -> "Sight":
        """keypoints: (F, 17, 3) in pixels of a picture of this width and height."""
        points = keypoints.astype(np.float64)
        points[..., :2] = (points[..., :2] - np.array(size) / 2) / focal_length(size, fov)
        return cls(pose.astype(np.float64), points, times)


def fit_places(sight: Sight) -> tuple[np.ndarray, np.ndarray]:
    """Each frame's place of the root (F, 3) by itself, and its weight (F,) from 0 to 1.

    A joint at (X, Y, Z) from the root is seen where u (Z + z) = X + x: linear in the place, with
    v and Y alike. Joints that fit badly count less.
    """
    u, sure = sight.keypoints[..., :2], sight.keypoints[..., 2]
    rows = np.zeros((*u.shape, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -u
    wanted = u * sight.pose[..., 2:] - sight.pose[..., :2]
    # Where nothing is seen, what was filled in counts a little: it is better than nothing.
    sure = np.maximum(sure, 1e-4)
    weight = sure
    for _ in range(5):
        square = np.einsum("fjai,fjak,fj->fik", rows, rows, weight)
        mixed = np.einsum("fjai,fja,fj->fi", rows, wanted, weight)
        place = np.linalg.solve(square + 1e-9 * np.eye(3), mixed[..., None])[..., 0]
        miss = np.linalg.norm(np.einsum("fjai,fi->fja", rows, place) - wanted, axis=-1)
        usual = np.maximum(np.median(miss, axis=1, keepdims=True), 1e-6)
        weight = sure / (1 + (miss / (OUTLIER * usual)) ** 2)
    # Nobody is behind the lens, or in it.
    place[:, 2] = np.maximum(place[:, 2], 300.0)
    return place, np.clip(sure.mean(axis=1), 0.01, 1)


# --- Feet -------------------------------------------------------------------------------------


def resting_feet(sight: Sight, path: np.ndarray) -> np.ndarray:
    """(F, 2) whether the left and the right foot rest, on whatever; path: (F, 3), roughly."""
    rests = np.zeros((len(path), 2), dtype=bool)
    if len(path) < 3:
        return rests
    for side, foot in enumerate(FEET):
        seen = averaged(sight.keypoints[:, foot, :2], sight.times, MOMENT)
        distance = path[:, 2] + sight.pose[:, foot, 2]
        in_picture = _speed(seen, sight.times) * distance
        in_space = _speed(averaged(path + sight.pose[:, foot], sight.times, MOMENT), sight.times)
        still = (in_picture < REST_MM_PER_SECOND) & (in_space < REST_IN_SPACE)
        still &= sight.keypoints[:, foot, 2] > SEEN
        rests[:, side] = _long(_without_gaps(still, sight.times), sight.times)
    return rests


def _speed(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.gradient(points, times, axis=0), axis=-1)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(F,) -> first and one past the last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _without_gaps(still: np.ndarray, times: np.ndarray) -> np.ndarray:
    result = still.copy()
    for start, end in runs(~still):
        if start > 0 and end < len(still) and times[end] - times[start] <= BLINK_SECONDS:
            result[start:end] = True
    return result


def _long(still: np.ndarray, times: np.ndarray) -> np.ndarray:
    result = still.copy()
    for start, end in runs(still):
        if times[end - 1] - times[start] < REST_SECONDS:
            result[start:end] = False
    return result


# --- The path ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floor:
    """Where a plane lies: up (3,), perpendicular to it, and the points of it: up · x = level."""

    up: np.ndarray
    level: float


def smooth_path(
    sight: Sight,
    places: np.ndarray,
    weights: np.ndarray,
    rests: np.ndarray,
    floor: Floor | None = None,
    on_floor: np.ndarray | None = None,
) -> np.ndarray:
    """The path (F, 3) that is nearest to the places (F, 3), smooth, and keeps resting feet still.

    rests: (F, 2), as `resting_feet` gives them; on_floor: (F, 2), those of them that rest on the
    floor. All are terms of one linear least-squares problem, solved exactly.
    """
    count = len(places)
    if count < 3:
        return places
    step = np.gradient(sight.times)
    ray = places / np.linalg.norm(places, axis=-1, keepdims=True)
    along = ray[:, :, None] * ray[:, None, :]
    across = np.eye(3) - along
    spread = ALONG * np.linalg.norm(places, axis=-1)[:, None, None]
    trust = along / spread**2 + across / ACROSS_MM**2
    bend = along / ALONG_ACCELERATION**2 + across / ACROSS_ACCELERATION**2
    base = _Bands(count)
    base.add_bends(sight.times, bend)
    for side, foot in enumerate(FEET):
        both = rests[1:, side] & rests[:-1, side]
        apart = np.diff(sight.times)
        moved = np.diff(sight.pose[:, foot], axis=0)
        base.add_steps(both / (SLIDE_MM_PER_SECOND**2 * apart * ERROR_SECONDS), -moved)
        if floor is not None and on_floor is not None:
            height = floor.level - sight.pose[:, foot] @ floor.up
            share = on_floor[:, side] * step / ERROR_SECONDS / FLOOR_MM**2
            plane = floor.up[:, None] * floor.up
            base.add_points(share[:, None, None] * plane, height[:, None] * floor.up)
    path, factor = places, np.ones(count)
    for _ in range(3):
        bands = base.copy()
        share = weights * factor * step / ERROR_SECONDS
        bands.add_points(share[:, None, None] * trust, places)
        path = bands.solve()
        miss = path - places
        off = np.sqrt(np.einsum("fi,fij,fj->f", miss, trust, miss))
        factor = 1 / np.maximum(1, off / OUTLIER)
    return path


class _Bands:
    """Sum of squares over points x (F, 3) in which each point meets the next two only."""

    def __init__(self, count: int) -> None:
        # Blocks of the symmetric matrix: of a point with itself, the next one, the one after.
        self.own = np.zeros((count, 3, 3))
        self.next = np.zeros((count, 3, 3))
        self.after = np.zeros((count, 3, 3))
        self.right = np.zeros((count, 3))

    def copy(self) -> "_Bands":
        other = _Bands(0)
        other.own, other.next = self.own.copy(), self.next.copy()
        other.after, other.right = self.after.copy(), self.right.copy()
        return other

    def add_points(self, weight: np.ndarray, wanted: np.ndarray) -> None:
        """(x - wanted) · weight (x - wanted), weight (F, 3, 3)."""
        self.own += weight
        self.right += np.einsum("fij,fj->fi", weight, wanted)

    def add_steps(self, weight: np.ndarray, wanted: np.ndarray) -> None:
        """weight |x[f + 1] - x[f] - wanted|², (F - 1,) and (F - 1, 3)."""
        block = weight[:, None, None] * np.eye(3)
        self.own[:-1] += block
        self.own[1:] += block
        self.next[:-1] -= block
        pull = weight[:, None] * wanted
        self.right[1:] += pull
        self.right[:-1] -= pull

    def add_bends(self, times: np.ndarray, weight: np.ndarray) -> None:
        """x'' · weight x'' over time in units of ERROR_SECONDS; weight (F, 3, 3)."""
        before, behind = np.diff(times)[:-1], np.diff(times)[1:]
        middle = (before + behind) / 2
        parts = (1 / (before * middle), -1 / before / middle - 1 / behind / middle)
        factors = (*parts, 1 / (behind * middle))
        block = weight[1:-1] * (middle / ERROR_SECONDS)[:, None, None]
        count = len(times)
        for a in range(3):
            for b in range(a, 3):
                piece = block * (factors[a] * factors[b])[:, None, None]
                target = (self.own, self.next, self.after)[b - a]
                target[a : count - 2 + a] += piece

    def solve(self) -> np.ndarray:
        """The minimum: two points at a time, which meet the two before and the two after only."""
        count = len(self.own)
        half = (count + 1) // 2
        main, lower = np.zeros((half, 6, 6)), np.zeros((half, 6, 6))
        right = np.zeros((half, 6))
        main[:] = np.eye(6)
        main[:, :3, :3] = self.own[0::2]
        main[: count // 2, 3:, 3:] = self.own[1::2]
        odd = self.next[0::2][: count // 2]
        main[: count // 2, :3, 3:], main[: count // 2, 3:, :3] = odd, odd.transpose(0, 2, 1)
        # lower[k]: rows of pair k, columns of pair k - 1.
        after = self.after.transpose(0, 2, 1)
        lower[1:, :3, :3] = after[0::2][: half - 1]
        lower[1:, :3, 3:] = self.next.transpose(0, 2, 1)[1::2][: half - 1]
        whole = count // 2 - 1 if count % 2 else half - 1
        lower[1 : whole + 1, 3:, 3:] = after[1::2][:whole]
        right[:, :3] = self.right[0::2]
        right[: count // 2, 3:] = self.right[1::2]
        for k in range(1, half):
            factor = np.linalg.solve(main[k - 1], lower[k].T).T
            main[k] -= factor @ lower[k].T
            right[k] -= factor @ right[k - 1]
        solution = np.zeros((half, 6))
        solution[-1] = np.linalg.solve(main[-1], right[-1])
        for k in range(half - 2, -1, -1):
            solution[k] = np.linalg.solve(main[k], right[k] - lower[k + 1].T @ solution[k + 1])
        return solution.reshape(-1, 3)[:count]
