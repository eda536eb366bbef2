"""Keypoints of another program and their video: its times, its pixels."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import demo.command
from demo.keypoint_files import read_keypoints, save_keypoints
from demo.matching import match
from demo.people import People
from demo.video import Video
from lib.keypoints import H36M_17
from tests.demo_samples import walking
from tests.media import encode

BLACK = np.zeros((48, 64, 3), np.uint8)


def opened(tmp_path: Path, times: list[float], aspect: float = 1.0) -> Video:
    path = encode(tmp_path / "video.mp4", [BLACK] * len(times), times, aspect=Fraction(aspect))
    return Video(str(path))


def people(frames: int) -> People:
    return People.of_array(walking(frames), H36M_17)


def test_the_times_are_those_of_the_video(tmp_path):
    times = [0.0, 0.04, 0.08, 0.3, 0.34]
    with opened(tmp_path, times) as video:
        found, told = match(people(5), video)
    np.testing.assert_allclose(found.seconds, times, atol=1e-3)
    assert told == [] and found.size == (64, 48)
    with opened(tmp_path, times) as video:
        found, _ = match(people(5), video, fps=10.0)
    np.testing.assert_allclose(found.seconds, np.arange(5) / 10)
    with opened(tmp_path, times) as video:
        found, told = match(people(9), video)
    assert "9 frames, but" in told[0] and found.times is None


@pytest.mark.parametrize("name", ["saved.npz", "saved.json"])
def test_saved_keypoints_keep_the_times_and_have_square_pixels(tmp_path, name):
    times = [0.0, 0.04, 0.08, 0.3, 0.34]
    with opened(tmp_path, times, 2.0) as video:
        found, _ = match(people(5), video)
    save_keypoints(tmp_path / name, found)
    read = read_keypoints(str(tmp_path / name))
    np.testing.assert_allclose(read.seconds, times, atol=1e-3)
    assert read.size == (128, 48) and read.fps == pytest.approx(4 / 0.34, rel=1e-3)
    np.testing.assert_allclose(read.keypoints, people(5).keypoints * [2, 1, 1], rtol=1e-3)


@pytest.mark.parametrize("times", [[0, 1], [0, 1, 1, 2, 3]])
def test_times_that_are_none_are_told(tmp_path, times):
    path = tmp_path / "points.json"
    content = {"keypoints": walking(5).tolist(), "layout": "h36m17", "size": [640, 480]}
    path.write_text(json.dumps({**content, "times": times}))
    read = read_keypoints(str(path))
    assert read.times is None and "'times' do not rise" in " ".join(read.assumed)


@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_stored_pixels_become_square(tmp_path, aspect):
    with opened(tmp_path, [0.0, 0.04, 0.08], aspect) as video:
        found, told = match(people(3), video)
        square = found.in_square_pixels()
        assert square.size == video.size != video.stored_size
    assert f"{aspect:g} times as wide as high" in told[0] and "64x48" in told[0]
    scale = [2, 1, 1] if aspect > 1 else [1, 2, 1]
    np.testing.assert_allclose(square.keypoints, people(3).keypoints * scale, rtol=1e-5)
    assert square.pixel_aspect == 1 and square.in_square_pixels() is square


def test_squeezed_keypoints_are_lifted_as_those_that_are_not(checkpoint, tmp_path, monkeypatch):
    """The command's whole way: keypoints in the pixels of an anamorphic video, as they are stored
    or, where the file says so, as they are shown."""
    monkeypatch.chdir(tmp_path)
    times = (np.arange(12) / 25).tolist()
    plain = encode(tmp_path / "plain.mp4", [np.zeros((480, 640, 3), np.uint8)] * 12, times)
    wide = encode(
        tmp_path / "wide.mp4", [np.zeros((480, 320, 3), np.uint8)] * 12, times, aspect=Fraction(2)
    )
    keypoints = walking(12)
    poses = []
    for video, scale, facts in (
        (plain, 1.0, {}),
        (wide, 0.5, {}),
        (wide, 1.0, {"size": (640, 480)}),
        (wide, 0.5, {"size": (320, 480)}),
    ):
        np.savez("points.npz", keypoints=keypoints * [scale, 1, 1], layout="h36m17", **facts)
        arguments = f"--video {video} --keypoints points.npz --checkpoint {checkpoint} --output out"
        assert demo.command.main([*arguments.split(), "--formats", "npz"]) == 0
        with np.load("out/poses.npz") as arrays:
            poses.append({name: arrays[name] for name in arrays.files})
    for other in poses[1:]:
        for name in ("keypoints_2d", "pose_world", "times"):
            np.testing.assert_allclose(other[name], poses[0][name], atol=0.5)
        assert other["size"].tolist() == [640, 480]
