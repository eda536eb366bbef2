"""The whole method as one module: frozen stage 1, bone features, stage 2."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.batch import SharedFrames
from lib.camera import H36M_FPS
from lib.geometry import (
    bin_centres,
    expected_polar,
    person_scaled,
    person_unit,
    root_relative,
    spherical_features,
)
from lib.skeleton import Skeleton
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter


class MDTF(nn.Module):
    """2D keypoints of a clip in, 3D poses out; used by training, evaluation and demo alike.

    The Bone Aware Module is frozen and always in eval mode, unless it is trained along. With
    bone_drop_path its DropPath stays on in training and evaluation, as in the released code, which
    makes the results noisy. Without a bone branch there is no Bone Aware Module (None).
    """

    def __init__(
        self,
        bone_aware: BoneAwareModule | None,
        lifter: Lifter,
        skeleton: Skeleton,
        bone_slots: str = "released",
        bone_drop_path: bool = False,
        *,
        input_form: str = "screen",
        output_form: str = "absolute",
        root_rel: bool = True,
        bone_angle: str = "argmax",
        bone_confidence: bool = False,
        train_bone_aware: bool = False,
        frame_rate: float = H36M_FPS,
    ) -> None:
        """input_form: "screen" | "person", of the lifter; stage 1 has its own.
        output_form: "absolute" | "residual", which adds the 2D pose to x and y of the lifter's.
        root_rel: whether the poses are relative to the root of each frame.
        bone_angle: "argmax", the middle of stage 1's bin, or "expectation", the mean of all.
        bone_confidence: whether the probability of stage 1's bin is a fourth feature of a bone.
        frame_rate: of the clips it is trained on, frames a second; computes nothing.
        """
        super().__init__()
        if (bone_aware is None) != (lifter.bone_branch is None):
            raise ValueError("a bone branch needs a Bone Aware Module, and the other way round")
        self.bone_aware = bone_aware
        self.lifter = lifter
        self.skeleton = skeleton
        self.bone_slots = bone_slots
        self.bone_drop_path = bone_drop_path
        self.input_form, self.output_form, self.root_rel = input_form, output_form, root_rel
        self.bone_angle, self.bone_confidence = bone_angle, bone_confidence
        self.train_bone_aware, self.frame_rate = train_bone_aware, frame_rate
        if bone_aware is not None:
            bone_aware.requires_grad_(train_bone_aware).train(bone_drop_path or train_bone_aware)

    @property
    def n_frames(self) -> int:
        return self.lifter.n_frames

    def train(self, mode: bool = True) -> "MDTF":
        super().train(mode)
        if self.bone_aware is not None:
            self.bone_aware.train(self.bone_drop_path or (mode and self.train_bone_aware))
        return self

    @property
    def shares_frames(self) -> bool:
        """Whether forward() may be told which frames are the same: not if a frame's input depends
        on its whole clip, or if stage 1 is noisy."""
        is_noisy = self.training or self.bone_drop_path
        of_stage_1 = self.bone_aware.input_form if self.bone_aware else "screen"
        return not is_noisy and self.input_form == of_stage_1 == "screen"

    def bone_features(self, pose_2d: Tensor) -> Tensor:
        """(B, T, J, 3) -> (B, T, J, 3): azimuth/π, polar/π and length of each bone.

        With person-scaled input, the length is in the person's own unit. With bone_confidence,
        there is a fourth feature.
        Where stage 1 gives NaN or infinity, the whole frame is NaN: argmax would return a bin.
        """
        return self._judged(pose_2d)[0]

    def _judged(self, pose_2d: Tensor, shared: SharedFrames | None = None) -> tuple[Tensor, Tensor]:
        """The bones' features and stage 1's logits; without gradients unless it is trained."""
        if self.bone_aware is None:
            raise ValueError("without a bone branch there are no bone features")
        with torch.set_grad_enabled(self.train_bone_aware and torch.is_grad_enabled()):
            logits: Tensor = self.bone_aware(pose_2d, **_known_to(shared))
            return self._features(pose_2d, logits), logits

    def _features(self, pose_2d: Tensor, logits: Tensor) -> Tensor:
        if self.input_form == "person":
            pose_2d = pose_2d / person_unit(pose_2d, self.skeleton.root)  # of which x, y are read
        probabilities = logits.softmax(-1, dtype=pose_2d.dtype)
        if self.bone_angle == "expectation":
            polar = expected_polar(probabilities)
        else:
            polar = bin_centres(logits.argmax(-1), logits.shape[-1], pose_2d.dtype)
        confidence = probabilities.amax(-1) if self.bone_confidence else None
        features = spherical_features(pose_2d, polar, self.skeleton, self.bone_slots, confidence)
        finite = logits.isfinite().all(-1).all(-1)[..., None, None]  # (B, T, 1, 1)
        return torch.where(finite, features, math.nan)

    def forward(
        self, pose_2d: Tensor, with_logits: bool = False, shared: SharedFrames | None = None
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """(B, T, J, 3): x, y, confidence -> (B, T, J, 3) in normalised units.

        with_logits: stage 1's (B, T, J, bins) too; shared: which frames are the same, if
        `shares_frames`.
        """
        features, logits = None, None
        if self.bone_aware is not None:
            features, logits = self._judged(pose_2d, shared)
        if self.input_form == "person":
            unit = person_unit(pose_2d, self.skeleton.root)
            seen = person_scaled(pose_2d, self.skeleton.root, unit)
            pose: Tensor = self.lifter(seen, features) * unit
        else:
            pose = self.lifter(pose_2d, features, **_known_to(shared))
        known = self._known(pose_2d[..., :2])
        pose = pose if known is None else pose + F.pad(known, (0, 1))
        return (pose, logits) if with_logits else pose

    def _known(self, xy: Tensor) -> Tensor | None:
        """x and y that the lifter need not tell, (B, T, J or 1, 2); xy: (B, T, J, 2)."""
        root = self.skeleton.root
        if self.output_form == "residual":
            return root_relative(xy, root) if self.root_rel else xy
        if self.input_form == "person" and not self.root_rel:
            return xy[..., root : root + 1, :]
        return None


def _known_to(shared: SharedFrames | None) -> dict[str, SharedFrames]:
    """An argument for a stage, which may have been replaced by one that does not know it."""
    return {} if shared is None else {"shared": shared}
