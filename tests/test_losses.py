"""Each loss against its formula in float64 loops; gradients; clips of one frame."""

import math

import numpy as np
import pytest
import torch

from lib import losses
from lib.skeleton import H36M, MPI_INF_3DHP
from lib.training.stages import training_target

NAMES = ("n_mpjpe", "velocity", "bone_variance", "bone_length", "bone_angle", "bone_angle_velocity")
PAIRS = [
    (a, b)
    for a in range(16)
    for b in range(a + 1, 16)
    if set(H36M.bones[a]) & set(H36M.bones[b]) and (a, b) != (8, 10)
]


def clips(rng, frames=5):
    pred, target = rng.standard_normal((2, 2, frames, 17, 3))
    return torch.from_numpy(pred), torch.from_numpy(target)


def length(pose, bone):
    parent, child = H36M.bones[bone]
    return math.dist(pose[parent], pose[child])


def angle(pose, a, b):
    (pa, ca), (pb, cb) = H36M.bones[a], H36M.bones[b]
    u, v = pose[ca] - pose[pa], pose[cb] - pose[pb]
    return math.acos(u @ v / math.sqrt((u @ u) * (v @ v)))


def by_loops(pred, target):
    """Every loss by its formula, for arrays (B, T, J, 3)."""
    pred, target = np.asarray(pred), np.asarray(target)
    batch, frames = pred.shape[:2]
    every = [(b, t) for b in range(batch) for t in range(frames)]
    steps = [(b, t) for b in range(batch) for t in range(frames - 1)]

    def scaled(b, t):
        p, g = pred[b, t], target[b, t]
        return (p * g).sum() / (p * p).sum() * p

    def turn(pose, b, t, pair):
        return angle(pose[b, t + 1], *pair) - angle(pose[b, t], *pair)

    def step(pose, b, t):
        return pose[b, t + 1] - pose[b, t]

    return {
        "mpjpe": np.mean(
            [math.dist(pred[b, t, j], target[b, t, j]) for b, t in every for j in range(17)]
        ),
        "n_mpjpe": np.mean(
            [math.dist(scaled(b, t)[j], target[b, t, j]) for b, t in every for j in range(17)]
        ),
        "velocity": np.mean(
            [
                math.dist(step(pred, b, t)[j], step(target, b, t)[j])
                for b, t in steps
                for j in range(17)
            ]
        ),
        "bone_variance": np.mean(
            [
                np.var([length(pred[b, t], k) for t in range(frames)], ddof=1)
                for b in range(batch)
                for k in range(16)
            ]
        ),
        "bone_length": np.mean(
            [
                abs(length(pred[b, t], k) - length(target[b, t], k))
                for b, t in every
                for k in range(16)
            ]
        ),
        "bone_angle": np.mean(
            [abs(angle(pred[b, t], *p) - angle(target[b, t], *p)) for b, t in every for p in PAIRS]
        ),
        "bone_angle_velocity": np.mean(
            [abs(turn(pred, b, t, p) - turn(target, b, t, p)) for b, t in steps for p in PAIRS]
        ),
    }


def test_every_loss_against_its_formula(rng):
    pred, target = clips(rng)
    found = losses.lifting_losses(pred, target, H36M, dict.fromkeys(NAMES, 1.0))
    expected = by_loops(pred, target)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-9), name
    assert found["total"].item() == pytest.approx(sum(expected.values()), rel=1e-9)


def test_the_published_total(rng):
    """MPJPE + 0.5 N-MPJPE + 20 velocity."""
    pred, target = clips(rng)
    weights = {"n_mpjpe": 0.5, "velocity": 20.0, "bone_variance": 0.0, "bone_length": 0.0}
    expected = by_loops(pred, target)
    total = losses.lifting_losses(pred, target, H36M, weights)["total"].item()
    by_hand = expected["mpjpe"] + 0.5 * expected["n_mpjpe"] + 20 * expected["velocity"]
    assert total == pytest.approx(by_hand, rel=1e-9)


def test_losses_by_hand():
    """Every joint 0.3, 0.4 off in frame 0 and right in frame 1: 0.25, and one step of 0.5."""
    target = torch.zeros(1, 2, 17, 3)
    pred = target.clone()
    pred[:, 0] += torch.tensor([0.3, 0.4, 0.0])
    assert losses.mpjpe_loss(pred, target).item() == pytest.approx(0.25)
    assert losses.velocity_loss(pred, target).item() == pytest.approx(0.5)
    # All joints moved alike: no bone has changed.
    assert losses.bone_length_loss(pred, target, H36M).item() == pytest.approx(0, abs=1e-7)


def test_bone_variance_by_hand(rng):
    """Two frames, the second twice as large: each bone's lengths l, 2l have variance l²/2."""
    pose = torch.from_numpy(rng.standard_normal((1, 1, 17, 3)))
    pred = torch.cat((pose, 2 * pose), dim=1)
    lengths = losses.bone_lengths(pose, H36M)
    variance = losses.bone_length_variance_loss(pred, H36M).item()
    assert variance == pytest.approx((lengths**2 / 2).mean().item())


def test_a_term_of_weight_zero_is_not_computed(rng, monkeypatch):
    def explode(*_):
        raise AssertionError("computed")

    for name in ("velocity_loss", "bone_angle_loss", "bone_length_variance_loss"):
        monkeypatch.setattr(losses, name, explode)
    weights = {"n_mpjpe": 0.5, "velocity": 0.0, "bone_angle": 0.0, "bone_variance": 0.0}
    found = losses.lifting_losses(*clips(rng), H36M, weights)
    assert set(found) == {"mpjpe", "n_mpjpe", "total"}


def test_clips_of_one_frame_have_no_motion_terms(rng):
    pred, target = clips(rng, frames=1)
    pred.requires_grad_()
    found = losses.lifting_losses(pred, target, H36M, dict.fromkeys(NAMES, 1.0))
    for name in ("velocity", "bone_variance", "bone_angle_velocity"):
        assert found[name].item() == 0
    found["total"].backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP], ids=["h36m", "3dhp"])
@pytest.mark.parametrize("case", ["zero", "tiny", "right", "straight", "random"])
def test_gradients_are_finite(rng, skeleton, case):
    _, target = clips(rng)
    target = target.float()
    line = torch.arange(17.0)[:, None].expand(2, 5, 17, 3)  # every angle 0° or 180°
    pred = {
        "zero": torch.zeros_like(target),
        "tiny": torch.full_like(target, 1e-20),
        "right": target.clone(),
        "straight": line.clone(),
        "random": torch.randn_like(target),
    }[case]
    pred.requires_grad_()
    found = losses.lifting_losses(pred, target, skeleton, dict.fromkeys(NAMES, 1.0))
    assert all(torch.isfinite(value) for value in found.values())
    found["total"].backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("name", ["mpjpe", *NAMES])
def test_gradients_against_finite_differences(rng, name):
    pred, target = clips(rng, frames=3)
    pred, target = pred[:1].requires_grad_(), target[:1]
    weights = dict.fromkeys(NAMES, 0.0) | ({} if name == "mpjpe" else {name: 1.0})

    def loss(pose):
        return losses.lifting_losses(pose, target, H36M, weights)[name]

    assert torch.autograd.gradcheck(loss, (pred,), eps=1e-7, atol=1e-5)


def test_the_target_without_root_rel_keeps_the_place_on_the_screen():
    """Two frames of two joints, root 0: only the depth moves, by that of the first frame's root."""
    label = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]])
    kept = [[[[1, 2, 0], [4, 5, 3]], [[7, 8, 6], [10, 11, 9]]]]
    relative = [[[[0, 0, 0], [3, 3, 3]], [[0, 0, 0], [3, 3, 3]]]]
    assert training_target(label, 0, root_rel=False).tolist() == kept
    assert training_target(label, 0, root_rel=True).tolist() == relative
