"""The learning rate by hand, and resumed in the middle of it."""

import pytest

from lib.config import make_config
from lib.schedule import learning_rate
from lib.training.fit import GO_ON, STOP, Fit
from lib.training.session import tell_schedule
from lib.training.step import Stepper
from tests.training import assert_same_end, read_run, run_train, stage2_flags

REQUIRED = {"stage": 2, "learning_rate": 8.0, "batch_size": 2, "channel": 8, "st_depth": 1}
REQUIRED |= {"n_frames": 4, "epochs": 2, "lr_decay": 0.5}
COSINE = 8 * 0.8535533906, 4.0, 8 * 0.1464466094  # 8 · (1 + cos(45°, 90°, 135°)) / 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [8] * 4 + [4] * 4),
        ({"warmup": 0.5}, [2, 4, 6, 8] + [4] * 4),  # of 8 steps, 4 rise
        ({"warmup": 0.25, "epochs": 4}, [2, 4, 6, 8] + [4] * 4 + [2] * 4 + [1] * 4),
        ({"warmup": 1.0, "schedule": "cosine"}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"warmup": 0.5, "schedule": "cosine"}, [2, 4, 6, 8, 8, *COSINE]),
        ({"schedule": "cosine", "epochs": 1}, [8, *COSINE]),
    ],
)
def test_rates_of_four_steps_an_epoch_by_hand(keys, expected):
    config = make_config({**REQUIRED, **keys}, "a.yaml")
    found = [learning_rate(config, *divmod(step, 4), steps=4) for step in range(len(expected))]
    assert found == pytest.approx(expected)


def test_a_warm_up_may_end_between_two_steps():
    """1.6 of 8 steps rise: 1/1.6 of the rate in the first one, then all of it."""
    config = make_config({**REQUIRED, "warmup": 0.2}, "a.yaml")
    assert [learning_rate(config, 0, step, 4) for step in range(2)] == pytest.approx([5.0, 8.0])


def test_another_number_of_epochs_moves_the_schedule_and_is_told(caplog):
    caplog.set_level("INFO", logger="mdtf")
    trained = make_config({**REQUIRED, "schedule": "cosine"}, "a.yaml")
    longer = make_config({**trained.as_dict(), "epochs": 5}, "a.yaml")
    tell_schedule(trained, trained)
    plain = [make_config({**REQUIRED, "epochs": epochs}, "a.yaml") for epochs in (2, 3)]
    tell_schedule(*plain)
    assert not caplog.records
    tell_schedule(longer, trained)
    assert "5 epochs, not 2: the learning rate goes on as if" in caplog.text


def test_a_run_stopped_in_its_schedule_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    """In each step the rate of its number; stopped in the warm-up and once more in the cosine."""
    rates, take_step = [], Stepper.__call__

    def noted(self, batch):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return take_step(self, batch)

    monkeypatch.setattr(Stepper, "__call__", noted)
    keys = ("--set", "schedule=cosine", "--set", "warmup=0.3")
    run_train(*stage2_flags(data, tmp_path / "whole", *keys))
    config = make_config({**REQUIRED, "learning_rate": 0.002, "schedule": "cosine"}, "a.yaml")
    config = make_config({**config.as_dict(), "warmup": 0.3}, "a.yaml")
    expected = [learning_rate(config, *divmod(step, 6), steps=6) for step in range(12)]
    assert rates == expected
    history = read_run(tmp_path / "whole")[1]
    assert [line["lr"] for line in history] == [expected[5], expected[11]]

    rates.clear()
    stop_after = [2, 8]
    monkeypatch.setattr(
        Fit, "_wish", lambda self, saved: STOP if len(rates) in stop_after else GO_ON
    )
    run_train(*stage2_flags(data, tmp_path / "run", *keys))
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", tmp_path / "run", *keys]
    while stop_after:
        stop_after.pop(0)
        run_train(*resume)
    assert_same_end(tmp_path / "run", read_run(tmp_path / "whole"))
    assert rates == expected
