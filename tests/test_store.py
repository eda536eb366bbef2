"""Stored clips: data sets that are whole, damaged, half written, foreign or in the making."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import data.store
from data.clips import ClipDataset
from data.store import INDEX, ArrayWriter
from lib.files import write_json
from lib.locks import try_lock
from tests.mistakes import Call, told
from tests.samples import write_pickle
from tests.stores import T, write_arrays, write_clips

DOOR = "data/preprocess/h36m.py"


# --- Arrays -----------------------------------------------------------------------------------


def test_arrays_come_back(tmp_path):
    poses, clips = write_arrays(tmp_path / "H36M-6")
    for (pose_2d, pose_3d), split in zip(poses, ("train", "test"), strict=True):
        dataset = ClipDataset(tmp_path / "H36M-6", split, T)
        assert len(dataset) == len(clips)
        batch = dataset.__getitems__([3, 0, 3])
        assert batch.clips == [3, 0, 3]
        assert np.array_equal(batch.pose_2d, pose_2d[clips[[3, 0, 3]]])
        assert np.array_equal(batch.pose_3d, pose_3d[clips[[3, 0, 3]]])
        one_2d, one_3d = dataset[3]
        assert torch.equal(one_2d, batch.pose_2d[0])
        assert torch.equal(one_3d, batch.pose_3d[0])
    test = dataset.source.test_frames()
    assert test.actions == ["Eating"]
    assert np.array_equal(test.pose_3d_mm, poses[1, 1])


def test_changing_a_batch_does_not_change_the_files(tmp_path):
    poses, clips = write_arrays(tmp_path)
    batch = ClipDataset(tmp_path, "train", T).__getitems__([0])
    batch.pose_2d.zero_()
    assert np.array_equal(ClipDataset(tmp_path, "train", T)[0][0], poses[0, 0][clips[0]])


def test_ground_truth_2d_is_the_label_with_confidence_1(tmp_path):
    write_arrays(tmp_path)
    pose_2d, pose_3d = ClipDataset(tmp_path, "train", T, use_proj_as_2d=True)[1]
    assert torch.equal(pose_2d[..., :2], pose_3d[..., :2])
    assert (pose_2d[..., 2] == 1).all()


# --- Released folders -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_released_folder_is_read(tmp_path, dtype):
    clips = write_clips(tmp_path, "train", dtype=dtype)
    dataset = ClipDataset(tmp_path, "train", T)
    batch = dataset.__getitems__([2, 0])
    assert len(dataset) == 3
    assert batch.pose_2d.dtype == batch.pose_3d.dtype == torch.float32
    assert np.allclose(batch.pose_2d, clips[[2, 0], 0], atol=1e-6)
    assert np.allclose(batch.pose_3d, clips[[2, 0], 1], atol=1e-6)
    projected = ClipDataset(tmp_path, "train", T, use_proj_as_2d=True)[1][0]
    assert np.allclose(projected[..., :2], clips[1, 1, ..., :2], atol=1e-6)


def test_a_released_clip_without_detections_is_seen_by_projection(tmp_path):
    clips = write_clips(tmp_path, "train")
    content = {"data_input": None, "data_label": clips[1, 1]}
    write_pickle(tmp_path / "train" / "00000001.pkl", content)
    batch = ClipDataset(tmp_path, "train", T).__getitems__([0, 1])
    assert np.array_equal(batch.pose_2d[0], clips[0, 0])
    assert np.array_equal(batch.pose_2d[1, ..., :2], clips[1, 1, ..., :2])
    assert (batch.pose_2d[1, ..., 2] == 1).all()
    assert np.array_equal(batch.pose_3d[1], clips[1, 1])


def test_a_gap_in_a_released_folder_is_named(tmp_path):
    write_clips(tmp_path, "train", count=4)
    (tmp_path / "train" / "00000002.pkl").unlink()
    assert "00000002.pkl is missing" in told(ClipDataset, tmp_path, "train", T)


def test_released_clips_of_another_length_are_named(tmp_path):
    write_clips(tmp_path, "train")
    found = told(ClipDataset, tmp_path, "train", 27)
    assert "clips of 6 frames" in found
    assert "27" in found


@pytest.mark.parametrize(
    "content",
    [
        {"data_input": np.zeros((T, 17, 3))},
        {"data_input": np.zeros((T, 17, 3)), "data_label": np.zeros((T, 16, 3))},
        {"data_input": np.zeros((T, 17, 3)), "data_label": np.zeros((T - 1, 17, 3))},
        {"data_input": "x", "data_label": "y"},
        {"data_input": 1.0, "data_label": 2.0},
        [1, 2],
        3,
        None,
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_wrong_released_clip_is_named(tmp_path, content, number):
    write_clips(tmp_path, "train")
    path = write_pickle(tmp_path / "train" / f"{number:08d}.pkl", content)

    def read_all():
        ClipDataset(tmp_path, "train", T).__getitems__([0, 1, 2])

    assert told(read_all).startswith(f"{path}: ")


def test_a_released_clip_that_would_run_code_is_refused(tmp_path):
    write_clips(tmp_path, "train")
    witness = tmp_path / "witness"
    content = {"data_input": Call(os.mkdir, str(witness))}
    path = write_pickle(tmp_path / "train" / "00000001.pkl", content)
    found = told(ClipDataset(tmp_path, "train", T).__getitems__, [1])
    assert found.startswith(f"{path}: refused, it would run code (")
    assert not witness.exists()


# --- Not there, half there, damaged -----------------------------------------------------------


def test_a_missing_data_set_names_the_command(tmp_path):
    found = told(partial(ClipDataset, door=DOOR), tmp_path / "H36M-27", "train", 27)
    assert found == (
        f"{tmp_path}/H36M-27: no data set; make it with: python data/preprocess/h36m.py"
        f" --n-frames 27 --data-root {tmp_path}"
    )


def test_poses_of_another_skeleton_are_named(tmp_path):
    write_arrays(tmp_path / "arrays")
    write_clips(tmp_path / "clips", "train")
    for folder in (tmp_path / "arrays", tmp_path / "clips"):
        found = told(partial(ClipDataset, num_joints=16), folder, "train", T)
        assert found.startswith(f"{folder}: poses of 17 joints, not of 16")


def test_arrays_of_another_length_are_named(tmp_path):
    write_arrays(tmp_path)
    found = told(ClipDataset, tmp_path, "train", 27)
    assert "clips of 6 frames" in found
    assert "n_frames is 27" in found


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_be_killed(folder, kill_at):
    """write_arrays(folder, seed=1) in a process that is killed there; returns its status."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        if kill_at == "second array":
            save, saved = np.save, []
            np.save = lambda *a, **k: die() if saved else saved.append(save(*a, **k))
        elif kill_at == "rename":
            Path.rename = die
        elif kill_at == "index":
            data.store.write_json = die
        elif kill_at == "clean up":
            shutil.rmtree = die
        write_arrays(folder, seed=1)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize(
    ("kill_at", "had_one"),
    [
        *((where, had_one) for where in ("second array", "rename", "index") for had_one in (0, 1)),
        ("clean up", 1),
    ],
)
def test_a_killed_run_leaves_the_old_data_set_or_none(tmp_path, kill_at, had_one):
    folder = tmp_path / "H36M-6"
    if had_one:
        old, clips = write_arrays(folder)
    assert write_and_be_killed(folder, kill_at) == -signal.SIGKILL
    if kill_at == "clean up":  # the new one is whole already
        assert not np.array_equal(ClipDataset(folder, "train", T)[0][0], old[0, 0][clips[0]])
    elif had_one:
        assert np.array_equal(ClipDataset(folder, "train", T)[0][0], old[0, 0][clips[0]])
    else:
        assert "no data set" in told(ClipDataset, folder, "train", T)
    # A later run puts everything in order.
    new, clips = write_arrays(folder, seed=2)
    assert np.array_equal(ClipDataset(folder, "train", T)[0][0], new[0, 0][clips[0]])
    assert len(os.listdir(folder)) == 2


def stopped_halfway(folder):
    """The folder of a run that was killed while it wrote its arrays."""
    assert write_and_be_killed(folder, "second array") == -signal.SIGKILL
    (left,) = folder.glob(".slicing-*")
    return left


def test_what_a_dead_run_left_is_removed_whoever_has_its_number_now(tmp_path):
    """In a container process numbers start anew: those in old names belong to living processes."""
    folder = tmp_path / "H36M-6"
    left = stopped_halfway(folder)
    for number in {os.getpid(), os.getppid(), 1}:
        shutil.copytree(left, folder / f".slicing-{number}")
    new, clips = write_arrays(folder, seed=2)
    assert np.array_equal(ClipDataset(folder, "train", T)[0][0], new[0, 0][clips[0]])
    assert len(os.listdir(folder)) == 2


def test_a_living_run_is_left_alone(tmp_path):
    """Another process slices from start to end while one is at it; the last one counts."""
    old, clips = write_arrays(tmp_path)
    with ArrayWriter(tmp_path, T, "a.pkl") as writer:
        for split in ("train", "test"):
            writer.add(split, *old[1], clips)
        assert write_and_be_killed(tmp_path, kill_at=None) == 0
        between = ClipDataset(tmp_path, "train", T)[0][0]
        assert not np.array_equal(between, old[0, 0][clips[0]])
        assert write_and_be_killed(tmp_path, "second array") == -signal.SIGKILL
    assert np.array_equal(ClipDataset(tmp_path, "train", T)[0][0], old[1, 0][clips[0]])
    write_arrays(tmp_path, seed=2)
    assert len(os.listdir(tmp_path)) == 2


def test_many_slicings_at_once_leave_one_whole_data_set(tmp_path):
    children = []
    for seed in range(6):
        children.append(os.fork())
        if not children[-1]:
            try:
                for _ in range(5):
                    write_arrays(tmp_path, seed)
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    assert len(os.listdir(tmp_path)) == 2
    found = [ClipDataset(tmp_path, split, T).source.read([0, 1]) for split in ("train", "test")]
    written = []
    for seed in range(6):
        poses, clips = write_arrays(tmp_path / "again", seed)
        written.append([pose[clips[:2]] for split in poses for pose in split])
    equal = [
        all(
            np.array_equal(a, b)
            for a, b in zip([p for pair in found for p in pair], one, strict=True)
        )
        for one in written
    ]
    assert sum(equal) == 1


def test_a_data_set_takes_its_place_under_the_lock(tmp_path, monkeypatch):
    """Two that end at once would otherwise remove each other's arrays."""
    was_free = []

    def write(path, value):
        was_free.append(try_lock(path.parent / ".lock") is not None)
        write_json(path, value)

    monkeypatch.setattr(data.store, "write_json", write)
    write_arrays(tmp_path)
    assert was_free == [False]
    assert try_lock(tmp_path / ".lock") is not None


def damage_json(folder):
    (folder / INDEX).write_text("{")


def damage_arrays(folder):
    for array in folder.glob("arrays-*/train_pose_2d.npy"):
        array.write_bytes(array.read_bytes()[:-100])


def damage_header(folder):
    for array in folder.glob("arrays-*/train_clips.npy"):
        array.write_bytes(b"\x93NUMPY" + bytes(100))


def empty_array(folder):
    for array in folder.glob("arrays-*/train_clips.npy"):
        array.write_bytes(b"")


def remove_arrays(folder):
    for arrays in folder.glob("arrays-*"):
        shutil.rmtree(arrays)


def remove_one(folder):
    for array in folder.glob("arrays-*/train_pose_3d.npy"):
        array.unlink()


def wild_clip(folder):
    for path in folder.glob("arrays-*/train_clips.npy"):
        clips = np.load(path)
        clips[1, 2] = 10**6
        np.save(path, clips)


def negative_clip(folder):
    for path in folder.glob("arrays-*/train_clips.npy"):
        clips = np.load(path)
        clips[0, 0] = -1
        np.save(path, clips)


def pickled_array(folder):
    for path in folder.glob("arrays-*/train_clips.npy"):
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def another_pose(folder):
    for path in folder.glob("arrays-*/train_pose_3d.npy"):
        np.save(path, np.load(path)[:-1])


def change_index(**changes):
    def change(folder):
        path = folder / INDEX
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    change.__name__ = f"index-{'-'.join(changes)}"
    return change


DAMAGE = [
    damage_json, damage_arrays, damage_header, empty_array, remove_arrays, remove_one,
    wild_clip, negative_clip, pickled_array, another_pose,
    change_index(format=99), change_index(arrays="../.."), change_index(arrays=3),
    change_index(splits={}), change_index(splits=[]), change_index(n_frames=5),
    change_index(n_frames="six"),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_a_damaged_data_set_is_told(tmp_path, damage):
    write_arrays(tmp_path)
    damage(tmp_path)
    found = told(partial(ClipDataset, door=DOOR), tmp_path, "train", T)
    assert found == (
        f"{tmp_path}: damaged or half a data set; make it anew with data/preprocess/h36m.py"
    )


@pytest.mark.parametrize("name", ["action", "video", "factor", "pose_3d_mm", "image_size"])
def test_damaged_ground_truth_is_told(tmp_path, name):
    write_arrays(tmp_path)
    (path,) = tmp_path.glob(f"arrays-*/test_{name}.npy")
    np.save(path, np.load(path)[:-1])
    source = ClipDataset(tmp_path, "test", T).source
    assert "damaged or half a data set" in told(source.test_frames)


def test_an_index_that_is_a_list_is_damaged(tmp_path):
    write_arrays(tmp_path)
    (tmp_path / INDEX).write_text("[1, 2]")
    assert "damaged" in told(ClipDataset, tmp_path, "train", T)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "H36M-6").write_text("a file, not a folder")
    assert f"cannot write {tmp_path}/H36M-6: " in told(write_arrays, tmp_path / "H36M-6")


def test_a_full_disk_leaves_the_old_data_set(tmp_path, monkeypatch):
    old, clips = write_arrays(tmp_path)

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", no_space)
    assert "No space left on device; free space" in told(write_arrays, tmp_path, 1)
    monkeypatch.undo()
    assert np.array_equal(ClipDataset(tmp_path, "train", T)[0][0], old[0, 0][clips[0]])
    assert len(os.listdir(tmp_path)) == 2
