"""What all tests share: one thread, fixed seeds, and the optional folder of reference results."""

from pathlib import Path

import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Reference results that are not part of the project; tests that need them skip without."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("no reference results beside the project")
    return folder
