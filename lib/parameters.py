"""The order in which an optimizer numbers the parameters of a model."""

from collections.abc import Mapping

from torch import Tensor

# What weight decay works on. "matrices" spares what should not shrink: norms, biases, positional
# embeddings, A_log and D.
DECAYED = ("all", "matrices")
OPTIMIZERS = ("adamw", "muon")


def groups_of(trained: Mapping[str, Tensor], decay_on: str) -> tuple[list[str], list[str]]:
    """The names of the parameters with weight decay, then of those without: numbered in this order.

    decay_on: one of DECAYED.
    """
    decayed = [name for name, p in trained.items() if decay_on == "all" or _shrinks(name, p)]
    return decayed, [name for name in trained if name not in set(decayed)]


def _shrinks(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and not name.endswith(("A_log", "_position"))


def hidden_matrices(trained: Mapping[str, Tensor]) -> list[str]:
    """The names of the matrices inside of blocks: projections of mixers and graphs, and MLPs.

    They map hidden features to hidden features, which Muon is made for; embeddings, heads, what
    narrows stage 1, convolutions and A_log are left out.
    """
    return [
        name
        for name, p in trained.items()
        if p.ndim == 2 and not name.endswith("A_log") and (".mixer." in name or ".mlp." in name)
    ]
