"""What an evaluation needs to know about the frames of a test set, and means over them.

N frames of all test videos together, J joints; C clips of T frames, given by frame ids (C, T).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.arrays import Bools, Floats, Ints
from lib.camera import from_screen
from lib.errors import UserError
from lib.skeleton import Skeleton


@dataclass(frozen=True)
class TestFrames:
    """action, video: (N,) indices into the two lists of names; factor: (N,) mm per pixel at the
    root; pose_3d_mm: (N, J, 3) ground truth; image_size: (N, 2) width and height. subjects: that of
    each video, and test_set: its name and what it was made from, where they are known. valid: (N,)
    whether the ground truth may be used, None where it may be everywhere.
    """

    actions: list[str]
    videos: list[str]
    action: Ints
    video: Ints
    factor: Floats
    pose_3d_mm: Floats
    image_size: Floats
    subjects: Sequence[str] = ()
    test_set: str = ""
    valid: Bools | None = None

    __test__ = False  # not a test class, whatever pytest thinks of the name

    @property
    def is_valid(self) -> Bools:
        return np.ones(len(self.video), dtype=bool) if self.valid is None else self.valid


def to_millimetres(
    poses: Floats, clips: Ints, frames: TestFrames, skeleton: Skeleton, *, root_rel: bool = True
) -> Floats:
    """Predicted clips -> root-relative mm. poses: (C, T, J, 3) normalised; clips: (C, T).

    root_rel: the root is at 0 by definition, so the model's prediction of it is not used.
    """
    root = skeleton.root
    poses = poses.astype(np.float64)
    if root_rel:
        poses[..., root, :] = 0
    # A clip's image size is its first frame's: a video has one camera.
    pixels = from_screen(poses, frames.image_size[clips[:, 0]][:, None])
    millimetres = pixels * frames.factor[clips][..., None, None]
    relative: Floats = millimetres - millimetres[..., root, None, :]
    return relative


def blend_weights(n_frames: int) -> Floats:
    """(T,) weight of each position of a clip: a sine squared.

    A clip counts least at its ends, where the network knows least; there the weight and its slope
    are nearly 0, so that nothing jumps or bends where a clip begins.
    """
    weights: Floats = np.sin(np.pi * (np.arange(n_frames) + 0.5) / n_frames) ** 2
    return weights


def mean_of_parts(poses: Floats, parts: int) -> Floats:
    """(N, ...) poses of which every `parts`-th was predicted with the same clips -> (N, ...).

    What is predicted apart differs by a jitter from frame to frame. So each frame has the mean of a
    window around it in which every part weighs the same; motion of constant velocity stays as it
    is, also at the ends. Fewer frames than a window reaches stay as they are.
    """
    half = parts // 2
    if half == 0 or len(poses) <= half:
        return poses
    weights = np.full(2 * half + 1, 1 / parts)
    if parts % 2 == 0:
        weights[[0, -1]] /= 2  # the part half a period away, before and after
    before = 2 * poses[:1] - poses[half:0:-1]
    after = 2 * poses[-1:] - poses[-2 : -half - 2 : -1]
    padded = np.concatenate([before, poses, after])
    mean = np.zeros_like(poses)
    for offset, weight in enumerate(weights.astype(poses.dtype)):
        mean += weight * padded[offset : offset + len(poses)]
    return mean


def refuse_not_finite(poses: Floats) -> None:
    """Raise UserError if a prediction (C, T, J, 3) is NaN or infinite."""
    wrong = int((~np.isfinite(poses).all((1, 2, 3))).sum())
    if wrong:
        raise UserError(
            f"the prediction is not finite in {wrong} of {len(poses)} test clips; its"
            " training went wrong or its weights are damaged: use an earlier checkpoint"
        )


def mean_per_action(errors: Floats, clips: Ints, frames: TestFrames) -> Floats:
    """Mean over the clips of each frame, then over the frames of each action.

    errors: (C, T'), T' <= T: the value at position t belongs to the clip's frame t.
    Returns (actions,), nan for an action without frames.
    """
    ids = clips[:, : errors.shape[1]].ravel()
    total = np.bincount(ids, errors.ravel(), minlength=len(frames.action))
    count = np.bincount(ids, minlength=len(frames.action))
    seen = count > 0
    action = frames.action[seen]
    sums = np.bincount(action, total[seen] / count[seen], minlength=len(frames.actions))
    numbers = np.bincount(action, minlength=len(frames.actions))
    means: Floats = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
    return means
