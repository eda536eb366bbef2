"""The selective scan and the block around it: one definition, and backends that compute the same.

These are functions of tensors; they know no nn.Module. "auto" prefers what is registered first.
"""

from model.ops.backend import (
    Backend,
    backend_asked_for,
    backend_names,
    bidirectional_inner,
    default_backend,
    register,
    residual_block,
    resolve_backend,
    set_default_backend,
)
from model.ops.cpu.backend import Cpu
from model.ops.eager import Loop, Sequential
from model.ops.statistics import GraphStatistics, Statistics, joint_norm
from model.ops.triton.backend import Triton
from model.ops.upstream import Upstream
from model.ops.weights import BlockWeights, DirectionWeights, GraphWeights, Masks, Settings

__all__ = [
    "Backend",
    "BlockWeights",
    "DirectionWeights",
    "GraphStatistics",
    "GraphWeights",
    "Masks",
    "Settings",
    "Statistics",
    "backend_asked_for",
    "backend_names",
    "bidirectional_inner",
    "default_backend",
    "joint_norm",
    "register",
    "residual_block",
    "resolve_backend",
    "set_default_backend",
]

for _backend in (Triton(), Upstream(), Cpu(), Loop(), Sequential()):
    register(_backend)
