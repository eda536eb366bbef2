"""Exported files against the checkpoint: size, speed on one thread, and how far the poses are off.

    python -m tests.benchmarks.export [--checkpoint checkpoint/mocap/tiny] [--data-root DIR]
        [--frames 243] [--clips 64] [--repeats 5] [--json FILE]

The poses are those of test clips of the checkpoint's data set where --data-root has them, else of
invented ones; millimetres are of a body of average size. --frames: the speed of random weights
for clips of another length. int8 and float16 are ONNX Runtime's own conversions of our file.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from data.benchmarks import benchmark_of, skeleton_of
from demo.world import millimetres_per_unit
from lib.checkpoint import BEST, find_checkpoint, load_checkpoint
from lib.cli import run_main
from lib.config import Config, make_config
from lib.errors import UserError
from lib.evaluation.predict import predict
from lib.numbers import whole_number
from lib.timing import interleaved
from model.build import assemble, build_lifter, load_mdtf
from model.export import onnx_file, pt2
from model.export.check import swinging
from model.mdtf import MDTF
from model.ops.matmul import fast_matmul
from tests.benchmarks.timing import parser, report

Run = Callable[[np.ndarray], np.ndarray]


def int8(contents: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        before.write_bytes(contents)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        return after.read_bytes()


def float16(contents: bytes) -> bytes:
    model = onnx.load_from_string(contents)
    return convert_float_to_float16(model, keep_io_types=True).SerializeToString()


def on_one_thread(contents: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run(None, {"pose_2d": clips})[0]


def files(model: MDTF, with_pt2: bool) -> dict[str, tuple[bytes, Run]]:
    """What the exporter makes and what could be made of it: contents, and what runs them."""
    plain = onnx_file.make_file(model, {}, flip=False)
    contents = {
        "ONNX": plain,
        "ONNX, weights stored in float16": onnx_file.with_half_weights(plain),
        "ONNX, computed in float16": float16(plain),
        "ONNX, products in int8": int8(plain),
    }
    found = {name: (file, on_one_thread(file)) for name, file in contents.items()}
    if with_pt2:
        program = pt2.make_file(model, {}, flip=False)
        found["pt2"] = program, pt2.runner(program)
    return found


def real_clips(config: Config, model: MDTF, count: int) -> tuple[np.ndarray, str]:
    """(N, T, J, 3), and where they are from."""
    try:
        test = benchmark_of(config).test_sets(config)[0].clips
        numbers = np.linspace(0, len(test) - 1, count).astype(int).tolist()
        return test.__getitems__(numbers).pose_2d.numpy(), f"test clips of {config.clips_dir}"
    except UserError as error:
        rng = np.random.default_rng(0)
        invented = [swinging(model.skeleton, model.n_frames, rng) for _ in range(count)]
        return np.stack(invented), f"invented clips ({error})"


def of_length(model: MDTF, config: Config, frames: int) -> MDTF:
    """The same kind of model with random weights, for clips of another length."""
    torch.manual_seed(0)
    config = dataclasses.replace(config, n_frames=frames)
    return assemble(
        config, model.bone_aware, build_lifter(config, model.skeleton), model.skeleton
    ).eval()


def by_torch(model: MDTF) -> Run:
    return lambda clips: predict(model, clips, model.skeleton, flip=False)


def compare(options: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    path = find_checkpoint(options.checkpoint, BEST)
    config = make_config(load_checkpoint(path).config or {}, str(path))
    if options.data_root:
        config = dataclasses.replace(config, data_root=options.data_root)
    model = load_mdtf(path, skeleton_of=skeleton_of)
    made = files(model, with_pt2=True)
    clips, origin = real_clips(config, model, options.clips)
    expected = by_torch(model)(clips)
    scale = np.array([millimetres_per_unit(pose - pose[:, :1]) for pose in expected])
    one = clips[:1]
    runs = {"checkpoint": lambda: by_torch(model)(one)}
    runs |= {name: (lambda run=run: run(one)) for name, (_, run) in made.items()}
    seconds = interleaved(runs, options.repeats)
    rows: list[dict[str, object]] = []
    for name, (contents, run) in made.items():
        apart = np.linalg.norm(run(clips) - expected, axis=-1) * scale[:, None, None]
        rows.append(
            {
                "file": name,
                "MB": len(contents) / 1e6,
                "ms a clip": 1e3 * seconds[name],
                "times ours": seconds[name] / seconds["checkpoint"],
                "mean mm off": float(apart.mean()),
                "largest mm off": float(apart.max()),
            }
        )
    sections = {f"{options.checkpoint}, T = {model.n_frames}, {origin}": rows}
    for frames in options.frames:
        longer = of_length(model, config, frames)
        clip = np.stack([swinging(model.skeleton, frames, np.random.default_rng(0))])
        ours, other = by_torch(longer), on_one_thread(onnx_file.make_file(longer, {}, flip=False))
        pair = {"ours": lambda: ours(clip), "ONNX": lambda: other(clip)}  # noqa: B023
        seconds = interleaved(pair, options.repeats)
        sections[f"T = {frames}, random weights"] = [
            {
                "ours ms": 1e3 * seconds["ours"],
                "ONNX ms": 1e3 * seconds["ONNX"],
                "times ours": seconds["ONNX"] / seconds["ours"],
                "largest difference": float(np.abs(ours(clip) - other(clip)).max()),
            }
        ]
    return sections


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--checkpoint", default="checkpoint/mocap/tiny")
    command.add_argument("--data-root", metavar="DIR", help="where the test clips are")
    command.add_argument("--frames", nargs="*", type=whole_number(1), default=[243])
    command.add_argument("--clips", type=whole_number(1), default=64)
    options = command.parse_args()
    torch.set_num_threads(1)
    with fast_matmul():
        report(options, compare(options))


if __name__ == "__main__":
    run_main(main)
