"""Films: every frame at its time, whole or not at all, and what is drawn in them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from demo.export.film import SideBySide, write_film
from demo.poses import Poses
from demo.video import Video
from lib.drawing import Room, View, draw_2d
from lib.errors import UserError
from lib.film import Film
from lib.skeleton import H36M


def some_poses(frames: int, size: tuple[int, int], people: int = 1) -> Poses:
    rng = np.random.default_rng(0)
    flat = rng.random((people, frames, 17, 3)).astype(np.float32) * [*size, 1]
    world = rng.normal([0, 0, 900], 400, (people, frames, 17, 3)).astype(np.float32)
    camera = world - world[:, :, :1]
    variation = np.zeros(people)
    return Poses(np.arange(people) + 1, flat, camera, world, variation, 25.0, size, 0.0)


@pytest.mark.parametrize("size", [(320, 180), (180, 320), (61, 47), (1500, 1300)])
@pytest.mark.parametrize("people", [1, 2])
def test_a_film_has_every_frame_at_the_right_rate(tmp_path, size, people):
    poses = some_poses(7, size, people)
    write_film(tmp_path / "film.mp4", poses, View(turning=True))
    with Video(str(tmp_path / "film.mp4")) as film:
        assert film.fps == pytest.approx(25)
        shown = list(film.frames())
    assert len(shown) == 7
    height, width = shown[0].shape[:2]
    assert height % 2 == 0 and width % 2 == 0 and 360 <= height <= 1080
    # Left the picture in its own proportions, right the room.
    left = SideBySide(poses, View())._left
    assert left[0] / left[1] == pytest.approx(size[0] / size[1], rel=0.02) and width > left[0]
    assert list(tmp_path.iterdir()) == [tmp_path / "film.mp4"]


def test_people_are_drawn_from_first_to_last_sight():
    poses = some_poses(6, (320, 360), people=2)
    poses.keypoints_2d[1, :, :, 2] = np.array([0, 0, 1, 0, 1, 0])[:, None]
    assert poses.present.tolist() == [[True] * 6, [False, False, True, True, True, False]]
    never = replace(poses, keypoints_2d=poses.keypoints_2d * [[[[1]]], [[[0]]]])
    pictures = [[SideBySide(p, View()).draw(blank(), f) for p in (poses, never)] for f in range(6)]
    # Without the second person the pictures are equal exactly where that person is away.
    equal = [(both == alone).all() for both, alone in pictures]
    assert equal == [True, True, False, False, False, True]


def blank() -> np.ndarray:
    return np.zeros((360, 320, 3), np.uint8)


def test_without_ffmpeg_opencv_writes_the_film(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.film.shutil.which", lambda name: None)
    written = write_film(tmp_path / "film.mp4", some_poses(5, (160, 120)), View())
    assert written.startswith("film.mp4 (") and "OpenCV" in written
    with Video(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.frames()) == 5


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_a_film_that_fails_leaves_nothing_and_loses_nothing(tmp_path, monkeypatch, ffmpeg):
    if ffmpeg and not shutil.which("ffmpeg"):
        pytest.skip("needs ffmpeg")
    if not ffmpeg:
        monkeypatch.setattr("lib.film.shutil.which", lambda name: None)
    path = tmp_path / "film.mp4"
    path.write_bytes(b"the old one")
    with pytest.raises(RuntimeError, match="on purpose"), Film(path, (64, 48), 25.0) as film:
        film.write(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError("on purpose")
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_that_opencv_could_not_write_is_told(tmp_path, monkeypatch):
    """As on a full disk, which OpenCV does not report."""
    monkeypatch.setattr("lib.film.shutil.which", lambda name: None)
    with (
        pytest.raises(UserError, match="of 9 frames 0"),
        Film(tmp_path / "film.mp4", (64, 48), 25.0) as film,
    ):
        for _ in range(9):
            film.write(np.zeros((48, 64, 3), np.uint8))
        film._writer.release()
        film._temporary.write_bytes(film._temporary.read_bytes()[:200])
    assert list(tmp_path.iterdir()) == []


def test_a_room_shows_what_is_nearer_larger_and_up_above():
    room = Room(np.array([0.0, 0, 900]), 1000.0, (400, 400), View(0.0, turning=False))
    pixels, depth = room.project(np.array([[0, 0, 900], [0, 0, 1500], [500, 0, 900]]), 0.0)
    np.testing.assert_allclose(pixels[0], [200, 200])
    assert pixels[1, 1] < pixels[0, 1] and pixels[2, 0] > pixels[0, 0]
    # From behind, right is left.
    turned, _ = room.project(np.array([[500.0, 0, 900]]), 180.0)
    assert turned[0, 0] < 200
    points = np.array([[-500.0, -500, 900], [500, -500, 900], [-500, 500, 900], [500, 500, 900]])
    pixels, depth = room.project(points, 0.0)
    assert pixels[1, 0] - pixels[0, 0] > pixels[3, 0] - pixels[2, 0]  # y away: farther, smaller
    assert depth[2] > depth[0]


def test_the_film_keeps_the_videos_time():
    """The room turns by the second: frame 10 at 25 frames/s is frame 20 at 50."""
    poses = some_poses(21, (320, 360))
    poses.pose_world[:] = poses.pose_world[:, :1]
    poses.keypoints_2d[:] = poses.keypoints_2d[:, :1]
    slow, fast = SideBySide(poses, View()), SideBySide(replace(poses, fps=50.0), View())
    picture = slow.draw(blank(), 10).copy()
    assert (picture == fast.draw(blank(), 20)).all()
    assert (picture != fast.draw(blank(), 10)).any()
    assert View(10.0).at(5.0) == 10 + 360 / 4  # a turn takes 20 s
    assert View(10.0, turning=False).at(5.0) == 10


def test_keypoints_far_outside_the_picture_do_no_harm():
    frame = np.zeros((100, 100, 3), np.uint8)
    draw_2d(frame, np.full((17, 3), 1e7), "1")
    draw_2d(frame, np.full((17, 3), -1e7), "1")
    assert frame.shape == (100, 100, 3) and not frame.any()  # nothing of them is in the picture


def test_colours_are_those_of_the_skeleton():
    frame = np.zeros((200, 200, 3), np.uint8)
    keypoints = np.full((17, 3), [50.0, 50, 1])
    elbow, wrist = H36M.index("left_elbow"), H36M.index("left_wrist")
    keypoints[elbow, :2], keypoints[wrist, :2] = [100, 20], [100, 180]
    draw_2d(frame, keypoints)
    assert tuple(frame[150, 100, ::-1]) == H36M.colors[wrist]
    keypoints[wrist, 2] = 0
    draw_2d(frame, keypoints)
    assert tuple(frame[150, 100]) == (170, 170, 170)
