"""Tables of text: CSV with named columns, DeepLabCut's CSV, label files of YOLO, bare numbers.

A row is an image (its keypoints side by side), or one keypoint of an image.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from demo.keypoint_files.arrays import read_arrays
from demo.keypoint_files.found import (
    BOXES,
    COUNTS,
    TIMES,
    Image,
    Points,
    Sightings,
    listed,
    plain_key,
)
from demo.keypoint_files.opening import KINDS, Rows, Table
from demo.keypoint_files.points import columns_of_flat
from lib.keypoints import COCO_17, Layout

_FRAME = {
    "frame", "frames", "frame_id", "frameid", "frame_idx", "frame_index", "frame_number",
    "frame_no", "frame_num", "framenumber", "frameindex", "fnum", "image", "image_id",
    "image_name", "img", "img_name", "file", "filename", "file_name", "image_path",
}  # fmt: skip
_FRAME = {plain_key(name) for name in _FRAME}
_PERSON = {
    "person", "person_id", "personid", "track", "track_id", "trackid", "individual", "subject",
    "instance", "instance_id", "id", "pose", "pose_id",
}  # fmt: skip
_LANDMARK = {
    "landmark", "landmarkid", "landmark_id", "landmark_index", "landmark_name", "keypoint",
    "keypoint_id", "keypoint_name", "keypoint_index", "joint", "joint_id", "joint_name",
    "bodypart", "body_part", "point", "point_id", "kp", "kp_id", "name", "index", "part",
}  # fmt: skip
_COLUMN = {
    "x": "x", "y": "y", "z": "z", "v": "c", "c": "c", "p": "c", "vis": "c", "visibility": "c",
    "visible": "c", "conf": "c", "confidence": "c", "score": "c", "likelihood": "c", "prob": "c",
    "probability": "c",
}  # fmt: skip
_KINDS = "|".join(sorted(_COLUMN, key=len, reverse=True))
_AFTER = re.compile(rf"(.+?)[\W_]+({_KINDS})[\W_]*", re.IGNORECASE)  # nose_x
_BEFORE = re.compile(rf"({_KINDS})[\W_]*([0-9]+)|({_KINDS})[\W_]+(.+)", re.IGNORECASE)  # x0, x_nose
_NUMBER_FIRST = re.compile(rf"([0-9]+)({_KINDS})", re.IGNORECASE)  # 0x


def read_tables(
    sightings: Sightings, contents: Sequence[tuple[Path, object]], wanted: Layout | None
) -> bool:
    """Add the people of files that are tables of text; False: they are not. Raises UserError."""
    if len(contents) > 1:  # labels of YOLO, and beside them the names of the classes
        contents = [(file, content) for file, content in contents if file.name != "classes.txt"]
    tables = [(file, content.rows) for file, content in contents if isinstance(content, Table)]
    if len(tables) < len(contents):
        return False
    if any(rows for _, rows in tables) and all(
        _is_label(row) for _, rows in tables for row in rows
    ):
        for file, rows in tables:
            _labels(sightings, file.stem, rows)
        return True
    if len(tables) > 1:
        other = next(file for file, rows in tables if not rows or not all(map(_is_label, rows)))
        raise sightings.wrong(
            f"{other.name} has no labels of YOLO; give one table, or a folder of labels only"
        )
    ((file, rows),) = tables
    if not rows:
        raise sightings.wrong(f"empty; {KINDS}")
    kinds = _row_of_kinds(rows)
    if kinds:
        _several_headers(sightings, rows, kinds)
    elif all(_number(cell) is not None for cell in rows[0]):
        _bare(sightings, file.name, rows, wanted)
    else:
        _named(sightings, rows)
    return True


def _number(cell: str) -> float | None:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return None


def _value(sightings: Sightings, rows: Rows, row: int, cell: str) -> float:
    number = _number(cell)
    if number is None and cell.lower() in ("none", "null", "na", "n/a", "-", "<na>"):
        return float("nan")
    if number is None:
        raise sightings.wrong(f"line {row + 1}: {cell[:40]!r} is not a number")
    return number


def _even(sightings: Sightings, rows: Rows, start: int = 0) -> list[tuple[int, list[str]]]:
    """The rows from `start` with their numbers, all as long as the first row. Raises UserError."""
    for number, row in enumerate(rows[start:], start):
        while len(row) > len(rows[0]) and not row[-1]:
            row.pop()  # a separator at the end of the line
        if len(row) != len(rows[0]):
            raise sightings.wrong(
                f"line {number + 1} has {len(row)} cells, the first one {len(rows[0])}"
            )
    return list(enumerate(rows[start:], start))


def _bare(sightings: Sightings, name: str, rows: Rows, wanted: Layout | None) -> None:
    """Numbers without a header: a row a frame, maybe with its number before."""
    lines = _even(sightings, rows)
    numbers = np.array([[_value(sightings, rows, n, cell) for cell in row] for n, row in lines])
    first, frames = numbers[:, 0], None
    steps = np.diff(first) if np.isfinite(first).all() else np.zeros(0)
    if len(steps) > 1 and (steps >= 1).all() and (first % 1 == 0).all() and steps.min() == 1:
        frames, numbers = first.astype(int).tolist(), numbers[:, 1:]
        # Then the number of the person, if it is always the same.
        person, rest = numbers[:, 0], numbers.shape[1] - 1
        same = len(np.unique(person)) == 1 and person[0] % 1 == 0
        if same and rest // (columns_of_flat(rest) or rest) in COUNTS:
            numbers = numbers[:, 1:]
    read_arrays(sightings, {name: numbers}, wanted, frames)


# --- YOLO's labels: a file an image, a row a person ---------------------------------------------


def _is_label(row: Sequence[str]) -> bool:
    """Class, box (4, of the image's size), keypoints, maybe a confidence, maybe a track."""
    numbers = [_number(cell) for cell in row]
    if len(numbers) < 10 or any(n is None for n in numbers) or not _label_columns(len(row)):
        return False
    head = np.array(numbers[:5], dtype=float)
    return bool(head[0].is_integer() and (head[1:] >= 0).all() and (head[1:] <= 1.01).all())


def _label_columns(length: int) -> tuple[int, int] | None:
    """(keypoints, numbers of each) in a row; COCO's 17 where that fits, as the models have them."""
    fitting = [
        (joints, width)
        for width in (3, 2)
        for more in (0, 1, 2)
        for joints, rest in [divmod(length - 5 - more, width)]
        if not rest and joints in COUNTS
    ]
    fitting.sort(key=lambda fit: fit[0] != COCO_17.num_keypoints)
    return fitting[0] if fitting else None


def _labels(sightings: Sightings, image: Image, rows: Rows) -> None:
    sightings.images[image] = None
    sightings.usual = COCO_17
    for row in rows:
        joints, width = _label_columns(len(row)) or (0, 0)
        cells = [_number(cell) for cell in row[5 : 5 + joints * width]]
        numbers = np.array(cells, dtype=float).reshape(1, joints, width)
        sightings.add(image, Points(numbers, "xyc"[:width]))


# --- Named columns --------------------------------------------------------------------------


def _named(sightings: Sightings, rows: Rows) -> None:
    header = [name.strip().lower().replace(" ", "_") for name in rows[0]]
    landmark = next((n for n, name in enumerate(header) if name in _LANDMARK), None)
    is_long = landmark is not None and "x" in header and "y" in header
    places = _places(rows[0])
    if not places and not is_long:
        there = listed([cell for cell in rows[0] if cell])
        raise sightings.wrong(
            f"a table whose columns name no keypoints' x and y ({there}); name them nose_x,"
            " nose_y … or x0, y0 …"
        )
    lines = _even(sightings, rows, 1)
    frame = next((n for n, name in enumerate(header) if plain_key(name) in _FRAME), None)
    if (
        frame is None
        and header[0] in ("", "unnamed:_0")
        and all(row[0].isdecimal() for _, row in lines)
    ):
        frame = 0  # the index of pandas
    if is_long and landmark is not None:
        _long(sightings, rows, header, lines, frame, landmark)
        return
    columns = _same_columns(sightings, places)
    names = () if all(name.isdecimal() for name in places) else tuple(places)
    person = next((n for n, name in enumerate(header) if name in _PERSON), None)
    seen: dict[tuple[Image, str], int] = {}
    time = next((n for n, name in enumerate(header) if name in TIMES), None)
    sightings.by_place = frame is None
    if frame is None and time is None and len(lines) > 1:
        sightings.assumed.append("no column names the frames; each row is the next one")
    for number, row in lines:
        image = number - 1 if frame is None else _image(row[frame])
        if time is not None and _number(row[time]) is not None:
            sightings.times[image] = _value(sightings, rows, number, row[time])
        who = "" if person is None else row[person]
        if (image, who) in seen:
            raise sightings.wrong(
                f"lines {seen[image, who] + 1} and {number + 1} are both frame {image!r}; of two"
                " people? name them in a column 'person'"
            )
        seen[image, who] = number
        cells = [
            [_value(sightings, rows, number, row[kinds[c]]) for c in columns]
            for kinds in places.values()
        ]
        sightings.add(image, Points(np.array([cells]), columns, names))


def _image(cell: str) -> Image:
    number = _number(cell)
    return int(number) if number is not None and number.is_integer() else cell


def _places(header: Sequence[str]) -> dict[str, dict[str, int]]:
    """keypoint -> x, y, z or c -> its column, of the keypoints with an x and a y."""
    places: dict[str, dict[str, int]] = {}
    for column, cell in enumerate(header):
        name = cell.strip()
        after, before = _AFTER.fullmatch(name), _BEFORE.fullmatch(name)
        first = _NUMBER_FIRST.fullmatch(name)
        if first:
            keypoint, kind = first[1], first[2]
        elif before and (before[2] or not after):
            keypoint, kind = before[2] or before[4], before[1] or before[3]
        elif after:
            keypoint, kind = after[1], after[2]
        else:
            continue
        places.setdefault(keypoint, {}).setdefault(_COLUMN[kind.lower()], column)
    found = {
        name: kinds
        for name, kinds in places.items()
        if "x" in kinds and "y" in kinds and name.lower() not in BOXES
    }
    numbers = [re.sub("[^0-9]", "", name) for name in found]
    if found and all(numbers) and len({re.sub("[0-9]", "", name) for name in found}) == 1:
        order = sorted(zip(map(int, numbers), found, strict=True))
        found = {str(number): found[name] for number, name in order}
    return found


def _same_columns(sightings: Sightings, places: dict[str, dict[str, int]]) -> str:
    kinds = {"".join(c for c in "xyzc" if c in found) for found in places.values()}
    if len(kinds) > 1:
        raise sightings.wrong(
            "some keypoints have a depth or a confidence and some have none; give all the same"
        )
    return kinds.pop()


def _long(
    sightings: Sightings,
    rows: Rows,
    header: Sequence[str],
    lines: Sequence[tuple[int, list[str]]],
    frame: int | None,
    landmark: int,
) -> None:
    """A row for each keypoint."""
    if frame is None:
        raise sightings.wrong("a row a keypoint, but no column 'frame'")
    kinds: dict[str, int] = {}
    for column, name in enumerate(header):
        if name in _COLUMN:
            kinds.setdefault(_COLUMN[name], column)
    columns = "".join(c for c in "xyzc" if c in kinds)
    person = next((n for n, name in enumerate(header) if name in _PERSON), None)
    if "type" in header:  # of MediaPipe's holistic model, with hands and face
        part = header.index("type")
        lines = [line for line in lines if line[1][part] == "pose"] or lines
    names = list(dict.fromkeys(row[landmark] for _, row in lines))
    numbered = all(name.isdecimal() for name in names)
    if numbered:
        names.sort(key=int)
        if [int(name) - int(names[0]) for name in names] != list(range(len(names))):
            raise sightings.wrong(f"the numbers of the keypoints have gaps: {listed(names)}")
    place = {name: number for number, name in enumerate(names)}
    people: dict[tuple[Image, str], np.ndarray] = {}
    taken: set[tuple[Image, str, str]] = set()
    for number, row in lines:
        key = (_image(row[frame]), "" if person is None else row[person])
        if (*key, row[landmark]) in taken:
            raise sightings.wrong(
                f"line {number + 1}: keypoint {row[landmark]} of frame {key[0]!r} occurs twice; of"
                " two people? name them in a column 'person'"
            )
        taken.add((*key, row[landmark]))
        numbers = people.setdefault(key, np.full((len(names), len(columns)), np.nan))
        cells = [_value(sightings, rows, number, row[kinds[c]]) for c in columns]
        numbers[place[row[landmark]]] = cells
    for (image, _), numbers in people.items():
        sightings.add(image, Points(numbers[None], columns, () if numbered else tuple(names)))


# --- The header in several rows: DeepLabCut's, with several animals or one; pandas's ------------


def _row_of_kinds(rows: Rows) -> int:
    """The row under the names of the keypoints that says x, y, …; 0: there is none."""
    for number, row in enumerate(rows[1:5], 1):
        cells = [cell.lower() in _COLUMN for cell in row if cell]
        first = cells.index(True) if True in cells else len(cells)
        if first <= 3 and all(cells[first:]) and len(cells) - first >= 4:
            return number
    return 0


def _several_headers(sightings: Sightings, rows: Rows, kinds: int) -> None:
    coords = [cell.lower() for cell in rows[kinds]]
    first = next(n for n, cell in enumerate(coords) if cell in _COLUMN)
    parts = _filled(rows[kinds - 1], len(coords), first)
    titled = {row[0].lower(): row for row in rows[: kinds - 1]}
    individuals = _filled(titled.get("individuals", []), len(coords), first)
    animals: dict[str, dict[str, dict[str, int]]] = {}
    for column in range(first, len(coords)):
        if coords[column]:
            animal = animals.setdefault(individuals[column], {})
            animal.setdefault(parts[column], {})[_COLUMN[coords[column]]] = column
    rows = [coords, *(row for row in rows[kinds + 1 :] if any(row[first:]) or row[0].isdecimal())]
    for person, places in enumerate(animals.values(), 1):
        columns = _same_columns(sightings, places)
        for number, row in _even(sightings, rows, 1):
            image = _image("/".join(cell for cell in row[:first] if cell))
            cells = [
                [_value(sightings, rows, number, row[kinds[c]]) for c in columns]
                for kinds in places.values()
            ]
            numbers = np.array([cells])
            sightings.images[image] = None
            if np.isfinite(numbers[..., :2]).any():
                who = person if len(animals) > 1 else 0
                sightings.add(image, Points(numbers, columns, tuple(places)), who)


def _filled(row: Sequence[str], length: int, first: int) -> list[str]:
    """Cells from column `first` on; an empty one, of a name over several columns, repeats it."""
    filled = [*row, *[""] * length][:length]
    for column in range(first + 1, length):
        filled[column] = filled[column] or filled[column - 1]
    return filled
