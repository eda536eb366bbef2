/* The entry points, called through ctypes: no Python or PyTorch headers, no ABI to follow.
 *
 * Sequences are shared out among `threads` parts of fixed extent. A part is worked off by one
 * thread, and the parts' weight gradients are added in the order of the parts: results depend on
 * `threads`, never on how the threads were scheduled or how many the system granted.
 *
 * Every function returns 0, or OUT_OF_MEMORY having written nothing of use.
 */
#include "block.h"
#include "inner_backward.h"
#include "scan_op.h"

#define EXPORT __attribute__((visibility("default")))
enum { DONE = 0, OUT_OF_MEMORY = 1 };

EXPORT int64_t mdtf_lanes(void) { return LANES; }

EXPORT int64_t mdtf_max_chunk(void) { return MAX_CHUNK; }

/* Floats that a forward keeps for its backward, in each direction. */
EXPORT int64_t mdtf_kept_floats(const Shape *s) {
    Padded p = padded_sizes(s);
    return s->outer * s->inner * p.kept * p.states * p.channels;
}

INLINE int64_t part_start(int64_t rows, int64_t part, int64_t parts) {
    return rows * part / parts;
}

/* `part` from 0 to `parts`, each on its own thread. A single part starts no thread at all, so that
 * a forked process, which has lost its parent's, can run it. */
#define FOR_EACH_PART                                                                   \
    _Pragma("omp parallel for num_threads((int)parts) schedule(static, 1) if (parts > 1)") \
    for (int64_t part = 0; part < parts; part++)

/* Adds every other part's gradients to the first's, in the order of the parts. The gradients are
 * the last pieces of a part's scratch, from `from` on. */
static void add_parts(float *first, size_t part_floats, int64_t parts, const float *from) {
    for (int64_t part = 1; part < parts; part++)
        for (size_t i = (size_t)(from - first); i < part_floats; i++)
            first[i] += first[part_floats * part + i];
}

EXPORT int mdtf_inner_forward(const Inner *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    if (rows == 0 || s->length == 0) return DONE;

    Arena measure = {0};
    for (int d = 0; d < DIRECTIONS; d++) take_packed(&measure, s, &p, 1);
    const size_t packed_floats = measure.used;
    take_stage(&measure, s, &p, 0);
    const size_t part_floats = measure.used - packed_floats;
    float *memory = allocate_zeroed(packed_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    Arena shared = {memory, 0};
    Packed packed[DIRECTIONS];
    for (int d = 0; d < DIRECTIONS; d++) {
        packed[d] = take_packed(&shared, s, &p, 1);
        pack(s, &p, &in->weights[d], &packed[d]);
    }
    FOR_EACH_PART {
        Arena own = {memory + packed_floats + part_floats * part, 0};
        Stage stage = take_stage(&own, s, &p, 0);
        for (int64_t row = part_start(rows, part, parts); row < part_start(rows, part + 1, parts);
             row++)
            inner_forward_row(in, &p, packed, row, &stage);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_inner_backward(const Inner *in, const InnerGrads *grads, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    if (rows == 0 || s->length == 0) return DONE; /* the caller's gradients start at zero */

    Arena measure = {0};
    for (int d = 0; d < DIRECTIONS; d++) take_packed(&measure, s, &p, 1);
    const size_t packed_floats = measure.used;
    take_backward_scratch(&measure, s, &p);
    const size_t part_floats = measure.used - packed_floats;
    float *memory = allocate_zeroed(packed_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    Arena shared = {memory, 0};
    Packed packed[DIRECTIONS];
    for (int d = 0; d < DIRECTIONS; d++) {
        packed[d] = take_packed(&shared, s, &p, 1);
        pack(s, &p, &in->weights[d], &packed[d]);
    }
    FOR_EACH_PART {
        Arena own = {memory + packed_floats + part_floats * part, 0};
        BackwardScratch scratch = take_backward_scratch(&own, s, &p);
        for (int64_t row = part_start(rows, part, parts); row < part_start(rows, part + 1, parts);
             row++)
            inner_backward_row(in, grads, &p, packed, row, &scratch);
    }
    Arena first_arena = {memory + packed_floats, 0};
    BackwardScratch total = take_backward_scratch(&first_arena, s, &p);
    add_parts(first_arena.base, part_floats, parts, total.grads[0].conv_weight);
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
    if (rows == 0 || s->length == 0) return DONE;

    Arena measure = {0};
    take_scan_weights(&measure, in, &p);
    const size_t weight_floats = measure.used;
    take_scan_stage(&measure, &p);
    const size_t part_floats = measure.used - weight_floats;
    float *memory = allocate_zeroed(weight_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    Arena shared = {memory, 0};
    const Packed w = take_scan_weights(&shared, in, &p);
    FOR_EACH_PART {
        Arena own = {memory + weight_floats + part_floats * part, 0};
        ScanStage stage = take_scan_stage(&own, &p);
        for (int64_t row = part_start(rows, part, parts); row < part_start(rows, part + 1, parts);
             row++)
            scan_forward_row(in, &p, &w, row, &stage);
    }
    free(memory);
    return DONE;
}

EXPORT int mdtf_scan_backward(const Scan *in, const ScanGrads *grads, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    if (rows == 0 || s->length == 0) return DONE;

    Arena measure = {0};
    take_scan_weights(&measure, in, &p);
    const size_t weight_floats = measure.used;
    take_scan_backward_scratch(&measure, &p);
    const size_t part_floats = measure.used - weight_floats;
    float *memory = allocate_zeroed(weight_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    Arena shared = {memory, 0};
    const Packed w = take_scan_weights(&shared, in, &p);
    FOR_EACH_PART {
        Arena own = {memory + weight_floats + part_floats * part, 0};
        ScanBackwardScratch scratch = take_scan_backward_scratch(&own, &p);
        for (int64_t row = part_start(rows, part, parts); row < part_start(rows, part + 1, parts);
             row++)
            scan_backward_row(in, grads, &p, &w, row, &scratch);
    }
    Arena first_arena = {memory + weight_floats, 0};
    ScanBackwardScratch total = take_scan_backward_scratch(&first_arena, &p);
    add_parts(first_arena.base, part_floats, parts, total.A);
    for (int64_t c = 0; c < s->channels; c++) {
        grads->weights.D[c] = total.D[c];
        for (int64_t n = 0; n < s->states; n++)
            grads->weights.A[c * s->states + n] = total.A[n * p.channels + c];
    }
    free(memory);
    return DONE;
}

EXPORT int64_t mdtf_max_joints(void) { return MAX_JOINTS; }

EXPORT int mdtf_block_forward(const Block *in, int64_t threads) {
    const Shape *s = &in->shape;
    const Padded p = padded_sizes(s);
    const int64_t rows = s->outer * s->inner, parts = smaller(threads, rows);
    if (rows == 0 || s->length == 0) return DONE;

    Arena measure = {0};
    take_packed_block(&measure, in, &p);
    const size_t weight_floats = measure.used;
    take_block_scratch(&measure, in, &p);
    const size_t part_floats = measure.used - weight_floats;
    float *memory = allocate_zeroed(weight_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    Arena shared = {memory, 0};
    const PackedBlock w = take_packed_block(&shared, in, &p);
    pack_block(in, &p, &w);
    const int64_t group = block_group(in);
    FOR_EACH_PART {
        Arena own = {memory + weight_floats + part_floats * part, 0};
        BlockScratch scratch = take_block_scratch(&own, in, &p);
        const int64_t end = part_start(rows, part + 1, parts);
        for (int64_t row = part_start(rows, part, parts); row < end; row += group)
            block_forward_group(in, &p, &w, row, smaller(group, end - row), &scratch);
    }
    free(memory);
    return DONE;
}
