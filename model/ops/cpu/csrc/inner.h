/* The inside of a bidirectional Mamba mixer, fused: for each direction a depthwise causal
 * convolution, SiLU, the projections to dt, B and C, softplus and the scan; then
 * out = 0.5 (y_forward + y_backward) SiLU(z).
 *
 * A sequence is computed in chunks of steps, which stay in the cache from one stage to the next.
 * Nothing is flipped: the backward direction walks its rows from the last to the first.
 */
#pragma once
#include "arena.h"
#include "gemm.h"
#include "scan.h"
#include "structures.h" /* written by the build, see abi.py */

enum { DIRECTIONS = 2, MAX_TAPS = 4 };

/* Padded sizes: channels and rank to vectors, states to blocks. */
typedef struct {
    int64_t channels, states, rank;
    int64_t projected, used; /* columns of B | C | dt; the same without dt's padding */
    int64_t chunk, kept;     /* steps of a chunk; states kept for the backward */
} Padded;

INLINE Padded padded_sizes(const Shape *s) {
    Padded p;
    p.channels = round_up(s->channels, LANES);
    p.states = round_up(s->states, STATE_BLOCK);
    p.rank = round_up(s->rank, LANES);
    p.projected = 2 * p.states + p.rank;
    p.used = 2 * p.states + s->rank;
    p.chunk = chunk_steps(s->length);
    p.kept = s->length ? (s->length - 1) / p.chunk : 0;
    return p;
}

/* The weights of one direction, padded with zeros and laid out for vectors of channels. Their
 * gradients are summed in the same layout (the transposes have none). */
typedef struct {
    float *conv_weight; /* (taps, channels) */
    float *conv_bias;   /* (channels) */
    float *x_proj;      /* (projected, channels) */
    float *x_proj_t;    /* (channels, projected) */
    float *dt_proj;     /* (rank, channels) */
    float *dt_proj_t;   /* (channels, rank) */
    float *dt_bias;     /* (channels) */
    float *A;           /* (states, channels): as weights A log2(e), as gradients those of A */
    float *D;           /* (channels) */
} Packed;

static Packed take_packed(Arena *arena, const Shape *s, const Padded *p, int transposes) {
    Packed w;
    w.conv_weight = take(arena, s->taps * p->channels);
    w.conv_bias = take(arena, p->channels);
    w.x_proj = take(arena, p->projected * p->channels);
    w.dt_proj = take(arena, p->rank * p->channels);
    w.dt_bias = take(arena, p->channels);
    w.A = take(arena, p->states * p->channels);
    w.D = take(arena, p->channels);
    w.x_proj_t = transposes ? take(arena, p->channels * p->projected) : NULL;
    w.dt_proj_t = transposes ? take(arena, p->channels * p->rank) : NULL;
    return w;
}

/* Row of the padded projection that holds row r of x_proj, whose rows are dt | B | C. */
INLINE int64_t projected_row(const Shape *s, const Padded *p, int64_t r) {
    if (r < s->rank) return 2 * p->states + r;
    r -= s->rank;
    return r < s->states ? r : p->states + (r - s->states);
}

/* The memory of w must be zero. */
static void pack(const Shape *s, const Padded *p, const DirectionWeights *from, const Packed *w) {
    for (int64_t c = 0; c < s->channels; c++) {
        for (int64_t k = 0; k < s->taps; k++)
            w->conv_weight[k * p->channels + c] = from->conv_weight[c * s->taps + k];
        for (int64_t r = 0; r < s->rank; r++) {
            w->dt_proj[r * p->channels + c] = from->dt_proj[c * s->rank + r];
            w->dt_proj_t[c * p->rank + r] = from->dt_proj[c * s->rank + r];
        }
        for (int64_t n = 0; n < s->states; n++)
            w->A[n * p->channels + c] = -expf(from->A_log[c * s->states + n]) * LOG2_E;
    }
    for (int64_t r = 0; r < s->rank + 2 * s->states; r++) {
        int64_t row = projected_row(s, p, r);
        for (int64_t c = 0; c < s->channels; c++) {
            w->x_proj[row * p->channels + c] = from->x_proj[r * s->channels + c];
            w->x_proj_t[c * p->projected + row] = from->x_proj[r * s->channels + c];
        }
    }
    memcpy(w->conv_bias, from->conv_bias, s->channels * sizeof(float));
    memcpy(w->dt_bias, from->dt_bias, s->channels * sizeof(float));
    memcpy(w->D, from->D, s->channels * sizeof(float));
}

/* The reverse of pack(): writes g, the summed gradients of the weights `of`, in PyTorch's layout. */
static void unpack(const Shape *s, const Padded *p, const Packed *g, const DirectionWeights *of,
                   const DirectionWeights *to) {
    for (int64_t c = 0; c < s->channels; c++) {
        for (int64_t k = 0; k < s->taps; k++)
            to->conv_weight[c * s->taps + k] = g->conv_weight[k * p->channels + c];
        for (int64_t r = 0; r < s->rank; r++)
            to->dt_proj[c * s->rank + r] = g->dt_proj[r * p->channels + c];
        for (int64_t n = 0; n < s->states; n++) /* dA / dA_log = A */
            to->A_log[c * s->states + n] =
                g->A[n * p->channels + c] * -expf(of->A_log[c * s->states + n]);
    }
    for (int64_t r = 0; r < s->rank + 2 * s->states; r++)
        memcpy(to->x_proj + r * s->channels, g->x_proj + projected_row(s, p, r) * p->channels,
               s->channels * sizeof(float));
    memcpy(to->conv_bias, g->conv_bias, s->channels * sizeof(float));
    memcpy(to->dt_bias, g->dt_bias, s->channels * sizeof(float));
    memcpy(to->D, g->D, s->channels * sizeof(float));
}

/* Rows of one sequence of a tensor, in the order a direction walks them. */
typedef struct {
    float *first;
    int64_t stride; /* negative for the backward direction */
} Rows;

INLINE Rows rows_of(const View *view, const Shape *s, int64_t row, int reverse) {
    float *start = view->data + row / s->inner * view->outer + row % s->inner * view->inner;
    if (reverse) return (Rows){start + (s->length - 1) * view->step, -view->step};
    return (Rows){start, view->step};
}

/* The last vector of a row may hold fewer than LANES channels. */
INLINE vec load_part(const float *p, int64_t count) {
    if (count >= LANES) return load(p);
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < count; i++) lanes[i] = p[i];
    return load(lanes);
}
INLINE void store_part(float *p, vec v, int64_t count) {
    if (count >= LANES) {
        store(p, v);
        return;
    }
    for (int64_t i = 0; i < count; i++) p[i] = v[i];
}

/* What one direction computes for one chunk. */
typedef struct {
    float *x;         /* (taps - 1 + chunk, channels): the input, with the steps before */
    float *u;         /* (chunk, channels): after convolution and SiLU, the scan's input */
    float *projected; /* (chunk, projected): B | C | dt */
    float *delta;     /* (chunk, channels) */
    float *y;         /* (chunk, channels) */
    float *state;     /* (states, channels) */
    float *zeros;     /* (states, channels): the state at the start, never written */
    float *silu_slope, *delta_slope; /* (chunk, channels): derivatives of SiLU and softplus at their
                                        inputs; NULL in the forward */
} Stage;

static Stage take_stage(Arena *arena, const Shape *s, const Padded *p, int for_backward) {
    Stage stage;
    int64_t dense = p->chunk * p->channels;
    stage.x = take(arena, (s->taps - 1) * p->channels + dense);
    stage.u = take(arena, dense);
    stage.projected = take(arena, p->chunk * p->projected);
    stage.delta = take(arena, dense);
    stage.y = take(arena, dense);
    stage.state = take(arena, p->states * p->channels);
    stage.zeros = take(arena, p->states * p->channels);
    stage.silu_slope = for_backward ? take(arena, dense) : NULL;
    stage.delta_slope = for_backward ? take(arena, dense) : NULL;
    return stage;
}

/* d SiLU(x) / dx, from x and sigmoid(x). */
INLINE vec silu_slope(vec x, vec s) { return s + x * s * (1.0f - s); }

/* Convolution and SiLU. A constant number of taps unrolls. */
INLINE void convolve(const Padded *p, const Packed *w, int64_t steps, const Stage *stage,
                     const int taps) {
    const int64_t channels = p->channels;
    for (int64_t t = 0; t < steps; t++)
        for (int64_t c = 0; c < channels; c += LANES) {
            vec conv = load(w->conv_bias + c);
            UNROLL for (int k = 0; k < taps; k++)
                conv += load(stage->x + (t + k) * channels + c) *
                        load(w->conv_weight + k * channels + c);
            vec gate = sigmoid(conv);
            store(stage->u + t * channels + c, conv * gate);
            if (stage->silu_slope)
                store(stage->silu_slope + t * channels + c, silu_slope(conv, gate));
        }
}

/* Computes the scan's inputs for the steps [first, first + steps). */
INLINE Chunk prepare_chunk(const Shape *s, const Padded *p, const Packed *w, Rows x, int64_t first,
                           int64_t steps, const Stage *stage) {
    const int64_t channels = p->channels, before = s->taps - 1;
    for (int64_t t = 0; t < steps + before; t++) {
        float *row = stage->x + t * channels;
        int64_t step = first + t - before;
        const float *from = x.first + step * x.stride;
        for (int64_t c = 0; c < channels; c += LANES)
            store(row + c, step < 0 ? (vec){} : load_part(from + c, s->channels - c));
    }
    if (s->taps == MAX_TAPS)
        convolve(p, w, steps, stage, MAX_TAPS);
    else
        convolve(p, w, steps, stage, (int)s->taps);
    gemm(steps, channels, p->projected, (Strided){stage->u, channels, 1}, w->x_proj_t,
         p->projected, stage->projected, p->projected, 0);
    for (int64_t t = 0; t < steps; t++)
        for (int64_t c = 0; c < channels; c += LANES) {
            const float *dt = stage->projected + t * p->projected + 2 * p->states;
            vec raw = load(w->dt_bias + c);
            for (int64_t r = 0; r < s->rank; r++)
                raw += load(w->dt_proj + r * channels + c) * dt[r];
            vec e;
            store(stage->delta + t * channels + c, softplus(raw, &e));
            if (stage->delta_slope)
                store(stage->delta_slope + t * channels + c, softplus_slope(raw, e));
        }
    return (Chunk){steps, channels, p->states, stage->delta, stage->u,
                   stage->projected, stage->projected + p->states, p->projected, w->A, w->D};
}

INLINE float *kept_state(const Inner *in, const Padded *p, int direction, int64_t row,
                         int64_t chunk) {
    int64_t rows = in->shape.outer * in->shape.inner;
    return in->states +
           ((direction * rows + row) * p->kept + chunk - 1) * p->states * p->channels;
}

/* Both directions of one sequence. */
static void inner_forward_row(const Inner *in, const Padded *p, const Packed *packed, int64_t row,
                              const Stage *stage) {
    const Shape *s = &in->shape;
    for (int direction = 0; direction < DIRECTIONS; direction++) {
        const Packed *w = packed + direction;
        const float *state = stage->zeros;
        Rows x = rows_of(&in->x[direction], s, row, direction), z = rows_of(&in->z, s, row, direction);
        Rows out = rows_of(&in->out, s, row, direction);
        for (int64_t first = 0; first < s->length; first += p->chunk) {
            int64_t steps = smaller(p->chunk, s->length - first);
            int keep = in->states && first + steps < s->length;
            float *after =
                keep ? kept_state(in, p, direction, row, first / p->chunk + 1) : stage->state;
            Chunk chunk = prepare_chunk(s, p, w, x, first, steps, stage);
            scan_chunk(&chunk, state, after, stage->y);
            state = after;
            for (int64_t t = 0; t < steps; t++) {
                float *to = out.first + (first + t) * out.stride;
                const float *gate = z.first + (first + t) * z.stride;
                for (int64_t c = 0; c < s->channels; c += LANES) {
                    int64_t count = s->channels - c;
                    vec y = load(stage->y + t * p->channels + c);
                    if (direction) {
                        vec g = load_part(gate + c, count);
                        y = (y + load_part(to + c, count)) * (0.5f * g * sigmoid(g));
                    }
                    store_part(to + c, y, count);
                }
            }
        }
    }
}
