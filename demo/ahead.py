"""Works ahead: the next item is made in a thread while the last one is used."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
WAIT = 0.1  # seconds between two looks at whether anybody still wants items


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def ahead(items: Iterable[T], number: int = 1) -> Iterator[T]:
    """The same items, made up to `number` ahead in a thread of their own.

    An error in `items` is raised here; when this iterator is closed, `items` is no longer read.
    """
    queue: Queue = Queue(maxsize=number)
    closed = Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                queue.put(item, timeout=WAIT)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:
            put(_Failed(error))

    Thread(target=work, daemon=True).start()
    try:
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        closed.set()
