"""The device that a run computes on."""

import torch

from lib.errors import UserError


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device 'auto' or of torch's name; each of several processes takes the GPU of its number.

    Raises UserError if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here; use --device cpu or auto") from error
    return device
