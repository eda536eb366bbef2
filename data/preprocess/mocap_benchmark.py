"""The motion capture benchmark: motion to train on, and videos to validate and to test.

    python data/preprocess/mocap_benchmark.py --mocap FOLDER_OR_FILES --n-frames 27

docs/benchmark.md describes the sets, data/sources/mocap.py the files.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])


from data.benchmarks import BENCHMARKS
from data.mocap_benchmark import (
    HELD_OUT,
    VALIDATION,
    VERSION,
    check_complete,
    checksum,
    exact,
    held_out_videos,
    set_of,
    training_motions,
)
from data.motions import to_arrays
from data.sequences import Sequences, join
from data.sources.mocap import Clip, read_mocap
from data.store import ArrayWriter, Entry
from lib.cli import CommandParser, run_main
from lib.errors import UserError
from lib.files import PROJECT_ROOT, find_path
from lib.numbers import whole_number
from lib.processes import Processes
from lib.training.progress import progress_bar

# A list beside the files: takes that are in two files, under these names and others.
DUPLICATES = "cmux_duplicates.json"
BENCHMARK = BENCHMARKS["mocap"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--mocap", type=Path, nargs="+", required=True, help="the .npz files, or their folder"
    )
    parser.add_argument(
        "--n-frames", type=whole_number(1, 10_000), default=27, help="frames of a clip (27)"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=PROJECT_ROOT / "data" / "motion3d",
        help="folder to write to (default: data/motion3d of the project)",
    )
    options = parser.parse_args(argv)
    clips = read_all(files_of(options.mocap))
    check_complete(clips)
    write_sets(clips, options.data_root, options.n_frames)
    return 0


# --- Reading ----------------------------------------------------------------------------------


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The .npz files that are named, or lie in a folder that is."""
    files = []
    for path in map(find_path, paths):
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: no .npz file in this folder; give the motion capture's")
        files += inside
    return list(dict.fromkeys(files))


def read_all(files: Sequence[Path]) -> list[Clip]:
    """The clips of all files, each take once. Raises UserError."""
    left_out = {name for folder in {file.parent for file in files} for name in repeated(folder)}
    clips = []
    for file in progress_bar(files, "reading", Processes()):
        clips += [clip for clip in read_mocap(file) if clip.name not in left_out]
    name, count = Counter(clip.name for clip in clips).most_common(1)[0]
    if count > 1:
        raise UserError(f"clip {name} is in these files {count} times; give each file once")
    return without_copies(clips)


def repeated(folder: Path) -> list[str]:
    """The names of clips of this folder's files that repeat other ones there."""
    path = folder / DUPLICATES
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return [str(name) for name in names]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; it names the takes that are in two of the files, without it"
            " motion of the test sets would be trained on"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a JSON list of clips ({error}); get it again") from error


def without_copies(clips: Sequence[Clip]) -> list[Clip]:
    """The clips, without those to train on that hold the very frames of a held-out one."""
    held_out = {clip.motion.tobytes() for clip in clips if set_of(clip.subject)}
    return [c for c in clips if set_of(c.subject) or c.motion.tobytes() not in held_out]


# --- Writing ----------------------------------------------------------------------------------


def write_sets(clips: Sequence[Clip], root: Path, n_frames: int) -> None:
    """Every set's folder below `root`; each is replaced once it is whole."""
    videos = {name: filmed(clips, name) for name in HELD_OUT}
    for name, of_set in videos.items():
        for is_exact, shown in ((True, exact(of_set)), (False, of_set)):
            directory = root / folder_of(name, is_exact, n_frames)
            made_from = f"motion capture benchmark {VERSION}"
            with ArrayWriter(directory, n_frames, made_from) as writer:
                lines = [add_videos(writer, shown, n_frames)]
                if name == VALIDATION and not is_exact:
                    lines.append(add_motions(writer, clips))
            for line in lines:
                print(f"{directory}: {line}")


def folder_of(name: str, is_exact: bool, n_frames: int) -> str:
    """mocap-27 for validation (and training), mocap-sport-exact-27 for the other sets."""
    parts = [BENCHMARK.prefix, "" if name == VALIDATION else name, "exact" if is_exact else ""]
    return "-".join([*filter(None, parts), str(n_frames)])


def filmed(clips: Sequence[Clip], name: str) -> Sequences:
    count = sum(set_of(clip.subject) == name for clip in clips)
    videos = held_out_videos(clips, name)
    return join(list(progress_bar(videos, f"filming {name}", Processes(), total=count)))


def add_videos(writer: ArrayWriter, videos: Sequences, n_frames: int) -> str:
    pose_2d, pose_3d = BENCHMARK.units(videos)
    test = videos.test_frames()
    # Not the clips: the videos are the same for every n_frames.
    covered = {
        "pose_2d": pose_2d,
        "pose_3d": pose_3d,
        "pose_3d_mm": test.pose_3d_mm,
        "factor": test.factor,
        "video": test.video,
    }
    about: Entry = {"version": VERSION, "sha256": checksum(covered, [test.videos, test.subjects])}
    windows = BENCHMARK.test_windows(videos, n_frames)
    writer.add("test", pose_2d, pose_3d, windows, test, about)
    count = f"{len(pose_2d):,} frames in {len(test.videos)} videos"
    return f"test: {count}, version {VERSION}, sha256 {about['sha256']}"


def add_motions(writer: ArrayWriter, clips: Sequence[Clip]) -> str:
    arrays, entry = to_arrays(training_motions(clips))
    names = [entry["names"], entry["subjects"]]
    entry |= {"version": VERSION, "sha256": checksum(arrays, names)}
    writer.add_arrays("train", arrays, entry)
    count = f"{len(arrays['motion']):,} frames in {len(arrays['length'])} recordings"
    return f"train: {count}, version {VERSION}, sha256 {entry['sha256']}"


if __name__ == "__main__":
    run_main(main)
