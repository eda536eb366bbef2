"""Reading frames from a file or stream, one at a time, and ahead of their use."""

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np

from lib.errors import UserError
from lib.files import PROJECT_ROOT, listing
from lib.film import Frame

# FFmpeg inside OpenCV writes about damaged files to stderr; we report what matters.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

VIDEO_DIR = PROJECT_ROOT / "demo" / "video"
# Damaged frames in a row after which a file is given up.
MAX_DAMAGED = 50
MAX_FPS = 1000  # more is no frame rate


def is_stream(source: str) -> bool:
    """Whether a source is a network address (rtsp://…) rather than a file."""
    return "://" in source


def find_video(name: str) -> str:
    """A path as given, or in demo/video/; addresses as they are. Raises UserError."""
    if is_stream(name):
        return name
    for path in (Path(name).expanduser(), VIDEO_DIR / name):
        if path.is_file():
            return str(path)
    raise UserError(f"--video {name}: no such file, nor in demo/video/ ({listing(VIDEO_DIR)})")


class Video:
    """Frames of a video file, stream or camera, upright and in order.

    fps: frames a second, 0 where the source does not say; size: (width, height) in pixels;
    count: how many frames the file says it has, 0 where it does not.
    """

    def __init__(self, source: str | int) -> None:
        """Raises UserError where nothing can be read."""
        self.source = source
        # OpenCV explains failures on stderr; our own sentence is enough.
        cv2.setLogLevel(0)
        self._capture = cv2.VideoCapture(source)
        # Phones film upright and say so in the file; OpenCV does not turn the picture by itself.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        is_file = isinstance(source, str) and not is_stream(source)
        frame = None
        for _ in range(MAX_DAMAGED if is_file else 1):
            if frame is None and self._capture.isOpened():
                frame = self._capture.read()[1]
        if frame is None:
            self._capture.release()
            if isinstance(source, int):
                raise UserError(f"--webcam {source}: no such camera, or it is in use")
            if is_stream(source):
                raise UserError(
                    f"{source}: no frame can be read; is the address right, and the stream running?"
                )
            raise UserError(
                f"{source}: no frame can be read; the file is damaged, empty or not a video"
                " (try to play it, or convert it with ffmpeg)"
            )
        # The first frame tells the size after rotation, which the file's header does not.
        self._first: Frame | None = frame
        self._passed = 1  # frames of the file, damaged ones included
        self.size = (int(frame.shape[1]), int(frame.shape[0]))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if math.isfinite(fps) and 0 < fps <= MAX_FPS else 0.0
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if math.isfinite(count) and 0 < count < 1e9 else 0

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._capture.release()

    def skip(self) -> bool:
        """Pass over a frame without decoding it to a picture; False at the end."""
        if self._first is not None:
            self._first = None
            return True
        # In a damaged file a failure need not be the end; the count tells that more should come.
        attempts = 1 if self._passed >= self.count else MAX_DAMAGED
        for _ in range(attempts):
            self._passed += 1
            if self._capture.grab():
                return True
        return False

    def read(self) -> Frame | None:
        """The next frame, None at the end."""
        if self._first is not None:
            frame, self._first = self._first, None
            return frame
        while True:
            if not self.skip():
                return None
            read, frame = self._capture.retrieve()
            if read:
                break
        if (frame.shape[1], frame.shape[0]) != self.size:  # streams may change their size
            frame = cv2.resize(frame, self.size)
        return frame

    def frames(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame


def blank_frames(size: tuple[int, int], count: int) -> Iterator[Frame]:
    """Dark frames, where there are keypoints but no video."""
    frame = np.full((size[1], size[0], 3), (38, 34, 30), dtype=np.uint8)
    for _ in range(count):
        yield frame.copy()


T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; the next one is made in a thread while the last one is used.

    An error in `items` is raised here. An item is only made once the one before it is taken, so
    `items` is read no further where this iterator is left; its thread ends with it.
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1)
    coming = pool.submit(next, iterator, _END)
    while (item := coming.result()) is not _END:
        coming = pool.submit(next, iterator, _END)
        yield cast("T", item)
