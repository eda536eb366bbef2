"""Cut Human3.6M's videos into clips: the published pickle -> data/motion3d/H36M-{T}/."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.benchmarks import BENCHMARKS
from lib.cli import CommandParser, run_main
from lib.files import find_path
from lib.numbers import whole_number


def main(argv: Sequence[str] | None = None) -> int:
    benchmark = BENCHMARKS["h36m"]
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--n-frames", type=whole_number(1, 10_000), default=243, help="frames of a clip (243)"
    )
    parser.add_argument(
        "--data-root", default="data/motion3d", help="folder of the pickle and clips"
    )
    parser.add_argument("--dt-file", default=benchmark.source, help="the pickle")
    options = parser.parse_args(argv)

    root = find_path(options.data_root)
    directory = root / f"{benchmark.prefix}-{options.n_frames}"
    counts = benchmark.slice(root / options.dt_file, directory, options.n_frames)
    clips = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    print(f"{directory}: {clips} clips of {options.n_frames} frames")
    return 0


if __name__ == "__main__":
    run_main(main)
