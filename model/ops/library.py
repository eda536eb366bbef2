"""The compiled kernels' C interface: structures, argument types, thread count.

The structures are field for field those of csrc/inner.h, scan_op.h, block.h, head.h, graph.h,
tail.h and train.h.
"""

import ctypes
import os

import torch
from torch import Tensor

from lib.numbers import environment_number
from model.ops.compile import KernelUnavailable, load_library
from model.ops.definition import DirectionWeights

THREADS_VARIABLE = "MDTF_KERNEL_THREADS"

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """PyTorch's thread count, or MDTF_KERNEL_THREADS.

    One in a forked process: OpenMP's threads do not survive a fork, and waiting for them hangs.
    """
    if _forked:
        return 1
    return environment_number(THREADS_VARIABLE, torch.get_num_threads(), low=1)


def _structure(name: str, **fields: object) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_int, _pointer = ctypes.c_int64, ctypes.c_void_p
Pointer = _pointer
_SHAPE = ("outer", "inner", "length", "channels", "states", "rank", "taps")

Shape = _structure("Shape", **dict.fromkeys(_SHAPE, _int))
View = _structure("View", data=_pointer, outer=_int, inner=_int, step=_int)
Weights = _structure("Weights", **dict.fromkeys(DirectionWeights._fields, _pointer))
Inner = _structure(
    "Inner", shape=Shape, x=View * 2, z=View, weights=Weights * 2, out=View, states=_pointer
)
InnerGrads = _structure("InnerGrads", x=View * 2, z=View, weights=Weights * 2)
Scan = _structure(
    "Scan",
    shape=Shape, u=View, delta=View, B=View, C=View, weights=Weights, y=View, kept=_pointer,
    reverse=_int,
)  # fmt: skip
ScanGrads = _structure("ScanGrads", u=View, delta=View, B=View, C=View, weights=Weights)

_GRAPH = (
    "norm_weight", "norm_bias", "own", "own_bias", "neighbours", "neighbours_bias",
    "bn_weight", "bn_bias", "bn_mean", "bn_var",
)  # fmt: skip
_BLOCK = (
    "norm1_weight", "norm1_bias", "in_proj", "out_proj", "norm2_weight", "norm2_bias",
    "fc1", "fc1_bias", "fc2", "fc2_bias", "last_weight", "last_bias",
)  # fmt: skip
GraphWeights = _structure("GraphWeights", **dict.fromkeys(_GRAPH, _pointer))
Block = _structure(
    "Block",
    shape=Shape, x=View, out=View, **dict.fromkeys(_BLOCK, _pointer), weights=Weights * 2,
    graph=GraphWeights * 2, adjacency=_pointer, hidden=_int, reversed=_int * 2,
    norm_eps=ctypes.c_float, last_eps=ctypes.c_float, graph_eps=ctypes.c_float,
)  # fmt: skip

Head = _structure(
    "Head",
    rows=_int, channels=_int, x=_pointer, norm_weight=_pointer, norm_bias=_pointer,
    weight=_pointer, out=_pointer * 2, eps=ctypes.c_float,
)  # fmt: skip
HeadGrads = _structure(
    "HeadGrads", **dict.fromkeys(("x", "norm_weight", "norm_bias", "weight"), _pointer)
)
_LEARNT = _GRAPH[:-2]
Graph = _structure(
    "Graph",
    rows=_int, channels=_int, joints=_int,
    **dict.fromkeys(("x", *_LEARNT, "adjacency", "mixed", "out", "sums", "statistics"), _pointer),
    eps=ctypes.c_float,
)  # fmt: skip
GraphGrads = _structure("GraphGrads", **dict.fromkeys(("out", "totals", "x", *_LEARNT), _pointer))
_TAIL = (
    "out_proj", "norm_weight", "norm_bias", "fc1", "fc1_bias", "fc2", "fc2_bias",
    "last_weight", "last_bias",
)  # fmt: skip
Tail = _structure(
    "Tail",
    rows=_int, channels=_int, hidden=_int, x=_pointer, inner=_pointer, mask1=_pointer,
    mask2=_pointer, **dict.fromkeys(_TAIL, _pointer), before_last=_pointer, out=_pointer,
    eps=ctypes.c_float, last_eps=ctypes.c_float,
)  # fmt: skip
TailGrads = _structure("TailGrads", **dict.fromkeys(("x", "inner", *_TAIL), _pointer))
Train = _structure("Train", head=Head, graph=Graph * 2, inner=Inner, tail=Tail)
TrainGrads = _structure(
    "TrainGrads", head=HeadGrads, graph=GraphGrads * 2, inner=InnerGrads, tail=TailGrads
)


STRUCTURES = (
    Shape, View, Weights, Inner, InnerGrads, Scan, ScanGrads, GraphWeights, Block, Head, HeadGrads,
    Graph, GraphGrads, Tail, TailGrads, Train, TrainGrads,
)  # fmt: skip


def view(x: Tensor) -> ctypes.Structure:
    """x: (outer, inner, L, C) or (rows, L, C) with contiguous channels."""
    outer = x.stride(0) if x.dim() == 4 else 0
    return View(x.data_ptr(), outer, x.stride(-3), x.stride(-2))


def shape(x: Tensor, *, states: int, rank: int = 0, taps: int = 1) -> ctypes.Structure:
    """x: (outer, inner, L, C) or (rows, L, C)."""
    outer = x.shape[0] if x.dim() == 4 else 1
    return Shape(outer, *x.shape[-3:], states, rank, taps)


def both_weights(weights: list[Tensor]) -> ctypes.Array:
    """Pointers to the weights (or gradients) of both directions, each a DirectionWeights."""
    pointers = [w.data_ptr() for w in weights]
    half = len(pointers) // 2
    return (Weights * 2)(Weights(*pointers[:half]), Weights(*pointers[half:]))


def call(function, *structures: ctypes.Structure) -> None:
    """Call a kernel with as many threads as are wanted. Raises MemoryError."""
    if function(*(ctypes.byref(s) for s in structures), thread_count()):
        raise MemoryError("not enough memory for the scan's scratch buffers")


def check_sizes(library: ctypes.CDLL) -> None:
    """Raise KernelUnavailable where a structure is not as large as the compiler made it."""
    for structure in STRUCTURES:
        size_of = getattr(library, f"mdtf_sizeof_{structure.__name__}")
        size_of.restype = _int
        if size_of() != ctypes.sizeof(structure):
            raise KernelUnavailable(
                f"{structure.__name__} has {size_of()} bytes in C, {ctypes.sizeof(structure)} here"
            )


def open_library() -> ctypes.CDLL:
    """The library, with its functions declared. Raises KernelUnavailable, AttributeError."""
    library = load_library()
    check_sizes(library)
    library.mdtf_lanes.restype = library.mdtf_max_chunk.restype = _int
    library.mdtf_max_joints.restype = library.mdtf_row_tile.restype = _int
    library.mdtf_kept_floats.restype = _int
    library.mdtf_heap_give_back.argtypes = [_int]
    library.mdtf_kept_floats.argtypes = [_pointer]
    for name in ("inner_forward", "scan_forward", "block_forward", "train_enter", "train_leave"):
        getattr(library, f"mdtf_{name}").argtypes = [_pointer, _int]
    for name in ("inner", "scan", "train_enter", "train_leave"):
        getattr(library, f"mdtf_{name}_backward").argtypes = [_pointer, _pointer, _int]
    return library
