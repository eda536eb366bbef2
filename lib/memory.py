"""What glibc's allocator does with freed memory; elsewhere these functions do nothing.

A training step frees the same gigabytes that the next one allocates, and getting pages back from
the system costs up to half of a step of Large.
"""

import ctypes
import functools

IDLE_LIMIT = 2**28  # bytes that may lie idle where memory matters
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h

_is_kept = False


class _Heap(ctypes.Structure):
    """The struct mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is a glibc of 2021 or later."""
    try:
        library = ctypes.CDLL(None)
        library.mallinfo2.restype = _Heap
        library.mallinfo2.argtypes = []
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError, TypeError):
        return None


def keep_freed() -> None:
    """From now on, keep the memory that this process frees: do not return it to the system."""
    global _is_kept
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)
        _is_kept = True


def give_back_idle() -> None:
    """After keep_freed(): return idle memory (holes that no request fits) to the system.

    It does so once more than IDLE_LIMIT lies idle, and more than half of what is in use.
    """
    library = _glibc() if _is_kept else None
    if library is not None:
        heap = library.mallinfo2()
        if heap.fordblks > max(IDLE_LIMIT, heap.uordblks // 2):
            library.malloc_trim(0)
