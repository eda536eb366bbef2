"""Files of arrays (F, J, 2 to 4) or (P, F, J, 2 to 4): ours, NumPy's, tables in JSON."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from demo.people import People, without_nonsense
from lib.errors import UserError
from lib.keypoints import H36M_17, LAYOUTS, Layout, find_layout

# Names of arrays, the best first, and the layout a name tells. The released demo saves
# Human3.6M's joints as 'reconstruction'.
NAMED: dict[str, Layout | None] = {"keypoints": None, "reconstruction": H36M_17, **LAYOUTS}


def read_arrays(
    path: str, contents: list[tuple[Path, object]], wanted: Layout | None
) -> People | None:
    """One file: a table of named arrays, or an array alone."""
    if len(contents) != 1:
        return None
    _, content = contents[0]
    table = dict(content) if isinstance(content, Mapping) else {"keypoints": content}
    if not any(isinstance(value, np.ndarray) for value in table.values()):  # JSON
        if "keypoints" not in table:
            return None
        table["keypoints"] = _table(path, table["keypoints"])
    name, keypoints = _pick_array(path, table, wanted)
    layout = wanted or _layout_of(path, name, keypoints, table.get("layout"))
    if keypoints.shape[-2] != layout.num_keypoints:
        raise UserError(
            f"--keypoints {path}: {keypoints.shape[-2]} keypoints, but {layout.name} has"
            f" {layout.num_keypoints}; correct --layout"
        )
    people = keypoints[None] if keypoints.ndim == 3 else keypoints  # (P, F, J, C)
    with np.errstate(over="ignore"):  # numbers too large for 32 bits are no pixels either
        people = without_nonsense(people.astype(np.float32))
    x_y = people[..., :2]
    # Four numbers are x, y, a depth and the confidence, as MediaPipe has them. With two numbers, a
    # keypoint exactly at 0, 0 was not found.
    confidence = people[..., -1:] if people.shape[-1] > 2 else x_y.any(-1, keepdims=True)
    points = np.concatenate([x_y, confidence], axis=-1)
    fps, size = table.get("fps"), table.get("size")
    try:
        return People.of_array(points, layout).filmed(
            0.0 if fps is None else float(np.asarray(fps)),
            None if size is None else (int(np.asarray(size)[0]), int(np.asarray(size)[1])),
        )
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"--keypoints {path}: 'fps' or 'size' is not a number or a pair") from error


def _table(path: str, numbers: object) -> np.ndarray:
    try:
        return np.asarray(numbers, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"--keypoints {path}: 'keypoints' is not a full table of numbers"
        ) from error


def _pick_array(
    path: str, table: Mapping[str, object], wanted: Layout | None
) -> tuple[str, np.ndarray]:
    """The array of keypoints in a file, (F, J, 2 to 4) or (P, F, J, 2 to 4), with its name."""
    counts = {wanted.num_keypoints} if wanted else {x.num_keypoints for x in LAYOUTS.values()}
    fitting = {
        name: array
        for name, array in table.items()
        if isinstance(array, np.ndarray)
        and array.dtype.kind in "fiu"
        and array.ndim in (3, 4)
        and array.shape[-1] in (2, 3, 4)
        and array.shape[-2] in counts
    }
    names = ("keypoints", wanted.name, f"kp{wanted.num_keypoints}") if wanted else NAMED
    for name in names:
        if name in fitting:
            return name, fitting[name]
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    shapes = ", ".join(
        f"{name} {array.shape}" for name, array in table.items() if isinstance(array, np.ndarray)
    )
    raise UserError(
        f"--keypoints {path}: {'several arrays' if fitting else 'no array'} of shape (frames,"
        f" keypoints, 2 or 3) or (people, frames, keypoints, 2 or 3); it holds"
        f" {shapes or 'nothing'}; name the array 'keypoints', or give --layout"
    )


def _layout_of(path: str, name: str, keypoints: np.ndarray, told: object) -> Layout:
    if told is not None:
        return find_layout(str(told))
    named = NAMED.get(name)
    if named is not None:
        return named
    fitting = [x for x in LAYOUTS.values() if x.num_keypoints == keypoints.shape[-2]]
    if len(fitting) > 1:
        names = " or ".join(layout.name for layout in fitting)
        raise UserError(f"--keypoints {path}: 17 keypoints; say which with --layout {names}")
    return fitting[0]
