"""The scan of both directions with dt_proj, softplus, D, their sum and the gate, both ways.

Shapes: `rows` sequences of L steps, C channels, N states (NP: the power of two above), R rank of dt
(RP likewise). u and the projections, rows of R + 2 N numbers (dt, B, C), are contiguous (direction,
row, step, ...); z, the output and their gradients may lie at any stride of rows and steps.
Direction 0 goes from the first step to the last, direction 1 from the last to the first.

The state (BC channels, N) stays in the registers of one warp, in float32. It goes through the steps
in chunks of K and saves the state before each for the backward. Nothing is added atomically, so
two runs give the same bits.
"""

import triton
import triton.language as tl

from model.ops.triton.functions import LOG2E, sigmoid, softplus


@triton.jit
def _load_weights(A_log, dt_bias, D, c, n, is_c, N: tl.constexpr):
    """A log2(e) (BC, NP), dt_proj's bias and D (BC), in float32."""
    mask = is_c[:, None] & (n < N)[None, :]
    a = tl.load(A_log + c[:, None] * N + n[None, :], mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(dt_bias + c, mask=is_c, other=0.0)
    d = tl.load(D + c, mask=is_c, other=0.0)
    return -tl.exp2(a * LOG2E) * LOG2E, bias.to(tl.float32), d.to(tl.float32)


@triton.jit
def _load_forward_weights(A_log, dt_proj, dt_bias, D, c, n, r, is_c,
                          N: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """The same, and dt_proj (BC, RP). Its layout becomes that of the state, a channel a lane: then
    the sum over the states needs no other lane."""
    a, bias, d = _load_weights(A_log, dt_bias, D, c, n, is_c, N)
    mask = is_c[:, None] & (r < R)[None, :]
    w = tl.load(dt_proj + c[:, None] * R + r[None, :], mask=mask, other=0.0)
    return a, w.to(tl.float32), bias, d


@triton.jit
def _load_backward_weights(A_log, dt_proj, dt_bias, D, c, n, is_c,
                           N: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """The same, with dt_proj as a tuple of R vectors (BC): they leave the state's layout as it is,
    in which sums over channels, too, need few other lanes."""
    a, bias, d = _load_weights(A_log, dt_bias, D, c, n, is_c, N)
    w = ()
    for r in tl.static_range(R):
        w = w + (tl.load(dt_proj + c * R + r, mask=is_c, other=0.0).to(tl.float32),)
    return a, w, bias, d


@triton.jit(do_not_specialize=["rows", "L", "inner"])
def scan_forward(
    u, projected, z, y, out, states,
    A_log_forward, A_log_backward, dt_proj_forward, dt_proj_backward,
    dt_bias_forward, dt_bias_backward, D_forward, D_backward,
    rows, L, inner, z_outer, z_inner, z_step, out_outer, out_inner, out_step, C,
    N: tl.constexpr, NP: tl.constexpr, R: tl.constexpr, RP: tl.constexpr,
    BC: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """One row and BC channels, first in one direction, then in the other.

    y (tokens, C), float32: the sum of both directions, before the gate; without KEEP only the
    forward direction. states (2, rows, chunks, C, N): those before each chunk, if KEEP.
    EVEN: L is a multiple of a third of K.
    """
    row = tl.program_id(0).to(tl.int64)
    outer_row = (tl.program_id(0) // inner).to(tl.int64)
    inner_row = (tl.program_id(0) % inner).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    n, r = tl.arange(0, NP), tl.arange(0, RP)
    is_c = c < C
    z += outer_row * z_outer + inner_row * z_inner
    out += outer_row * out_outer + inner_row * out_inner
    y += row * L * C
    tl.static_assert(K % 3 == 0)
    S: tl.constexpr = K // 3
    chunks = tl.cdiv(L, K)
    saved = c[:, None] * N + n[None, :]
    is_saved = is_c[:, None] & (n < N)[None, :]
    for direction in range(2):
        is_second = direction == 1
        if is_second:
            a, w, bias, d = _load_forward_weights(
                A_log_backward, dt_proj_backward, dt_bias_backward, D_backward, c, n, r, is_c, N, R
            )
        else:
            a, w, bias, d = _load_forward_weights(
                A_log_forward, dt_proj_forward, dt_bias_forward, D_forward, c, n, r, is_c, N, R
            )
        first, sign = direction * (L - 1), 1 - 2 * direction
        sequence = (direction * rows + row) * L
        u_row, projected_row = u + sequence * C, projected + sequence * (R + 2 * N)
        state = states + (direction * rows + row) * chunks * C * N
        h = tl.zeros((BC, NP), dtype=tl.float32)
        for third in range(tl.cdiv(L, S)):
            start = third * S
            if KEEP:  # noqa: SIM102 (a constant and a number of the device)
                if third % 3 == 0:
                    tl.store(state + third // 3 * C * N + saved, h, mask=is_saved)
            # All loads of a third first: they wait neither for the recurrence nor for its stores.
            # Steps after the last are loaded as zeros, and nothing of them is stored.
            loaded = ()
            for k in tl.static_range(S):
                at = first + sign * (start + k)
                mask, is_r, is_n = is_c, r < R, n < N
                if not EVEN:
                    is_step = start + k < L
                    mask, is_r, is_n = mask & is_step, is_r & is_step, is_n & is_step
                token = projected_row + at * (R + 2 * N)
                x = tl.load(u_row + at * C + c, mask=mask, other=0.0).to(tl.float32)
                dt = tl.load(token + r, mask=is_r, other=0.0).to(tl.float32)
                b = tl.load(token + R + n, mask=is_n, other=0.0).to(tl.float32)
                cc = tl.load(token + R + N + n, mask=is_n, other=0.0).to(tl.float32)
                gate = tl.load(z + at * z_step + c, mask=mask & is_second, other=0.0)
                other = tl.load(y + at * C + c, mask=mask & is_second, other=0.0)
                loaded = loaded + ((x, dt, b, cc, gate.to(tl.float32), other),)
            for k in tl.static_range(S):
                at = first + sign * (start + k)
                mask = is_c
                if not EVEN:
                    mask = mask & (start + k < L)
                x, dt, b, cc, gate, other = loaded[k]
                delta = softplus(tl.sum(w * dt[None, :], axis=1) + bias)
                h = tl.exp2(delta[:, None] * a) * h + (delta * x)[:, None] * b[None, :]
                both = tl.sum(h * cc[None, :], axis=1) + d * x + other
                gated = (0.5 * both * gate * sigmoid(gate)).to(out.dtype.element_ty)
                tl.store(y + at * C + c, both, mask=mask if KEEP else mask & (not is_second))
                tl.store(out + at * out_step + c, gated, mask=mask & is_second)
        tl.debug_barrier()  # the second direction reads what other threads have stored in y


@triton.jit
def _load_token(u, projected, at, is_step, w, bias, c, n, is_c, C,
                N: tl.constexpr, R: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    """u (BC), delta before softplus (BC) and B (NP) of one token; zeros where there is no step."""
    mask, is_n = is_c, n < N
    if not EVEN:
        mask, is_n = mask & is_step, is_n & is_step
    x = tl.load(u + at * C + c, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(projected + at * (R + 2 * N) + R + n, mask=is_n, other=0.0).to(tl.float32)
    raw = bias
    for r in tl.static_range(R):
        if EVEN:
            dt = tl.load(projected + at * (R + 2 * N) + r)
        else:
            dt = tl.load(projected + at * (R + 2 * N) + r, mask=is_step, other=0.0)
        raw += w[r] * dt.to(tl.float32)
    return x, raw, b


@triton.jit
def _again(h, a, w, bias, u, projected, at, s, L, c, n, is_c, C,
           N: tl.constexpr, R: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    """The state after step s, from the one before it."""
    x, raw, b = _load_token(u, projected, at, s < L, w, bias, c, n, is_c, C, N, R, EVEN)
    delta = softplus(raw)
    return tl.exp2(delta[:, None] * a) * h + (delta * x)[:, None] * b[None, :]


@triton.jit(do_not_specialize=["rows", "L", "inner"])
def scan_backward(
    u, projected, z, y, states, by_out, by_u, by_wide, by_z, partial,
    A_log_forward, A_log_backward, dt_proj_forward, dt_proj_backward,
    dt_bias_forward, dt_bias_backward, D_forward, D_backward,
    rows, L, inner, z_outer, z_inner, z_step,
    by_out_outer, by_out_inner, by_out_step, by_z_outer, by_z_inner, by_z_step, C,
    N: tl.constexpr, NP: tl.constexpr, R: tl.constexpr,
    BC: tl.constexpr, K: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """A group of rows, BC channels and one direction.

    by_u (2, tokens, C): without what comes through the projection. by_wide (2, tokens, C + blocks
    of channels · 2 N): the gradient of dt_proj's output, then those of B and C, to be summed over
    the blocks. partial (2, groups, C · (N + 2)): the gradients of A_log, dt_bias and D, to be
    summed over the groups. EVEN: L is a multiple of K.

    The states are computed again: those at the thirds of a chunk, then those of a third, which is
    all that registers hold. Inputs are read again in the sweep back.
    """
    group, groups = tl.program_id(0), tl.num_programs(0)
    block, blocks = tl.program_id(1), tl.num_programs(1)
    direction = tl.program_id(2)
    is_second = direction == 1
    c = block * BC + tl.arange(0, BC)
    n = tl.arange(0, NP)
    is_c = c < C
    if is_second:
        a, w, bias, d = _load_backward_weights(A_log_backward, dt_proj_backward, dt_bias_backward,
                                      D_backward, c, n, is_c, N, R)  # fmt: skip
    else:
        a, w, bias, d = _load_backward_weights(A_log_forward, dt_proj_forward, dt_bias_forward,
                                      D_forward, c, n, is_c, N, R)  # fmt: skip
    by_a = tl.zeros((BC, NP), dtype=tl.float32)
    by_bias = tl.zeros((BC,), dtype=tl.float32)
    by_d = tl.zeros((BC,), dtype=tl.float32)
    tl.static_assert(K % 3 == 0)
    S: tl.constexpr = K // 3
    W: tl.constexpr = R + 2 * N
    wide = C + blocks * 2 * N
    chunks = tl.cdiv(L, K)
    first, sign = direction * (L - 1), 1 - 2 * direction
    saved = c[:, None] * N + n[None, :]
    is_saved = is_c[:, None] & (n < N)[None, :]
    for number in range(group, rows, groups):
        zero = tl.full((), 0, tl.int64)
        row, outer_row, inner_row = zero + number, zero + number // inner, zero + number % inner
        sequence = (direction * rows + row) * L
        u_row, projected_row = u + sequence * C, projected + sequence * W
        z_row, y_row = z + outer_row * z_outer + inner_row * z_inner, y + row * L * C
        by_out_row = by_out + outer_row * by_out_outer + inner_row * by_out_inner
        by_z_row = by_z + outer_row * by_z_outer + inner_row * by_z_inner
        by_u_row, by_wide_row = by_u + sequence * C, by_wide + sequence * wide
        state = states + (direction * rows + row) * chunks * C * N
        by_h = tl.zeros((BC, NP), dtype=tl.float32)
        for before in range(chunks):
            start = (chunks - 1 - before) * K
            h = tl.load(state + (chunks - 1 - before) * C * N + saved, mask=is_saved, other=0.0)
            state_0 = h
            state_1 = h
            for third in range(2):
                state_1 = tl.where(third == 1, h, state_1)
                for k in tl.static_range(S):
                    s = start + third * S + k
                    h = _again(h, a, w, bias, u_row, projected_row, first + sign * s,
                               s, L, c, n, is_c, C, N, R, EVEN)  # fmt: skip
            state_2 = h
            for done in range(3):
                third = 2 - done
                h = tl.where(third == 2, state_2, tl.where(third == 1, state_1, state_0))
                kept = ()
                for k in tl.static_range(S):
                    s = start + third * S + k
                    kept = kept + (h,)
                    h = _again(h, a, w, bias, u_row, projected_row, first + sign * s,
                               s, L, c, n, is_c, C, N, R, EVEN)  # fmt: skip
                for back in tl.static_range(S):
                    s = start + third * S + S - 1 - back
                    at = first + sign * s
                    is_step = s < L
                    if EVEN:
                        mask, is_n = is_c, n < N
                    else:
                        mask, is_n = is_c & is_step, (n < N) & is_step
                    x, raw, b = _load_token(u_row, projected_row, at, is_step, w, bias, c, n, is_c,
                                            C, N, R, EVEN)  # fmt: skip
                    cc = tl.load(projected_row + at * W + R + N + n, mask=is_n, other=0.0)
                    gate = tl.load(z_row + at * z_step + c, mask=mask, other=0.0).to(tl.float32)
                    by_y = tl.load(by_out_row + at * by_out_step + c, mask=mask, other=0.0)
                    by_y = 0.5 * by_y.to(tl.float32)
                    both = tl.load(y_row + at * C + c, mask=mask & (not is_second), other=0.0)
                    opened = sigmoid(gate)
                    by_gate = by_y * both * opened * (1.0 + gate * (1.0 - opened))
                    tl.store(by_z_row + at * by_z_step + c, by_gate.to(by_z.dtype.element_ty),
                             mask=mask & (not is_second))  # fmt: skip
                    by_y = by_y * gate * opened
                    delta = softplus(raw)
                    by_c = tl.sum(by_y[:, None] * h, axis=0)
                    by_h += by_y[:, None] * cc.to(tl.float32)[None, :]
                    by_b = tl.sum(by_h * (delta * x)[:, None], axis=0)
                    by_input = tl.sum(by_h * b[None, :], axis=1)  # by delta x
                    by_h = by_h * tl.exp2(delta[:, None] * a)
                    h = kept[S - 1 - back]
                    by_exponent = by_h * h  # by delta A
                    if not EVEN:  # where there is no step, NaN times 0 would be NaN
                        by_h = tl.where(is_step, by_h, 0.0)
                        by_exponent = tl.where(is_step, by_exponent, 0.0)
                    by_delta = by_input * x + tl.sum(by_exponent * a, axis=1) * (1.0 / LOG2E)
                    by_a += by_exponent * delta[:, None]
                    by_d += by_y * x
                    by_raw = by_delta * sigmoid(raw)
                    by_bias += by_raw
                    by_x = by_input * delta + by_y * d
                    to = by_wide_row + at * wide
                    tl.store(to + c, by_raw.to(by_wide.dtype.element_ty), mask=mask)
                    to += C + block * 2 * N
                    tl.store(to + n, by_b.to(by_wide.dtype.element_ty), mask=is_n)
                    tl.store(to + N + n, by_c.to(by_wide.dtype.element_ty), mask=is_n)
                    tl.store(by_u_row + at * C + c, by_x.to(by_u.dtype.element_ty), mask=mask)
    partial += (direction * groups + group) * C * (N + 2)
    tl.store(partial + saved, by_a * a * (1.0 / LOG2E), mask=is_saved)  # by A_log: dA · A
    tl.store(partial + C * N + c, by_bias, mask=is_c)
    tl.store(partial + C * N + C + c, by_d, mask=is_c)
