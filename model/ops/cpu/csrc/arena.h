/* Scratch memory and the parts that a kernel's work is split into.
 *
 * A kernel takes its pieces of scratch twice: first from an arena without memory, which only adds up
 * the sizes, then from the allocated memory. That memory holds first the pieces that all parts
 * share, then the pieces of each part.
 */
#pragma once
#include "vector.h"

/* Hands out pieces of one allocation. With base NULL it only adds up their sizes. */
typedef struct {
    float *base;
    size_t used;
    size_t zeros; /* pieces from here on must start at zero; the others are not cleared, which
                     saves time */
} Arena;

INLINE void start_of_zeros(Arena *arena) { arena->zeros = arena->used; }

INLINE float *take(Arena *arena, int64_t floats) {
    float *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size_t)round_up(floats, 16); /* whole cache lines */
    return piece;
}

INLINE float *zeroed(float *memory, size_t floats) { return memset(memory, 0, floats * sizeof(float)); }

/* The memory of a kernel: the shared pieces, then the pieces of each part. */
typedef struct {
    float *memory;
    size_t shared_floats, part_floats;
    size_t first_zero; /* where a part's pieces that must start at zero begin */
    int64_t parts;
} Scratch;

/* measured: the arena after the shared pieces and those of one part. The scratch has memory NULL if
 * the system has none left. */
INLINE Scratch allocate_scratch(size_t shared_floats, Arena measured, int64_t parts) {
    void *memory = NULL;
    Scratch s = {NULL, shared_floats, measured.used - shared_floats, 0, parts};
    if (measured.zeros) s.first_zero = measured.zeros - shared_floats;
    if (!posix_memalign(&memory, 64, (shared_floats + s.part_floats * parts) * sizeof(float)))
        s.memory = memory;
    return s;
}

/* The shared pieces, cleared, because their padding must be zero. */
INLINE Arena shared_arena(const Scratch *s) {
    return (Arena){zeroed(s->memory, s->shared_floats), 0, 0};
}

/* The pieces of a part, not cleared. */
INLINE Arena part_arena(const Scratch *s, int64_t part) {
    return (Arena){s->memory + s->shared_floats + s->part_floats * part, 0, 0};
}

/* The pieces of a part, cleared where they must start at zero. The thread that works on the part
 * calls this, so the pieces lie in its cache. */
INLINE Arena fresh_part_arena(const Scratch *s, int64_t part) {
    Arena own = part_arena(s, part);
    zeroed(own.base + s->first_zero, s->part_floats - s->first_zero);
    return own;
}

/* Rows [first, end). */
typedef struct {
    int64_t first, end;
} Span;

/* The next `count` rows that no thread has taken yet; if first >= end, none are left. */
INLINE Span free_rows(int64_t *next, int64_t rows, int64_t count) {
    const int64_t first = __atomic_fetch_add(next, count, __ATOMIC_RELAXED);
    return (Span){first, smaller(first + count, rows)};
}

INLINE int64_t tile_count(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }

/* The rows of one part, in whole tiles. */
INLINE Span part_rows(const Scratch *s, int64_t part, int64_t rows, int64_t tile) {
    const int64_t tiles = tile_count(rows, tile);
    return (Span){tiles * part / s->parts * tile, smaller(tiles * (part + 1) / s->parts * tile, rows)};
}

/* A backward has more parts than threads, so that other threads take over from a delayed one. */
enum { PARTS_OF_A_THREAD = 2 };
INLINE int64_t backward_parts(int64_t tiles, int64_t threads) {
    return threads > 1 && tiles > 1 ? smaller(threads * PARTS_OF_A_THREAD, tiles) : 1;
}

/* Adds every other part's gradients to the first's, in the order of the parts. The gradients are
 * the last pieces of a part, from `from` on, in whole vectors. Each thread adds up all parts at some
 * of the places, so the order of a sum does not depend on the number of threads. */
enum { PLACES_AT_ONCE = 4096 };
static void add_parts(const Scratch *s, const float *from, int64_t threads) {
    float *first = part_arena(s, 0).base;
    const int64_t begin = from - first, end = (int64_t)s->part_floats;
    if (s->parts == 1) return;
#pragma omp parallel for num_threads((int)threads) if (threads > 1)
    for (int64_t at = begin; at < end; at += PLACES_AT_ONCE)
        for (int64_t part = 1; part < s->parts; part++)
            for (int64_t i = at; i < smaller(at + PLACES_AT_ONCE, end); i += LANES)
                add_to(first + i, load(part_arena(s, part).base + i));
}
