"""The model as a `.pt2`, which PyTorch alone loads: no operator of ours is in it.

The scans are PyTorch's `scan`, a loop that is one node of the program.
"""

import io
import json
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan as torch_scan

from lib.arrays import Floats
from model.blocks import MambaBlock
from model.export.trace import quiet, trace
from model.mdtf import MDTF
from model.ops import reference

METADATA = "mdtf.json"
# What tracing notes down of each node, three times the size of the weights; nothing reads it.
NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, reverse: bool = False
) -> Tensor:
    """reference.scan() by PyTorch's."""

    def step(h: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        u_t, delta_t, B_t, C_t = at
        decay = torch.exp(delta_t[..., None] * A)
        h = decay * h + (delta_t * u_t)[..., None] * B_t[..., None, :]
        return h, (h * C_t[..., None, :]).sum(-1)

    start = torch.zeros_like(u[..., 0, :, None] * A)  # (..., C, N)
    steps = tuple(each.movedim(-2, 0) for each in (u, delta, B, C))
    y: Tensor
    _, y = torch_scan(step, start, steps, reverse=reverse)
    return y.movedim(0, -2) + D * u


class Plain(nn.Module):
    """In place of a MambaBlock: the same by the definition, with PyTorch's scan."""

    def __init__(self, block: MambaBlock, name: str) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, axis: int, norm: nn.Module | None = None) -> Tensor:
        weights, settings = self.block.weights(norm), self.block.settings(axis, norm)
        inner = partial(reference.inner, scan=scan)
        return reference.residual_block(x, weights, settings, inner=inner)[0]


def make_file(model: MDTF, metadata: Mapping[str, str], *, flip: bool) -> bytes:
    """(B, T, J, 3) -> (B, T, J, 3), as predict_batch(); the metadata lies in it as METADATA."""
    program = trace(model, Plain, flip=flip)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for note in NOTES:
                    node.meta.pop(note, None)
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
    return file.getvalue()


def runner(contents: bytes) -> Callable[[Floats], Floats]:
    with quiet():
        program = torch.export.load(io.BytesIO(contents)).module()

    def run(clips: Floats) -> Floats:
        with torch.no_grad():
            poses: Floats = program(torch.from_numpy(clips)).numpy()
        return poses

    return run
