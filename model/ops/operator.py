"""Operators of torch.library. Its custom_op loads the compiler, torch._dynamo, which takes three
seconds; these do not, so evaluation and demo start faster. (Training's optimizer loads it.)"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.ops.weights import DirectionWeights, flat

F = TypeVar("F", bound=Callable[..., object])


def constant_result(function: F) -> F:
    """Like torch.compiler.assume_constant_result: torch.compile calls it and does not trace it."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class Operator:
    """A decorator like torch.library.custom_op, for functions of tensors that change none."""

    def __init__(self, name: str, devices: Sequence[str] = ("cpu",)) -> None:
        """name: "namespace::name"; the schema follows from the function's annotations.

        devices: the kinds of device whose tensors the function takes."""
        self.name, self.devices = name, tuple(devices)

    def __call__(self, function: Callable[..., object]) -> "Operator":
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(self.name, schema)
        torch.library.impl(self.name, self.devices, function)
        return self

    def register_fake(self, function: F) -> F:
        """The shape function."""
        torch.library.register_fake(self.name, function)
        return function

    def register_autograd(
        self,
        backward: Callable[..., object],
        setup_context: Callable[..., object] | None = None,
    ) -> None:
        torch.library.register_autograd(self.name, backward, setup_context=setup_context)

    def impl_autograd(self, function: F) -> F:
        """Instead of register_autograd: a function that applies a torch.autograd.Function."""
        torch.library.impl(self.name, "Autograd", function)
        return function


# --- what operators of the scan share -------------------------------------------------------------
def dense_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def like(x: Tensor) -> Tensor:
    """An uninitialised dense tensor with x's order of axes in memory, but channels innermost."""
    return torch.empty_like(dense_channels(x))


def at_most_two_batch_dims(x: Tensor) -> Tensor:
    """The kernels take one or two batch dimensions; more are joined, with a copy if need be."""
    if x.dim() in (3, 4):
        return x
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def call_inner(
    operator: Callable[..., list[Tensor]],
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`reference.inner` by an operator: (x, the backward direction's x unless it is the same, z,
    weights, whether to keep what the gradients need) -> the result, then what is kept."""
    first, gate = at_most_two_batch_dims(x_forward), at_most_two_batch_dims(z)
    other = None if x_backward is x_forward else at_most_two_batch_dims(x_backward)
    weights = [*flat(forward), *flat(backward)]
    out = operator(first, other, gate, weights, needs_grad(first, other, gate, *weights))[0]
    return out if out.dim() == z.dim() else out.view(z.shape)


def check_like(name: str, x: Tensor, like: Tensor) -> None:
    """Raise ValueError unless x has the shape, type and device of `like`."""
    if x.shape != like.shape or x.dtype != like.dtype or x.device != like.device:
        raise ValueError(
            f"{name}: {like.dtype} {tuple(like.shape)} on {like.device} is wanted, this is"
            f" {x.dtype} {tuple(x.shape)} on {x.device}"
        )


def no_second_derivative(ctx: Any, *grads: Any) -> None:
    raise RuntimeError(
        "a fused scan can be differentiated only once; use the scan backend 'sequential' for more"
    )
