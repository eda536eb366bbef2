"""The compiled kernels' C interface: structures, argument types, thread count.

The structures are declared only here: declarations() writes them for the compiler, which reads them
as structures.h. The structures of weights follow from weights.py.
"""

import ctypes
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from lib.numbers import environment_number
from model.ops.cpu.build import KernelUnavailable, load_library
from model.ops.weights import (
    PARTS,
    BlockWeights,
    DirectionWeights,
    GraphWeights,
    Settings,
    Sizes,
    Weights,
)

THREADS_VARIABLE = "MDTF_KERNEL_THREADS"

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """How many threads a kernel takes: MDTF_KERNEL_THREADS, else as many as PyTorch.

    A forked process takes one: OpenMP's threads do not survive a fork, and waiting for them hangs.
    """
    if _forked:
        return 1
    return environment_number(THREADS_VARIABLE, torch.get_num_threads(), low=1)


# --- structures -----------------------------------------------------------------------------------
_int, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_C_TYPES = {_int: "int64_t", _float: "float", _pointer: "float *"}
DIRECTIONS = 2

STRUCTURES: list[type[ctypes.Structure]] = []  # in the order in which C has to see them
S = TypeVar("S", bound=ctypes.Structure)


def _structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    made = type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})
    STRUCTURES.append(made)
    return made


def _pointers(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _pointer)


_WEIGHTS: dict[type, type[ctypes.Structure]] = {}
for _kind in (DirectionWeights, GraphWeights, BlockWeights):
    _fields = {part.name: _WEIGHTS.get(part.structure or Tensor, _pointer) for part in PARTS[_kind]}
    _WEIGHTS[_kind] = _structure(_kind.__name__, **_fields)

_Direction, _Block = _WEIGHTS[DirectionWeights], _WEIGHTS[BlockWeights]

Shape = _structure(
    "Shape",
    **dict.fromkeys(("outer", "inner", "length", "channels", "states", "rank", "taps"), _int),
)
# A tensor (outer, inner, length, channels): strides in elements, channels contiguous.
View = _structure("View", **_pointers("data"), outer=_int, inner=_int, step=_int)
# out: the forward writes it; in the backward it is the gradient of the output. states: (DIRECTIONS,
# rows, chunks - 1, states, channels) padded, or NULL.
Inner = _structure(
    "Inner",
    shape=Shape,
    x=View * DIRECTIONS,
    z=View,
    weights=_Direction * DIRECTIONS,
    out=View,
    states=_pointer,
)
# x[1] may be x[0]: then the sum of both gradients is written there.
InnerGrads = _structure("InnerGrads", x=View * DIRECTIONS, z=View, weights=_Direction * DIRECTIONS)
# What a block's forward keeps for its backward, see block.Kept; NULL for a part a block lacks.
Kept = _structure(
    "Kept",
    **_pointers("inner_x", "z", "inner", "states", "before_last"),
    **dict.fromkeys(("graph_out", "mixed", "statistics"), _pointer * DIRECTIONS),
)
# x and out as in Inner; length is the scanned axis. mask1, mask2: (rows), NULL stands for 1. The
# pointers of a graph are NULL in a direction without one. sums: (rows, 2), scratch.
Block = _structure(
    "Block",
    shape=Shape,
    hidden=_int,
    norm_eps=_float,
    last_eps=_float,
    graph_eps=_float,
    x=View,
    out=View,
    weights=_Block,
    mask1=_pointer,
    mask2=_pointer,
    kept=Kept,
    sums=_pointer * DIRECTIONS,
)
# Gradients: those of weights and x are results, those of inner_x, z, inner and graph_out scratch.
# totals: (2, J).
BlockGrads = _structure(
    "BlockGrads",
    weights=_Block,
    **_pointers("x", "inner_x", "z", "inner"),
    graph_out=_pointer * DIRECTIONS,
    totals=_pointer * DIRECTIONS,
)


# The structures that kernels are called with; all others are inside of these.
EXCHANGED = {s.__name__: s for s in (Inner, InnerGrads, Block, BlockGrads)}


def _declaration(name: str, kind: Any) -> str:
    if hasattr(kind, "_length_"):
        return f"{_declaration(name, kind._type_)}[{kind._length_}]"
    return f"{_C_TYPES.get(kind, kind.__name__)} {name}"


def declarations() -> str:
    """The structures in C."""
    lines = ["#pragma once", "#include <stdint.h>"]
    for structure in STRUCTURES:
        fields = (f"    {_declaration(*field[:2])};" for field in structure._fields_)
        lines += ["typedef struct {", *fields, f"}} {structure.__name__};"]
    return "\n".join(lines) + "\n"


# --- filling them ---------------------------------------------------------------------------------
def pointer(x: Tensor | None) -> int | None:
    """NULL for no tensor, and for one without elements."""
    return None if x is None else x.data_ptr() or None


def pointers(structure: type[S], tensors: Iterable[Tensor | None]) -> S:
    """A structure of pointers only, to these tensors in order."""
    addresses = [pointer(t) for t in tensors]
    return structure.from_buffer((_pointer * len(addresses))(*addresses))


def view(x: Tensor) -> ctypes.Structure:
    """x: (outer, inner, L, C) or (rows, L, C) with contiguous channels."""
    outer = x.stride(0) if x.dim() == 4 else 0
    return View(x.data_ptr(), outer, x.stride(-3), x.stride(-2))


def shape(x: Tensor, sizes: Sizes) -> ctypes.Structure:
    """x: (outer, inner, L, C) or (rows, L, C)."""
    outer = x.shape[0] if x.dim() == 4 else 1
    return Shape(outer, *x.shape[-3:], sizes.states, sizes.rank, sizes.taps)


def weights(kind: type[Weights], tensors: Iterable[Tensor | None]) -> ctypes.Structure:
    """The structure of `kind` for tensors in the order of weights.flat()."""
    return pointers(_WEIGHTS[kind], tensors)


def both_directions(tensors: Iterable[Tensor]) -> Any:
    """Both directions' structures for the weights (or gradients) of one, then of the other."""
    return pointers(_BothDirections, tensors).both


class _BothDirections(ctypes.Structure):
    _fields_ = (("both", _Direction * DIRECTIONS),)


def block(
    x: Tensor, out: Tensor, tensors: Iterable[Tensor | None], sizes: Sizes, settings: Settings
) -> ctypes.Structure:
    """A Block with the fields that inference needs. x, out: (..., J or T, C), as in the clip."""
    x, out = x.transpose(settings.axis, -2), out.transpose(settings.axis, -2)
    return Block(
        shape=shape(x, sizes),
        hidden=sizes.hidden,
        norm_eps=settings.norm_eps,
        last_eps=settings.last_eps,
        graph_eps=settings.graph_eps,
        x=view(x),
        out=view(out),
        weights=weights(BlockWeights, tensors),
    )


# --- the library ----------------------------------------------------------------------------------
def call(function: Callable[..., int], *structures: ctypes.Structure) -> None:
    """Call a kernel with thread_count() threads. Raises MemoryError."""
    if function(*(ctypes.byref(s) for s in structures), thread_count()):
        raise MemoryError("not enough memory for the scan's scratch buffers")


def check_sizes(library: ctypes.CDLL) -> None:
    """Raise KernelUnavailable where a structure is not as large as the compiler made it."""
    for name, structure in EXCHANGED.items():
        size_of = getattr(library, f"mdtf_sizeof_{name}")
        size_of.restype = _int
        if size_of() != ctypes.sizeof(structure):
            raise KernelUnavailable(
                f"{name} has {size_of()} bytes in C, {ctypes.sizeof(structure)} here"
            )


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels, their functions declared. Raises KernelUnavailable."""
    found = load_library(declarations())
    check_sizes(found)
    for name in ("lanes", "max_chunk", "max_taps", "max_joints", "kept_floats"):
        getattr(found, f"mdtf_{name}").restype = _int
    found.mdtf_kept_floats.argtypes = [_pointer]
    for name in ("inner_forward", "block_infer", "train_enter", "train_leave"):
        getattr(found, f"mdtf_{name}").argtypes = [_pointer, _int]
    for name in ("inner", "train_enter", "train_leave"):
        getattr(found, f"mdtf_{name}_backward").argtypes = [_pointer, _pointer, _int]
    return found
