"""HRNet: a network that keeps its resolution and exchanges with coarser branches.

Source: Sun et al. 2019, "Deep High-Resolution Representation Learning for Human Pose Estimation".
Parameter names and shapes are those of the published weights (pose_hrnet_w48_384x288.pth).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

MODULES = (1, 4, 3)  # exchange modules in stages 2, 3 and 4
BLOCKS = 4  # residual blocks of a branch, and of the first stage
STEM = 64
BOTTLENECK_EXPANSION = 4


def _conv_norm(
    into: int, out: int, kernel: int, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, kernel, stride, padding=kernel // 2, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(hidden)))


class Bottleneck(nn.Module):
    def __init__(self, into: int, channels: int) -> None:
        super().__init__()
        out = channels * BOTTLENECK_EXPANSION
        self.conv1 = nn.Conv2d(into, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = nn.Identity() if into == out else _conv_norm(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(self.downsample(x) + self.bn3(self.conv3(hidden)))


class Exchange(nn.Module):
    """Branches of falling resolution, each then the sum of all, brought to its resolution."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        """channels: of each branch, finest first; outputs: how many branches are fused."""
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(BLOCKS))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(channels, source, target) for source in range(len(channels)))
            for target in range(outputs)
        )

    @staticmethod
    def _path(channels: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:  # coarser: fewer channels first, then larger
            return nn.Sequential(
                *_conv_norm(channels[source], channels[target], 1),
                nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"),
            )
        width = channels[source]
        halvings = [_conv_norm(width, width, 3, 2, relu=True) for _ in range(target - source - 1)]
        return nn.Sequential(*halvings, _conv_norm(width, channels[target], 3, 2))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        fused = []
        for paths in self.fuse_layers:
            assert isinstance(paths, nn.ModuleList)
            parts = [path(x) for path, x in zip(paths, xs, strict=True)]
            fused.append(F.relu(sum(parts[1:], parts[0])))
        return fused


class HRNet(nn.Module):
    """(B, 3, H, W) RGB, normalised as on ImageNet -> heatmaps (B, 17, H/4, W/4)."""

    def __init__(self, width: int = 48) -> None:
        """width: channels of the finest branch; the published network has 48."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.conv2 = nn.Conv2d(STEM, STEM, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM)
        wide = STEM * BOTTLENECK_EXPANSION
        self.layer1 = nn.Sequential(
            *(Bottleneck(wide if block else STEM, STEM) for block in range(BLOCKS))
        )
        channels = [width * 2**branch for branch in range(4)]
        self.transition1 = nn.ModuleList(
            (
                _conv_norm(wide, channels[0], 3, relu=True),
                nn.Sequential(_conv_norm(wide, channels[1], 3, 2, relu=True)),
            )
        )
        self.stage2 = self._stage(channels[:2], MODULES[0])
        self.transition2 = self._new_branch(channels[:3])
        self.stage3 = self._stage(channels[:3], MODULES[1])
        self.transition3 = self._new_branch(channels[:4])
        self.stage4 = self._stage(channels, MODULES[2], last_outputs=1)
        self.final_layer = nn.Conv2d(width, 17, 1)

    @staticmethod
    def _stage(
        channels: Sequence[int], modules: int, last_outputs: int | None = None
    ) -> nn.Sequential:
        outputs = [len(channels)] * (modules - 1) + [last_outputs or len(channels)]
        return nn.Sequential(*(Exchange(channels, fused) for fused in outputs))

    @staticmethod
    def _new_branch(channels: Sequence[int]) -> nn.ModuleList:
        """Keeps the branches there are and makes one more from the coarsest."""
        grown = nn.Sequential(_conv_norm(channels[-2], channels[-1], 3, 2, relu=True))
        return nn.ModuleList((*(nn.Identity() for _ in channels[:-1]), grown))

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        xs = self.stage2([transition(x) for transition in self.transition1])
        for transitions, stage in (
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            sources = [*xs, xs[-1]]
            xs = stage([step(x) for step, x in zip(transitions, sources, strict=True)])
        return self.final_layer(xs[0])
