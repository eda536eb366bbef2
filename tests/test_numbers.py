"""Whole numbers: ASCII digits in a range, and nothing that merely looks like them."""

import argparse

import pytest

from lib.errors import UserError
from lib.numbers import environment_number, parse_whole, whole_number

# int() takes some of these, str.isdigit() or str.isdecimal() others.
NO_NUMBERS = (
    "",
    "²",
    "1²",
    "٣",
    "１２",
    "1_000",
    " 7",
    "7\n",
    "+7",
    "-7",
    "7.0",
    "0x7",
    "1e3",
    "seven",
)


@pytest.mark.parametrize("text", [*NO_NUMBERS, "9" * 5000])
def test_what_is_no_whole_number(text):
    assert parse_whole(text) is None
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number, 0 to 9"):
        whole_number(0, 9)(text)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("2147483647", 2**31 - 1)]
)
def test_whole_numbers(text, number):
    assert parse_whole(text) == number
    assert whole_number()(text) == number


def test_the_range_includes_its_ends():
    assert [parse_whole(str(n), 2, 4) for n in range(1, 6)] == [None, 2, 3, 4, None]
    assert parse_whole("2147483648") is None


def test_an_environment_variable(monkeypatch):
    monkeypatch.delenv("MDTF_TEST", raising=False)
    assert environment_number("MDTF_TEST", 5) == 5
    monkeypatch.setenv("MDTF_TEST", "")
    assert environment_number("MDTF_TEST", 5) == 5
    monkeypatch.setenv("MDTF_TEST", "3")
    assert environment_number("MDTF_TEST", 5) == 3
    for wrong in ("²", "0", "two"):
        monkeypatch.setenv("MDTF_TEST", wrong)
        with pytest.raises(UserError, match=f"MDTF_TEST={wrong}: not a whole number, 1 to 2"):
            environment_number("MDTF_TEST", 5, low=1)
