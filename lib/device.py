"""The device that a run computes on."""

import torch

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
