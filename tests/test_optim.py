"""The moving average of the weights, by hand."""

import pytest
import torch

from lib.training.optim import MovingAverage


def model_at(value: float) -> torch.nn.Module:
    """A trained weight, a frozen one and a BatchNorm with its statistics, all of one value."""
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1)
    )
    model[2].requires_grad_(False)
    return set_to(model, value)


def set_to(model: torch.nn.Module, value: float) -> torch.nn.Module:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def test_the_average_moves_by_one_minus_its_decay_and_buffers_are_the_latest():
    """Decay 0.9, weights 1, then 2, then 4: 1 + 0.1 = 1.1, then 1.1 + 0.1 (4 - 1.1) = 1.39."""
    model = model_at(1)
    average = MovingAverage(model, 0.9)
    for value, expected in ((2, 1.1), (4, 1.39)):
        average.update(set_to(model, value))
        assert average.weights["0.weight"].item() == pytest.approx(expected)
        assert average.weights["1.bias"].item() == pytest.approx(expected)
        assert average.weights["1.running_var"].item() == value
        assert average.weights["1.num_batches_tracked"].item() == value
    assert not any(name.startswith("2.") for name in average.weights)
    assert model[0].weight.item() == 4  # the trained model keeps its own
    assert average.model[0].weight.item() == pytest.approx(1.39)
    assert average.model[2].weight.item() == 1


def test_a_restored_average_goes_on_where_it_was():
    model = model_at(1)
    one, two = MovingAverage(model, 0.9), MovingAverage(model, 0.9)
    one.update(set_to(model, 3))
    two.restore({name: value.clone() for name, value in one.weights.items()})
    for average in (one, two):
        average.update(set_to(model, 5))
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    with pytest.raises(KeyError):
        two.restore({"0.weight": torch.zeros(1, 1)})
