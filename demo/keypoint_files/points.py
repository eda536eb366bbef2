"""The keypoints of people, in whatever way a program writes them down, as `Points`."""

from collections.abc import Mapping, Sequence

import numpy as np

from demo.keypoint_files.found import CONFIDENCE, COUNTS, Points

# Names under which a person's keypoints stand.
POSES = (
    "pose_keypoints_2d", "pose_keypoints", "keypoints", "keypoints_2d", "keypoint", "kpts", "kps",
    "joints", "joints_2d", "joints2d", "pose_landmarks", "poseLandmarks", "landmarks", "landmark",
    "normalized_landmarks", "pose", "pose_2d", "pred_keypoints",
)  # fmt: skip
IN_SPACE = (
    "pose_keypoints_3d", "pose_world_landmarks", "poseWorldLandmarks", "world_landmarks",
    "worldLandmarks", "keypoints_3d", "keypoints3D", "joints_3d", "pose_3d",
)  # fmt: skip
NOBODY = Points(np.zeros((0, 0, 3)))
_NAME = ("name", "part", "label", "bodypart")
NUMBERS = ("id", "index", "idx", "landmark_id", "landmark_index", "keypoint_id", "joint_id")
_PLACE = ("position", "coordinates", "point")


class NotPoints(Exception):
    """Numbers that are there, but cannot be keypoints; the message says why."""


def points_of(value: object, scores: object = None) -> Points | None:
    """The people in a value: one or several; NOBODY where it is empty, None where it is no points.

    Known are flat numbers, pairs, triples or quadruples (x, y, depth, confidence), landmarks
    {x, y, …} in a list or by name, and {x: [...], y: [...]}. scores: the confidences, if they stand
    apart. Raises NotPoints.
    """
    if isinstance(value, Mapping) and set(value) == {"landmark"}:  # of MediaPipe's messages
        value = value["landmark"]
    if value is None or (isinstance(value, Sequence | Mapping) and not len(value)):
        return NOBODY
    if isinstance(value, Mapping):
        points = _of_mapping(value)
    elif isinstance(value, list | tuple) and isinstance(value[0], Mapping):
        points = _of_landmarks(value)
    elif isinstance(value, list | tuple) and _are_people(value):
        people = [_of_landmarks(person) for person in value]
        known = [p for p in people if p is not None]
        points = None
        if len(known) == len(people) and len({p.numbers.shape for p in known}) == 1:
            points = Points(np.concatenate([p.numbers for p in known]), known[0].columns)
    else:
        points = _of_numbers(value)
    return points if points is None else _with_scores(points, scores)


def confidence_in(table: Mapping[str, object]) -> object:
    """The value under the name of a confidence, if there is one; a list before a number."""
    found = [table[key] for key in CONFIDENCE if table.get(key) is not None]
    of_each = (one for one in found if isinstance(one, list | tuple | np.ndarray))
    return next(of_each, found[0] if found else None)


def _are_people(value: Sequence[object]) -> bool:
    return all(isinstance(p, list | tuple) and p and isinstance(p[0], Mapping) for p in value)


def _of_mapping(value: Mapping[str, object]) -> Points | None:
    for name in ("data", "xy", "xyn"):  # of ultralytics and supervision
        if isinstance(value.get(name), Sequence | np.ndarray):
            return points_of(value[name], None if name == "data" else confidence_in(value))
    x, y = value.get("x"), value.get("y")
    if isinstance(x, Sequence | np.ndarray) and isinstance(y, Sequence | np.ndarray):
        columns: list[object] = [x, y]
        confidence = confidence_in(value)
        if confidence is not None:
            columns.append(confidence)
        try:
            return Points(np.array(columns, dtype=float).T[None], "xyc"[: len(columns)])
        except (ValueError, TypeError) as error:
            raise NotPoints("x, y and confidence are not lists of numbers of one length") from error
    if not all(_is_landmark(one) or one is None for one in value.values()):
        return None
    if all(str(key).isdecimal() for key in value):  # by number
        return _of_landmarks([value[key] for key in sorted(value, key=lambda key: int(key))])
    points = _of_landmarks(list(value.values()))
    return points and Points(points.numbers, points.columns, tuple(map(str, value)))


def _is_landmark(one: object) -> bool:
    if isinstance(one, Mapping):
        return ("x" in one and "y" in one) or any(key in one for key in _PLACE)
    return isinstance(one, list | tuple) and 2 <= len(one) <= 4 and not _is_nested(one)


def _is_nested(one: Sequence[object]) -> bool:
    return any(isinstance(part, Sequence | Mapping) for part in one)


def _of_landmarks(landmarks: Sequence[object]) -> Points | None:
    """One person: a list of {x, y, z?, confidence?, name?}, or of numbers by name."""
    if not all(_is_landmark(one) or one is None for one in landmarks):
        return None
    if not all(isinstance(one, Mapping) or one is None for one in landmarks):
        return _of_numbers([[np.nan] * 3 if one is None else one for one in landmarks])
    landmarks = _by_number(landmarks)
    found = [_flat(one) for one in landmarks if isinstance(one, Mapping)]
    has_depth = any("z" in one for one in found)
    has_confidence = any(confidence_in(one) is not None for one in found)
    columns = "xy" + "z" * has_depth + "c" * has_confidence
    numbers = np.full((1, len(landmarks), len(columns)), np.nan)
    try:
        for place, one in enumerate(landmarks):
            if isinstance(one, Mapping):
                flat = _flat(one)
                values = [flat.get("x"), flat.get("y"), flat.get("z"), confidence_in(flat)]
                kept = [v for v, column in zip(values, "xyzc", strict=True) if column in columns]
                numbers[0, place] = np.array(kept, dtype=float)
    except (ValueError, TypeError) as error:
        raise NotPoints("a landmark's x, y or confidence is no number") from error
    names = [next((one[key] for key in _NAME if one.get(key)), None) for one in found]
    told = tuple(map(str, names)) if all(names) and len(names) == len(landmarks) else ()
    return Points(numbers, columns, told)


def _by_number(landmarks: Sequence[object]) -> Sequence[object]:
    """In the order of their numbers, if they have some without a gap."""
    for key in NUMBERS:
        numbers = [one.get(key) if isinstance(one, Mapping) else None for one in landmarks]
        known = [number for number in numbers if isinstance(number, int)]
        if len(known) < len(numbers) or len(set(known)) <= max(known) - min(known):
            continue
        return [landmarks[place] for place in np.argsort(known)]
    return landmarks


def _flat(one: Mapping[str, object]) -> Mapping[str, object]:
    """The same, where the place stands in a table or list of its own."""
    place = next((one[key] for key in _PLACE if key in one), None)
    if isinstance(place, Mapping):
        return {**one, **place}
    if isinstance(place, list | tuple):
        return {**one, **dict(zip("xyz", place, strict=False))}
    return one


def _of_numbers(value: object) -> Points | None:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiuUSO":
        raise NotPoints(f"{value.dtype} are not numbers of places")
    try:
        numbers = np.asarray(_without_holes(value), dtype=float)
    except (ValueError, TypeError):
        return None
    except OverflowError as error:
        raise NotPoints("numbers too large for x, y, confidence triples") from error
    if not numbers.ndim:
        return None
    if not numbers.size:
        return NOBODY
    if numbers.ndim == 4 and 1 in numbers.shape[:2]:
        numbers = numbers.reshape(-1, *numbers.shape[2:])
    if numbers.ndim == 3 and numbers.shape[1] == 1 and numbers.shape[0] in COUNTS:  # (J, 1, C)
        numbers = numbers[:, 0]
    if numbers.ndim == 1:
        numbers = _in_columns(numbers[None])
    elif numbers.ndim == 2:
        is_person = numbers.shape[1] in (2, 3, 4)
        numbers = numbers[None] if is_person else _in_columns(numbers)
    if numbers.ndim != 3 or numbers.shape[2] not in (2, 3, 4):
        return None
    numbers = without_index(numbers)
    return Points(numbers, ("xy", "xyc", "xyzc")[numbers.shape[2] - 2])


def _without_holes(value: object) -> object:
    """Keypoints in a list, where null or [] stands for one, with NaN there."""
    if not isinstance(value, list) or all(one is not None and one != [] for one in value):
        return value
    known = [one for one in value if isinstance(one, list | tuple) and one]
    if not known or _is_nested(known[0]) or len(known[0]) > 4:
        return value
    return [one or [np.nan] * len(known[0]) for one in value]


def without_index(numbers: np.ndarray) -> np.ndarray:
    """(..., J, C) without a first column that is the keypoints' number, 0 to J - 1."""
    joints, columns = numbers.shape[-2:]
    if columns < 3 or joints < 3 or not (numbers[..., 0] == np.arange(joints)).all():
        return numbers
    return numbers[..., 1:]


def columns_of_flat(length: int) -> int:
    """How many numbers a keypoint has, of which `length` lie in a row; 0: none fits.

    Known numbers of keypoints go first.
    """
    widths = [width for width in (3, 2, 4) if length % width == 0]
    return next((w for w in widths if length // w in COUNTS), 3 if 3 in widths else 0)


def _in_columns(flat: np.ndarray) -> np.ndarray:
    """(P, J * C) -> (P, J, C)"""
    width = columns_of_flat(flat.shape[1])
    if not width:
        raise NotPoints(
            f"{flat.shape[1]} numbers are not a full table of x, y, confidence triples, nor of the"
            " pairs of a known layout"
        )
    return flat.reshape(len(flat), -1, width)


def _with_scores(points: Points, scores: object) -> Points:
    """The same with confidences that stand apart, (P, J) in any arrangement."""
    try:
        apart = np.asarray(scores, dtype=float)
    except (ValueError, TypeError):
        return points
    people, joints, _ = points.numbers.shape
    if scores is None or joints < 2 or apart.size != people * joints:
        return points  # of a person, or of nothing
    numbers, columns = points.numbers, points.columns
    if columns == "xyc" and not is_confidence(numbers[..., 2], apart):
        columns = "xyz"
    if columns.endswith("c"):
        numbers, columns = numbers[..., :-1], columns[:-1]
    numbers = np.concatenate([numbers, apart.reshape(people, joints, 1)], axis=-1)
    return Points(numbers, f"{columns}c", points.names)


def is_confidence(third: np.ndarray, apart: np.ndarray) -> bool:
    """Whether the third number of keypoints whose confidences stand apart is one too, not a depth:
    it is the same, or always 1."""
    return bool((third == 1).all()) or np.allclose(third.ravel(), apart.ravel(), atol=1e-3)
