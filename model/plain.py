"""Whether the weights of a module alone decide what it computes.

The kernels read weights and call no module, so hooks and replaced modules must be noticed.
"""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize

_HAVE_WEIGHTS = (nn.Linear, nn.Conv1d, nn.LayerNorm)
_WEIGHTS = ("weight", "bias")


def is_plain(module: nn.Module | None, kind: type[nn.Module], *, bias: bool = True) -> bool:
    """Whether a call of the module computes what `kind` does with its weights, and nothing more.

    It does not if it is of another class, has hooks or a forward of its own, or lacks its weight.
    bias: whether a Linear, a convolution or a norm must have one, or must have none. A
    parametrized weight is fine: reading it gives the parametrization's result. Hooks that PyTorch
    runs for all modules are not looked for: see has_global_hooks().
    """
    found = type(module)
    if module is None or (found is not kind and not _is_parametrized(module, kind)):
        return False
    own = vars(module)
    if kind in _HAVE_WEIGHTS:
        # Looked up as a module does, but a parametrized one has them elsewhere.
        held = own["_parameters"] if found is kind else {n: getattr(module, n) for n in _WEIGHTS}
        if held.get("weight") is None or (held.get("bias") is not None) != bias:
            return False
    if kind is nn.Conv1d and (own["stride"] != (1,) or own["dilation"] != (1,)):
        return False
    return not (
        "forward" in own
        or own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
    )


def _is_parametrized(module: nn.Module, kind: type[nn.Module]) -> bool:
    return parametrize.is_parametrized(module) and kind in type(module).__bases__


def has_global_hooks() -> bool:
    """Whether there are hooks that PyTorch runs at every module's call."""
    return bool(_has_any_global_hook())


def check_read_only(
    module: nn.Module, kind: type[nn.Module], name: str, *, bias: bool = True
) -> None:
    """Raise ValueError unless a module, which is read but never called, is plain."""
    if not is_plain(module, kind, bias=bias):
        raise ValueError(
            f"{name} has a hook, or is no {kind.__name__} with{'' if bias else 'out'} bias: it is"
            " never called, the scan reads its weights only; hook or replace the mixer instead"
        )
