"""Progress bars."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from lib.processes import Processes

T = TypeVar("T")


def progress_bar(
    items: Iterable[T],
    description: str,
    processes: Processes,
    *,
    total: int | None = None,
    first: int = 0,
) -> "tqdm[T]":
    """A bar with ETA, on the main process; a terminal sees it move, a log file a line every half
    minute. total: of all items, `first` of which were done before."""
    return tqdm(
        items,
        description,
        total,
        initial=first,
        mininterval=0.1 if sys.stderr.isatty() else 30,
        leave=False,
        disable=not processes.is_main,
    )
