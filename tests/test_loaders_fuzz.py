"""Files from strangers: truncated at each of many positions, with flipped bits, or claiming
absurd sizes, they load correctly or give one clear error; they never run code, crash or hang."""

import contextlib
import importlib
import json
import pickle
import random
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.clips import ClipDataset
from data.safe_pickle import load_pickle
from data.sources.h36m import read_tables
from data.sources.mocap import read_mocap
from data.store import ArrayClips
from demo.keypoint_files import read_keypoints
from lib.checkpoint import load_checkpoint
from lib.errors import UserError
from lib.skeleton import H36M
from tests.mistakes import Call

POSITIONS = 200


def payload(path: Path) -> Call:
    """Unpickled by the ordinary unpickler, it would write a file."""
    return Call(Path.write_text, path, "code has run")


def a_pickle(path: Path) -> None:
    split = {
        "joint_2d": np.zeros((3, 17, 2)),
        "source": ["s_01_act_02"] * 3,
        "factor": np.float64(3.5),
        "nested": ({"a": [1, 2.5, None, True]}, b"bytes"),
    }
    path.write_bytes(pickle.dumps({"train": split, "test": split}))


def a_checkpoint(path: Path) -> None:
    state = {"narrow.0.weight": torch.zeros(6, 8), "embed.weight": torch.ones(8, 3)}
    torch.save({"model": state, "epoch": 3, "max_accuracy": np.float64(0.5)}, path)


def a_clip(path: Path) -> None:
    clip = np.zeros((9, 17, 3), np.float32)
    path.write_bytes(pickle.dumps({"data_input": clip, "data_label": clip}))


def read_clip_folder(path: Path) -> None:
    clips = ClipDataset(path.parents[1], "train", 9)
    assert clips[0][0].shape == (9, 17, 3)


def keypoint_arrays(path: Path) -> None:
    np.savez(path, coco17=np.ones((4, 17, 3), np.float32))


def keypoint_json(path: Path) -> None:
    person = {"image_id": "0.jpg", "keypoints": [1.5] * 51, "score": 1.0, "category_id": 1}
    path.write_text(json.dumps([person | {"image_id": f"{i}.jpg"} for i in range(4)]))


def motion_capture(path: Path) -> None:
    clip = {"subject": "a", "action": "walk", "split": "train", "frames": 60}
    head = {"fps": 50.0, "unit_m": 0.0005, "parents": list(H36M.parents)}
    meta = json.dumps({"head": head, "clips": {"one": clip}})
    np.savez(path, __meta__=np.array(meta), one=np.ones((60, 17, 3), np.int16))


LOADERS: dict[str, tuple[Callable, Callable, str]] = {
    "pickle": (a_pickle, read_tables, "rows.pkl"),
    "checkpoint": (a_checkpoint, load_checkpoint, "best_epoch.pth.tr"),
    "keypoint arrays": (keypoint_arrays, read_keypoints, "keypoints.npz"),
    "keypoint JSON": (keypoint_json, read_keypoints, "keypoints.json"),
    "motion capture": (motion_capture, read_mocap, "mocap.npz"),
    "clip": (a_clip, read_clip_folder, "train/00000000.pkl"),
}


def attempt(load: Callable, path: Path) -> bool:
    """Whether it loads; a refusal must be a UserError with one line that names the file."""
    try:
        load(path)
    except UserError as error:
        assert "\n" not in str(error)
        assert path.name in str(error) or path.parent.name in str(error)
        return False
    return True


@pytest.fixture
def memory_limit():
    """A loader that allocates what a file claims (terabytes) fails here instead of swapping."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", LOADERS)
def test_truncated_anywhere_is_an_error(tmp_path, name):
    make, load, file_name = LOADERS[name]
    path = tmp_path / file_name
    path.parent.mkdir(exist_ok=True)
    make(path)
    whole = path.read_bytes()
    assert attempt(load, path)
    for position in np.linspace(0, len(whole) - 1, POSITIONS).astype(int):
        path.write_bytes(whole[:position])
        assert not attempt(load, path), position


@pytest.mark.parametrize("name", LOADERS)
def test_flipped_bits_load_or_are_an_error(tmp_path, name, memory_limit):
    make, load, file_name = LOADERS[name]
    path = tmp_path / file_name
    path.parent.mkdir(exist_ok=True)
    make(path)
    whole, moments = path.read_bytes(), random.Random(0)
    for _ in range(POSITIONS):
        damaged = bytearray(whole)
        damaged[moments.randrange(len(whole))] ^= 1 << moments.randrange(8)
        path.write_bytes(damaged)
        attempt(load, path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", LOADERS)
def test_code_in_a_file_does_not_run(tmp_path, name, protocol):
    _, load, file_name = LOADERS[name]
    path, trace = tmp_path / file_name, tmp_path / "trace"
    path.parent.mkdir(exist_ok=True)
    if name == "checkpoint":
        torch.save({"model": payload(trace)}, path, pickle_protocol=max(2, protocol))
    else:
        path.write_bytes(pickle.dumps({"train": payload(trace)}, protocol))
    assert not attempt(load, path)
    assert not trace.exists()


def numpy_call(function: str, arguments: tuple) -> bytes:
    """A pickle that calls a function of numpy's that the unpickler has to admit."""
    module, _, name = function.rpartition(".")
    return pickle.dumps(Call(getattr(importlib.import_module(module), name), *arguments), 4)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("numpy._core.multiarray._reconstruct", (np.ndarray, (1 << 40,), b"d")),
        ("numpy._core.multiarray._reconstruct", (bytearray, (1 << 40,), b"d")),
        ("numpy._core.multiarray.scalar", (np.dtype("V2000000000"), b"x")),
        ("numpy.ndarray", ((1 << 40,),)),
    ],
)
def test_terabytes_claimed_by_a_pickle_are_not_allocated(
    tmp_path, memory_limit, function, arguments
):
    path = tmp_path / "rows.pkl"
    path.write_bytes(numpy_call(function, arguments))
    with contextlib.suppress(UserError):
        assert np.asarray(load_pickle(path)).nbytes < 1000


@pytest.mark.parametrize("claim", ["(1099511627776, 17, 3)", "(9, 17, 3, 1000000)", "(-5, 17, 3)"])
def test_absurd_shapes_in_array_files_are_an_error(tmp_path, claim, memory_limit):
    from data.store import ArrayWriter

    directory = tmp_path / "H36M-9"
    pose = np.zeros((20, 17, 3), np.float32)
    with ArrayWriter(directory, 9, "test") as writer:
        writer.add("train", pose, pose, np.arange(18).reshape(2, 9))
    assert len(ArrayClips(directory, "train")) == 2
    file = next(directory.glob("arrays-*/train_pose_2d.npy"))
    content = file.read_bytes()
    shape = b"(20, 17, 3)"
    assert shape in content
    header = content[:128].replace(shape, claim.encode())
    file.write_bytes(header + content[128:])
    with pytest.raises(UserError):
        ArrayClips(directory, "train")


def test_an_index_naming_a_folder_elsewhere_is_an_error(tmp_path):
    (tmp_path / "index.json").write_text(
        json.dumps({"format": 1, "n_frames": 9, "arrays": "../elsewhere", "splits": {"train": {}}})
    )
    with pytest.raises(UserError, match="damaged"):
        ArrayClips(tmp_path, "train")
