"""Photos and sequences of images, as sources of frames."""

import glob
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lib.errors import UserError
from lib.film import Frame

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
NUMBER = re.compile(r"%(0?)(\d*)d")  # as ffmpeg writes it: img_%04d.png


def is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def in_order(paths: list[Path]) -> list[Path]:
    """By their names, numbers in them by their size: img2 before img10."""
    parts = {path: re.split(r"(\d+)", str(path).lower()) for path in paths}
    return sorted(
        paths,
        key=lambda path: [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts[path]],
    )


def images_of(source: str) -> list[Path]:
    """The images that a name stands for, in order; none: it stands for something else.

    A name is that of an image or of a folder of images, a pattern (img_%04d.png) or a glob (*.jpg).
    """
    path = Path(source)
    if path.is_file():
        return [path] if is_image(path) else []
    if path.is_dir():
        return in_order([file for file in path.iterdir() if is_image(file) and file.is_file()])
    number = NUMBER.search(path.name)
    if number:
        digits = f"\\d{{{number[2]}}}" if number[1] else "\\d+"
        before, after = map(re.escape, (path.name[: number.start()], path.name[number.end() :]))
        wanted = re.compile(f"{before}({digits}){after}")
        there = path.parent.iterdir() if path.parent.is_dir() else ()
        return in_order([file for file in there if wanted.fullmatch(file.name) and is_image(file)])
    return in_order([file for file in map(Path, glob.glob(source)) if is_image(file)])


def read_image(path: Path) -> Frame:
    """As it is shown: turned as its EXIF says, in eight bits. Raises UserError."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would cut off what is above 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: cannot be read as an image ({error}); convert it to JPEG or PNG, or leave it"
            " out"
        ) from error


class ImageReader:
    """Images one after another; they say no frame rate."""

    fps, pixel_aspect = 0.0, 1.0

    def __init__(self, paths: list[Path], step: float) -> None:
        """step: seconds from one to the next."""
        self._paths, self._step, self._next = paths, step, 0
        self._size: tuple[int, int] | None = None
        self.count = len(paths)

    def grab(self) -> float | None:
        self._next += 1
        return (self._next - 1) * self._step if self._next <= self.count else None

    def retrieve(self, size: tuple[int, int] | None) -> Frame:
        """Raises UserError: damaged, or not as large as the first."""
        path = self._paths[self._next - 1]
        frame = read_image(path)
        found = (frame.shape[1], frame.shape[0])
        if size and found != size:
            raise UserError(
                f"{path}: {found[0]}x{found[1]}, but {self._paths[0].name} is {size[0]}x{size[1]};"
                " images of one sequence have one size; give different photos as several sources"
            )
        return frame

    def close(self) -> None:
        pass
