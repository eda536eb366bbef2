"""Stage 2: bone-joint fusion embedding and spatiotemporal refinement."""

import torch
from torch import Tensor, nn

from lib.batch import SharedFrames, frame_by_frame
from lib.skeleton import Skeleton
from model.blocks import MambaBlock, over_frames, over_joints
from model.bone_aware import drop_path_rates
from model.layers import LN_EPS


class BoneBranch(nn.Module):
    """Embeds the bones' spherical coordinates; (B, T, J, features) -> (B, T, J, C)."""

    def __init__(self, channel: int, d_state: int, d_conv: int, features: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(features, channel)
        self.spatial = MambaBlock(channel, d_state, d_conv)
        self.spatial_norm = nn.LayerNorm(channel, eps=LN_EPS)
        self.temporal = MambaBlock(channel, d_state, d_conv)
        self.temporal_norm = nn.LayerNorm(channel, eps=LN_EPS)

    def forward(self, features: Tensor) -> Tensor:
        x = self.embed(features)
        x = over_joints(self.spatial, x, self.spatial_norm)
        return over_frames(self.temporal, x, self.temporal_norm)


class Fusion(nn.Module):
    """A weighted sum of joint and bone features; the weights, a softmax, are computed from both."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.score = nn.Linear(2 * channel, 2)
        nn.init.zeros_(self.score.weight)
        nn.init.constant_(self.score.bias, 0.5)

    def forward(self, joints: Tensor, bones: Tensor) -> Tensor:
        weights: Tensor = self.score(torch.cat((joints, bones), dim=-1)).softmax(dim=-1)
        return weights[..., :1] * joints + weights[..., 1:] * bones


class MeanFusion(nn.Module):
    """Ablation: half joints, half bones, nothing learnt."""

    def forward(self, joints: Tensor, bones: Tensor) -> Tensor:
        return (joints + bones) / 2


class Lifter(nn.Module):
    """Lifts 2D joints and bone features to 3D (paper, section 3).

    Block 0 and the positional embeddings make the joint branch; it is fused with the bone branch;
    blocks 1 .. depth-1 refine. The two LayerNorms after spatial and temporal blocks are shared by
    all depths.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        n_frames: int,
        channel: int = 64,
        depth: int = 8,
        d_state: int = 16,
        d_conv: int = 4,
        bone_branch: bool = True,
        graph: str = "both",
        fusion: str = "learned",
        bone_features: int = 3,
    ) -> None:
        """graph: "both" | "forward" | "none"; fusion: "learned" | "mean";
        bone_features: how many of each bone."""
        super().__init__()
        adjacency = None if graph == "none" else torch.from_numpy(skeleton.adjacency()).float()
        rates = drop_path_rates(depth)
        self.embed = nn.Linear(3, channel)
        self.spatial_position = nn.Parameter(torch.zeros(1, skeleton.num_joints, channel))
        self.temporal_position = nn.Parameter(torch.zeros(1, n_frames, channel))
        self.spatial = nn.ModuleList(
            MambaBlock(channel, d_state, d_conv, rate, adjacency, backward_graph=graph == "both")
            for rate in rates
        )
        self.temporal = nn.ModuleList(MambaBlock(channel, d_state, d_conv, rate) for rate in rates)
        self.spatial_norm = nn.LayerNorm(channel, eps=LN_EPS)
        self.temporal_norm = nn.LayerNorm(channel, eps=LN_EPS)
        self.bone_branch = (
            BoneBranch(channel, d_state, d_conv, bone_features) if bone_branch else None
        )
        self.fusion: nn.Module | None = None
        if bone_branch:
            self.fusion = Fusion(channel) if fusion == "learned" else MeanFusion()
        self.head = nn.Sequential(nn.LayerNorm(channel), nn.Linear(channel, 3))

    @property
    def n_frames(self) -> int:
        return self.temporal_position.shape[1]

    def forward(
        self, pose_2d: Tensor, features: Tensor | None, shared: SharedFrames | None = None
    ) -> Tensor:
        """pose_2d (B, T, J, 3), bone features (B, T, J, 3 or as many as
        there are; ignored without the bone branch)
        -> pose_3d (B, T, J, 3) in normalised units. shared: which frames are the same."""
        x = frame_by_frame(self._of_frames, pose_2d, shared) + self.temporal_position[:, :, None]
        x = over_frames(self.temporal[0], x, self.temporal_norm)
        if self.bone_branch is not None and self.fusion is not None:
            x = self.fusion(x, self.bone_branch(features))
        for spatial, temporal in zip(self.spatial[1:], self.temporal[1:], strict=True):
            x = over_joints(spatial, x, self.spatial_norm)
            x = over_frames(temporal, x, self.temporal_norm)
        pose: Tensor = self.head(x)
        return pose

    def _of_frames(self, pose_2d: Tensor) -> Tensor:
        """The joint branch before its frames meet; (B, T, J, 3) -> (B, T, J, C)."""
        x = self.embed(pose_2d) + self.spatial_position
        return over_joints(self.spatial[0], x, self.spatial_norm)
