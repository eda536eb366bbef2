"""All random states of a process: seeded together, saved and restored together."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (for libraries that use the global state)
    torch.manual_seed(seed)


@contextmanager
def separate_random_states(seed: int) -> Iterator[None]:
    """Inside, random numbers follow from `seed`; afterwards they go on as if nothing was drawn."""
    before = random_states()
    seed_everything(seed)
    try:
        yield
    finally:
        set_random_states(before)


def random_states() -> dict[str, Any]:
    """Plain containers and tensors only, so that a checkpoint with them loads safely."""
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    twister = numpy["state"]
    states = {
        "python": [version, list(words), gauss],
        "numpy": [
            *(numpy["bit_generator"], twister["key"].tolist(), twister["pos"]),
            *(numpy["has_gauss"], numpy["gauss"]),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
