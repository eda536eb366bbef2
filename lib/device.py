"""The device that a run computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lib.errors import UserError
from lib.processes import Processes


def choose_device(name: str, processes: Processes | None = None) -> torch.device:
    """The device of a name, torch's or 'auto'; each of several processes takes a GPU of its own.

    A GPU becomes torch's current one. Raises UserError if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes and processes.are_several and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(
                f"--device {name}: each of several processes takes a GPU of its own; use"
                " --device cuda"
            )
        name = f"cuda:{processes.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here; use --device cpu or auto") from error
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of this process, on a GPU without anybody waiting for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def numerics(device: torch.device, precision: str) -> Iterator[None]:
    """Inside, a GPU computes products of float32 in float32, with precision "tf32" in TF32, by
    algorithms that give the same bits each time. Raises UserError: no GPU, so no TF32.
    """
    if device.type != "cuda":
        if precision == "tf32":
            raise UserError(f"--precision tf32: {device} has no TF32, it is a GPU's; use fp32")
        yield
        return
    cudnn = torch.backends.cudnn
    before = (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    cudnn.allow_tf32 = precision == "tf32"
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        _, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
