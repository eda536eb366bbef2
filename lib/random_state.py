"""A process's random numbers: states seeded, saved and restored together; masks of a batch."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
            numpy["bit_generator"],
            twister["key"].tolist(),
            twister["pos"],
            numpy["has_gauss"],
            numpy["gauss"],
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()  # of this process's GPU
    return states


def set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


# --- A share of a batch ---------------------------------------------------------------------
# Random masks are drawn for the whole batch and each share takes its rows, so the result does not
# depend on how a batch is split into processes or parts.

_share: tuple[int, int, int] | None = None


@contextmanager
def batch_share(start: int, count: int, total: int) -> Iterator[None]:
    """Inside, the model sees clips start .. start+count of a batch of `total` clips."""
    global _share
    _share = (start, count, total)
    try:
        yield
    finally:
        _share = None


def rand_rows(shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform random numbers in [0, 1) of this shape; the first dimension counts clips.

    A share without clips draws as well, so all processes keep the same random state.
    """
    if _share is None:
        return torch.rand(shape, device=device)
    start, count, total = _share
    return torch.rand((total, *shape[1:]), device=device)[start : start + count]
