"""Stage 1 trained along with stage 2: losses, gradients, scores, checkpoints."""

import json

import pytest
import torch

from lib.batch import Batch
from lib.checkpoint import BEST, BEST_EMA, LATEST
from lib.config import ConfigError, make_config
from lib.skeleton import H36M
from lib.training.fit import GO_ON, STOP, Fit
from lib.training.joint import JointStage
from lib.training.stages import BoneStage, LiftingStage
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.models import clips, unsettle
from tests.samples import CONFIG
from tests.test_parallel import assert_alike
from tests.training import (
    assert_same_end,
    differences,
    read_run,
    run_train,
    stage2_flags,
    train_in_processes,
)


def joint(weight: float, **forms) -> JointStage:
    config = make_config(CONFIG, "a.yaml")
    lifter = Lifter(H36M, 9, 16, 2, bone_features=4 if forms.get("bone_confidence") else 3)
    torch.manual_seed(0)
    model = unsettle(MDTF(BoneAwareModule(16, 1), lifter, H36M, train_bone_aware=True, **forms))
    for module in model.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0  # no DropPath: two forwards are alike
    lifting = LiftingStage(model, config, H36M, [], "cpu")
    return JointStage(lifting, BoneStage(model.bone_aware, H36M, None, 2, "cpu"), weight)


def gradients(stage, batch) -> list[torch.Tensor]:
    stage.model.zero_grad()
    stage.losses(batch)["total"].backward()
    return [p.grad.clone() for p in stage.model.bone_aware.parameters()]


def test_the_loss_is_that_of_both_stages():
    batch, stage = Batch(clips(), clips(), [0, 1]), joint(0.5)
    losses = stage.losses(batch)
    poses, bins = stage.lifting.losses(batch), stage.bones.losses(batch)
    expected = poses["total"] + 0.5 * bins["total"]
    torch.testing.assert_close(losses["total"], expected)
    torch.testing.assert_close(losses["bins"], bins["total"])


@pytest.mark.parametrize(
    ("forms", "reaches"),
    [
        ({}, False),
        ({"bone_angle": "expectation"}, True),
        ({"bone_confidence": True}, True),
    ],
)
def test_the_pose_reaches_stage_1_only_where_its_answer_has_a_gradient(forms, reaches):
    batch = Batch(clips(), clips(), [0, 1])
    alone = gradients(joint(0.0, **forms), batch)
    assert any(gradient.any() for gradient in alone) == reaches
    if not reaches:  # then it is trained as it would be by itself
        stage = joint(0.5, **forms)
        found = gradients(stage, batch)
        stage.model.zero_grad()
        stage.bones.losses(batch)["total"].backward()
        for gradient, parameter in zip(found, stage.model.bone_aware.parameters(), strict=True):
            torch.testing.assert_close(gradient, 0.5 * parameter.grad)


def test_a_frozen_stage_1_has_no_gradients_and_no_drop_path():
    model = MDTF(BoneAwareModule(16, 2), Lifter(H36M, 9, 16, 2), H36M, bone_angle="expectation")
    model.train()(clips()).sum().backward()
    assert not model.bone_aware.training
    assert all(p.grad is None for p in model.bone_aware.parameters())
    trained = MDTF(model.bone_aware, model.lifter, H36M, train_bone_aware=True)
    assert trained.train().bone_aware.training and not trained.eval().bone_aware.training


def test_only_a_stage_2_with_a_bone_branch_trains_stage_1_along():
    for keys in ({"stage": 1}, {"bone_branch": False}):
        with pytest.raises(ConfigError, match="key 'train_bone_aware': only a stage 2"):
            make_config({**CONFIG, **keys, "train_bone_aware": True}, "a.yaml")


KEYS = ["train_bone_aware=true", "lambda_bins=0.5", "ema_decay=0.5", "optimizer=muon"]
KEYS += ["bone_angle=expectation", "weight_decay_on=matrices"]
JOINT = [flag for key in KEYS for flag in ("--set", key)]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint") / "whole"
    status, _, errors = run_train(*stage2_flags(data, folder, *JOINT))
    assert status == 0, errors
    return folder


def test_a_stopped_joint_training_goes_on_as_if_it_had_not_been(data, tmp_path, run, monkeypatch):
    """With Muon, the moving average of both stages and the expected angle; bit for bit."""
    wishes = iter([GO_ON] * 3 + [STOP])
    monkeypatch.setattr(Fit, "_wish", lambda self, saved: next(wishes, GO_ON))
    run_train(*stage2_flags(data, tmp_path / "run", *JOINT))
    assert read_run(tmp_path / "run")[0]["training"]["position"]["step"] == 4
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", tmp_path / "run"]
    status, _, errors = run_train(
        *resume, *JOINT, "--stage1-checkpoint", data / "stage1" / BEST
    )  # fmt: skip
    assert (status, errors.count("\n")) == (2, 1)
    assert "--stage1-checkpoint: this run trains its stage 1 along" in errors
    status, _, errors = run_train(*resume, *JOINT)
    assert status == 0, errors
    assert_same_end(tmp_path / "run", read_run(run))


def test_both_stages_are_scored_averaged_and_kept(data, tmp_path, run):
    latest, history = read_run(run)
    first = torch.load(data / "stage1" / BEST, weights_only=True)
    best = min(history, key=lambda line: line["test/mpjpe"])
    for file, prefix in ((BEST, "test"), (BEST_EMA, "ema")):
        report = tmp_path / f"{prefix}.json"
        flags = ("--checkpoint", run, "--checkpoint-file", file, "--report", report)
        status, out, errors = run_train("--eval-only", *flags)
        assert status == 0, errors
        best = min(history, key=lambda line: line[f"{prefix}/mpjpe"])
        found = json.loads(report.read_text())
        assert found["mpjpe"] == pytest.approx(best[f"{prefix}/mpjpe"], rel=1e-6)
        assert found["bins"]["accuracy"] == best[f"{prefix}/bin_accuracy"]
        assert "MPJPE" in out and "true \\ predicted" in out
        assert differences(torch.load(run / file, weights_only=True)["bone_aware"], first["model"])
    assert differences(latest["bone_aware"], first["model"])
    average = latest["training"]["ema"]["bone_aware.embed.weight"]
    assert not torch.equal(average, latest["bone_aware"]["embed.weight"])
    assert history[-1]["train/bins"] < history[0]["train/bins"]


def test_two_processes_train_both_stages_as_one(data, tmp_path):
    """Batches of 47: in the second one, a process has no clip."""
    keys = [*JOINT, "--set", "optimizer=adamw", "--set", "batch_size=47", "--set", "epochs=1"]
    run_train(*stage2_flags(data, tmp_path / "one", *keys))
    assert train_in_processes(2, *stage2_flags(data, tmp_path / "two", *keys)) == [0, 0]
    assert_alike([tmp_path / "one", tmp_path / "two"], loss=1e-4, weight=1e-3)
    one, two = (torch.load(tmp_path / n / LATEST, weights_only=True) for n in ("one", "two"))
    for name, value in one["bone_aware"].items():
        torch.testing.assert_close(two["bone_aware"][name], value, rtol=1e-3, atol=1e-4, msg=name)
