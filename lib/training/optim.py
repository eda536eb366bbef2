"""The optimizer's parameter groups, and the moving average of weights."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lib.parameters import groups_of


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, decay_on: str
) -> torch.optim.AdamW:
    """AdamW over the trained parameters.

    decay_on: "all", as the released code does, or "matrices"; see groups_of().
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed, kept = groups_of(trained, decay_on)
    groups = [{"params": [trained[name] for name in decayed], "weight_decay": weight_decay}]
    if kept:
        groups.append({"params": [trained[name] for name in kept], "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


class MovingAverage:
    """A second model whose weights are the exponential moving average of a trained model's.

    `weights` leaves out frozen weights, which are the same in both; buffers are copied each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model)
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self.model.requires_grad_(False)
        state = self.model.state_dict()  # tensors that share their memory with the model's
        self.weights = {name: value for name, value in state.items() if name not in frozen}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After a step: average <- decay · average + (1 - decay) · weights."""
        parameters, state = dict(model.named_parameters()), model.state_dict()
        for name, average in self.weights.items():
            if name in parameters:
                average.lerp_(state[name], 1 - self.decay)
            else:
                average.copy_(state[name])

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from saved `weights`. Raises KeyError: some are missing."""
        for name, average in self.weights.items():
            average.copy_(weights[name])
