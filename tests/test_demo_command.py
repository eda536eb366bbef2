"""The demo's command line: every flag, every result, and one clear sentence for every mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import demo.command
import demo.options
from demo.export import EXPORTERS, Export
from demo.people import Detector, People
from demo.pipeline import VideoLifter
from demo.poses import bone_lengths
from demo.video import Video
from lib.checkpoint import load_checkpoint, save_checkpoint
from lib.errors import UserError
from lib.files import PROJECT_ROOT, write_atomic
from lib.keypoints import H36M_17
from tests.demo_samples import make_video, walking


@pytest.mark.parametrize(
    ("flags", "flip", "settings"),
    [
        ("", True, {}),
        ("--no-flip", False, {}),
        ("--smooth", True, {"smooth": True}),
        ("--camera-pitch 33", True, {"camera_pitch": 33.0}),
        ("--camera-roll 12", True, {"camera_roll": 12.0}),
        ("--free-bones", True, {"constant_bones": False}),
        ("--fov 70", True, {"fov": 70.0}),
        ("--height 1.6", True, {"height": 1.6}),
        ("--in-place", True, {"fov": None}),
    ],
)
def test_flags_reach_the_lifter(checkpoint, tmp_path, monkeypatch, flags, flip, settings):
    keypoints = walking(12)[0]
    keypoints[..., :2] += np.random.default_rng(4).normal(0, 3, (12, 17, 2))
    np.savez(tmp_path / "points.npz", keypoints=keypoints, layout="h36m17", size=(640, 480), fps=30)
    monkeypatch.chdir(tmp_path)
    arguments = f"--keypoints points.npz --checkpoint {checkpoint} --output out --formats npz"
    assert demo.command.main([*arguments.split(), *flags.split()]) == 0
    lifter = VideoLifter.from_checkpoint(checkpoint, flip=flip, device="cpu")
    people = People.of_array(keypoints[None], H36M_17).filmed(30.0, (640, 480))
    expected = lifter.lift_people(people, **settings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["poses.npz"]  # nothing else
    with np.load(tmp_path / "out" / "poses.npz") as found:
        np.testing.assert_allclose(found["pose_world"], expected.pose_world, atol=1e-3)
        np.testing.assert_allclose(found["keypoints_2d"], expected.keypoints_2d[..., :2])
        assert found["camera_pitch"] == expected.camera_pitch
        assert found["camera_roll"] == expected.camera_roll


class Walker:
    """A detector that sees somebody walk."""

    layout = H36M_17

    def __call__(self, frames):
        for _, pose in zip(frames, walking(14)[0], strict=False):
            yield pose[None]


@pytest.mark.parametrize(("flags", "fps"), [("", 50), ("--fps 10", 10)])
def test_the_videos_frame_rate_goes_into_all_results(checkpoint, tmp_path, monkeypatch, flags, fps):
    make_video(tmp_path / "walk.mp4", 14, size=(640, 480), fps=50)

    monkeypatch.setattr(demo.command, "choose_detector", lambda *_: Detector(Walker))
    monkeypatch.chdir(tmp_path)
    arguments = f"--video walk.mp4 --checkpoint {checkpoint} --output out {flags}"
    assert demo.command.main(arguments.split()) == 0
    with np.load(tmp_path / "out" / "poses.npz") as poses:
        assert poses["fps"] == fps and poses["pose_3d"].shape == (1, 14, 17, 3)
    assert json.loads((tmp_path / "out" / "poses.json").read_text())["fps"] == fps
    assert f"Frame Time: {1 / fps:.8f}\n" in (tmp_path / "out" / "walk.bvh").read_text()
    assert f'"fps": {fps}.0,' in (tmp_path / "out" / "walk.html").read_text()
    with Video(str(tmp_path / "out" / "walk.mp4")) as film:
        assert film.fps == pytest.approx(fps)


@pytest.mark.parametrize(("formats", "times"), [("npz,json,bvh,html", 1), ("mp4", 2)])
def test_a_video_is_opened_once_and_again_for_the_film(
    checkpoint, tmp_path, monkeypatch, formats, times
):
    make_video(tmp_path / "walk.mp4", 5, size=(640, 480))
    opened, init = [], Video.__init__
    monkeypatch.setattr(Video, "__init__", lambda v, source: opened.append(1) or init(v, source))
    monkeypatch.setattr(demo.command, "choose_detector", lambda *_: Detector(Walker))
    monkeypatch.chdir(tmp_path)
    arguments = f"--video walk.mp4 --checkpoint {checkpoint} --output out --formats {formats}"
    assert demo.command.main(arguments.split()) == 0
    assert len(opened) == times


def test_an_exporter_is_one_line(checkpoint, tmp_path, monkeypatch):
    """Files of its own are made, and may not replace what is read."""

    def write_lengths(path: Path, job: Export) -> None:
        with write_atomic(path, "w") as file:
            file.write(str(bone_lengths(job.poses.pose_world).mean()))

    monkeypatch.setitem(EXPORTERS, "txt", ("{name}_bones.txt", write_lengths))
    monkeypatch.chdir(tmp_path)
    np.savez("points.npz", keypoints=walking(5), layout="h36m17", size=(640, 480))
    arguments = f"--keypoints points.npz --checkpoint {checkpoint} --output out --formats txt"
    assert demo.command.main(arguments.split()) == 0
    assert 50 < float(Path("out/points_bones.txt").read_text()) < 1000
    os.replace("points.npz", "out/points_bones.txt")
    Path("points.npz").symlink_to("out/points_bones.txt")
    with pytest.raises(UserError, match="is read from too"):
        demo.command.main(arguments.split())


def vis(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "demo" / "vis.py"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_the_command_line_writes_every_format(checkpoint, tmp_path):
    make_video(tmp_path / "walk.mp4", 14, size=(640, 480))
    np.savez(tmp_path / "points.npz", keypoints=walking(14, 2), layout="h36m17")
    what = "--video walk.mp4 --keypoints points.npz --person all --smooth"
    where = f"--checkpoint {checkpoint.parent} --output out --save-keypoints saved.json"
    done = vis(*what.split(), *where.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = " ".join(sorted(path.name for path in (tmp_path / "out").iterdir()))
    arrays, films = "poses.json poses.npz", "walk.glb walk.html walk.mp4"
    others = "walk_1.bvh walk_1.trc walk_2.bvh walk_2.trc walk_angles.csv"
    assert names == f"{arrays} {films} {others}"
    with np.load(tmp_path / "out" / "poses.npz") as poses:
        assert poses["pose_world"].shape == (2, 14, 17, 3)
        assert poses["size"].tolist() == [640, 480] and float(poses["fps"]) == 25
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert saved["layout"] == H36M_17.name and np.shape(saved["keypoints"]) == (2, 14, 17, 3)
    with Video(str(tmp_path / "out" / "walk.mp4")) as film:
        assert sum(1 for _ in film.frames()) == 14


# --- Mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--video", "none.mp4"], "no such file"),
        ([], "no source"),
        (["--keypoints", "points.npz", "--size", "wide"], "1280x720"),
        (["--keypoints", "points.npz"], "--size 1280x720"),
        (["--keypoints", "points.npz", "--person", "3", "--size", "640x480"], "--person 3"),
        (["--keypoints", "points.npz", "--formats", "mp5"], "no 'mp5'"),
        (
            ["--keypoints", "points.npz", "--checkpoint", "no", "--size", "9x9"],
            "no such checkpoint",
        ),
        (["--keypoints", "points.npz", "--camera-pitch", "up"], "--camera-pitch up"),
        (["--keypoints", "points.npz", "--camera-roll", "200"], "--camera-roll 200: auto, or deg"),
        (["--webcam", "0", "--no-window", "--camera-roll", "9"], "--camera-roll: live"),
        (["--keypoints", "points.npz", "--fov", "0"], "--fov 0: from 5"),
        (["--keypoints", "points.npz", "--fov", "60", "--in-place"], "--in-place needs no --fov"),
        (
            ["--keypoints", "points.npz", "--height", "175"],
            "--height 175: in metres, from 0.4 to 2.6",
        ),
        (["--webcam", "0", "--no-window", "--height", "1.6"], "--height: live"),
        (["--keypoints", "points.npz", "--save-keypoints", "x.txt"], ".npz or .json"),
        (["--live", "--keypoints", "points.npz"], "--live"),
        (["--keypoints", "points.npz", "--video", "rtsp://host/x", "--no-window"], "not a stream"),
        (["--webcam", "0", "--no-window", "--person", "2"], "--person"),
        (["--webcam", "0", "--no-window", "--formats", "bvh"], "--formats"),
        (["--keypoints", "points.npz", "--view", "nan"], "--view nan"),
        (["--keypoints", "points.npz", "--fps", "nan"], "--fps nan"),
        (["--keypoints", "points.npz", "--fps", "0"], "--fps 0: more than 0"),
        (["--keypoints", "slow.npz"], "-3.0 frames/s"),
        (["--keypoints", "points.npz", "--size", "640x480", "--output", "slow.npz/x"], "slow.npz"),
        (["--frobnicate"], "--frobnicate"),
        (["--keypoints", "points.npz", "--gpu", "first"], "--gpu"),
        (["--keypoints", "points.npz", "--gpu", "0", "--device", "cpu"], "--gpu and --device"),
    ],
)
def test_mistakes_are_told(checkpoint, tmp_path, monkeypatch, arguments, told):
    np.savez(tmp_path / "points.npz", keypoints=walking(5), layout="h36m17")
    np.savez(tmp_path / "slow.npz", keypoints=walking(5), layout="h36m17", size=(9, 9), fps=-3)
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", checkpoint]
    monkeypatch.chdir(tmp_path)
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "out"]
    with pytest.raises(UserError) as error:
        demo.command.main([*map(str, arguments)])
    assert told in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_one_line_without_a_traceback(tmp_path):
    done = vis("--video", "none.mp4", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --video none.mp4: no such file")
    assert done.stderr.count("\n") == 1


def link(source: Path, name: str) -> None:
    Path(name).symlink_to(source)


@pytest.mark.parametrize(
    ("prepare", "arguments"),
    [
        (None, "--video walk.mp4 --keypoints points.npz --output ."),
        (None, "--keypoints points.npz --save-keypoints points.npz"),
        (None, "--keypoints points.npz --save-keypoints ./out/../points.npz"),
        (
            lambda: link("points.npz", "alias.npz"),
            "--keypoints points.npz --save-keypoints alias.npz",
        ),
        (
            lambda: link("points.npz", "alias.npz"),
            "--keypoints alias.npz --save-keypoints points.npz",
        ),
        (
            lambda: os.link("points.npz", "hard.npz"),
            "--keypoints points.npz --save-keypoints hard.npz",
        ),
        (None, "--keypoints folder --save-keypoints folder/0.json"),
        (lambda: os.link("folder/0.json", "out/poses.json"), "--keypoints folder --output out"),
        (lambda: os.link("points.npz", "out/points.html"), "--keypoints points.npz --output out"),
        (lambda: os.link("points.npz", "out/points_2.bvh"), "--keypoints points.npz --output out"),
        (None, "--keypoints points.npz --checkpoint weights.npz --save-keypoints weights.npz"),
        (None, "--keypoints points.npz --config config.json --save-keypoints config.json"),
        (None, "--keypoints points.npz --stage1-checkpoint first.npz --save-keypoints first.npz"),
        (
            lambda: link("../walk.mp4", "out/walk_live.mp4"),
            "--video walk.mp4 --live --record --output out",
        ),
    ],
)
def test_no_result_replaces_what_is_read(checkpoint, tmp_path, monkeypatch, prepare, arguments):
    """The same file under any name, whatever it is read as and whatever it would be written as."""
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "walk.mp4", 5, size=(640, 480))
    np.savez("points.npz", keypoints=walking(5), layout="h36m17", size=(640, 480))
    shutil.copy(checkpoint, "weights.npz")
    save_checkpoint("first.npz", {"model": load_checkpoint(checkpoint).bone_aware})
    Path("config.json").write_text(json.dumps(load_checkpoint(checkpoint).config))
    for name in ("folder", "out"):
        Path(name).mkdir()
    person = {"pose_keypoints_2d": np.ones(75).tolist()}
    Path("folder/0.json").write_text(json.dumps({"people": [person]}))
    if prepare:
        prepare()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    if "--checkpoint" not in arguments:
        arguments += f" --checkpoint {checkpoint}"
    if "--size" not in arguments and "--keypoints" in arguments and "--video" not in arguments:
        arguments += " --size 640x480"
    if "--output" not in arguments:
        arguments += " --output results"
    with pytest.raises(UserError, match="is read from too"):
        demo.command.main([*arguments.split(), "--no-window"])
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_two_results_of_one_name_are_told(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("points.npz", keypoints=walking(5), layout="h36m17", size=(640, 480))
    arguments = f"--keypoints points.npz --checkpoint {checkpoint} --output out"
    clash = [*arguments.split(), "--save-keypoints", "out/poses.npz"]
    with pytest.raises(UserError, match="has the same name"):
        demo.command.main(clash)
    assert not Path("out").exists()
    assert demo.command.main([*clash, "--formats", "bvh"]) == 0  # then there is one


# --- The released command line --------------------------------------------------------------


def test_gpu_takes_the_cpu_where_there_is_no_cuda(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    np.savez("points.npz", keypoints=walking(5), layout="h36m17", size=(640, 480))
    arguments = f"--keypoints points.npz --checkpoint {checkpoint} --output out --gpu 0"
    assert demo.command.main([*arguments.split(), "--formats", "npz"]) == 0
    assert "--gpu 0: no CUDA here; the CPU computes\n" in capsys.readouterr().out
    assert Path("out/poses.npz").exists()


def test_gpu_is_a_cuda_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert demo.command.choose_place("auto", demo.options.gpu_number("1")) == "cuda:1"
    assert demo.command.choose_place("auto", demo.options.gpu_number("2,0")) == "cuda:2"
    assert demo.command.choose_place("cpu", None) == "cpu"


def test_without_a_source_the_sample_video_is_shown(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("demo.video.VIDEO_DIR", tmp_path)
    make_video(tmp_path / "sample_video.mp4", 5)
    monkeypatch.chdir(tmp_path)
    arguments = f"--checkpoint {checkpoint} --output out --live --no-window --record"
    monkeypatch.setattr(demo.command, "choose_detector", lambda *_: Detector(Nobody))
    assert demo.command.main(arguments.split()) == 0
    assert [path.name for path in Path("out").iterdir()] == ["sample_video_live.mp4"]
    assert capsys.readouterr().out.splitlines()[-1] == "out/sample_video_live.mp4"


class Nobody:
    """A detector that finds nobody."""

    layout = H36M_17

    def __call__(self, frames):
        for _ in frames:
            yield np.zeros((0, 17, 3), np.float32)
