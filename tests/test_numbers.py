"""Whole numbers: ASCII digits in a range, and nothing that merely looks like them."""

import argparse

import pytest

import train
from data.preprocess import h36m, synthetic
from demo import vis
from lib.errors import UserError
from lib.numbers import environment_number, parse_whole, whole_number
from lib.processes import joined_processes
from model.ops.cpu.abi import thread_count
from tests.training import run_command

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


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (train.main, ["--seed", "²"]),
        (train.main, ["--num-cpus", "1_0"]),
        (h36m.main, ["--n-frames", "٣"]),
        (synthetic.main, ["--frames", "²"]),
        (vis.main, ["--webcam", "²"]),
        (vis.main, ["--person", "²", "--keypoints", "x.npz"]),
        (vis.main, ["--size", "²x3", "--keypoints", "x.npz"]),
    ],
)
def test_commands_take_no_other_numbers(main, flags):
    status, out, err = run_command(main, flags)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{flags[0]}" in err
    assert flags[1] in err


def join():
    with joined_processes("cpu"):
        pass


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("WORLD_SIZE", lambda: joined_processes("cpu").__enter__()),
        ("MDTF_KERNEL_THREADS", thread_count),
    ],
)
def test_variables_take_no_other_numbers(monkeypatch, name, read):
    for wrong in ("²", "0", "two"):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(UserError, match=f"^{name}={wrong}: not a whole number, 1 to "):
            read()
