/* The graph convolution that a direction of the GEM mixer reads through, for training:
 *
 *   n = LN(x);  mixed = Â V n + U n, with biases;  out = relu(n + BN(mixed))
 *
 * BatchNorm has one statistic for each joint, over the whole batch. So forward and backward have two
 * passes each; between them, the caller may join statistics and totals over processes. The forward
 * keeps x, mixed and out. Rows are dense and form whole frames of joints.
 */
#pragma once
#include "arena.h"
#include "rows.h"

typedef struct {
    int64_t rows, channels, joints; /* joints: 0 for no graph convolution */
    const float *x;
    const float *norm_weight, *norm_bias;
    const float *own, *own_bias, *neighbours, *neighbours_bias; /* U and V: (channels, channels) */
    const float *bn_weight, *bn_bias; /* (joints) */
    const float *adjacency;           /* (joints, joints), symmetric */
    float *mixed, *out;               /* (rows, channels) */
    float *sums;                      /* (rows, 2), scratch */
    float *statistics; /* (3, joints): mean, biased variance and number of mixed's values */
    float eps;
} Graph;

typedef struct {
    const float *out; /* (rows, channels): the gradient of out */
    float *totals;    /* (2, joints): the sums of dy and of dy (mixed - mean), where dy is the gradient
                         of BatchNorm's output; 0 where the statistics do not depend on x */
    float *x;         /* (rows, channels), added to */
    float *norm_weight, *norm_bias, *own, *own_bias, *neighbours, *neighbours_bias; /* written */
    float *bn_weight, *bn_bias;                                                     /* written */
} GraphGrads;

INLINE int64_t graph_tile(const Graph *in) { return ROW_TILE / in->joints * in->joints; }

/* to (rows, channels) += Â from, within each frame. The zeros of Â are left out, unless infinity
 * times one of them makes NaN. */
static void mix_joints(const float *adjacency, int64_t joints, int64_t rows, int64_t channels,
                       const float *from, float *to) {
    int is_finite = 1;
    for (int64_t row = 0; row < rows; row++) {
        const float *frame = from + row / joints * joints * channels;
        const float *weights = adjacency + row % joints * joints;
        if (row % joints == 0) is_finite = all_finite(joints, channels, frame, channels);
        for (int64_t k = 0; k < joints; k++) {
            if (weights[k] == 0 && is_finite) continue;
            for (int64_t c = 0; c < channels; c += LANES)
                store(to + row * channels + c,
                      load(to + row * channels + c) + load(frame + k * channels + c) * weights[k]);
        }
    }
}

/* --- forward, first pass: writes n to out, and mixed; sums takes the mean of each row of mixed, and
 * the sum of its squared deviations from that mean */
typedef struct {
    float *own, *neighbours; /* packed */
} GraphShared;

static GraphShared take_graph_shared(Arena *arena, const Graph *in) {
    const int64_t c = in->channels;
    GraphShared w = {take(arena, c * c), take(arena, c * c)};
    if (!arena->base) return w;
    pack_panels(in->own, NULL, c, c, w.own);
    pack_panels(in->neighbours, NULL, c, c, w.neighbours);
    return w;
}

static void graph_mix_tile(const Graph *in, const GraphShared *w, int64_t first, int64_t rows,
                           float *neighbours) {
    const int64_t c = in->channels;
    float *normed = in->out + first * c, *mixed = in->mixed + first * c;
    layer_norm(rows, c, in->x + first * c, c, in->norm_weight, in->norm_bias, in->eps, normed,
               NULL);
    gemm_packed(rows, c, c, (Strided){normed, c, 1}, w->neighbours, neighbours, c, 0);
    gemm_packed(rows, c, c, (Strided){normed, c, 1}, w->own, mixed, c, 0);
    add_bias(rows, c, in->neighbours_bias, neighbours);
    add_bias(rows, c, in->own_bias, mixed);
    mix_joints(in->adjacency, in->joints, rows, c, neighbours, mixed);
    for (int64_t r = 0; r < rows; r += LANES) {
        const int64_t count = smaller(LANES, rows - r);
        vec mean, deviation;
        moments(count, c, mixed + r * c, c, &mean, &deviation);
        store_pairs(count, mean, deviation, in->sums + 2 * (first + r));
    }
}

/* The statistics of each joint from the sums of its rows, which have equally many values. */
static void graph_statistics(const Graph *in) {
    const int64_t joints = in->joints, frames = in->rows / joints;
    for (int64_t j = 0; j < joints; j++) {
        double mean = 0, squares = 0;
        for (int64_t row = j; row < in->rows; row += joints) mean += in->sums[2 * row];
        mean /= frames ? frames : 1;
        for (int64_t row = j; row < in->rows; row += joints) {
            double centred = in->sums[2 * row] - mean;
            squares += in->sums[2 * row + 1] + in->channels * centred * centred;
        }
        in->statistics[j] = mean;
        in->statistics[joints + j] = squares / (frames ? frames * in->channels : 1);
        in->statistics[2 * joints + j] = frames * in->channels;
    }
}

/* BatchNorm of one joint: (mixed - mean) scale + shift. */
typedef struct {
    float mean, inverse_deviation, scale, shift;
} JointNorm;

INLINE JointNorm joint_norm(const Graph *in, int64_t j) {
    float inverse_deviation = 1.0f / sqrtf(in->statistics[in->joints + j] + in->eps);
    return (JointNorm){in->statistics[j], inverse_deviation, in->bn_weight[j] * inverse_deviation,
                       in->bn_bias[j]};
}

/* --- forward, second pass: n in out becomes relu(n + BN(mixed)) */
static void graph_output_tile(const Graph *in, int64_t first, int64_t rows) {
    const int64_t channels = in->channels;
    for (int64_t row = first; row < first + rows; row++) {
        const JointNorm bn = joint_norm(in, row % in->joints);
        for (int64_t c = row * channels; c < (row + 1) * channels; c += LANES) {
            vec y = load(in->out + c) + (load(in->mixed + c) - bn.mean) * bn.scale + bn.shift;
            store(in->out + c, max_vec(y, splat(0.0f)));
        }
    }
}

/* --- backward, first pass: sums takes, for each row, the sums of dy and of dy (mixed - mean). The
 * gradient is 0 only where relu has cut off; where out is NaN, it passes. */
INLINE vec through_relu(vec grad, vec out) { return select_vec(out <= splat(0.0f), (vec){}, grad); }

static void graph_sums_tile(const Graph *in, const GraphGrads *grads, int64_t first, int64_t rows) {
    const int64_t channels = in->channels;
    for (int64_t start = first; start < first + rows; start += LANES) {
        const int64_t count = smaller(LANES, first + rows - start);
        vec sums[LANES] = {0}, products[LANES] = {0};
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = (start + i) * channels;
            const float mean = in->statistics[(start + i) % in->joints];
            for (int64_t c = at; c < at + channels; c += LANES) {
                vec dy = through_relu(load(grads->out + c), load(in->out + c));
                sums[i] += dy;
                products[i] += dy * (load(in->mixed + c) - mean);
            }
        }
        store_pairs(count, lane_sums(sums), lane_sums(products), in->sums + 2 * start);
    }
}

/* The totals of each joint from the sums of its rows, and the gradients of BatchNorm's weights. */
static void graph_totals(const Graph *in, const GraphGrads *grads) {
    const int64_t joints = in->joints;
    for (int64_t j = 0; j < joints; j++) {
        double sum = 0, product = 0;
        for (int64_t row = j; row < in->rows; row += joints) {
            sum += in->sums[2 * row];
            product += in->sums[2 * row + 1];
        }
        grads->totals[j] = sum;
        grads->totals[joints + j] = product;
        grads->bn_bias[j] = sum;
        grads->bn_weight[j] = product * joint_norm(in, j).inverse_deviation;
    }
}

/* --- backward, second pass */
typedef struct {
    float *normed, *grad_normed, *grad_mixed, *grad_neighbours; /* (tile, channels) */
    float *statistics;                                          /* (tile, 2) */
    GraphGrads grads;                                           /* sums */
} GraphBackwardScratch;

static GraphBackwardScratch take_graph_backward_scratch(Arena *arena, const Graph *in) {
    GraphBackwardScratch b = {0};
    const int64_t c = in->channels, dense = graph_tile(in) * c;
    b.normed = take(arena, dense);
    b.grad_normed = take(arena, dense);
    b.grad_mixed = take(arena, dense);
    b.grad_neighbours = take(arena, dense);
    b.statistics = take(arena, 2 * graph_tile(in));
    return b;
}

static GraphGrads take_graph_grads(Arena *arena, const Graph *in) {
    GraphGrads g = {0};
    const int64_t c = in->channels;
    g.norm_weight = take(arena, c);
    g.norm_bias = take(arena, c);
    g.own = take(arena, c * c);
    g.own_bias = take(arena, c);
    g.neighbours = take(arena, c * c);
    g.neighbours_bias = take(arena, c);
    return g;
}

static void give_graph_grads(const Graph *in, const GraphGrads *from, const GraphGrads *to) {
    const int64_t c = in->channels;
    copy_floats(c, from->norm_weight, to->norm_weight);
    copy_floats(c, from->norm_bias, to->norm_bias);
    copy_floats(c * c, from->own, to->own);
    copy_floats(c, from->own_bias, to->own_bias);
    copy_floats(c * c, from->neighbours, to->neighbours);
    copy_floats(c, from->neighbours_bias, to->neighbours_bias);
}

static void graph_backward_tile(const Graph *in, const GraphGrads *grads, int64_t first,
                                int64_t rows, const GraphBackwardScratch *b) {
    const int64_t c = in->channels;
    const float *x = in->x + first * c;
    const GraphGrads *sums = &b->grads;
    layer_norm(rows, c, x, c, in->norm_weight, in->norm_bias, in->eps, b->normed, b->statistics);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t j = (first + r) % in->joints, at = (first + r) * c;
        const JointNorm bn = joint_norm(in, j);
        const float count = in->statistics[2 * in->joints + j];
        const float offset = -bn.scale * grads->totals[j] / count;
        const float tilt = -bn.scale * bn.inverse_deviation * bn.inverse_deviation *
                           grads->totals[in->joints + j] / count;
        for (int64_t i = 0; i < c; i += LANES) {
            vec dy = through_relu(load(grads->out + at + i), load(in->out + at + i));
            store(b->grad_normed + r * c + i, dy);
            store(b->grad_mixed + r * c + i,
                  dy * bn.scale + (load(in->mixed + at + i) - bn.mean) * tilt + offset);
        }
    }
    memset(b->grad_neighbours, 0, rows * c * sizeof(float));
    mix_joints(in->adjacency, in->joints, rows, c, b->grad_mixed, b->grad_neighbours);
    add_rows(rows, c, b->grad_mixed, sums->own_bias);
    add_rows(rows, c, b->grad_neighbours, sums->neighbours_bias);
    linear_weight_gradient(rows, c, c, b->grad_mixed, b->normed, sums->own);
    linear_weight_gradient(rows, c, c, b->grad_neighbours, b->normed, sums->neighbours);
    linear_input_gradient(rows, c, c, b->grad_mixed, in->own, b->grad_normed, 1);
    linear_input_gradient(rows, c, c, b->grad_neighbours, in->neighbours, b->grad_normed, 1);
    layer_norm_backward(rows, c, x, in->norm_weight, b->statistics, b->grad_normed,
                        grads->x + first * c, sums->norm_weight, sums->norm_bias);
}
