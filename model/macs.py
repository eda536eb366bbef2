"""Parameters, and multiply-accumulates (MACs) a frame, of each part of a model."""

from collections import defaultdict
from typing import NamedTuple

from torch import nn

from model.graph import GraphConv
from model.mamba import ScanDirection

RULE = (
    "one MAC for each multiplication of a matrix product, a convolution or a scan (there, for each"
    " of N states dt*A, decay*h, dt*u*B and C*h, and dt*u and D*u); norms, activations, gates, sums"
    " and softmax count none"
)
# What counters with hooks on the calls of modules miss in the released code: the mixers read their
# weights and call no module; so does the product with the adjacency.
WITHOUT_CALLS = ("projections", "conv", "scan", "adjacency")
PARTS = (
    "embedding", "projections", "conv", "scan", "graph", "adjacency", "MLP", "fusion", "norms",
    "head",
)  # fmt: skip


class Count(NamedTuple):
    """One part of a stage; MACs are those of one frame of a clip."""

    part: str
    parameters: int
    macs: int


def count(stage: nn.Module, joints: int) -> list[Count]:
    """The parts of a BoneAwareModule or a Lifter. Of MACs, each joint of a frame has its own."""
    parameters: dict[str, int] = defaultdict(int)
    macs: dict[str, int] = defaultdict(int)
    for name, module in stage.named_modules():
        part = _part(name, module)
        parameters[part] += sum(p.numel() for p in module.parameters(recurse=False))
        if isinstance(module, nn.Linear | nn.Conv1d):  # the convolutions are depthwise
            macs[part] += joints * module.weight.numel()
        elif isinstance(module, ScanDirection):
            macs[part] += joints * (4 * module.A_log.numel() + 2 * module.D.numel())
        elif isinstance(module, GraphConv):
            macs["adjacency"] += joints * joints * module.own.out_features
    found = set(parameters) | set(macs)
    return [Count(p, parameters[p], macs[p]) for p in PARTS if p in found]


def _part(name: str, module: nn.Module) -> str:
    words = name.split(".")
    if isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
        return "norms"
    if isinstance(module, nn.Conv1d):
        return "conv"
    if isinstance(module, ScanDirection):
        return "scan"
    for word, part in (("forward_graph", "graph"), ("backward_graph", "graph"), ("mlp", "MLP")):
        if word in words:
            return part
    if "mixer" in words:
        return "projections"
    return words[0] if words[0] in ("fusion", "head") else "embedding"
