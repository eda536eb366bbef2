"""Human3.6M's protocol on 2.5D ground truth: errors of frames, means over actions."""

import numpy as np

from lib import metrics
from lib.arrays import Bools, Floats, Ints
from lib.errors import UserError
from lib.evaluation.frames import (
    TestFrames,
    mean_per_action,
    refuse_not_finite,
    to_millimetres,
)
from lib.evaluation.report import Report
from lib.skeleton import Skeleton

# Left out by everyone since Martinez et al. 2017: their ground truth is wrong.
EXCLUDED_SOURCES = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")


def evaluated_clips(frames: TestFrames, clips: Ints) -> Bools:
    """(C,) bool: which clips of frame ids (C, T) count, all but those of the excluded videos."""
    excluded = np.array([name.startswith(EXCLUDED_SOURCES) for name in frames.videos], dtype=bool)
    kept: Bools = ~excluded[frames.video[clips[:, 0]]]
    return kept


def evaluate_h36m(
    poses: Floats,
    clips: Ints,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
) -> Report:
    """Human3.6M's protocol 1 and 2 (and velocity and acceleration errors alike).

    poses: (C, T, J, 3) normalised predictions of the clips; clips: (C, T) frame ids.
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
    pred = to_millimetres(poses[kept], clips, frames, skeleton, root_rel=root_rel)
    refuse_not_finite(pred)
    target = frames.pose_3d_mm[clips].astype(np.float64)
    target -= target[..., skeleton.root, None, :]

    errors = {
        "mpjpe": metrics.mpjpe(pred, target),
        "p_mpjpe": metrics.p_mpjpe(pred, target),
        "mpjve": metrics.mpjve(pred, target),
        "acceleration": metrics.acceleration_error(pred, target),
    }
    by_action = {name: mean_per_action(error, clips, frames) for name, error in errors.items()}
    joint_errors = metrics.joint_errors(pred, target)
    by_joint = [
        mean_per_action(joint_errors[..., joint], clips, frames)
        for joint in range(skeleton.num_joints)
    ]
    present = np.unique(frames.action[clips])
    names = [frames.actions[index] for index in present]
    return Report(
        averages={name: float(np.mean(values[present])) for name, values in by_action.items()},
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
