/* The gradients of inner.h. Each chunk is recomputed from the state kept at its start, and swept
 * from the sequence's last chunk to its first. */
#pragma once
#include "inner.h"

typedef struct {
    Stage stage;
    Trace trace;
    float *grad_y, *grad_u, *grad_delta; /* (chunk, channels) */
    float *grad_projected;               /* (chunk, projected) */
    float *grad_conv; /* (chunk + taps - 1, channels): and of the steps after the chunk */
    float *carry;     /* (states, channels) */
    Packed grads[DIRECTIONS];
} BackwardScratch;

static BackwardScratch take_backward_scratch(Arena *arena, const Shape *s, const Padded *p) {
    BackwardScratch b;
    int64_t dense = p->chunk * p->channels;
    b.stage = take_stage(arena, s, p, 1);
    b.trace = trace_in(take(arena, TRACE_FLOATS));
    b.grad_y = take(arena, dense);
    b.grad_u = take(arena, dense);
    b.grad_delta = take(arena, dense);
    b.grad_projected = take(arena, p->chunk * p->projected);
    b.grad_conv = take(arena, dense + (s->taps - 1) * p->channels);
    b.carry = take(arena, p->states * p->channels);
    for (int d = 0; d < DIRECTIONS; d++) b.grads[d] = take_packed(arena, s, p, 0);
    return b;
}

/* d SiLU(x) / dx, from x and sigmoid(x). */
INLINE vec silu_slope(vec x, vec s) { return s + x * s * (1.0f - s); }

/* Through the gate: grad_y, and z's gradient but for the factor y, which is not known yet. */
INLINE void gate_backward(const Shape *s, const Padded *p, Rows grad_out, Rows z, int64_t first,
                          int64_t steps, float *grad_y) {
    for (int64_t t = 0; t < steps; t++) {
        const float *g = grad_out.first + (first + t) * grad_out.stride;
        const float *gate = z.first + (first + t) * z.stride;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            vec zv = load_part(gate + c, s->channels - c);
            vec gv = load_part(g + c, s->channels - c);
            store(grad_y + t * p->channels + c, 0.5f * gv * zv * sigmoid(zv));
        }
    }
}

INLINE void gate_gradient(const Shape *s, const Padded *p, Rows grad_out, Rows z, int64_t first,
                          int64_t steps, const float *y, Rows grad_z, int add) {
    for (int64_t t = 0; t < steps; t++) {
        const float *g = grad_out.first + (first + t) * grad_out.stride;
        const float *gate = z.first + (first + t) * z.stride;
        float *to = grad_z.first + (first + t) * grad_z.stride;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t count = s->channels - c;
            vec zv = load_part(gate + c, count), gv = load_part(g + c, count);
            vec grad = 0.5f * gv * load(y + t * p->channels + c) * silu_slope(zv, sigmoid(zv));
            store_part(to + c, add ? grad + load_part(to + c, count) : grad, count);
        }
    }
}

/* Back through dt_proj, x_proj and their softplus, to the derivative by the scan's input u, to
 * which grad_u (already the scan's own share of it) is completed. */
INLINE void projection_backward(const Shape *s, const Padded *p, const Packed *w, int64_t steps,
                                const BackwardScratch *b, const Packed *g) {
    const int64_t channels = p->channels, projected = p->projected;
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum = load(g->dt_bias + c);
        for (int64_t t = 0; t < steps; t++) {
            int64_t at = t * channels + c;
            vec raw = load(b->grad_delta + at) * sigmoid(load(b->stage.raw_delta + at));
            store(b->grad_delta + at, raw);
            sum += raw;
        }
        store(g->dt_bias + c, sum);
    }
    gemm(steps, channels, p->rank, (Strided){b->grad_delta, channels, 1}, w->dt_proj_t, p->rank,
         b->grad_projected, projected, 0);
    gemm(s->rank, steps, channels, (Strided){b->stage.projected, 1, projected}, b->grad_delta,
         channels, g->dt_proj, channels, 1);
    gemm(steps, projected, channels, (Strided){b->grad_projected, projected, 1}, w->x_proj,
         channels, b->grad_u, channels, 1);
    gemm(projected, steps, channels, (Strided){b->grad_projected, 1, projected}, b->stage.u,
         channels, g->x_proj, channels, 1);
}

/* Back through SiLU and the convolution to x. */
INLINE void conv_backward(const Shape *s, const Padded *p, const Packed *w, int64_t first,
                          int64_t steps, const BackwardScratch *b, Rows grad_x, int add,
                          const Packed *g) {
    const int64_t channels = p->channels, taps = s->taps;
    /* A step's x reaches the taps - 1 steps after it: keep the first rows of the chunk after. */
    memmove(b->grad_conv + steps * channels, b->grad_conv, (taps - 1) * channels * sizeof(float));
    for (int64_t i = 0; i < steps * channels; i += LANES) {
        vec conv = load(b->stage.conv + i);
        store(b->grad_conv + i, load(b->grad_u + i) * silu_slope(conv, sigmoid(conv)));
    }
    for (int64_t t = 0; t < steps; t++) {
        float *to = grad_x.first + (first + t) * grad_x.stride;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t count = s->channels - c;
            vec sum = add ? load_part(to + c, count) : (vec){};
            for (int64_t k = 0; k < taps; k++)
                sum += load(b->grad_conv + (t + taps - 1 - k) * channels + c) *
                       load(w->conv_weight + k * channels + c);
            store_part(to + c, sum, count);
        }
    }
    for (int64_t c = 0; c < channels; c += LANES) {
        vec bias = load(g->conv_bias + c), weight[MAX_TAPS];
        for (int64_t k = 0; k < taps; k++) weight[k] = load(g->conv_weight + k * channels + c);
        for (int64_t t = 0; t < steps; t++) {
            vec grad = load(b->grad_conv + t * channels + c);
            bias += grad;
            for (int64_t k = 0; k < taps; k++)
                weight[k] += grad * load(b->stage.x + (t + k) * channels + c);
        }
        store(g->conv_bias + c, bias);
        for (int64_t k = 0; k < taps; k++) store(g->conv_weight + k * channels + c, weight[k]);
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
            float *state = b->stage.state;
            if (index)
                memcpy(state, kept_state(in, p, direction, row, index), state_bytes);
            else
                memset(state, 0, state_bytes);
            Chunk chunk = prepare_chunk(s, p, w, x, first, steps, &b->stage);
            gate_backward(s, p, grad_out, z, first, steps, b->grad_y);
            ChunkGrads chunk_grads = {
                b->grad_u, b->grad_delta, b->grad_projected + p->rank,
                b->grad_projected + p->rank + p->states, p->projected, g->A, g->D};
            scan_chunk_backward(&chunk, state, b->grad_y, b->stage.y, b->carry, &b->trace,
                                &chunk_grads);
            gate_gradient(s, p, grad_out, z, first, steps, b->stage.y, grad_z, direction);
            projection_backward(s, p, w, steps, b, g);
            conv_backward(s, p, w, first, steps, b, grad_x, same_x, g);
        }
    }
}
