"""The whole method as one module: frozen stage 1, bone features, stage 2."""

import math

import torch
from torch import Tensor, nn

from lib.geometry import bone_features
from lib.skeleton import Skeleton
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter


class MDTF(nn.Module):
    """2D keypoints of a clip in, 3D poses out; used by training, evaluation and demo alike.

    The Bone Aware Module is frozen and always in eval mode. With bone_drop_path its DropPath stays
    on in training and evaluation, as in the released code, which makes the results noisy.
    Without a bone branch there is no Bone Aware Module (None).
    """

    def __init__(
        self,
        bone_aware: BoneAwareModule | None,
        lifter: Lifter,
        skeleton: Skeleton,
        bone_slots: str = "released",
        bone_drop_path: bool = False,
    ) -> None:
        super().__init__()
        if (bone_aware is None) != (lifter.bone_branch is None):
            raise ValueError("a bone branch needs a Bone Aware Module, and the other way round")
        self.bone_aware = bone_aware
        self.lifter = lifter
        self.skeleton = skeleton
        self.bone_slots = bone_slots
        self.bone_drop_path = bone_drop_path
        if bone_aware is not None:
            bone_aware.requires_grad_(False).train(bone_drop_path)

    @property
    def n_frames(self) -> int:
        return self.lifter.n_frames

    def train(self, mode: bool = True) -> "MDTF":
        super().train(mode)
        if self.bone_aware is not None:
            self.bone_aware.train(self.bone_drop_path)
        return self

    @torch.no_grad()
    def bone_features(self, pose_2d: Tensor) -> Tensor:
        """(B, T, J, 3) -> (B, T, J, 3): azimuth/π, polar/π and length of each bone.

        Where stage 1 gives NaN or infinity, the whole frame is NaN: argmax would return a bin.
        """
        if self.bone_aware is None:
            raise ValueError("without a bone branch there are no bone features")
        logits = self.bone_aware(pose_2d)
        features = bone_features(pose_2d, logits.argmax(-1), self.skeleton, self.bone_slots)
        finite = logits.isfinite().all(-1).all(-1)[..., None, None]  # (B, T, 1, 1)
        return torch.where(finite, features, math.nan)

    def forward(self, pose_2d: Tensor) -> Tensor:
        """(B, T, J, 3): x, y, confidence -> (B, T, J, 3) in normalised units."""
        features = None if self.bone_aware is None else self.bone_features(pose_2d)
        pose: Tensor = self.lifter(pose_2d, features)
        return pose
