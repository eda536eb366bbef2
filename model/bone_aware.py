"""Stage 1: the Bone Aware Module classifies each bone's polar angle."""

import torch
from torch import Tensor, nn

from lib.batch import SharedFrames, frame_by_frame
from lib.geometry import NUM_BINS, person_scaled
from model.blocks import MambaBlock, over_frames, over_joints
from model.layers import LN_EPS

MAX_DROP_PATH = 0.1  # the deepest block's rate; the first block's is 0


def drop_path_rates(depth: int) -> list[float]:
    return torch.linspace(0, MAX_DROP_PATH, depth).tolist()


class BoneAwareModule(nn.Module):
    """Predicts in which of six 30° bins each bone's angle to the camera axis is (paper, section 3).

    Level i has C / 2^i channels: a spatial block over the joints of a frame, a temporal block over
    the frames of a joint, then a Linear to the next level, the last one to the bins.
    """

    def __init__(
        self,
        channel: int = 64,
        depth: int = 4,
        d_state: int = 16,
        d_conv: int = 4,
        input_form: str = "screen",
        root: int = 0,
        num_bins: int = NUM_BINS,
    ) -> None:
        """channel must be divisible by 2^(depth - 1); num_bins: in place of the six.

        input_form: "screen" | "person", see lib.geometry.person_scaled(); root: the root joint.
        """
        super().__init__()
        self.input_form, self.root, self.num_bins = input_form, root, num_bins
        widths = [channel // 2**i for i in range(depth)]
        rates = drop_path_rates(depth)
        self.embed = nn.Linear(3, channel)
        self.spatial = nn.ModuleList(
            MambaBlock(w, d_state, d_conv, rate) for w, rate in zip(widths, rates, strict=True)
        )
        self.temporal = nn.ModuleList(
            MambaBlock(w, d_state, d_conv, rate) for w, rate in zip(widths, rates, strict=True)
        )
        self.spatial_norm = nn.ModuleList(nn.LayerNorm(w, eps=LN_EPS) for w in widths)
        self.temporal_norm = nn.ModuleList(nn.LayerNorm(w, eps=LN_EPS) for w in widths)
        self.narrow = nn.ModuleList(
            nn.Linear(w, out) for w, out in zip(widths, [*widths[1:], num_bins], strict=True)
        )

    def forms(self) -> dict[str, object]:
        """What the weights do not tell; a checkpoint of stage 2 keeps it beside them."""
        return {"input": self.input_form}

    def forward(self, pose_2d: Tensor, shared: SharedFrames | None = None) -> Tensor:
        """(B, T, J, 3): x, y, confidence -> logits (B, T, J, bins); a bone is at its child.

        shared: which frames are the same, for input_form "screen".
        """
        if self.input_form == "person":
            pose_2d = person_scaled(pose_2d, self.root)
        x = frame_by_frame(self._of_frames, pose_2d, shared)
        for level, narrow in enumerate(self.narrow):
            if level:
                x = over_joints(self.spatial[level], x, self.spatial_norm[level])
            x = narrow(over_frames(self.temporal[level], x, self.temporal_norm[level]))
        return x

    def _of_frames(self, pose_2d: Tensor) -> Tensor:
        """What is computed before the frames meet; (B, T, J, 3) -> (B, T, J, C)."""
        return over_joints(self.spatial[0], self.embed(pose_2d), self.spatial_norm[0])
