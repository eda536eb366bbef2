"""Invented motion -> a file in the format of Human3.6M's, so that everything runs without data.

python data/preprocess/synthetic.py
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.preprocess.common import add_output_flags, refuse_to_overwrite, write_videos
from data.sources.synthetic import (
    FIRST_TEST_SUBJECT,
    FIRST_TRAIN_SUBJECT,
    MAX_SUBJECTS,
    synthetic_videos,
)
from data.views import CAMERAS
from lib.cli import CommandParser, run_main
from lib.numbers import whole_number


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    add_output_flags(parser, dt_file="synthetic.pkl", num_cameras=len(CAMERAS))
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
    output = args.data_root / args.dt_file
    refuse_to_overwrite(output, args.force)
    size = {"num_frames": args.frames, "num_cameras": args.cameras, "seed": args.seed}
    write_videos(
        output,
        list(synthetic_videos(FIRST_TRAIN_SUBJECT, args.train_subjects, **size)),
        list(synthetic_videos(FIRST_TEST_SUBJECT, args.test_subjects, **size)),
        force=args.force,
    )
    return 0


if __name__ == "__main__":
    run_main(main)
