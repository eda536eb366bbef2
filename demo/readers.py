"""What frames come from: a file or stream through FFmpeg (PyAV), a camera through OpenCV."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Protocol, cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData

from lib.errors import UserError
from lib.film import Frame
from lib.quiet import quiet_stderr

# Damaged packets in a row after which a file is given up.
MAX_DAMAGED = 50
ASSUMED_FPS = 25.0  # of files and cameras that do not say; told to the user where it is used
MAX_FPS = 1000  # more is no frame rate
MAX_ASPECT = 8.0  # of a pixel; more is a damaged header
SECONDS = 30.0  # a stream that says nothing for so long has ended


def is_stream(source: str) -> bool:
    """Whether a source is a network address (rtsp://…) rather than a file."""
    return "://" in source


class Reader(Protocol):
    """The frames of a source, one after another, upright.

    fps: frames a second, 0: unknown; count: how many there are, 0: unknown; pixel_aspect: width
    over height of a pixel.
    """

    fps: float
    count: int

    @property
    def pixel_aspect(self) -> float: ...

    def grab(self) -> float | None:
        """Goes on to the next frame; its time in seconds of the source's clock, None: the end."""
        ...

    def retrieve(self, size: tuple[int, int] | None) -> Frame:
        """The picture of that frame, in this size (width, height) or as it is stored."""
        ...

    def close(self) -> None: ...


class FileReader:
    """A file or stream that FFmpeg reads. Damaged frames are left out."""

    def __init__(self, source: str) -> None:
        """Raises UserError where no video is found."""
        self._source, stream = source, is_stream(source)
        try:
            self._container = av.open(
                # Without the prefix, FFmpeg takes what precedes a colon in a name for a protocol.
                source if stream else f"file:{source}",
                metadata_errors="replace",
                timeout=SECONDS if stream else None,
                options={"rtsp_transport": "tcp"} if source.startswith("rtsp") else {},
            )
        except (av.FFmpegError, ValueError, OSError) as error:
            raise unreadable(source) from error
        track = self._container.streams.best("video")
        if track is None:
            self._container.close()
            raise UserError(f"{source}: has no pictures, only sound or text; give a video")
        assert isinstance(track, av.VideoStream)
        self._track = track
        rate = float(track.average_rate or track.guessed_rate or 0)
        self.fps = rate if 0 < rate <= MAX_FPS else 0.0
        seconds = (self._container.duration or 0) / av.time_base
        self.count = track.frames or max(0, round(seconds * self.fps))
        self._turn = np.eye(2, dtype=int)
        self._frames = self._decoded()
        self._frame: av.VideoFrame | None = None
        self._last, self._shift = -1.0, 0.0

    @property
    def pixel_aspect(self) -> float:
        """As the frame at hand is shown, that is, after its turn."""
        aspect = float(self._track.sample_aspect_ratio or 1)
        if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
            return 1.0
        return 1 / aspect if self._turn[0, 0] == 0 else aspect

    def _decoded(self) -> Iterator[av.VideoFrame]:
        damaged, packets = 0, self._container.demux(self._track)
        while damaged < MAX_DAMAGED:
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet else []
            except EOFError:
                return
            except (av.FFmpegError, OSError):
                # A generator that raised has ended: a new one reads on from there.
                damaged, packets = damaged + 1, self._container.demux(self._track)
                continue
            if packet is None:
                return
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                damaged = 0
                yield frame

    def grab(self) -> float | None:
        self._frame = next(self._frames, None)
        if self._frame is None:
            return None
        self._turn = turn_of(self._frame)
        step = 1 / (self.fps or ASSUMED_FPS)
        seconds = self._frame.time
        if seconds is None:
            seconds = self._last + step - self._shift if self._last >= 0 else 0.0
        if self._last >= 0 and seconds + self._shift <= self._last:
            # A clock that starts anew inside the file, as in joined recordings.
            self._shift = self._last + step - seconds
        self._last = seconds + self._shift
        return self._last

    def retrieve(self, size: tuple[int, int] | None) -> Frame:
        assert self._frame is not None
        across = self._turn[0, 0] == 0
        width, height = size or (None, None)
        if across:
            width, height = height, width
        # swscale knows the frame's depth and colours, and has a fast path for equal sizes.
        picture = self._frame.reformat(width=width, height=height, format="bgr24").to_ndarray()
        if (self._turn == np.eye(2)).all():
            return picture
        if across:
            picture = picture.swapaxes(0, 1)
        right, down = self._turn.sum(axis=1)
        return np.ascontiguousarray(picture[::down, ::right])

    def close(self) -> None:
        with suppress(av.FFmpegError):
            self._container.close()


def turn_of(frame: av.VideoFrame) -> np.ndarray:
    """(2, 2) of 0, 1 and -1: x right and y down of the upright picture, in those of the stored.

    Phones turn no pixels: they write a matrix (ISO 14496-12, tkhd). Turns by other angles than
    quarters are not made.
    """
    level = np.eye(2, dtype=int)
    sides = cast(Mapping[str, SideData], frame.side_data)  # PyAV's stubs name one key only
    data = sides.get("DISPLAYMATRIX")
    if data is None:
        return level
    # Row vectors: (x', y') = (x, y) @ matrix.
    matrix = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]].reshape(2, 2).T
    rounded = np.sign(matrix) * (np.abs(matrix) >= np.abs(matrix).max(initial=1) / 2)
    is_turn = (np.abs(rounded).sum(axis=0) == 1).all() and (np.abs(rounded).sum(axis=1) == 1).all()
    return rounded if is_turn else level


def unreadable(source: str) -> UserError:
    if is_stream(source):
        return UserError(
            f"{source}: no frame can be read; is the address right, and the stream running?"
        )
    return UserError(
        f"{source}: no frame can be read; the file is damaged, empty or not a video"
        " (try to play it, or convert it with ffmpeg)"
    )


class CameraReader:
    """A camera by its number, which OpenCV finds on every system. Its clock is ours."""

    count, pixel_aspect = 0, 1.0

    def __init__(self, number: int) -> None:
        with quiet_stderr():  # it explains failures there; our own sentence is enough
            self._capture = cv2.VideoCapture(number)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate <= MAX_FPS else 0.0

    def grab(self) -> float | None:
        return time.monotonic() if self._capture.grab() else None

    def retrieve(self, size: tuple[int, int] | None) -> Frame:
        _, frame = self._capture.retrieve()
        if size and (frame.shape[1], frame.shape[0]) != size:
            frame = cv2.resize(frame, size)
        return frame

    def close(self) -> None:
        self._capture.release()
