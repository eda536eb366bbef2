"""Errors of clips: means over the frames of each action, then over the actions."""

import numpy as np

from lib import metrics
from lib.arrays import Floats, Ints
from lib.evaluation.frames import (
    TestFrames,
    mean_per_action,
    refuse_not_finite,
    to_millimetres,
)
from lib.evaluation.report import Report
from lib.skeleton import Skeleton


def evaluate_clips(
    poses: Floats,
    clips: Ints,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
) -> Report:
    """MPJPE, P-MPJPE, velocity and acceleration errors, root at 0.

    poses: (C, T, J, 3) normalised predictions of the clips; clips: (C, T) frame ids.
    A frame's error is the mean over the clips that contain it, an action's the mean over its
    frames, the reported one the mean over the actions. Raises UserError: a prediction that is not
    finite.
    """
    pred = to_millimetres(poses, clips, frames, skeleton, root_rel=root_rel)
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
