"""The weights of a residual block: names, order and sizes, said here and nowhere else.

The kernels' C structures, the operators' arguments, the checks of sizes and the tests derive from
these classes. Sizes: C channels, N states, R rank of dt, K taps, H hidden channels, J joints.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple, TypeVar, cast, get_args, get_type_hints

from torch import Tensor

FIXED = "fixed"  # marks a tensor that has no gradient


class DirectionWeights(NamedTuple):
    """One direction of a bidirectional Mamba mixer."""

    conv_weight: Annotated[Tensor, "C 1 K"]
    conv_bias: Annotated[Tensor, "C"]
    x_proj: Annotated[Tensor, "R+2N C"]  # rows give dt, B and C, in this order
    dt_proj: Annotated[Tensor, "C R"]
    dt_bias: Annotated[Tensor, "C"]
    A_log: Annotated[Tensor, "C N"]  # A = -exp(A_log)
    D: Annotated[Tensor, "C"]


class GraphWeights(NamedTuple):
    """LayerNorm, graph convolution and BatchNorm that a direction reads through."""

    norm_weight: Annotated[Tensor, "C"]
    norm_bias: Annotated[Tensor, "C"]
    own: Annotated[Tensor, "C C"]  # U
    own_bias: Annotated[Tensor, "C"]
    neighbours: Annotated[Tensor, "C C"]  # V
    neighbours_bias: Annotated[Tensor, "C"]
    bn_weight: Annotated[Tensor, "J"]
    bn_bias: Annotated[Tensor, "J"]
    bn_mean: Annotated[Tensor, "J", FIXED]  # running statistics
    bn_var: Annotated[Tensor, "J", FIXED]


class BlockWeights(NamedTuple):
    """A residual block, and the LayerNorm that follows it, if one does."""

    norm1_weight: Annotated[Tensor, "C"]
    norm1_bias: Annotated[Tensor, "C"]
    in_proj: Annotated[Tensor, "2C C"]  # rows give x and z
    out_proj: Annotated[Tensor, "C C"]
    norm2_weight: Annotated[Tensor, "C"]
    norm2_bias: Annotated[Tensor, "C"]
    fc1: Annotated[Tensor, "H C"]
    fc1_bias: Annotated[Tensor, "H"]
    fc2: Annotated[Tensor, "C H"]
    fc2_bias: Annotated[Tensor, "C"]
    forward: DirectionWeights
    backward: DirectionWeights
    forward_graph: GraphWeights | None
    backward_graph: GraphWeights | None
    adjacency: Annotated[Tensor | None, "J J", FIXED]  # Â, symmetric; with a graph
    last_weight: Annotated[Tensor | None, "C"]  # of the norm after the block
    last_bias: Annotated[Tensor | None, "C"]

    @property
    def graphs(self) -> tuple[GraphWeights | None, GraphWeights | None]:
        """The graphs of the forward and of the backward direction."""
        return self.forward_graph, self.backward_graph


Weights = DirectionWeights | GraphWeights | BlockWeights
W = TypeVar("W", DirectionWeights, GraphWeights, BlockWeights)


class Sizes(NamedTuple):
    """The numbers that the sizes of all weights follow from; joints is 0 without a graph."""

    channels: int
    states: int
    rank: int
    taps: int
    hidden: int = 0
    joints: int = 0

    def of(self, size: str) -> tuple[int, ...]:
        """The shape that a size written above stands for, "R+2N C" for instance."""
        c, n, r = self.channels, self.states, self.rank
        numbers = {"1": 1, "C": c, "2C": 2 * c, "N": n, "R": r, "R+2N": r + 2 * n}
        numbers |= {"K": self.taps, "H": self.hidden, "J": self.joints}
        return tuple(numbers[part] for part in size.split())


class Leaf(NamedTuple):
    """One tensor of the lists above."""

    name: str  # "fc1", "forward.dt_proj"
    size: str
    is_learnt: bool


class Part(NamedTuple):
    """One field of a class above: a tensor, or a structure of them."""

    name: str
    structure: type[DirectionWeights] | type[GraphWeights] | None
    leaves: tuple[Leaf, ...]
    is_optional: bool  # None stands for a part that a block does not have


def _parts(kind: type[Weights]) -> Iterator[Part]:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        kind_or_union, *marks = get_args(hint) or (hint,)
        structure = hint if isinstance(hint, type) else kind_or_union
        if structure in (DirectionWeights, GraphWeights):
            inside = (leaf._replace(name=f"{name}.{leaf.name}") for leaf in LEAVES[structure])
            yield Part(name, structure, tuple(inside), type(None) in get_args(hint))
        else:
            size, *marks = marks
            leaf = Leaf(name, size, FIXED not in marks)
            yield Part(name, None, (leaf,), type(None) in get_args(kind_or_union))


# The fields of each class above, and all its tensors in order.
PARTS: dict[type, tuple[Part, ...]] = {}
LEAVES: dict[type, tuple[Leaf, ...]] = {}
for _kind in (DirectionWeights, GraphWeights, BlockWeights):
    PARTS[_kind] = tuple(_parts(_kind))
    LEAVES[_kind] = tuple(leaf for part in PARTS[_kind] for leaf in part.leaves)


def flat(weights: Weights) -> list[Tensor | None]:
    """All tensors in the order of LEAVES; None for each one that is not there."""
    tensors: list[Tensor | None] = []
    for value, part in zip(weights, PARTS[type(weights)], strict=True):
        if part.structure is None:
            tensors.append(cast(Tensor | None, value))
        elif value is None:
            tensors.extend([None] * len(part.leaves))
        else:
            tensors.extend(value)
    return tensors


def unflat(kind: type[W], tensors: Sequence[Tensor | None]) -> W:
    """The inverse of flat()."""
    rest: Iterator[Tensor | None] = iter(tensors)
    values: list[object] = []
    for part in PARTS[kind]:
        taken = [next(rest) for _ in part.leaves]
        if part.structure is None:
            values.append(taken[0])
        else:
            values.append(None if taken[0] is None else part.structure._make(taken))
    return kind._make(values)


def split_directions(tensors: Iterable[Tensor]) -> tuple[DirectionWeights, DirectionWeights]:
    """The weights of the forward direction, and those of the backward one, which follow them."""
    rest = iter(tensors)
    count = len(DirectionWeights._fields)
    forward = DirectionWeights._make(itertools.islice(rest, count))
    return forward, DirectionWeights._make(rest)


def sizes_of(weights: DirectionWeights | BlockWeights) -> Sizes:
    """The sizes of some of the tensors; wrong_size() says whether the others agree."""
    direction = weights.forward if isinstance(weights, BlockWeights) else weights
    channels, states = direction.A_log.shape
    sizes = Sizes(channels, states, direction.dt_proj.shape[-1], direction.conv_weight.shape[-1])
    if not isinstance(weights, BlockWeights):
        return sizes
    graph = weights.forward_graph or weights.backward_graph
    joints = 0 if graph is None else graph.bn_weight.shape[0]
    return sizes._replace(hidden=weights.fc1.shape[0], joints=joints)


def _missing(weights: Weights) -> str | None:
    """The first tensor that is None although its structure is there."""
    for part, value in zip(PARTS[type(weights)], weights, strict=True):
        if value is None and not part.is_optional:
            return part.name
        if isinstance(value, DirectionWeights | GraphWeights) and (name := _missing(value)):
            return f"{part.name}.{name}"
    if isinstance(weights, BlockWeights) and weights.last_weight is not None:
        return "last_bias" if weights.last_bias is None else None
    return None


# The sizes of all tensors, of what has been asked for.
_expected: dict[tuple[type, Sizes], tuple[tuple[int, ...], ...]] = {}


def wrong_size(weights: Weights, sizes: Sizes, like: Tensor) -> str | None:
    """The first tensor that is missing, has another size, or not the type and device of `like`."""
    kind, dtype, device = type(weights), like.dtype, like.device
    if (kind, sizes) not in _expected:
        _expected[kind, sizes] = tuple(sizes.of(leaf.size) for leaf in LEAVES[kind])
    tensors = flat(weights)
    found = zip(tensors, _expected[kind, sizes], strict=True)
    for number, (tensor, size) in enumerate(found):
        if tensor is not None and (
            tensor.shape != size or tensor.dtype != dtype or tensor.device != device
        ):
            return (
                f"{LEAVES[kind][number].name}: {dtype} {size} on {device} is wanted, this is"
                f" {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            )
    missing = None if all(t is not None for t in tensors) else _missing(weights)
    return None if missing is None else f"{missing} is missing"


class Settings(NamedTuple):
    """What a residual block needs to know beside its weights."""

    axis: int = -2  # the one that is scanned
    norm_eps: float = 1e-5  # of the block's LayerNorms
    last_eps: float = 1e-5  # of the LayerNorm after the block
    graph_eps: float = 1e-5  # of the graphs' LayerNorm and BatchNorm


Masks = tuple[Tensor | None, Tensor | None]  # factors of both branches, broadcast over x; None: 1
