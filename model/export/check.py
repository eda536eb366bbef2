"""Whether a file gives the poses that the model gives."""

from collections.abc import Callable

import numpy as np
import torch

from lib.arrays import Floats
from lib.errors import UserError
from lib.evaluation.predict import predict
from lib.geometry import flip_pose
from lib.skeleton import Skeleton
from model.mdtf import MDTF

TOLERANCE = 1e-4  # the largest difference, in the network's units
CLIPS, CANDIDATES = 3, 8
BONE, SWING = 0.15, 0.6  # of the clips below: length on the screen, radians
PIXEL = 2 / 512  # they lie on a grid, so that some bones are level or upright, as a detector's are


def swinging(skeleton: Skeleton, frames: int, rng: np.random.Generator) -> Floats:
    """(T, J, 3): 2D keypoints of somebody whose limbs swing, in whole pixels, on the normalised
    screen."""
    time = np.linspace(0, 2 * np.pi, frames)
    joints = skeleton.num_joints
    rest, phase = rng.uniform(0, 2 * np.pi, (2, joints))
    speed = rng.uniform(0.5, 3.0, joints)
    angle = rest + SWING * np.sin(speed * time[:, None] + phase)  # (T, J)
    clip = np.zeros((frames, joints, 3))
    for joint in range(joints):
        above = joint
        while above != skeleton.root:  # the bones from the joint to the root
            clip[:, joint, 0] += BONE * np.cos(angle[:, above])
            clip[:, joint, 1] += BONE * np.sin(angle[:, above])
            above = skeleton.parents[above]
    clip[..., :2] = PIXEL * np.round((clip[..., :2] + rng.uniform(-0.2, 0.2, 2)) / PIXEL)
    clip[..., 2] = rng.uniform(0.2, 1.0, clip.shape[:-1])  # the detector's confidence
    return clip.astype(np.float32)


@torch.inference_mode()
def _smallest_lead(model: MDTF, clip: Floats) -> float:
    """By how much the likeliest bin leads, for the bone where it leads least.

    Where two bins are nearly as likely, rounding decides which one is taken."""
    if model.bone_aware is None:
        return 0.0
    pose = torch.from_numpy(clip)[None]
    logits = model.bone_aware(torch.cat((pose, flip_pose(pose, model.skeleton))))
    first, second = logits.topk(2).values.unbind(-1)
    return float((first - second).min())


def reference_poses(model: MDTF, *, flip: bool) -> tuple[Floats, Floats]:
    """Some clips, and PyTorch's poses of them. Raises UserError: they are not finite."""
    rng = np.random.default_rng(0)
    clips = [swinging(model.skeleton, model.n_frames, rng) for _ in range(CANDIDATES)]
    clips.sort(key=lambda clip: -_smallest_lead(model, clip))
    chosen = np.stack(clips[:CLIPS])
    poses = predict(model, chosen, model.skeleton, flip=flip)
    if not np.isfinite(poses).all():
        raise UserError(
            "the network's poses are not finite: its weights are damaged; use another --checkpoint"
        )
    return chosen, poses


def largest_difference(run: Callable[[Floats], Floats], clips: Floats, poses: Floats) -> float:
    """Between these poses and those of a file, for all clips at once and for the first alone.

    run: the file's function."""
    return max(float(np.abs(run(clips[:count]) - poses[:count]).max()) for count in (len(clips), 1))
