/* The recurrence of one chunk of steps, forward and backward, on dense scratch buffers.
 *
 *   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t      y_t = C_t . h_t + D u_t
 *
 * Rows are steps in the order in which they are scanned (a reversed sequence lies in the buffers in
 * reversed order). Channels are padded to whole vectors and states to whole blocks; nobody reads the
 * results of the padding. A block of STATE_BLOCK states of LANES channels stays in registers through
 * a whole chunk. A is multiplied by log2(e) before, so that the decay is one exp2.
 */
#pragma once
#include "vector.h"

/* States that are computed together. The forward takes as many as leave registers for the rest (there
 * are 32 with AVX-512, else 16 or more); the backward (TRACE_BLOCK) takes as many as let all values
 * of a chunk fit into the first-level cache. */
#define STATE_BLOCK LANES
#define TRACE_BLOCK 8
#define MAX_CHUNK 18

/* The steps of a chunk. For the backward, the state at each chunk's start is kept; the values inside
 * a chunk are computed again. The chunks are about equally long, so none is tiny. */
INLINE int64_t chunk_steps(int64_t length) {
    int64_t chunks = (length + MAX_CHUNK - 1) / MAX_CHUNK;
    return chunks ? (length + chunks - 1) / chunks : 1;
}

typedef struct {
    int64_t steps, channels, states; /* channels and states padded */
    const float *delta, *u;          /* (steps, channels) */
    const float *B, *C;              /* (steps, states) with row stride `width` */
    int64_t width;
    const float *A2; /* (states, channels): A log2(e) */
    const float *D;  /* (channels) */
} Chunk;

/* One block of states of one vector of channels, from the state `from` to the state `to`. Adds to y
 * (the block at n = 0 starts it). With `trace`, it writes the states and decays of every step for the
 * backward, and no last state. */
INLINE void scan_block(const Chunk *k, int64_t n, int64_t channel, const float *from, float *to,
                       float *y, vec *states, vec *decays, const int trace) {
    const int block = trace ? TRACE_BLOCK : STATE_BLOCK;
    vec h[STATE_BLOCK], a[STATE_BLOCK], d = load(k->D + channel);
    UNROLL for (int i = 0; i < block; i++) {
        h[i] = load(from + (n + i) * k->channels + channel);
        a[i] = load(k->A2 + (n + i) * k->channels + channel);
    }
    for (int64_t t = 0; t < k->steps; t++) {
        int64_t at = t * k->channels + channel;
        vec delta = load(k->delta + at), u = load(k->u + at), input = delta * u;
        vec even = n ? load(y + at) : d * u, odd = (vec){};
        const float *B = k->B + t * k->width + n, *C = k->C + t * k->width + n;
        UNROLL for (int i = 0; i < block; i++) {
            vec decay = exp2_vec(delta * a[i]);
            h[i] = decay * h[i] + input * B[i];
            if (trace) {
                states[t * TRACE_BLOCK + i] = h[i];
                decays[t * TRACE_BLOCK + i] = decay;
            }
            if (i & 1) /* two sums: a shorter chain of dependent additions */
                odd += h[i] * C[i];
            else
                even += h[i] * C[i];
        }
        store(y + at, even + odd);
    }
    if (!trace)
        UNROLL for (int i = 0; i < block; i++)
            store(to + (n + i) * k->channels + channel, h[i]);
}

/* Computes y of a chunk, and the state (states, channels) at its end from the state at its start. */
INLINE void scan_chunk(const Chunk *k, const float *from, float *to, float *y) {
    for (int64_t n = 0; n < k->states; n += STATE_BLOCK)
        for (int64_t channel = 0; channel < k->channels; channel += LANES)
            scan_block(k, n, channel, from, to, y, NULL, NULL, 0);
}

typedef struct {
    float *u, *delta; /* (steps, channels), written */
    float *B, *C;     /* (steps, states) with row stride `width`, written */
    int64_t width;
    float *A; /* (states, channels), added to; the gradient of A, not of A log2(e) */
    float *D; /* (channels), added to */
} ChunkGrads;

/* Scratch of scan_chunk_backward. */
typedef struct {
    vec *states, *decays; /* (steps, TRACE_BLOCK) */
    vec *sums;            /* (steps, 2 * TRACE_BLOCK): dB and dC before the sum over lanes */
} Trace;

#define TRACE_FLOATS (4 * MAX_CHUNK * TRACE_BLOCK * LANES)
INLINE Trace trace_in(float *scratch) {
    vec *v = (vec *)scratch;
    return (Trace){v, v + MAX_CHUNK * TRACE_BLOCK, v + 2 * MAX_CHUNK * TRACE_BLOCK};
}

/* The reverse sweep over the trace of scan_block. `carry` (states, channels) holds the gradient of
 * the state at the chunk's end, and then that of the state at its start. The `first` vector of
 * channels starts the sums of dB and dC. */
INLINE void sweep_block(const Chunk *k, int64_t n, int64_t channel, const float *state,
                        const float *grad_y, float *carry, const Trace *trace,
                        const ChunkGrads *grads, const int first) {
    vec g[TRACE_BLOCK], dA[TRACE_BLOCK], d = load(k->D + channel), dD = {};
    UNROLL for (int i = 0; i < TRACE_BLOCK; i++) {
        g[i] = load(carry + (n + i) * k->channels + channel);
        dA[i] = (vec){};
    }
    const float *A2 = k->A2 + n * k->channels + channel;
    for (int64_t t = k->steps - 1; t >= 0; t--) {
        int64_t at = t * k->channels + channel;
        vec delta = load(k->delta + at), u = load(k->u + at), input = delta * u;
        vec gy = load(grad_y + at);
        const vec *h = trace->states + t * TRACE_BLOCK, *decay = trace->decays + t * TRACE_BLOCK;
        const float *B = k->B + t * k->width + n, *C = k->C + t * k->width + n;
        vec *dB = trace->sums + 2 * t * TRACE_BLOCK, *dC = dB + TRACE_BLOCK;
        vec by_input = (vec){}, by_exponent = (vec){};
        UNROLL for (int i = 0; i < TRACE_BLOCK; i++) {
            vec a = load(A2 + i * k->channels);
            vec before = t ? h[i - TRACE_BLOCK] : load(state + (n + i) * k->channels + channel);
            vec by_h = g[i] + gy * C[i];
            g[i] = decay[i] * by_h;
            vec exponent = g[i] * before; /* the gradient of delta_t A */
            by_input += by_h * B[i];
            by_exponent += exponent * a;
            dA[i] += exponent * delta;
            dB[i] = first ? by_h * input : dB[i] + by_h * input;
            dC[i] = first ? gy * h[i] : dC[i] + gy * h[i];
        }
        vec by_u = by_input * delta, by_delta = by_input * u + by_exponent * (1.0f / LOG2_E);
        if (n == 0) {
            dD += gy * u;
            by_u += gy * d;
        } else {
            by_u += load(grads->u + at);
            by_delta += load(grads->delta + at);
        }
        store(grads->u + at, by_u);
        store(grads->delta + at, by_delta);
    }
    UNROLL for (int i = 0; i < TRACE_BLOCK; i++) {
        store(carry + (n + i) * k->channels + channel, g[i]);
        add_to(grads->A + (n + i) * k->channels + channel, dA[i]);
    }
    add_to(grads->D + channel, dD);
}

/* All gradients of a chunk from grad_y (steps, channels); also its y, recomputed from `state`. */
INLINE void scan_chunk_backward(const Chunk *k, const float *state, const float *grad_y, float *y,
                                float *carry, const Trace *trace, const ChunkGrads *grads) {
    for (int64_t n = 0; n < k->states; n += TRACE_BLOCK) {
        for (int64_t channel = 0; channel < k->channels; channel += LANES) {
            scan_block(k, n, channel, state, NULL, y, trace->states, trace->decays, 1);
            if (channel)
                sweep_block(k, n, channel, state, grad_y, carry, trace, grads, 0);
            else
                sweep_block(k, n, channel, state, grad_y, carry, trace, grads, 1);
        }
        for (int64_t t = 0; t < k->steps; t++) {
            float sums[2 * TRACE_BLOCK]; /* of dB, then of dC */
            for (int i = 0; i < 2 * TRACE_BLOCK; i += LANES)
                store(sums + i, lane_sums(trace->sums + 2 * t * TRACE_BLOCK + i));
            memcpy(grads->B + t * grads->width + n, sums, sizeof(sums) / 2);
            memcpy(grads->C + t * grads->width + n, sums + TRACE_BLOCK, sizeof(sums) / 2);
        }
    }
}
