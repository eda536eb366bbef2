"""What all tests share: one thread, fixed seeds, and the optional folder of reference results."""

import warnings
from collections.abc import Generator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.skips import NEEDS_SHARED, SHARED, refuse_skip


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "a skipped test fails, unless it needs a GPU or ../shared and there is none"
    parser.addoption("--no-skips", action="store_true", help=text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--no-skips"):
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.getoption("--no-skips"):
        refuse_skip(report)
    return report


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
def data(tmp_path_factory) -> Path:
    """48 synthetic training clips, configs of both stages, and a stage 1 trained on them."""
    from tests.training import make_data, run_train  # imports the whole project

    root = tmp_path_factory.mktemp("data")
    make_data(root)
    status, _, errors = run_train(
        "--config", root / "stage1.yaml", "--new-checkpoint", root / "stage1", "--seed", 3
    )
    assert status == 0, errors
    return root


@pytest.fixture(scope="session")
def uninterrupted(data, tmp_path_factory) -> tuple[dict, list[dict]]:
    """The latest checkpoint and the history of two epochs of stage 2."""
    from tests.training import read_run, run_train, stage2_flags

    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    status, _, errors = run_train(*stage2_flags(data, folder))
    assert status == 0, errors
    return read_run(folder)


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Reference results that are not part of the project; tests that need them skip without."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip(NEEDS_SHARED)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Random weights of a small model, for the demo: its plumbing is tested, not the poses."""
    from lib.checkpoint import save_checkpoint
    from lib.config import make_config
    from model.build import build_bone_aware, build_lifter

    torch.manual_seed(0)
    training = {"learning_rate": 1e-3, "batch_size": 1, "epochs": 1}
    first = make_config({**training, "channel": 16, "st_depth": 2, "n_frames": 9}, "test", 1)
    second = make_config({**training, "channel": 16, "st_depth": 2, "n_frames": 9}, "test", 2)
    path = tmp_path_factory.mktemp("run") / "best_epoch.pth.tr"
    contents = {
        "model": build_lifter(second).state_dict(),
        "bone_aware": build_bone_aware(first).state_dict(),
        "config": second.as_dict(),
        "epoch": 1,
    }
    save_checkpoint(path, contents)
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from tests.browser import CHROMIUM, Browser

    if CHROMIUM is None:
        pytest.skip("needs chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint of the forms that differ most from the published ones, and its ONNX file."""
    from lib.export import main
    from tests.exported import FORMS, saved

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    source, out = saved(folder / "best_epoch.pth.tr", FORMS["person"]), folder / "m.onnx"
    assert main(["--checkpoint", str(source), "--out", str(out)]) == 0
    return source, out


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with data, configs and a pair of released checkpoints, to be read by commands."""
    from tests.commands import fill_place

    place = tmp_path_factory.mktemp("commands")
    fill_place(place)
    return place


@pytest.fixture
def train_py(monkeypatch):
    """train.py in this process: called with arguments, returns (status, stdout, stderr)."""
    import train
    from tests.training import run_command

    def run(*arguments, **fixed):
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        return run_command(partial(train.main, **fixed), arguments)

    return run


@pytest.fixture
def slice_py():
    """data/preprocess/h36m.py in this process, likewise."""
    from data.preprocess import h36m
    from tests.training import run_command

    return lambda *arguments: run_command(h36m.main, arguments)
