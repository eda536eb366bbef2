"""The backend of Triton kernels, for CUDA; on a CPU they run in Triton's interpreter."""

import importlib
import logging
import threading

import torch
from torch import Tensor

from model.ops.backend import Backend
from model.ops.check import check
from model.ops.matmul import matmul_precision
from model.ops.operator import constant_result
from model.ops.triton import inner
from model.ops.weights import DirectionWeights, Sizes

log = logging.getLogger("mdtf")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAPABILITY = (7, 0)  # the oldest that Triton compiles for
# The self-check runs what Tiny runs over 17 joints, so it compiles nothing that training does not.
CHECKED = Sizes(channels=64, states=16, rank=4, taps=4)
LENGTHS = (17, 8)


class Triton(Backend):
    name = "triton"
    device = "cuda"
    # Under fp16's autocast it gets float32: partial sums of scaled gradients would overflow.
    reduced = (torch.bfloat16,)

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if dtype not in DTYPES:
            return f"the Triton kernels take float32, bfloat16 and float16, these are {dtype}"
        return _unavailable(device.type, device.index)

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        return inner.inner(x_forward, x_backward, z, forward, backward)


_lock = threading.Lock()
_verdicts: dict[tuple[str, int | None], str | None] = {}  # of each device that was asked about


@constant_result
def _unavailable(kind: str, index: int | None) -> str | None:
    """Why the kernels cannot run on this device, or None. The first call compiles and checks."""
    with _lock:
        if (kind, index) not in _verdicts:
            _verdicts[kind, index] = _find_obstacle(torch.device(kind, index or 0))
        return _verdicts[kind, index]


def _find_obstacle(device: torch.device) -> str | None:
    try:
        triton = importlib.import_module("triton")
    except Exception as error:  # a broken installation fails with more than ImportError
        return f"triton does not import ({type(error).__name__}: {error})".splitlines()[0]
    if triton.knobs.runtime.interpret:
        return None
    if device.type != "cuda":
        return f"the Triton kernels need CUDA tensors, these are on {device.type}"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        capability = torch.cuda.get_device_capability(device)
        if torch.version.hip is None and capability < CAPABILITY:
            return f"Triton needs compute capability 7.0, this device has {capability}"
        log.info("compiling and checking the Triton kernels on %s (Triton keeps them)", device)
        with matmul_precision("highest"), torch.autocast("cuda", enabled=False):
            wrong = check(Triton(), device, CHECKED, LENGTHS)
    except Exception as error:  # compilers and drivers fail in many ways
        lines = str(error).splitlines() or [""]
        return f"its kernels do not run here ({type(error).__name__}: {lines[0]})"
    return wrong
