"""Bones in space: vectors, spherical coordinates, polar-angle bins, and the mirror image.

Shapes: B clips, T frames, J joints, K = J - 1 bones.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.skeleton import Skeleton

NUM_BINS = 6  # of 30° each, between 0° (away from the camera) and 180°, as published
BINS = (4, 6, 9)
SLOTS = ("released", "child")
INPUTS = ("screen", "person")  # see person_unit()
PERSON_RMS = 0.3  # of x and y of a person in their own unit; on the screen they have about as much


def index_at(numbers: Sequence[int], device: torch.device) -> list[int] | Tensor:
    """These numbers as an index of tensors on the device."""
    return list(numbers) if device.type == "cpu" else _index_on(tuple(numbers), device)


@functools.cache
def _index_on(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept there: a list would be copied, and the copy waited for, at each use."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, device=device)


def flip_pose(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """The mirror image: x negated, left and right joints swapped. (..., J, 2+) -> same shape."""
    mirrored = pose[..., index_at(skeleton.flip_order, pose.device), :]
    return torch.cat((-mirrored[..., :1], mirrored[..., 1:]), dim=-1)


def root_relative(pose: Tensor, root: int) -> Tensor:
    """(..., J, D) -> (..., J, D): each joint minus the root of its frame."""
    return pose - pose[..., root : root + 1, :]


def person_unit(pose_2d: Tensor, root: int) -> Tensor:
    """How long a person's own unit is on the screen: one number a clip.

    In this unit, the root mean square of the root-relative x and y of all frames and joints is
    PERSON_RMS. Frames with NaN, infinity or what overflows are left out, so they spoil no other
    one; where all joints are in one point, the unit is 1. The mirror image has the same unit.
    pose_2d: (B, T, J, 2+) -> (B, 1, 1, 1), above 0.
    """
    squares = root_relative(pose_2d[..., :2], root).square().mean((-2, -1), keepdim=True)
    is_usable = squares.isfinite()  # (B, T, 1, 1)
    total = torch.where(is_usable, squares, 0.0).sum(-3, keepdim=True)
    mean = total / is_usable.sum(-3, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, mean, PERSON_RMS**2).sqrt() / PERSON_RMS


def person_scaled(pose_2d: Tensor, root: int, unit: Tensor | None = None) -> Tensor:
    """The input form "person": x and y relative to the root of the frame, in the person's own unit.

    The root's slot, which would be 0, keeps its place on the screen; the confidence stays.
    pose_2d: (B, T, J, 2+) -> same shape; unit: person_unit(), if it is known.
    """
    if unit is None:
        unit = person_unit(pose_2d, root)
    own = root_relative(pose_2d[..., :2], root) / unit
    is_root = torch.arange(pose_2d.shape[-2], device=pose_2d.device)[:, None] == root  # (J, 1)
    return torch.cat((torch.where(is_root, pose_2d[..., :2], own), pose_2d[..., 2:]), dim=-1)


def bone_vectors(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Child minus parent: (..., J, D) -> (..., K, D)."""
    children, parents = (
        index_at(n, pose.device) for n in (skeleton.bone_children, skeleton.bone_parents)
    )
    return pose[..., children, :] - pose[..., parents, :]


def polar_bins(pose: Tensor, skeleton: Skeleton, num_bins: int = NUM_BINS) -> Tensor:
    """Which of `num_bins` equal bins each bone's angle to the camera's z axis is in.

    pose: (..., J, 3) -> (..., J) int64: a bone's bin is at its child joint; the root has 0.
    Exactly 180° belongs to the last bin (the released code gives it a class of its own).
    """
    dx, dy, dz = bone_vectors(pose, skeleton).unbind(-1)
    degrees = torch.rad2deg(torch.atan2(torch.sqrt(dx**2 + dy**2), dz))
    bins = torch.zeros(pose.shape[:-1], dtype=torch.int64, device=pose.device)
    width = 180 / num_bins
    children = index_at(skeleton.bone_children, pose.device)
    bins[..., children] = (degrees // width).long().clamp(max=num_bins - 1)
    return bins


def bone_features(
    pose_2d: Tensor,
    bins: Tensor,
    skeleton: Skeleton,
    slots: str = "released",
    num_bins: int = NUM_BINS,
) -> Tensor:
    """Spherical coordinates of the bones: azimuth/π and length from 2D, polar/π from the bin.

    pose_2d: (..., J, 2+), only x and y are read; bins: (..., J) int64, read at the child joints.
    Returns (..., J, 3), see spherical_features().
    """
    polar = bin_centres(bins, num_bins, pose_2d.dtype)
    return spherical_features(pose_2d, polar, skeleton, slots)


def bin_centres(bins: Tensor, num_bins: int, dtype: torch.dtype) -> Tensor:
    """The angle in the middle of each bin, divided by π; any shape."""
    return (2 * bins + 1).to(dtype) / (2 * num_bins)


def expected_polar(probabilities: Tensor) -> Tensor:
    """The mean of the bins' angles, each with its probability, divided by π; (..., bins) -> (...).

    It lies between the centres of the first bin and the last one.
    """
    num_bins = probabilities.shape[-1]
    bins = torch.arange(num_bins, device=probabilities.device)
    return (probabilities * bin_centres(bins, num_bins, probabilities.dtype)).sum(-1)


def spherical_features(
    pose_2d: Tensor,
    polar: Tensor,
    skeleton: Skeleton,
    slots: str = "released",
    confidence: Tensor | None = None,
) -> Tensor:
    """Azimuth/π and length of each bone from 2D, beside its polar angle/π.

    pose_2d: (..., J, 2+), only x and y are read; polar: (..., J), above 0 and below 1, read at the
    child joints; so is confidence (..., J), a fourth feature. Returns (..., J, 3 or 4).
    slots: "released" puts bone k into slot k and zeros into the last one (what published weights
    expect), "child" puts it at its child joint and zeros at the root.
    """
    if slots not in SLOTS:
        raise ValueError(f"slots must be one of {SLOTS}, not {slots!r}")
    children = index_at(skeleton.bone_children, pose_2d.device)
    vectors = bone_vectors(pose_2d[..., :2], skeleton)  # (..., K, 2)
    azimuth = torch.atan2(vectors[..., 1], vectors[..., 0]) / math.pi
    polar = polar[..., children]
    # z = r / tan(polar) and sqrt(r² + z²) = r / sin(polar), finite for a bone of length 0 as well.
    length = torch.linalg.vector_norm(vectors, dim=-1) / torch.sin(polar * math.pi)
    parts = [azimuth, polar, length]
    if confidence is not None:
        parts.append(confidence[..., children])
    bones = torch.stack(parts, dim=-1)  # (..., K, 3 or 4)

    features = pose_2d.new_zeros(*pose_2d.shape[:-1], len(parts))
    if slots == "released":
        features[..., : len(skeleton.bones), :] = bones
    else:
        features[..., children, :] = bones
    return features
