"""Metrics against loops over poses and joints, numbers worked by hand, and invariances."""

import math

import numpy as np
import pytest

from lib import metrics


def poses(rng, *shape):
    return rng.normal(0, 400, (*shape, 17, 3)), rng.normal(0, 400, (*shape, 17, 3))


def loop_mpjpe(pred, target):
    return sum(math.dist(p, t) for p, t in zip(pred, target, strict=True)) / len(pred)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q *= np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def best_rotation_error(pred, target):
    """P-MPJPE by Horn's quaternions (1987): another way than the singular values."""
    p, t = pred - pred.mean(0), target - target.mean(0)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = p.T @ t
    n = np.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, -xx + yy - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, -xx - yy + zz],
        ]
    )
    w, x, y, z = np.linalg.eigh(n)[1][:, -1]
    rotation = np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )
    moved = p @ rotation.T
    scale = (moved * t).sum() / (moved * moved).sum()
    return loop_mpjpe(scale * moved, t)


def test_mpjpe_by_hand():
    """Two joints, one 3-4-0 off and one right: 5 / 2."""
    target = np.zeros((2, 3))
    assert metrics.mpjpe(np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]), target) == 2.5


def test_pose_metrics_against_loops(rng):
    pred, target = poses(rng, 3, 5)
    mpjpe, n_mpjpe = metrics.mpjpe(pred, target), metrics.n_mpjpe(pred, target)
    p_mpjpe = metrics.p_mpjpe(pred, target)
    assert mpjpe.shape == n_mpjpe.shape == p_mpjpe.shape == (3, 5)
    for clip in range(3):
        for frame in range(5):
            p, t = pred[clip, frame], target[clip, frame]
            scale = (p * t).sum() / (p * p).sum()
            assert mpjpe[clip, frame] == pytest.approx(loop_mpjpe(p, t))
            assert n_mpjpe[clip, frame] == pytest.approx(loop_mpjpe(scale * p, t))
            assert p_mpjpe[clip, frame] == pytest.approx(best_rotation_error(p, t))


def test_p_mpjpe_forgets_position_size_and_heading(rng):
    target = rng.normal(0, 400, (17, 3))
    moved = 0.3 * target @ random_rotation(rng).T + [10, -2000, 500]
    assert metrics.p_mpjpe(moved, target) == pytest.approx(0, abs=1e-9)
    pred = target + rng.normal(0, 50, (17, 3))
    moved = 7 * pred @ random_rotation(rng).T + [10, -2000, 500]
    assert metrics.p_mpjpe(moved, target) == pytest.approx(metrics.p_mpjpe(pred, target))


def test_p_mpjpe_never_mirrors(rng):
    target = rng.normal(0, 400, (20, 17, 3))
    errors = metrics.p_mpjpe(target * [-1, 1, 1], target)
    assert (errors > 50).all()
    for pose, error in zip(target, errors, strict=True):
        assert error == pytest.approx(best_rotation_error(pose * [-1, 1, 1], pose))


def test_p_mpjpe_of_a_flat_pose_may_turn_it_over(rng):
    """In a plane a mirror image is a turn through space, so the error is 0 by proper means."""
    flat = rng.normal(0, 400, (17, 3)) * [1, 1, 0]
    assert metrics.p_mpjpe(flat * [-1, 1, 1], flat) == pytest.approx(0, abs=1e-9)


def test_p_mpjpe_of_degenerate_poses(rng):
    """Joints that all coincide become the target's centroid; a line stays finite."""
    target = rng.normal(0, 400, (17, 3))
    expected = np.linalg.norm(target - target.mean(0), axis=-1).mean()
    assert metrics.p_mpjpe(np.full((17, 3), 5.0), target) == pytest.approx(expected)
    assert metrics.p_mpjpe(target, np.full((17, 3), 5.0)) == pytest.approx(0, abs=1e-9)
    line = np.arange(17.0)[:, None] * [1, 2, 3]
    assert np.isfinite(metrics.p_mpjpe(line, target))
    assert metrics.p_mpjpe(line, -3 * line + 4) == pytest.approx(0, abs=1e-9)


def test_n_mpjpe_forgets_size_alone(rng):
    target = rng.normal(0, 400, (17, 3))
    assert metrics.n_mpjpe(0.2 * target, target) == pytest.approx(0, abs=1e-9)
    nothing = np.zeros((17, 3))
    assert metrics.n_mpjpe(nothing, target) == pytest.approx(metrics.mpjpe(nothing, target))


def test_velocity_and_acceleration_against_loops(rng):
    pred, target = poses(rng, 2, 6)
    velocity, acceleration = metrics.mpjve(pred, target), metrics.acceleration_error(pred, target)
    assert velocity.shape == (2, 5)
    assert acceleration.shape == (2, 4)
    for clip in range(2):
        p, t = pred[clip], target[clip]
        for i in range(5):
            expected = loop_mpjpe(p[i + 1] - p[i], t[i + 1] - t[i])
            assert velocity[clip, i] == pytest.approx(expected)
        for i in range(4):
            expected = loop_mpjpe(p[i] - 2 * p[i + 1] + p[i + 2], t[i] - 2 * t[i + 1] + t[i + 2])
            assert acceleration[clip, i] == pytest.approx(expected)


def test_a_steady_drift_has_velocity_error_and_no_acceleration_error(rng):
    target = rng.normal(0, 400, (8, 17, 3))
    drift = np.arange(8.0)[:, None, None] * [0, 3.0, 4.0]
    assert metrics.mpjve(target + drift, target) == pytest.approx(np.full(7, 5))
    assert metrics.acceleration_error(target + drift, target) == pytest.approx(np.zeros(6))


def test_pck_and_auc_by_hand():
    """Errors 0, 12, 150 and 500 mm; "nearer than" is strict.

    PCK@150: 2 of 4. The 31 thresholds are 0, 5, ..., 150: error 0 is within 30 of them (all but
    0), 12 within 15, 20, ..., 150 (28), 150 and 500 within none: 58 of 124.
    """
    target = np.zeros((4, 3))
    pred = np.array([[0, 0, 0], [12, 0, 0], [0, 150, 0], [300, 400, 0]], float)
    assert metrics.pck(pred, target) == 50
    assert metrics.pck(pred, target, threshold=12.5) == 50
    assert metrics.pck(pred, target, threshold=12.0) == 25
    assert metrics.auc(pred, target) == pytest.approx(100 * 58 / 124)


def test_pck_and_auc_of_many_poses_against_loops(rng):
    pred, target = (rng.normal(0, 60, (3, 4, 14, 3)) for _ in range(2))
    pck, auc = metrics.pck(pred, target), metrics.auc(pred, target)
    for clip in range(3):
        for frame in range(4):
            errors = [
                math.dist(p, t) for p, t in zip(pred[clip, frame], target[clip, frame], strict=True)
            ]
            shares = [sum(e < limit for e in errors) / 14 for limit in range(0, 151, 5)]
            assert pck[clip, frame] == pytest.approx(100 * shares[-1])
            assert auc[clip, frame] == pytest.approx(100 * sum(shares) / 31)


def test_bin_scores_by_hand():
    """Labels 0 0 0 1 1 2, predictions 0 0 1 1 1 1; class 2 is never predicted.

    Precision 1, 1/2, 0; recall 2/3, 1, 0; F1 4/5, 2/3, 0; weights 3/6, 2/6, 1/6.
    """
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])
    confusion = metrics.confusion_matrix(predicted, labels, 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    scores = metrics.bin_scores(confusion)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["precision"] == pytest.approx(3 / 6 + 2 / 6 * 1 / 2)
    assert scores["recall"] == pytest.approx(3 / 6 * 2 / 3 + 2 / 6)
    assert scores["f1"] == pytest.approx(3 / 6 * 4 / 5 + 2 / 6 * 2 / 3)


def test_bin_scores_of_nothing_are_zero():
    scores = metrics.bin_scores(np.zeros((6, 6), np.int64))
    assert set(scores.values()) == {0.0}


def test_confusion_matrix_counts_pairs(rng):
    labels, predicted = rng.integers(0, 6, (2, 3, 40, 16))
    confusion = metrics.confusion_matrix(predicted, labels, 6)
    for i in range(6):
        for j in range(6):
            assert confusion[i, j] == ((labels == i) & (predicted == j)).sum()


@pytest.mark.parametrize("name", ["mpjpe", "n_mpjpe", "p_mpjpe", "pck", "auc"])
def test_float32_poses_give_the_same_number(rng, name):
    pred, target = poses(rng, 50)
    metric = getattr(metrics, name)
    single = metric(pred.astype(np.float32), target.astype(np.float32))
    assert single == pytest.approx(metric(pred, target), rel=1e-5)
