/* The two halves of a residual block around the mixer's inner block, for training. Each keeps
 * nothing but its inputs and computes the rest again in its backward, a tile of rows at a time:
 *
 *   head   n = LN(x); without a graph: first = W0 n, second = W1 n
 *                     with one: first = n, second = Â W0 n + W1 n, with biases (W0 = V, W1 = U)
 *   tail   y = x + m1 W inner;  out = y + m2 (W2 GELU(W1 LN(y) + b1) + b2)
 *
 * Rows are dense. m1 and m2 are one factor a row: DropPath.
 */
#pragma once
#include "arena.h"
#include "rows.h"

typedef struct {
    int64_t rows, channels, joints; /* joints: 0 without a graph */
    const float *x;
    const float *norm_weight, *norm_bias;
    const float *weight[2], *bias[2]; /* (channels, channels); biases only with a graph */
    const float *adjacency;           /* (joints, joints), symmetric; NULL without a graph */
    float *out[2];                    /* forward: written; backward: the derivatives by them */
    float eps;
} Head;

typedef struct {
    float *x; /* (rows, channels), written */
    float *norm_weight, *norm_bias;
    float *weight[2], *bias[2];
} HeadGrads;

typedef struct {
    int64_t rows, channels, hidden;
    const float *x, *inner;       /* (rows, channels) */
    const float *mask1, *mask2;   /* (rows), NULL for 1 */
    const float *out_proj;        /* (channels, channels) */
    const float *norm_weight, *norm_bias;
    const float *fc1, *fc1_bias;  /* (hidden, channels) */
    const float *fc2, *fc2_bias;  /* (channels, hidden) */
    float *out;                   /* forward: written; backward: the derivative by it */
    float eps;
} Tail;

typedef struct {
    float *x, *inner; /* (rows, channels), written */
    float *out_proj, *norm_weight, *norm_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
} TailGrads;

/* Every tile is a whole number of frames. */
INLINE int64_t head_tile(const Head *in) {
    return in->joints ? ROW_TILE / in->joints * in->joints : ROW_TILE;
}

/* to (rows, channels) += Â from, within each frame. */
static void mix_joints(const float *adjacency, int64_t joints, int64_t rows, int64_t channels,
                       const float *from, float *to) {
    for (int64_t row = 0; row < rows; row++) {
        const float *frame = from + row / joints * joints * channels;
        const float *weights = adjacency + row % joints * joints;
        for (int64_t k = 0; k < joints; k++) {
            if (weights[k] == 0) continue;
            for (int64_t c = 0; c < channels; c += LANES)
                store(to + row * channels + c,
                      load(to + row * channels + c) + load(frame + k * channels + c) * weights[k]);
        }
    }
}

INLINE void add_bias(int64_t rows, int64_t channels, const float *bias, float *x) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c += LANES)
            store(x + r * channels + c, load(x + r * channels + c) + load(bias + c));
}

typedef struct {
    float *packed[2]; /* the weights for gemm_packed */
} HeadShared;

static HeadShared take_head_shared(Arena *arena, const Head *in) {
    HeadShared w;
    for (int i = 0; i < 2; i++) {
        w.packed[i] = take(arena, in->channels * in->channels);
        if (arena->base) pack_panels(in->weight[i], NULL, in->channels, in->channels, w.packed[i]);
    }
    return w;
}

typedef struct {
    float *normed, *neighbours; /* (tile, channels) */
} HeadScratch;

static HeadScratch take_head_scratch(Arena *arena, const Head *in) {
    HeadScratch b;
    b.normed = take(arena, head_tile(in) * in->channels);
    b.neighbours = take(arena, head_tile(in) * in->channels);
    return b;
}

static void head_forward_tile(const Head *in, const HeadShared *w, int64_t first, int64_t rows,
                              const HeadScratch *b) {
    const int64_t c = in->channels;
    float *out[2] = {in->out[0] + first * c, in->out[1] + first * c};
    float *normed = in->joints ? out[0] : b->normed;
    layer_norm(rows, c, in->x + first * c, c, in->norm_weight, in->norm_bias, in->eps, normed,
               NULL);
    const Strided input = {normed, c, 1};
    gemm_packed(rows, c, c, input, w->packed[0], in->joints ? b->neighbours : out[0], c, 0);
    gemm_packed(rows, c, c, input, w->packed[1], out[1], c, 0);
    if (!in->joints) return;
    add_bias(rows, c, in->bias[0], b->neighbours);
    add_bias(rows, c, in->bias[1], out[1]);
    mix_joints(in->adjacency, in->joints, rows, c, b->neighbours, out[1]);
}

typedef struct {
    float *normed, *grad_normed, *grad_neighbours, *grad_x; /* (tile, channels) */
    float *statistics;                                      /* (tile, 2) */
    HeadGrads grads;                                        /* sums; the last pieces */
} HeadBackwardScratch;

static HeadBackwardScratch take_head_backward_scratch(Arena *arena, const Head *in) {
    HeadBackwardScratch b = {0};
    const int64_t c = in->channels, dense = head_tile(in) * c;
    b.normed = take(arena, dense);
    b.grad_normed = take(arena, dense);
    b.grad_neighbours = take(arena, dense);
    b.statistics = take(arena, 2 * head_tile(in));
    b.grads.norm_weight = take(arena, c);
    b.grads.norm_bias = take(arena, c);
    for (int i = 0; i < 2; i++) {
        b.grads.weight[i] = take(arena, c * c);
        b.grads.bias[i] = take(arena, c);
    }
    return b;
}

static void head_backward_tile(const Head *in, const HeadGrads *grads, int64_t first, int64_t rows,
                               const HeadBackwardScratch *b) {
    const int64_t c = in->channels;
    const HeadGrads *sums = &b->grads;
    const float *x = in->x + first * c;
    const float *g[2] = {in->out[0] + first * c, in->out[1] + first * c};
    layer_norm(rows, c, x, c, in->norm_weight, in->norm_bias, in->eps, b->normed, b->statistics);
    if (in->joints) { /* g[0] is the derivative by n itself, g[1] that by the mixed sum */
        memcpy(b->grad_normed, g[0], rows * c * sizeof(float));
        memset(b->grad_neighbours, 0, rows * c * sizeof(float));
        mix_joints(in->adjacency, in->joints, rows, c, g[1], b->grad_neighbours);
        g[0] = b->grad_neighbours;
        for (int i = 0; i < 2; i++) add_rows(rows, c, g[i], sums->bias[i]);
    }
    for (int i = 0; i < 2; i++) {
        linear_weight_gradient(rows, c, c, g[i], b->normed, sums->weight[i]);
        linear_input_gradient(rows, c, c, g[i], in->weight[i], b->grad_normed, i || in->joints);
    }
    float *grad_x = grads->x + first * c;
    memset(grad_x, 0, rows * c * sizeof(float));
    layer_norm_backward(rows, c, x, in->norm_weight, b->statistics, b->grad_normed, grad_x,
                        sums->norm_weight, sums->norm_bias);
}

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
    float *out = in->out + first * c;
    gemm_packed(rows, c, c, (Strided){inner, c, 1}, w->out_proj, b->branch, c, 0);
    add_masked(rows, c, x, from_row(in->mask1, first), b->branch, b->x);
    layer_norm(rows, c, b->x, c, in->norm_weight, in->norm_bias, in->eps, b->normed, NULL);
    gemm_packed(rows, c, h, (Strided){b->normed, c, 1}, w->fc1, b->wide, h, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < h; i += LANES)
            store(b->wide + r * h + i, gelu(load(b->wide + r * h + i) + load(in->fc1_bias + i)));
    gemm_packed(rows, h, c, (Strided){b->wide, h, 1}, w->fc2, b->branch, c, 0);
    add_bias(rows, c, in->fc2_bias, b->branch);
    add_masked(rows, c, b->x, from_row(in->mask2, first), b->branch, out);
}

typedef struct {
    TailScratch forward;
    float *grad_branch, *grad_normed, *grad; /* (tile, channels) */
    float *grad_wide, *slope;                /* (tile, hidden) */
    float *statistics;                       /* (tile, 2) */
    TailGrads grads;                         /* sums; the last pieces */
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
    b.grads.out_proj = take(arena, c * c);
    b.grads.norm_weight = take(arena, c);
    b.grads.norm_bias = take(arena, c);
    b.grads.fc1 = take(arena, h * c);
    b.grads.fc1_bias = take(arena, h);
    b.grads.fc2 = take(arena, c * h);
    b.grads.fc2_bias = take(arena, c);
    return b;
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
    const float *inner = in->inner + first * c, *g = in->out + first * c;
    const TailScratch *f = &b->forward;
    const TailGrads *sums = &b->grads;

    /* Again what the forward had: y in f->x, LN(y), GELU and its slope. */
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

    masked(rows, c, g, from_row(in->mask2, first), b->grad_branch);
    add_rows(rows, c, b->grad_branch, sums->fc2_bias);
    linear_weight_gradient(rows, c, h, b->grad_branch, f->wide, sums->fc2);
    linear_input_gradient(rows, c, h, b->grad_branch, in->fc2, b->grad_wide, 0);
    for (int64_t i = 0; i < rows * h; i += LANES)
        store(b->grad_wide + i, load(b->grad_wide + i) * load(b->slope + i));
    add_rows(rows, h, b->grad_wide, sums->fc1_bias);
    linear_weight_gradient(rows, h, c, b->grad_wide, f->normed, sums->fc1);
    linear_input_gradient(rows, h, c, b->grad_wide, in->fc1, b->grad_normed, 0);
    memcpy(b->grad, g, bytes);
    layer_norm_backward(rows, c, f->x, in->norm_weight, b->statistics, b->grad_normed, b->grad,
                        sums->norm_weight, sums->norm_bias);

    memcpy(grads->x + first * c, b->grad, bytes);
    masked(rows, c, b->grad, from_row(in->mask1, first), b->grad_branch);
    linear_weight_gradient(rows, c, c, b->grad_branch, inner, sums->out_proj);
    linear_input_gradient(rows, c, c, b->grad_branch, in->out_proj, grads->inner + first * c, 0);
}
