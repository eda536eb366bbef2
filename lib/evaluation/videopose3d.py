"""VideoPose3D's protocol on Human3.6M: camera-space ground truth, means over 15 actions.

Sources: Pavllo et al. 2019; the windows of a sequence-to-sequence model as MixSTE (Zhang et al.
2022) has them.
"""

import numpy as np

from lib import metrics
from lib.arrays import Bools, Floats, Ints
from lib.evaluation.frames import TestFrames, refuse_not_finite
from lib.evaluation.report import Report
from lib.skeleton import Skeleton

LAST_WINDOW = {
    "twice": "frames that a video's last window shares with the one before count twice",
    "once": "each frame counts once",
}
PREDICTED_ROOT = {
    "kept": "the root as predicted, against 0",
    "zeroed": "the predicted root set to 0",
}
CHUNK = 20_000  # frames that are scored at a time, for the memory


def evaluate_videopose3d(
    poses: Floats,
    clips: Ints,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
    last_window: str = "twice",
    predicted_root: str = "kept",
) -> Report:
    """MPJPE, P-MPJPE, N-MPJPE ("protocols 1 to 3") and MPJVE of windows that cover each video.

    poses: (C, T, J, 3) predictions in the label's unit; clips: (C, T) frame ids, a video's windows
    in their order. An action's error is the mean over its frames in all videos, the reported one
    the plain mean of the actions. The root of the ground truth is 0.

    last_window: where a video's last window overlaps the one before, its frames count "twice", as
    in MixSTE, and a short video's last frame as often as it was repeated; or each frame counts
    "once", as the first window with it has it. predicted_root: "kept" as predicted, or "zeroed".
    MPJVE is over the first differences of a video's frames in the order in which they count, so
    with "twice" over the step back to the last window, too, as in MixSTE.
    Raises UserError: a prediction that is not finite.
    """
    refuse_not_finite(poses)
    flat: Floats = poses.reshape(-1, *poses.shape[2:])
    ids: Ints = clips.ravel()
    if last_window == "once":
        first = np.sort(np.unique(ids, return_index=True)[1])
        flat, ids = flat[first], ids[first]
    action, video = frames.action[ids], frames.video[ids]

    joints = np.empty(flat.shape[:2], np.float32)
    errors = {name: np.empty(len(ids)) for name in ("mpjpe", "p_mpjpe", "n_mpjpe")}
    velocity = np.empty(max(0, len(ids) - 1))
    for start in range(0, len(ids), CHUNK):
        rows = slice(start, start + CHUNK + 1)  # and the next frame, for the differences
        pred = _millimetres(flat[rows], ids[rows], frames)
        if predicted_root == "zeroed":
            pred[:, skeleton.root] = 0
        target = frames.pose_3d_mm[ids[rows]].astype(np.float64)
        target -= target[:, skeleton.root, None]
        velocity[start : start + CHUNK] = metrics.mpjve(pred, target)
        rows, pred, target = slice(start, start + CHUNK), pred[:CHUNK], target[:CHUNK]
        joints[rows] = metrics.joint_errors(pred, target)
        errors["mpjpe"][rows] = metrics.mpjpe(pred, target)
        errors["p_mpjpe"][rows] = metrics.p_mpjpe(pred, target)
        errors["n_mpjpe"][rows] = metrics.n_mpjpe(pred, target)

    present = np.unique(action)
    by_action = {name: _means(error, action, present) for name, error in errors.items()}
    same: Bools = video[1:] == video[:-1]
    by_action["mpjve"] = _means(velocity[same], action[1:][same], present)
    return Report(
        averages={name: float(np.mean(values)) for name, values in by_action.items()},
        per_action={
            frames.actions[index]: {name: float(values[n]) for name, values in by_action.items()}
            for n, index in enumerate(present)
        },
        per_joint={
            name: float(np.mean(_means(joints[:, joint], action, present)))
            for joint, name in enumerate(skeleton.names)
        },
        frames=len(np.unique(ids)),
        remarks=(PREDICTED_ROOT[predicted_root], LAST_WINDOW[last_window]),
    )


def _millimetres(poses: Floats, ids: Ints, frames: TestFrames) -> Floats:
    """(M, J, 3) in the label's unit -> mm, float64; the root is not subtracted."""
    scale = frames.factor[ids] * frames.image_size[ids, 0] / 2
    millimetres: Floats = poses.astype(np.float64) * scale[:, None, None]
    return millimetres


def _means(errors: Floats, action: Ints, present: Ints) -> Floats:
    """(M,) errors -> their mean for each action in `present`; nan for one without any."""
    sums = np.bincount(action, errors, minlength=present[-1] + 1)[present]
    counts = np.bincount(action, minlength=present[-1] + 1)[present]
    means: Floats = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return means
