"""What every kind of file is brought to: sightings of people in images, as the file has them.

Whether the numbers can be true is asked later (examine.py). N sightings, J keypoints.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from lib.errors import UserError
from lib.keypoints import LAYOUTS, Layout

Image = str | int  # its name, or its number

# How many keypoints a person has in some layout.
COUNTS = {n for layout in LAYOUTS.values() for n in (layout.in_files, layout.num_keypoints)}
CONFIDENCE = (
    "keypoint_scores", "keypoints_scores", "keypoints_score", "keypoint_score", "kp_scores",
    "kp_score", "kpt_scores", "scores", "score", "confidence", "confidences", "conf", "visibility",
    "visible", "visibilities", "likelihood", "presence", "probability", "prob", "c", "v",
    "keypoint_conf", "keypoints_conf", "kpts_conf", "kpt_conf", "kp_conf", "confs",
    "keypoint_confidence", "keypoints_confidence", "valid", "detected",
)  # fmt: skip
# Names of the time of an image, in any unit.
TIMES = (
    "timestamp", "timestamp_ms", "timestamp_s", "timestamp_sec", "timestampms", "time", "time_ms",
    "time_s", "time_sec", "seconds", "milliseconds",
)  # fmt: skip
_TIMES = "times"
# Names of what has places, but is no keypoint.
BOXES = ("bbox", "box", "bb", "roi", "crop", "center", "centroid")
_RATES = ("fps", "frame_rate", "framerate", "frame_per_second", "video_fps")
_SIZES = ("size", "image_size", "img_size", "frame_size", "video_size", "resolution")
_SIDES = tuple(
    (f"{what}{width}", f"{what}{height}")
    for width, height in (("width", "height"), ("w", "h"))
    for what in ("", "image_", "img_", "frame_", "video_", "canvas_")
)
# Height first, maybe with the number of channels.
_TURNED = ("img_shape", "image_shape", "original_shape", "orig_shape", "ori_shape", "frame_shape")
_NAMES = (
    "names", "keypoint_names", "keypoints_names", "joint_names", "bodyparts", "keypoint_labels",
    "keypoint_id2name", "joint_order", "skeleton",
)  # fmt: skip
_LAYOUT = ("layout", "layout_name", "dataset_name", "keypoint_format")
# What programs call the layouts.
_CALLED = {
    "coco": "coco17", "coco_17": "coco17", "body_25": "body25", "halpe": "halpe26",
    "h36m": "h36m17", "coco_wholebody": "wholebody133", "wholebody": "wholebody133",
    "blazepose": "blazepose33", "mediapipe": "blazepose33",
}  # fmt: skip


@lru_cache(maxsize=10_000)
def plain_key(key: str) -> str:
    """'frameid' of 'frame_id', 'frameId', 'Frame ID' or 'frame-id'."""
    return re.sub("[^a-z0-9]", "", key.lower())


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts 'a2' before 'a10'."""
    parts = re.split("([0-9]+)", name)
    return tuple((1, int(p[:4000]), "") if p.isdecimal() else (0, 0, p) for p in parts if p)


@dataclass(frozen=True, eq=False)
class Points:
    """The keypoints of P people: numbers (P, J, C), and what the columns are.

    columns: 'xy', 'xyc', 'xyz' or 'xyzc', where c is a confidence. names: of the J keypoints, or
    none.
    """

    numbers: np.ndarray
    columns: str = "xyc"
    names: tuple[str, ...] = ()


@dataclass
class Facts:
    """What a file says of the video; every field may be missing."""

    fps: float = 0.0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    layout: str = ""
    names: tuple[str, ...] = ()
    times: tuple[float, ...] = ()  # seconds of each frame, as our own files have them

    def take(self, table: Mapping[str, object]) -> None:
        """Keep what a table says of these things, under any of their usual names.

        Raises ValueError: a rate or size that is none.
        """
        for key in _RATES:
            if table.get(key) is not None:
                self.fps = float(np.asarray(table[key], dtype=float).reshape(()))
        if table.get(_TIMES) is not None:
            with suppress(TypeError, ValueError):  # another thing of that name
                self.times = tuple(np.asarray(table[_TIMES], dtype=float).reshape(-1).tolist())
        for keys, order in ((_SIZES, 1), (_TURNED, -1)):
            for key in keys:
                if table.get(key) is None:
                    continue
                try:
                    pair = np.asarray(_pair(table[key]), dtype=float)
                    pair = (pair[:2] if order == -1 and pair.shape == (3,) else pair).reshape(2)
                except (TypeError, ValueError):
                    if key == _SIZES[0]:
                        raise
                    continue  # another thing of that name
                self._size(*pair[::order])
        for width, height in _SIDES:
            if _is_number(table.get(width)) and _is_number(table.get(height)):
                self._size(table[width], table[height])
        for key in _LAYOUT:
            name = _text(table.get(key))
            name = _CALLED.get(name.lower(), name)
            if name and (key == "layout" or name in LAYOUTS):
                self.layout = name
        for key in _NAMES:
            names = list_of_names(table.get(key))
            if names:
                self.names = names

    def _size(self, width: object, height: object) -> None:
        size = (int(np.asarray(width).reshape(())), int(np.asarray(height).reshape(())))
        self.sizes.add(size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _pair(value: object) -> object:
    """(1280, 720) of '1280x720' or of a table; anything else as it is."""
    if isinstance(value, Mapping):
        return next(([value[w], value[h]] for w, h in _SIDES if w in value and h in value), value)
    return re.split("[xX*,]", value) if isinstance(value, str) else value


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, np.ndarray) and value.dtype.kind in "US" and value.size:
        return str(value.astype(str).reshape(-1)[0])
    return value if isinstance(value, str) else ""


def list_of_names(value: object) -> tuple[str, ...]:
    """Names of keypoints, in a list or by number; none where it is something else."""
    if isinstance(value, Mapping) and all(str(key).isdecimal() for key in value):
        value = [value[key] for key in sorted(value, key=lambda key: int(key))]
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = value.tolist()
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    return ()


class Sightings:
    """The people of a file's images. Errors name `path`, the user's own word for the file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.facts = Facts()
        # Every image, also those where nobody was found, in the file's order.
        self.images: dict[Image, None] = {}
        self.times: dict[Image, float] = {}  # of images, where the file tells them
        self.image: list[Image] = []  # of each sighting
        self.person: list[int] = []  # of each sighting; 0: the file does not follow people
        self.numbers: list[np.ndarray] = []  # of each sighting, (J, C)
        self.columns = ""
        self._names: list[tuple[str, ...]] = []  # of each sighting
        # The layout of the program's files where the number of keypoints leaves it open.
        self.usual: Layout | None = None
        # Whether -1 to 1 is the range of x and of y alike. Else x / width * 2 - 1, and y with the
        # same unit, as VideoPose3D has it.
        self.range_of_each_axis = False
        self.visibility = False  # COCO's 0, 1, 2: not labelled, hidden, visible
        self.without_pose = 0
        self.keys_without_pose: list[object] = []  # what the first of them has instead
        self.y_first = False  # y, x, confidence
        self.by_place = False  # images that have no name, but a place in the file
        self.of_array = self.in_shares = False  # for what only some programs write
        self.array_of_many = False  # keypoints of many people in one array
        self.loose = False  # people who are frames for want of the names of their images
        self.assumed: list[str] = []  # said to the user, a sentence each

    def wrong(self, what: str, file: object = None) -> UserError:
        return UserError(f"--keypoints {self.path if file is None else file}: {what}")

    def add(self, image: Image, points: Points, person: int = 0) -> None:
        """People of one image. Raises UserError: their keypoints differ from those before."""
        self.images[image] = None
        self.array_of_many |= len(points.numbers) > 1
        for numbers in points.numbers:
            if points.names and len(points.names) != len(numbers):
                raise self.wrong(
                    f"{len(numbers)} keypoints in {image!r}, but {len(points.names)} names for them"
                )
            if self.numbers and len(numbers) != len(self.numbers[0]) and not points.names:
                raise self.wrong(
                    f"{len(numbers)} keypoints a person in {image!r}, {len(self.numbers[0])}"
                    " before; give files of one kind"
                )
            if self.numbers and (
                self.columns != points.columns or bool(self._names[0]) != bool(points.names)
            ):
                raise self.wrong(f"the keypoints in {image!r} are of another kind than before")
            self.columns = points.columns
            self._names.append(points.names)
            self.numbers.append(numbers)
            self.image.append(image)
            self.person.append(person)

    @property
    def array(self) -> np.ndarray:
        """(N, J, C) float64; of named keypoints that a person lacks NaN."""
        names = self.names
        if all(own == names for own in self._names):
            array = np.stack(self.numbers) if self.numbers else np.zeros((0, 0, 3))
            return array[..., [1, 0, *range(2, array.shape[-1])]] if self.y_first else array
        array = np.full((len(self.numbers), len(names), len(self.columns)), np.nan)
        for row, own, numbers in zip(array, self._names, self.numbers, strict=True):
            row[[names.index(name) for name in own]] = numbers
        return array

    @property
    def names(self) -> tuple[str, ...]:
        """Of all keypoints, in the order in which they are found first; or none."""
        return tuple(dict.fromkeys(name for own in dict.fromkeys(self._names) for name in own))


def listed(names: Sequence[object]) -> str:
    """'a, b, c and 3 more'"""
    shown = ", ".join(str(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
