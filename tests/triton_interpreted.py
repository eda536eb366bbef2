"""Runs the Triton backend in Triton's interpreter and prints what it finds, a JSON line a case.

TRITON_INTERPRET must be set before triton is imported, so the tests run this as a process of its
own (python -m tests.triton_interpreted CASE …).
"""

import json
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from lib.skeleton import Skeleton
from model import ops
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from model.ops import check
from model.ops.triton import inner
from model.ops.triton.backend import Triton
from tests.scan_cases import both_directions, inner_inputs, relative_errors, results, run_inner

Found = dict[str, float] | dict[str, bool] | dict[str, str] | list[str]
F32, F64 = torch.float32, torch.float64
# A row of a step or two takes as long as one of nine: the fewer joints, the fewer rows.
FIVE = Skeleton(("root", "spine", "head", "left_arm", "right_arm"), (-1, 0, 1, 1, 1))


def errors(
    batch: tuple[int, ...],
    length: int,
    channels: int = 16,
    states: int = 16,
    rank: int = 1,
    taps: int = 4,
    axis: int = -2,
    graph: bool = False,
    dtype: torch.dtype = F32,
) -> Found:
    """Of the output and every gradient, against the definition in float64.

    axis: of the scan in memory; -3 as frames lie, in (clips, frames, joints, C).
    """
    inputs = inner_inputs(batch, length, channels, states, rank, taps)
    if axis == -3:
        inputs["xz"] = inputs["xz"].transpose(-2, -3).contiguous()
    if dtype != F32:  # what rounding the inputs does is not the kernels' error
        inputs = {name: t.to(dtype).double() for name, t in inputs.items()}
    exact = results(run_inner, inputs, "sequential", F64, axis=axis, graph=graph)
    return relative_errors(
        results(run_inner, inputs, "triton", dtype, axis=axis, graph=graph), exact
    )


def nan() -> Found:
    """The inputs of which a NaN reaches other places than in the definition."""
    case = next(check.cases(Triton(), 2, 2))
    names = ["x", "z", *(f"backward.{n}" for n in ("conv_weight", "x_proj", "dt_proj", "A_log"))]
    found = [name for name in names if _is_spread_otherwise(case, name, 7)]
    # A NaN of the last step, which is a chunk of its own, must not reach what comes before it.
    case = next(check.cases(Triton(), 10, 2))
    return [*found, *(["the last step"] if _is_spread_otherwise(case, "x", 9 * 12 + 3) else [])]


def _is_spread_otherwise(case: check.Case, name: str, place: int) -> bool:
    spoilt = case.inputs[name].clone()
    spoilt.view(-1)[place] = math.nan
    patterns = []
    for function in (case.function, case.definition):
        tensors = check.results(case, function, F32, case.inputs | {name: spoilt})
        patterns.append(torch.cat([t.flatten().isfinite() for t in tensors]))
    return not torch.equal(*patterns)


def model() -> Found:
    """A prediction and a training step of the whole model, against the sequential backend's."""
    clip, found = torch.rand(1, 2, len(FIVE.names), 3), []
    for name in ("triton", "sequential"):
        torch.manual_seed(0)
        mdtf = MDTF(BoneAwareModule(16, 1), Lifter(FIVE, 2, 16, 1), FIVE)
        with ops.backend_asked_for(name):
            with torch.inference_mode():
                pose = mdtf.eval()(clip)
            mdtf.train()(clip).square().mean().backward()
        grads = {n: p.grad.double() for n, p in mdtf.named_parameters() if p.grad is not None}
        found.append({"pose": pose.double(), **grads})
    return relative_errors(*found)


def seam() -> Found:
    """What the seam promises, each as a sentence that is true or not."""
    inputs = {name: t.float() for name, t in inner_inputs((1,), 2, 16, 8, 1).items()}
    x, z = inputs["xz"].chunk(2, -1)
    pair = list(both_directions(inputs))
    empty = x[:0].requires_grad_()
    out = ops.bidirectional_inner(empty, empty, z[:0], *pair, backend="triton")
    out.sum().backward()
    weights = [*pair[0], *pair[1]]
    leaves = [t.clone().requires_grad_() for t in weights]
    try:
        torch.library.opcheck(torch.ops.mdtf.triton_inner_forward, (x, None, z, leaves, True))
        checked = ""
    except Exception as error:
        checked = str(error)
    x = x.clone().requires_grad_()
    y = inner.inner(x, x, z, *pair)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    try:
        grad.sum().backward()
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    again = torch.autograd.grad(inner.inner(x, x, z, *pair).sum(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = ops.bidirectional_inner(x, x, z, *pair, backend="triton")
    return {
        "empty": f"{tuple(out.shape)} {tuple(empty.grad.shape)}",
        "opcheck": checked,
        "second derivative": refused,
        "two runs": "equal" if torch.equal(again, grad) else "not equal",
        "autocast": str(cast.dtype),
        "wrong dtypes": _message(lambda: inner.inner(x, x, z.bfloat16(), *pair)),
        "wrong weight": _message(
            lambda: inner.inner(x, x, z, pair[0]._replace(D=z[0, 0, :3]), pair[1])
        ),
        "float64": str(Triton().obstacle(torch.device("cpu"), F64)),
    }


def _message(function: Callable[[], Tensor]) -> str:
    try:
        function()
    except ValueError as error:
        return str(error)
    return "no error"


LENGTHS: dict[str, Callable[[], Found]] = {
    "1": lambda: errors((3,), 1),
    "2": lambda: errors((1, 2), 2, states=8, axis=-3),
    "9": lambda: errors((2,), 9, graph=True),
    "10": lambda: errors((1, 1), 10, rank=3, axis=-3, graph=True),
    "17": lambda: errors((1,), 17, channels=48, states=24, rank=3, taps=3),
    "27": lambda: errors((1,), 27),
    "81": lambda: errors((1,), 81, states=8),
}
CASES: dict[str, Callable[[], Found]] = {
    **{f"length {length}": run for length, run in LENGTHS.items()},
    "20 channels": lambda: errors((1,), 3, channels=20, states=5, rank=2, taps=2),
    "bfloat16": lambda: errors((1, 2), 10, axis=-3, dtype=torch.bfloat16),
    "float16": lambda: errors((2,), 4, dtype=torch.float16, graph=True),
    "nan": nan,
    "model": model,
    "seam": seam,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        print(json.dumps([name, CASES[name]()]), flush=True)
