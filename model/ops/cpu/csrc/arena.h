/* Scratch memory and the parts that a kernel's work is split into.
 *
 * A kernel takes its scratch twice: from an arena without memory, which measures, and from the
 * memory that is then allocated at once: first what all parts share, then each part's own.
 */
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

INLINE float *zeroed(float *memory, size_t floats) { return memset(memory, 0, floats * sizeof(float)); }

/* The memory of a kernel: what is shared, then the pieces of each part. */
typedef struct {
    float *memory;
    size_t shared_floats, part_floats;
    size_t first_zero; /* of a part's own pieces, those that start at zero begin here */
    int64_t parts;
} Scratch;

/* From the arena that has measured what is shared, and then also what a part owns. Its memory is
 * NULL if there is none left. */
INLINE Scratch allocate_scratch(size_t shared_floats, Arena measured, int64_t parts) {
    void *memory = NULL;
    Scratch s = {NULL, shared_floats, measured.used - shared_floats, 0, parts};
    if (measured.zeros) s.first_zero = measured.zeros - shared_floats;
    if (!posix_memalign(&memory, 64, (shared_floats + s.part_floats * parts) * sizeof(float)))
        s.memory = memory;
    return s;
}

/* Padding must start at zero. */
INLINE Arena shared_arena(const Scratch *s) {
    return (Arena){zeroed(s->memory, s->shared_floats), 0, 0};
}

/* A part's pieces as they are. */
INLINE Arena part_arena(const Scratch *s, int64_t part) {
    return (Arena){s->memory + s->shared_floats + s->part_floats * part, 0, 0};
}

/* A part's pieces at the start. The thread that works on the part clears them: they then lie in its
 * cache. */
INLINE Arena fresh_part_arena(const Scratch *s, int64_t part) {
    Arena own = part_arena(s, part);
    zeroed(own.base + s->first_zero, s->part_floats - s->first_zero);
    return own;
}

/* Rows [first, end). */
typedef struct {
    int64_t first, end;
} Span;

/* The next `count` rows that nobody works on yet; none are left where first is not below end. */
INLINE Span free_rows(int64_t *next, int64_t rows, int64_t count) {
    const int64_t first = __atomic_fetch_add(next, count, __ATOMIC_RELAXED);
    return (Span){first, smaller(first + count, rows)};
}

/* The rows of one part, in whole tiles. */
INLINE Span part_rows(const Scratch *s, int64_t part, int64_t rows, int64_t tile) {
    const int64_t tiles = (rows + tile - 1) / tile;
    return (Span){tiles * part / s->parts * tile, smaller(tiles * (part + 1) / s->parts * tile, rows)};
}
INLINE int64_t tile_count(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }

/* Parts of a backward: more than there are threads, so that a delayed one leaves its share to the
 * others. */
enum { PARTS_OF_A_THREAD = 2 };
INLINE int64_t backward_parts(int64_t tiles, int64_t threads) {
    return threads > 1 && tiles > 1 ? smaller(threads * PARTS_OF_A_THREAD, tiles) : 1;
}

/* Adds every other part's gradients to the first's, in the order of the parts. The gradients are
 * the last pieces of a part, from `from` on, in whole vectors. Threads share the places and not the
 * parts, so the sums' order is the same for any number of them. */
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
