"""What the commands that make a file in Human3.6M's format share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.sequences import Sequences, join
from data.sources import h36m
from data.views import CAMERAS
from lib.errors import UserError
from lib.files import PROJECT_ROOT
from lib.numbers import whole_number


def add_output_flags(parser: argparse.ArgumentParser, dt_file: str, num_cameras: int) -> None:
    parser.add_argument(
        "--data-root",
        type=Path,
        default=PROJECT_ROOT / "data" / "motion3d",
        help="folder to write to (default: data/motion3d of the project)",
    )
    parser.add_argument("--dt-file", default=dt_file, help="file to write (default: %(default)s)")
    parser.add_argument(
        "--cameras",
        type=whole_number(1, len(CAMERAS)),
        default=num_cameras,
        help="how many of the four cameras film a motion (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole_number(), default=0)
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Stop before any work is done if `path` is somebody's data. Raises UserError."""
    if path.exists() and not force:
        raise UserError(f"{path} exists; give --force to replace it, or another --dt-file")


def write_videos(
    path: Path, train: Sequence[Sequences], test: Sequence[Sequences], *, force: bool
) -> None:
    """Write videos as a Human3.6M file; an existing one is replaced only with `force`."""
    refuse_to_overwrite(path, force)
    for name, videos in (("training", train), ("test", test)):
        if not videos:
            raise UserError(f"{path}: nothing to write: there are no {name} videos")
    splits = {"train": join(train), "test": join(test)}
    h36m.write(path, **splits)
    for name, split in splits.items():
        print(f"{path}: {name}: {len(split.joint_2d):,} frames in {len(split.videos)} videos")
