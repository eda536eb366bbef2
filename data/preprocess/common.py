"""What commands share that slice a data set or make a file of videos."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data.benchmark import Benchmark
from data.cameras import CAMERAS
from data.sequences import Sequences, join
from data.sources import h36m
from lib.cli import CommandParser, log_to_stdout
from lib.errors import UserError
from lib.files import PROJECT_ROOT, find_path
from lib.numbers import whole_number


def slice_command(
    benchmark: Benchmark,
    description: str,
    argv: Sequence[str] | None,
    *,
    n_frames: int = 243,
    raw: str | None = None,
) -> int:
    """The command that cuts a data set's videos into clips: file -> data_root/prefix-T.

    n_frames: the default; raw: help of the flag --raw DIR, for a folder in place of the file.
    """
    parser = CommandParser(description=description)
    parser.add_argument(
        "--n-frames",
        type=whole_number(1, 10_000),
        default=n_frames,
        help="frames of a clip (%(default)s)",
    )
    if raw:
        parser.add_argument("--raw", metavar="DIR", help=raw)
    parser.add_argument("--data-root", default="data/motion3d", help="folder of the file and clips")
    parser.add_argument("--dt-file", default=benchmark.source, help="the file (%(default)s)")
    options = parser.parse_args(argv)
    log_to_stdout()
    root = find_path(options.data_root)
    directory = root / benchmark.folder(options.dt_file, options.n_frames)
    source = root / options.dt_file
    if raw and options.raw is not None:
        source = find_path(options.raw)
        if not source.is_dir():
            raise UserError(f"--raw {options.raw}: no such folder; give the one with the files")
    counts = benchmark.slice(source, directory, options.n_frames)
    clips = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    print(f"{directory}: {clips} clips of {options.n_frames} frames")
    return 0


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
    """Raise UserError, before any work is done, if `path` holds data already."""
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
