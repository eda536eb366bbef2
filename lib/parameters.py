"""The order in which an optimizer numbers the parameters of a model."""

from collections.abc import Mapping

from torch import Tensor


def groups_of(trained: Mapping[str, Tensor], decay_all: bool) -> tuple[list[str], list[str]]:
    """The names of parameters that are decayed, and of those that are not, numbered on.

    decay_all: all are; else not what should not shrink: norms, biases, positional embeddings,
    A_log and D.
    """
    decayed = [name for name, p in trained.items() if decay_all or _shrinks(name, p)]
    return decayed, [name for name in trained if name not in set(decayed)]


def _shrinks(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and not name.endswith(("A_log", "_position"))
