"""One optimizer step: clipping, the learning rate, bad numbers, recomputed blocks."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lib.config import load_config
from lib.processes import Processes
from lib.training.step import BadNumber, Stepper
from model.build import build_lifter
from tests.training import read_run, run_train, stage2_flags


@dataclass
class Numbers:
    """A batch of numbers in the place of clips."""

    values: Tensor

    @property
    def clips(self) -> list[int]:
        return list(range(len(self.values)))

    @property
    def total(self) -> int:
        return len(self.values)

    @property
    def shares(self) -> list[tuple[int, int]]:
        return [(0, self.total)]

    def to(self, device: torch.device) -> "Numbers":
        return self

    def part(self, start: int, end: int) -> "Numbers":
        return Numbers(self.values[start:end])


def stepper(losses, weights: list[float], **settings) -> tuple[Stepper, nn.Parameter]:
    """Gradient descent of rate 1 on a few weights; losses: (weights, values) -> scalar."""
    parameter = nn.Parameter(torch.tensor(weights))
    return Stepper(
        lambda batch: {"total": losses(parameter, batch.values)},
        torch.optim.SGD([parameter], lr=1.0),
        device=torch.device("cpu"),
        processes=Processes(),
        **settings,
    ), parameter


@pytest.mark.parametrize(
    ("clip", "moved"), [(0.0, (3.0, 4.0)), (10.0, (3.0, 4.0)), (1.0, (0.6, 0.8))]
)
def test_grad_clip_shortens_the_step_and_keeps_its_direction(clip, moved):
    """The gradient (3, 4) has norm 5; by hand."""
    step, weights = stepper(
        lambda w, values: (w @ torch.tensor([3.0, 4.0])) * values.mean(), [0.0, 0.0], grad_clip=clip
    )
    assert step(Numbers(torch.ones(2))) == {"total": 0.0}
    torch.testing.assert_close(-weights.detach(), torch.tensor(moved), rtol=1e-5, atol=0)


def steep(w: Tensor, values: Tensor) -> Tensor:
    """0, with an infinite slope."""
    return (w - w.detach()).sqrt().sum()


BAD = {
    "the loss is nan": lambda w, values: (w * values.log()).mean(),
    "the loss is inf": lambda w, values: (w / (values + 1)).mean(),
    "the gradient's norm is inf": steep,
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_number_stops_before_the_weights_change(message):
    step, weights = stepper(BAD[message], [1.0])
    with pytest.raises(BadNumber, match=message):
        step(Numbers(torch.tensor([-1.0])))
    assert weights.tolist() == [1.0]


def test_a_weight_that_is_nan_stops_the_step():
    step, _ = stepper(lambda w, values: (w * values).mean(), [float("nan")])
    with pytest.raises(BadNumber, match="nan"):
        step(Numbers(torch.ones(2)))


def test_fp16_lowers_its_scale_but_not_forever():
    """A gradient that overflows at any scale would skip every step of a training, silently."""
    step, weights = stepper(steep, [1.0], precision="fp16")
    skipped = 0
    with pytest.raises(BadNumber, match="gradient"):
        for _ in range(100):
            step(Numbers(torch.ones(1)))
            skipped += 1
    assert skipped == 17  # from 2^16 to 2^-1
    assert weights.tolist() == [1.0]


def test_fp16_goes_on_once_its_scale_is_low_enough():
    """A gradient of 2^112 overflows float32 times 2^16, not times 2^15."""
    step, weights = stepper(lambda w, values: (w * values).mean(), [0.0], precision="fp16")
    batch = Numbers(torch.tensor([2.0**112]))
    step(batch)
    assert weights.tolist() == [0.0]
    step(batch)
    assert weights.tolist() == [-(2.0**112)]


def test_a_resumed_run_goes_on_with_fp16s_scale(data, tmp_path):
    """The scaler counts the steps since its scale last changed; so few do not change it yet."""
    start = ("--config", data / "stage1.yaml", "--precision", "fp16", "--set")
    run_train(*start, "epochs=2", "--new-checkpoint", tmp_path / "whole")
    run_train(*start, "epochs=1", "--new-checkpoint", tmp_path / "halves")
    resume = (*start, "epochs=2", "--resume", "--checkpoint", tmp_path / "halves")
    status, _, errors = run_train(*resume)
    assert status == 0, errors
    scalers = [read_run(tmp_path / n)[0]["training"]["scaler"] for n in ("whole", "halves")]
    assert scalers[0] == scalers[1] and scalers[0]["_growth_tracker"] > 1


def test_the_learning_rate_decays_once_an_epoch(data, tmp_path, monkeypatch):
    """learning_rate · lr_decay^epoch in each step and in the history, also after a resume."""
    rates, take_step = [], Stepper.__call__

    def noted(self, batch):
        rates.append([group["lr"] for group in self.optimizer.param_groups])
        return take_step(self, batch)

    monkeypatch.setattr(Stepper, "__call__", noted)
    decay = ("--set", "weight_decay_on=matrices")  # two groups of weights
    run_train(*stage2_flags(data, tmp_path / "run", *decay))
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", tmp_path / "run"]
    run_train(*resume, *decay, "--set", "epochs=3")
    expected = [0.002, 0.002 * 0.9, 0.002 * 0.81]
    assert [line["lr"] for line in read_run(tmp_path / "run")[1]] == pytest.approx(expected)
    assert len(rates) == 3 * 6
    for epoch, rate in enumerate(expected):
        for pair in rates[6 * epoch : 6 * epoch + 6]:
            assert pair == pytest.approx([rate, rate])


def saved_by(module: nn.Module, x: Tensor, features: Tensor) -> tuple[int, list[Tensor]]:
    """How many numbers the forward keeps for the backward, and the gradients."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = module(x, features).square().sum()
    loss.backward()
    return kept, [p.grad for p in module.parameters()]


def test_checkpoint_blocks_is_a_key_that_saves_memory_and_changes_no_gradient():
    x, features = torch.randn(2, 27, 17, 3), torch.randn(2, 27, 17, 3)
    sizes = ["n_frames=27", "channel=16", "st_depth=2"]
    plain, recomputed = (
        build_lifter(load_config("configs/h36m/tiny.yaml", [f"checkpoint_blocks={value}", *sizes]))
        for value in ("false", "true")
    )
    recomputed.load_state_dict(plain.state_dict())
    all_kept, gradients = saved_by(plain.train(), x, features)
    kept, again = saved_by(recomputed.train(), x, features)
    assert kept < all_kept / 3
    for one, two in zip(gradients, again, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_run_with_recomputed_blocks_trains_alike(data, tmp_path):
    epochs = ("--set", "epochs=1")
    run_train(*stage2_flags(data, tmp_path / "plain", *epochs))
    more = ("--set", "checkpoint_blocks=true")
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "run", *epochs, *more))
    assert status == 0, errors
    (plain, _), (run, _) = read_run(tmp_path / "plain"), read_run(tmp_path / "run")
    for name, value in plain["model"].items():
        torch.testing.assert_close(run["model"][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_loss_of_an_epoch_is_the_mean_over_its_clips(data, tmp_path, monkeypatch):
    """Of that epoch alone; its last batch is smaller: 48 clips in batches of 10."""
    steps, take_step = [], Stepper.__call__

    def noted(self, batch):
        sums = take_step(self, batch)
        steps.append((sums, batch.total))
        return sums

    monkeypatch.setattr(Stepper, "__call__", noted)
    run_train(*stage2_flags(data, tmp_path / "run", "--set", "batch_size=10"))
    _, history = read_run(tmp_path / "run")
    assert [total for _, total in steps] == [10, 10, 10, 10, 8] * 2
    for epoch, line in enumerate(history):
        told = {name for name in line if name.startswith("train/")}
        assert told == {f"train/{name}" for name in steps[0][0]}
        for name in steps[0][0]:
            mean = sum(float(sums[name]) for sums, _ in steps[5 * epoch : 5 * epoch + 5]) / 48
            assert line[f"train/{name}"] == pytest.approx(mean, rel=1e-12)
