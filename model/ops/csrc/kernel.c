/* The entry points, called through ctypes: no Python or PyTorch headers, no ABI to follow.
 *
 * A forward's threads take sequences as they come, since each sequence's result is its own. A
 * backward is split into parts of fixed extent, more than there are threads so that a delayed one
 * leaves its share to the others; the parts' weight gradients are added in the order of the parts.
 * Results depend on `threads` at most, never on how they were scheduled or how many were granted.
 *
 * Every function returns 0, or OUT_OF_MEMORY having written nothing of use.
 */
#include "block.h"
#include "graph.h"
#include "head.h"
#include "heap.h"
#include "inner_backward.h"
#include "scan_op.h"
#include "tail.h"

#define EXPORT __attribute__((visibility("default")))
enum { DONE = 0, OUT_OF_MEMORY = 1 };

EXPORT int64_t mdtf_lanes(void) { return LANES; }

EXPORT int64_t mdtf_max_chunk(void) { return MAX_CHUNK; }

/* Floats that a forward keeps for its backward, in each direction. */
EXPORT int64_t mdtf_kept_floats(const Shape *s) {
    Padded p = padded_sizes(s);
    return s->outer * s->inner * p.kept * p.states * p.channels;
}

/* One allocation for what all parts share, then what each has for its own; both statements take
 * their pieces from `measure`. */
#define ALLOCATE(take_shared, take_own)                                       \
    Arena measure = {0};                                                      \
    take_shared;                                                              \
    const size_t shared_floats = measure.used;                                \
    take_own;                                                                 \
    const size_t part_floats = measure.used - shared_floats;                  \
    float *memory = allocate(shared_floats + part_floats * parts);            \
    if (!memory) return OUT_OF_MEMORY;                                        \
    Arena shared __attribute__((unused)) = {zeroed(memory, shared_floats), 0}
#define PART(part) (memory + shared_floats + part_floats * (part))
/* By the thread that will use it, whose cache it then lies in. */
#define OWN(part) {zeroed(PART(part), part_floats), 0}

/* Runs the block for each `part` from 0 to `parts`, on up to `threads` threads. One thread starts
 * none at all, so that a forked process, which has lost its parent's, can run it. */
#define FOR_EACH_PART                                                                         \
    _Pragma("omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)") \
    for (int64_t part = 0; part < parts; part++)

/* In the backward: sequences [first, last) of a part. */
enum { PARTS_OF_A_THREAD = 4 };
INLINE int64_t backward_parts(int64_t rows, int64_t threads) {
    return threads > 1 && rows > 1 ? smaller(threads * PARTS_OF_A_THREAD, rows) : 1;
}
#define FOR_EACH_ROW                                                               \
    for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; row++)

/* In the forward: whoever is free takes the next `count` sequences (or rows of a half block). */
#define FOR_FREE_ROWS(count)                                                           \
    for (int64_t row; (row = __atomic_fetch_add(&next, (count), __ATOMIC_RELAXED)) < rows;)

/* Adds every other part's gradients to the first's, in the order of the parts. The gradients are
 * the last pieces of a part's scratch, from `from` on. */
static void add_parts(float *first, size_t part_floats, int64_t parts, const float *from) {
    for (int64_t part = 1; part < parts; part++)
        for (size_t i = (size_t)(from - first); i < part_floats; i++)
            first[i] += first[part_floats * part + i];
}

static void take_directions(Arena *arena, const Inner *in, const Padded *p, Packed *packed) {
    for (int d = 0; d < DIRECTIONS; d++) {
        packed[d] = take_packed(arena, &in->shape, p, 1);
        if (arena->base) pack(&in->shape, p, &in->weights[d], &packed[d]);
    }
}

EXPORT int mdtf_inner_forward(const Inner *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    int64_t next = 0;
    if (rows == 0 || s->length == 0) return DONE;

    Packed packed[DIRECTIONS];
    ALLOCATE(take_directions(&measure, in, &p, packed), take_stage(&measure, s, &p, 0));
    take_directions(&shared, in, &p, packed);
    FOR_EACH_PART {
        Arena own = OWN(part);
        Stage stage = take_stage(&own, s, &p, 0);
        FOR_FREE_ROWS(1) inner_forward_row(in, &p, packed, row, &stage);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_inner_backward(const Inner *in, const InnerGrads *grads, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->length ? s->outer * s->inner : 0;
    const int64_t parts = backward_parts(rows, threads);

    Packed packed[DIRECTIONS];
    ALLOCATE(take_directions(&measure, in, &p, packed), take_backward_scratch(&measure, s, &p));
    take_directions(&shared, in, &p, packed);
    FOR_EACH_PART {
        Arena own = OWN(part);
        BackwardScratch scratch = take_backward_scratch(&own, s, &p);
        FOR_EACH_ROW inner_backward_row(in, grads, &p, packed, row, &scratch);
    }
    Arena first = {PART(0), 0};
    BackwardScratch total = take_backward_scratch(&first, s, &p);
    add_parts(first.base, part_floats, parts, total.grads[0].conv_weight);
    for (int d = 0; d < DIRECTIONS; d++) unpack(s, &p, &total.grads[d], &grads->weights[d]);
    free(memory);
    return DONE;
}

/* A and D of a lone scan, padded; the memory must be zero. */
static Packed take_scan_weights(Arena *arena, const Scan *in, const Padded *p) {
    const Shape *s = &in->shape;
    Packed w = {0};
    w.A = take(arena, p->states * p->channels);
    w.D = take(arena, p->channels);
    if (!arena->base) return w;
    for (int64_t c = 0; c < s->channels; c++) {
        w.D[c] = in->weights.D[c];
        for (int64_t n = 0; n < s->states; n++)
            w.A[n * p->channels + c] = in->weights.A[c * s->states + n] * LOG2_E;
    }
    return w;
}

EXPORT int mdtf_scan_forward(const Scan *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    int64_t next = 0;
    if (rows == 0 || s->length == 0) return DONE;

    ALLOCATE(take_scan_weights(&measure, in, &p), take_scan_stage(&measure, &p));

    const Packed w = take_scan_weights(&shared, in, &p);
    FOR_EACH_PART {
        Arena own = OWN(part);
        ScanStage stage = take_scan_stage(&own, &p);
        FOR_FREE_ROWS(1) scan_forward_row(in, &p, &w, row, &stage);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_scan_backward(const Scan *in, const ScanGrads *grads, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->length ? s->outer * s->inner : 0;
    const int64_t parts = backward_parts(rows, threads);

    ALLOCATE(take_scan_weights(&measure, in, &p), take_scan_backward_scratch(&measure, &p));

    const Packed w = take_scan_weights(&shared, in, &p);
    FOR_EACH_PART {
        Arena own = OWN(part);
        ScanBackwardScratch scratch = take_scan_backward_scratch(&own, &p);
        FOR_EACH_ROW scan_backward_row(in, grads, &p, &w, row, &scratch);
    }
    Arena first = {PART(0), 0};
    ScanBackwardScratch total = take_scan_backward_scratch(&first, &p);
    add_parts(first.base, part_floats, parts, total.A);
    for (int64_t c = 0; c < s->channels; c++) {
        grads->weights.D[c] = total.D[c];
        for (int64_t n = 0; n < s->states; n++)
            grads->weights.A[c * s->states + n] = total.A[n * p.channels + c];
    }
    free(memory);
    return DONE;
}

EXPORT int64_t mdtf_max_joints(void) { return MAX_JOINTS; }

EXPORT void mdtf_heap_keep_freed(void) { heap_keep_freed(); }

EXPORT void mdtf_heap_give_back(int64_t limit) { heap_give_back((size_t)limit); }

EXPORT int64_t mdtf_row_tile(void) { return ROW_TILE; }

EXPORT int mdtf_block_forward(const Block *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    int64_t next = 0;
    if (rows == 0 || s->length == 0) return DONE;

    ALLOCATE(take_packed_block(&measure, in, &p), take_block_scratch(&measure, in, &p));

    const PackedBlock w = take_packed_block(&shared, in, &p);
    pack_block(in, &p, &w);
    const int64_t group = block_group(in);
    FOR_EACH_PART {
        Arena own = OWN(part);
        BlockScratch scratch = take_block_scratch(&own, in, &p);
        FOR_FREE_ROWS(group)
        block_forward_group(in, &p, &w, row, smaller(group, rows - row), &scratch);
    }
    free(memory);
    return DONE;
}

/* Tiles of rows: in a forward taken by who is free, in a backward those of a part. */
#define FOR_FREE_TILES(tile)                                                                  \
    for (int64_t row, count; (row = __atomic_fetch_add(&next, (tile), __ATOMIC_RELAXED),       \
                              count = smaller((tile), rows - row), row < rows);)
#define FOR_EACH_TILE(tile)                                                                   \
    for (int64_t t = tiles * part / parts, row, count;                                        \
         row = t * (tile), count = smaller((tile), in->rows - row), t < tiles * (part + 1) / parts; \
         t++)

EXPORT int mdtf_head_forward(const Head *in, int64_t threads) {
    const int64_t rows = in->rows, parts = threads;
    int64_t next = 0;
    ALLOCATE(take_head_packed(&measure, in), take(&measure, ROW_TILE * in->channels));

    const float *packed = take_head_packed(&shared, in);
    FOR_EACH_PART {
        Arena own = OWN(part);
        float *normed = take(&own, ROW_TILE * in->channels);
        FOR_FREE_TILES(ROW_TILE) head_forward_tile(in, packed, row, count, normed);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_head_backward(const Head *in, const HeadGrads *grads, int64_t threads) {
    const int64_t tiles = (in->rows + ROW_TILE - 1) / ROW_TILE, c = in->channels;
    const int64_t parts = backward_parts(tiles, threads);
    ALLOCATE((void)0, take_head_backward_scratch(&measure, in));

    FOR_EACH_PART {
        Arena own = OWN(part);
        const HeadBackwardScratch scratch = take_head_backward_scratch(&own, in);
        FOR_EACH_TILE(ROW_TILE) head_backward_tile(in, grads, row, count, &scratch);
    }
    Arena first = {PART(0), 0};
    const HeadGrads total = take_head_backward_scratch(&first, in).grads;
    add_parts(first.base, part_floats, parts, total.norm_weight);
    memcpy(grads->norm_weight, total.norm_weight, c * sizeof(float));
    memcpy(grads->norm_bias, total.norm_bias, c * sizeof(float));
    memcpy(grads->weight, total.weight, 2 * c * c * sizeof(float));
    free(memory);
    return DONE;
}

EXPORT int mdtf_graph_mix(const Graph *in, int64_t threads) {
    const int64_t rows = in->rows, tile = graph_tile(in), parts = threads;
    int64_t next = 0;
    ALLOCATE(take_graph_shared(&measure, in), take(&measure, tile * in->channels));

    const GraphShared w = take_graph_shared(&shared, in);
    FOR_EACH_PART {
        Arena own = OWN(part);
        float *neighbours = take(&own, tile * in->channels);
        FOR_FREE_TILES(tile) graph_mix_tile(in, &w, row, count, neighbours);
    }
    graph_statistics(in);
    free(memory);
    return DONE;
}

EXPORT int mdtf_graph_output(const Graph *in, int64_t threads) {
    const int64_t rows = in->rows, parts = threads;
    int64_t next = 0;
    FOR_EACH_PART FOR_FREE_TILES(ROW_TILE) graph_output_tile(in, row, count);
    return DONE;
}

EXPORT int mdtf_graph_sums(const Graph *in, const GraphGrads *grads, int64_t threads) {
    const int64_t rows = in->rows, parts = threads;
    int64_t next = 0;
    FOR_EACH_PART FOR_FREE_TILES(ROW_TILE) graph_sums_tile(in, grads, row, count);
    graph_totals(in, grads);
    return DONE;
}

EXPORT int mdtf_graph_backward(const Graph *in, const GraphGrads *grads, int64_t threads) {
    const int64_t tile = graph_tile(in), tiles = (in->rows + tile - 1) / tile, c = in->channels;
    const int64_t parts = backward_parts(tiles, threads);
    ALLOCATE((void)0, take_graph_backward_scratch(&measure, in));

    FOR_EACH_PART {
        Arena own = OWN(part);
        const GraphBackwardScratch scratch = take_graph_backward_scratch(&own, in);
        FOR_EACH_TILE(tile) graph_backward_tile(in, grads, row, count, &scratch);
    }
    Arena first = {PART(0), 0};
    const GraphGrads total = take_graph_backward_scratch(&first, in).grads;
    add_parts(first.base, part_floats, parts, total.norm_weight);
    memcpy(grads->norm_weight, total.norm_weight, c * sizeof(float));
    memcpy(grads->norm_bias, total.norm_bias, c * sizeof(float));
    memcpy(grads->own, total.own, c * c * sizeof(float));
    memcpy(grads->own_bias, total.own_bias, c * sizeof(float));
    memcpy(grads->neighbours, total.neighbours, c * c * sizeof(float));
    memcpy(grads->neighbours_bias, total.neighbours_bias, c * sizeof(float));
    free(memory);
    return DONE;
}

EXPORT int mdtf_tail_forward(const Tail *in, int64_t threads) {
    const int64_t rows = in->rows, parts = threads;
    int64_t next = 0;
    ALLOCATE(take_tail_shared(&measure, in), take_tail_scratch(&measure, in));

    const TailShared w = take_tail_shared(&shared, in);
    FOR_EACH_PART {
        Arena own = OWN(part);
        const TailScratch scratch = take_tail_scratch(&own, in);
        FOR_FREE_TILES(ROW_TILE) tail_forward_tile(in, &w, row, count, &scratch);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_tail_backward(const Tail *in, const TailGrads *grads, int64_t threads) {
    const int64_t tiles = (in->rows + ROW_TILE - 1) / ROW_TILE, c = in->channels, h = in->hidden;
    const int64_t parts = backward_parts(tiles, threads);
    ALLOCATE(take_tail_shared(&measure, in), take_tail_backward_scratch(&measure, in));

    const TailShared w = take_tail_shared(&shared, in);
    FOR_EACH_PART {
        Arena own = OWN(part);
        const TailBackwardScratch scratch = take_tail_backward_scratch(&own, in);
        FOR_EACH_TILE(ROW_TILE) tail_backward_tile(in, grads, &w, row, count, &scratch);
    }
    Arena first = {PART(0), 0};
    const TailGrads total = take_tail_backward_scratch(&first, in).grads;
    add_parts(first.base, part_floats, parts, total.out_proj);
    memcpy(grads->out_proj, total.out_proj, c * c * sizeof(float));
    memcpy(grads->norm_weight, total.norm_weight, c * sizeof(float));
    memcpy(grads->norm_bias, total.norm_bias, c * sizeof(float));
    memcpy(grads->fc1, total.fc1, h * c * sizeof(float));
    memcpy(grads->fc1_bias, total.fc1_bias, h * sizeof(float));
    memcpy(grads->fc2, total.fc2, c * h * sizeof(float));
    memcpy(grads->fc2_bias, total.fc2_bias, c * sizeof(float));
    if (in->last_weight) {
        memcpy(grads->last_weight, total.last_weight, c * sizeof(float));
        memcpy(grads->last_bias, total.last_bias, c * sizeof(float));
    }
    free(memory);
    return DONE;
}
