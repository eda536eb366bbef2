"""Pickles from strangers: numpy arrays and plain containers are let in, code is not.

numpy's own rebuilding functions believe what a file says about a dtype, so that a forged file can
make arrays of raw pointers. Here arrays are rebuilt from a checked dtype, its bytes and its shape.
"""

import codecs
import io
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from lib.errors import UserError


class _DType:
    """A dtype in a file: its name and byte order are read, its memory layout is numpy's own."""

    _NAME = re.compile(r"[biufcSUO]\d+")

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(name, str) or not self._NAME.fullmatch(name):
            raise pickle.UnpicklingError(f"arrays of type {name!r}")
        self.made = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        _, order, *described, _size, _alignment, _flags = state[:8]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in described):
            raise pickle.UnpicklingError("arrays of records")
        self.made = self.made.newbyteorder(order)


class _Array(np.ndarray):
    """An array while it is being read."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, raw = state
        if dtype.made.hasobject and len(raw) != math.prod(shape):
            raise pickle.UnpicklingError("a forged array")
        super().__setstate__((version, shape, dtype.made, is_fortran, raw))


_NDARRAY = object()  # stands for the class, which a file may name but not call


def _reconstruct(subtype: Any, shape: tuple, type_code: Any) -> _Array:
    """The empty array that `__setstate__` fills in."""
    if subtype is not _NDARRAY:
        raise pickle.UnpicklingError("a forged array")
    return np.ndarray.__new__(_Array, (0,), "b")


def _from_buffer(
    buffer: Any, dtype: _DType, shape: tuple[int, ...], order: Any, axis_order: tuple | None = None
) -> np.ndarray:
    """An array in protocol 5."""
    array = np.frombuffer(buffer, dtype.made)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _scalar(dtype: _DType, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.made, count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes in protocols 0 to 2 are stored as text of that encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes stored as {encoding!r}")
    return codecs.encode(text, "latin1")


def _no_bytes() -> bytes:
    """Protocols 0 to 2 store empty bytes, those of an array without elements, as this call."""
    return b""


def _plain_dict(*arguments: Any) -> dict:
    """In place of an OrderedDict (its pairs, if any) or a defaultdict (its default, not kept)."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list | tuple | dict) else ()
    return dict(pairs)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("__builtin__", "bytes"): _no_bytes,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DType,
}
for _name in ("OrderedDict", "defaultdict"):
    _ADMITTED["collections", _name] = _plain_dict
for _builtins in ("builtins", "__builtin__"):  # of Python 3 and 2
    for _type in (list, tuple, dict, set, frozenset, int, float, complex, bool, str):
        _ADMITTED[_builtins, _type.__name__] = _type
# Old and new numpy versions keep the same functions at different places.
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[_core + ".multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[_core + ".multiarray", "scalar"] = _scalar
    _ADMITTED[_core + ".numeric", "_frombuffer"] = _from_buffer


# Packages whose classes hold data: files with them are no attack, but nothing we read.
_OF_DATA = {
    "PIL", "array", "chumpy", "collections", "copy_reg", "copyreg", "datetime", "decimal",
    "detectron2", "easydict", "fractions", "joblib", "mediapipe", "mmcv", "mmengine", "mmpose",
    "munch", "omegaconf", "pandas", "pathlib", "scipy", "supervision", "torch", "ultralytics",
    "uuid",
}  # fmt: skip

# Their classes, and functions that make an object of one.
_OF_CLASSES = re.compile(r"[A-Z]\w*|date|datetime|time|timedelta|deque|_rebuild\w*|_reconstructor")


class _Refused(Exception):
    pass


class _Foreign(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            told = ascii(f"{module}.{name}")[1:-1]  # in one line
            if module.partition(".")[0] in _OF_DATA and _OF_CLASSES.fullmatch(name):
                raise _Foreign(told) from None
            if module.startswith(("numpy.ma.", "numpy.matrixlib.")):
                raise _Foreign(told) from None
            raise _Refused(told) from None


@contextmanager
def _guarded(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong with a file of the kind `what` becomes one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Refused as error:
        raise UserError(
            f"{path}: refused, it would run code ({error}) instead of holding arrays only; code is"
            " never loaded, get the file from a source you trust"
        ) from error
    except _Foreign as error:
        raise UserError(
            f"{path}: holds a {error}, but only arrays and plain containers are read; save its"
            " numbers as numpy arrays"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"{path}: damaged or not {what} of arrays; {remedy}") from error


# What a file is by its first bytes, in words, and what to do where another one is wanted.
_KINDS = {
    b"PK": ("an .npz", "name a file of the other kind, or use the command that reads this one"),
    b"\x93NUMPY": ("an .npy", "name the file that all arrays are in"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip first"),
    b"\x89HDF": ("an HDF5 file", "save its arrays as the documents describe"),
    b"\x80": ("a pickle", "name a file of the other kind, or use the command that reads this one"),
}


def refuse_other_kinds(path: Path, wanted: str) -> None:
    """Raise UserError where a file starts as one of another kind than wanted does."""
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, (kind, remedy) in _KINDS.items():
        if start.startswith(magic) and kind != wanted:
            raise UserError(f"{path}: {kind}, not {wanted}; {remedy}")


def load_pickle(path: str | os.PathLike[str], remedy: str = "get the file again") -> Any:
    """Unpickle a file that holds numpy arrays and plain containers only.

    Raises UserError: missing, truncated, damaged, or naming anything that could run code. `remedy`
    ends the message of a damaged file.
    """
    path = Path(path)
    with _guarded(path, "a pickle", remedy), open(path, "rb") as file:
        refuse_other_kinds(path, "a pickle")
        return _load(file)


def load_npz(
    path: str | os.PathLike[str],
    names: Sequence[str],
    optional: Sequence[str] = (),
    remedy: str = "get the file again",
) -> dict[str, Any]:
    """Arrays of an .npz by name. An object array, which is stored as a pickle, may hold arrays and
    plain containers; one without axes gives what it holds.

    optional: names that may be absent. Raises UserError as `load_pickle`, or if a name is absent.
    """
    path = Path(path)
    with _guarded(path, "an .npz", remedy):
        refuse_other_kinds(path, "an .npz")
    with _guarded(path, "an .npz", remedy), zipfile.ZipFile(path) as archive:
        there = {member.removesuffix(".npy") for member in archive.namelist()}
        absent = [name for name in names if name not in there]
        if absent:
            shown = ", ".join(sorted(there)[:8]) or "nothing"
            raise UserError(f"{path}: no array {absent[0]!r} inside (there: {shown}); {remedy}")
        found = {}
        for name in (*names, *(name for name in optional if name in there)):
            with archive.open(f"{name}.npy") as file:
                found[name] = _load_array(file)
        return found


def parse(content: bytes, path: str | os.PathLike[str]) -> Any:
    """What the bytes of a pickle, .npy or .npz hold; of an .npz its arrays by name.

    path: for messages. Raises UserError as `load_pickle`.
    """
    with _guarded(Path(path), "a file", "save plain arrays"), io.BytesIO(content) as file:
        if content.startswith(b"\x93NUMPY"):
            return _load_array(file)
        if not content.startswith(b"PK"):
            return _load(file)
        with zipfile.ZipFile(file) as archive:
            found = {}
            for member in archive.namelist():
                with archive.open(member) as array:
                    found[member.removesuffix(".npy")] = _load_array(array)
            return found


def _load_array(file: IO[bytes]) -> Any:
    """What a .npy file holds."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        value = _load(file)
        return value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    count = math.prod(shape)
    raw = file.read(count * dtype.itemsize)
    return np.frombuffer(raw, dtype, count).reshape(shape, order="F" if is_fortran else "C")


def _load(file: IO[bytes]) -> Any:
    # Old pickles of strings decode as latin1 under Python 3, as numpy recommends.
    return _Unpickler(file, encoding="latin1").load()
