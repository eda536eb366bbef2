"""A data set is one source and one entry: a mock one is sliced, trained on and evaluated."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from data.benchmark import Benchmark
from data.benchmarks import BENCHMARKS, find_benchmark
from data.clips import adjacent_clips, overlapping_clips
from data.sequences import Sequences, Video
from lib.camera import Camera, to_screen
from lib.checkpoint import BEST
from lib.config import load_config, make_config
from lib.errors import UserError
from lib.evaluation.protocol import Protocol
from lib.evaluation.report import Report
from lib.files import PROJECT_ROOT
from lib.skeleton import Skeleton
from tests.training import CONFIG, make_data, run_train

NAMES = ("head", "hip", "left_hand", "right_hand", "left_foot", "right_foot")
PUPPET = Skeleton(NAMES, (1, -1, 0, 0, 1, 1))  # six joints, root 1
CAMERA = Camera("toy", (640, 480), (500.0, 500.0), (320.0, 240.0))


def read_puppets(path, splits):
    """Metres in the camera's axes, a photographer's pixels, and a seed as the file."""
    rng = np.random.default_rng(int(path.read_text()))
    for split in splits:
        videos = [Video(f"{split} {k}", CAMERA, "dance", "Ann", 25.0, 20) for k in range(2)]
        metres = rng.normal([0, 0, 4], 0.3, (40, 6, 3))
        pixels, factor = CAMERA.project(metres), np.full(40, 1000 * 2 / CAMERA.size[0])
        yield split, Sequences(videos, pixels, np.ones((40, 6)), metres, factor, 1000 * metres)


def puppet_units(sequences):
    """Labels in metres from the root, as in the metric data sets."""
    seen = to_screen(sequences.joint_2d, sequences.image_size)
    pose_3d = sequences.joint_3d - sequences.joint_3d[:, PUPPET.root, None]
    pose_2d = np.concatenate([seen, sequences.confidence[..., None]], axis=-1)
    return pose_2d.astype(np.float32), pose_3d.astype(np.float32)


def last_frames(poses, clips, frames, skeleton, *, root_rel=True, last_window):
    """A protocol of its own: the last frame of each clip counts."""
    assert last_window == "once"
    truth = frames.pose_3d_mm - frames.pose_3d_mm[:, skeleton.root, None]
    found = 1000.0 * (poses[:, -1] - poses[:, -1, skeleton.root, None])
    errors = np.linalg.norm(found - truth[clips[:, -1]], axis=-1)
    per_joint = dict(zip(skeleton.names, errors.mean(0).tolist(), strict=True))
    return Report({"mpjpe": float(errors.mean())}, {}, per_joint, len(clips))


@pytest.fixture
def puppets(tmp_path, monkeypatch):
    benchmark = Benchmark(
        name="puppets",
        skeleton=PUPPET,
        source="seed.txt",
        read=read_puppets,
        door="data/preprocess/puppets.py",
        prefix="Puppets",
        units=puppet_units,
        train_windows=overlapping_clips,
        test_windows=adjacent_clips,
        protocols=(Protocol("last", "the last frame of each clip", last_frames),),
        projects=False,
        choices={"last_window": ("twice", "once")},
    )
    monkeypatch.setitem(BENCHMARKS, "puppets", benchmark)
    (tmp_path / "seed.txt").write_text("3")
    counts = benchmark.slice(tmp_path / "seed.txt", tmp_path / "Puppets-9", 9)
    assert counts == {"train": 8, "test": 4}
    for stage in (1, 2):
        text = CONFIG.format(stage=stage, root=tmp_path).replace("dt_file: synthetic.pkl", "")
        (tmp_path / f"stage{stage}.yaml").write_text(text + "dataset: puppets\nlast_window: once\n")
    return tmp_path


def train(place, stage, *more):
    flags = ("--config", place / f"stage{stage}.yaml", "--new-checkpoint", place / f"run{stage}")
    return run_train(*flags, *more)


def test_a_mock_data_set_trains_and_evaluates(puppets):
    """Both stages; the numbers are its own protocol's, from its own labels and joints."""
    assert train(puppets, 1)[0] == 0
    stage1 = ("--stage1-checkpoint", puppets / "run1" / BEST)
    status, _, errors = train(puppets, 2, *stage1)
    assert status == 0, errors
    again = ("--eval-only", "--checkpoint", puppets / "run2", "--report", puppets / "r.json")
    status, out, errors = run_train(*again)
    assert status == 0, errors
    report = json.loads((puppets / "r.json").read_text())
    assert set(report["per_joint"]) == set(NAMES)
    assert report["per_joint"]["hip"] == 0
    assert 100 < report["mpjpe"] < 1000  # of metres: a label in pixels would give other numbers
    assert "left_hand" in out and "PE" in out
    assert report["protocol"] == "last"
    assert "protocol last: the last frame of each clip\n" in out
    lines = (puppets / "run2" / "history.jsonl").read_text().splitlines()
    assert report["mpjpe"] == pytest.approx(min(json.loads(line)["test/mpjpe"] for line in lines))


def test_clips_of_another_skeleton_are_refused(puppets):
    """Also in a folder of before, which does not say whose clips it holds."""
    make_data(puppets / "others")
    (puppets / "Others").symlink_to(puppets / "others" / "H36M-9")
    index = puppets / "Others" / "index.json"
    content = json.loads(index.read_text())
    for message in ("clips of h36m, not of puppets", "poses of 17 joints, not of 6"):
        status, _, errors = train(puppets, 1, "--set", "subset_list=[Others]")
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors
        content.pop("dataset", None)
        index.write_text(json.dumps(content))


def test_what_a_data_set_lacks_is_told(puppets):
    status, _, errors = train(puppets, 1, "--set", "use_proj_as_2d=true")
    assert (status, errors.count("\n")) == (2, 1)
    assert "the labels of puppets are no projections" in errors
    status, _, errors = train(puppets, 1, "--set", "root_rel=false")
    assert (status, errors.count("\n")) == (2, 1)
    assert "the labels of puppets are relative to the root" in errors
    assert train(puppets, 1, "--set", "input=person")[0] == 0  # its labels are angles
    stage1 = ("--stage1-checkpoint", puppets / "run1" / BEST)
    for key in ("input=person", "output=residual"):
        status, _, errors = train(puppets, 2, *stage1, "--set", key)
        assert (status, errors.count("\n")) == (2, 1)
        assert f"{key.replace('=', ' ')}: the labels of puppets are no projections" in errors


def test_a_choice_that_the_protocol_does_not_have_is_told():
    config = {"stage": 1, "learning_rate": 1, "batch_size": 1, "epochs": 1, "channel": 8}
    config |= {"st_depth": 1, "n_frames": 9}
    h36m = BENCHMARKS["h36m"]
    assert h36m.complete(make_config(config, "here")).last_window == ""
    with pytest.raises(UserError, match="'last_window': the protocol of h36m has no such choice"):
        h36m.open(make_config({**config, "last_window": "twice"}, "here"), "test")
    puppets = replace(h36m, choices={"last_window": ("twice", "once")})
    assert puppets.complete(make_config(config, "here")).last_window == "twice"
    with pytest.raises(UserError, match="'onec' is not one of twice, once; did you mean 'once'"):
        puppets.open(make_config({**config, "last_window": "onec"}, "here"), "test")


def test_a_folder_of_clips_may_carry_the_name_of_its_file():
    h36m = BENCHMARKS["h36m"]
    assert h36m.folder("mocap.pkl", 27) == "H36M-27"
    assert replace(h36m, prefix="{file}").folder("sub/dancers.v2.npz", 27) == "dancers.v2-27"


def test_stage_1_names_its_protocol_too(puppets):
    assert train(puppets, 1)[0] == 0
    flags = ("--eval-only", "--checkpoint", puppets / "run1", "--report", puppets / "r.json")
    status, out, errors = run_train(*flags)
    assert status == 0, errors
    assert json.loads((puppets / "r.json").read_text())["protocol"] == "last"
    assert "protocol last\n" in out


def test_a_protocol_that_the_data_set_lacks_is_refused(puppets):
    for asked in ("lost", "both"):
        status, _, errors = train(puppets, 1, "--set", f"protocol={asked}")
        assert (status, errors.count("\n")) == (2, 1)
        assert f"protocol {asked}: puppets is scored by last" in errors


def test_a_checkpoint_of_another_skeleton_is_refused(puppets, tmp_path):
    assert train(puppets, 1)[0] == 0
    flags = ("--eval-only", "--checkpoint", puppets / "run1", "--set", "dataset=h36m")
    status, _, errors = run_train(*flags)
    assert (status, errors.count("\n")) == (2, 1)
    assert "trained on the joints of puppets" in errors


def test_an_unknown_data_set_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"dataset h36: .* there is h36m,.* did you mean 'h36m'"):
        find_benchmark("h36")


def test_documented_configs_and_overrides_fit_together():
    """Every `--config FILE --set …` of the pages loads, and its data set takes it."""
    pages = [PROJECT_ROOT / "README.md", PROJECT_ROOT / "checkpoint" / "README.md"]
    pages += (PROJECT_ROOT / "docs").glob("*.md")
    text = " ".join(" ".join(page.read_text().replace("\\\n", " ").split()) for page in pages)
    found = re.findall(r"--config (configs/\S+\.yaml)((?: --set [^\s`]+)*)", text)
    assert any(overrides for _, overrides in found)
    for path, overrides in found:
        keys = overrides.replace(" --set ", "\n").replace('"', "").split()
        config = load_config(PROJECT_ROOT / path, keys)
        benchmark = find_benchmark(config.dataset)
        benchmark.protocols_of(benchmark.complete(config))
        benchmark._check(benchmark.complete(config), "train")
