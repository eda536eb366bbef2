/* The second half of a residual block, after its mixer's inner block, for training:
 *
 *   y = x + m1 W inner;  out = y + m2 (W2 GELU(W1 LN(y) + b1) + b2)
 *
 * and, if one is given, the LayerNorm that follows the block. The forward keeps its inputs and the
 * last norm's input; the backward computes the rest again, a tile of rows at a time.
 * Rows are dense. m1 and m2 hold one factor for each row (DropPath).
 */
#pragma once
#include "arena.h"
#include "rows.h"

typedef struct {
    int64_t rows, channels, hidden;
    const float *x, *inner;       /* (rows, channels) */
    const float *mask1, *mask2;   /* (rows), NULL for 1 */
    const float *out_proj;        /* (channels, channels) */
    const float *norm_weight, *norm_bias;
    const float *fc1, *fc1_bias;  /* (hidden, channels) */
    const float *fc2, *fc2_bias;  /* (channels, hidden) */
    const float *last_weight, *last_bias; /* of the norm after the block, or NULL */
    float *before_last;           /* (rows, channels): the input of the last norm, if there is one */
    float *out;                   /* forward: written; backward: its gradient */
    float eps, last_eps;
} Tail;

typedef struct {
    float *x, *inner; /* (rows, channels), written */
    float *out_proj, *norm_weight, *norm_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
    float *last_weight, *last_bias;
} TailGrads;

typedef struct {
    float *out_proj, *fc1, *fc2; /* packed */
} TailShared;

static TailShared take_tail_shared(Arena *arena, const Tail *in) {
    const int64_t c = in->channels;
    TailShared w;
    w.out_proj = take(arena, c * c);
    w.fc1 = take(arena, in->hidden * c);
    w.fc2 = take(arena, in->hidden * c);
    if (!arena->base) return w;
    pack_panels(in->out_proj, NULL, c, c, w.out_proj);
    pack_panels(in->fc1, NULL, in->hidden, c, w.fc1);
    pack_panels(in->fc2, NULL, c, in->hidden, w.fc2);
    return w;
}

typedef struct {
    float *x, *normed, *branch; /* (tile, channels) */
    float *wide;                /* (tile, hidden) */
} TailScratch;

static TailScratch take_tail_scratch(Arena *arena, const Tail *in) {
    TailScratch b;
    b.x = take(arena, ROW_TILE * in->channels);
    b.normed = take(arena, ROW_TILE * in->channels);
    b.branch = take(arena, ROW_TILE * in->channels);
    b.wide = take(arena, ROW_TILE * in->hidden);
    return b;
}

/* out = x + mask * branch. */
INLINE void add_masked(int64_t rows, int64_t channels, const float *x, const float *mask,
                       const float *branch, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        float factor = mask ? mask[r] : 1.0f;
        for (int64_t c = 0; c < channels; c += LANES)
            store(out + r * channels + c,
                  load(x + r * channels + c) + load(branch + r * channels + c) * factor);
    }
}

INLINE const float *from_row(const float *mask, int64_t first) { return mask ? mask + first : NULL; }

static void tail_forward_tile(const Tail *in, const TailShared *w, int64_t first, int64_t rows,
                              const TailScratch *b) {
    const int64_t c = in->channels, h = in->hidden;
    const float *x = in->x + first * c, *inner = in->inner + first * c;
    float *out = in->out + first * c, *before = in->last_weight ? in->before_last + first * c : out;
    gemm_packed(rows, c, c, (Strided){inner, c, 1}, w->out_proj, b->branch, c, 0);
    add_masked(rows, c, x, from_row(in->mask1, first), b->branch, b->x);
    layer_norm(rows, c, b->x, c, in->norm_weight, in->norm_bias, in->eps, b->normed, NULL);
    gemm_packed(rows, c, h, (Strided){b->normed, c, 1}, w->fc1, b->wide, h, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < h; i += LANES)
            store(b->wide + r * h + i, gelu(load(b->wide + r * h + i) + load(in->fc1_bias + i)));
    gemm_packed(rows, h, c, (Strided){b->wide, h, 1}, w->fc2, b->branch, c, 0);
    add_bias(rows, c, in->fc2_bias, b->branch);
    add_masked(rows, c, b->x, from_row(in->mask2, first), b->branch, before);
    if (in->last_weight)
        layer_norm(rows, c, before, c, in->last_weight, in->last_bias, in->last_eps, out, NULL);
}

typedef struct {
    TailScratch forward;
    float *grad_branch, *grad_normed, *grad; /* (tile, channels) */
    float *grad_wide, *slope;                /* (tile, hidden) */
    float *statistics, *last_statistics;     /* (tile, 2) */
    TailGrads grads;                         /* sums */
} TailBackwardScratch;

static TailBackwardScratch take_tail_backward_scratch(Arena *arena, const Tail *in) {
    const int64_t c = in->channels, h = in->hidden;
    TailBackwardScratch b = {0};
    b.forward = take_tail_scratch(arena, in);
    b.grad_branch = take(arena, ROW_TILE * c);
    b.grad_normed = take(arena, ROW_TILE * c);
    b.grad = take(arena, ROW_TILE * c);
    b.grad_wide = take(arena, ROW_TILE * h);
    b.slope = take(arena, ROW_TILE * h);
    b.statistics = take(arena, 2 * ROW_TILE);
    b.last_statistics = take(arena, 2 * ROW_TILE);
    return b;
}

static TailGrads take_tail_grads(Arena *arena, const Tail *in) {
    const int64_t c = in->channels, h = in->hidden;
    TailGrads g = {0};
    g.out_proj = take(arena, c * c);
    g.norm_weight = take(arena, c);
    g.norm_bias = take(arena, c);
    g.fc1 = take(arena, h * c);
    g.fc1_bias = take(arena, h);
    g.fc2 = take(arena, c * h);
    g.fc2_bias = take(arena, c);
    g.last_weight = take(arena, c);
    g.last_bias = take(arena, c);
    return g;
}

static void give_tail_grads(const Tail *in, const TailGrads *from, const TailGrads *to) {
    const int64_t c = in->channels, h = in->hidden;
    copy_floats(c * c, from->out_proj, to->out_proj);
    copy_floats(c, from->norm_weight, to->norm_weight);
    copy_floats(c, from->norm_bias, to->norm_bias);
    copy_floats(h * c, from->fc1, to->fc1);
    copy_floats(h, from->fc1_bias, to->fc1_bias);
    copy_floats(c * h, from->fc2, to->fc2);
    copy_floats(c, from->fc2_bias, to->fc2_bias);
    if (!in->last_weight) return;
    copy_floats(c, from->last_weight, to->last_weight);
    copy_floats(c, from->last_bias, to->last_bias);
}

/* to = mask * from, row by row. */
INLINE void masked(int64_t rows, int64_t channels, const float *from, const float *mask, float *to) {
    for (int64_t r = 0; r < rows; r++) {
        float factor = mask ? mask[r] : 1.0f;
        for (int64_t c = 0; c < channels; c += LANES)
            store(to + r * channels + c, load(from + r * channels + c) * factor);
    }
}

static void tail_backward_tile(const Tail *in, const TailGrads *grads, const TailShared *w,
                               int64_t first, int64_t rows, const TailBackwardScratch *b) {
    const int64_t c = in->channels, h = in->hidden;
    const size_t bytes = rows * c * sizeof(float);
    const float *inner = in->inner + first * c, *by_out = in->out + first * c;
    const TailScratch *f = &b->forward;
    const TailGrads *sums = &b->grads;

    /* Computes again y (in f->x), LN(y), GELU and its slope. */
    gemm_packed(rows, c, c, (Strided){inner, c, 1}, w->out_proj, f->branch, c, 0);
    add_masked(rows, c, in->x + first * c, from_row(in->mask1, first), f->branch, f->x);
    layer_norm(rows, c, f->x, c, in->norm_weight, in->norm_bias, in->eps, f->normed,
               b->statistics);
    gemm_packed(rows, c, h, (Strided){f->normed, c, 1}, w->fc1, f->wide, h, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < h; i += LANES) {
            vec raw = load(f->wide + r * h + i) + load(in->fc1_bias + i), density;
            vec cdf = normal_cdf(raw, &density);
            store(f->wide + r * h + i, raw * cdf);
            store(b->slope + r * h + i, cdf + raw * density * 0.39894228040143268f);
        }

    /* b->grad: the gradient of y + m2 MLP, then that of y. */
    if (in->last_weight) {
        const float *before = in->before_last + first * c;
        layer_norm(rows, c, before, c, in->last_weight, in->last_bias, in->last_eps, b->grad,
                   b->last_statistics);
        memset(b->grad, 0, bytes);
        layer_norm_backward(rows, c, before, in->last_weight, b->last_statistics, by_out, b->grad,
                            sums->last_weight, sums->last_bias);
    } else {
        memcpy(b->grad, by_out, bytes);
    }
    masked(rows, c, b->grad, from_row(in->mask2, first), b->grad_branch);
    add_rows(rows, c, b->grad_branch, sums->fc2_bias);
    linear_weight_gradient(rows, c, h, b->grad_branch, f->wide, sums->fc2);
    linear_input_gradient(rows, c, h, b->grad_branch, in->fc2, b->grad_wide, 0);
    for (int64_t i = 0; i < rows * h; i += LANES)
        store(b->grad_wide + i, load(b->grad_wide + i) * load(b->slope + i));
    add_rows(rows, h, b->grad_wide, sums->fc1_bias);
    linear_weight_gradient(rows, h, c, b->grad_wide, f->normed, sums->fc1);
    linear_input_gradient(rows, h, c, b->grad_wide, in->fc1, b->grad_normed, 0);
    layer_norm_backward(rows, c, f->x, in->norm_weight, b->statistics, b->grad_normed, b->grad,
                        sums->norm_weight, sums->norm_bias);

    memcpy(grads->x + first * c, b->grad, bytes);
    masked(rows, c, b->grad, from_row(in->mask1, first), b->grad_branch);
    linear_weight_gradient(rows, c, c, b->grad_branch, inner, sums->out_proj);
    linear_input_gradient(rows, c, c, b->grad_branch, in->out_proj, grads->inner + first * c, 0);
}
