"""From a path to what its files hold: JSON values, tables of text, NumPy's arrays.

What a file is, its first bytes tell, not its name. Text may be UTF-8 or UTF-16, with or without a
byte order mark, and any file may be compressed by gzip. Nothing in a file is run.
"""

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.safe_pickle import parse
from demo.keypoint_files.found import listed, natural_order
from lib.errors import UserError
from lib.files import listing

Rows = list[list[str]]  # a table of text, one list of cells a line

# In a folder the files of the first of these kinds that is there are read, one for each image.
IN_FOLDERS = (".json", ".json.gz", ".jsonl", ".txt", ".npy", ".csv")
LARGEST = 2 << 30  # bytes of a file that is still unpacked
KINDS = "give .npz, .npy, JSON, CSV or a folder with such a file for each image"


class Table:
    """The cells of a file of text that is not JSON."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows


def files_of(path: str) -> list[Path]:
    """The files that are read, in the natural order of their names."""
    place = Path(path).expanduser()
    if not place.is_dir():
        return [place]
    there = [file for file in place.iterdir() if not file.name.startswith(".")]
    for ending in IN_FOLDERS:
        files = [file for file in there if file.name.lower().endswith(ending)]
        if files:
            return sorted(files, key=lambda file: natural_order(file.name))
    return []


def open_files(path: str) -> list[tuple[Path, object]]:
    """Each file with what it holds. Raises UserError."""
    files = files_of(path)
    if not files:
        there = listing(Path(path).expanduser())
        raise UserError(
            f"--keypoints {path}: no .json file in this folder, nor .txt, .npy or .csv (there:"
            f" {there})"
        )
    return [(file, _content(path, file)) for file in files]


def _content(path: str, file: Path) -> object:
    if not file.is_file():
        raise UserError(f"--keypoints {path}: no such file")
    try:
        content = file.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(file) as packed:
                content = packed.read(LARGEST)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise UserError(f"--keypoints {file}: cannot be read, or damaged ({error})") from error
    numpy_name = file.name.lower().removesuffix(".gz").endswith((".npz", ".npy"))
    if content.startswith(b"PK\x03\x04"):
        _refuse_other_archives(file, content)
    if content.startswith((b"\x93NUMPY", b"PK\x03\x04", b"\x80")):
        return _as_lists(parse(content, f"--keypoints {file}"))
    if content.startswith(b"version https://git-lfs"):
        raise UserError(f"--keypoints {file}: Git LFS's pointer to the file; run git lfs pull")
    if content.startswith(b"\x89HDF"):
        raise UserError(
            f"--keypoints {file}: an HDF5 file, as of DeepLabCut; give the .csv that it writes"
            " beside it"
        )
    if numpy_name:
        raise UserError(f"--keypoints {file}: damaged, or not one of NumPy's files; save it again")
    return _text(file, content)


def _refuse_other_archives(file: Path, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            there = archive.namelist()
    except zipfile.BadZipFile:
        return  # which is told of later
    if there and not any(name.endswith(".npy") for name in there):
        raise UserError(
            f"--keypoints {file}: an archive, but no .npz of NumPy's (there: {listed(there)});"
            " unpack it, or save its numbers as .npz, JSON or CSV"
        )


def _as_lists(value: object) -> object:
    """Arrays of objects as lists, as in JSON; arrays of numbers as they are."""
    if isinstance(value, dict):
        return {key: _as_lists(one) for key, one in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        value = value.tolist()
    return [_as_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _text(file: Path, content: bytes) -> object:
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    start = text.lstrip()[:1]
    if "\0" in text or (not start.isprintable() and start):
        raise UserError(f"--keypoints {file}: no file of keypoints; {KINDS}")
    if start == "<":
        raise UserError(f"--keypoints {file}: XML and HTML are not read; {KINDS}")
    if start in ("{", "[") or file.suffix.lower().startswith(".json"):
        return _json(file, text)
    if not start and file.suffix.lower() not in (".txt", ".csv"):
        raise UserError(f"--keypoints {file}: empty; {KINDS}")
    return Table(_rows(text))


def _json(file: Path, text: str) -> object:
    """JSON, or JSON lines: one value a line."""
    try:
        return _decoded(json.loads(text, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        values = []
        try:
            for line in lines if len(lines) > 1 else ():
                values.append(json.loads(line, object_pairs_hook=_unique))
        except (ValueError, RecursionError) as of_line:
            if values:
                raise UserError(
                    f"--keypoints {file}: line {len(values) + 1} is no JSON ({of_line}); is"
                    " the file cut off?"
                ) from of_line
        if values:
            return values
        raise UserError(f"--keypoints {file}: not a readable JSON file ({error})") from error


def _decoded(value: object) -> object:
    """JSON that is text in JSON, as when each image's text was put into a list, is decoded too."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        return json.loads(value, object_pairs_hook=_unique)
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [_decoded(one) for one in value]
    return value


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} occurs twice in one object")
    return table


def _rows(text: str) -> Rows:
    """Cells separated by a tab, semicolon, comma or spaces, the first of them in every line."""
    lines = [line for line in text.splitlines() if line.strip(" \t,;") and line[0] != "#"]
    if lines and re.fullmatch("sep=.", lines[0]):  # of Excel
        del lines[0]
    sample = lines[:20]
    # A comma may be that of decimals, where something else separates.
    separator = next((s for s in "\t;" if all(s in line for line in sample)), ",")
    if not any(separator in line for line in sample):
        return [re.split(r"\s+", line.strip()) for line in lines]
    try:
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        if separator == ",":
            return [[cell.strip() for cell in row] for row in rows]
        return [[re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", c.strip()) for c in row] for row in rows]
    except csv.Error:
        return [line.split(separator) for line in lines]
