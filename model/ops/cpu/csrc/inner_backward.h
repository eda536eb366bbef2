/* The gradients of inner.h. They are computed chunk by chunk, from a sequence's last chunk to its
 * first; each chunk is computed again from the state kept at its start. */
#pragma once
#include "inner.h"

typedef struct {
    Stage stage;
    Trace trace;
    float *grad_y, *grad_gate, *grad_u, *grad_delta; /* (chunk, channels) */
    float *grad_projected;               /* (chunk, projected) */
    float *grad_conv; /* (chunk + taps - 1, channels): of the chunk and of the steps after it */
    float *carry;     /* (states, channels) */
    Packed grads[DIRECTIONS]; /* sums */
} BackwardScratch;

static BackwardScratch take_backward_scratch(Arena *arena, const Shape *s, const Padded *p) {
    BackwardScratch b = {0};
    int64_t dense = p->chunk * p->channels;
    b.stage = take_stage(arena, s, p, 1);
    b.trace = trace_in(take(arena, TRACE_FLOATS));
    b.grad_y = take(arena, dense);
    b.grad_gate = take(arena, dense);
    b.grad_u = take(arena, dense);
    b.grad_delta = take(arena, dense);
    b.grad_projected = take(arena, p->chunk * p->projected);
    b.grad_conv = take(arena, dense + (s->taps - 1) * p->channels);
    b.carry = take(arena, p->states * p->channels);
    return b;
}

static void take_inner_grads(Arena *arena, const Shape *s, const Padded *p, Packed *grads) {
    for (int d = 0; d < DIRECTIONS; d++) grads[d] = take_packed(arena, s, p, 0);
}

/* Back through the gate: grad_y, and grad_gate, z's gradient without its factor y, which is not known
 * yet. */
INLINE void gate_backward(const Shape *s, const Padded *p, Rows grad_out, Rows z, int64_t first,
                          int64_t steps, float *grad_y, float *grad_gate) {
    for (int64_t t = 0; t < steps; t++) {
        const float *g = grad_out.first + (first + t) * grad_out.stride;
        const float *gate = z.first + (first + t) * z.stride;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            vec zv = load_part(gate + c, s->channels - c), sv = sigmoid(zv);
            vec half = 0.5f * load_part(g + c, s->channels - c);
            store(grad_y + t * p->channels + c, half * zv * sv);
            store(grad_gate + t * p->channels + c, half * silu_slope(zv, sv));
        }
    }
}

/* z's gradient: grad_gate times y. With `add`, it is added to that of the other direction. */
INLINE void gate_gradient(const Shape *s, const Padded *p, int64_t first, int64_t steps,
                          const float *y, const float *grad_gate, Rows grad_z, int add) {
    for (int64_t t = 0; t < steps; t++) {
        float *to = grad_z.first + (first + t) * grad_z.stride;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t count = s->channels - c, at = t * p->channels + c;
            vec grad = load(grad_gate + at) * load(y + at);
            store_part(to + c, add ? grad + load_part(to + c, count) : grad, count);
        }
    }
}

/* Back through softplus, dt_proj and x_proj. grad_u holds the scan's share of u's gradient; the share
 * of the projections is added to it. */
INLINE void projection_backward(const Shape *s, const Padded *p, const Packed *w, int64_t steps,
                                const BackwardScratch *b, const Packed *g) {
    const int64_t channels = p->channels, projected = p->projected, dt = 2 * p->states;
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum = {};
        for (int64_t t = 0; t < steps; t++) {
            int64_t at = t * channels + c;
            vec raw = load(b->grad_delta + at) * load(b->stage.delta_slope + at);
            store(b->grad_delta + at, raw);
            sum += raw;
        }
        add_to(g->dt_bias + c, sum);
    }
    gemm(steps, channels, p->rank, (Strided){b->grad_delta, channels, 1}, w->dt_proj_t, p->rank,
         b->grad_projected + dt, projected, 0);
    gemm(s->rank, steps, channels, (Strided){b->stage.projected + dt, 1, projected}, b->grad_delta,
         channels, g->dt_proj, channels, 1);
    gemm(steps, p->used, channels, (Strided){b->grad_projected, projected, 1}, w->x_proj,
         channels, b->grad_u, channels, 1);
    gemm(p->used, steps, channels, (Strided){b->grad_projected, 1, projected}, b->stage.u,
         channels, g->x_proj, channels, 1);
}

/* Back through SiLU and the convolution to x. A constant number of taps unrolls. */
INLINE void conv_backward(const Shape *s, const Padded *p, const Packed *w, int64_t first,
                          int64_t steps, const BackwardScratch *b, Rows grad_x, int add,
                          const Packed *g, const int taps) {
    const int64_t channels = p->channels;
    /* A step's x reaches the taps - 1 steps after it: keep the first rows of the following chunk. */
    memmove(b->grad_conv + steps * channels, b->grad_conv, (taps - 1) * channels * sizeof(float));
    for (int64_t i = 0; i < steps * channels; i += LANES)
        store(b->grad_conv + i, load(b->grad_u + i) * load(b->stage.silu_slope + i));
    for (int64_t c = 0; c < channels; c += LANES) {
        const int64_t count = s->channels - c;
        vec bias = {}, by_weight[MAX_TAPS], weight[MAX_TAPS];
        UNROLL for (int k = 0; k < taps; k++) {
            weight[k] = load(w->conv_weight + k * channels + c);
            by_weight[k] = (vec){};
        }
        for (int64_t t = 0; t < steps; t++) {
            vec grad = load(b->grad_conv + t * channels + c), by_x = {};
            bias += grad;
            UNROLL for (int k = 0; k < taps; k++) {
                by_weight[k] += grad * load(b->stage.x + (t + k) * channels + c);
                by_x += weight[k] * load(b->grad_conv + (t + taps - 1 - k) * channels + c);
            }
            if (count <= 0) continue; /* padding */
            float *to = grad_x.first + (first + t) * grad_x.stride + c;
            store_part(to, add ? by_x + load_part(to, count) : by_x, count);
        }
        add_to(g->conv_bias + c, bias);
        UNROLL for (int k = 0; k < taps; k++) add_to(g->conv_weight + k * channels + c, by_weight[k]);
    }
}

static void inner_backward_row(const Inner *in, const InnerGrads *grads, const Padded *p,
                               const Packed *packed, int64_t row, const BackwardScratch *b) {
    const Shape *s = &in->shape;
    const size_t state_bytes = p->states * p->channels * sizeof(float);
    for (int direction = 0; direction < DIRECTIONS; direction++) {
        const Packed *w = packed + direction, *g = b->grads + direction;
        Rows x = rows_of(&in->x[direction], s, row, direction), z = rows_of(&in->z, s, row, direction);
        Rows grad_out = rows_of(&in->out, s, row, direction);
        Rows grad_x = rows_of(&grads->x[direction], s, row, direction);
        Rows grad_z = rows_of(&grads->z, s, row, direction);
        int same_x = direction && grads->x[0].data == grads->x[1].data;
        memset(b->carry, 0, state_bytes);
        memset(b->grad_conv, 0, (s->taps - 1) * p->channels * sizeof(float));
        for (int64_t index = p->kept; index >= 0; index--) {
            int64_t first = index * p->chunk, steps = smaller(p->chunk, s->length - first);
            if (index > 1) /* the next state arrives from memory while this chunk is computed */
                prefetch(kept_state(in, p, direction, row, index - 1), p->states * p->channels);
            const float *state =
                index ? kept_state(in, p, direction, row, index) : b->stage.zeros;
            Chunk chunk = prepare_chunk(s, p, w, x, first, steps, &b->stage);
            gate_backward(s, p, grad_out, z, first, steps, b->grad_y, b->grad_gate);
            ChunkGrads chunk_grads = {
                b->grad_u,  b->grad_delta, b->grad_projected, b->grad_projected + p->states,
                p->projected, g->A, g->D};
            scan_chunk_backward(&chunk, state, b->grad_y, b->stage.y, b->carry, &b->trace,
                                &chunk_grads);
            gate_gradient(s, p, first, steps, b->stage.y, b->grad_gate, grad_z, direction);
            projection_backward(s, p, w, steps, b, g);
            if (s->taps == MAX_TAPS)
                conv_backward(s, p, w, first, steps, b, grad_x, same_x, g, MAX_TAPS);
            else
                conv_backward(s, p, w, first, steps, b, grad_x, same_x, g, (int)s->taps);
        }
    }
}
