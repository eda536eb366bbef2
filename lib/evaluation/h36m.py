"""Human3.6M's protocol on 2.5D ground truth: errors of frames, means over actions."""

import numpy as np

from lib.arrays import Bools, Floats, Ints
from lib.errors import UserError
from lib.evaluation.clips import evaluate_clips
from lib.evaluation.frames import TestFrames
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
    """Human3.6M's protocol 1 and 2 (and velocity and acceleration errors alike): `evaluate_clips`
    without those of the excluded videos. Raises UserError if nothing can be scored.
    """
    kept = evaluated_clips(frames, clips)
    if not kept.any():
        raise UserError(
            f"all {len(clips)} test clips belong to the videos that the protocol leaves out"
            f" ({', '.join(EXCLUDED_SOURCES)}); add other ones"
        )
    return evaluate_clips(poses[kept], clips[kept], frames, skeleton, root_rel=root_rel)
