"""Reading videos in sections, films, live."""

import re
import shutil
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.detection import WARM_UP, detect_people, sections
from demo.export.film import SideBySide, write_film
from demo.live import SlidingLifter, run_live
from demo.people import Detector, People
from demo.poses import Poses
from demo.video import Video, ahead, find_video
from demo.world import millimetres_per_unit
from lib.drawing import Room, View, draw_2d
from lib.errors import UserError
from lib.film import Film
from lib.keypoints import COCO_17, H36M_17
from lib.skeleton import H36M
from tests.demo_samples import make_video, number_in


class Reader:
    """A "detector" that finds one person at x = the frame's number."""

    layout = COCO_17

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.numbers: list[int] = []

    def __call__(self, frames):
        for frame in frames:
            time.sleep(self.delay)
            self.numbers.append(number_in(frame))
            person = np.full((1, 17, 3), 0.5, dtype=np.float32)
            person[0, :, 0] = number_in(frame) + np.arange(17)
            person[0, :, 1] = 10 + np.arange(17) ** 1.5
            yield person


class FlatLifter:
    """Lifts to the picture's plane."""

    n_frames = 9

    def lift(self, clips: np.ndarray) -> np.ndarray:
        return np.concatenate([clips[..., :2], np.zeros_like(clips[..., :1])], axis=-1)


def some_poses(frames: int, size: tuple[int, int], people: int = 1) -> Poses:
    rng = np.random.default_rng(0)
    flat = rng.random((people, frames, 17, 3)).astype(np.float32) * [*size, 1]
    world = rng.normal([0, 0, 900], 400, (people, frames, 17, 3)).astype(np.float32)
    camera = world - world[:, :, :1]
    variation = np.zeros(people)
    return Poses(np.arange(people) + 1, flat, camera, world, variation, 25.0, size, 0.0)


# --- Reading --------------------------------------------------------------------------------


def detect(path: Path, kind: type, on_frame=lambda: None) -> People:
    with Video(str(path)) as video:
        return detect_people(video, Detector(kind, sections=True), on_frame)


def numbers(people: People) -> list[int]:
    """x of the first keypoint of the only person in each frame."""
    assert people.frame.tolist() == list(range(people.num_frames))
    return people.keypoints[:, 0, 0].astype(int).tolist()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sections_see_every_frame_once_and_in_order(tmp_path, monkeypatch, workers):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: workers)
    calls = []
    people = detect(path, Reader, lambda: calls.append(1))
    assert numbers(people) == list(range(200))
    assert len(calls) == 200
    assert (people.layout, people.fps, people.size) == (COCO_17, 25, (160, 120))


@pytest.mark.parametrize("claimed", [0, 130, 900])
def test_a_file_that_is_wrong_about_its_length_is_read_whole(tmp_path, monkeypatch, claimed):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: 2)
    opened = Video.__init__

    def lying(self, source):
        opened(self, source)
        self.count = claimed

    monkeypatch.setattr(Video, "__init__", lying)
    assert numbers(detect(path, Reader)) == list(range(200))


def test_sections_follow_the_same_person(tmp_path, monkeypatch):
    """Two people: a detector follows whom it finds first, until that person is gone."""
    path = make_video(tmp_path / "count.mp4", 400)

    class Follower(Reader):
        def __call__(self, frames):
            found = None
            for frame, (person,) in (
                (f, next(super(Follower, self).__call__([f]))) for f in frames
            ):
                number = number_in(frame)
                if found is None or (found == "left" and number >= 330):
                    found = "left" if number < 90 else "right"  # who is larger by then
                person[:, 0] = np.arange(17) * 3 + (0 if found == "left" else 500)
                yield person[None]

    found = []
    for cores in (1, 2, 4):
        monkeypatch.setattr("demo.detection.usable_cores", lambda cores=cores: cores)
        found.append(numbers(detect(path, Follower)))
    assert found[0] == [0] * 330 + [500] * 70
    assert found[1] == found[2] == found[0]


def test_a_detector_has_settled_when_its_section_begins(tmp_path, monkeypatch):
    """One that sees everything a pixel to the right in the first frames it is shown."""
    path = make_video(tmp_path / "count.mp4", 200)

    class Settling(Reader):
        def __call__(self, frames):
            for number, people in enumerate(super().__call__(frames)):
                people[..., 0] += number < WARM_UP
                yield people

    monkeypatch.setattr("demo.detection.usable_cores", lambda: 3)
    late = np.arange(200) < WARM_UP
    assert numbers(detect(path, Settling)) == (np.arange(200) + late).tolist()


def test_an_error_in_one_section_ends_all(tmp_path, monkeypatch):
    path = make_video(tmp_path / "count.mp4", 200)
    monkeypatch.setattr("demo.detection.usable_cores", lambda: 2)
    calls = []

    class Failing(Reader):
        def __call__(self, frames):
            for people in super().__call__(frames):
                if people[0, 0, 0] == 3:
                    raise UserError("on purpose")
                time.sleep(0.01)
                yield people

    with pytest.raises(UserError, match="on purpose"):
        detect(path, Failing, lambda: calls.append(1))
    assert len(calls) < 103  # not all of the other section's 100


def test_sections_cover_all():
    assert sections(0, 4) == [(0, None)]
    assert sections(90, 4) == [(0, None)]
    assert sections(1000, 2) == [(0, 500), (500, None)]
    assert sections(200, 8) == [(0, 66), (66, 133), (133, None)]


def test_what_is_no_video_is_told(tmp_path):
    noise = np.random.default_rng(0).bytes(4000)  # some noise FFmpeg does take for a video
    for name, content in (("empty.mp4", b""), ("noise.mp4", noise)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="no frame can be read"):
            Video(str(tmp_path / name))
    with pytest.raises(UserError, match="nor in demo/video/"):
        find_video("no_such_video.mp4")
    with pytest.raises(UserError, match="no such camera"):
        Video(97)


def test_a_truncated_video_is_read_as_far_as_it_goes(tmp_path):
    """The beginning of an AVI, whose index is at its end."""
    path = str(tmp_path / "whole.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for _ in range(60):
        writer.write(np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    writer.release()
    whole = Path(path).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    with Video(str(tmp_path / "half.avi")) as video:
        assert 20 < sum(1 for _ in video.frames()) < 40


@pytest.mark.parametrize("damaged", [range(1), range(25, 27)])
def test_damaged_frames_do_not_end_a_video(tmp_path, damaged):
    path = str(tmp_path / "whole.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for number in range(60):
        image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        image[:60] = number * 4
        writer.write(image)
    writer.release()
    content = bytearray(Path(path).read_bytes())
    starts = [match.start() for match in re.finditer(rb"00dc....\xff\xd8", content, re.DOTALL)]
    assert len(starts) == 60
    for number in damaged:
        content[starts[number] + 8 : starts[number + 1]] = bytes(
            starts[number + 1] - starts[number] - 8
        )
    (tmp_path / "damaged.avi").write_bytes(content)
    with Video(str(tmp_path / "damaged.avi")) as video:
        shown = [round(frame[:50].mean() / 4) for frame in video.frames()]
    assert shown == [number for number in range(60) if number not in damaged]


def test_a_video_filmed_upright_is_read_upright(tmp_path):
    """A phone turns no pixels: it writes a matrix into the track's header (ISO 14496-12, tkhd)."""
    path = make_video(tmp_path / "flat.mp4", 5)
    level = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    before, track, after = path.read_bytes().partition(b"tkhd")
    assert track and level in after
    (tmp_path / "turned.mp4").write_bytes(before + track + after.replace(level, turned, 1))
    with Video(str(path)) as video:
        assert video.size == (160, 120)
    with Video(str(tmp_path / "turned.mp4")) as video:
        assert video.size == (120, 160)
        # The numbers' blocks stand in the upper half; turned to the right, in the right half.
        frame = list(video.frames())[1]
        assert frame.shape == (160, 120, 3)
        assert frame[:16, 60:].mean() > 200 and frame[:, :60].mean() < 5


def test_working_ahead_changes_nothing_but_the_thread():
    assert list(ahead(range(100))) == list(range(100))

    def failing():
        yield 1
        raise UserError("in the other thread")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(UserError, match="in the other thread"):
        next(items)


def test_working_ahead_stops_when_nobody_wants_more():
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield made[-1]

    before = set(threading.enumerate())
    items = ahead(endless())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    (maker,) = set(threading.enumerate()) - before
    items.close()
    maker.join(20)
    assert not maker.is_alive()
    assert len(made) <= 4  # three taken and one waiting


# --- Films ----------------------------------------------------------------------------------


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
    """As on a full disk, of which OpenCV says nothing."""
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


# --- Live -----------------------------------------------------------------------------------


def test_live_drops_frames_rather_than_lagging(tmp_path, monkeypatch):
    """While the detector works on frame 0, all others arrive: it goes on with the last one."""
    path = make_video(tmp_path / "count.mp4", 60, fps=200)
    at_work, arrived = threading.Event(), threading.Event()
    read = Video.read

    def reading(video):
        frame = read(video)
        if frame is None:
            arrived.set()
        elif number_in(frame) == 1:
            assert at_work.wait(60)
        return frame

    class Slow(Reader):
        def __call__(self, frames):
            for people in super().__call__(frames):
                at_work.set()
                assert arrived.wait(60)
                yield people

    monkeypatch.setattr(Video, "read", reading)
    reader = Slow()
    report = run_live(
        str(path), reader, FlatLifter(), View(), window=False, film_path=tmp_path / "live.mp4"
    )
    assert reader.numbers == [0, 59]
    assert (report.shown, report.dropped, len(report.latencies)) == (2, 58, 2)
    monkeypatch.setattr(Video, "read", read)
    with Video(str(tmp_path / "live.mp4")) as film:
        # Dropped frames are made up for: the film lasts as long as what it shows.
        assert sum(1 for _ in film.frames()) == 60


def test_the_sliding_window_keeps_time_though_frames_were_dropped():
    """Keypoints that move 1 px a frame, seen every third frame: the window has all of them."""
    seen = []

    class Recording(FlatLifter):
        def lift(self, clips):
            seen.append(clips)
            return super().lift(clips)

    sliding = SlidingLifter(Recording(), size=(200, 100), fps=25.0, smooth=False)
    # As large and central as a person is who is shown as filmed.
    base = np.random.default_rng(0).random((17, 3)) * [50, 80, 1] + [60, 12, 0]
    for number in range(0, 31, 3):
        sliding(base + np.array([number, 0, 0]), number / 25)
    x = (seen[-1][0, :, 4, 0] + 1) * 100 - base[4, 0]
    np.testing.assert_allclose(x, np.arange(22, 31), atol=1e-4)
    # After a long absence the past no longer counts.
    sliding(base, 100.0)
    np.testing.assert_allclose((seen[-1][0, :, 4, 0] + 1) * 100, base[4, 0], atol=1e-4)


# Heights of two people; both are shown as filmed in a picture of 200 x 200.
TALL, SMALL = 115.0, 65.0


def body(height: float, x: float = 100.0) -> np.ndarray:
    """(17, 3) keypoints of someone of that height, from the middle of the picture downwards."""
    points = np.random.default_rng(0).random((17, 2))
    points[:2] = [[0, 0], [1, 1]]
    points = (points - 0.5) * [height / 2, height] + [x, 100]
    return np.concatenate([points, np.ones((17, 1))], axis=1)


def body_size(pose: np.ndarray) -> float:
    """How large a pose is: 1 for the body of average size that a person is scaled to."""
    return 1 / millimetres_per_unit(pose[None])


@pytest.mark.parametrize(
    ("pause", "x"), [(2.0, 100.0), (0.04, 150.0), (0.04, 100.0)], ids=["later", "beside", "swapped"]
)
@pytest.mark.parametrize(("first", "second"), [(TALL, SMALL), (SMALL, TALL)])
@pytest.mark.parametrize("smooth", [False, True])
def test_live_a_body_has_its_own_size(pause, x, first, second, smooth):
    """Somebody else comes: later, or in the next frame, beside the first or in their place."""
    sliding = SlidingLifter(FlatLifter(), size=(200, 200), fps=25.0, smooth=smooth)
    for number in range(40):
        sliding(body(first), number / 25)
    for number in range(3):
        pose = sliding(body(second, x), 39 / 25 + pause + number / 25)
        assert body_size(pose) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("fps", [5, 25])
def test_live_a_body_keeps_its_size(fps):
    """Somebody who runs by (3 m/s if they are 1.7 m tall) and once looks larger than they are."""
    sliding = SlidingLifter(FlatLifter(), size=(200, 200), fps=float(fps), smooth=False)
    speed = 3 / 1.7 * TALL / 1.2
    for number in range(60):
        pose = sliding(body(TALL / 1.2, 100 + speed * number / fps), number / fps)
    assert body_size(pose) == pytest.approx(1, rel=1e-3)
    pose = sliding(body(TALL, 100 + speed * 60 / fps), 60 / fps)
    assert body_size(pose) == pytest.approx(1.2, rel=0.01)


def test_live_the_largest_person_stands_on_the_floor_of_the_room(tmp_path, monkeypatch):
    """Of two people; the camera looks down by 90°, so their picture lies on the floor."""
    path, drawn = make_video(tmp_path / "count.mp4", 3), []
    monkeypatch.setattr(Room, "draw", lambda self, panel, *what: drawn.append(what))

    class Two(Reader):
        layout = H36M_17

        def __call__(self, frames):
            for _ in frames:
                small, large = body(30, 40), body(60, 110)
                small[4, 2] = 0  # not seen
                yield np.stack([small, large]).astype(np.float32)

    for pitch in (0.0, 90.0):
        run_live(str(path), Two(), FlatLifter(), View(), window=False, camera_pitch=pitch)
        (pose,), (seen,), _ = drawn[-1]
        assert seen.all()
        across = np.ptp(body(60)[:, 0]) * 2290 / body_size_in_pixels(body(60))
        assert np.ptp(pose[:, 0]) == pytest.approx(across, rel=1e-4)
        assert pose[:, 2].min() == pytest.approx(0, abs=1e-6)
        high, flat = np.ptp(pose[:, 2]), np.ptp(pose[:, 1])
        assert (high, flat) == pytest.approx((2 * across, 0) if pitch == 0 else (0, 2 * across))


def body_size_in_pixels(keypoints: np.ndarray) -> float:
    flat = np.concatenate([keypoints[:, :2], np.zeros((17, 1))], axis=1)
    return 2290 / millimetres_per_unit(flat[None])
