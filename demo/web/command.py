"""The command `python -m demo.web`: writes the folder."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.command import OUTPUT
from demo.detectors.networks import WEIGHTS
from demo.onnx_lifter import OnnxLifter
from demo.pipeline import DEFAULT_CHECKPOINT
from demo.web.facts import page_facts
from demo.web.runtime import PACKAGE, VERSION, downloaded, find_npm, unpacked
from lib.cli import CommandParser
from lib.errors import UserError
from lib.files import check_folder_writable, find_path, write_atomic

HERE = Path(__file__).parent
SHARED = HERE.parent / "export" / "viewer"  # what the page of a video's poses has, too
MARK = "facts.js"  # by which a folder of ours is known


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns its status. Raises UserError."""
    parser = CommandParser(
        prog="python -m demo.web",
        description="Write a folder that shows 2D and 3D poses live in a browser.",
    )
    add = parser.add_argument
    add("-o", "--output", metavar="DIR", default=str(OUTPUT / "web"), help="(demo/output/web)")
    add("-c", "--checkpoint", metavar="DIR", help=f"ours or a released one ({DEFAULT_CHECKPOINT})")
    add("--config", metavar="FILE", help="YAML config, needed for a released checkpoint")
    add("--stage1-checkpoint", metavar="FILE", help="stage 1 in place of the checkpoint's own")
    add("--onnx", metavar="FILE", help="what lib.export wrote, in place of a checkpoint")
    add("--runtime", metavar="FILE", help=f"{PACKAGE}, to download nothing")
    options = parser.parse_args(argv)
    if options.onnx and (options.checkpoint or options.config or options.stage1_checkpoint):
        raise UserError("--onnx FILE has the checkpoint inside; give one of the two")
    folder = Path(options.output).expanduser()
    _check_folder(folder)
    runtime = unpacked(Path(options.runtime).expanduser()) if options.runtime else None
    if runtime is None:
        find_npm()  # before the export, which takes longer
    with _lifter(options) as path:
        lifter, contents = OnnxLifter(path), find_path(path).read_bytes()
    runtime = runtime or downloaded()
    facts = json.dumps(page_facts(lifter.n_frames, lifter.frame_rate))
    files = {
        MARK: f"export const facts = {facts};\n".encode(),  # first: a stopped command can go on
        **{f"runtime/{name}": contents for name, contents in runtime.items()},
        **{f"models/{path.name}": path.read_bytes() for path in sorted(WEIGHTS.iterdir())},
        "models/lifter.onnx": contents,
        **{path.name: path.read_bytes() for path in sorted((HERE / "site").iterdir())},
        **{name: (SHARED / name).read_bytes() for name in ("drawing.js", "page.css")},
    }
    for name, contents in files.items():
        with write_atomic(folder / name) as file:
            file.write(contents)
    size = sum(map(len, files.values()))
    print(
        f"{folder}: {len(files)} files, {size / 1e6:.0f} MB, with onnxruntime-web {VERSION}.\n"
        f"To open it: python -m http.server --directory {folder}, then http://localhost:8000 in a"
        " browser"
    )
    return 0


@contextmanager
def _lifter(options: argparse.Namespace) -> Iterator[Path]:
    """The lifter's ONNX file: the user's, or one that is made and goes again. Raises UserError."""
    if options.onnx:
        yield Path(options.onnx)
        return
    from lib.export import main as export  # loads torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lifter.onnx"
        argv = ["--checkpoint", options.checkpoint or DEFAULT_CHECKPOINT, "--out", str(path)]
        for flag, value in (
            ("--config", options.config),
            ("--stage1-checkpoint", options.stage1_checkpoint),
        ):
            argv += [flag, value] if value else []
        export(argv)
        yield path


def _check_folder(folder: Path) -> None:
    """Only an empty place, or a folder of ours, is written to. Raises UserError."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(
            f"--output {folder}: holds other files, which a page's could replace; name a new folder"
        )
    check_folder_writable(folder)
