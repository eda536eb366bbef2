"""Invented motion -> a file in the format of Human3.6M's, so that everything runs without data.

    python data/preprocess/synthetic.py
    python data/preprocess/synthetic.py --format videopose3d
    python data/preprocess/synthetic.py --format own
    python data/preprocess/synthetic.py --format 3dhp

Each --format is that of a data set's published files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.cameras import CAMERAS
from data.preprocess.common import add_output_flags, refuse_to_overwrite, write_videos
from data.sources import mpi_inf_3dhp, synthetic_mpi, synthetic_own, synthetic_videopose3d
from data.sources.synthetic import (
    FIRST_TEST_SUBJECT,
    FIRST_TRAIN_SUBJECT,
    MAX_SUBJECTS,
    synthetic_videos,
)
from lib.cli import CommandParser, run_main
from lib.errors import UserError
from lib.numbers import whole_number


def write_h36m(args: argparse.Namespace) -> None:
    """Human3.6M's pickle: --dt-file."""
    output = args.data_root / args.dt_file
    refuse_to_overwrite(output, args.force)
    size = {"num_frames": args.frames, "num_cameras": args.cameras, "seed": args.seed}
    write_videos(
        output,
        list(synthetic_videos(FIRST_TRAIN_SUBJECT, args.train_subjects, **size)),
        list(synthetic_videos(FIRST_TEST_SUBJECT, args.test_subjects, **size)),
        force=args.force,
    )


def write_videopose3d(args: argparse.Namespace) -> None:
    """VideoPose3D's data_3d_h36m.npz, and data_2d_h36m_*.npz of a detector and of ground truth."""
    for name in synthetic_videopose3d.FILES:
        refuse_to_overwrite(args.data_root / name, args.force)
    count = synthetic_videopose3d.write(args.data_root, num_frames=args.frames, seed=args.seed)
    print(f"{args.data_root}: {', '.join(synthetic_videopose3d.FILES)}: {count:,} frames")


def write_own(args: argparse.Namespace) -> None:
    """An .npz of one's own data (docs/own_data.md): --dt-file."""
    output = args.data_root / args.dt_file
    refuse_to_overwrite(output, args.force)
    size = {"num_frames": args.frames, "num_cameras": args.cameras, "seed": args.seed}
    subjects = {"train": args.train_subjects, "test": args.test_subjects}
    count = synthetic_own.write(output, subjects, **size)
    print(f"{output}: {count:,} frames")


def write_3dhp(args: argparse.Namespace) -> None:
    """MPI-INF-3DHP's two .npz files, and the same in the files as published."""
    for name in (mpi_inf_3dhp.TRAIN, mpi_inf_3dhp.TEST, synthetic_mpi.RAW):
        refuse_to_overwrite(args.data_root / name, args.force)
    count = synthetic_mpi.write(args.data_root, num_frames=args.frames, seed=args.seed)
    names = f"{mpi_inf_3dhp.TRAIN}, {mpi_inf_3dhp.TEST}, {synthetic_mpi.RAW}/"
    print(f"{args.data_root}: {names}: {count:,} frames")


FORMATS = {
    "h36m": write_h36m,
    "videopose3d": write_videopose3d,
    "own": write_own,
    "3dhp": write_3dhp,
}
FILES = {"h36m": "synthetic.pkl", "own": "own.npz"}  # unless --dt-file names another one
FIXED = ("dt_file", "cameras", "train_subjects", "test_subjects")
UNUSED = {"videopose3d": FIXED, "3dhp": FIXED}


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--format", choices=FORMATS, default="h36m", help="(%(default)s)")
    add_output_flags(parser, dt_file=FILES["h36m"], num_cameras=len(CAMERAS))
    subjects = whole_number(1, MAX_SUBJECTS)
    parser.add_argument("--train-subjects", type=subjects, default=5)
    parser.add_argument("--test-subjects", type=subjects, default=2)
    parser.add_argument(
        "--frames",
        type=whole_number(2, 100_000),
        default=300,
        help="of each motion, at 50 a second (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    for name in UNUSED.get(args.format, ()):
        if getattr(args, name) != parser.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} has no effect with --format {args.format}; leave it out")
    if args.dt_file == parser.get_default("dt_file"):
        args.dt_file = FILES.get(args.format, "")
    FORMATS[args.format](args)
    return 0


if __name__ == "__main__":
    run_main(main)
