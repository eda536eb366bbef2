"""Live: no lag, the right time, and everybody's own size."""

import threading

import numpy as np
import pytest

from demo.live import SlidingLifter, run_live
from demo.video import Video
from demo.world import millimetres_per_unit
from lib.drawing import Room, View
from lib.keypoints import H36M_17
from tests.demo_samples import Reader, make_video, number_in


class FlatLifter:
    """Lifts to the picture's plane."""

    n_frames = 9
    frame_rate = 25.0

    def lift(self, clips: np.ndarray) -> np.ndarray:
        return np.concatenate([clips[..., :2], np.zeros_like(clips[..., :1])], axis=-1)


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
    """A joint that moves 1 px a frame, seen every third frame: the window has all of them."""
    seen = []

    class Recording(FlatLifter):
        def lift(self, clips):
            seen.append(clips)
            return super().lift(clips)

    sliding = SlidingLifter(Recording(), size=(200, 100), smooth=False)
    # As large and central as a person is who is shown as filmed.
    base = np.random.default_rng(0).random((17, 3)) * [50, 80, 1] + [75, 12, 0]
    base[:2, 0], base[4, 0] = (75, 125), 80
    moves = (np.arange(17) == 4)[:, None] * [1, 0, 0]
    for number in range(0, 31, 3):
        sliding(base + moves * number, number / 25)
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
    sliding = SlidingLifter(FlatLifter(), size=(200, 200), smooth=smooth)
    for number in range(40):
        sliding(body(first), number / 25)
    for number in range(3):
        pose = sliding(body(second, x), 39 / 25 + pause + number / 25)
        assert body_size(pose) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("fps", [5, 25])
def test_live_a_body_keeps_its_size(fps):
    """Somebody who runs by (3 m/s if they are 1.7 m tall) and once looks larger than they are."""
    sliding = SlidingLifter(FlatLifter(), size=(200, 200), smooth=False)
    speed = 3 / 1.7 * TALL / 1.2
    for number in range(60):
        pose = sliding(body(TALL / 1.2, 100 + speed * number / fps), number / fps)
    assert body_size(pose) == pytest.approx(1, rel=1e-3)
    pose = sliding(body(TALL, 100 + speed * 60 / fps), 60 / fps)
    assert body_size(pose) == pytest.approx(1.2, rel=0.01)


def test_live_the_largest_person_stands_on_the_floor_of_the_room(tmp_path, monkeypatch):
    """Of two people; the camera looks down by 90°, so their picture lies on the floor."""
    path, drawn = make_video(tmp_path / "count.mp4", 3), []
    monkeypatch.setattr(Room, "draw", lambda self, panel, *what, labels: drawn.append(what))

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


def test_live_everybody_has_a_number_a_size_and_a_place(tmp_path, monkeypatch):
    """A tall person walks to the right, a small one (a child near, or somebody far) to the left."""
    drawn, told, written = [], [], []
    path = make_video(tmp_path / "count.mp4", 40, size=(200, 200), fps=100)
    monkeypatch.setattr(
        Room, "draw", lambda *what, labels: (drawn.append(what[2:]), written.extend(labels))
    )
    monkeypatch.setattr(
        "demo.live.draw_2d", lambda frame, points, text: told.append((text, points))
    )

    class Two(Reader):
        layout = H36M_17

        def __call__(self, frames):
            for frame in frames:
                t = number_in(frame)
                pair = np.stack([body(TALL, 60 + t), body(SMALL, 140 - t)])
                yield pair[:: 1 if t % 3 else -1].astype(np.float32)

    report = run_live(str(path), Two(), FlatLifter(), View(), window=False, everybody=True)
    assert report.shown == len(drawn) and len(told) == 2 * len(drawn)
    assert [text for text, _ in told] == written  # in the room as in the picture
    heights = {}
    for text, points in told:
        heights.setdefault(text, set()).add(round(float(np.ptp(points[:, 1]))))
    assert sorted(map(len, heights.values())) == [1, 1]  # a number is one person's
    poses, seen, _ = drawn[0]
    assert poses.shape == (2, 17, 3) and seen.shape == (2, 17)
    tall, small = sorted(poses, key=lambda pose: pose[0, 1])  # who looks larger is nearer
    assert tall[0, 0] < small[0, 0]
    for pose in (tall, small):  # both of average size, on the floor
        assert body_size(pose) == pytest.approx(1, rel=1e-3)
        assert pose[:, 2].min() == pytest.approx(0, abs=1e-6)
