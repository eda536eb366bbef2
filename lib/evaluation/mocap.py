"""The protocol of the motion capture benchmark (docs/benchmark.md): each video frame counts once.

N frames of all test videos together, J joints; C clips of T frames, given by frame ids (C, T).
"""

from dataclasses import dataclass

import numpy as np

from lib import metrics
from lib.arrays import Bools, Floats, Ints
from lib.errors import UserError
from lib.evaluation.frames import TestFrames, mean_of_parts, to_millimetres
from lib.evaluation.report import HEADS, Report
from lib.skeleton import Skeleton

NAME = "mocap"
VERSION = 1  # grows with every change that changes a number

# The interior angles: the joint at the corner and those at the ends; the thorax ends the trunk, the
# others are of the same side of the body as the corner.
ANGLES = {
    "knee": ("hip", "knee", "ankle"),
    "elbow": ("shoulder", "elbow", "wrist"),
    "hip": ("thorax", "hip", "knee"),
}
UNITS = "mm, mm/frame and mm/frame² at the videos' frame rate, degrees"
JOINT = 16  # characters of the first column

Means = dict[str, float]  # by error


@dataclass(frozen=True, kw_only=True)
class MocapReport(Report):
    """Errors in mm, mm/frame, mm/frame² and degrees: plain means over the frames.

    per_subject: subject -> errors, over its frames; test_set: its name and what it was made from;
    left_out: frames of the videos for which nothing was predicted.
    """

    per_subject: dict[str, Means]
    test_set: str
    left_out: int

    def as_dict(self) -> dict[str, object]:
        return {
            "protocol": {"name": NAME, "version": VERSION},
            "test_set": self.test_set,
            **self.averages,
            "per_subject": self.per_subject,
            "per_joint": self.per_joint,
            "frames": self.frames,
            "left_out": self.left_out,
        }

    def details(self) -> dict[str, float]:
        """As a Report's, with subject/<subject>/<error>."""
        return super().details() | {
            f"subject/{subject}/{name}": error
            for subject, errors in self.per_subject.items()
            for name, error in errors.items()
        }

    def table(self) -> str:
        """The errors per joint and per subject as text, those over all frames last."""
        lines = [f"{'joint':<{JOINT}} {'MPJPE':>8}"]
        lines += [f"{name:<{JOINT}} {error:8.2f}" for name, error in self.per_joint.items()]
        width = max([JOINT, *map(len, self.per_subject)])
        heads = [f"{HEADS.get(name, name):>8}" for name in self.averages]
        lines += ["", " ".join([f"{'subject':<{width}}", *heads])]
        for name, errors in {**self.per_subject, "all frames": self.averages}.items():
            cells = (f"{errors[k]:8.2f}" if k in errors else f"{'–':>8}" for k in self.averages)
            lines.append(" ".join([f"{name:<{width}}", *cells]))
        left_out = f", {self.left_out:,} without a prediction left out" if self.left_out else ""
        return "\n".join(
            [
                *lines,
                f"{UNITS}; {self.frames:,} frames{left_out}",
                f"protocol {NAME} {VERSION}, test set {self.test_set}",
            ]
        )


def evaluate_mocap(
    poses: Floats,
    clips: Ints,
    frames: TestFrames,
    skeleton: Skeleton,
    *,
    root_rel: bool = True,
) -> MocapReport:
    """Errors of the videos' frames, whatever clips they were predicted in; plain means over them.

    poses: (C, T, J, 3) normalised predictions of the clips; clips: (C, T) frame ids. A frame's
    pose is the mean of all predictions of it, its root at 0; where the clips hold every n-th frame
    only, see mean_of_parts(). Velocity and acceleration are those between neighbouring frames of a
    video, where all of them have a prediction.
    Raises UserError: a prediction is not finite, or the set does not name its subjects.
    """
    if len(frames.subjects) != len(frames.videos):
        raise UserError(
            f"{frames.test_set or 'the test set'}: does not name its videos' subjects, which the"
            " mocap protocol needs; make it with data/preprocess/mocap_benchmark.py"
        )
    of_clips = to_millimetres(poses, clips, frames, skeleton, root_rel=root_rel)
    wrong = np.flatnonzero(~np.isfinite(of_clips).all((1, 2, 3)))
    if len(wrong) or not len(clips):
        raise UserError(
            f"the prediction is not finite in {len(wrong)} of {len(clips)} test clips; its"
            " training went wrong or its weights are damaged: use an earlier checkpoint"
            if len(clips)
            else f"{frames.test_set}: holds no clips; make it anew"
        )
    pred, seen = mean_of_clips(of_clips, clips, len(frames.video))
    _join_parts(pred, seen, clips, frames)
    target = frames.pose_3d_mm.astype(np.float64)
    target -= target[:, skeleton.root, None]

    pairs = seen[:-1] & seen[1:] & (frames.video[:-1] == frames.video[1:])
    # (errors, the frames they belong to), all of one length; triples of frames have two pairs.
    errors = {
        "mpjpe": (metrics.mpjpe(pred[seen], target[seen]), seen),
        "p_mpjpe": (metrics.p_mpjpe(pred[seen], target[seen]), seen),
        "mpjve": _motion_error(pred, target, pairs, 1),
        "acceleration": _motion_error(pred, target, pairs[:-1] & pairs[1:], 2),
        **{name: (angle_error(pred[seen], target[seen], skeleton, name), seen) for name in ANGLES},
    }
    subjects = list(dict.fromkeys(frames.subjects))
    number = np.array([subjects.index(subject) for subject in frames.subjects])[frames.video]
    per_subject = {
        subject: _means({n: (e[number[of] == k]) for n, (e, of) in errors.items()})
        for k, subject in enumerate(subjects)
    }
    joints = metrics.joint_errors(pred[seen], target[seen]).mean(0)
    return MocapReport(
        averages=_means({name: error for name, (error, _) in errors.items()}),
        per_action={},
        per_joint=dict(zip(skeleton.names, joints.tolist(), strict=True)),
        frames=int(seen.sum()),
        per_subject={subject: means for subject, means in per_subject.items() if means},
        test_set=frames.test_set,
        left_out=int((~seen).sum()),
    )


def _join_parts(pred: Floats, seen: Bools, clips: Ints, frames: TestFrames) -> None:
    """In place, video by video: the mean_of_parts() where clips of every n-th frame show all."""
    steps = np.diff(clips, axis=1).max(1, initial=1)
    of_clip = frames.video[clips[:, 0]]
    for number in np.unique(of_clip[steps > 1]):
        own = frames.video == number
        if seen[own].all():
            pred[own] = mean_of_parts(pred[own], int(steps[of_clip == number].max()))


def mean_of_clips(of_clips: Floats, clips: Ints, count: int) -> tuple[Floats, Bools]:
    """The mean prediction (count, J, 3) of each frame, and (count,) whether it has one.

    of_clips: (C, T, J, 3); clips: (C, T) frame ids below `count`.
    """
    ids = clips.ravel()
    total = np.zeros((count, *of_clips.shape[2:]))
    np.add.at(total, ids, of_clips.reshape(len(ids), *of_clips.shape[2:]))
    number = np.bincount(ids, minlength=count)
    mean: Floats = total / np.maximum(number, 1)[:, None, None]
    return mean, number > 0


def angle_error(pred: Floats, target: Floats, skeleton: Skeleton, name: str) -> Floats:
    """Error of an angle of ANGLES, mean of both sides; (..., J, 3) -> (...) degrees."""
    sides = []
    for side in ("left", "right"):
        joints = [
            skeleton.index(joint if joint == "thorax" else f"{side}_{joint}")
            for joint in ANGLES[name]
        ]
        sides.append(np.abs(metrics.angle(pred, *joints) - metrics.angle(target, *joints)))
    mean: Floats = np.mean(sides, axis=0)
    return mean


def _motion_error(pred: Floats, target: Floats, used: Bools, order: int) -> tuple[Floats, Ints]:
    """Mean joint error of the differences of an order, and the frames where they begin."""
    begin = np.flatnonzero(used)
    error = np.diff(pred, order, axis=0)[begin] - np.diff(target, order, axis=0)[begin]
    return metrics.mpjpe(error, np.zeros_like(error)), begin


def _means(errors: dict[str, Floats]) -> Means:
    """Of each error that there is a value of."""
    return {name: float(values.mean()) for name, values in errors.items() if len(values)}
