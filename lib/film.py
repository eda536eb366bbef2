"""Writing films: MP4, one frame at a time, and GIF."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.errors import UserError
from lib.files import share, write_atomic
from lib.quiet import quiet_stderr

Frame = NDArray[Any]  # (H, W, 3) uint8, BGR as OpenCV has it


class Film:
    """Writes frames to an .mp4 file that appears only when it is whole.

    H.264 through an ffmpeg with libx264 on the PATH, else through OpenCV where its build can,
    else MPEG-4 (mp4v). `codec` says which of them is used.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        """size: (width, height), both even. Raises UserError."""
        self._path, self._size = path, size
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".mp4", dir=path.parent)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        os.close(handle)
        self._temporary = Path(name)
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: cv2.VideoWriter | None = None
        self.written = 0
        ffmpeg = _ffmpeg_with_h264()
        if ffmpeg:
            self._process = self._start(ffmpeg, fps)
            self.codec = "H.264 (ffmpeg)"
        else:
            self._writer, self.codec = self._opencv_writer(fps)

    def _start(self, ffmpeg: str, fps: float) -> subprocess.Popen[bytes]:
        width, height = self._size
        # The encoder shares the cores with the drawing: ultrafast takes half of superfast's time.
        command = [
            ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p",
            "-s", f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "-", "-an",
            "-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p",
            "-movflags", "+faststart", str(self._temporary),
        ]  # fmt: skip
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def _opencv_writer(self, fps: float) -> tuple[cv2.VideoWriter, str]:
        cv2.setLogLevel(0)
        for code, name in (("avc1", "H.264 (OpenCV)"), ("mp4v", "MPEG-4 (OpenCV)")):
            with quiet_stderr():  # FFmpeg inside OpenCV writes there itself
                writer = cv2.VideoWriter(
                    str(self._temporary), cv2.VideoWriter.fourcc(*code), fps, self._size
                )
            if writer.isOpened():
                return writer, name
        self._temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {self._path}: this OpenCV has no MP4 encoder; install ffmpeg"
        )

    def write(self, frame: Frame) -> None:
        """frame: (height, width, 3) uint8 BGR."""
        self.written += 1
        if self._writer is not None:
            self._writer.write(frame)
            return
        assert self._process is not None and self._process.stdin is not None
        # Half the bytes of BGR, and OpenCV converts faster than ffmpeg.
        planes = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
        try:
            self._process.stdin.write(planes.data)
        except BrokenPipeError:
            raise self._failure() from None

    def _check(self) -> None:
        """Counts the frames in the file: OpenCV does not report a full disk. Raises UserError."""
        with quiet_stderr():
            capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self.written:
            raise UserError(
                f"cannot write {self._path}: of {self.written} frames {found} were written; is the"
                " disk full?"
            )

    def _failure(self) -> UserError:
        assert self._process is not None and self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "it stopped without a word"
        return UserError(f"cannot write {self._path}: ffmpeg says: {reason}")

    def __enter__(self) -> "Film":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                with quiet_stderr():
                    self._writer.release()
                if kind is None:
                    self._check()
            if self._process is not None and self._process.stdin is not None:
                if kind is not None:
                    self._process.kill()
                with suppress(BrokenPipeError):
                    self._process.stdin.close()
                failed = self._process.wait() != 0
                if failed and kind is None:
                    raise self._failure()
            if kind is None:
                share(self._temporary)
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
            if self._process is not None and self._process.stderr is not None:
                self._process.stderr.close()


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


def _ffmpeg_with_h264() -> str | None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return None
    try:
        listed = subprocess.run(
            [ffmpeg, "-hide_banner", "-encoders"], capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ffmpeg if b"libx264" in listed.stdout else None
