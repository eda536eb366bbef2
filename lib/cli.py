"""What every command shares: its door, its parser, and lines on stdout."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from lib.errors import UserError

logger = logging.getLogger("mdtf")


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others; no abbreviated flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command; a UserError becomes one line on stderr and status 2, Ctrl-C 130."""
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return 130


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """The door of a command `main(argv=None)`: run it on the command line, then exit."""
    sys.exit(exit_status(main))


class StdoutHandler(logging.Handler):
    """Prints to the stdout that the process has when a line is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def log_to_stdout(level: int = logging.INFO) -> None:
    """From now on, the project's log lines and warnings go to stdout as plain lines."""
    if not any(isinstance(handler, StdoutHandler) for handler in logger.handlers):
        logger.addHandler(StdoutHandler())
    logger.setLevel(level)

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        logger.warning("warning: %s", message)

    warnings.showwarning = show
