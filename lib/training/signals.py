"""SIGINT and SIGTERM, which take effect where the state of a training is consistent."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Stop(Exception):
    """A signal came, and the state may be saved now."""


class Interrupted(Exception):
    """A signal ended the training; its state has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


class Signals:
    """Notes a signal that comes; the training asks for it where it can stop."""

    def __init__(self) -> None:
        self.received: int | None = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    @contextmanager
    def caught(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        try:
            before = [signal.signal(number, self._handle) for number in numbers]
        except ValueError:  # not in the main thread: signals are somebody else's
            before = []
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=False):
                signal.signal(number, handler)

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items; raises Stop before the next one once a signal has come."""
        for item in items:
            if self.received:
                raise Stop
            yield item
