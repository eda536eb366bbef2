"""The bidirectional Mamba mixer; with graph convolutions it is the paper's GEM mixer."""

import math

import torch
from torch import Tensor, nn

from model.graph import GraphInput
from model.ops import DirectionWeights, bidirectional_inner
from model.plain import check_read_only, is_plain

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class ScanDirection(nn.Module):
    """The weights of one scan direction: causal conv, input-dependent dt, B and C, A and D.

    Source: Gu & Dao 2023 (Mamba), algorithm 2 with the S4D-real initialisation.
    """

    def __init__(self, dim: int, d_state: int, d_conv: int) -> None:
        super().__init__()
        dt_rank = math.ceil(dim / 16)
        self.conv1d = nn.Conv1d(dim, dim, d_conv, groups=dim, padding=d_conv - 1)
        self.x_proj = nn.Linear(dim, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, dim)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(dim, 1))
        self.D = nn.Parameter(torch.ones(dim))

        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)

    @torch.no_grad()
    def draw_mamba_dt(self) -> None:
        """Draw the bias of dt_proj as Mamba does: dt = softplus(bias) is log-uniform.

        Without this call, the bias keeps the initial values of a Linear.
        """
        bias = self.dt_proj.bias
        log_dt = torch.empty_like(bias).uniform_(math.log(DT_MIN), math.log(DT_MAX))
        dt = log_dt.exp().clamp(min=DT_FLOOR)
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def weights(self) -> DirectionWeights:
        """Raises ValueError where a hook or another module would be ignored (model/plain.py)."""
        conv, x_proj, dt_proj = self.conv1d, self.x_proj, self.dt_proj
        check_read_only(self, ScanDirection, "a scan direction")
        check_read_only(conv, nn.Conv1d, "conv1d")
        check_read_only(x_proj, nn.Linear, "x_proj", bias=False)
        check_read_only(dt_proj, nn.Linear, "dt_proj")
        assert conv.bias is not None  # for the type
        return DirectionWeights(
            conv_weight=conv.weight,
            conv_bias=conv.bias,
            x_proj=x_proj.weight,
            dt_proj=dt_proj.weight,
            dt_bias=dt_proj.bias,
            A_log=self.A_log,
            D=self.D,
        )


class BiMamba(nn.Module):
    """Bidirectional Mamba-1 mixer with expansion 1; (..., L, C) -> (..., L, C).

    With an adjacency, the sequence is the joints of a frame and each direction first sees its
    neighbours through a graph convolution: the GCN-enhanced Mamba (GEM).
    Sources: Zhu et al. 2024 (Vision Mamba) for the two directions; the MDTF paper for GEM.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        adjacency: Tensor | None = None,
        backward_graph: bool = True,
    ) -> None:
        """adjacency: (J, J), None for no graph convolution; backward_graph: whether the backward
        direction has one too (False is an ablation)."""
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.forward_scan = ScanDirection(dim, d_state, d_conv)
        self.backward_scan = ScanDirection(dim, d_state, d_conv)
        self.forward_scan.draw_mamba_dt()  # the forward direction only, as released
        self.forward_graph: GraphInput | None = None
        self.backward_graph: GraphInput | None = None
        if adjacency is not None:
            self.forward_graph = GraphInput(dim, adjacency)
            if backward_graph:
                self.backward_graph = GraphInput(dim, adjacency)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.sums = False  # see sum_directions()

    def out_weight(self) -> Tensor:
        """(C, C), to be used with the mean of both directions: doubled where they are added."""
        return 2 * self.out_proj.weight if self.sums else self.out_proj.weight

    def forward(self, x: Tensor, axis: int = -2) -> Tensor:
        """axis: the one that is scanned. The order of x in memory stays the same for any axis."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x_forward = x if self.forward_graph is None else self.forward_graph(x)
        x_backward = x if self.backward_graph is None else self.backward_graph(x)
        y = bidirectional_inner(
            x_forward,
            x_backward,
            z,
            self.forward_scan.weights(),
            self.backward_scan.weights(),
            axis=axis,
        )
        output: Tensor = self.out_proj(y)
        return 2 * output if self.sums else output

    @property
    def graphs(self) -> tuple[GraphInput | None, GraphInput | None]:
        """The graph convolutions of the forward and of the backward direction."""
        return self.forward_graph, self.backward_graph

    @property
    def is_plain(self) -> bool:
        """Whether the mixer's weights alone decide what it computes."""
        return (
            is_plain(self.in_proj, nn.Linear, bias=False)
            and is_plain(self.out_proj, nn.Linear, bias=False)
            and all(graph is None or graph.is_plain for graph in self.graphs)
        )


def draw_backward_dt(model: nn.Module) -> None:
    """Start the backward directions of a new model with Mamba's dt too; the released code does not.

    Released: softplus(bias) starts between 0.47 and 0.97 in the backward direction (for dim 64),
    between 0.001 and 0.1 in the forward one.
    """
    for module in model.modules():
        if isinstance(module, BiMamba):
            module.backward_scan.draw_mamba_dt()


def sum_directions(model: nn.Module, sums: bool = True) -> None:
    """Add the two directions of every mixer instead of averaging them (`if_divide_out: false`)."""
    for module in model.modules():
        if isinstance(module, BiMamba):
            module.sums = sums
