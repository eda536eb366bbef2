"""Films: every frame at its time, whole or not at all, and what is drawn in them."""

import resource
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from demo.export.film import SideBySide, write_film
from demo.export.focus import Focus, trail
from demo.poses import Poses
from demo.video import Video
from lib.drawing import TRAIL, Room, View, draw_2d
from lib.errors import UserError
from lib.film import Film
from lib.skeleton import H36M
from tests.demo_samples import standing
from tests.media import RATE, encode, loudness


def some_poses(frames: int, size: tuple[int, int], people: int = 1) -> Poses:
    rng = np.random.default_rng(0)
    flat = rng.random((people, frames, 17, 3)).astype(np.float32) * [*size, 1]
    world = rng.normal([0, 0, 900], 400, (people, frames, 17, 3)).astype(np.float32)
    camera = world - world[:, :, :1]
    variation = np.zeros(people)
    facts = (25.0, size, 0.0, np.arange(frames) / 25, np.ones((people, frames), dtype=np.int32))
    return Poses(np.arange(people) + 1, flat, camera, world, variation, *facts)


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


def test_people_are_drawn_where_they_are():
    poses = some_poses(6, (320, 360), people=2)
    poses.stretch[1] = [0, 0, 1, 1, 2, 0]
    never = replace(poses, stretch=poses.stretch * [[1], [0]])
    pictures = [[SideBySide(p, View()).draw(blank(), f) for p in (poses, never)] for f in range(6)]
    # Without the second person the pictures are equal exactly where that person is away.
    equal = [(both == alone).all() for both, alone in pictures]
    assert equal == [True, True, False, False, False, True]


@pytest.mark.parametrize("people", [1, 2])
def test_of_several_people_each_has_a_number_in_the_picture_and_in_the_room(people):
    poses = some_poses(1, (320, 360), people)
    poses.keypoints_2d[:, :, H36M.index("head"), 1] = -40  # the number is at the upper edge
    other = replace(poses, persons=poses.persons + 7)
    one, two = (SideBySide(p, View()).draw(blank(), 0) for p in (poses, other))
    for half in (np.s_[:, :320], np.s_[:, 320:]):
        assert (one[half] == two[half]).all() == (people == 1)


def blank() -> np.ndarray:
    return np.zeros((360, 320, 3), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "codec", "kept"),
    [
        ("mp4", "aac", "aac"),
        ("ts", "aac", "aac"),
        ("mkv", "flac", "flac"),
        ("mov", "pcm_s16le", "aac"),
        ("mkv", "pcm_s16le", "aac"),  # without a layout of its channels
    ],
)
def test_the_film_has_the_videos_sound_at_its_time(tmp_path, suffix, codec, kept):
    """A tone from 0.9 s to 1.4 s of a video whose pictures begin at 0.5 s, cut at 2.1 s."""
    times = 0.5 + np.arange(40) / 25
    seconds = np.arange(3 * RATE) / RATE
    tone = np.where((seconds > 0.9) & (seconds < 1.4), 0.5 * np.sin(2 * np.pi * 440 * seconds), 0)
    picture = np.zeros((120, 160, 3), np.uint8)
    video = tmp_path / f"tone.{suffix}"
    encode(video, [picture] * 40, times, sound=tone, sound_codec=codec)
    film = tmp_path / "film.mp4"
    said = write_film(film, some_poses(40, (160, 120)), View(), str(video))
    assert said == "film.mp4 (with sound)"
    with av.open(str(film)) as file:
        assert file.streams.audio[0].codec_context.name == kept
        # Sound and pictures lie side by side, so that a player need not read the whole file first.
        order = [packet.stream.type for packet in file.demux() if packet.size]
    assert sum(a != b for a, b in pairwise(order)) > 20
    heard = loudness(film) > 0.25
    assert np.flatnonzero(heard)[[0, -1]] == pytest.approx([40, 89], abs=2)  # hundredths
    assert len(heard) == pytest.approx(160, abs=5)

    # At another pace the sound would be of other moments.
    slow = replace(some_poses(40, (160, 120)), fps=5.0)
    assert write_film(film, slow, View(), str(video)) == "film.mp4"
    with av.open(str(film)) as file:
        assert not file.streams.audio


def test_the_film_keeps_the_times_of_a_changing_rate(tmp_path):
    times = [0.0, 0.04, 0.08, 0.2, 1.4, 1.41, 1.9]
    path = encode(tmp_path / "phone.mp4", [np.zeros((120, 160, 3), np.uint8)] * 7, times)
    with Video(str(path)) as video:
        fps = video.fps
    poses = replace(some_poses(7, (160, 120)), fps=fps, times=np.array(times))
    write_film(tmp_path / "film.mp4", poses, View(), str(path))
    with Video(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.frames()) == 7
        np.testing.assert_allclose(film.times, times, atol=1e-3)


def test_the_film_plays_in_a_browser_without_any_ffmpeg(tmp_path, monkeypatch, browser):
    monkeypatch.setenv("PATH", "")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    pictures = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 120 * 160 * 3)
    video = encode(tmp_path / "tone.mp4", pictures.reshape(25, 120, 160, 3), sound=tone)
    write_film(tmp_path / "film.mp4", some_poses(25, (160, 120)), View(), str(video))
    page = "<video id=v src=film.mp4></video>"
    (tmp_path / "page.html").write_text(page)
    browser.open(tmp_path / "page.html")
    browser.wait_for("v.readyState >= 4")
    assert browser.run("[v.duration, v.videoWidth, v.videoHeight]") == pytest.approx(
        [1, 840, 360], abs=0.03
    )
    browser.run("v.play().then(() => {}); 0")
    browser.wait_for("v.ended")
    assert browser.run("v.webkitDecodedFrameCount") == 25
    assert browser.run("v.webkitAudioDecodedByteCount") > 1000
    assert browser.run("v.error") is None and browser.problems == []


def test_a_film_that_fails_leaves_nothing_and_loses_nothing(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"the old one")
    with pytest.raises(RuntimeError, match="on purpose"), Film(path, (64, 48), 25.0) as film:
        film.write(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError("on purpose")
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_that_does_not_fit_is_told(tmp_path):
    """The limit on a file's size stands for a full disk, here before, in and after the frames."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 120, 160, 3), dtype=np.uint8)
    path = tmp_path / "film.mp4"
    write_frames(path, noise)
    size = path.stat().st_size
    path.write_bytes(b"the old one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (100, size // 3, size * 8 // 9, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(UserError, match=r"cannot write .*film\.mp4: File too large; free"):
                write_frames(path, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one"]


def write_frames(path: Path, frames: np.ndarray) -> None:
    with Film(path, (frames.shape[2], frames.shape[1]), 25.0) as film:
        for frame in frames:
            film.write(frame)


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


def going(metres: float, frames: int = 60) -> Poses:
    """Somebody of 1.75 m who goes away from the camera and to the right."""
    poses = some_poses(frames, (320, 360))
    poses.pose_world[:] = standing(frames)
    poses.pose_world[..., 2] += 900
    way = 1000 * metres * np.linspace(0, 1, frames)
    poses.pose_world[..., 0] += (0.6 * way)[:, None]
    poses.pose_world[..., 1] += (0.8 * way)[:, None]
    return poses


@pytest.mark.parametrize("metres", [0.0, 0.5, 4.0, 15.0])
def test_the_viewer_goes_along_with_those_who_walk(metres):
    """Who goes far is followed and seen whole and large; who stays is seen from one place."""
    poses = going(metres)
    focus = Focus.of(poses)
    assert (np.ptp(focus.middle[:, :2], axis=0).max() > 0) == (metres > 1)
    room = Room(focus.middle[0], focus.radius, (360, 360), View(20.0, turning=False))
    for frame in range(poses.num_frames):
        room.centre = focus.middle[frame]
        pixels, _ = room.project(poses.pose_world[0, frame], 20.0)
        assert (pixels > 0).all() and (pixels < 360).all()
        assert np.ptp(pixels[:, 1]) > 90  # of 360


def test_the_floor_passes_by_and_keeps_the_way():
    """The same pose in two places: the grid and the line on the floor differ, in a fixed view."""
    poses = going(6.0)
    picture = SideBySide(poses, View(0.0, turning=False))
    first, last = (picture.draw(blank(), frame)[:, 320:].copy() for frame in (0, 59))
    assert (first != last).any()
    color = np.array(TRAIL)
    lines = [(np.abs(room.astype(int) - color).max(axis=-1) < 8).sum() for room in (first, last)]
    assert lines[0] < 5 < 15 < lines[1]


def test_a_trail_begins_anew_where_somebody_comes_again():
    poses = some_poses(40, (320, 180))
    poses.stretch[:, :5] = 0
    poses.stretch[:, 25:] = 2
    line = trail(poses, 0, 19)  # every 0.1 s, that is each second frame
    np.testing.assert_array_equal(line, poses.pose_world[0, [5, 7, 9, 11, 13, 15, 17, 19], 0, :2])
    np.testing.assert_array_equal(trail(poses, 0, 28), poses.pose_world[0, [25, 27, 28], 0, :2])


def test_the_film_keeps_the_videos_time():
    """The room turns by the second: frame 10 at 25 frames/s is frame 20 at 50."""
    poses = some_poses(21, (320, 360))
    poses.pose_world[:] = poses.pose_world[:, :1]
    poses.keypoints_2d[:] = poses.keypoints_2d[:, :1]
    slow, fast = (
        SideBySide(poses, View()),
        SideBySide(replace(poses, fps=50.0, times=poses.times / 2), View()),
    )
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
