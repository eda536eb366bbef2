"""Pickles from strangers: numpy arrays and plain containers are let in, code is not."""

import codecs
import os
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from lib.errors import UserError

_multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
_numeric = np._core.numeric if hasattr(np, "_core") else np.core.numeric


def _empty_array(subtype: type, shape: tuple, dtype: Any) -> np.ndarray:
    """numpy's _reconstruct, which only ever makes an empty array that is filled in afterwards.

    Called with other arguments, by a forged file, it would allocate what the file asks for.
    """
    if subtype is not np.ndarray or shape not in ((0,), 0):
        raise pickle.UnpicklingError("a forged array")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes in protocols 0 to 2 are stored as text of that encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes stored as {encoding!r}")
    return codecs.encode(text, "latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
# Old and new numpy versions keep the same functions at different places.
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[_core + ".multiarray", "_reconstruct"] = _empty_array
    _ADMITTED[_core + ".multiarray", "scalar"] = _multiarray.scalar
    _ADMITTED[_core + ".numeric", "_frombuffer"] = _numeric._frombuffer


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def load_pickle(path: str | os.PathLike, remedy: str = "get the file again") -> Any:
    """Unpickle a file that holds numpy arrays and plain containers only.

    Raises UserError: missing, truncated, damaged, or naming anything that could run code. `remedy`
    ends the message of a damaged file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Refused as error:
        raise UserError(
            f"{path}: refused, it would run code ({error}) instead of holding arrays only;"
            " do not use it, get the file from a source you trust"
        ) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f"{path}: damaged or not a pickle of arrays; {remedy}") from error


def _load(file: IO[bytes]) -> Any:
    # Old pickles of strings decode as latin1 under Python 3, as numpy recommends.
    return _Unpickler(file, encoding="latin1").load()
