/* The entry points, called through ctypes: no Python or PyTorch headers, no ABI to follow.
 *
 * A forward's threads take sequences as they come, since each sequence's result is its own. A
 * backward is split into parts of fixed extent; the parts' weight gradients are added in the order of
 * the parts. Results may depend on `threads`, but never on the scheduling or on how many threads the
 * system grants. With threads = 1 no thread is started, so a forked process, which has lost its
 * parent's threads, can run a kernel.
 *
 * Every kernel returns DONE or OUT_OF_MEMORY; after OUT_OF_MEMORY its outputs are not valid.
 */
#include "infer.h"
#include "train.h"

#define EXPORT __attribute__((visibility("default")))
enum { DONE = 0, OUT_OF_MEMORY = 1 };

/* The caller compares these with the sizes of its own structures. */
#define SIZE_OF(type) \
    EXPORT int64_t mdtf_sizeof_##type(void) { return sizeof(type); }
SIZE_OF(Inner)
SIZE_OF(InnerGrads)
SIZE_OF(Block)
SIZE_OF(BlockGrads)

EXPORT int64_t mdtf_lanes(void) { return LANES; }
EXPORT int64_t mdtf_max_chunk(void) { return MAX_CHUNK; }
EXPORT int64_t mdtf_max_taps(void) { return MAX_TAPS; }
EXPORT int64_t mdtf_max_joints(void) { return MAX_JOINTS; }

/* Floats that a forward keeps for its backward, in each direction. */
EXPORT int64_t mdtf_kept_floats(const Shape *s) {
    Padded p = padded_sizes(s);
    return s->outer * s->inner * p.kept * p.states * p.channels;
}

/* --- the inner block */
static void take_directions(Arena *arena, const Inner *in, const Padded *p, Packed *packed) {
    for (int d = 0; d < DIRECTIONS; d++) {
        packed[d] = take_packed(arena, &in->shape, p, 1);
        if (arena->base) pack(&in->shape, p, &in->weights[d], &packed[d]);
    }
}

EXPORT int mdtf_inner_forward(const Inner *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner;
    if (rows == 0 || s->length == 0) return DONE;

    Packed packed[DIRECTIONS];
    Arena measure = {0};
    take_directions(&measure, in, &p, packed);
    const size_t shared_floats = measure.used;
    take_stage(&measure, s, &p, 0);
    const Scratch scratch = allocate_scratch(shared_floats, measure, smaller(threads, rows));
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    take_directions(&shared, in, &p, packed);
    int64_t next = 0;
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch.parts; part++) {
        Arena own = fresh_part_arena(&scratch, part);
        const Stage stage = take_stage(&own, s, &p, 0);
        for (Span row = free_rows(&next, rows, 1); row.first < row.end;
             row = free_rows(&next, rows, 1))
            inner_forward_row(in, &p, packed, row.first, &stage);
    }
    free(scratch.memory);
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

    Packed packed[DIRECTIONS];
    BackwardScratch total;
    Arena measure = {0};
    take_directions(&measure, in, &p, packed);
    const size_t shared_floats = measure.used;
    take_inner_scratch(&measure, s, &p, &total);
    const Scratch scratch = allocate_scratch(shared_floats, measure, backward_parts(rows, threads));
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    take_directions(&shared, in, &p, packed);
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch.parts; part++) {
        Arena own = fresh_part_arena(&scratch, part);
        BackwardScratch b;
        take_inner_scratch(&own, s, &p, &b);
        const Span span = part_rows(&scratch, part, rows, 1);
        for (int64_t row = span.first; row < span.end; row++)
            inner_backward_row(in, grads, &p, packed, row, &b);
    }
    Arena first = part_arena(&scratch, 0);
    take_inner_scratch(&first, s, &p, &total);
    add_parts(&scratch, total.grads[0].conv_weight, threads);
    for (int d = 0; d < DIRECTIONS; d++)
        unpack(s, &p, &total.grads[d], &in->weights[d], &grads->weights[d]);
    free(scratch.memory);
    return DONE;
}

/* --- a residual block for inference */
EXPORT int mdtf_block_infer(const Block *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, group = sequences_of_a_tile(s->length);
    if (rows == 0 || s->length == 0) return DONE;

    Arena measure = {0};
    take_packed_block(&measure, in, &p);
    const size_t shared_floats = measure.used;
    take_block_scratch(&measure, in, &p);
    const Scratch scratch = allocate_scratch(shared_floats, measure, smaller(threads, rows));
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    const PackedBlock w = take_packed_block(&shared, in, &p);
    pack_block(in, &p, &w);
    int64_t next = 0;
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch.parts; part++) {
        Arena own = fresh_part_arena(&scratch, part);
        const BlockScratch b = take_block_scratch(&own, in, &p);
        for (Span some = free_rows(&next, rows, group); some.first < some.end;
             some = free_rows(&next, rows, group))
            block_forward_group(in, &p, &w, some.first, some.end - some.first, &b);
    }
    free(scratch.memory);
    return DONE;
}

/* --- a residual block for training */
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

/* A graph of the block, for the sizes, which both graphs share; the block has at least one. */
INLINE const Graph *some_graph(const Train *in) { return &in->graph[in->graph[0].joints ? 0 : 1]; }

/* The first part of a block with graphs: the head, each graph's mix and its statistics. */
EXPORT int mdtf_train_enter(const Block *block, int64_t threads) {
    const Train in = train_parts(block, NULL);
    const Padded p = padded_sizes(&block->shape);
    const int64_t rows = in.head.rows, tile = graph_tile(some_graph(&in));
    TrainShared w;
    Arena measure = {0};
    take_enter_shared(&measure, &in, &w);
    const size_t shared_floats = measure.used;
    take_train_scratch(&measure, &in, &p);
    const Scratch scratch = allocate_scratch(shared_floats, measure, threads);
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    take_enter_shared(&shared, &in, &w);
    int64_t next = 0;
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch.parts; part++) {
        Arena own = fresh_part_arena(&scratch, part);
        const TrainScratch b = take_train_scratch(&own, &in, &p);
        for (Span some = free_rows(&next, rows, tile); some.first < some.end;
             some = free_rows(&next, rows, tile))
            enter_tile(&in, &w, some.first, some.end - some.first, &b);
    }
    for (int d = 0; d < DIRECTIONS; d++)
        if (in.graph[d].joints) graph_statistics(&in.graph[d]);
    free(scratch.memory);
    return DONE;
}

/* One pass over all rows or sequences, `count` at a time. Where sequences are dense, GROUPS does the
 * work of the three other passes. */
enum Pass { GROUPS, HEADS, INNERS, TAILS };
static void leave_pass(enum Pass pass, const Train *in, const Padded *p, const TrainShared *w,
                       const Scratch *scratch, int64_t rows, int64_t count, int64_t threads) {
    int64_t next = 0;
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch->parts; part++) {
        const int is_first = pass == GROUPS || pass == HEADS;
        Arena own = is_first ? fresh_part_arena(scratch, part) : part_arena(scratch, part);
        const TrainScratch b = take_train_scratch(&own, in, p);
        for (Span some = free_rows(&next, rows, count); some.first < some.end;
             some = free_rows(&next, rows, count)) {
            const int64_t n = some.end - some.first;
            switch (pass) {
                case GROUPS: leave_group(in, p, w, some.first, n, &b); break;
                case HEADS: head_forward_tile(&in->head, w->head, some.first, n, b.rows); break;
                case INNERS: inner_forward_row(&in->inner, p, w->inner, some.first, &b.stage); break;
                case TAILS: tail_forward_tile(&in->tail, &w->tail, some.first, n, &b.tail); break;
            }
        }
    }
}

/* The second part of a block with graphs; the whole block without graphs. */
EXPORT int mdtf_train_leave(const Block *block, int64_t threads) {
    const Train in = train_parts(block, NULL);
    const Padded p = padded_sizes(&block->shape);
    const int64_t rows = in.head.rows, sequences = sequence_count(&in);
    TrainShared w;
    Arena measure = {0};
    take_leave_shared(&measure, &in, &p, &w);
    const size_t shared_floats = measure.used;
    take_train_scratch(&measure, &in, &p);
    const Scratch scratch = allocate_scratch(shared_floats, measure, threads);
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    take_leave_shared(&shared, &in, &p, &w);
    if (dense_sequences(&in)) {
        const int64_t group = sequences_of_a_tile(block->shape.length);
        leave_pass(GROUPS, &in, &p, &w, &scratch, sequences, group, threads);
    } else {
        leave_pass(HEADS, &in, &p, &w, &scratch, rows, ROW_TILE, threads);
        leave_pass(INNERS, &in, &p, &w, &scratch, sequences, 1, threads);
        leave_pass(TAILS, &in, &p, &w, &scratch, rows, ROW_TILE, threads);
    }
    free(scratch.memory);
    return DONE;
}

/* Like leave_pass, but each part works on its own tiles. */
static void leave_backward_pass(enum Pass pass, const Train *in, const TrainGrads *grads,
                                const Padded *p, const TrainShared *w, const Scratch *scratch,
                                int64_t rows, int64_t count, int64_t threads) {
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch->parts; part++) {
        const int is_first = pass == GROUPS || pass == TAILS;
        Arena own = is_first ? fresh_part_arena(scratch, part) : part_arena(scratch, part);
        TrainBackwardScratch b;
        take_leave_scratch(&own, in, p, &b);
        const Span span = part_rows(scratch, part, rows, count);
        for (int64_t at = span.first; at < span.end; at += count) {
            const int64_t n = smaller(count, span.end - at);
            switch (pass) {
                case GROUPS: leave_backward_group(in, grads, p, w, at, n, &b); break;
                case TAILS:
                    tail_backward_tile(&in->tail, &grads->tail, &w->tail, at, n, &b.tail);
                    break;
                case INNERS:
                    inner_backward_row(&in->inner, &grads->inner, p, w->inner, at, &b.inner);
                    break;
                case HEADS: head_backward_tile(&in->head, &grads->head, at, n, &b.head); break;
            }
        }
    }
}

/* The backward of mdtf_train_leave: back to the graphs, and their totals; without graphs, through
 * the whole block. */
EXPORT int mdtf_train_leave_backward(const Block *block, const BlockGrads *by, int64_t threads) {
    const Train in = train_parts(block, by);
    const TrainGrads grads = train_grads(block, by);
    const Padded p = padded_sizes(&block->shape);
    const int64_t rows = in.head.rows, sequences = sequence_count(&in);
    const int64_t group = sequences_of_a_tile(block->shape.length);
    const int dense = dense_sequences(&in);
    const int64_t tiles = dense ? tile_count(sequences, group) : sequences;
    TrainShared w;
    TrainBackwardScratch total;
    Arena measure = {0};
    take_leave_shared(&measure, &in, &p, &w);
    const size_t shared_floats = measure.used;
    take_leave_scratch(&measure, &in, &p, &total);
    const Scratch scratch = allocate_scratch(shared_floats, measure, backward_parts(tiles, threads));
    if (!scratch.memory) return OUT_OF_MEMORY;

    Arena shared = shared_arena(&scratch);
    take_leave_shared(&shared, &in, &p, &w);
    if (dense) {
        leave_backward_pass(GROUPS, &in, &grads, &p, &w, &scratch, sequences, group, threads);
    } else {
        leave_backward_pass(TAILS, &in, &grads, &p, &w, &scratch, rows, ROW_TILE, threads);
        leave_backward_pass(INNERS, &in, &grads, &p, &w, &scratch, sequences, 1, threads);
        leave_backward_pass(HEADS, &in, &grads, &p, &w, &scratch, rows, ROW_TILE, threads);
    }
    Arena first = part_arena(&scratch, 0);
    const float *sums = take_leave_scratch(&first, &in, &p, &total);
    add_parts(&scratch, sums, threads);
    give_tail_grads(&in.tail, &total.tail.grads, &grads.tail);
    for (int d = 0; d < DIRECTIONS; d++) {
        unpack(&block->shape, &p, &total.inner.grads[d], &in.inner.weights[d],
               &grads.inner.weights[d]);
        if (in.graph[d].joints) graph_totals(&in.graph[d], &grads.graph[d]);
    }
    if (!any_graph(&in)) give_head_grads(&in.head, &total.head.grads, &grads.head);
    free(scratch.memory);
    return DONE;
}

/* The backward of mdtf_train_enter: back through the graphs and the head. */
EXPORT int mdtf_train_enter_backward(const Block *block, const BlockGrads *by, int64_t threads) {
    const Train in = train_parts(block, by);
    const TrainGrads grads = train_grads(block, by);
    const int64_t rows = in.head.rows, tile = graph_tile(some_graph(&in));
    TrainBackwardScratch total;
    Arena measure = {0};
    take_enter_scratch(&measure, &in, &total);
    const int64_t parts = backward_parts(tile_count(rows, tile), threads);
    const Scratch scratch = allocate_scratch(0, measure, parts);
    if (!scratch.memory) return OUT_OF_MEMORY;

#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 1) if (threads > 1)
    for (int64_t part = 0; part < scratch.parts; part++) {
        Arena own = fresh_part_arena(&scratch, part);
        TrainBackwardScratch b;
        take_enter_scratch(&own, &in, &b);
        const Span span = part_rows(&scratch, part, rows, tile);
        for (int64_t at = span.first; at < span.end; at += tile)
            enter_backward_tile(&in, &grads, at, smaller(tile, span.end - at), &b);
    }
    Arena first = part_arena(&scratch, 0);
    const float *sums = take_enter_scratch(&first, &in, &total);
    add_parts(&scratch, sums, threads);
    give_head_grads(&in.head, &total.head.grads, &grads.head);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in.graph[d].joints)
            give_graph_grads(&in.graph[d], &total.graph_grads[d], &grads.graph[d]);
    free(scratch.memory);
    return DONE;
}
