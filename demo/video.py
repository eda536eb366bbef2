"""Reading frames from a file or stream, and writing a film, one frame at a time."""

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from demo.detectors.base import Frame
from demo.quiet import quiet_stderr
from lib.errors import UserError
from lib.files import PROJECT_ROOT, listing

# Damaged files make FFmpeg inside OpenCV talk on stderr; what matters of it we say ourselves.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

VIDEO_DIR = PROJECT_ROOT / "demo" / "video"
# Damaged frames in a row after which a file is given up.
MAX_DAMAGED = 50


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
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else 0.0
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


class Film:
    """Writes frames to an .mp4 file that appears only when it is whole.

    H.264 through an ffmpeg with libx264 on the PATH, else through OpenCV where its build can,
    else MPEG-4 (mp4v). `codec` says which one it became.
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
        self._process: subprocess.Popen | None = None
        self._writer: cv2.VideoWriter | None = None
        self.written = 0
        ffmpeg = _ffmpeg_with_h264()
        if ffmpeg:
            self._process = self._start(ffmpeg, fps)
            self.codec = "H.264 (ffmpeg)"
        else:
            self._writer, self.codec = self._opencv_writer(fps)

    def _start(self, ffmpeg: str, fps: float) -> subprocess.Popen:
        width, height = self._size
        # The encoder shares the cores with the drawing: ultrafast takes half of superfast's time.
        command = [
            *(ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p"),
            *("-s", f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "-", "-an"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p"),
            *("-movflags", "+faststart", str(self._temporary)),
        ]
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
        """OpenCV does not tell of a full disk: counts what is in the file. Raises UserError."""
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
                umask = os.umask(0)
                os.umask(umask)
                self._temporary.chmod(0o666 & ~umask)  # mkstemp makes files private
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
            if self._process is not None and self._process.stderr is not None:
                self._process.stderr.close()


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


def blank_frames(size: tuple[int, int], count: int) -> Iterator[Frame]:
    """Dark frames, where there are keypoints but no video."""
    frame = np.full((size[1], size[0], 3), (38, 34, 30), dtype=np.uint8)
    for _ in range(count):
        yield frame.copy()
