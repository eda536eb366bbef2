"""Clips in, poses out, averaged with the mirrored clip's."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from lib.arrays import Floats
from lib.batch import SharedFrames
from lib.evaluation.protocol import TestSet
from lib.geometry import flip_pose
from lib.skeleton import Skeleton

# Clips that a CPU predicts at once at most: with 64 of 81 frames it takes a tenth longer.
CPU_BATCH = 16


@torch.inference_mode()
def predict(
    model: nn.Module,
    clips: Floats | Tensor,
    skeleton: Skeleton,
    *,
    flip: bool,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    lift: Callable[[Tensor], Tensor] | None = None,
) -> Floats:
    """Lift clips with a model in eval mode; flip averages with the mirrored clip's prediction.

    clips: (N, T, J, 3): x, y in normalised screen coordinates, confidence; lift: predict_batch() of
    this model and skeleton, as a CUDA graph for instance.
    Returns (N, T, J, 3) float32 in normalised units; the root is not set to zero.
    """
    if model.training:
        raise ValueError("predict() needs a model in eval mode")
    poses = np.empty((*clips.shape[:-1], 3), dtype=np.float32)
    for start in progress(range(0, len(clips), batch_size)):
        batch = torch.as_tensor(clips[start : start + batch_size]).to(device)
        pose = lift(batch) if lift else predict_batch(model, batch, skeleton, flip=flip)
        poses[start : start + batch_size] = pose.cpu().numpy()
    return poses


@torch.inference_mode()
def predict_test(
    model: nn.Module,
    test: TestSet,
    numbers: range,
    skeleton: Skeleton,
    *,
    flip: bool,
    batch_size: int,
    device: torch.device | str,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Floats:
    """As predict(), of the clips of these numbers, each batch of which is read when its turn comes.

    What a model computes frame by frame it computes once for clips of a batch that share frames.
    Returns (clips, kept frames, J, 3) float32.
    """
    if model.training:
        raise ValueError("predict_test() needs a model in eval mode")
    # Only windows overlap that much, and resampled clips of a released folder may show other frames
    # than `ids` says.
    may_share = test.protocol.centre_only and getattr(model, "shares_frames", False)
    if torch.device(device).type == "cpu":
        batch_size = min(batch_size, CPU_BATCH)
    shape = test.ids[numbers.start : numbers.stop, test.kept].shape
    poses = np.empty((*shape, skeleton.num_joints, 3), dtype=np.float32)
    for start in progress(range(0, len(numbers), batch_size)):
        clips = numbers[start : start + batch_size]
        batch = test.clips.__getitems__(list(clips)).pose_2d.to(device)
        shared = SharedFrames.of(test.ids[clips.start : clips.stop], device) if may_share else None
        lifted = predict_batch(model, batch, skeleton, flip=flip, shared=shared)
        poses[start : start + len(clips)] = lifted[:, test.kept].cpu().numpy()
    return poses


def predict_batch(
    model: nn.Module,
    batch: Tensor,
    skeleton: Skeleton,
    *,
    flip: bool,
    shared: SharedFrames | None = None,
) -> Tensor:
    """(B, T, J, 3) -> (B, T, J, 3); with flip, the mean of the two views of one clip.

    Stage 1 sees the mirrored clip too: its bins are not mirrored but predicted anew.
    shared: which of the B·T frames are the same, for a model that `shares_frames`.
    """
    clips = batch.shape[0]  # not len() or chunk(2): torch.export would fix the number
    if flip:
        batch = torch.cat((batch, flip_pose(batch, skeleton)))
        shared = shared.twice() if shared else None
    both: Tensor = model(batch) if shared is None else model(batch, shared=shared)
    if not flip:
        return both
    return (both[:clips] + flip_pose(both[clips:], skeleton)) / 2
