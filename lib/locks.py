"""Locks between processes: files that the system unlocks when their holder ends, however it ends.

So a lock that is free says that nobody works there, after a kill and on every machine or container
that shares the folder. A number of a process would not: another process may have it by now.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


def try_lock(path: Path) -> FileLock | None:
    """Lock the file `path` (made if missing), or None if another one holds it.

    The caller keeps what is returned for as long as the lock shall last. Raises OSError.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock on the file `path`; afterwards the file is gone. Raises OSError."""
    with FileLock(path):
        try:
            yield
        finally:
            # Those who wait notice, and make the file anew; Windows keeps a file that is in use.
            with suppress(OSError):
                path.unlink()
