"""What the stages learn from a batch, and from which data sets."""

import math
import re

import numpy as np
import torch
from torch import nn

from data.clips import Batch
from lib.config import make_config
from lib.skeleton import H36M
from lib.training.stages import BoneStage, LiftingStage
from tests.training import make_data, run_train

REQUIRED = {"stage": 2, "learning_rate": 1e-3, "batch_size": 2, "epochs": 1, "channel": 8}


class Still(nn.Module):
    """Predicts 0 everywhere, so that the loss is how far the target is from 0."""

    def forward(self, pose_2d):
        return torch.zeros_like(pose_2d)


def test_root_rel_decides_what_is_learnt(rng):
    label = rng.standard_normal((2, 4, 17, 3))
    batch = Batch(torch.zeros(2, 4, 17, 3), torch.from_numpy(label).float(), [0, 1])
    placed = label.copy()
    placed[..., 2] -= label[:, :1, :1, 2]
    for root_rel, target in ((True, label - label[:, :, :1]), (False, placed)):
        values = {**REQUIRED, "st_depth": 1, "n_frames": 4, "root_rel": root_rel}
        config = make_config({**values, "lambda_scale": 0, "lambda_3d_velocity": 0}, "a.yaml")
        stage = LiftingStage(Still(), config, H36M, [], "cpu")
        expected = np.linalg.norm(target, axis=-1).mean()
        assert abs(stage.losses(batch)["total"].item() - expected) < 1e-5


class Guess(nn.Module):
    """The same logits for every joint, whatever it sees."""

    logits = (0.5, -1.0, 0.0, 2.0, 0.25, -0.5)

    def forward(self, pose_2d):
        return torch.tensor(self.logits).expand(*pose_2d.shape[:-1], 6)


def test_stage_1_learns_the_bins_of_the_3d_pose(rng):
    """Cross entropy by hand: log Σ exp(logits) - logits[bin], the root's bin being 0."""
    pose = rng.standard_normal((2, 4, 17, 3))
    batch = Batch(torch.zeros(2, 4, 17, 3), torch.from_numpy(pose).float(), [0, 1])
    stage = BoneStage(Guess(), H36M, None, 2, "cpu")
    total = 0.0
    for clip, frame in np.ndindex(2, 4):
        for joint, parent in enumerate(H36M.parents):
            bone = pose[clip, frame, joint] - pose[clip, frame, parent]
            degrees = math.degrees(math.acos(bone[2] / np.linalg.norm(bone))) if joint else 0.0
            total -= Guess.logits[int(degrees // 30)]
    expected = np.log(np.exp(Guess.logits).sum()) + total / (2 * 4 * 17)
    assert abs(stage.losses(batch)["total"].item() - expected) < 1e-5


def test_which_score_is_better():
    """Of stage 1 the higher accuracy, of stage 2 the lower error."""
    assert (BoneStage.metric, BoneStage.higher_is_better) == ("accuracy", True)
    assert (LiftingStage.metric, LiftingStage.higher_is_better) == ("mpjpe", False)


def test_training_takes_all_data_sets_and_evaluation_the_first(tmp_path, caplog):
    make_data(tmp_path)
    (tmp_path / "Other-9").symlink_to(tmp_path / "H36M-9")
    counts = []
    for number, names in enumerate(("H36M-9", "H36M-9, Other-9")):
        status, _, errors = run_train(
            "--config", tmp_path / "stage1.yaml", "--new-checkpoint", tmp_path / str(number),
            "--set", "epochs=1", "--set", f"subset_list=[{names}]",
        )  # fmt: skip
        assert status == 0, errors
        counts.append(re.findall("([0-9]+) training and ([0-9]+) test clips", caplog.text)[-1])
    (train, test), (both, still) = counts
    assert (int(both), still) == (2 * int(train), test)
