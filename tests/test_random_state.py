"""Random states: one seed gives one sequence, and what is saved goes on where it was."""

import random

import numpy as np
import torch

from lib.random_state import (
    random_states,
    seed_everything,
    separate_random_states,
    set_random_states,
)


def draw() -> list[float]:
    """From each of the three generators of a process, an odd number of normal ones too."""
    numpy = np.random.rand(), np.random.randn()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), *numpy, torch.rand(()).item()]


def test_a_seed_decides_every_generator():
    seed_everything(3)
    one = draw()
    seed_everything(3)
    assert draw() == one
    seed_everything(4)
    assert not set(draw()) & set(one)


def test_saved_states_go_on_where_they_were(tmp_path):
    """Also the second half of a pair of normal numbers, which python and numpy keep."""
    seed_everything(3)
    draw()
    torch.save(random_states(), tmp_path / "states")
    expected = [draw() for _ in range(3)]
    seed_everything(9)
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_separate_states_leave_no_trace():
    seed_everything(3)
    expected = [draw(), draw()]
    seed_everything(3)
    assert draw() == expected[0]
    with separate_random_states(5):
        inside = draw()
    assert draw() == expected[1]
    seed_everything(5)
    assert draw() == inside
