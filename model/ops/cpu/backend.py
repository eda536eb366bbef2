"""The backend of compiled C kernels, for float32 on the CPU."""

import threading

import torch
from torch import Tensor

from model.ops.backend import Backend
from model.ops.check import check
from model.ops.cpu import abi, block, inner
from model.ops.cpu.build import KernelUnavailable, log
from model.ops.operator import constant_result
from model.ops.statistics import GraphStatistics
from model.ops.weights import BlockWeights, DirectionWeights, Masks, Settings


class Cpu(Backend):
    name = "c"
    device = "cpu"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cpu" or dtype != torch.float32:
            return f"the C kernel takes float32 on the CPU, these are {dtype} on {device.type}"
        return unavailable()

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        return inner.inner(x_forward, x_backward, z, forward, backward)

    def block(
        self,
        x: Tensor,
        weights: BlockWeights,
        settings: Settings,
        masks: Masks,
        *,
        batch_statistics: bool,
    ) -> tuple[Tensor, GraphStatistics] | None:
        return block.block(x, weights, settings, masks, batch_statistics=batch_statistics)


_lock = threading.Lock()
_verdict: list[str | None] = []  # once known: why the kernels cannot run, or None


@constant_result
def unavailable() -> str | None:
    """Why the kernels cannot run here, or None if they can. Builds them at the first call."""
    with _lock:
        if not _verdict:
            _verdict.append(_build_and_check())
    return _verdict[0]


def _build_and_check() -> str | None:
    try:
        abi.library()
        wrong = check(Cpu())
    except (KernelUnavailable, AttributeError) as error:  # the library may lack a function
        wrong = str(error)
    if wrong:
        log.warning("no C kernel, the slower PyTorch scan runs instead: %s", wrong)
    return wrong
