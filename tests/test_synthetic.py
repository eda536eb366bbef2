"""Invented motion: bodies that move as bodies do, and the file that is made of it."""

import pickle
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from data.bodies import random_body
from data.cameras import CAMERAS, MIN_DEPTH
from data.clips import clip_index
from data.preprocess import synthetic
from data.preprocess.common import write_videos
from data.sequences import on_screen
from data.sources.h36m import read_split, read_tables
from data.sources.synthetic import (
    ACTIONS,
    GRAVITY,
    arm,
    jump,
    perform,
    pose_body,
    rest_pose,
    synthetic_videos,
)
from lib.cli import exit_status
from lib.evaluation.h36m import EXCLUDED_SOURCES, evaluate_h36m
from lib.skeleton import H36M

SCRIPT = Path(synthetic.__file__)
SIZE = {"num_frames": 60, "num_cameras": 2}
JOINT = {name: index for index, name in enumerate(H36M.names)}


def run(*args, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def make(path, seed=0):
    train = list(synthetic_videos(21, 2, **SIZE, seed=seed))
    write_videos(path, train, list(synthetic_videos(61, 1, **SIZE, seed=seed)), force=False)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make(tmp_path_factory.mktemp("synthetic") / "synthetic.pkl")


@pytest.fixture(scope="module")
def rows(file):
    return read_tables(file)


def motion(action, seed=0, num_frames=300):
    """The same motion on the same, random body; its offsets beside it."""
    rng = np.random.default_rng(seed)
    offsets = rest_pose() * random_body(rng)[:, None]
    return perform(rng, action, offsets, num_frames), offsets


def bone_lengths(poses):
    return np.linalg.norm(poses[:, H36M.bone_children] - poses[:, H36M.bone_parents], axis=-1)


# --- Motion ---


@pytest.mark.parametrize("action", ACTIONS)
def test_limbs_keep_their_length(action):
    world, offsets = motion(action)
    lengths = np.linalg.norm(offsets[1:], axis=-1)
    np.testing.assert_allclose(bone_lengths(world), np.tile(lengths, (300, 1)), rtol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_knees_only_bend_backwards_and_a_foot_is_on_the_ground(action, seed):
    world, _ = motion(action, seed)
    to_left = world[:, JOINT["left_hip"]] - world[:, JOINT["right_hip"]]
    for side in ("left", "right"):
        hip, knee, ankle = (world[:, JOINT[f"{side}_{part}"]] for part in ("hip", "knee", "ankle"))
        bend = np.cross(knee - hip, ankle - knee)  # backwards: about the axis to the left
        assert (np.einsum("td,td->t", bend, to_left) > 0).all()
    lower_ankle = world[:, [JOINT["left_ankle"], JOINT["right_ankle"]], 2].min(-1)
    assert lower_ankle.min() > 60
    if action != "jump":
        assert lower_ankle.max() < 100


@pytest.mark.parametrize("seed", range(3))
def test_actions_do_what_their_name_says(seed):
    world = {action: motion(action, seed, 400)[0] for action in ACTIONS}
    hips = {action: poses[:, 0] for action, poses in world.items()}
    travelled = {
        a: np.linalg.norm(np.diff(p[:, :2], axis=0), axis=-1).sum() for a, p in hips.items()
    }
    assert travelled["walk"] > 3000  # in 8 s
    assert max(travelled["squat"], travelled["sit"]) < 0.5 * travelled["walk"]
    for action in ("squat", "sit"):
        assert np.ptp(hips[action][:, 2]) > 200

    feet = world["jump"][:, [JOINT["left_ankle"], JOINT["right_ankle"]], 2].min(-1)
    assert feet.max() > 140

    wrists = world["wave"][:, [JOINT["left_wrist"], JOINT["right_wrist"]], 2]
    shoulders = world["wave"][:, [JOINT["left_shoulder"], JOINT["right_shoulder"]], 2]
    assert (wrists > shoulders).mean() > 0.1

    across = world["turn"][:, JOINT["left_hip"]] - world["turn"][:, JOINT["right_hip"]]
    assert np.ptp(np.unwrap(np.arctan2(across[:, 1], across[:, 0]))) > np.deg2rad(60)


def test_a_jump_falls_as_things_fall():
    t = np.arange(400) / 50
    _, lift = jump(np.random.default_rng(5), t)
    flying = (lift[:-2] > 0) & (lift[1:-1] > 0) & (lift[2:] > 0)
    assert flying.sum() > 20
    np.testing.assert_allclose(np.diff(lift, 2)[flying] * 50**2, -GRAVITY, rtol=1e-6)


def test_a_turned_joint_by_hand():
    """The left arm 90° outward, its elbow 90° bent: the forearm points forward; rolled, up."""
    offsets = rest_pose()
    still = {"pelvis": np.eye(3)}
    shoulder = pose_body(offsets, still, 1)[0, JOINT["left_shoulder"]]
    for roll, forearm in ((0, (250, 0, 0)), (90, (0, 0, 250))):
        pose = pose_body(offsets, still | arm("left", 0, 90, 90, roll), 1)[0]
        elbow, wrist = pose[JOINT["left_elbow"]], pose[JOINT["left_wrist"]]
        np.testing.assert_allclose(elbow - shoulder, (0, 280, 0), atol=1e-9)
        np.testing.assert_allclose(wrist - elbow, forearm, atol=1e-9)


def test_bodies_are_symmetric_and_differ():
    one, other = (random_body(np.random.default_rng([0, subject])) for subject in (21, 61))
    np.testing.assert_array_equal(one, one[list(H36M.flip_order)])
    assert np.abs(one / other - 1).max() > 0.02


@pytest.mark.parametrize("action", ACTIONS)
def test_the_shortest_motion_works(action):
    assert np.isfinite(motion(action, num_frames=2)[0]).all()


# --- The file ---


def test_same_seed_same_bytes_and_another_seed_others(tmp_path, file):
    assert make(tmp_path / "again.pkl").read_bytes() == file.read_bytes()
    assert make(tmp_path / "other.pkl", seed=1).read_bytes() != file.read_bytes()


def test_the_columns_are_those_of_human36m(rows):
    columns = {
        "joint_2d": (17, 2),
        "confidence": (17, 1),
        "joint3d_image": (17, 3),
        "camera_name": (),
        "source": (),
    }
    for split, more in (
        ("train", {}),
        ("test", {"action": (), "2.5d_factor": (), "joints_2.5d_image": (17, 3)}),
    ):
        n = len(rows[split]["source"])
        assert n > 0
        assert {name: np.shape(col) for name, col in rows[split].items()} == {
            name: (n, *shape) for name, shape in (columns | more).items()
        }


def test_sources_are_unique_contiguous_and_not_left_out_of_the_protocol(rows):
    subjects = {}
    for split in ("train", "test"):
        videos = [source for source, _ in groupby(rows[split]["source"])]
        assert max(Counter(videos).values()) == 1
        assert not any(video.startswith(EXCLUDED_SOURCES) for video in videos)
        subjects[split] = {video[: video.index("_act_")] for video in videos}
        for source, camera in zip(rows[split]["source"], rows[split]["camera_name"], strict=True):
            assert CAMERAS[int(source[-2:]) - 1].name == camera
    assert not subjects["train"] & subjects["test"]
    assert set(rows["test"]["action"]) == set(ACTIONS)


def test_everyone_is_in_the_picture_and_the_pictures_give_the_bodies_back(rows):
    """Invert the projection: bones of constant length come out of the test rows."""
    cameras = {camera.name: camera for camera in CAMERAS}
    test = rows["test"]
    source, names = np.array(test["source"]), np.array(test["camera_name"])
    for video in np.unique(source):
        of_video = source == video
        camera = cameras[names[of_video][0]]
        image = test["joint3d_image"][of_video].astype(np.float64)
        factor = test["2.5d_factor"][of_video].astype(np.float64)[:, None]
        assert (image[..., :2] >= 0).all() and (image[..., :2] <= camera.size).all()
        depth = factor * (np.mean(camera.focal) + image[..., 2])
        assert depth.min() > MIN_DEPTH
        xy = (image[..., :2] - camera.center) / camera.focal * depth[..., None]
        lengths = bone_lengths(np.concatenate([xy, depth[..., None]], axis=-1))
        assert np.ptp(lengths, axis=0).max() < 0.05  # mm: the file is float32


def test_a_perfect_prediction_has_error_zero_and_a_worse_one_what_it_must(rows):
    """By the protocol's own code; then with each left wrist 8 pixels too deep."""
    sequences = read_split(rows["test"], "test", "a.pkl")
    protocol = sequences.test_frames()
    clips = clip_index(sequences.video, 27, 27)
    _, pose_3d = on_screen(sequences)
    perfect = pose_3d[clips] - pose_3d[clips][..., :1, :]
    report = evaluate_h36m(perfect, clips, protocol, H36M)
    assert report.averages["mpjpe"] < 1e-3 and report.averages["p_mpjpe"] < 1e-3

    perfect[..., JOINT["left_wrist"], 2] += 8 / 500
    report = evaluate_h36m(perfect, clips, protocol, H36M)
    used = rows["test"]["2.5d_factor"][clips]
    action = np.array(rows["test"]["action"])[clips]
    expected = np.mean([8 * used[action == name].mean() / 17 for name in ACTIONS])
    assert report.averages["mpjpe"] == pytest.approx(expected, rel=1e-4)


# --- The command ---


def test_the_command_runs_anywhere_and_keeps_an_existing_file(tmp_path, file):
    flags = ("--frames", 30, "--train-subjects", 1, "--test-subjects", 1, "--cameras", 1)
    done = run(*flags, "--data-root", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tmp_path / "here" / "synthetic.pkl"
    before = written.read_bytes()
    assert {k: len(pickle.loads(before)[k]["source"]) for k in ("train", "test")} == {
        "train": 6 * 30,
        "test": 6 * 30,
    }

    again = run(*flags, "--data-root", tmp_path / "here", "--seed", 3, cwd=SCRIPT.parent)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1 and "--force" in again.stderr
    assert written.read_bytes() == before

    forced = run(
        *flags, "--data-root", tmp_path / "here", "--seed", 3, "--force", cwd=SCRIPT.parent
    )
    assert forced.returncode == 0, forced.stderr
    assert written.read_bytes() != before
    assert [path.name for path in written.parent.iterdir()] == ["synthetic.pkl"]


@pytest.mark.parametrize(
    "flags", [("--frames", "1"), ("--seed", "-1"), ("--cameras", "5"), ("--train-subjects", "x")]
)
def test_bad_numbers_are_named(tmp_path, flags, capsys):
    assert exit_status(lambda: synthetic.main(["--data-root", str(tmp_path), *flags])) == 2
    assert f"{flags[0]}: {flags[1]!r} is not a whole number" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
