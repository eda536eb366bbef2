"""Reading videos: damaged, cut off, turned; and reading ahead in a thread."""

import re
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from demo.video import Video, ahead, find_video
from lib.errors import UserError
from tests.media import encode


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


CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))  # (row, column)


def flag(size: tuple[int, int]) -> np.ndarray:
    """A picture whose corners differ: 240, 160, 80 and 0, in the order of CORNERS."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 240
    image[: height // 2, width // 2 :] = 160
    image[height // 2 :, : width // 2] = 80
    return image


@pytest.mark.parametrize(
    "turn",
    [
        [[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]],
        [[-1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 0], [0, -1]], [[0, -1], [-1, 0]],
    ],
)  # fmt: skip
def test_a_picture_is_turned_and_mirrored_as_the_file_says(tmp_path, turn):
    """A phone turns no pixels: it writes a matrix into the track's header (ISO 14496-12, tkhd).

    turn: where (x, y) of the stored picture goes.
    """
    path = encode(tmp_path / "flat.mp4", [flag((160, 120))] * 3)
    (a, c), (b, d) = turn
    level = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    before, track, after = path.read_bytes().partition(b"tkhd")
    assert track and level in after
    (tmp_path / "turned.mp4").write_bytes(before + track + after.replace(level, turned, 1))
    with Video(str(tmp_path / "turned.mp4")) as video:
        size = (160, 120) if a else (120, 160)
        assert video.size == video.stored_size == size
        frame = list(video.frames())[1]
    assert frame.shape == (size[1], size[0], 3)
    for (row, column), grey in zip(CORNERS, (240, 160, 80, 0), strict=True):
        x, y = np.array(turn) @ [-1 if column == 0 else 1, -1 if row == 0 else 1]
        corner = frame[2 if y < 0 else -3, 2 if x < 0 else -3]
        assert corner.mean() == pytest.approx(grey, abs=6)


@pytest.mark.parametrize(
    ("aspect", "turn", "size", "stored"),
    [
        (Fraction(2), 0, (320, 120), (160, 120)),
        (Fraction(1, 2), 0, (160, 240), (160, 120)),
        (Fraction(64, 45), 0, (228, 120), (160, 120)),
        (Fraction(2), 90, (120, 320), (120, 160)),
    ],
)
def test_pixels_that_are_not_square_are_made_square(tmp_path, aspect, turn, size, stored):
    path = encode(tmp_path / "wide.mp4", [flag((160, 120))] * 2, aspect=aspect, turn=turn)
    with Video(str(path)) as video:
        assert (video.size, video.stored_size) == (size, stored)
        assert video.pixel_aspect == pytest.approx(float(1 / aspect if turn else aspect))
        for frame in video.frames():
            assert frame.shape == (size[1], size[0], 3)
            corner = frame[-3, 2] if turn else frame[2, 2]  # to the left: up goes there
            assert corner.mean() == pytest.approx(240, abs=6)


def test_every_frame_has_its_time(tmp_path):
    """A phone's rate changes with the light, and its clock does not start at 0."""
    times = [0.5, 0.54, 0.58, 0.7, 1.9, 1.91, 2.4]
    path = encode(tmp_path / "phone.mkv", [flag((160, 120))] * 7, times)
    with Video(str(path)) as video:
        assert video.skip() and video.skip()
        assert sum(1 for _ in video.frames()) == 5
        np.testing.assert_allclose(video.times, np.array(times) - 0.5, atol=1e-3)
        assert video.start == pytest.approx(0.5)


def test_a_clock_that_starts_anew_goes_on(tmp_path):
    """Two recordings joined without any change, as MPEG allows: times rise all the same."""
    path = encode(tmp_path / "one.ts", [flag((160, 120))] * 20)
    (tmp_path / "two.ts").write_bytes(path.read_bytes() * 2)
    with Video(str(tmp_path / "two.ts")) as video:
        assert sum(1 for _ in video.frames()) == 40
        np.testing.assert_allclose(np.diff(video.times), 1 / 25, atol=0.011)


def test_frames_without_a_time_follow_at_the_files_rate(tmp_path):
    path = encode(tmp_path / "raw.h264", [flag((160, 120))] * 10)
    with Video(str(path)) as video:
        assert sum(1 for _ in video.frames()) == 10
        steps = np.diff(video.times)
        assert steps.min() > 0 and steps == pytest.approx(1 / (video.fps or 25), rel=0.01)


def test_ten_bits_and_the_colours_of_hd_are_read_right(tmp_path):
    """Greys to a step of eight bits; a saturated red by BT.709, which a reader of BT.601 misses."""
    ramp = np.linspace(2000, 60000, 160).astype(np.uint16)
    deep = np.broadcast_to(ramp[None, :, None], (120, 160, 3)).copy()
    options = {"crf": "1"}
    path = encode(tmp_path / "deep.mp4", [deep] * 2, pixels="yuv420p10le", options=options)
    with Video(str(path)) as video:
        frame = next(video.frames())
    np.testing.assert_allclose(frame[60, :, 1], ramp / 257, atol=2.5)

    y, cb, cr = 16 + 219 * 0.2126, 128 - 224 * 0.1146, 128 + 224 * 0.5  # red, ITU-R BT.709, 3.2
    planes = [np.full((120, 160), y), np.full((60, 80), cb), np.full((60, 80), cr)]
    picture = np.concatenate([plane.reshape(-1, 160) for plane in planes]).round().astype(np.uint8)
    with av.open(str(tmp_path / "red.mp4"), "w") as file:
        track = file.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 160, 120, "yuv420p"
        track.codec_context.colorspace = 1
        file.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        file.mux(track.encode(None))
    with Video(str(tmp_path / "red.mp4")) as video:
        np.testing.assert_allclose(next(video.frames())[60, 80], [0, 0, 255], atol=6)


def test_names_that_ffmpeg_would_take_for_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = encode(tmp_path / "plain.mp4", [flag((160, 120))] * 2)
    for name in ("12:30.mp4", "concat:a.mp4", "img%03d.mp4", "-y.mp4", "ä ö|.mp4"):
        Path(name).write_bytes(path.read_bytes())
        with Video(find_video(name)) as video:
            assert sum(1 for _ in video.frames()) == 2


def test_a_file_of_sound_alone_is_told(tmp_path):
    with av.open(str(tmp_path / "song.m4a"), "w") as file:
        track = file.add_stream("aac", rate=48_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), "f4"), format="fltp", layout="mono"
        )
        silence.rate = 48_000
        file.mux(track.encode(silence))
        file.mux(track.encode(None))
    with pytest.raises(UserError, match=r"song\.m4a: has no pictures"):
        Video(str(tmp_path / "song.m4a"))


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
