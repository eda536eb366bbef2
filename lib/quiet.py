"""Silence for C libraries that talk about themselves on stderr."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_depth = 0
_saved = -1


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Sends the process's stderr, C libraries included, nowhere while the block runs.

    Several threads may be inside; the last one to leave restores it.
    """
    global _depth, _saved
    with _lock:
        if _depth == 0:
            _saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                os.dup2(_saved, 2)
                os.close(_saved)
