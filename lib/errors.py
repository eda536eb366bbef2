"""A user's mistake, told in one sentence: what is wrong, where, and what to do."""

import argparse
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn


class UserError(Exception):
    """Wrong input. Its message is all a user gets to see: no traceback."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest known word, or '' if none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others; no abbreviated flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {Path(sys.argv[0]).name} --help")


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command; a UserError becomes one line on stderr and exit status 2, Ctrl-C 130."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
