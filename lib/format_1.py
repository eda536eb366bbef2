"""Resuming from a checkpoint of format 1.

There the backward graph's BatchNorm has its joints in the order of its scan; so have the
optimizer's moments and the moving average.
"""

from torch import Tensor

from lib.parameters import groups_of
from lib.released import Contents, State, trained_names, turned_round


def turned_training(
    training: Contents | None, model: State, config: Contents | None
) -> Contents | None:
    """The training state with the joints in the skeleton's order; model: the file's own weights.

    A damaged state stays as it is: resuming tells the user.
    """
    if training is None:
        return None
    turned = dict(training)
    if isinstance(training.get("ema"), dict):
        turned["ema"] = turned_round(training["ema"])
    trained = {name: model[name] for name in trained_names(model)}
    # The only name of the key that files of this format know.
    decay_on = "all" if (config or {}).get("decay_all", True) else "matrices"
    decayed, kept = groups_of(trained, decay_on)
    try:
        optimizer = dict(training["optimizer"])
        states = {n: dict(s) for n, s in optimizer["state"].items()}
        for number, name in enumerate((*decayed, *kept)):
            if number in states:
                states[number] |= {
                    kind: turned_round({name: value})[name]
                    for kind, value in states[number].items()
                    if isinstance(value, Tensor)
                }
        turned["optimizer"] = optimizer | {"state": states}
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return turned
