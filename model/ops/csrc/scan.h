/* The recurrence of one chunk of steps, forward and backward, on dense scratch buffers.
 *
 *   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t      y_t = C_t . h_t + D u_t
 *
 * Rows are steps in the order they are scanned (a reversed sequence is staged in reversed order).
 * Channels are padded to whole vectors and states to whole blocks; the padding computes numbers
 * nobody reads. A block of STATE_BLOCK states of LANES channels stays in registers through a whole
 * chunk. A is given times log2(e), so that the decay is one exp2.
 */
#pragma once
#include "vector.h"

/* As many states as leave registers for the rest: there are 32 with AVX-512, else 16 (or more). */
#define STATE_BLOCK LANES

#if LANES == 16
#define MAX_CHUNK 9
#else
#define MAX_CHUNK 18
#endif

/* Steps a chunk: the backward keeps the state at each chunk's start and everything inside the
 * chunk it works on, which should fit the first-level cache. Even chunks, so none is tiny. */
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

/* One block of states of one vector of channels. Adds to y (the block at n = 0 starts it). If
 * `trace` is given, keeps every step's states and decays there for the backward. */
INLINE void scan_block(const Chunk *k, int64_t n, int64_t channel, float *state, float *y,
                       vec *states, vec *decays, const int trace) {
    vec h[STATE_BLOCK], a[STATE_BLOCK], d = load(k->D + channel);
    UNROLL for (int i = 0; i < STATE_BLOCK; i++) {
        h[i] = load(state + (n + i) * k->channels + channel);
        a[i] = load(k->A2 + (n + i) * k->channels + channel);
    }
    for (int64_t t = 0; t < k->steps; t++) {
        int64_t at = t * k->channels + channel;
        vec delta = load(k->delta + at), u = load(k->u + at), input = delta * u;
        vec even = n ? load(y + at) : d * u, odd = (vec){};
        const float *B = k->B + t * k->width + n, *C = k->C + t * k->width + n;
        UNROLL for (int i = 0; i < STATE_BLOCK; i++) {
            vec decay = exp2_vec(delta * a[i]);
            h[i] = decay * h[i] + input * B[i];
            if (trace) {
                states[t * STATE_BLOCK + i] = h[i];
                decays[t * STATE_BLOCK + i] = decay;
            }
            if (i & 1) /* two sums: a shorter chain of dependent additions */
                odd += h[i] * C[i];
            else
                even += h[i] * C[i];
        }
        store(y + at, even + odd);
    }
    if (!trace) /* with a trace, `state` must stay what it was at the chunk's start */
        UNROLL for (int i = 0; i < STATE_BLOCK; i++)
            store(state + (n + i) * k->channels + channel, h[i]);
}

/* y of the chunk; `state` (states, channels) goes from the chunk's start to its end. */
INLINE void scan_chunk(const Chunk *k, float *state, float *y) {
    for (int64_t n = 0; n < k->states; n += STATE_BLOCK)
        for (int64_t channel = 0; channel < k->channels; channel += LANES)
            scan_block(k, n, channel, state, y, NULL, NULL, 0);
}

typedef struct {
    float *u, *delta; /* (steps, channels), written */
    float *B, *C;     /* (steps, states) with row stride `width`, written */
    int64_t width;
    float *A; /* (states, channels), added to: by A, not A log2(e) */
    float *D; /* (channels), added to */
} ChunkGrads;

/* Scratch of scan_chunk_backward. */
typedef struct {
    vec *states, *decays; /* (steps, STATE_BLOCK) */
    vec *sums;            /* (steps, 2 * STATE_BLOCK): dB and dC before the sum over lanes */
} Trace;

#define TRACE_FLOATS (4 * MAX_CHUNK * STATE_BLOCK * LANES)
INLINE Trace trace_in(float *scratch) {
    vec *v = (vec *)scratch;
    return (Trace){v, v + MAX_CHUNK * STATE_BLOCK, v + 2 * MAX_CHUNK * STATE_BLOCK};
}

/* The reverse sweep over what scan_block traced. `carry` (states, channels) is the derivative by
 * the state that leaves the chunk, and becomes that by the state that enters it. */
INLINE void sweep_block(const Chunk *k, int64_t n, int64_t channel, const float *state,
                        const float *grad_y, float *carry, const Trace *trace,
                        const ChunkGrads *grads) {
    vec g[STATE_BLOCK], dA[STATE_BLOCK], d = load(k->D + channel), dD = load(grads->D + channel);
    UNROLL for (int i = 0; i < STATE_BLOCK; i++) {
        g[i] = load(carry + (n + i) * k->channels + channel);
        dA[i] = load(grads->A + (n + i) * k->channels + channel);
    }
    const float *A2 = k->A2 + n * k->channels + channel;
    for (int64_t t = k->steps - 1; t >= 0; t--) {
        int64_t at = t * k->channels + channel;
        vec delta = load(k->delta + at), u = load(k->u + at), input = delta * u;
        vec gy = load(grad_y + at);
        const vec *h = trace->states + t * STATE_BLOCK, *decay = trace->decays + t * STATE_BLOCK;
        const float *B = k->B + t * k->width + n, *C = k->C + t * k->width + n;
        vec *dB = trace->sums + 2 * t * STATE_BLOCK, *dC = dB + STATE_BLOCK;
        vec by_input = (vec){}, by_exponent = (vec){};
        UNROLL for (int i = 0; i < STATE_BLOCK; i++) {
            vec a = load(A2 + i * k->channels);
            vec before = t ? h[i - STATE_BLOCK] : load(state + (n + i) * k->channels + channel);
            vec by_h = g[i] + gy * C[i];
            g[i] = decay[i] * by_h;
            vec exponent = g[i] * before; /* the derivative by delta_t A */
            by_input += by_h * B[i];
            by_exponent += exponent * a;
            dA[i] += exponent * delta;
            dB[i] += by_h * input;
            dC[i] += gy * h[i];
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
    UNROLL for (int i = 0; i < STATE_BLOCK; i++) {
        store(carry + (n + i) * k->channels + channel, g[i]);
        store(grads->A + (n + i) * k->channels + channel, dA[i]);
    }
    store(grads->D + channel, dD);
}

/* All gradients of a chunk from grad_y (steps, channels); also its y, recomputed from `state`. */
INLINE void scan_chunk_backward(const Chunk *k, float *state, const float *grad_y, float *y,
                                float *carry, const Trace *trace, const ChunkGrads *grads) {
    for (int64_t n = 0; n < k->states; n += STATE_BLOCK) {
        memset(trace->sums, 0, (size_t)k->steps * 2 * STATE_BLOCK * sizeof(vec));
        for (int64_t channel = 0; channel < k->channels; channel += LANES) {
            scan_block(k, n, channel, state, y, trace->states, trace->decays, 1);
            sweep_block(k, n, channel, state, grad_y, carry, trace, grads);
        }
        for (int64_t t = 0; t < k->steps; t++) {
            const vec *sums = trace->sums + 2 * t * STATE_BLOCK;
            store(grads->B + t * grads->width + n, lane_sums(sums));
            store(grads->C + t * grads->width + n, lane_sums(sums + STATE_BLOCK));
        }
    }
}
