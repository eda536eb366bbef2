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
#include "heap.h"
#include "scan_op.h"
#include "train.h"

#define EXPORT __attribute__((visibility("default")))
enum { DONE = 0, OUT_OF_MEMORY = 1 };

/* What the caller compares its own structures with. */
#define SIZE_OF(type) \
    EXPORT int64_t mdtf_sizeof_##type(void) { return sizeof(type); }
SIZE_OF(Shape)
SIZE_OF(View)
SIZE_OF(Weights)
SIZE_OF(Inner)
SIZE_OF(InnerGrads)
SIZE_OF(Scan)
SIZE_OF(ScanGrads)
SIZE_OF(GraphWeights)
SIZE_OF(Block)
SIZE_OF(Head)
SIZE_OF(HeadGrads)
SIZE_OF(Graph)
SIZE_OF(GraphGrads)
SIZE_OF(Tail)
SIZE_OF(TailGrads)
SIZE_OF(Train)
SIZE_OF(TrainGrads)

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
    const size_t first_zero = measure.zeros ? measure.zeros - shared_floats : 0; \
    float *memory = allocate(shared_floats + part_floats * parts);            \
    if (!memory) return OUT_OF_MEMORY;                                        \
    Arena shared __attribute__((unused)) = {zeroed(memory, shared_floats), 0}
#define PART(part) (memory + shared_floats + part_floats * (part))
/* By the thread that will use it, whose cache it then lies in. */
#define OWN(part)                                                                 \
    {zeroed(PART(part) + first_zero, part_floats - first_zero) - first_zero, 0}

/* Runs the block for each `part` from 0 to `parts`, on up to `threads` threads. One thread starts
 * none at all, so that a forked process, which has lost its parent's, can run it. */
#define FOR_EACH_PART                                                                         \
    _Pragma("omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)") \
    for (int64_t part = 0; part < parts; part++)

/* In the backward: sequences [first, last) of a part. */
enum { PARTS_OF_A_THREAD = 2 };
INLINE int64_t backward_parts(int64_t rows, int64_t threads) {
    return threads > 1 && rows > 1 ? smaller(threads * PARTS_OF_A_THREAD, rows) : 1;
}
#define FOR_EACH_ROW                                                               \
    for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; row++)

/* In the forward: whoever is free takes the next `count` sequences. */
#define FOR_FREE_ROWS(rows, count)                                                     \
    for (int64_t row; (row = __atomic_fetch_add(&next, (count), __ATOMIC_RELAXED)) < (rows);)

/* Adds every other part's gradients to the first's, in the order of the parts. The gradients are
 * the last pieces of a part's scratch, from `from` on, in whole vectors. Threads share the places
 * and not the parts, so the sums' order is the same for any number of them. */
enum { PLACES_AT_ONCE = 4096 };
static void add_parts(float *first, size_t part_floats, int64_t parts, const float *from,
                      int64_t threads) {
    const int64_t begin = from - first, end = (int64_t)part_floats;
    if (parts == 1) return;
    _Pragma("omp parallel for num_threads((int)threads) if (threads > 1)")
    for (int64_t at = begin; at < end; at += PLACES_AT_ONCE)
        for (int64_t part = 1; part < parts; part++)
            for (int64_t i = at; i < smaller(at + PLACES_AT_ONCE, end); i += LANES)
                add_to(first + i, load(first + part_floats * part + i));
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
        FOR_FREE_ROWS(rows, 1) inner_forward_row(in, &p, packed, row, &stage);
    }
    free(memory);
    return DONE;
}

static void take_inner_scratch(Arena *arena, const Shape *s, const Padded *p, BackwardScratch *b) {
    *b = take_backward_scratch(arena, s, p);
    take_inner_grads(arena, s, p, b->grads);
}

EXPORT int mdtf_inner_backward(const Inner *in, const InnerGrads *grads, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->length ? s->outer * s->inner : 0;
    const int64_t parts = backward_parts(rows, threads);

    Packed packed[DIRECTIONS];
    BackwardScratch total;
    ALLOCATE(take_directions(&measure, in, &p, packed), take_inner_scratch(&measure, s, &p, &total));
    take_directions(&shared, in, &p, packed);
    FOR_EACH_PART {
        Arena own = OWN(part);
        BackwardScratch scratch;
        take_inner_scratch(&own, s, &p, &scratch);
        FOR_EACH_ROW inner_backward_row(in, grads, &p, packed, row, &scratch);
    }
    Arena first = {PART(0), 0};
    take_inner_scratch(&first, s, &p, &total);
    add_parts(first.base, part_floats, parts, total.grads[0].conv_weight, threads);
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
        FOR_FREE_ROWS(rows, 1) scan_forward_row(in, &p, &w, row, &stage);
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
    add_parts(first.base, part_floats, parts, total.A, threads);
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
    const int64_t group = sequences_of_a_tile(s->length);
    FOR_EACH_PART {
        Arena own = OWN(part);
        BlockScratch scratch = take_block_scratch(&own, in, &p);
        FOR_FREE_ROWS(rows, group)
        block_forward_group(in, &p, &w, row, smaller(group, rows - row), &scratch);
    }
    free(memory);
    return DONE;
}

/* Tiles of rows: in a forward taken by who is free, in a backward those of a part. */
#define FOR_FREE_TILES(rows, tile)                                                            \
    for (int64_t row, count; row = __atomic_fetch_add(&next, (tile), __ATOMIC_RELAXED),        \
                             count = smaller((tile), (rows) - row), row < (rows);)
#define FOR_EACH_TILE(rows, tile)                                                             \
    for (int64_t t = tile_count(rows, tile) * part / parts, row, count;                       \
         row = t * (tile), count = smaller((tile), (rows) - row),                             \
         t < tile_count(rows, tile) * (part + 1) / parts;                                     \
         t++)
INLINE int64_t tile_count(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }

static void take_enter_shared(Arena *arena, const Train *in, TrainShared *w) {
    w->head = take_head_packed(arena, &in->head);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints) w->graph[d] = take_graph_shared(arena, &in->graph[d]);
}

static void take_leave_shared(Arena *arena, const Train *in, const Padded *p, TrainShared *w) {
    w->head = take_head_packed(arena, &in->head);
    take_directions(arena, &in->inner, p, w->inner);
    w->tail = take_tail_shared(arena, &in->tail);
}

/* With graphs: the head, their mixes and the statistics of those. */
EXPORT int mdtf_train_enter(const Train *in, int64_t threads) {
    const Padded p = padded_sizes(&in->inner.shape);
    const Graph *any = &in->graph[in->graph[0].joints ? 0 : 1];
    const int64_t rows = in->head.rows, tile = graph_tile(any), parts = threads;
    int64_t next = 0;
    TrainShared w;
    ALLOCATE(take_enter_shared(&measure, in, &w), take_train_scratch(&measure, in, &p));

    take_enter_shared(&shared, in, &w);
    FOR_EACH_PART {
        Arena own = OWN(part);
        const TrainScratch scratch = take_train_scratch(&own, in, &p);
        FOR_FREE_TILES(rows, tile) enter_tile(in, &w, row, count, &scratch);
    }
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints) graph_statistics(&in->graph[d]);
    free(memory);
    return DONE;
}

/* The rest; without a graph the whole block. */
EXPORT int mdtf_train_leave(const Train *in, int64_t threads) {
    const Padded p = padded_sizes(&in->inner.shape);
    const int64_t rows = in->head.rows, sequences = sequence_count(in), parts = threads;
    const int64_t group = sequences_of_a_tile(in->inner.shape.length);
    int64_t next = 0;
    TrainShared w;
    ALLOCATE(take_leave_shared(&measure, in, &p, &w), take_train_scratch(&measure, in, &p));

    take_leave_shared(&shared, in, &p, &w);
    if (dense_sequences(in)) {
        FOR_EACH_PART {
            Arena own = OWN(part);
            const TrainScratch scratch = take_train_scratch(&own, in, &p);
            FOR_FREE_TILES(sequences, group) leave_group(in, &p, &w, row, count, &scratch);
        }
    } else {
        FOR_EACH_PART {
            Arena own = OWN(part);
            const TrainScratch scratch = take_train_scratch(&own, in, &p);
            FOR_FREE_TILES(rows, ROW_TILE)
            head_forward_tile(&in->head, w.head, row, count, scratch.rows);
        }
        next = 0;
        FOR_EACH_PART {
            Arena own = {PART(part), 0};
            const TrainScratch scratch = take_train_scratch(&own, in, &p);
            FOR_FREE_ROWS(sequences, 1)
            inner_forward_row(&in->inner, &p, w.inner, row, &scratch.stage);
        }
        next = 0;
        FOR_EACH_PART {
            Arena own = {PART(part), 0};
            const TrainScratch scratch = take_train_scratch(&own, in, &p);
            FOR_FREE_TILES(rows, ROW_TILE)
            tail_forward_tile(&in->tail, &w.tail, row, count, &scratch.tail);
        }
    }
    free(memory);
    return DONE;
}

/* Back to the graphs, whose totals it leaves; without a graph through the whole block. */
EXPORT int mdtf_train_leave_backward(const Train *in, const TrainGrads *grads, int64_t threads) {
    const Padded p = padded_sizes(&in->inner.shape);
    const int64_t all_rows = in->head.rows, rows = sequence_count(in);
    const int64_t group = sequences_of_a_tile(in->inner.shape.length);
    const int dense = dense_sequences(in);
    const int64_t parts = backward_parts(dense ? tile_count(rows, group) : rows, threads);
    TrainShared w;
    TrainBackwardScratch total;
    ALLOCATE(take_leave_shared(&measure, in, &p, &w),
             take_leave_scratch(&measure, in, &p, &total));

    take_leave_shared(&shared, in, &p, &w);
    FOR_EACH_PART {
        Arena own = OWN(part);
        TrainBackwardScratch scratch;
        take_leave_scratch(&own, in, &p, &scratch);
        if (dense) {
            FOR_EACH_TILE(rows, group)
            leave_backward_group(in, grads, &p, &w, row, count, &scratch);
        } else {
            FOR_EACH_TILE(all_rows, ROW_TILE)
            tail_backward_tile(&in->tail, &grads->tail, &w.tail, row, count, &scratch.tail);
        }
    }
    if (!dense) {
        FOR_EACH_PART {
            Arena own = {PART(part), 0};
            TrainBackwardScratch scratch;
            take_leave_scratch(&own, in, &p, &scratch);
            FOR_EACH_ROW
            inner_backward_row(&in->inner, &grads->inner, &p, w.inner, row, &scratch.inner);
        }
        FOR_EACH_PART {
            Arena own = {PART(part), 0};
            TrainBackwardScratch scratch;
            take_leave_scratch(&own, in, &p, &scratch);
            FOR_EACH_TILE(all_rows, ROW_TILE)
            head_backward_tile(&in->head, &grads->head, row, count, &scratch.head);
        }
    }
    Arena first = {PART(0), 0};
    const float *sums = take_leave_scratch(&first, in, &p, &total);
    add_parts(first.base, part_floats, parts, sums, threads);
    give_tail_grads(&in->tail, &total.tail.grads, &grads->tail);
    for (int d = 0; d < DIRECTIONS; d++) {
        unpack(&in->inner.shape, &p, &total.inner.grads[d], &grads->inner.weights[d]);
        if (in->graph[d].joints) graph_totals(&in->graph[d], &grads->graph[d]);
    }
    if (!has_graph(in)) give_head_grads(&in->head, &total.head.grads, &grads->head);
    free(memory);
    return DONE;
}

/* With graphs: back through them and the head. */
EXPORT int mdtf_train_enter_backward(const Train *in, const TrainGrads *grads, int64_t threads) {
    const int64_t rows = in->head.rows;
    const int64_t tile = graph_tile(&in->graph[in->graph[0].joints ? 0 : 1]);
    const int64_t parts = backward_parts(tile_count(rows, tile), threads);
    TrainBackwardScratch total;
    ALLOCATE((void)0, take_enter_scratch(&measure, in, &total));

    FOR_EACH_PART {
        Arena own = OWN(part);
        TrainBackwardScratch scratch;
        take_enter_scratch(&own, in, &scratch);
        FOR_EACH_TILE(rows, tile) enter_backward_tile(in, grads, row, count, &scratch);
    }
    Arena first = {PART(0), 0};
    const float *sums = take_enter_scratch(&first, in, &total);
    add_parts(first.base, part_floats, parts, sums, threads);
    give_head_grads(&in->head, &total.head.grads, &grads->head);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints)
            give_graph_grads(&in->graph[d], &total.graph_grads[d], &grads->graph[d]);
    free(memory);
    return DONE;
}
