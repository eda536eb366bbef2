"""The motion capture benchmark: who is in which set, what a set holds, and its checksum."""

import itertools
import json
import re
import shutil
import signal

import numpy as np
import pytest

from data import mocap_benchmark
from data.benchmarks import BENCHMARKS
from data.mocap_benchmark import HELD_OUT, SCREEN_STEP, VERSION, limit_of, set_of
from data.motions import UNIT_MM, read_motions
from data.preprocess import mocap_benchmark as door
from data.preprocess.visualize import read_motion
from data.store import INDEX, ArrayClips
from data.views import RenderedClips, Rendering
from lib.training.step import Stepper
from tests.mistakes import told
from tests.mocap_files import SUBJECTS, motion, write_file, write_mocap
from tests.training import assert_same_end, make_data, read_run, run_command, run_train, send

T = 9
SETS = [f"mocap{name}{kind}-{T}" for name in ("", "-sport", "-everyday") for kind in ("", "-exact")]


def write(source, root, n_frames=T):
    arguments = ["--mocap", source, "--n-frames", n_frames, "--data-root", root]
    return run_command(door.main, arguments)


def entries(root) -> dict:
    return {
        path.parent.name: json.loads(path.read_text())["splits"] for path in root.glob(f"*/{INDEX}")
    }


def checksums(root) -> dict:
    return {
        (folder.rpartition("-")[0], split): entry["sha256"]
        for folder, splits in entries(root).items()
        for split, entry in splits.items()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_mocap(tmp_path_factory.mktemp("mocap") / "files")


@pytest.fixture(scope="module")
def root(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    status, output, errors = write(source, root)
    assert status == 0, errors
    for path in root.glob(f"*/{INDEX}"):
        for entry in json.loads(path.read_text())["splits"].values():
            assert entry["version"] == VERSION
            assert f"version {VERSION}, sha256 {entry['sha256']}" in output
    return root


# --- Who is where ---


def test_each_subject_is_in_one_set_and_each_take_once(root):
    found = entries(root)
    assert sorted(found) == sorted(SETS)
    train = read_motions(root / f"mocap-{T}", "train", 17, "door")
    assert [m.subject for m in train] == ["cmu07", "prmd01"]  # no cmux: a take of cmu49's
    assert [m.share for m in train] == [1.0, 0.25]
    for name, subjects in HELD_OUT.items():
        folder = "mocap" if name == "validation" else f"mocap-{name}"
        for kind in ("", "-exact"):
            assert sorted(found[f"{folder}{kind}-{T}"]["test"]["subjects"]) == sorted(subjects)
    assert all(set(splits) == {"test"} for name, splits in found.items() if name != f"mocap-{T}")


def test_training_motion_is_that_of_the_files(root):
    one, two = read_motions(root / f"mocap-{T}", "train", 17, "door")
    np.testing.assert_array_equal(one.frames, motion(0, 40))
    np.testing.assert_array_equal(two.frames, motion(1, 41))
    assert UNIT_MM == 0.5


def test_limits_are_those_of_the_subject_or_its_source():
    assert limit_of("prmd08") == limit_of("prmd01")
    assert limit_of("prmd08").frames == 400
    assert limit_of("cmu14").frames == 600
    for other in ("cmu1", "cmu140", "cmu03", "accad_male2"):
        assert limit_of(other).frames is None and limit_of(other).share == 1
    assert [set_of(s) for s in ("cmu14", "cmu140", "cmu135")] == ["validation", None, "sport"]


def test_copies_of_held_out_motion_are_not_trained_on(source, tmp_path):
    """Under whatever name, even if no list says so."""
    folder = write_mocap(tmp_path / "files")
    index = SUBJECTS.index("cmu03")
    copy = motion(index, 40 + index)
    write_file(folder / "three.npz", {"cmu99_copy": ("cmu99", copy), "b": ("cmu98", copy[:-1])})
    assert write(folder, tmp_path / "sets")[0] == 0
    train = read_motions(tmp_path / "sets" / f"mocap-{T}", "train", 17, "door")
    assert [m.subject for m in train] == ["cmu07", "prmd01", "cmu98"]


# --- What a set holds ---


def test_videos_are_whole_recordings_on_the_actor_s_own_bones(root):
    clips = ArrayClips(root / f"mocap-everyday-{T}", "test")
    exact = ArrayClips(root / f"mocap-everyday-exact-{T}", "test")
    frames = clips.test_frames()
    assert len(set(frames.videos)) == len(frames.videos) == 4
    for number, subject in enumerate(frames.subjects):
        mine = np.flatnonzero(frames.video == number)
        index = SUBJECTS.index(subject)
        assert len(mine) == 40 + index
        truth = motion(index, 40 + index) * UNIT_MM
        # 2.5D is nearly the person in mm: perspective changes lengths by some percent.
        seen = frames.pose_3d_mm[mine]
        lengths = [np.linalg.norm(pose[:, 1:] - pose[:, :1], axis=-1) for pose in (seen, truth)]
        ratio = lengths[0] / lengths[1]
        assert np.median(ratio) == pytest.approx(1, abs=0.05)
    (pose_2d, pose_3d), (exact_2d, exact_3d) = (c.read(range(len(c))) for c in (clips, exact))
    np.testing.assert_array_equal(pose_3d, exact_3d)
    np.testing.assert_array_equal(exact_2d[..., :2], exact_3d[..., :2])
    assert (exact_2d[..., 2] == 1).all()
    assert 0.5 < np.abs(pose_2d - pose_3d)[..., :2].mean() * 500 < 20  # pixels
    for values in (pose_2d[..., :2], pose_3d):
        np.testing.assert_array_equal(values / SCREEN_STEP, np.rint(values / SCREEN_STEP))


def test_the_clips_hold_every_frame(root):
    for name in SETS:
        clips = ArrayClips(root / name, "test")
        assert set(clips.frame_ids.ravel()) == set(range(len(clips.test_frames().video)))


# --- Checksums ---


def test_the_sets_are_the_same_wherever_they_are_written(root, source, tmp_path, monkeypatch):
    """For other clips, too, and where the last bits of the arithmetic differ."""
    image_and_depth = mocap_benchmark.image_and_depth
    monkeypatch.setattr(
        mocap_benchmark,
        "image_and_depth",
        lambda *a: tuple(array * (1 + 1e-15) for array in image_and_depth(*a)),
    )
    assert write(source, tmp_path, n_frames=5)[0] == 0
    assert checksums(tmp_path) == checksums(root)


def test_another_camera_is_another_checksum(root, source, tmp_path, monkeypatch):
    monkeypatch.setattr(mocap_benchmark, "SEED", mocap_benchmark.SEED + 1)
    assert write(source, tmp_path)[0] == 0
    differs = {key for key, value in checksums(tmp_path).items() if value != checksums(root)[key]}
    assert differs == {key for key in checksums(root) if key[1] == "test"}


# --- Mistakes ---


def test_mistakes_are_told_in_one_sentence_and_write_nothing(source, tmp_path):
    lacking = write_mocap(tmp_path / "lacking")
    (lacking / "two.npz").unlink()
    without_list = write_mocap(tmp_path / "without_list")
    (without_list / door.DUPLICATES).unlink()
    bad_list = write_mocap(tmp_path / "bad_list")
    (bad_list / door.DUPLICATES).write_text("{")
    twice = write_mocap(tmp_path / "twice")
    (twice / "three.npz").write_bytes((twice / "one.npz").read_bytes())
    (tmp_path / "empty").mkdir()
    for path, word in (
        (lacking, "lack the subjects .*cmu49"),
        (without_list, "cmux_duplicates.json: no such file"),
        (bad_list, "not a JSON list"),
        (twice, "is in these files 2 times"),
        (tmp_path / "empty", "no .npz file"),
        (tmp_path / "none.npz", "no such file"),
    ):
        status, _, errors = write(path, tmp_path / "out")
        assert status == 2
        message = errors.splitlines()[-1]
        assert message.startswith("error: ") and re.search(word, message), message
    assert not (tmp_path / "out").exists()


def test_a_set_without_motion_is_not_trained_on(root):
    message = told(read_motions, root / f"mocap-sport-{T}", "train", 17, "the door")
    assert message.endswith("make it with the door")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-9])


def saved(array):
    return lambda path: np.save(path, array)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("motion", truncated),
        ("motion", lambda path: path.write_bytes(b"")),
        ("motion", lambda path: path.unlink()),
        ("motion", saved(np.zeros((81, 17, 3)))),
        ("motion", saved(np.zeros((81, 16, 3), np.int16))),
        ("length", saved(np.array([40, 40]))),
        ("length", saved(np.array([81, 0]))),
        ("length", saved(np.array([81]))),
        ("share", saved(np.array([1.0, np.nan]))),
        ("share", saved(np.array([1.0, 2.0]))),
        ("share", saved(np.array([1.0]))),
    ],
)
def test_damaged_motion_is_told(root, tmp_path, name, damage):
    folder = tmp_path / "mocap-9"
    shutil.copytree(root / f"mocap-{T}", folder)
    (path,) = folder.glob(f"arrays-*/train_{name}.npy")
    damage(path)
    message = told(read_motions, folder, "train", 17, "the door")
    assert message.startswith(f"{folder}: ") and message.endswith(" with the door")


# --- Films and training ---


def test_a_film_of_a_training_clip_is_what_the_first_epoch_shows(root):
    folder, benchmark = root / f"mocap-{T}", BENCHMARKS["mocap"]
    clips = RenderedClips(
        read_motions(folder, "train", 17, "door"), T, Rendering(frame_rates=(50.0, 50.0))
    )
    film = read_motion(benchmark, folder, "train", "3")
    expected = clips.draw([3], seed=0, epoch=0)
    for found, pose in ((film.pose_2d, expected.pose_2d), (film.pose_3d, expected.pose_3d)):
        np.testing.assert_array_equal(found, pose[0].numpy())
    assert "has the clips 0 to" in told(read_motion, benchmark, folder, "train", "99")


CONFIG = """\
stage: 1
learning_rate: 0.002
batch_size: 2
epochs: 2
channel: 8
st_depth: 2
d_state: 4
n_frames: 9
frame_rate: 25
dataset: mocap
data_root: {root}
"""


def test_a_training_stopped_inside_an_epoch_goes_on_as_if_it_had_not_been(
    root, tmp_path, monkeypatch
):
    config, whole, run = (tmp_path / name for name in ("config.yaml", "whole", "run"))
    config.write_text(CONFIG.format(root=root))
    assert run_train("--config", config, "--new-checkpoint", whole)[0] == 0
    take_step, steps = Stepper.__call__, itertools.count(1)

    def stop_in_step_5(stepper, batch):
        if next(steps) == 5:
            send(signal.SIGTERM)
        return take_step(stepper, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "__call__", stop_in_step_5)
        assert run_train("--config", config, "--new-checkpoint", run)[0] == 143
    position = read_run(run)[0]["training"]["position"]
    assert (position["epoch"], position["step"]) == (1, 2)  # 5 clips are 3 steps
    assert run_train("--resume", "--checkpoint", run, "--num-cpus", 2)[0] == 0
    assert_same_end(run, read_run(whole))
    # Each frame of the videos counts once, whatever the network's frame rate is.
    report = tmp_path / "report.json"
    test_set = ("--set", f"subset_list=[mocap-exact-{T}]", "--report", report)
    assert run_train("--eval-only", "--checkpoint", run, *test_set)[0] == 0
    frames = len(ArrayClips(root / f"mocap-exact-{T}", "test").test_frames().video)
    assert json.loads(report.read_text())["frames"] == frames
    # The rate is how clips are shown, not what the weights are: it may be another.
    status, out, errors = run_train(
        "--eval-only", "--checkpoint", run, *test_set, "--set", "frame_rate=50"
    )
    assert status == 0, errors
    assert "frame_rate 50 instead of the checkpoint's 25\n" in out
    # 30 would be every 1.67th frame: no frames a second that are silently others.
    status, _, errors = run_train("--eval-only", "--checkpoint", run, "--set", "frame_rate=30")
    assert (status, errors.count("\n")) == (2, 1)
    assert "frame_rate 30: every n-th of 50 frames a second is shown, so give 25 or" in errors


def test_weights_of_motion_capture_are_scored_on_clips_of_human36m(root, tmp_path):
    """Once it is said how their frames are shown; what only training takes does not matter."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=root) + "mixed_bodies: 0.5\n")
    run = tmp_path / "run"
    assert run_train("--config", config, "--new-checkpoint", run, "--set", "epochs=1")[0] == 0
    make_data(tmp_path)
    flags = ["--checkpoint", run, "--set", "dataset=h36m", "--set", "subset_list=[H36M-9]"]
    flags += ["--set", "dt_file=synthetic.pkl", "--set", f"data_root={tmp_path}"]
    for advice in ("--set protocol=h36m", "--set frame_rate=0"):
        status, _, errors = run_train("--eval-only", *flags)
        assert (status, errors.count("\n")) == (2, 1)
        assert advice in errors
        flags += advice.split()
    status, _, errors = run_train("--eval-only", *flags)
    assert status == 0, errors
    status, _, errors = run_train("--config", config, "--new-checkpoint", tmp_path / "new", *flags)
    assert (status, errors.count("\n")) == (2, 1)
    assert "key 'mixed_bodies': the clips of h36m are not rendered" in errors
