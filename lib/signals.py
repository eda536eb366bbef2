"""SIGINT and SIGTERM, taken where the state of a training is consistent."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(Exception):
    """A signal came, and the state may be saved now."""


class Interrupted(Exception):
    """A signal ended the training; its state has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


class Signals:
    """A signal waits for `check()`; inside `may_stop()` it takes effect at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._may_stop = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._may_stop:
            self._may_stop = False
            raise Stop

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

    def check(self) -> None:
        if self.received:
            raise Stop

    @contextmanager
    def may_stop(self) -> Iterator[None]:
        self.check()
        self._may_stop = True
        try:
            yield
        finally:
            self._may_stop = False
