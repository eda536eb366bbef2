"""The optimizer's parameter groups, and the moving average of weights."""

import torch
from torch import Tensor, nn


def make_optimizer(
    model: nn.Module, learning_rate: float, weight_decay: float, decay_all: bool
) -> torch.optim.AdamW:
    """AdamW over what is trained.

    decay_all: decay every parameter, as the released code does; else leave out what should not
    shrink: norms, biases, positional embeddings, A_log and D.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if decay_all or _shrinks(name, p)]
    kept = [p for name, p in trained if not (decay_all or _shrinks(name, p))]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def _shrinks(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and not name.endswith(("A_log", "_position"))


class MovingAverage:
    """Exponential moving average of a model's trained weights; buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in self._current(model)}

    @staticmethod
    def _current(model: nn.Module) -> list[tuple[str, Tensor]]:
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        return [(name, v) for name, v in model.state_dict().items() if name not in frozen]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After a step: average <- decay · average + (1 - decay) · weights."""
        parameters = dict(model.named_parameters())
        for name, value in self._current(model):
            if name in parameters:
                self.weights[name].lerp_(value, 1 - self.decay)
            else:
                self.weights[name].copy_(value)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's weights with the average; a second call exchanges them back."""
        for name, value in self._current(model):
            kept = value.clone()
            value.copy_(self.weights[name])
            self.weights[name].copy_(kept)
