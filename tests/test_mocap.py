"""Motion capture to Human3.6M rows: bodies, windows, held-out subjects, and broken files."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.bodies import random_body, scale_bones
from data.cameras import MIN_DEPTH
from data.preprocess import mocap
from data.sources.mocap import check_held_out, mocap_videos, read_mocap
from data.sources.synthetic import perform, rest_pose
from lib.errors import UserError
from lib.skeleton import H36M
from tests.mistakes import Call
from tests.skips import SHARED, needs_shared
from tests.training import run_command

SCRIPT = Path(mocap.__file__)
MOCAP = SHARED / "mocap" / "mocap17_cmu.npz"
HEAD = {"fps": 50.0, "unit_m": 0.0005, "parents": list(H36M.parents)}
CLIPS = {
    "a_walk": {"subject": "a", "action": "slow walk", "split": "train"},
    "a_sit": {"subject": "a", "action": "sit", "split": "train"},
    "b_walk": {"subject": "b", "action": "slow walk", "split": "test"},
}


def save(path, *, head=None, clips=None, **arrays):
    """A small file of the format; arguments replace parts of it."""
    clips = CLIPS if clips is None else clips
    for name in clips:
        rng = np.random.default_rng(len(name))
        action = name.partition("_")[2]
        motion = perform(rng, action if action in ("walk", "sit") else "jump", rest_pose(), 80)
        arrays.setdefault(name, np.round(motion * 2).astype(np.int16))
    meta = {"head": HEAD | (head or {}), "clips": clips}
    np.savez_compressed(path, __meta__=arrays.pop("__meta__", json.dumps(meta)), **arrays)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("mocap") / "mocap.npz")


def bone_lengths(motion):
    return np.linalg.norm(motion[:, H36M.bone_children] - motion[:, H36M.bone_parents], axis=-1)


def test_millimetres_come_out(file):
    clip = read_mocap(file)[0]
    rng = np.random.default_rng(len("a_walk"))
    np.testing.assert_allclose(clip.motion, perform(rng, "walk", rest_pose(), 80), atol=0.2501)
    assert (clip.subject, clip.action, clip.split) == ("a", "slow walk", "train")


def test_scaling_changes_lengths_and_nothing_else(file):
    """Every bone by its factor in its old direction; the ground stays where it is."""
    motion = read_mocap(file)[0].motion
    factors = random_body(np.random.default_rng(3))
    scaled = scale_bones(motion, factors)
    np.testing.assert_allclose(bone_lengths(scaled), bone_lengths(motion) * factors[1:], rtol=1e-9)
    bones = motion[:, H36M.bone_children] - motion[:, H36M.bone_parents]
    after = scaled[:, H36M.bone_children] - scaled[:, H36M.bone_parents]
    np.testing.assert_allclose(np.cross(bones, after), 0, atol=1e-4)
    assert scaled[..., 2].min() == pytest.approx(motion[..., 2].min())
    np.testing.assert_allclose(scale_bones(motion, np.ones(17)), motion, atol=1e-9)


def test_a_taller_person_stands_with_the_feet_at_the_same_place(file):
    """All bones 1.1 times as long: the walk is the same, 1.1 times as large."""
    motion = read_mocap(file)[0].motion
    scaled = scale_bones(motion, np.full(17, 1.1))
    np.testing.assert_allclose(scaled[..., :2], 1.1 * motion[..., :2], atol=1e-6)


def test_rows_have_the_actions_and_held_out_subjects_of_the_file(file):
    videos = [
        (split, video)
        for split, sequences in mocap_videos(read_mocap(file), num_cameras=2, seed=0)
        for video in sequences.videos
    ]
    names = [video.name for _, video in videos]
    assert len(set(names)) == len(names)
    for split, video in videos:
        assert video.name.split("_")[1] == video.subject
        assert (split == "test") == (video.subject == "b")
        assert video.action in ("slow walk", "sit")
        assert video.fps == 50
    for name, about in CLIPS.items():  # each camera films each frame once
        of_clip = [
            video.frames
            for _, video in videos
            if (video.subject, video.action) == (about["subject"], about["action"])
        ]
        assert sum(of_clip) == 2 * 80, name


def test_every_clip_has_a_body_and_a_camera_of_its_own(file):
    """The same motion under two names, one of them held out: different pictures."""
    clip = read_mocap(file)[0]
    twin = replace(clip, name="twin", subject="b", split="test")
    (_, one), (_, other) = mocap_videos([clip, twin], num_cameras=1, seed=0)
    assert abs(one.factor[0] / other.factor[0] - 1) > 0.01
    one, other = (np.ptp(video.joint_3d_mm[..., 1], axis=1) for video in (one, other))
    assert abs(one.mean() / other.mean() - 1) > 0.01  # height, mm


def test_a_clip_s_randomness_does_not_depend_on_its_neighbours(file):
    clips = read_mocap(file)
    alone = [video for _, video in mocap_videos(clips[2:], num_cameras=1, seed=0)]
    together = [v for split, v in mocap_videos(clips, num_cameras=1, seed=0) if split == "test"]
    other_seed = [video for _, video in mocap_videos(clips[2:], num_cameras=1, seed=1)]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.joint_2d, b.joint_2d)
    assert not np.array_equal(alone[0].joint_2d, other_seed[0].joint_2d)


def truncated(path):
    save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def damaged(path):
    save(path)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 200):
        data[at] ^= 0xFF
    path.write_bytes(data)


MALICIOUS = Call(os.system, "echo executed")


BROKEN = {
    "truncated": (truncated, "cannot be read"),
    "damaged": (damaged, "cannot be read"),
    "text": (lambda path: path.write_text("hello"), "not an .npz"),
    "array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "not an .npz"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(MALICIOUS)), "cannot be read"),
    "object": (
        lambda path: save(path, a_sit=np.array([MALICIOUS], dtype=object)),
        "a_sit: Object arrays",
    ),
    "no meta": (lambda path: np.savez(path, x=np.zeros(3)), "__meta__"),
    "no json": (lambda path: save(path, __meta__="{"), "cannot be read"),
    "a list": (lambda path: save(path, __meta__="[1, 2]"), "cannot be read"),
    "joints": (lambda path: save(path, a_sit=np.zeros((4, 16, 3), np.int16)), r"a_sit.*\(4, 16, 3"),
    "empty": (lambda path: save(path, a_sit=np.zeros((0, 17, 3), np.int16)), "a_sit"),
    "words": (lambda path: save(path, a_sit=np.full((4, 17, 3), "x")), "a_sit"),
    "nan": (lambda path: save(path, a_sit=np.full((4, 17, 3), np.nan)), "a_sit.*finite"),
    "tree": (lambda path: save(path, head={"parents": [-1] + 16 * [0]}), "parents"),
    "fps": (lambda path: save(path, head={"fps": 120.0}), "120"),
    "unit": (lambda path: save(path, head={"unit_m": None}), "unit is None"),
    "split": (
        lambda path: save(path, clips={"a_walk": CLIPS["a_walk"] | {"split": "val"}}),
        "a_walk.*'val'",
    ),
    "missing": (
        lambda path: save(path, __meta__=json.dumps({"head": HEAD, "clips": {"gone": {}}})),
        "no array gone",
    ),
    "subject": (lambda path: save(path, clips={"a_walk": {"split": "train"}}), "subject"),
    "both": (
        lambda path: save(path, clips=CLIPS | {"a_jump": CLIPS["b_walk"] | {"subject": "a"}}),
        "held out",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_in_one_sentence(tmp_path, kind, capfd):
    path = tmp_path / "mocap.npz"
    breaker, message = BROKEN[kind]
    breaker(path)
    with pytest.raises(UserError, match=message) as error:
        check_held_out(read_mocap(path))
    assert "\n" not in str(error.value)
    assert "executed" not in capfd.readouterr().out


def run(*args, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_command_writes_the_same_bytes_from_anywhere(tmp_path, file):
    for folder, cwd in (("one", tmp_path), ("two", SCRIPT.parent)):
        done = run(file, "--data-root", tmp_path / folder, "--cameras", 1, cwd=cwd)
        assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / folder / "mocap.pkl").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_the_command_s_mistakes_write_nothing(tmp_path, file):
    only_training = save(tmp_path / "train.npz", clips={"a_sit": CLIPS["a_sit"]})
    for path, word in ((tmp_path / "none.npz", "no such file"), (only_training, "no test videos")):
        done = run(path, "--data-root", tmp_path / "out", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and word in done.stderr
        assert not (tmp_path / "out").exists()


def test_the_motion_capture_is_not_replaced_by_what_is_made_of_it(tmp_path, file):
    source = tmp_path / "mocap.npz"
    source.write_bytes(file.read_bytes())
    (tmp_path / "link.npz").symlink_to(source)
    for name in ("mocap.npz", "link.npz"):
        main = ["--data-root", str(tmp_path), "--dt-file", name, "--force", str(source)]
        status, _, error = run_command(mocap.main, main)
        assert status == 2
        assert "is read from too" in error and error.count("\n") == 1
    assert source.read_bytes() == file.read_bytes()


@needs_shared(MOCAP)
def test_real_motion_is_whole_and_in_the_picture():
    clips = read_mocap(MOCAP)
    check_held_out(clips)
    assert len(clips) == 263
    assert sum(len(clip.motion) for clip in clips) == 142_991
    assert {clip.subject for clip in clips if clip.split == "test"} == {
        "cmu02",
        "cmu131",
        "cmu135",
    }
    some = clips[::40]
    frames = 0
    for _, sequences in mocap_videos(some, num_cameras=1, seed=0):
        (video,) = sequences.videos
        frames += video.frames
        xy, z = sequences.joint_3d[..., :2], sequences.joint_3d[..., 2]
        assert (xy >= 0).all() and (xy <= video.camera.size).all()
        depth = sequences.factor[:, None] * (np.mean(video.camera.focal) + z)
        assert depth.min() > MIN_DEPTH
    assert frames == sum(len(clip.motion) for clip in some)
