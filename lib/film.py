"""Writing films: MP4, one frame at a time, and GIF."""

import errno
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import UserError
from lib.files import share, write_atomic
from lib.sound import Sound

Frame = NDArray[Any]  # (H, W, 3) uint8, BGR as OpenCV has it

CLOCK = 90_000  # ticks a second: every usual frame rate is met to 0.1 %
# What OpenCV's conversion to YUV gives (BT.601, limited range); players assume another for HD.
BT601, LIMITED, BT709 = 6, 1, 1
UNWRITABLE = (OSError, av.FFmpegError)


class Film:
    """Writes frames, and maybe sound, to an .mp4 file that appears only when it is whole.

    H.264 in yuv420p, which every browser plays.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, sound: Sound | None = None
    ) -> None:
        """size: (width, height), both even; fps: of frames whose time is not told.

        Raises UserError.
        """
        self._path, self._size, self._fps, self._sound = path, size, fps, sound
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".mp4", dir=path.parent)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        os.close(handle)
        self._temporary = Path(name)
        self._last = -1  # the last frame's time in ticks
        self.written = 0
        self._file = av.open(f"file:{name}", "w", format="mp4", options={"movflags": "faststart"})
        rate = Fraction(fps).limit_denominator(CLOCK)
        # The encoder shares the cores with the drawing: ultrafast takes half of superfast's time.
        options = {"preset": "ultrafast", "crf": "23"}
        self._track = self._file.add_stream("libx264", rate=rate, options=options)
        self._track.width, self._track.height = size
        self._track.pix_fmt = "yuv420p"
        context = self._track.codec_context
        context.time_base = Fraction(1, CLOCK)
        context.colorspace, context.color_range = BT601, LIMITED
        context.color_primaries = context.color_trc = BT709
        if sound:
            sound.join(self._file)

    def write(self, frame: Frame, seconds: float | None = None) -> None:
        """frame: (height, width, 3) uint8 BGR; seconds: when it is shown, from the film's start.

        Frames without a time follow at the film's rate. Raises UserError.
        """
        seconds = self.written / self._fps if seconds is None else seconds
        self._last = max(round(seconds * CLOCK), self._last + 1)
        self.written += 1
        planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = self._last, Fraction(1, CLOCK)
        picture.duration = round(CLOCK / self._fps)
        try:
            self._file.mux(self._track.encode(picture))
            if self._sound:
                self._sound.write_until(self._last / CLOCK)
        except UNWRITABLE as error:
            raise self._failure(error) from error

    def _finish(self) -> None:
        """Raises UserError."""
        try:
            if self.written:
                self._file.mux(self._track.encode(None))
                if self._sound:
                    self._sound.write_until(self._last / CLOCK + 1 / self._fps)
                    self._sound.finish()
            self._file.close()
            # Not every write that a full disk refuses is reported.
            with av.open(f"file:{self._temporary}") as film:
                found = sum(packet.size > 0 for packet in film.demux(film.streams.video[0]))
        except UNWRITABLE as error:
            raise self._failure(error) from error
        if found != self.written:
            raise self._failure(
                OSError(errno.ENOSPC, f"{found} of {self.written} frames are in it")
            )

    def _failure(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        return UserError(f"cannot write {self._path}: {reason}; free space or choose another place")

    def __enter__(self) -> "Film":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
                share(self._temporary)
                self._temporary.replace(self._path)
            else:
                with suppress(*UNWRITABLE):
                    self._file.close()
        finally:
            if self._sound:
                self._sound.close()
            self._temporary.unlink(missing_ok=True)


def write_gif(path: Path, frames: Iterable[Frame], fps: float) -> None:
    """Frames as an animation that goes round for ever; `path` appears only when whole.

    At least one frame. GIF counts hundredths of a second, so fps is met roughly. Raises UserError.
    """
    pictures = (Image.fromarray(np.ascontiguousarray(frame[..., ::-1])) for frame in frames)
    first = next(pictures)
    with write_atomic(path) as file:
        first.save(
            file,
            format="GIF",
            save_all=True,
            append_images=pictures,
            duration=round(100 / fps) * 10,
            loop=0,
        )
