/* Small matrix products C (+)= A B on row-major matrices, register-blocked.
 *
 * B and C are a whole number of vectors wide (columns = vectors * LANES); A is read one scalar at
 * a time, with any two strides, so that A' needs no copy. A tile of up to TILE_ROWS rows and
 * TILE_VECTORS vectors of C stays in registers.
 */
#pragma once
#include "vector.h"

#if LANES == 16
#define TILE_ROWS 6
#define TILE_VECTORS 4
#else
#define TILE_ROWS 6
#define TILE_VECTORS 2
#endif

typedef struct {
    const float *data;
    int64_t row, column; /* strides in elements */
} Strided;

/* One tile. rows and vectors are constants at every call, so the loops unroll completely. */
INLINE void gemm_tile(const int rows, const int vectors, int64_t depth, Strided a, const float *b,
                      int64_t b_row, float *c, int64_t c_row, int accumulate) {
    vec sum[TILE_ROWS][TILE_VECTORS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = (vec){};
    for (int64_t k = 0; k < depth; k++) {
        vec row[TILE_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) row[j] = load(b + k * b_row + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            float scalar = a.data[i * a.row + k * a.column];
            UNROLL for (int j = 0; j < vectors; j++) sum[i][j] += row[j] * scalar;
        }
    }
    /* C is added last: a sum that started from it would round every product at C's magnitude. */
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) {
            float *to = c + i * c_row + j * LANES;
            store(to, accumulate ? load(to) + sum[i][j] : sum[i][j]);
        }
}

/* All rows of a column strip. */
INLINE void gemm_strip(const int vectors, int64_t rows, int64_t depth, Strided a, const float *b,
                       int64_t b_row, float *c, int64_t c_row, int accumulate) {
#define TILE(n) gemm_tile(n, vectors, depth, a, b, b_row, c, c_row, accumulate)
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        TILE(TILE_ROWS);
        a.data += TILE_ROWS * a.row;
        c += TILE_ROWS * c_row;
    }
    switch (rows) {
        case 5: TILE(5); break;
        case 4: TILE(4); break;
        case 3: TILE(3); break;
        case 2: TILE(2); break;
        case 1: TILE(1); break;
        default: break;
    }
#undef TILE
}

/* C (rows x columns) = A (rows x depth) B (depth x columns), added to C if `accumulate`. */
static __attribute__((noinline)) void gemm(int64_t rows, int64_t depth, int64_t columns, Strided a,
                                           const float *b, int64_t b_row, float *c, int64_t c_row,
                                           int accumulate) {
    int64_t vectors = columns / LANES;
#define STRIP(n)                                                           \
    for (; vectors >= (n); vectors -= (n), b += (n)*LANES, c += (n)*LANES) \
    gemm_strip(n, rows, depth, a, b, b_row, c, c_row, accumulate)
#if TILE_VECTORS == 4
    STRIP(4);
    STRIP(3);
#endif
    STRIP(2);
    STRIP(1);
#undef STRIP
}

/* The same with B packed by pack_panels: each strip of columns in one piece, read in order. */
static __attribute__((noinline)) void gemm_packed(int64_t rows, int64_t depth, int64_t columns,
                                                  Strided a, const float *packed, float *c,
                                                  int64_t c_row, int accumulate) {
    int64_t vectors = columns / LANES;
#define STRIP(n)                                                                            \
    for (; vectors >= (n); vectors -= (n), packed += depth * (n)*LANES, c += (n)*LANES)     \
    gemm_strip(n, rows, depth, a, packed, (n)*LANES, c, c_row, accumulate)
#if TILE_VECTORS == 4
    STRIP(4);
    STRIP(3);
#endif
    STRIP(2);
    STRIP(1);
#undef STRIP
}

/* B' (outputs, depth), as a Linear's weight lies in memory, to the panels of gemm_packed. If
 * `below` is given, it has as many rows again, and is stacked below. */
static void pack_panels(const float *weight, const float *below, int64_t outputs, int64_t depth,
                        float *packed) {
    const int64_t columns = below ? 2 * outputs : outputs;
    for (int64_t first = 0; first < columns;) {
        int64_t vectors = smaller((columns - first) / LANES, TILE_VECTORS), width = vectors * LANES;
        for (int64_t i = 0; i < width; i++) {
            int64_t column = first + i;
            const float *from = column < outputs ? weight + column * depth
                                                 : below + (column - outputs) * depth;
            for (int64_t k = 0; k < depth; k++) packed[k * width + i] = from[k];
        }
        packed += depth * width;
        first += width;
    }
}
