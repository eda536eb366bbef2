"""The command lines from end to end: right numbers, and one clear sentence for every mistake."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import numpy as np
import pytest
import torch

import lib.files
import train
import train_firststage
import train_twostage
from data.preprocess import h36m
from lib.checkpoint import BEST, LATEST, load_checkpoint
from lib.cli import exit_status
from lib.errors import UserError
from lib.files import PROJECT_ROOT
from model.ops import resolve_backend
from tests import reference
from tests.samples import (
    CAMERAS,
    h36m_tables,
    released_checkpoint,
    released_pair,
    write_pickle,
)
from tests.test_clips import clips_one_by_one
from tests.test_config import RELEASED_STAGE_1, RELEASED_STAGE_2
from tests.test_evaluation import by_loops

T = 9
CPU = torch.device("cpu")
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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, configs and a pair of released checkpoints."""
    place = tmp_path_factory.mktemp("commands")
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
    return place


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


@pytest.fixture
def train_py(monkeypatch, capsys):
    """train.py in this process: called with arguments, returns (status, stdout, stderr)."""

    def run(*arguments, **fixed):
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        capsys.readouterr()
        status = exit_status(partial(train.main, [str(a) for a in arguments], **fixed))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def slice_py(capsys):
    """data/preprocess/h36m.py in this process, likewise."""

    def run(*arguments):
        status = exit_status(partial(h36m.main, [str(a) for a in arguments]))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


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


# --- Evaluation of released checkpoints -------------------------------------------------------


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
        *("train.py", "--eval-only", "--config", place / "tiny.yaml"),
        *("--checkpoint", place / "stage2", "--report", report),
        *("--stage1-checkpoint", place / "stage1" / BEST),
        cwd=tmp_path,
    )
    assert status == 0, error
    found, expected = json.loads(report.read_text()), expected_report()
    assert set(found) == {
        *("mpjpe", "p_mpjpe", "mpjve", "acceleration"),
        *("per_action", "per_joint", "frames"),
    }
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
        *("--eval-only", "--config", place / "tiny.yaml", "--checkpoint", place / "stage2"),
        *("--stage1-checkpoint", place / "stage1", "--set", key, "--report", tmp_path / "r.json"),
    )
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
        *("--eval-only", "--config", place / "tiny.yaml", "--checkpoint", place / "stage2"),
        *("--stage1-checkpoint", place / "stage1" / BEST, "--report", tmp_path / "r.json"),
        *("--set", f"data_root={tmp_path / 'data'}"),
    )
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
        *("--eval-only", "--config", place / "first.yaml", "--checkpoint", place / "stage1"),
        *("--report", tmp_path / "r.json"),
    )
    assert status == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    assert {*("accuracy", "accuracy_released", "precision", "recall", "f1", "confusion")} <= set(
        found
    )

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


# --- Training, then evaluation of what it wrote -----------------------------------------------


def test_both_stages_then_evaluation_of_the_second_alone(place, tmp_path, train_py, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = train_py(
        *("--config", place / "first.yaml", "--new-checkpoint", "one", "--set", "epochs=1"),
        stage=1,
        output="checkpoint/stage1",
    )
    assert status == 0, error
    status, _, error = train_py(
        *("--config", place / "tiny.yaml", "--new-checkpoint", "two"),
        *("--stage1-checkpoint", f"one/{BEST}"),
        stage=2,
        output="checkpoint/stage2",
    )
    assert status == 0, error
    assert {BEST, LATEST, "history.jsonl"} <= set(os.listdir("two"))
    (line,) = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    trained = json.loads(line)
    shutil.rmtree("one")
    # It carries its stage 1 and its config: it evaluates alone, to the number of its history.
    status, _, error = train_py("--eval-only", "--checkpoint", "two", "--report", "r.json")
    assert status == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        assert found[name] == pytest.approx(trained[f"test/{name}"], rel=1e-6)
    # A second run must not write over the first.
    before = {name: (tmp_path / "two" / name).read_bytes() for name in (BEST, LATEST)}
    message = one_sentence(
        train_py(
            *("--config", place / "tiny.yaml", "--new-checkpoint", "two"),
            *("--stage1-checkpoint", place / "stage1" / BEST),
        )
    )
    assert "two: " in message
    assert "--resume" in message
    assert before == {name: (tmp_path / "two" / name).read_bytes() for name in (BEST, LATEST)}


@pytest.mark.parametrize(
    ("script", "config"), [("train_firststage", "first"), ("train_twostage", "large")]
)
def test_the_released_scripts_have_a_default_config(script, config):
    status, _, error = command(f"{script}.py", "--set", "chanel=1")
    assert status == 2
    assert error.startswith(f"error: configs/h36m/{config}.yaml: no key 'chanel'")


def test_the_default_config_comes_last(place, tmp_path, train_py, monkeypatch):
    """What the user names, else the checkpoint's own, else the script's default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default.yaml").write_text((place / "tiny.yaml").read_text() + "lambda_a: 0.5\n")
    door = {"stage": 2, "output": "checkpoint/stage2", "default_config": "default.yaml"}
    stage1 = ("--stage1-checkpoint", place / "stage1" / BEST)

    def trained_with(folder, *arguments):
        status, _, error = train_py("--new-checkpoint", folder, *stage1, *arguments, **door)
        assert status == 0, error
        return load_checkpoint(tmp_path / folder / BEST).config["lambda_a"]

    named = ("--config", place / "tiny.yaml", "--set", "lambda_a=0.25")
    assert trained_with("named", *named) == 0.25
    assert trained_with("default") == 0.5
    assert trained_with("own", "--checkpoint", "named") == 0.25
    assert trained_with("released", "--checkpoint", place / "stage2") == 0.5


def test_a_command_leaves_nothing_behind_for_the_next_one(place, tmp_path, monkeypatch):
    """main(argv) twice in one process: each prints to its own stdout, with its own backend."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    told = []
    for more in (["--scan-backend", "sequential"], []):
        stage1 = ["--config", place / "first.yaml", "--checkpoint", place / "stage1"]
        with redirect_stdout(StringIO()) as out:
            arguments = ["--eval-only", *stage1, "--set", "batch_size=2", *more]
            assert train_firststage.main([str(argument) for argument in arguments]) == 0
        told.append([line for line in out.getvalue().splitlines() if "scan backend" in line])
    (first,), (second,) = told
    assert first == "scan backend sequential (asked for)"
    assert second.startswith(f"scan backend {resolve_backend('auto', CPU, torch.float32)[0]} ")
    with pytest.raises(UserError, match="stage 1"):
        train_twostage.main(["--eval-only", *map(str, stage1)])


def test_the_log_file_of_a_run_gets_its_own_lines_only(place, tmp_path, train_py):
    for name in ("one", "two"):
        run = ("--config", place / "first.yaml", "--new-checkpoint", tmp_path / name)
        status, _, error = train_py(*run, "--set", "epochs=1", "--use-log")
        assert status == 0, error
    log = (tmp_path / "one" / "train.log").read_text()
    assert log.count("epoch 1/1") == 1


# --- Slicing from anywhere --------------------------------------------------------------------


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


# --- Mistakes ---------------------------------------------------------------------------------


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


def test_a_report_that_cannot_be_written(place, tmp_path, train_py):
    (tmp_path / "file").touch()
    status, out, error = train_py(*evaluation(place, report=tmp_path / "file" / "r.json"))
    assert f"cannot write {tmp_path}/file/r.json" in one_sentence((status, out, error))


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


class Attack:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_hostile_files_in_real_commands(place, tmp_path):
    """Pickle and checkpoint, each in a process of its own: one line, and nothing was run."""
    witness = tmp_path / "witness"
    write_pickle(tmp_path / "a.pkl", {"train": {"joint_2d": Attack(witness)}, "test": {}})
    slicing = ("data/preprocess/h36m.py", "--data-root", tmp_path, "--dt-file", "a.pkl")
    message = one_sentence(command(*slicing, cwd=tmp_path))
    assert f"{tmp_path}/a.pkl: refused, it would run code (posix.mkdir)" in message
    torch.save({"model": Attack(witness)}, tmp_path / BEST)
    message = one_sentence(command("train.py", *evaluation(place, checkpoint=tmp_path)))
    assert f"{tmp_path}/{BEST}: not loaded" in message
    assert not witness.exists()
    assert not (tmp_path / "H36M-243").exists()


def test_a_truncated_pickle(place, tmp_path, slice_py):
    path = tmp_path / "a.pkl"
    path.write_bytes((place / "data" / "tables.pkl").read_bytes()[:-5000])
    message = one_sentence(slice_py("--data-root", tmp_path, "--dt-file", "a.pkl"))
    assert f"{tmp_path}/a.pkl: damaged" in message
    assert os.listdir(tmp_path) == ["a.pkl"]


@pytest.mark.parametrize("n_frames", ["0", "-3", "many", "2.5"])
def test_clip_lengths_that_are_none(n_frames, slice_py):
    assert "--n-frames" in one_sentence(slice_py("--n-frames", n_frames))
