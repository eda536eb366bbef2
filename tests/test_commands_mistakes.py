"""Commands that train or evaluate: one clear sentence for every mistake, and nothing is lost."""

import os
import shutil

import pytest
import torch

import lib.files
from lib.checkpoint import BEST, LATEST
from tests import reference
from tests.commands import command, evaluation, one_sentence
from tests.mistakes import Call
from tests.samples import (
    released_checkpoint,
    released_pair,
    write_pickle,
)


def test_mistakes_in_configs(place, tmp_path, train_py):
    def told(*overrides, **changed):
        extra = [part for item in overrides for part in ("--set", item)]
        return one_sentence(train_py(*evaluation(place, **changed), *extra))

    message = told(config="configs/h36m/tyni.yaml")
    assert "configs/h36m/tyni.yaml: no such config file" in message
    assert "configs/h36m/tiny.yaml" in message
    (tmp_path / "a.yaml").write_text((place / "tiny.yaml").read_text() + "chanel: 3\n")
    message = told(config=tmp_path / "a.yaml")
    assert message == f"{tmp_path}/a.yaml: no key 'chanel'; did you mean 'channel'?"
    assert "did you mean 'epochs'?" in told("epoch=3")
    assert "'learning_rate': 'fast' is not a number" in told("learning_rate=fast")
    assert "'n_frames': 0 is too small" in told("n_frames=0")
    assert "'fusion': 'mena' is not one of" in told("fusion=mena")
    assert "did you mean 'mean'?" in told("fusion=mena")
    (tmp_path / "b.yaml").write_text("a: [1")
    assert f"{tmp_path}/b.yaml: not a readable YAML file" in told(config=tmp_path / "b.yaml")
    assert "stage 1" in one_sentence(
        train_py("--config", place / "first.yaml", stage=2, output="x")
    )
    assert "train_firststage.py" in one_sentence(
        train_py("--config", "configs/mocap/first.yaml", stage=2, output="x")
    )


def test_mistakes_in_data(place, tmp_path, train_py):
    def told(*overrides):
        extra = [part for item in overrides for part in ("--set", item)]
        return one_sentence(train_py(*evaluation(place), *extra))

    message = told(f"data_root={tmp_path}/none")
    assert f"{tmp_path}/none/H36M-9: no data set" in message
    assert f"python data/preprocess/h36m.py --n-frames 9 --data-root {tmp_path}/none" in message
    shutil.copytree(place / "data" / "H36M-9", tmp_path / "H36M-9")
    for array in (tmp_path / "H36M-9").glob("arrays-*/test_pose_2d.npy"):
        array.write_bytes(array.read_bytes()[:1000])
    message = told(f"data_root={tmp_path}")
    assert f"{tmp_path}/H36M-9: damaged" in message
    assert "data/preprocess/h36m.py" in message


def test_clips_of_another_length_than_the_config(place, tmp_path, train_py):
    weights = reference.random_weights(reference.lifter_shapes(16, 2, 27), seed=2)
    released_checkpoint(tmp_path / BEST, weights)
    message = one_sentence(
        train_py(*evaluation(place, checkpoint=tmp_path), "--set", "n_frames=27")
    )
    assert "H36M-9: clips of 9 frames, the config's n_frames is 27" in message


def test_mistakes_in_checkpoints(place, tmp_path, train_py):
    def told(*overrides, **changed):
        extra = [part for item in overrides for part in ("--set", item)]
        return one_sentence(train_py(*evaluation(place, **changed), *extra))

    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty/{BEST}: no such checkpoint" in told(checkpoint=tmp_path / "empty")
    message = told(checkpoint_file="latest.pth.tr")
    assert f"stage2/latest.pth.tr: no such checkpoint; there: {BEST}" in message
    assert "no such folder" in told(checkpoint=tmp_path / "none")
    assert f"{tmp_path}/x.pth.tr: no such checkpoint" in told(
        stage1_checkpoint=tmp_path / "x.pth.tr"
    )

    (tmp_path / "foreign").mkdir()
    torch.save({"model": {"conv1.weight": torch.zeros(2)}}, tmp_path / "foreign" / BEST)
    message = told(checkpoint=tmp_path / "foreign")
    assert f"foreign/{BEST}: these are not weights of MDTF" in message
    assert "'conv1.weight'" in message
    (tmp_path / "cut").mkdir()
    whole = (place / "stage2" / BEST).read_bytes()
    (tmp_path / "cut" / BEST).write_bytes(whole[: len(whole) // 2])
    assert f"cut/{BEST}: " in told(checkpoint=tmp_path / "cut")

    message = told("channel=32")
    assert f"stage2/{BEST}: does not fit the config: " in message
    assert "(1, 17, 16), the config makes it (1, 17, 32)" in message
    message = told("n_frames=27")
    assert "(1, 9, 16), the config makes it (1, 27, 16)" in message
    assert "stage 1" in told(checkpoint=place / "stage1")
    assert "stage 2" in told(stage1_checkpoint=place / "stage2" / BEST)
    assert "stage 1" in told(config=place / "first.yaml")


def test_a_missing_stage_1_says_how_to_get_one(place, tmp_path, train_py, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lib.files, "PROJECT_ROOT", tmp_path)
    message = one_sentence(train_py(*evaluation(place, stage1_checkpoint=None)))
    assert f"checkpoint/stage1/{BEST}: no stage-1 checkpoint" in message
    assert "train_firststage.py" in message
    assert "--stage1-checkpoint" in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--eval-only"], "--eval-only needs --checkpoint"),
        (["--resume"], "--resume needs --checkpoint"),
        (["--config", "configs/h36m/tiny.yaml"], "--new-checkpoint"),
        (["--eval-only", "--resume", "--checkpoint", "x"], "exclude each other"),
        (["--report", "r.json", "--new-checkpoint", "x"], "--report belongs to --eval-only"),
        (["--new-checkpoint", "x"], "--config FILE is missing"),
        (["--new-checkpoint", "x", "--num-cpus", "0"], "--num-cpus: '0' is not a whole number"),
        (["--new-checkpoint", "x", "--seed", "-1"], "--seed: '-1' is not a whole number"),
        (["--new-checkpoint", "x", "--seed", "one"], "--seed: 'one' is not"),
        (["--epoch", "3"], "--epoch"),
    ],
)
def test_mistakes_in_flags(train_py, arguments, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert part in one_sentence(train_py(*arguments))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta"])
def test_a_device_that_is_not_there(place, train_py, device):
    assert f"--device {device}" in one_sentence(train_py(*evaluation(place), "--device", device))


def test_an_unknown_scan_backend(place, train_py, monkeypatch):
    message = one_sentence(train_py(*evaluation(place), "--scan-backend", "cude"))
    assert "cude" in message
    monkeypatch.setenv("MDTF_SCAN_BACKEND", "tourch")
    assert "did you mean 'torch'?" in one_sentence(train_py(*evaluation(place)))


def test_weights_that_are_not_finite(place, tmp_path, train_py):
    weights = released_pair()[1] | {"head.1.bias": torch.full((3,), float("nan"))}
    released_checkpoint(tmp_path / BEST, weights)
    message = one_sentence(train_py(*evaluation(place, checkpoint=tmp_path)))
    assert "not finite" in message


# --- What may not be written over ------------------------------------------------------------


def test_a_report_that_cannot_be_written(place, tmp_path, train_py):
    (tmp_path / "file").touch()
    status, out, error = train_py(*evaluation(place, report=tmp_path / "file" / "r.json"))
    assert f"cannot write {tmp_path}/file/r.json" in one_sentence((status, out, error))
    assert "MPJPE" not in out  # before the evaluation


@pytest.mark.parametrize(
    "source", ["tiny.yaml", f"stage1/{BEST}", f"stage2/{BEST}", "data/tables.pkl"]
)
def test_a_report_never_replaces_what_is_evaluated(place, tmp_path, train_py, source):
    before = (place / source).read_bytes()
    os.link(place / source, tmp_path / "r.json")
    for name in (place / source, tmp_path / "r.json"):
        message = one_sentence(train_py(*evaluation(place, report=name)))
        assert message.startswith(f"{name}: is read from too (as ")
    assert (place / source).read_bytes() == before == (tmp_path / "r.json").read_bytes()


@pytest.mark.parametrize("name", [LATEST, "run.json", "history.jsonl", "config.yaml"])
def test_a_report_never_replaces_what_a_resumed_run_would_read(place, tmp_path, train_py, name):
    for file in (BEST, name):
        shutil.copy(place / "stage2" / BEST, tmp_path / file)
    before = (tmp_path / name).read_bytes()
    arguments = evaluation(place, checkpoint=tmp_path, report=tmp_path / name)
    assert f"{name}: is read from too" in one_sentence(train_py(*arguments))
    assert (tmp_path / name).read_bytes() == before


def test_a_report_without_a_name_is_told(place, train_py):
    assert "--report : no file's name" in one_sentence(train_py(*evaluation(place, report="")))


def test_a_new_run_does_not_replace_its_config(place, tmp_path, train_py):
    config = shutil.copy(place / "first.yaml", tmp_path / "config.yaml")
    message = one_sentence(train_py("--config", config, "--new-checkpoint", tmp_path))
    assert message.startswith(f"{config}: is read from too")
    assert config.read_bytes() == (place / "first.yaml").read_bytes()


def test_a_training_that_cannot_write(place, tmp_path, train_py):
    (tmp_path / "file").touch()
    message = one_sentence(
        train_py("--config", place / "first.yaml", "--new-checkpoint", tmp_path / "file" / "run")
    )
    assert "file/run" in message


# --- Hostile files ---------------------------------------------------------------------------


def test_hostile_files_in_real_commands(place, tmp_path):
    """Pickle and checkpoint, each in a process of its own: one line, and nothing was run."""
    witness = tmp_path / "witness"
    attack = Call(os.mkdir, str(witness))
    write_pickle(tmp_path / "a.pkl", {"train": {"joint_2d": attack}, "test": {}})
    slicing = ("data/preprocess/h36m.py", "--data-root", tmp_path, "--dt-file", "a.pkl")
    message = one_sentence(command(*slicing, cwd=tmp_path))
    assert f"{tmp_path}/a.pkl: refused, it would run code (posix.mkdir)" in message
    torch.save({"model": attack}, tmp_path / BEST)
    message = one_sentence(command("train.py", *evaluation(place, checkpoint=tmp_path)))
    assert f"{tmp_path}/{BEST}: not loaded" in message
    assert not witness.exists()
    assert not (tmp_path / "H36M-243").exists()
