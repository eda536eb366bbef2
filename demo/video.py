"""Reading frames from a file or stream, one at a time, and ahead of their use."""

import glob
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from demo.images import ImageReader, images_of, in_order
from demo.readers import ASSUMED_FPS, CameraReader, FileReader, Reader, is_stream, unreadable
from lib.errors import UserError
from lib.files import PROJECT_ROOT, listing
from lib.film import Frame

# Of files that a folder or glob stands for; a file that is named may be called anything.
SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
}
VIDEO_DIR = PROJECT_ROOT / "demo" / "video"


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_video(name: str) -> str:
    """A path as given, or in demo/video/; addresses as they are. Raises UserError."""
    found = find_videos([name])
    if len(found) > 1:
        raise UserError(f"--video {name}: {len(found)} videos; give one")
    return found[0]


def find_videos(names: Iterable[str]) -> list[str]:
    """The videos that names stand for: files, streams, images, folders, globs. Raises UserError.

    A video is a file, an address, a photo, or images in a row: their folder, glob or pattern. A
    folder or glob of video files stands for each of them.
    """
    found: list[str] = []
    for name in names:
        if is_stream(name):
            found.append(name)
            continue
        here = [str(place) for place in (Path(name).expanduser(), VIDEO_DIR / name)]
        videos = next(filter(None, map(_videos_at, here)), None)
        if videos is None:
            raise UserError(
                f"--video {name}: no such file, folder or images, nor in demo/video/"
                f" ({listing(VIDEO_DIR)})"
            )
        found += videos
    return list(dict.fromkeys(found))


def _videos_at(name: str) -> list[str]:
    """Those of a file, folder, glob or pattern; none: there is nothing. Raises UserError."""
    if Path(name).is_file():
        return [name]
    images = images_of(name)
    files = list(Path(name).iterdir()) if Path(name).is_dir() else map(Path, glob.glob(name))
    videos = in_order([f for f in files if is_video(f) and f.is_file()])
    if images and videos:
        raise UserError(
            f"--video {name}: has both {len(videos)} videos and {len(images)} images; say which,"
            f" for instance '{Path(name) / ('*' + videos[0].suffix)}'"
        )
    if Path(name).is_dir() and not images and not videos:
        raise UserError(
            f"--video {name}: a folder without videos or images ({listing(Path(name))})"
        )
    return [name] if images else [str(video) for video in videos]


class Video:
    """Frames of a video file, stream, camera or row of images: upright, with square pixels.

    fps: frames a second, on average, 0 where the source does not say; count: how many frames the
    file says it has, 0 where it does not; size: (width, height) in pixels.
    times: seconds of each frame passed so far, rising, 0 for the first; start: the first one's on
    the clock that the file's sound shares.
    pixel_aspect: width over height of a pixel as it is stored (upright); stored_size: the picture's
    size in those pixels. Both are of use to keypoints that another program found.
    """

    def __init__(self, source: str | int) -> None:
        """Raises UserError where nothing can be read."""
        self.source = source
        self._reader = _open(source)
        start = self._reader.grab()
        if start is None:
            self._reader.close()
            if isinstance(source, int):
                raise UserError(f"--webcam {source}: no such camera, or it is in use")
            raise unreadable(source)
        # The first frame tells the size after rotation, which the file's header does not.
        first = self._reader.retrieve(None)
        self.start, self.fps, self.count = start, self._reader.fps, self._reader.count
        self.pixel_aspect = self._reader.pixel_aspect
        self.stored_size = (int(first.shape[1]), int(first.shape[0]))
        self.size = square_size(self.stored_size, self.pixel_aspect)
        self._first: Frame | None = (
            first if self.size == self.stored_size else self._reader.retrieve(self.size)
        )
        self.times: array[float] = array("d")

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def skip(self) -> bool:
        """Pass over a frame without making its picture; False at the end."""
        if self._first is not None:
            self._first = None
            self.times.append(0.0)
            return True
        seconds = self._reader.grab()
        if seconds is not None:
            self.times.append(seconds - self.start)
        return seconds is not None

    def read(self, size: tuple[int, int] | None = None) -> Frame | None:
        """The next frame, None at the end. All have the same size, though streams may change it.

        size: in place of the video's own; the first frame has that anyway.
        """
        first = self._first
        if not self.skip():
            return None
        return self._reader.retrieve(size or self.size) if first is None else first

    def frames(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame


def _open(source: str | int) -> Reader:
    """Raises UserError."""
    if isinstance(source, int):
        return CameraReader(source)
    images = [] if is_stream(source) else images_of(source)
    return ImageReader(images, 1 / ASSUMED_FPS) if images else FileReader(source)


def square_size(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """The size in square pixels: the longer side of a pixel is kept, as browsers do."""
    if aspect >= 1:
        return round(size[0] * aspect), size[1]
    return size[0], round(size[1] / aspect)


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
