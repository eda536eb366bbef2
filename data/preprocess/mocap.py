"""Motion capture -> a file in the format of Human3.6M's: real motion, random bodies and cameras.

    python data/preprocess/mocap.py mocap17.npz

data/sources/mocap.py describes the .npz.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.preprocess.common import add_output_flags, refuse_to_overwrite, write_videos
from data.sequences import Sequences
from data.sources.mocap import check_held_out, mocap_videos, read_mocap
from lib.cli import CommandParser, run_main
from lib.files import find_path, refuse_same_file


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mocap", type=Path, help="the motion capture's .npz")
    add_output_flags(parser, dt_file="mocap.pkl", num_cameras=2)
    args = parser.parse_args(argv)
    source, output = find_path(args.mocap), args.data_root / args.dt_file
    refuse_same_file(output, [source])
    refuse_to_overwrite(output, args.force)
    clips = read_mocap(source)
    check_held_out(clips)
    videos: dict[str, list[Sequences]] = {"train": [], "test": []}
    for split, video in mocap_videos(clips, num_cameras=args.cameras, seed=args.seed):
        videos[split].append(video)
    write_videos(output, **videos, force=args.force)
    return 0


if __name__ == "__main__":
    run_main(main)
