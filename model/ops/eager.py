"""The backends in plain PyTorch: the definition itself, and a loop with its own backward, for every
device and for CPUs without a compiler.

Three things make the loop faster than the definition: the exponentials and the read-outs of many
steps are one operation each; only `h_t = a_t h_{t-1} + x_t` is left in the loop, in place; and the
backward keeps the state at the start of each chunk of steps and recomputes the rest, so its cost
is linear in the length and its memory a small multiple of the inputs.

A logarithmic-depth scan loses on a CPU (log L passes over memory), and dividing by cumulative
decays overflows when the decay is strong; this loop multiplies by decays only, so an underflow to
zero is exact.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import model.ops.reference as reference
from model.ops.backend import Backend
from model.ops.weights import DirectionWeights

# Elements of one (steps, rows, C, N) temporary: large enough to amortise the calls, small enough
# to stay in a cache.
_TEMPORARY_ELEMENTS = 1 << 19


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _chunk_steps(length: int) -> int:
    """The steps of a chunk: they balance kept states (L / chunk) and recomputed ones (chunk)."""
    return length if length <= 32 else math.ceil(math.sqrt(length))


def _row_slices(rows: int, length: int, states: int) -> list[slice]:
    return list(_slices(rows, max(1, _TEMPORARY_ELEMENTS // (_chunk_steps(length) * states))))


def _step_order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _chunk_states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """All decays and states of one chunk that starts from `state` (rows, C, N).

    u, delta: (T, rows, C), B: (T, rows, N). Returns two tensors (T, rows, C, N).
    """
    decay = torch.exp_(delta.unsqueeze(-1) * A)
    states = (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
    for t in _step_order(len(u), reverse):
        state = states[t].addcmul_(decay[t], state)
    return decay, states


class _LoopScan(torch.autograd.Function):
    """y_t = C_t . h_t for u, delta (rows, L, C), A (C, N), B and C (rows, L, N)."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool
    ) -> Tensor:
        rows, length, _ = u.shape
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        chunks = list(_slices(length, _chunk_steps(length)))
        if reverse:
            chunks.reverse()
        starts = u.new_empty(len(chunks), rows, *A.shape)
        for part in _row_slices(rows, length, A.numel()):
            u_t, delta_t, B_t, C_t = (x[part].transpose(0, 1) for x in (u, delta, B, C))
            state = u.new_zeros(u_t.shape[1], *A.shape)
            for i, chunk in enumerate(chunks):
                starts[i, part] = state
                _, states = _chunk_states(u_t[chunk], delta_t[chunk], A, B_t[chunk], state, reverse)
                y[part, chunk] = (states @ C_t[chunk].unsqueeze(-1)).squeeze(-1).transpose(0, 1)
                state = states[0 if reverse else -1]
        ctx.save_for_backward(u, delta, A, B, C, starts)
        ctx.reverse, ctx.chunks = reverse, chunks
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, starts = ctx.saved_tensors
        rows, length, _ = u.shape
        grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
        grad_A = torch.zeros_like(A)
        for part in _row_slices(rows, length, A.numel()):
            inputs = [x[part].transpose(0, 1) for x in (u, delta, B, C, grad_y)]
            carry = u.new_zeros(inputs[0].shape[1], *A.shape)  # the gradient from later steps
            for i in reversed(range(len(ctx.chunks))):
                chunk = ctx.chunks[i]
                u_t, delta_t, B_t, C_t, g_t = (x[chunk] for x in inputs)
                start = starts[i, part]
                decay, states = _chunk_states(u_t, delta_t, A, B_t, start, ctx.reverse)
                # The gradient of h_t: from its read-out, and from the next state through the decay.
                grad_h = g_t.unsqueeze(-1) * C_t.unsqueeze(-2)
                order = list(_step_order(len(u_t), ctx.reverse))
                for t in reversed(order):
                    carry = decay[t] * grad_h[t].add_(carry)
                grad_C[part, chunk] = _contract_channels(g_t, states)
                grad_B[part, chunk] = _contract_channels(delta_t * u_t, grad_h)
                grad_input = (grad_h @ B_t.unsqueeze(-1)).squeeze(-1)  # of delta_t u_t
                grad_u[part, chunk] = (grad_input * delta_t).transpose(0, 1)
                # The gradient of the exponent delta_t A, in the memory of the decays.
                exponent = decay.mul_(grad_h)
                exponent[order[0]].mul_(start)
                if len(order) > 1:
                    later, earlier = (
                        (slice(None, -1), slice(1, None))
                        if ctx.reverse
                        else (slice(1, None), slice(None, -1))
                    )
                    exponent[later].mul_(states[earlier])
                grad_delta[part, chunk] = torch.addcmul(
                    (exponent * A).sum(-1), grad_input, u_t
                ).transpose(0, 1)
                grad_A += (exponent.mul_(delta_t.unsqueeze(-1))).sum((0, 1))
        return grad_u, grad_delta, grad_A, grad_B, grad_C, None


def _contract_channels(per_channel: Tensor, per_state: Tensor) -> Tensor:
    """(T, rows, C) and (T, rows, C, N) -> (rows, T, N)."""
    return (per_channel.unsqueeze(-2) @ per_state).squeeze(-2).transpose(0, 1)


def scan_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """The scan of `reference.scan`, faster; once differentiable."""
    batch, (length, channels) = u.shape[:-2], u.shape[-2:]
    rows = math.prod(batch)
    y: Tensor = _LoopScan.apply(  # type: ignore[no-untyped-call]
        u.reshape(rows, length, channels),
        delta.reshape(rows, length, channels),
        A,
        B.reshape(rows, length, A.shape[1]),
        C.reshape(rows, length, A.shape[1]),
        reverse,
    )
    return torch.addcmul(y.view(u.shape), u, D)


class Sequential(Backend):
    """The definition, step by step."""

    name = "sequential"

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        return reference.inner(x_forward, x_backward, z, forward, backward)


class Loop(Backend):
    """The definition with scan_loop()."""

    name = "torch"

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        return reference.inner(x_forward, x_backward, z, forward, backward, scan_loop)
