/* The scan by itself: u, delta, B and C given, no convolution, projection or gate. */
#pragma once
#include "inner.h"

typedef struct {
    Shape shape;   /* rank and taps unused */
    View u, delta; /* (..., channels) */
    View B, C;     /* (..., states) */
    Weights weights; /* only A and D */
    View y;        /* forward: written; backward: the derivative by it */
    float *kept;   /* (rows, chunks - 1, states, channels) padded, or NULL */
    int64_t reverse;
} Scan;

typedef struct {
    View u, delta, B, C;
    Weights weights;
} ScanGrads;

typedef struct {
    float *u, *delta, *y; /* (chunk, channels) */
    float *B, *C;         /* (chunk, states) */
    float *state, *zeros; /* (states, channels); zeros: the state at the start, never written */
} ScanStage;

static ScanStage take_scan_stage(Arena *arena, const Padded *p) {
    ScanStage stage;
    stage.u = take(arena, p->chunk * p->channels);
    stage.delta = take(arena, p->chunk * p->channels);
    stage.y = take(arena, p->chunk * p->channels);
    stage.B = take(arena, p->chunk * p->states);
    stage.C = take(arena, p->chunk * p->states);
    stage.state = take(arena, p->states * p->channels);
    stage.zeros = take(arena, p->states * p->channels);
    return stage;
}

typedef struct {
    ScanStage stage, grad; /* grad.state is the carry, grad.y the derivative by y */
    Trace trace;
    float *A, *D; /* sums, as in Packed */
} ScanBackwardScratch;

static ScanBackwardScratch take_scan_backward_scratch(Arena *arena, const Padded *p) {
    ScanBackwardScratch b;
    b.stage = take_scan_stage(arena, p);
    b.grad = take_scan_stage(arena, p);
    b.trace = trace_in(take(arena, TRACE_FLOATS));
    b.A = take(arena, p->states * p->channels);
    b.D = take(arena, p->channels);
    return b;
}

/* The padding stays what the zeroed scratch made it: zero. */
INLINE void stage_rows(Rows from, int64_t first, int64_t steps, int64_t columns, float *to,
                       int64_t width) {
    for (int64_t t = 0; t < steps; t++)
        memcpy(to + t * width, from.first + (first + t) * from.stride, columns * sizeof(float));
}
INLINE void unstage_rows(const float *from, int64_t width, int64_t first, int64_t steps,
                         int64_t columns, Rows to) {
    for (int64_t t = 0; t < steps; t++)
        memcpy(to.first + (first + t) * to.stride, from + t * width, columns * sizeof(float));
}

INLINE Chunk stage_scan_chunk(const Scan *in, const Padded *p, const Packed *w, int64_t row,
                              int64_t first, int64_t steps, const ScanStage *stage) {
    const Shape *s = &in->shape;
    const int reverse = (int)in->reverse;
    stage_rows(rows_of(&in->u, s, row, reverse), first, steps, s->channels, stage->u, p->channels);
    stage_rows(rows_of(&in->delta, s, row, reverse), first, steps, s->channels, stage->delta,
               p->channels);
    stage_rows(rows_of(&in->B, s, row, reverse), first, steps, s->states, stage->B, p->states);
    stage_rows(rows_of(&in->C, s, row, reverse), first, steps, s->states, stage->C, p->states);
    return (Chunk){steps, p->channels, p->states, stage->delta, stage->u,
                   stage->B, stage->C, p->states, w->A, w->D};
}

INLINE float *kept_of_scan(const Scan *in, const Padded *p, int64_t row, int64_t chunk) {
    return in->kept + (row * p->kept + chunk - 1) * p->states * p->channels;
}

static void scan_forward_row(const Scan *in, const Padded *p, const Packed *w, int64_t row,
                             const ScanStage *stage) {
    const Shape *s = &in->shape;
    const float *state = stage->zeros;
    for (int64_t first = 0; first < s->length; first += p->chunk) {
        int64_t steps = smaller(p->chunk, s->length - first);
        int keep = in->kept && first + steps < s->length;
        float *after = keep ? kept_of_scan(in, p, row, first / p->chunk + 1) : stage->state;
        Chunk chunk = stage_scan_chunk(in, p, w, row, first, steps, stage);
        scan_chunk(&chunk, state, after, stage->y);
        state = after;
        unstage_rows(stage->y, p->channels, first, steps, s->channels,
                     rows_of(&in->y, s, row, (int)in->reverse));
    }
}

static void scan_backward_row(const Scan *in, const ScanGrads *grads, const Padded *p,
                              const Packed *w, int64_t row, const ScanBackwardScratch *b) {
    const Shape *s = &in->shape;
    const int reverse = (int)in->reverse;
    const int64_t state_floats = p->states * p->channels;
    memset(b->grad.state, 0, state_floats * sizeof(float));
    for (int64_t index = p->kept; index >= 0; index--) {
        int64_t first = index * p->chunk, steps = smaller(p->chunk, s->length - first);
        const float *state = index ? kept_of_scan(in, p, row, index) : b->stage.zeros;
        Chunk chunk = stage_scan_chunk(in, p, w, row, first, steps, &b->stage);
        stage_rows(rows_of(&in->y, s, row, reverse), first, steps, s->channels, b->grad.y,
                   p->channels);
        ChunkGrads g = {b->grad.u, b->grad.delta, b->grad.B, b->grad.C, p->states, b->A, b->D};
        scan_chunk_backward(&chunk, state, b->grad.y, b->stage.y, b->grad.state,
                            &b->trace, &g);
        unstage_rows(b->grad.u, p->channels, first, steps, s->channels,
                     rows_of(&grads->u, s, row, reverse));
        unstage_rows(b->grad.delta, p->channels, first, steps, s->channels,
                     rows_of(&grads->delta, s, row, reverse));
        unstage_rows(b->grad.B, p->states, first, steps, s->states,
                     rows_of(&grads->B, s, row, reverse));
        unstage_rows(b->grad.C, p->states, first, steps, s->states,
                     rows_of(&grads->C, s, row, reverse));
    }
}
