"""The optimizer's parameter groups, and the moving average of weights."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lib.errors import UserError
from lib.parameters import groups_of, hidden_matrices

# Of stage 1's 65 to 72 % after four minutes, 0.02 beside AdamW's 0.002 gave most; 0.05 gave 2 less.
MUON_RATE = 10.0
# Muon's steps are of one size, however small the gradient: only weight decay bounds the weights.
# With AdamW's 0.01, their norms went on growing (14 after 10,000 steps of Tiny; at the start 1)
# until the gradients exploded.
MUON_DECAY = 10.0


def make_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    decay_on: str,
    kind: str = "adamw",
) -> torch.optim.Optimizer:
    """AdamW over the trained parameters; kind "muon": Muon over the matrices of the blocks.

    decay_on: "all", as the released code does, or "matrices"; see groups_of().
    Raises UserError: this PyTorch has no Muon.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = hidden_matrices(trained) if kind == "muon" else []
    rest = {name: p for name, p in trained.items() if name not in set(hidden)}
    decayed, kept = groups_of(rest, decay_on)
    groups = [{"params": [rest[name] for name in decayed], "weight_decay": weight_decay}]
    if kept:
        groups.append({"params": [rest[name] for name in kept], "weight_decay": 0.0})
    adamw = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    if kind == "adamw":
        return adamw
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"optimizer muon: PyTorch {torch.__version__} has none, 2.9 and later have; update it,"
            " or use optimizer: adamw"
        )
    matrices = {"params": [trained[name] for name in hidden], "rate_factor": MUON_RATE}
    muon = torch.optim.Muon(
        [matrices],
        lr=MUON_RATE * learning_rate,
        weight_decay=MUON_DECAY * weight_decay,
        adjust_lr_fn="original",  # × sqrt(rows / columns) where there are more rows
    )
    return MuonAndAdamW(muon, adamw)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Before a step; Muon's matrices get MUON_RATE times the rate of the rest."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers, each with its own parameters, that step and are saved as one."""

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts = {"muon": muon, "adamw": adamw}
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The parts' own groups, so that a new learning rate reaches them."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError or ValueError: not a state of these optimizers."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.param_groups = self._groups()


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
