"""Checkpoint files that are damaged, foreign or hostile: one sentence, and no code is run."""

import os
import pickle
import random

import numpy as np
import pytest
import torch

from lib.checkpoint import (
    BEST,
    load_checkpoint,
)
from lib.errors import UserError
from tests.mistakes import Call, told


@pytest.mark.parametrize("is_zip", [True, False])
def test_truncated_and_damaged_files_are_one_clear_error(tmp_path, is_zip):
    torch.save(
        {"model": {"head.1.weight": torch.zeros(3, 4)}, "best": np.float64(1)},
        tmp_path / "whole",
        _use_new_zipfile_serialization=is_zip,
    )
    whole = (tmp_path / "whole").read_bytes()
    load_checkpoint(tmp_path / "whole")
    path = tmp_path / BEST
    for length in (*range(60), *range(60, len(whole), 29)):
        path.write_bytes(whole[:length])
        assert told(load_checkpoint, path).startswith(f"{path}: ")
    random.seed(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"model": 3},
        {"model": {"layer1.0.conv1.weight": torch.zeros(2)}},
        {"model": {"a": 3}},
        {"state_dict": {"conv.weight": torch.zeros(2)}},
        {"conv.weight": torch.zeros(2)},
        [torch.zeros(2)],
        torch.zeros(2),
        "text",
        {"model": {"head.1.weight": torch.zeros(2)}, "config": 3},
        {"model": {"head.1.weight": torch.zeros(2)}, "config": {3: 4}},
        {"model": {"head.1.weight": torch.zeros(2)}, "training": [1]},
        {"model": {"head.1.weight": torch.zeros(2)}, "bone_aware": {"a": 1}},
        {"model": {1: torch.zeros(2)}},
    ],
    ids=str,
)
def test_foreign_files_are_told(tmp_path, content):
    torch.save(content, tmp_path / BEST)
    assert told(load_checkpoint, tmp_path / BEST).startswith(f"{tmp_path / BEST}: ")


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\3\4" + b"x" * 500, b"<html>", b"}{"])
def test_files_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / BEST).write_bytes(content)
    assert told(load_checkpoint, tmp_path / BEST).startswith(f"{tmp_path / BEST}: ")


# --- Hostile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["model", "optimizer", "top", "plain pickle", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where):
    witness, path = tmp_path / "witness", tmp_path / BEST
    for attack in (
        Call(os.mkdir, str(witness)),
        Call(os.system, f"mkdir {witness}"),
        Call(eval, f"open({str(witness)!r}, 'w')"),
        Call(np.save, str(witness), [1]),
        Call(torch.save, {}, str(witness)),
    ):
        content = {"model": {"head.1.weight": torch.zeros(2)}, "optimizer": {}}
        if where == "top":
            content = attack
        elif where == "optimizer":
            content["optimizer"] = attack
        else:
            content["model"]["x"] = attack
        if where == "plain pickle":
            path.write_bytes(pickle.dumps({"model": attack}))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=where != "legacy")
        assert "not loaded" in told(load_checkpoint, path)
        assert not witness.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / BEST)
    assert "not loaded" in told(load_checkpoint, tmp_path / BEST)
