"""Locks between processes: files that the system unlocks when their holder ends, however it ends.

So a free lock means that nobody works there, even after a kill and even if several machines or
containers share the folder. A process number would not tell: another process may have it by now.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


def try_lock(path: Path) -> FileLock | None:
    """Lock the file `path` (created if missing); None if somebody else holds it.

    The lock lasts as long as the caller keeps the returned object. Raises OSError.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock on the file `path`; the file is removed afterwards. Raises OSError."""
    with FileLock(path):
        try:
            yield
        finally:
            # Who waits notices and creates the file again; Windows keeps a file that is in use.
            with suppress(OSError):
                path.unlink()
