"""Progress bars."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from lib.processes import Processes

T = TypeVar("T")
# Seconds: a terminal sees the bar move, a log file gets a line every half minute.
REFRESH = 0.1 if sys.stderr.isatty() else 30.0


def progress_bar(
    items: Iterable[T],
    description: str,
    processes: Processes,
    *,
    total: int | None = None,
    first: int = 0,
) -> "tqdm[T]":
    """A bar with ETA, on the main process; total: of all items, `first` of which were done."""
    return tqdm(
        items,
        description,
        total,
        initial=first,
        mininterval=REFRESH,
        leave=False,
        disable=not processes.is_main,
    )
