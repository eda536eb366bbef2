"""The differentiable losses and their weighted sum. Shapes: B clips, T frames, J joints.

pred, target: (B, T, J, 3), root-relative, normalised units; each loss returns a scalar.
Source: the lineage of MotionBERT (Zhu et al. 2023), whose loss set the released code uses.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.geometry import bone_vectors, index_at
from lib.skeleton import Skeleton

ARCCOS_MARGIN = 1e-7  # keeps arccos away from ±1, where its slope is infinite


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm


def mpjpe_loss(pred: Tensor, target: Tensor) -> Tensor:
    return _norm(pred - target).mean()


def n_mpjpe_loss(pred: Tensor, target: Tensor) -> Tensor:
    """MPJPE after scaling each predicted pose by Σ(p·g)/Σ(p·p)."""
    numerator = (pred * target).sum((-2, -1), keepdim=True)
    denominator = (pred * pred).sum((-2, -1), keepdim=True)
    scale = numerator / denominator.clamp(min=torch.finfo(pred.dtype).tiny)
    return mpjpe_loss(scale * pred, target)


def velocity_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Mean norm of the difference of first differences; 0 for a single frame."""
    if pred.shape[1] < 2:
        return pred.sum() * 0
    return _norm((pred - target).diff(dim=1)).mean()


def bone_lengths(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """(..., J, 3) -> (..., K)."""
    return _norm(bone_vectors(pose, skeleton))


def bone_length_variance_loss(pred: Tensor, skeleton: Skeleton) -> Tensor:
    """How much the predicted bone lengths vary within a clip (unbiased); 0 for a single frame."""
    if pred.shape[1] < 2:
        return pred.sum() * 0
    return bone_lengths(pred, skeleton).var(dim=1).mean()


def bone_length_loss(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    return (bone_lengths(pred, skeleton) - bone_lengths(target, skeleton)).abs().mean()


def angle_pairs(skeleton: Skeleton) -> list[tuple[int, int]]:
    """The pairs of bones whose angle is compared: those that share a joint.

    The published list for Human3.6M leaves out one of them, neck against left clavicle.
    """
    names = skeleton.names

    def is_left_out(a: int, b: int) -> bool:
        ends = {names[skeleton.bone_children[a]], names[skeleton.bone_children[b]]}
        return ends == {"neck", "left_shoulder"} and "thorax" in names

    return [pair for pair in skeleton.bone_pairs if not is_left_out(*pair)]


def bone_angles(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Angles in radians between bones that share a joint; (..., J, 3) -> (..., pairs)."""
    vectors = bone_vectors(pose, skeleton)
    pairs = zip(*angle_pairs(skeleton), strict=True)
    first, second = (index_at(numbers, pose.device) for numbers in pairs)
    cosine = torch.cosine_similarity(vectors[..., first, :], vectors[..., second, :], dim=-1)
    return torch.acos(cosine.clamp(-1 + ARCCOS_MARGIN, 1 - ARCCOS_MARGIN))


def bone_angle_loss(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    return (bone_angles(pred, skeleton) - bone_angles(target, skeleton)).abs().mean()


def bone_angle_velocity_loss(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """L1 of the first difference of the bone angles; 0 for a single frame."""
    if pred.shape[1] < 2:
        return pred.sum() * 0
    difference = bone_angles(pred, skeleton) - bone_angles(target, skeleton)
    return difference.diff(dim=1).abs().mean()


def lifting_losses(
    pred: Tensor, target: Tensor, skeleton: Skeleton, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Each loss with a weight, and their weighted sum as "total".

    weights: by name, see the table below; "mpjpe" has weight 1, a term of weight 0 is not computed.
    """
    terms = {
        "n_mpjpe": lambda: n_mpjpe_loss(pred, target),
        "velocity": lambda: velocity_loss(pred, target),
        "bone_variance": lambda: bone_length_variance_loss(pred, skeleton),
        "bone_length": lambda: bone_length_loss(pred, target, skeleton),
        "bone_angle": lambda: bone_angle_loss(pred, target, skeleton),
        "bone_angle_velocity": lambda: bone_angle_velocity_loss(pred, target, skeleton),
    }
    losses = {"mpjpe": mpjpe_loss(pred, target)}
    total = losses["mpjpe"]
    for name, weight in weights.items():
        if weight:
            losses[name] = terms[name]()
            total = total + weight * losses[name]
    losses["total"] = total
    return losses
