"""Files that appear whole or not at all, and where a relative path is looked up."""

import errno
import json
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lib.errors import UserError

# What numpy, zipfile, mmap and json raise on array files that are damaged or claim absurd sizes.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, SyntaxError,
    OverflowError, MemoryError, NotImplementedError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
PROJECT_ROOT = Path(__file__).resolve().parents[1]


def find_path(path: str | os.PathLike[str]) -> Path:
    """A path as given, or, if nothing is there, the same path below the project root.

    So the documented commands run from any working directory. What exists nowhere is returned as
    given; the caller says what is missing.
    """
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    below_root = PROJECT_ROOT / given
    return below_root if below_root.exists() else given


def sync_directory(directory: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can do that."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def share(path: str | os.PathLike[str]) -> None:
    """Give a file of mkstemp, which is private, the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


@contextmanager
def write_atomic(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file beside `path` that takes its place at the end: `path` is never half-written.

    On any error the old file at `path` stays; an OSError (disk full, no permission) becomes a
    UserError that names the place. A link stays one: what it points to is written. A pipe or a
    device stays what it is and is written to as it comes.
    """
    given = Path(path)
    path, temporary = Path(os.path.realpath(given)), None
    encoding = None if "b" in mode else "utf-8"
    try:
        if given.exists() and not given.is_file() and not given.is_dir():
            with open(given, mode, encoding=encoding) as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        share(temporary)
        os.replace(temporary, path)
        temporary = None
        sync_directory(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {given}: {reason}; free space or choose another place"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def check_folder_writable(folder: Path) -> None:
    """Raise UserError, before work of minutes, if no file can be written there."""
    _check_writable(folder, folder)


def check_file_writable(path: str | os.PathLike[str]) -> None:
    """Likewise of one file."""
    file = Path(os.path.realpath(path))
    if file.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    if file.is_file() or not file.exists():  # else a device, as in write_atomic
        _check_writable(path, file.parent)


def _check_writable(path: str | os.PathLike[str], folder: Path) -> None:
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {place}: {error.strerror or error}; choose another place"
        ) from None


def copy_atomic(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file; `target` is never half-written."""
    with open(source, "rb") as file, write_atomic(target) as copy:
        shutil.copyfileobj(file, copy)


def refuse_same_file(
    output: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str] | None]
) -> None:
    """Raise UserError if writing `output` would replace something that the command reads.

    Files are compared, not names: links and other spellings of a source are found too. Sources are
    looked up as `find_path` does; a folder among them stands for the files in it. None and missing
    files are skipped.
    """
    output = Path(output).expanduser()
    if not os.path.exists(output):  # Path.exists raises where a folder may not be looked into
        return
    for source in (find_path(s) for s in sources if s is not None):
        if not os.path.exists(source):
            continue
        inside = source.is_dir() and source.resolve() in output.resolve().parents
        if inside or output.samefile(source):
            raise UserError(
                f"{output}: is read from too (as {source}) and would be overwritten; write to"
                " another place"
            )


def write_json(path: str | os.PathLike[str], value: object) -> None:
    with write_atomic(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def listing(directory: Path, pattern: str = "*") -> str:
    """What is in a folder, for an error message: 'a, b, c' or 'nothing'."""
    if not directory.is_dir():
        return "no such folder"
    names = sorted(p.name for p in directory.glob(pattern))
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return shown or "nothing"
