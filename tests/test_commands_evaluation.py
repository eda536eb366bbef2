"""Evaluation by command: a released pair has the numbers that formulas and loops give."""

import json
import shutil

import numpy as np
import pytest
import torch

from lib.checkpoint import BEST
from tests import reference
from tests.commands import command, evaluation, one_sentence, released_clips
from tests.samples import (
    released_pair,
    write_pickle,
)
from tests.test_evaluation import by_loops


def expected_report(flip=True, slots="released", use_proj_as_2d=False, root_rel=True):
    """The whole command line's numbers by tests/reference.py and loops; nothing of ours runs."""
    rows, ids, clips = released_clips(use_proj_as_2d)
    states = released_pair()
    poses = reference.mdtf(*states, clips, slots)
    if flip:
        turned = reference.mirrored(reference.mdtf(*states, reference.mirrored(clips), slots))
        poses = (poses + turned) / 2
    return by_loops(rows, ids, poses.numpy(), root_rel)


def test_a_released_pair_evaluates_to_the_protocols_numbers(place, tmp_path):
    """In a process of its own, from a folder that is not the project's."""
    report = tmp_path / "new" / "report.json"
    status, out, error = command(
        "train.py", "--eval-only", "--config", place / "tiny.yaml",
        "--checkpoint", place / "stage2", "--report", report,
        "--stage1-checkpoint", place / "stage1" / BEST,
        cwd=tmp_path,
    )  # fmt: skip
    assert status == 0, error
    found, expected = json.loads(report.read_text()), expected_report()
    assert set(found) == {
        "protocol", "mpjpe", "p_mpjpe", "mpjve", "acceleration",
        "per_action", "per_joint", "frames",
    }  # fmt: skip
    assert found["protocol"] == "h36m"
    compare_to_a_hundredth(found, expected)
    average = next(line for line in out.splitlines() if line.startswith("average"))
    assert average.split()[1:3] == [f"{found[name]:.2f}" for name in ("mpjpe", "p_mpjpe")]
    assert "scan backend" in out


def compare_to_a_hundredth(found, expected):
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        assert abs(found[name] - expected[name]) < 0.01, name
    for action, errors in expected["per_action"].items():
        for name, value in errors.items():
            assert abs(found["per_action"][action][name] - value) < 0.01, (action, name)
    for joint, value in expected["per_joint"].items():
        assert abs(found["per_joint"][joint] - value) < 0.01, joint
    assert found["frames"] == expected["frames"]


@pytest.mark.parametrize(
    ("key", "keywords"),
    [
        ("flip=false", {"flip": False}),
        ("bone_slots=child", {"slots": "child"}),
        ("use_proj_as_2d=true", {"use_proj_as_2d": True}),
        ("root_rel=false", {"root_rel": False}),
    ],
)
def test_settings_change_the_evaluation_as_they_should(place, tmp_path, train_py, key, keywords):
    """Also: --stage1-checkpoint may be a folder."""
    status, _, error = train_py(
        "--eval-only", "--config", place / "tiny.yaml", "--checkpoint", place / "stage2",
        "--stage1-checkpoint", place / "stage1", "--set", key, "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert status == 0, error
    compare_to_a_hundredth(
        json.loads((tmp_path / "r.json").read_text()), expected_report(**keywords)
    )


def test_a_released_clip_folder_gives_the_same_table(place, tmp_path, train_py):
    _, ids, clips = released_clips()
    (tmp_path / "data").mkdir()
    shutil.copy(place / "data" / "tables.pkl", tmp_path / "data")
    for number, clip in enumerate(clips.numpy()):
        content = {"data_input": clip, "data_label": np.zeros_like(clip)}
        write_pickle(tmp_path / "data" / "H36M-9" / "test" / f"{number:08d}.pkl", content)
    status, _, error = train_py(
        "--eval-only", "--config", place / "tiny.yaml", "--checkpoint", place / "stage2",
        "--stage1-checkpoint", place / "stage1" / BEST, "--report", tmp_path / "r.json",
        "--set", f"data_root={tmp_path / 'data'}",
    )  # fmt: skip
    assert status == 0, error
    compare_to_a_hundredth(json.loads((tmp_path / "r.json").read_text()), expected_report())
    assert len(ids) == 10


def test_a_test_clip_that_is_not_finite_is_named(place, tmp_path, train_py):
    """Not the weights are blamed for it."""
    _, _, clips = released_clips()
    clips[3, 4, 5, 0] = torch.nan
    (tmp_path / "data").mkdir()
    shutil.copy(place / "data" / "tables.pkl", tmp_path / "data")
    for number, clip in enumerate(clips.numpy()):
        content = {"data_input": clip, "data_label": np.zeros_like(clip)}
        write_pickle(tmp_path / "data" / "H36M-9" / "test" / f"{number:08d}.pkl", content)
    result = train_py(*evaluation(place), "--set", f"data_root={tmp_path / 'data'}")
    assert "H36M-9/test/00000003.pkl: holds a number that is not finite" in one_sentence(result)


def test_stage_1_evaluates_to_the_formulas_scores(place, tmp_path, train_py):
    status, out, error = train_py(
        "--eval-only", "--config", place / "first.yaml", "--checkpoint", place / "stage1",
        "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert status == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    assert {"accuracy", "accuracy_released", "precision", "recall", "f1", "confusion"} <= set(found)

    rows, ids, clips = released_clips()
    bins = reference.certain_bins(reference.bone_aware(released_pair()[0], clips)).numpy()
    confusion = np.zeros((6, 6), int)
    for clip, frame in np.ndindex(ids.shape):
        pose = rows["joint3d_image"][ids[clip, frame]].astype(float)
        for joint, parent in enumerate(reference.PARENTS):
            if parent >= 0:
                bone = pose[joint] - pose[parent]
                degrees = np.degrees(np.arccos(bone[2] / np.linalg.norm(bone)))
                confusion[int(degrees // 30), bins[clip, frame, joint]] += 1
    assert found["confusion"] == confusion.tolist()
    hits, total = confusion.trace(), confusion.sum()
    assert total == 16 * ids.size
    assert found["accuracy"] == pytest.approx(hits / total)
    assert found["accuracy_released"] == pytest.approx((hits + ids.size) / (total + ids.size))
    assert f"{found['accuracy']:.2%}" in out
