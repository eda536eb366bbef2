"""Whole numbers that a user wrote: on the command line, in the environment, in a file name.

`int` alone takes '1_000', ' 7 ' and '٣', and `str.isdigit` takes '²', which `int` refuses. Here a
whole number is ASCII digits, nothing else.
"""

import argparse
import os
import re
from collections.abc import Callable

from lib.errors import UserError

LARGEST = 2**31 - 1
# More digits are out of every range, and Python refuses to read thousands of them.
_DIGITS = re.compile(r"[0-9]{1,18}")


def parse_whole(text: str, low: int = 0, high: int = LARGEST) -> int | None:
    """The whole number in `text`; None if there is none, or if it is not from low to high."""
    if not _DIGITS.fullmatch(text):
        return None
    number = int(text)
    return number if low <= number <= high else None


def whole_number(low: int = 0, high: int = LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from low to high."""

    def parse(text: str) -> int:
        number = parse_whole(text, low, high)
        if number is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {low} to {high}")
        return number

    return parse


def environment_number(name: str, default: int, low: int = 0) -> int:
    """The whole number in an environment variable, `default` where it is not set or empty.

    Raises UserError for anything else.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    number = parse_whole(text, low)
    if number is None:
        raise UserError(
            f"{name}={text}: not a whole number, {low} to {LARGEST}; correct or unset it"
        )
    return number
