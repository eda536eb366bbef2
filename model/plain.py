"""Whether the weights of a module alone decide what it computes.

The kernels read weights, so a hook or a module in another's place must be noticed.
"""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize


def is_plain(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Whether a call of the module computes what `kind` does with its weights, and nothing more.

    It does not if it is of another class, or has hooks or a forward of its own. A parametrized
    weight is fine: reading it gives the parametrization's result.
    """
    if module is None:
        return False
    found = type(module)
    if found is not kind and not (parametrize.is_parametrized(module) and kind in found.__bases__):
        return False
    return "forward" not in vars(module) and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
    )


def check_read_only(module: nn.Module, kind: type[nn.Module], name: str) -> None:
    """Raise ValueError unless a module that is read, but never called, is plain."""
    if not is_plain(module, kind) and not _has_any_global_hook():
        raise ValueError(
            f"{name} has a hook, or is no {kind.__name__}: it is never called, the scan reads its"
            " weights only; hook or replace the mixer instead"
        )
