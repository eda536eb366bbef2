"""Files of arrays: frames, people, joints and numbers are axes, in whatever order.

F frames, P people, J joints, C numbers (x, y, maybe depth and confidence). Ours are (P, F, J, C).
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from demo.keypoint_files.found import CONFIDENCE, COUNTS, Points, Sightings, listed
from demo.keypoint_files.points import columns_of_flat, is_confidence, without_index
from lib.keypoints import H36M_17, LAYOUTS, Layout

# Names of arrays, the best first. The released demo saves Human3.6M's joints as 'reconstruction'.
KEYPOINTS = (
    "keypoints", "keypoint", "keypoints_2d", "kpts", "kps", "kpts_2d", "pose_2d", "poses_2d",
    "joints_2d", "pose2d", "positions_2d", "landmarks", "joints", "poses", "data",
)  # fmt: skip
FRAME_NUMBERS = (
    "frame_ids", "frame_id", "frame_indices", "frame_idx", "frame_index", "frame_numbers",
    "frame_inds", "frames",
)  # fmt: skip
# People move less from frame to frame than they differ from each other; where one is this much
# larger than the other, it tells which axis is time.
CLEARLY = 1.5


def read_arrays(
    sightings: Sightings,
    table: Mapping[str, object],
    wanted: Layout | None,
    frames: Sequence[int] | None = None,
) -> bool:
    """Add the people of an array with a name, if there is one that can be keypoints; else False.

    frames: the numbers of the array's frames, by default from 0. Raises UserError: several arrays
    can be keypoints, or none can although the file holds arrays.
    """
    arrays = {key: a for key, a in table.items() if isinstance(a, np.ndarray) and _is_numbers(a)}
    counts = {wanted.in_files, wanted.num_keypoints} if wanted else COUNTS
    fitting = {
        name: arranged for name, array in arrays.items() if (arranged := _arrange(array, counts))
    }
    name = _best_name(fitting, wanted)
    if name is None:
        if not arrays:
            return False
        shapes = listed([f"{name} {array.shape}" for name, array in arrays.items()])
        raise sightings.wrong(
            f"{'several arrays' if fitting else 'no array'} of shape (frames, keypoints, 2 or 3) or"
            f" (people, frames, keypoints, 2 or 3); it holds {shapes}; name the array"
            " 'keypoints', or give --layout"
        )
    try:
        sightings.facts.take(table)
    except (TypeError, ValueError, OverflowError) as error:
        raise sightings.wrong("'fps' or 'size' is not a number or a pair") from error
    if name == "reconstruction":
        sightings.usual = H36M_17
    elif name in LAYOUTS:
        sightings.facts.layout = sightings.facts.layout or name
    keypoints, note = fitting[name]
    keypoints = without_index(keypoints)
    if note:
        sightings.assumed.append(f"{name}, of shape {arrays[name].shape}: {note}")
    columns = ("xy", "xyc", "xyzc")[keypoints.shape[-1] - 2]
    scores = _scores(table, keypoints.shape[:-1])
    if scores is None and columns == "xy":
        scores = _unnamed_scores(sightings, table, keypoints.shape[:-1])
    if scores is not None:
        keypoints, columns = _joined(keypoints, scores)
    sightings.of_array = True
    _add(sightings, keypoints, columns, frames or numbers_of_frames(table))
    return True


def numbers_of_frames(table: Mapping[str, object]) -> Sequence[int] | None:
    """Of an array beside the keypoints, if there is one that can be."""
    for name in FRAME_NUMBERS:
        numbers = np.asarray(table.get(name, ()))
        is_list = numbers.ndim == 1 and numbers.size and numbers.dtype.kind in "iu"
        if is_list and (np.diff(numbers) > 0).all():
            return [int(number) for number in numbers]
    return None


def _is_numbers(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiu" and array.ndim > 0


def _best_name(fitting: Mapping[str, object], wanted: Layout | None) -> str | None:
    if wanted:
        names: Sequence[str] = ("keypoints", wanted.name, f"kp{wanted.num_keypoints}", *KEYPOINTS)
    else:
        names = (*KEYPOINTS[:1], "reconstruction", *LAYOUTS, *KEYPOINTS[1:])
    for name in names:
        if name in fitting:
            return name
    others = [name for name in fitting if name not in CONFIDENCE]
    return others[0] if len(others) == 1 else None


def _arrange(array: np.ndarray, counts: set[int]) -> tuple[np.ndarray, str] | None:
    """(F, J, C) or (A, B, J, C) of an array, and what had to be assumed; None: no keypoints."""
    if array.ndim == 5 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    shape = array.shape
    if array.ndim in (3, 4) and shape[-1] in (2, 3, 4) and shape[-2] in counts:
        return array, ""
    if array.ndim == 2 and shape[0] in counts and shape[1] in (2, 3, 4):
        return array[None], "one frame"
    if array.ndim == 2:
        width = columns_of_flat(shape[1])
        if width and shape[1] // width in counts:
            rows = array.reshape(len(array), shape[1] // width, width)
            return rows, f"a row a frame, {width} numbers a keypoint"
    if array.ndim not in (3, 4):
        return None
    fits = [
        (joints, numbers)
        for joints, numbers in permutations(range(array.ndim), 2)
        if shape[joints] in counts and shape[numbers] in (2, 3)
    ]
    if len(fits) != 1:
        return None
    turned = np.moveaxis(array, fits[0], (-2, -1))
    return turned, f"axis {fits[0][0]} is taken as the keypoints, axis {fits[0][1]} as x and y"


def _scores(table: Mapping[str, object], shape: tuple[int, ...]) -> np.ndarray | None:
    """An array of confidences beside the keypoints."""
    for name in CONFIDENCE:
        value = table.get(name)
        if value is None:
            continue
        try:
            scores = np.asarray(value, dtype=float)
        except (ValueError, TypeError):
            continue
        if scores.shape[: len(shape)] == shape and scores.size == np.prod(shape):
            return scores.reshape(shape)
    return None


def _unnamed_scores(
    sightings: Sightings, table: Mapping[str, object], shape: tuple[int, ...]
) -> np.ndarray | None:
    """The one array of another name with a number from 0 to 1 for each keypoint."""
    found = {
        name: value.reshape(shape).astype(float)
        for name, value in table.items()
        if isinstance(value, np.ndarray)
        and value.dtype.kind in "fb"
        and value.shape in (shape, (*shape, 1))
        and ((value >= 0) & (value <= 1)).all()
    }
    if len(found) != 1:
        return None
    ((name, scores),) = found.items()
    sightings.assumed.append(f"{name!r} is taken as the confidences")
    return scores


def _joined(keypoints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, str]:
    """Keypoints with the confidences from another array; columns of its own are a depth, and a
    confidence that is replaced."""
    places = keypoints[..., :3].astype(float)
    if places.shape[-1] == 3 and is_confidence(places[..., 2], scores):
        places = places[..., :2]
    joined = np.concatenate([places, scores[..., None]], axis=-1)
    return joined, "xyzc" if joined.shape[-1] == 4 else "xyc"


def _add(
    sightings: Sightings, keypoints: np.ndarray, columns: str, frames: Sequence[int] | None
) -> None:
    """keypoints: (F, J, C), or (A, B, J, C) with frames and people in either order."""
    if not keypoints.size:
        raise sightings.wrong("the array of keypoints is empty")
    if keypoints.ndim == 3:
        numbers = frames if frames and len(frames) == len(keypoints) else range(len(keypoints))
        for frame, person in zip(numbers, keypoints, strict=True):
            sightings.add(frame, Points(person[None].astype(float), columns), 1)
        return
    frames_first = _is_frames_first(sightings, keypoints)
    people = keypoints if not frames_first else keypoints.swapaxes(0, 1)
    num_people, num_frames = people.shape[:2]
    numbers = frames if frames and len(frames) == num_frames else range(num_frames)
    sightings.array_of_many = num_people > 1
    for place, frame in enumerate(numbers):
        for person in range(num_people):
            points = Points(people[person, place, None].astype(float), columns)
            # In a file by frames, the order of the people is that of one frame's detections.
            sightings.add(frame, points, 0 if frames_first else person + 1)


def _is_frames_first(sightings: Sightings, keypoints: np.ndarray) -> bool:
    first, second = keypoints.shape[:2]
    over_first, over_second = _change(keypoints, 0), _change(keypoints, 1)
    if 1 in (first, second):
        frames_first = second == 1
        if frames_first and first > 1:
            sightings.assumed.append(f"{first} frames of one person, not {first} people")
        return frames_first
    if over_first * CLEARLY < over_second or over_second * CLEARLY < over_first:
        frames_first = over_first < over_second
        why = "they move less along it"
    else:
        frames_first = first > second
        why = "it is the longer one"
    people, frames = (second, first) if frames_first else (first, second)
    if frames_first or people > frames:
        sightings.assumed.append(
            f"axis {0 if frames_first else 1} is taken as time ({why}): {people} people in"
            f" {frames} frames"
        )
    return frames_first


def _change(keypoints: np.ndarray, axis: int) -> float:
    """How far keypoints lie apart, on the whole, from one entry of an axis to the next."""
    numbers = keypoints[..., :2].astype(float)
    numbers = np.where((numbers == 0).all(-1, keepdims=True), np.nan, numbers)
    steps = np.linalg.norm(np.diff(numbers, axis=axis), axis=-1)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if steps.size else np.inf
