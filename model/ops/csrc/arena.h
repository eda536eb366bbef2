/* Scratch memory: one allocation, handed out in pieces. */
#pragma once
#include "vector.h"

/* Hands out pieces of one allocation. With base NULL it only measures. */
typedef struct {
    float *base;
    size_t used;
    size_t zeros; /* where the pieces begin that must be zero at first: the others are left as they
                     are, since to clear them costs time */
} Arena;

INLINE void start_of_zeros(Arena *arena) { arena->zeros = arena->used; }

INLINE float *take(Arena *arena, int64_t floats) {
    float *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size_t)round_up(floats, 16); /* whole cache lines */
    return piece;
}

/* NULL if there is no memory. */
INLINE float *allocate(size_t floats) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, floats * sizeof(float)) ? NULL : memory;
}

/* Padding, and sums of gradients, must start at zero. */
INLINE float *zeroed(float *memory, size_t floats) { return memset(memory, 0, floats * sizeof(float)); }
