/* The first half of a residual block, up to its mixer's inner block, for training:
 * n = LN(x), first = W0 n, second = W1 n. The forward keeps only x; the backward computes n again, a
 * tile of rows at a time. Rows are dense.
 */
#pragma once
#include "arena.h"
#include "rows.h"

typedef struct {
    int64_t rows, channels;
    const float *x;
    const float *norm_weight, *norm_bias;
    const float *weight; /* (2 channels, channels): W0 above W1 */
    float *out[2];       /* forward: written; backward: their gradients */
    float eps;
} Head;

typedef struct {
    float *x; /* (rows, channels), added to */
    float *norm_weight, *norm_bias, *weight; /* written */
} HeadGrads;

static float *take_head_packed(Arena *arena, const Head *in) {
    const int64_t c = in->channels;
    float *packed = take(arena, 2 * c * c);
    if (arena->base)
        for (int i = 0; i < 2; i++)
            pack_panels(in->weight + i * c * c, NULL, c, c, packed + i * c * c);
    return packed;
}

static void head_forward_tile(const Head *in, const float *packed, int64_t first, int64_t rows,
                              float *normed) {
    const int64_t c = in->channels;
    layer_norm(rows, c, in->x + first * c, c, in->norm_weight, in->norm_bias, in->eps, normed,
               NULL);
    for (int i = 0; i < 2; i++)
        gemm_packed(rows, c, c, (Strided){normed, c, 1}, packed + i * c * c, in->out[i] + first * c,
                    c, 0);
}

typedef struct {
    float *normed, *grad_normed; /* (tile, channels) */
    float *statistics;           /* (tile, 2) */
    HeadGrads grads;             /* sums */
} HeadBackwardScratch;

static HeadBackwardScratch take_head_backward_scratch(Arena *arena, const Head *in) {
    HeadBackwardScratch b = {0};
    const int64_t c = in->channels;
    b.normed = take(arena, ROW_TILE * c);
    b.grad_normed = take(arena, ROW_TILE * c);
    b.statistics = take(arena, 2 * ROW_TILE);
    return b;
}

static HeadGrads take_head_grads(Arena *arena, const Head *in) {
    const int64_t c = in->channels;
    return (HeadGrads){NULL, take(arena, c), take(arena, c), take(arena, 2 * c * c)};
}

static void give_head_grads(const Head *in, const HeadGrads *from, const HeadGrads *to) {
    const int64_t c = in->channels;
    copy_floats(c, from->norm_weight, to->norm_weight);
    copy_floats(c, from->norm_bias, to->norm_bias);
    copy_floats(2 * c * c, from->weight, to->weight);
}

static void head_backward_tile(const Head *in, const HeadGrads *grads, int64_t first, int64_t rows,
                               const HeadBackwardScratch *b) {
    const int64_t c = in->channels;
    const float *x = in->x + first * c;
    layer_norm(rows, c, x, c, in->norm_weight, in->norm_bias, in->eps, b->normed, b->statistics);
    for (int i = 0; i < 2; i++) {
        const float *g = in->out[i] + first * c;
        linear_weight_gradient(rows, c, c, g, b->normed, b->grads.weight + i * c * c);
        linear_input_gradient(rows, c, c, g, in->weight + i * c * c, b->grad_normed, i);
    }
    layer_norm_backward(rows, c, x, in->norm_weight, b->statistics, b->grad_normed,
                        grads->x + first * c, b->grads.norm_weight, b->grads.norm_bias);
}
