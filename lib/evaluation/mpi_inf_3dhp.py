"""MPI-INF-3DHP's protocol: scores of valid frames, pooled over all sequences.

Source: Mehta et al. 2017, in the form of MotionAGFormer's trainer: joints relative to the pelvis,
whose prediction is 0 by definition. N frames of all test sequences, J = 17 joints; C clips.
"""

import numpy as np

from lib import metrics
from lib.arrays import Bools, Floats, Ints
from lib.errors import UserError
from lib.evaluation.frames import TestFrames, blend_weights, refuse_not_finite, to_millimetres
from lib.evaluation.report import Report, Scores
from lib.skeleton import Skeleton

# PCK and AUC are over the first of these joints: not over pelvis, spine and head.
PCK_JOINTS = 14
PCK_MM = 150.0


def evaluate_mpi_inf_3dhp(
    poses: Floats,
    clips: Ints,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
) -> Report:
    """MPJPE over all 17 joints, P-MPJPE, N-MPJPE, PCK@150 and AUC over 14 joints, MPJVE.

    poses: (C, K, J, 3) normalised predictions; clips: (C, K) frame ids. Where several clips hold a
    frame, its pose is their mean with blend_weights(K). Each valid frame that has a prediction is
    scored once, and scores are means over the frames: of everything, of a sequence, of an activity.
    MPJVE is over the steps from each scored frame of a sequence to its next one, and a step belongs
    to the activity of the first of the two. Raises UserError: a prediction that is not finite.
    """
    refuse_not_finite(poses)
    pred, seen = blended(
        to_millimetres(poses, clips, frames, skeleton, root_rel=root_rel), clips, len(frames.video)
    )
    scored: Ints = np.flatnonzero(seen & frames.is_valid)
    if not len(scored):
        raise UserError("none of the test frames is valid, so there is nothing to score")
    pred, target = pred[scored], frames.pose_3d_mm[scored].astype(np.float64)
    target -= target[:, skeleton.root, None]
    first = slice(0, PCK_JOINTS)
    of_frames = {
        "mpjpe": metrics.mpjpe(pred, target),
        "p_mpjpe": metrics.p_mpjpe(pred, target),
        "n_mpjpe": metrics.n_mpjpe(pred, target),
        "pck": metrics.pck(pred[:, first], target[:, first], PCK_MM),
        "auc": metrics.auc(pred[:, first], target[:, first]),
    }
    video, action = frames.video[scored], frames.action[scored]
    step = np.flatnonzero(video[1:] == video[:-1])
    of_steps = metrics.mpjve(pred, target)[step]

    def means(chosen: Bools) -> Scores:
        scores = {name: float(values[chosen].mean()) for name, values in of_frames.items()}
        begun = chosen[step]
        return scores | ({"mpjve": float(of_steps[begun].mean())} if begun.any() else {})

    joints = metrics.joint_errors(pred, target).mean(0)
    return Report(
        averages=means(np.ones(len(scored), dtype=bool)),
        per_action={
            frames.actions[number]: means(action == number)
            for number in np.unique(action)
            if frames.actions[number]  # the .npz files name no activity
        },
        per_joint=dict(zip(skeleton.names, joints.tolist(), strict=True)),
        frames=len(scored),
        per_sequence={frames.videos[n]: means(video == n) for n in np.unique(video)},
        predictions={frames.videos[n]: pred[video == n] for n in np.unique(video)},
    )


def blended(poses: Floats, clips: Ints, count: int) -> tuple[Floats, Bools]:
    """The mean pose (count, J, 3) of each frame, and (count,) whether it has one.

    poses: (C, K, J, 3); clips: (C, K) frame ids below `count`. Weights are those of positions in
    the clip; the repeated last frame of a video that is shorter than a clip counts once.
    """
    weights = np.broadcast_to(blend_weights(clips.shape[1]), clips.shape).copy()
    weights[:, 1:][clips[:, 1:] == clips[:, :-1]] = 0
    total = np.zeros((count, *poses.shape[2:]))
    np.add.at(total, clips, weights[..., None, None] * poses)
    weight = np.bincount(clips.ravel(), weights.ravel(), minlength=count)
    seen: Bools = weight > 0
    total[seen] /= weight[seen, None, None]
    return total, seen
