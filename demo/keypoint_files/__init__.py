"""Keypoints from files, in place of a detector, and back into files. No file can run code.

A file is recognised by its structure, not by its name. Here it is found and parsed; READERS know
the structures, one module for a kind of program.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from demo.keypoint_files.arrays import read_arrays
from demo.keypoint_files.detections import last_number, read_alphapose, read_openpose
from demo.people import People
from lib.errors import UserError
from lib.files import UNREADABLE, write_atomic
from lib.keypoints import Layout, find_layout

JSON_PATTERN = "*.json"
Contents = list[tuple[Path, object]]  # files, and what json or numpy made of them

# Each takes the path as the user wrote it, the contents and the wanted layout, if any. It returns
# None where the structure is not its own, and raises UserError where it is, but is wrong.
READERS: tuple[Callable[[str, Contents, Layout | None], People | None], ...] = (
    read_openpose,
    read_alphapose,
    read_arrays,
)


def read_keypoints(path: str, layout: str | None = None) -> People:
    """Read a keypoint file, or a folder of OpenPose's or AlphaPose's. Raises UserError.

    layout: its name, where the file does not tell.
    """
    wanted = None if layout is None else find_layout(layout)
    files = files_of(path)
    if not files:
        raise UserError(f"--keypoints {path}: no .json file in this folder")
    contents = [(file, _parse(path, file)) for file in files]
    for read in READERS:
        people = read(path, contents, wanted)
        if people is not None:
            return people
    raise UserError(
        f"--keypoints {path}: neither a list of people (AlphaPose), nor 'people' (OpenPose), nor"
        " 'keypoints'"
    )


def files_of(path: str) -> list[Path]:
    """The files that `read_keypoints` reads, in the order of their numbers."""
    place = Path(path).expanduser()
    if not place.is_dir():
        return [place]
    return sorted(place.glob(JSON_PATTERN), key=lambda file: (last_number(file.stem), file.stem))


def _parse(path: str, file: Path) -> object:
    """JSON as it is; NumPy's files as a table of arrays."""
    if not file.is_file():
        raise UserError(f"--keypoints {path}: no such file")
    suffix = file.suffix.lower()
    if suffix == ".json":
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise UserError(f"--keypoints {file}: not a readable JSON file ({error})") from error
    if suffix not in (".npz", ".npy"):
        raise UserError(f"--keypoints {path}: give .npz, .npy, .json or a folder of .json files")
    try:
        loaded = np.load(file, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"keypoints": loaded}
    except UNREADABLE as error:
        raise UserError(
            f"--keypoints {path}: damaged, or it holds Python objects, which are never loaded;"
            " save plain number arrays"
        ) from error


def save_keypoints(path: Path, people: People) -> None:
    """Write .npz or .json with an entry for every frame, to be read again by --keypoints.

    Raises UserError.
    """
    name, fps, size = people.layout.name, people.fps, np.array(people.size)
    if path.suffix.lower() == ".npz":
        with write_atomic(path) as file:
            np.savez_compressed(file, keypoints=people.filled, layout=name, fps=fps, size=size)
        return
    content = {"layout": name, "fps": fps, "size": size.tolist(), "names": people.layout.names}
    content["keypoints"] = np.round(people.filled.astype(float), 4).tolist()
    with write_atomic(path, "w") as file:
        json.dump(content, file)
