"""Slicing by command: from anywhere, and one clear sentence for what cannot be sliced."""

import os
import shutil

import pytest

from lib.files import PROJECT_ROOT
from tests.commands import command, one_sentence


def test_slicing_from_inside_its_folder(place, tmp_path):
    """The default --data-root is the project's data/motion3d, not one below the script's folder."""
    shutil.copy(place / "data" / "tables.pkl", tmp_path / "a.pkl")
    arguments = ("--n-frames", 5, "--data-root", tmp_path, "--dt-file", "a.pkl")
    status, _, error = command(
        "data/preprocess/h36m.py", *arguments, cwd=PROJECT_ROOT / "data" / "preprocess"
    )
    assert (status, error) == (0, "")
    assert (tmp_path / "H36M-5" / "index.json").is_file()


def test_slicing_without_a_file(slice_py, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = one_sentence(slice_py("--dt-file", "no such.pkl"))
    assert "data/motion3d/no such.pkl: no such file" in message
    assert "data/preprocess/synthetic.py" in message
    assert os.listdir(tmp_path) == []


def test_a_truncated_pickle(place, tmp_path, slice_py):
    path = tmp_path / "a.pkl"
    path.write_bytes((place / "data" / "tables.pkl").read_bytes()[:-5000])
    message = one_sentence(slice_py("--data-root", tmp_path, "--dt-file", "a.pkl"))
    assert f"{tmp_path}/a.pkl: damaged" in message
    assert os.listdir(tmp_path) == ["a.pkl"]


@pytest.mark.parametrize("n_frames", ["0", "-3", "many", "2.5"])
def test_clip_lengths_that_are_none(n_frames, slice_py):
    assert "--n-frames" in one_sentence(slice_py("--n-frames", n_frames))
