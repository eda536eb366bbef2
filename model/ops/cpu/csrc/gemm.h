/* Small matrix products C (+)= A B on row-major matrices, register-blocked.
 *
 * B and C are a whole number of vectors wide (columns = vectors * LANES); A is read one scalar at
 * a time, with any two strides, so that A' needs no copy. A tile of up to TILE_ROWS rows and
 * TILE_VECTORS vectors of C stays in registers.
 */
#pragma once
#include "vector.h"

#define TILE_ROWS 6
#define TILE_VECTORS (LANES == 16 ? 4 : 2)

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

/* All rows of a strip of columns, `vectors` wide. */
INLINE void gemm_strip(const int vectors, int64_t rows, int64_t depth, Strided a, const float *b,
                       int64_t b_row, float *c, int64_t c_row, int accumulate) {
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        gemm_tile(TILE_ROWS, vectors, depth, a, b, b_row, c, c_row, accumulate);
        a.data += TILE_ROWS * a.row;
        c += TILE_ROWS * c_row;
    }
    switch (rows) {
        case 5: gemm_tile(5, vectors, depth, a, b, b_row, c, c_row, accumulate); break;
        case 4: gemm_tile(4, vectors, depth, a, b, b_row, c, c_row, accumulate); break;
        case 3: gemm_tile(3, vectors, depth, a, b, b_row, c, c_row, accumulate); break;
        case 2: gemm_tile(2, vectors, depth, a, b, b_row, c, c_row, accumulate); break;
        case 1: gemm_tile(1, vectors, depth, a, b, b_row, c, c_row, accumulate); break;
        default: break;
    }
}

/* The columns of B and C that are not computed yet. */
typedef struct {
    const float *b;
    float *c;
    int64_t vectors;
} Columns;

/* As many strips of `width` vectors as fit. b_row 0: B is packed, each strip in one piece. */
INLINE Columns gemm_strips(const int width, int64_t rows, int64_t depth, Strided a, Columns left,
                           int64_t b_row, int64_t c_row, int accumulate) {
    for (; left.vectors >= width; left.vectors -= width) {
        gemm_strip(width, rows, depth, a, left.b, b_row ? b_row : width * LANES, left.c, c_row,
                   accumulate);
        left.b += b_row ? width * LANES : depth * width * LANES;
        left.c += width * LANES;
    }
    return left;
}

INLINE void gemm_columns(int64_t rows, int64_t depth, Strided a, Columns left, int64_t b_row,
                         int64_t c_row, int accumulate) {
#if TILE_VECTORS == 4
    left = gemm_strips(4, rows, depth, a, left, b_row, c_row, accumulate);
    left = gemm_strips(3, rows, depth, a, left, b_row, c_row, accumulate);
#endif
    left = gemm_strips(2, rows, depth, a, left, b_row, c_row, accumulate);
    gemm_strips(1, rows, depth, a, left, b_row, c_row, accumulate);
}

/* C (rows x columns) = A (rows x depth) B (depth x columns), added to C if `accumulate`. */
static __attribute__((noinline)) void gemm(int64_t rows, int64_t depth, int64_t columns, Strided a,
                                           const float *b, int64_t b_row, float *c, int64_t c_row,
                                           int accumulate) {
    gemm_columns(rows, depth, a, (Columns){b, c, columns / LANES}, b_row, c_row, accumulate);
}

/* The same with B packed by pack_panels: each strip of columns in one piece, read in order. */
static __attribute__((noinline)) void gemm_packed(int64_t rows, int64_t depth, int64_t columns,
                                                  Strided a, const float *packed, float *c,
                                                  int64_t c_row, int accumulate) {
    gemm_columns(rows, depth, a, (Columns){packed, c, columns / LANES}, 0, c_row, accumulate);
}

/* Packs B', a Linear's weight (outputs, depth), into the panels of gemm_packed. below: NULL, or a
 * second weight of the same size, whose rows follow those of the first. */
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
