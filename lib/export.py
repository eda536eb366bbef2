"""The command `python -m lib.export`: a checkpoint as a file that other runtimes run."""

import json
import re
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from data.benchmark import Units
from data.benchmarks import benchmark_of, skeleton_of
from data.sequences import in_metres, on_screen
from data.sources.mpi_inf_3dhp import mm_from_root
from lib.checkpoint import BEST, find_checkpoint, load_checkpoint
from lib.cli import CommandParser, run_main
from lib.config import Config, load_config, make_config
from lib.errors import UserError
from lib.files import PROJECT_ROOT, check_file_writable, refuse_same_file, write_atomic
from model.build import load_mdtf
from model.export.check import TOLERANCE, largest_difference, reference_poses
from model.mdtf import MDTF

# Each module has make_file(model, metadata, flip=…) -> bytes, and runner(bytes), which gives the
# file's function of clips. They are loaded when they are wanted: one needs packages of its own.
FORMATS = {"onnx": "model.export.onnx_file", "pt2": "model.export.pt2"}
REQUIREMENTS = "requirements-export.txt"
NORMALISATION = (
    "x = pixel / width * 2 - 1, y = pixel / width * 2 - height / width; third: the detector's"
    " confidence, 0 to 1"
)
UNITS: dict[Units, str] = {
    on_screen: "half picture widths: x and y as the input, z away from the camera",
    in_metres: "metres in the camera's axes: x right, y down, z away from the camera",
    mm_from_root: "half picture widths (mm * 2 / width): x right, y down, z away from the camera",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns its status. Raises UserError."""
    parser = CommandParser(
        prog="python -m lib.export",
        description="Write a trained model as one file, from the 2D clip to the 3D pose.",
    )
    add = parser.add_argument
    add("-c", "--checkpoint", metavar="DIR", required=True, help="folder or file, of stage 2")
    add("--config", metavar="FILE", help="YAML config, needed for a released checkpoint")
    add("--stage1-checkpoint", metavar="FILE", help="stage 1 in place of the checkpoint's own")
    add("-o", "--out", metavar="FILE", required=True, help="the file to write, like mdtf.onnx")
    add("--flip", action="store_true", help="average with the mirrored clip, inside the file")
    add("--format", choices=FORMATS, default="onnx", help=f"{' or '.join(FORMATS)} (onnx)")
    stored = "onnx: float16 stores them in half the size, to compute in float32 all the same"
    add("--weights", choices=("float32", "float16"), default="float32", help=stored)
    options = parser.parse_args(argv)
    if options.weights == "float16" and options.format != "onnx":
        raise UserError(f"--weights float16 is for onnx files; --format {options.format} has none")
    check_file_writable(options.out)
    try:
        kind = import_module(FORMATS[options.format])
    except ImportError as error:
        raise UserError(
            f"--out {options.out}: {error.name} is missing; pip install -r {REQUIREMENTS}"
        ) from error

    source = find_checkpoint(options.checkpoint, BEST)
    refuse_same_file(options.out, (source, options.config, options.stage1_checkpoint))
    config = config_of(source, options.config)
    model = load_mdtf(source, config, options.stage1_checkpoint, skeleton_of)
    started = time.monotonic()
    clips, poses = reference_poses(model, flip=options.flip)
    weights = sum(p.numel() for p in model.parameters())
    print(f"{source}: {weights:,} parameters; PyTorch traces them …", flush=True)
    about = metadata(config, model, flip=options.flip)
    contents: bytes = kind.make_file(model, about, flip=options.flip)
    print(f"{time.monotonic() - started:.0f} s: the file is run …", flush=True)
    difference = largest_difference(kind.runner(contents), clips, poses)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{options.out}: not written, its poses would differ from PyTorch's by"
            f" {difference:.1g} (at most {TOLERANCE:g}); train with smaller weights, or report it"
        )
    if options.weights == "float16":
        contents = kind.with_half_weights(contents)
        difference = largest_difference(kind.runner(contents), clips, poses)
    with write_atomic(options.out) as file:
        file.write(contents)
    print(
        f"{options.out}: {len(contents) / 1e6:.1f} MB, differs from PyTorch by at most"
        f" {difference:.1g}, made in {time.monotonic() - started:.0f} s"
    )
    return 0


def config_of(source: Path, named: str | None) -> Config:
    """The config that the user names, else the checkpoint's own. Raises UserError."""
    if named is not None:
        return load_config(named, stage=2)
    found = load_checkpoint(source).config
    if found is None:
        raise UserError(f"{source}: carries no config (a released checkpoint); give --config")
    return make_config(found, str(source))


def metadata(config: Config, model: MDTF, *, flip: bool) -> dict[str, str]:
    """What a user of the file must know; lists as JSON."""
    skeleton = model.skeleton
    return {
        "mdtf_version": version(),
        "joints": json.dumps(skeleton.names),
        "parents": json.dumps(skeleton.parents),
        "frames": str(model.n_frames),
        "frame_rate": f"{model.frame_rate:g}",
        "flip_averaged": json.dumps(flip),
        "input": f"(batch, frames, joints, 3): {NORMALISATION}",
        "output": f"(batch, frames, joints, 3): {UNITS[benchmark_of(config).units]}",
        "root_relative": json.dumps(config.root_rel),
        "dataset": config.dataset,
    }


def version() -> str:
    """The project's, as pyproject.toml says it."""
    found = re.search(r'^version = "(.+)"', (PROJECT_ROOT / "pyproject.toml").read_text(), re.M)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    run_main(main)
