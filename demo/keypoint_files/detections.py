"""Files with the people of each image: AlphaPose's and OpenPose's, one file or a folder."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from demo.people import People, without_nonsense
from lib.errors import UserError
from lib.keypoints import BODY_25, COCO_17, LAYOUTS, Layout

# Image numbers below this count frames from the start of a video; larger ones, as of camera
# images, count from the first.
LARGEST_START = 10_000
MAX_FRAMES = 10_000_000


def last_number(name: str) -> int:
    """2 of 'clip_000000000002_keypoints'; 0 where there is none."""
    digits = re.findall("[0-9]+", name)
    # 19 digits are no frame number any more, and Python refuses to read thousands.
    return int(digits[-1][:19]) if digits else 0


def read_openpose(
    path: str, contents: list[tuple[Path, object]], wanted: Layout | None
) -> People | None:
    """A table with 'people' for each frame: one a file, or all in the list of one file."""
    tables = contents
    if len(contents) == 1 and isinstance(contents[0][1], list):
        tables = [(contents[0][0], table) for table in contents[0][1]]
    if not any(isinstance(table, Mapping) and "people" in table for _, table in tables):
        return None
    frames: dict[int, list[np.ndarray]] = {}
    for number, (file, table) in enumerate(tables):
        people = table.get("people") if isinstance(table, Mapping) else None
        if not isinstance(people, list):
            raise UserError(f"--keypoints {file}: not OpenPose's output (no 'people' inside)")
        frames[number] = [_triples(file, _get(file, one, "pose_keypoints_2d")) for one in people]
    return _people(path, frames, BODY_25, wanted)


def read_alphapose(
    path: str, contents: list[tuple[Path, object]], wanted: Layout | None
) -> People | None:
    """A list of people, each with the name of its image; of a folder, all lists together."""
    people = [(file, one) for file, table in contents if isinstance(table, list) for one in table]
    lists = all(isinstance(table, list) for _, table in contents)
    if not lists or not people or not isinstance(people[0][1], Mapping):
        return None
    frames: dict[int, list[np.ndarray]] = {}
    for file, one in people:
        number = last_number(Path(str(_get(file, one, "image_id"))).stem)
        frames.setdefault(number, []).append(_triples(file, _get(file, one, "keypoints")))
    return _people(path, frames, COCO_17, wanted)


def _get(file: Path, person: object, key: str) -> object:
    if not isinstance(person, Mapping) or key not in person:
        raise UserError(f"--keypoints {file}: a person without {key!r}")
    return person[key]


def _triples(file: Path, numbers: object) -> np.ndarray:
    """(J, 3)"""
    try:
        return without_nonsense(np.asarray(numbers, dtype=np.float32).reshape(-1, 3))
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"--keypoints {file}: a person's keypoints are not x, y, confidence triples"
        ) from error


def _people(
    path: str, frames: dict[int, list[np.ndarray]], usual: Layout, wanted: Layout | None
) -> People:
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
    rows = [(number - first, person) for number in sorted(frames) for person in frames[number]]
    frame = np.array([number for number, _ in rows], dtype=int)
    keypoints = np.array([person for _, person in rows], dtype=np.float32)
    keypoints = keypoints.reshape(-1, layout.num_keypoints, 3)
    return People(keypoints, frame, np.zeros_like(frame), last - first + 1, layout)
