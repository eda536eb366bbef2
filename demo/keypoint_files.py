"""Keypoints from files, in place of a detector, and back into files.

Ours (.npz and .json: keypoints (P, F, J, 3), layout, fps, size), plain arrays (.npy, .npz, .json),
AlphaPose's JSON and OpenPose's JSON, one file or a folder. No file can run code.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.tracking import Track, track_people, without_nonsense
from lib.errors import UserError
from lib.files import UNREADABLE, write_atomic
from lib.keypoints import BODY_25, COCO_17, H36M_17, LAYOUTS, Layout, find_layout

JSON_PATTERN = "*.json"
# Names of arrays, the best first, and the layout a name tells. The released demo saves
# Human3.6M's joints as 'reconstruction'.
NAMED: dict[str, Layout | None] = {
    "keypoints": None,
    "reconstruction": H36M_17,
    **LAYOUTS,
}
# Image numbers below this count frames from the start of a video; larger ones, as of camera
# images, count from the first.
LARGEST_START = 10_000
MAX_FRAMES = 10_000_000
# Assumed for the tracker's sense of time where the file does not say.
USUAL_FPS = 25.0


@dataclass(frozen=True)
class KeypointFile:
    """Tracks of people, and what the file says about their video (0 and None: nothing)."""

    tracks: list[Track]
    frames: int
    layout: Layout
    fps: float
    size: tuple[int, int] | None


def read_keypoints(path: str, layout: str | None = None, fps: float = 0.0) -> KeypointFile:
    """Read a keypoint file, or a folder of OpenPose's or AlphaPose's. Raises UserError.

    layout: its name, where the file does not tell; fps: of its video, if known.
    """
    place = Path(path).expanduser()
    wanted = None if layout is None else find_layout(layout)
    if place.is_dir():
        files = files_of(path)
        if not files:
            raise UserError(f"--keypoints {path}: no .json file in this folder")
        contents = [(file, _read_json(file)) for file in files]
        if all(isinstance(content, list) for _, content in contents):  # AlphaPose's
            people = [(file, person) for file, found in contents for person in found]
            return _from_detections(path, _alphapose_people(people), COCO_17, fps, wanted)
        frames = [_openpose_people(file, content) for file, content in contents]
        return _from_detections(path, dict(enumerate(frames)), BODY_25, fps, wanted)
    if not place.is_file():
        raise UserError(f"--keypoints {path}: no such file")
    suffix = place.suffix.lower()
    if suffix in (".npz", ".npy"):
        return _from_arrays(path, _read_arrays(place), wanted)
    if suffix != ".json":
        raise UserError(f"--keypoints {path}: give .npz, .npy, .json or a folder of .json files")
    content = _read_json(place)
    if isinstance(content, Mapping) and "people" in content:
        return _from_detections(path, {0: _openpose_people(place, content)}, BODY_25, fps, wanted)
    if isinstance(content, list) and content and isinstance(content[0], Mapping):
        if "people" in content[0]:  # OpenPose's frames in one list
            frames = [_openpose_people(place, frame) for frame in content]
            return _from_detections(path, dict(enumerate(frames)), BODY_25, fps, wanted)
        people = [(place, person) for person in content]
        return _from_detections(path, _alphapose_people(people), COCO_17, fps, wanted)
    if isinstance(content, Mapping) and "keypoints" not in content:
        raise UserError(
            f"--keypoints {path}: neither a list of people (AlphaPose), nor 'people' (OpenPose),"
            " nor 'keypoints'"
        )
    arrays = content if isinstance(content, Mapping) else {"keypoints": content}
    try:
        keypoints = np.asarray(arrays["keypoints"], dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"--keypoints {path}: 'keypoints' is not a full table of numbers"
        ) from error
    return _from_arrays(path, {**arrays, "keypoints": keypoints}, wanted)


def files_of(path: str) -> list[Path]:
    """The files that `read_keypoints` reads, in the order of their numbers."""
    place = Path(path).expanduser()
    if not place.is_dir():
        return [place]
    return sorted(place.glob(JSON_PATTERN), key=lambda file: _number(file.stem))


def save_keypoints(
    path: str, keypoints: np.ndarray, layout: Layout, fps: float, size: tuple[int, int]
) -> None:
    """Write (P, F, J, 3) as .npz or .json, to be read again by --keypoints. Raises UserError."""
    place = Path(path).expanduser()
    if place.suffix.lower() == ".npz":
        with write_atomic(place) as file:
            np.savez_compressed(
                file, keypoints=keypoints, layout=layout.name, fps=fps, size=np.array(size)
            )
    elif place.suffix.lower() == ".json":
        with write_atomic(place, "w") as file:
            json.dump(
                {
                    "layout": layout.name,
                    "fps": fps,
                    "size": list(size),
                    "names": list(layout.names),
                    "keypoints": np.round(keypoints.astype(float), 4).tolist(),
                },
                file,
            )
    else:
        raise UserError(f"--save-keypoints {path}: the name must end in .npz or .json")


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"keypoints": loaded}
    except UNREADABLE as error:
        raise UserError(
            f"--keypoints {path}: damaged, or it holds Python objects, which are never loaded;"
            " save plain number arrays"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"--keypoints {path}: not a readable JSON file ({error})") from error


def _number(name: str) -> tuple[int, str]:
    """Sorts 'clip_000000000002_keypoints' by its last number."""
    digits = re.findall("[0-9]+", name)
    # 19 digits are no frame number any more, and Python refuses to read thousands.
    return (int(digits[-1][:19]) if digits else 0), name


# --- Arrays ---------------------------------------------------------------------------------


def _from_arrays(path: str, arrays: dict[str, Any], wanted: Layout | None) -> KeypointFile:
    name, keypoints = _pick_array(path, arrays, wanted)
    layout = wanted or _layout_of(path, name, keypoints, arrays.get("layout"))
    if keypoints.shape[-2] != layout.num_keypoints:
        raise UserError(
            f"--keypoints {path}: {keypoints.shape[-2]} keypoints, but {layout.name} has"
            f" {layout.num_keypoints}; correct --layout"
        )
    people = keypoints[None] if keypoints.ndim == 3 else keypoints  # (P, F, J, C)
    with np.errstate(over="ignore"):  # too large for 32 bits: no pixels either
        people = without_nonsense(people.astype(np.float32))
    x_y = people[..., :2]
    # Four numbers: x, y, a depth and the confidence, as MediaPipe has them.
    # Two: what lies exactly at 0, 0 was not found.
    confidence = people[..., -1:] if people.shape[-1] > 2 else x_y.any(-1, keepdims=True)
    points = np.concatenate([x_y, confidence], axis=-1)
    tracks = []
    for person in points:
        frames = np.flatnonzero((person[..., 2] > 0).any(axis=-1))
        if len(frames):
            tracks.append(Track(frames.tolist(), list(person[frames])))
    size = arrays.get("size")
    fps = arrays.get("fps")
    try:
        return KeypointFile(
            tracks,
            people.shape[1],
            layout,
            0.0 if fps is None else float(fps),
            None if size is None else (int(size[0]), int(size[1])),
        )
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"--keypoints {path}: 'fps' or 'size' is not a number or a pair") from error


def _pick_array(path: str, arrays: dict[str, Any], wanted: Layout | None) -> tuple[str, np.ndarray]:
    """The array of keypoints in a file, (F, J, 2 to 4) or (P, F, J, 2 to 4), with its name."""
    counts = {wanted.num_keypoints} if wanted else {x.num_keypoints for x in LAYOUTS.values()}
    fitting = {
        name: array
        for name, array in arrays.items()
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
    shapes = ", ".join(f"{name} {np.shape(array)}" for name, array in arrays.items())
    raise UserError(
        f"--keypoints {path}: {'several arrays' if fitting else 'no array'} of shape (frames,"
        f" keypoints, 2 or 3) or (people, frames, keypoints, 2 or 3); it holds"
        f" {shapes or 'nothing'}; name the array 'keypoints', or give --layout"
    )


def _layout_of(path: str, name: str, keypoints: np.ndarray, told: Any) -> Layout:
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


# --- AlphaPose and OpenPose -----------------------------------------------------------------


def _triples(path: Path, numbers: Any) -> np.ndarray:
    try:
        return without_nonsense(np.asarray(numbers, dtype=np.float32).reshape(-1, 3))
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"--keypoints {path}: a person's keypoints are not x, y, confidence triples"
        ) from error


def _openpose_people(path: Path, content: Any) -> list[np.ndarray]:
    people = content.get("people") if isinstance(content, Mapping) else None
    if not isinstance(people, list):
        raise UserError(f"--keypoints {path}: not OpenPose's output (no 'people' inside)")
    return [_triples(path, _get(path, person, "pose_keypoints_2d")) for person in people]


def _alphapose_people(content: list[tuple[Path, Any]]) -> dict[int, list[np.ndarray]]:
    """content: a file and a person in it each."""
    frames: dict[int, list[np.ndarray]] = {}
    for path, person in content:
        number, _ = _number(Path(str(_get(path, person, "image_id"))).stem)
        frames.setdefault(number, []).append(_triples(path, _get(path, person, "keypoints")))
    return frames


def _get(path: Path, table: Any, key: str) -> Any:
    if not isinstance(table, Mapping) or key not in table:
        raise UserError(f"--keypoints {path}: a person without {key!r}")
    return table[key]


def _from_detections(
    path: str,
    frames: dict[int, list[np.ndarray]],
    usual: Layout,
    fps: float,
    wanted: Layout | None,
) -> KeypointFile:
    """frames: the people (J, 3) of each frame that has any, by its number.

    usual: the layout of such files where the number of keypoints leaves it open.
    """
    counts = {len(person) for people in frames.values() for person in people}
    fitting = [x for x in LAYOUTS.values() if counts == {x.num_keypoints}]
    layout = wanted or (fitting[0] if len(fitting) == 1 else usual)
    wrong = counts - {layout.num_keypoints}
    if wrong:
        raise UserError(
            f"--keypoints {path}: {min(wrong)} keypoints a person, but {layout.name} has"
            f" {layout.num_keypoints}; give the right --layout ({', '.join(LAYOUTS)})"
        )
    first = min(frames, default=0)
    first = first if first >= LARGEST_START else 0
    last = max(frames, default=-1)
    if last - first > MAX_FRAMES:
        raise UserError(f"--keypoints {path}: image numbers up to {last} are no frame numbers")
    detections: Iterable[np.ndarray] = (
        np.stack(frames[number])
        if frames.get(number)
        else np.zeros((0, layout.num_keypoints, 3), np.float32)
        for number in range(first, last + 1)
    )
    tracks, count = track_people(detections, fps or USUAL_FPS)
    return KeypointFile(tracks, count, layout, fps, None)
