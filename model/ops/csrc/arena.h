/* Scratch memory: one allocation, handed out in pieces. */
#pragma once
#include "vector.h"

/* Hands out pieces of one allocation. With base NULL it only measures. */
typedef struct {
    float *base;
    size_t used;
} Arena;

INLINE float *take(Arena *arena, int64_t floats) {
    float *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size_t)round_up(floats, 16); /* whole cache lines */
    return piece;
}

/* Zeroed: padding, and sums of gradients, must start at zero. NULL if there is no memory. */
static float *allocate_zeroed(size_t floats) {
    void *memory = NULL;
    size_t bytes = floats * sizeof(float);
    return posix_memalign(&memory, 64, bytes) ? NULL : memset(memory, 0, bytes);
}
