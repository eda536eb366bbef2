"""Reading videos: damaged, cut off, turned; and reading ahead in a thread."""

import re
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.video import Video, ahead, find_video
from lib.errors import UserError
from tests.demo_samples import make_video


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
