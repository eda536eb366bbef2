"""For tests of the command lines: a folder of what they read, and commands that are run there."""

import os
import subprocess
import sys

import numpy as np
import torch

from lib.checkpoint import BEST
from lib.files import PROJECT_ROOT
from tests.samples import (
    CAMERAS,
    h36m_tables,
    released_checkpoint,
    released_pair,
    write_pickle,
)
from tests.test_clips import clips_one_by_one
from tests.test_config import RELEASED_STAGE_1, RELEASED_STAGE_2

T = 9
TABLES = 3  # the seed of tables in which no bin is nearly a tie, see reference.certain_bins
SIZE = {"channel: 64": "channel: 16", "st_depth: 8": "st_depth: 2", "st_depth: 4": "st_depth: 2"}


def smaller(text, data_root):
    """A released config for clips of 9 frames and a small model."""
    for old, new in SIZE.items():
        text = text.replace(old, new)
    text = text.replace("243", str(T)).replace("data/motion3d/", f"{data_root}/")
    text = text.replace("h36m_sh_conf_cam_source_final", "tables").replace(
        "epochs: 120", "epochs: 1"
    )
    return text.replace("batch_size: 16", "batch_size: 4")


def fill_place(place):
    """Data, configs and a pair of released checkpoints."""
    root = place / "data"
    write_pickle(root / "tables.pkl", h36m_tables(TABLES))
    status, out, error = command(
        "data/preprocess/h36m.py", "--n-frames", T, "--data-root", root, "--dt-file", "tables.pkl"
    )
    assert (status, error) == (0, "")
    assert "11 train, 10 test clips of 9 frames" in out
    for name, text in (("first", RELEASED_STAGE_1), ("tiny", RELEASED_STAGE_2)):
        (place / f"{name}.yaml").write_text(smaller(text, root))
    first, second = released_pair()
    released_checkpoint(place / "stage1" / BEST, first)
    released_checkpoint(place / "stage2" / BEST, second, prefix="module.")


def command(script, *arguments, cwd=PROJECT_ROOT):
    """A command in a process of its own: (status, stdout, stderr)."""
    run = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / script), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


def evaluation(place, **changed):
    """The flags of a working evaluation, with some of them changed; None leaves one out."""
    flags = {
        "config": place / "tiny.yaml",
        "checkpoint": place / "stage2",
        "stage1_checkpoint": place / "stage1" / BEST,
        **changed,
    }
    arguments = ["--eval-only"]
    for name, value in flags.items():
        if value is not None:
            arguments += ["--" + name.replace("_", "-"), value]
    return arguments


def one_sentence(result):
    """The message of a command that failed as it should."""
    status, _, error = result
    assert status in (1, 2)
    assert "Traceback" not in error
    lines = error.removesuffix("\n").split("\n")
    assert len(lines) == 1, error
    line = lines[0].rpartition("\r")[2]  # what stands there once a progress bar is wiped out
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def released_clips(use_proj_as_2d=False):
    """The test clips of the file by hand: rows, frame ids and normalised 2D (clips, T, J, 3)."""
    rows = h36m_tables(TABLES)["test"]
    ids = np.array(clips_one_by_one(list(rows["source"]), T, T))
    seen = np.empty((len(rows["source"]), 17, 3))
    for frame, camera in enumerate(rows["camera_name"]):
        width, height = CAMERAS[camera]
        source = rows["joint3d_image"] if use_proj_as_2d else rows["joint_2d"]
        x, y = source[frame, :, :2].astype(np.float64).T
        confidence = 1 if use_proj_as_2d else rows["confidence"][frame, :, 0]
        seen[frame] = np.stack(
            [x / width * 2 - 1, y / width * 2 - height / width, 0 * x + confidence], -1
        )
    return rows, ids, torch.from_numpy(seen.astype(np.float32)[ids])
