"""From clips to the numbers of a table: prediction with mirror averaging, Human3.6M's protocol."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lib import metrics
from lib.camera import from_screen
from lib.errors import UserError
from lib.geometry import flip_pose
from lib.skeleton import BODY_HALVES, Skeleton, body_half

# Left out by everyone since Martinez et al. 2017: their ground truth is wrong.
EXCLUDED_SOURCES = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")


@torch.inference_mode()
def predict(
    model: nn.Module,
    clips: np.ndarray | Tensor,
    skeleton: Skeleton,
    *,
    flip: bool,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:
    """Lift clips with a model in eval mode; flip averages with the mirrored clip's prediction.

    clips: (N, T, J, 3): x, y in normalised screen coordinates, confidence.
    Returns (N, T, J, 3) float32 in normalised units; the root is not set to zero.
    """
    if model.training:
        raise ValueError("predict() needs a model in eval mode")
    poses = np.empty((*clips.shape[:-1], 3), dtype=np.float32)
    for start in progress(range(0, len(clips), batch_size)):
        batch = torch.as_tensor(clips[start : start + batch_size]).to(device)
        pose = predict_batch(model, batch, skeleton, flip=flip)
        poses[start : start + batch_size] = pose.cpu().numpy()
    return poses


def predict_batch(model: nn.Module, batch: Tensor, skeleton: Skeleton, *, flip: bool) -> Tensor:
    """(B, T, J, 3) -> (B, T, J, 3); with flip, the mean of the two views of one clip.

    Stage 1 sees the mirrored clip too: its bins are not mirrored but predicted anew.
    """
    if not flip:
        return model(batch)
    both = model(torch.cat((batch, flip_pose(batch, skeleton))))
    direct, mirrored = both.chunk(2)
    return (direct + flip_pose(mirrored, skeleton)) / 2


@dataclass(frozen=True)
class TestFrames:
    """What Human3.6M's protocol needs to know about the N frames of a test set.

    action, video: (N,) indices into the two lists of names; factor: (N,) mm per pixel at the root;
    pose_3d_mm: (N, J, 3) ground truth; image_size: (N, 2) width and height.
    """

    actions: list[str]
    videos: list[str]
    action: np.ndarray
    video: np.ndarray
    factor: np.ndarray
    pose_3d_mm: np.ndarray
    image_size: np.ndarray

    __test__ = False  # not a test class, whatever pytest thinks of the name


def evaluated_clips(frames: TestFrames, clips: np.ndarray) -> np.ndarray:
    """(N,) bool: which clips of frame ids (N, T) count, all but those of the excluded videos."""
    excluded = np.array([name.startswith(EXCLUDED_SOURCES) for name in frames.videos], dtype=bool)
    return ~excluded[frames.video[clips[:, 0]]]


def to_millimetres(
    poses: np.ndarray, clips: np.ndarray, frames: TestFrames, *, root_rel: bool = True
) -> np.ndarray:
    """Predicted clips -> root-relative mm. poses: (N, T, J, 3) normalised; clips: (N, T).

    root_rel: the poses' root is meant to be at 0, so what the model says of it does not count.
    """
    poses = poses.astype(np.float64)
    if root_rel:
        poses[..., 0, :] = 0
    # A clip's image size is its first frame's: a video has one camera.
    pixels = from_screen(poses, frames.image_size[clips[:, 0]][:, None])
    millimetres = pixels * frames.factor[clips][..., None, None]
    return millimetres - millimetres[..., :1, :]


@dataclass(frozen=True)
class Report:
    """Errors in mm (mm/frame, mm/frame²), averaged as the protocol wants them."""

    mpjpe: float
    p_mpjpe: float
    mpjve: float
    acceleration: float
    per_action: dict[str, dict[str, float]]
    per_joint: dict[str, float]
    frames: int

    def scores(self) -> dict[str, float]:
        return {n: getattr(self, n) for n in ("mpjpe", "p_mpjpe", "mpjve", "acceleration")}

    def details(self) -> dict[str, float]:
        """joint/<joint>, body/upper and body/lower (MPJPE in mm), action/<action>/<error>."""
        halves = {
            half: [error for joint, error in self.per_joint.items() if body_half(joint) == half]
            for half in BODY_HALVES
        }
        return {
            **{f"joint/{name}": error for name, error in self.per_joint.items()},
            **{f"body/{half}": float(np.mean(errors)) for half, errors in halves.items()},
            **{
                f"action/{action}/{name}": error
                for action, errors in self.per_action.items()
                for name, error in errors.items()
            },
        }

    def as_dict(self) -> dict[str, object]:
        return dict(vars(self))

    def table(self) -> str:
        """The errors per joint and per action as text, the averages last."""
        lines = ["joint              MPJPE"]
        lines += [f"{name:<16} {error:7.2f}" for name, error in self.per_joint.items()]
        width = max(16, *map(len, self.per_action))
        head = f"{'action':<{width}} {'MPJPE':>8} {'P-MPJPE':>8} {'MPJVE':>8} {'accel.':>8}"
        lines += ["", head]
        row = "{:<{width}} {mpjpe:8.2f} {p_mpjpe:8.2f} {mpjve:8.2f} {acceleration:8.2f}"
        lines += [row.format(a, width=width, **e) for a, e in self.per_action.items()]
        lines += [
            row.format("average", width=width, **vars(self)),
            f"mm, mm/frame and mm/frame² over {self.frames:,} frames,"
            f" {len(self.per_action)} actions",
        ]
        return "\n".join(lines)


def evaluate_h36m(
    poses: np.ndarray,
    clips: np.ndarray,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
) -> Report:
    """Human3.6M's protocol 1 and 2 (and velocity and acceleration errors alike).

    poses: (N, T, J, 3) normalised predictions of the clips; clips: (N, T) frame ids.
    A frame's error is the mean over the clips that contain it, an action's the mean over its
    frames, the reported one the mean over the actions. Raises UserError if nothing can be scored.
    """
    kept = evaluated_clips(frames, clips)
    if not kept.any():
        raise UserError(
            f"all {len(clips)} test clips belong to the videos that the protocol leaves out"
            f" ({', '.join(EXCLUDED_SOURCES)}); add other ones"
        )
    clips = clips[kept]
    pred = to_millimetres(poses[kept], clips, frames, root_rel=root_rel)
    wrong = np.flatnonzero(~np.isfinite(pred).all((1, 2, 3)))
    if len(wrong):
        raise UserError(
            f"the prediction is not finite in {len(wrong)} of {len(clips)} test clips; its"
            " training went wrong or its weights are damaged: use an earlier checkpoint"
        )
    target = frames.pose_3d_mm[clips].astype(np.float64)
    target -= target[..., :1, :]

    errors = {
        "mpjpe": metrics.mpjpe(pred, target),
        "p_mpjpe": metrics.p_mpjpe(pred, target),
        "mpjve": metrics.mpjve(pred, target),
        "acceleration": metrics.acceleration_error(pred, target),
    }
    by_action = {name: _per_action(error, clips, frames) for name, error in errors.items()}
    joint_errors = metrics.joint_errors(pred, target)
    by_joint = [
        _per_action(joint_errors[..., joint], clips, frames) for joint in range(len(skeleton.names))
    ]
    present = np.unique(frames.action[clips])
    names = [frames.actions[index] for index in present]
    return Report(
        **{name: float(np.mean(values[present])) for name, values in by_action.items()},
        per_action={
            action: {name: float(values[index]) for name, values in by_action.items()}
            for action, index in zip(names, present, strict=True)
        },
        per_joint={
            joint: float(np.mean(values[present]))
            for joint, values in zip(skeleton.names, by_joint, strict=True)
        },
        frames=len(np.unique(clips)),
    )


def _per_action(errors: np.ndarray, clips: np.ndarray, frames: TestFrames) -> np.ndarray:
    """Mean over the clips of each frame, then over the frames of each action.

    errors: (N, T'), T' <= T: the value at position t belongs to the clip's frame t.
    Returns (actions,), nan for an action without frames.
    """
    ids = clips[:, : errors.shape[1]].ravel()
    total = np.bincount(ids, errors.ravel(), minlength=len(frames.action))
    count = np.bincount(ids, minlength=len(frames.action))
    seen = count > 0
    action = frames.action[seen]
    sums = np.bincount(action, total[seen] / count[seen], minlength=len(frames.actions))
    numbers = np.bincount(action, minlength=len(frames.actions))
    return np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
