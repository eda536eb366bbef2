/* A whole residual block for inference; tiles of rows and sequences stay in the cache:
 *
 *   x += out_proj(inner(graph_f(LN(x)), graph_b(LN(x)), z))       x += MLP(LN(x))
 *
 * and, if one is given, the LayerNorm that follows the block.
 * BatchNorm with its running statistics becomes one multiply-add. Weights are packed at every call,
 * so they are never out of date; that takes less than a hundredth of the call.
 */
#pragma once
#include "block.h"

typedef struct {
    float *in_proj, *out_proj, *fc1, *fc2; /* packed */
    float *graph[DIRECTIONS];              /* V and U side by side, packed; NULL without graph */
    float *scale[DIRECTIONS], *shift[DIRECTIONS]; /* (joints): BatchNorm */
    Packed direction[DIRECTIONS];
} PackedBlock;

static PackedBlock take_packed_block(Arena *arena, const Block *in, const Padded *p) {
    const int64_t c = in->shape.channels;
    PackedBlock w = {0};
    w.in_proj = take(arena, 2 * c * c);
    w.out_proj = take(arena, c * c);
    w.fc1 = take(arena, in->hidden * c);
    w.fc2 = take(arena, in->hidden * c);
    for (int d = 0; d < DIRECTIONS; d++) {
        w.direction[d] = take_packed(arena, &in->shape, p, 1);
        if (!has_graph(in, d)) continue;
        w.graph[d] = take(arena, 2 * c * c);
        w.scale[d] = take(arena, in->shape.length);
        w.shift[d] = take(arena, in->shape.length);
    }
    return w;
}

static void pack_block(const Block *in, const Padded *p, const PackedBlock *w) {
    const int64_t c = in->shape.channels, joints = in->shape.length;
    const BlockWeights *from = &in->weights;
    pack_panels(from->in_proj, from->in_proj + c * c, c, c, w->in_proj);
    pack_panels(from->out_proj, NULL, c, c, w->out_proj);
    pack_panels(from->fc1, NULL, in->hidden, c, w->fc1);
    pack_panels(from->fc2, NULL, c, in->hidden, w->fc2);
    for (int d = 0; d < DIRECTIONS; d++) {
        pack(&in->shape, p, direction_weights(from, d), &w->direction[d]);
        if (!has_graph(in, d)) continue;
        const GraphWeights *g = graph_weights(from, d);
        pack_panels(g->neighbours, g->own, c, c, w->graph[d]);
        for (int64_t j = 0; j < joints; j++) {
            w->scale[d][j] = g->bn_weight[j] / sqrtf(g->bn_var[j] + in->graph_eps);
            w->shift[d][j] = g->bn_bias[j] - g->bn_mean[j] * w->scale[d][j];
        }
    }
}

typedef struct {
    Stage stage;
    float *xz;                /* (group, length, 2 channels) */
    float *graph[DIRECTIONS]; /* (group, length, channels) */
    float *y;                 /* (group, length, channels) */
    float *x, *normed;        /* (tile, channels) */
    float *wide;              /* (tile, max(hidden, 2 channels)) */
} BlockScratch;

/* With a graph a tile is a whole number of frames. */
INLINE int64_t block_tile(const Block *in) {
    int64_t rows = sequences_of_a_tile(in->shape.length) * in->shape.length;
    return in->weights.adjacency || rows < ROW_TILE ? rows : ROW_TILE;
}

static BlockScratch take_block_scratch(Arena *arena, const Block *in, const Padded *p) {
    const int64_t c = in->shape.channels, tile = block_tile(in);
    const int64_t rows = sequences_of_a_tile(in->shape.length) * in->shape.length;
    BlockScratch b = {0};
    b.stage = take_stage(arena, &in->shape, p, 0);
    b.xz = take(arena, rows * 2 * c);
    for (int d = 0; d < DIRECTIONS; d++)
        if (has_graph(in, d)) b.graph[d] = take(arena, rows * c);
    b.y = take(arena, rows * c);
    b.x = take(arena, tile * c);
    b.normed = take(arena, tile * c);
    b.wide = take(arena, tile * (in->hidden > 2 * c ? in->hidden : 2 * c));
    return b;
}

/* relu(x + BN(Â V x + U x)), x the normalised input; whole frames of `joints` rows. */
static void graph_convolution(const Block *in, const PackedBlock *w, int direction, int64_t rows,
                              const float *x, int64_t x_row, float *normed, float *wide,
                              float *out) {
    const GraphWeights *g = graph_weights(&in->weights, direction);
    const int64_t c = in->shape.channels, joints = in->shape.length;
    layer_norm(rows, c, x, x_row, g->norm_weight, g->norm_bias, in->graph_eps, normed, NULL);
    gemm_packed(rows, c, 2 * c, (Strided){normed, c, 1}, w->graph[direction], wide, 2 * c, 0);
    const int is_bias_finite = all_finite(1, c, g->neighbours_bias, c);
    int is_finite = 1; /* else the zeros of Â count, too: infinity times 0 is NaN */
    for (int64_t row = 0; row < rows; row++) {
        const int64_t j = row % joints;
        if (j == 0) is_finite = is_bias_finite && all_finite(joints, c, wide + row * 2 * c, 2 * c);
        const float *frame = wide + (row - j) * 2 * c, *adjacency = in->weights.adjacency + j * joints;
        int64_t neighbours[MAX_JOINTS], count = 0;
        float total = 0; /* the sum of Â's row: the factor of V's bias */
        int has_zero = 0;
        for (int64_t k = 0; k < joints; k++) {
            has_zero |= adjacency[k] == 0;
            if (adjacency[k] != 0 || !is_finite) {
                neighbours[count++] = k;
                total += adjacency[k];
            }
        }
        for (int64_t i = 0; i < c; i += LANES) {
            vec mixed = load(wide + row * 2 * c + c + i) + load(g->own_bias + i) +
                        load(g->neighbours_bias + i) * total;
            for (int64_t n = 0; n < count; n++)
                mixed += load(frame + neighbours[n] * 2 * c + i) * adjacency[neighbours[n]];
            if (has_zero && !is_finite) mixed += load(g->neighbours_bias + i) * 0.0f;
            vec y = load(normed + row * c + i) + mixed * w->scale[direction][j] +
                    w->shift[direction][j];
            store(out + row * c + i, max_vec(y, splat(0.0f)));
        }
    }
}

/* Row `row` of a group that starts at sequence `first`. */
INLINE float *group_row(const View *view, const Shape *s, int64_t first, int64_t row) {
    Rows rows = rows_of(view, s, first + row / s->length, 0);
    return rows.first + row % s->length * rows.stride;
}

/* Sequences [first, first + count). */
static void block_forward_group(const Block *in, const Padded *p, const PackedBlock *w,
                                int64_t first, int64_t count, const BlockScratch *b) {
    const Shape *s = &in->shape;
    const BlockWeights *from = &in->weights;
    const int64_t c = s->channels, rows = count * s->length, tile = block_tile(in);

    for (int64_t start = 0; start < rows; start += tile) {
        int64_t n = smaller(tile, rows - start);
        for (int64_t r = 0; r < n; r++)
            copy_row(c, group_row(&in->x, s, first, start + r), b->x + r * c);
        layer_norm(n, c, b->x, c, from->norm1_weight, from->norm1_bias, in->norm_eps, b->normed,
                   NULL);
        float *xz = b->xz + start * 2 * c;
        gemm_packed(n, c, 2 * c, (Strided){b->normed, c, 1}, w->in_proj, xz, 2 * c, 0);
        for (int d = 0; d < DIRECTIONS; d++)
            if (b->graph[d])
                graph_convolution(in, w, d, n, xz, 2 * c, b->normed, b->wide,
                                  b->graph[d] + start * c);
    }

    Inner inner = {.shape = *s, .states = NULL};
    inner.shape.outer = 1;
    inner.shape.inner = count;
    for (int d = 0; d < DIRECTIONS; d++)
        inner.x[d] = b->graph[d] ? (View){b->graph[d], 0, s->length * c, c}
                                 : (View){b->xz, 0, s->length * 2 * c, 2 * c};
    inner.z = (View){b->xz + c, 0, s->length * 2 * c, 2 * c};
    inner.out = (View){b->y, 0, s->length * c, c};
    for (int64_t i = 0; i < count; i++)
        inner_forward_row(&inner, p, w->direction, i, &b->stage);

    for (int64_t start = 0; start < rows; start += tile) {
        int64_t n = smaller(tile, rows - start);
        for (int64_t r = 0; r < n; r++)
            copy_row(c, group_row(&in->x, s, first, start + r), b->x + r * c);
        gemm_packed(n, c, c, (Strided){b->y + start * c, c, 1}, w->out_proj, b->x, c, 1);
        layer_norm(n, c, b->x, c, from->norm2_weight, from->norm2_bias, in->norm_eps, b->normed,
                   NULL);
        gemm_packed(n, c, in->hidden, (Strided){b->normed, c, 1}, w->fc1, b->wide, in->hidden, 0);
        for (int64_t r = 0; r < n; r++) {
            float *row = b->wide + r * in->hidden;
            for (int64_t i = 0; i < in->hidden; i += LANES)
                store(row + i, gelu(load(row + i) + load(from->fc1_bias + i)));
            for (int64_t i = 0; i < c; i += LANES)
                store(b->x + r * c + i, load(b->x + r * c + i) + load(from->fc2_bias + i));
        }
        gemm_packed(n, in->hidden, c, (Strided){b->wide, in->hidden, 1}, w->fc2, b->x, c, 1);
        if (from->last_weight)
            layer_norm(n, c, b->x, c, from->last_weight, from->last_bias, in->last_eps, b->x, NULL);
        for (int64_t r = 0; r < n; r++)
            copy_row(c, b->x + r * c, group_row(&in->out, s, first, start + r));
    }
}
