"""Pose metrics in numpy, vectorised over everything but the joints.

Every pose metric takes (..., J, 3) in mm, root-relative unless said otherwise, and returns one
value for each pose, so callers choose how to average. T frames, J joints.
"""

import numpy as np

from lib.arrays import Floats, Ints


def joint_errors(pred: Floats, target: Floats) -> Floats:
    """Euclidean distance of each joint; (..., J, 3) mm -> (..., J) mm."""
    distances: Floats = np.linalg.norm(pred - target, axis=-1)
    return distances


def mpjpe(pred: Floats, target: Floats) -> Floats:
    """Mean per-joint position error ("Protocol #1"); (..., J, 3) mm -> (...) mm."""
    means: Floats = joint_errors(pred, target).mean(-1)
    return means


def n_mpjpe(pred: Floats, target: Floats) -> Floats:
    """MPJPE after the best scale of each predicted pose, Σ(p·g)/Σ(p·p) (Rhodin et al. 2018).

    (..., J, 3) mm -> (...) mm.
    """
    numerator = (pred * target).sum((-2, -1), keepdims=True)
    denominator = (pred * pred).sum((-2, -1), keepdims=True)
    scale = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return mpjpe(scale * pred, target)


def procrustes_align(pred: Floats, target: Floats) -> Floats:
    """Move pred onto target by the best similarity transform; its rotation never mirrors.

    (..., J, 3) -> (..., J, 3) float64. Umeyama 1991, eq. 40-42. A pose whose joints all coincide
    becomes the centroid of the target.
    """
    pred, target = np.asarray(pred, np.float64), np.asarray(target, np.float64)
    mean_p, mean_t = pred.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    p, t = pred - mean_p, target - mean_t
    u, singular, vt = np.linalg.svd(np.swapaxes(p, -1, -2) @ t)  # p^T t = u diag(s) vt
    sign = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    # With the sign on the last axis, u diag(1, 1, sign) vt is the best rotation of determinant +1.
    u[..., :, 2] *= sign[..., None]
    singular[..., 2] *= sign
    variance = (p * p).sum((-2, -1))
    trace = singular.sum(-1)
    scale = np.divide(trace, variance, out=np.zeros_like(trace), where=variance > 0)
    aligned: Floats = scale[..., None, None] * (p @ (u @ vt)) + mean_t
    return aligned


def p_mpjpe(pred: Floats, target: Floats) -> Floats:
    """Mean joint error left after the best similarity alignment ("Protocol #2").

    (..., J, 3) mm -> (...) mm.
    """
    return mpjpe(procrustes_align(pred, target), target)


def mpjve(pred: Floats, target: Floats) -> Floats:
    """Mean per-joint velocity error; (..., T, J, 3) mm -> (..., T - 1) mm/frame."""
    return mpjpe(np.diff(pred, axis=-3), np.diff(target, axis=-3))


def acceleration_error(pred: Floats, target: Floats) -> Floats:
    """Mean error of the second differences; (..., T, J, 3) mm -> (..., T - 2) mm/frame².

    The released code appends two zeros to each clip, so its mean is (T - 2)/T of this one's.
    """
    return mpjpe(np.diff(pred, n=2, axis=-3), np.diff(target, n=2, axis=-3))


def pck(pred: Floats, target: Floats, threshold: float = 150.0) -> Floats:
    """Percentage of joints nearer than `threshold` mm (strictly); (..., J, 3) mm -> (...) %."""
    share: Floats = (joint_errors(pred, target) < threshold).mean(-1)
    return 100.0 * share


def auc(pred: Floats, target: Floats) -> Floats:
    """Mean PCK over the thresholds 0, 5, ..., 150 mm (MPI-INF-3DHP); (..., J, 3) mm -> (...) %."""
    thresholds = np.arange(0.0, 151.0, 5.0)
    errors = joint_errors(pred, target)[..., None]
    share: Floats = (errors < thresholds).mean((-2, -1))
    return 100.0 * share


def angle(pose: Floats, start: int, corner: int, end: int) -> Floats:
    """The interior angle at joint `corner` between two others; (..., J, 3) -> (...) degrees.

    From 0 to 180; 0 where one of them lies in the corner.
    """
    a, b = (pose[..., joint, :] - pose[..., corner, :] for joint in (start, end))
    # Exact near 0 and 180 degrees, too, where the arc cosine is not.
    angles: Floats = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))
    return np.rad2deg(angles)


def confusion_matrix(predicted: Ints, labels: Ints, num_bins: int) -> Ints:
    """Counts, row = label, column = prediction: two int arrays of one shape -> (bins, bins)."""
    pairs = np.asarray(labels).ravel() * num_bins + np.asarray(predicted).ravel()
    return np.bincount(pairs, minlength=num_bins**2).reshape(num_bins, num_bins)


def bin_scores(confusion: Ints) -> dict[str, float]:
    """Accuracy, precision, recall and F1 in [0, 1] from a (bins, bins) confusion matrix.

    As in the released code, the last three are means over the classes weighted by how often each
    occurs (so recall equals accuracy); a class never predicted has precision 0.
    """
    hits, predicted, support = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    total = max(1, int(support.sum()))
    zeros = np.zeros(len(hits))
    precision = np.divide(hits, predicted, out=zeros.copy(), where=predicted > 0)
    recall = np.divide(hits, support, out=zeros.copy(), where=support > 0)
    f1 = np.divide(2 * hits, predicted + support, out=zeros.copy(), where=predicted + support > 0)
    weights = support / total
    return {
        "accuracy": float(hits.sum() / total),
        "precision": float(weights @ precision),
        "recall": float(weights @ recall),
        "f1": float(weights @ f1),
    }
