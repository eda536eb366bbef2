"""The demo by an ONNX file: the same poses, without torch."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

import demo.command
from demo.keypoint_files import read_keypoints
from demo.onnx_lifter import OnnxLifter, mirrored
from demo.pipeline import VideoLifter
from lib.files import PROJECT_ROOT
from lib.geometry import flip_pose
from lib.skeleton import H36M, MPI_INF_3DHP
from tests.demo_samples import walking
from tests.mistakes import told
from tests.skips import SHARED, needs_shared

JUGGLER = SHARED / "media/keypoints_video_juggle.npz"
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from demo.command import main
from lib.cli import run_main
run_main(main)
"""


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.npz"
    np.savez(path, keypoints=walking(30, 2), layout="h36m17", size=(640, 480), fps=30)
    return path


def with_metadata(source, path, **changes):
    """A copy of an ONNX file that says something else of itself; None: nothing."""
    model = onnx.load(source)
    kept = {entry.key: entry.value for entry in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
    onnx.save(model, path)
    return str(path)


def test_the_mirror_image_is_the_one_of_the_project():
    pose = torch.randn(2, 5, 17, 3)
    expected = flip_pose(pose, H36M).numpy()
    np.testing.assert_array_equal(mirrored(pose.numpy()), expected)
    assert mirrored(pose.numpy()[:0]).shape == (0, 5, 17, 3)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("frames", [1, 9, 300])
def test_the_same_poses_as_by_the_checkpoint(exported, frames, flip):
    checkpoint, file = exported
    keypoints = walking(frames, 2)
    by_torch = VideoLifter.from_checkpoint(checkpoint, flip=flip, device="cpu")
    expected = by_torch.lift_keypoints(keypoints, (640, 480), 25.0)
    found = OnnxLifter(file, flip=flip).lift_keypoints(keypoints, (640, 480), 25.0)
    np.testing.assert_allclose(found.pose_world, expected.pose_world, atol=0.1)  # mm


@needs_shared(JUGGLER)
def test_the_same_poses_of_a_real_video(exported):
    checkpoint, file = exported
    people = read_keypoints(str(JUGGLER))
    by_torch = VideoLifter.from_checkpoint(checkpoint, device="cpu")
    expected, found = by_torch.lift_people(people), OnnxLifter(file).lift_people(people)
    np.testing.assert_allclose(found.pose_3d, expected.pose_3d, atol=0.1)  # mm


def test_the_command_where_torch_is_not_installed(exported, points, tmp_path):
    checkpoint, file = exported
    rest = ["--keypoints", points, "--formats", "npz", "--output"]
    command = [sys.executable, "-c", WITHOUT_TORCH, "--onnx", file, *rest, tmp_path / "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime" in done.stdout
    expected = ["--checkpoint", checkpoint, *rest, tmp_path / "torch"]
    assert demo.command.main([str(word) for word in expected]) == 0
    found, wanted = (np.load(tmp_path / name / "poses.npz") for name in ("onnx", "torch"))
    np.testing.assert_allclose(found["pose_world"], wanted["pose_world"], atol=0.1)


def test_files_that_cannot_be_used(exported, tmp_path):
    file = exported[1]
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(file.read_bytes()[:-5000])
    assert "cannot load it" in told(OnnxLifter, damaged)
    assert "no such file" in told(OnnxLifter, tmp_path / "nowhere.onnx")
    foreign = with_metadata(file, tmp_path / "foreign.onnx", joints=None)
    assert "does not say its joints" in told(OnnxLifter, foreign)
    names = json.dumps(MPI_INF_3DHP.names)
    other = with_metadata(file, tmp_path / "other.onnx", joints=names)
    assert "other joints" in told(OnnxLifter, other)
    averaged = with_metadata(file, tmp_path / "averaged.onnx", flip_averaged="true")
    assert OnnxLifter(averaged).n_frames == 9
    assert "averages with the mirrored" in told(lambda: OnnxLifter(averaged, flip=False))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--checkpoint runs/a", "leave --checkpoint out"),
        ("--stage1-checkpoint a.tr", "leave --stage1-checkpoint out"),
        ("--config a.yaml", "leave --config out"),
        ("--device cuda", "leave --device out"),
        ("--gpu 0", "leave --gpu out"),
    ],
)
def test_the_file_is_the_whole_model(exported, points, flags, message):
    command = ["--keypoints", str(points), "--onnx", str(exported[1]), *flags.split()]
    assert message in told(demo.command.main, command)


def test_results_do_not_replace_the_file(exported, points, tmp_path):
    file = tmp_path / "poses.npz"
    file.write_bytes(exported[1].read_bytes())
    command = ["--keypoints", points, "--onnx", file, "--formats", "npz", "--output", tmp_path]
    assert "would be overwritten" in told(demo.command.main, [str(word) for word in command])
