/* Functions of rows of channels, in tiles of rows: LayerNorm and GELU with their derivatives, and
 * sums over rows. Channels are a multiple of LANES.
 */
#pragma once
#include "gemm.h"

/* Rows that are computed together: enough for a fast matrix product, few enough for the cache. */
enum { ROW_TILE = 48 };

/* How many sequences go through a block together: as many short ones as fill a tile. */
INLINE int64_t sequences_of_a_tile(int64_t length) {
    int64_t sequences = ROW_TILE / (length ? length : 1);
    return sequences ? sequences : 1;
}

INLINE void copy_floats(int64_t count, const float *from, float *to) {
    memcpy(to, from, count * sizeof(float));
}
INLINE void copy_row(int64_t channels, const float *from, float *to) {
    for (int64_t c = 0; c < channels; c += LANES) store(to + c, load(from + c));
}

/* For each of up to LANES rows: its mean, and the sum of its squared deviations from that mean. */
INLINE void moments(int64_t rows, int64_t channels, const float *x, int64_t x_row, vec *mean,
                    vec *deviation) {
    vec sums[LANES] = {0}, squares[LANES] = {0};
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) sums[i] += load(x + i * x_row + c);
    *mean = lane_sums(sums) / (float)channels;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < channels; c += LANES) {
            vec centred = load(x + i * x_row + c) - (*mean)[i];
            squares[i] += centred * centred;
        }
    *deviation = lane_sums(squares);
}

/* Brings each row to mean 0 and variance 1, then scales and shifts it. x_row: the stride of x's rows.
 * statistics: NULL, or (rows, 2) for the mean and 1/deviation of each row. */
static void layer_norm(int64_t rows, int64_t channels, const float *x, int64_t x_row,
                       const float *weight, const float *bias, float eps, float *y,
                       float *statistics) {
    for (int64_t first = 0; first < rows; first += LANES) {
        int64_t count = smaller(LANES, rows - first);
        vec mean, deviation;
        moments(count, channels, x + first * x_row, x_row, &mean, &deviation);
        vec variance = deviation / (float)channels + eps;
        for (int64_t i = 0; i < count; i++) {
            float scale = 1.0f / sqrtf(variance[i]), m = mean[i];
            if (statistics) {
                statistics[2 * (first + i)] = m;
                statistics[2 * (first + i) + 1] = scale;
            }
            for (int64_t c = 0; c < channels; c += LANES)
                store(y + (first + i) * channels + c,
                      (load(x + (first + i) * x_row + c) - m) * scale * load(weight + c) +
                          load(bias + c));
        }
    }
}

/* pairs (rows, 2) = (first, second) of each row. */
INLINE void store_pairs(int64_t rows, vec first, vec second, float *pairs) {
    for (int64_t i = 0; i < rows; i++) {
        pairs[2 * i] = first[i];
        pairs[2 * i + 1] = second[i];
    }
}

/* Adds the gradients of x, weight and bias to grad_x, grad_weight and grad_bias. */
static void layer_norm_backward(int64_t rows, int64_t channels, const float *x,
                                const float *weight, const float *statistics, const float *grad_y,
                                float *grad_x, float *grad_weight, float *grad_bias) {
    for (int64_t first = 0; first < rows; first += LANES) {
        int64_t count = smaller(LANES, rows - first);
        vec sums[LANES] = {0}, products[LANES] = {0};
        for (int64_t i = 0; i < count; i++) {
            int64_t at = (first + i) * channels;
            float m = statistics[2 * (first + i)], scale = statistics[2 * (first + i) + 1];
            for (int64_t c = 0; c < channels; c += LANES) {
                vec g = load(grad_y + at + c) * load(weight + c);
                sums[i] += g;
                products[i] += g * ((load(x + at + c) - m) * scale);
            }
        }
        for (int64_t c = 0; c < channels; c += LANES) {
            vec by_weight = {}, by_bias = {};
            for (int64_t i = first; i < first + count; i++) {
                vec g = load(grad_y + i * channels + c);
                by_bias += g;
                by_weight += g * ((load(x + i * channels + c) - statistics[2 * i]) *
                                  statistics[2 * i + 1]);
            }
            add_to(grad_weight + c, by_weight);
            add_to(grad_bias + c, by_bias);
        }
        vec mean = lane_sums(sums) / (float)channels, slope = lane_sums(products) / (float)channels;
        for (int64_t i = 0; i < count; i++) {
            int64_t at = (first + i) * channels;
            float m = statistics[2 * (first + i)], scale = statistics[2 * (first + i) + 1];
            float shift = mean[i], tilt = slope[i];
            for (int64_t c = 0; c < channels; c += LANES) {
                vec normed = (load(x + at + c) - m) * scale;
                vec g = load(grad_y + at + c) * load(weight + c) - shift - normed * tilt;
                store(grad_x + at + c, load(grad_x + at + c) + g * scale);
            }
        }
    }
}

/* Φ(x), exact to float32, and exp(-x²/2) on the way: 1 - Φ(a √2) = exp(-a²) P(t) / 2 with
 * t = 1 / (1 + 0.45 a), the form of Abramowitz & Stegun 7.1.26. P has degree 7 instead of 5, for an
 * error of 4e-9 instead of 1.5e-7, which would add up over the blocks of a model. */
INLINE vec normal_cdf(vec x, vec *density) {
    vec a = abs_vec(x) * 0.70710678118654752f, t = reciprocal(1.0f + 0.45f * a);
    vec p = splat(0.09195892478f);
    p = p * t - 0.491321818f;
    p = p * t + 0.8519405055f;
    p = p * t - 0.3706230136f;
    p = p * t + 0.4573170403f;
    p = p * t + 0.2018374862f;
    p = p * t + 0.258890871f;
    *density = exp2_vec(a * a * -LOG2_E);
    vec tail = 0.5f * p * t * *density; /* 1 - Φ(|x|) */
    return select_vec(x < splat(0.0f), tail, 1.0f - tail);
}

INLINE vec gelu(vec x) {
    vec density;
    return x * normal_cdf(x, &density);
}

/* sums += the rows of x. */
INLINE void add_rows(int64_t rows, int64_t channels, const float *x, float *sums) {
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum = {};
        for (int64_t r = 0; r < rows; r++) sum += load(x + r * channels + c);
        add_to(sums + c, sum);
    }
}

INLINE void add_bias(int64_t rows, int64_t channels, const float *bias, float *x) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c += LANES)
            store(x + r * channels + c, load(x + r * channels + c) + load(bias + c));
}

/* The gradients of a Linear y = W x, with W (outputs, inputs) as it lies in memory: of x it is
 * grad_y W, of W the sum over rows of grad_y' x. */
INLINE void linear_input_gradient(int64_t rows, int64_t outputs, int64_t inputs, const float *grad_y,
                                  const float *weight, float *grad_x, int accumulate) {
    gemm(rows, outputs, inputs, (Strided){grad_y, outputs, 1}, weight, inputs, grad_x, inputs,
         accumulate);
}
INLINE void linear_weight_gradient(int64_t rows, int64_t outputs, int64_t inputs,
                                   const float *grad_y, const float *x, float *grad_weight) {
    gemm(outputs, rows, inputs, (Strided){grad_y, 1, outputs}, x, inputs, grad_weight, inputs, 1);
}

/* Whether all of count rows of c numbers are: 0 times each of them is 0 then, and else NaN. */
static int all_finite(int64_t count, int64_t c, const float *x, int64_t row) {
    vec zero = splat(0.0f);
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < c; i += LANES) zero += load(x + r * row + i) * 0.0f;
    float lanes[LANES], sum = 0;
    store(lanes, zero);
    for (int64_t i = 0; i < LANES; i++) sum += lanes[i];
    return sum == 0;
}
