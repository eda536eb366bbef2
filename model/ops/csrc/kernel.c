/* The entry points, called through ctypes: no Python or PyTorch headers, no ABI to follow.
 *
 * Sequences are shared out among `threads` parts of fixed extent. A part is worked off by one
 * thread, and the parts' weight gradients are added in the order of the parts: results depend on
 * `threads`, never on how the threads were scheduled or how many the system granted.
 *
 * Every function returns 0, or OUT_OF_MEMORY having written nothing of use.
 */
#include "inner_backward.h"

#define EXPORT __attribute__((visibility("default")))
enum { DONE = 0, OUT_OF_MEMORY = 1 };

EXPORT int64_t mdtf_lanes(void) { return LANES; }

EXPORT int64_t mdtf_has_threads(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* Floats that inner_forward keeps for inner_backward. */
EXPORT int64_t mdtf_kept_floats(const Shape *s) {
    Padded p = padded_sizes(s);
    return DIRECTIONS * s->outer * s->inner * p.kept * p.states * p.channels;
}

INLINE int64_t part_start(int64_t rows, int64_t part, int64_t parts) {
    return rows * part / parts;
}

/* `part` from 0 to `parts`, each on its own thread. A single part starts no thread at all, so that
 * a forked process, which has lost its parent's, can run it. */
#define FOR_EACH_PART                                                                   \
    _Pragma("omp parallel for num_threads((int)parts) schedule(static, 1) if (parts > 1)") \
    for (int64_t part = 0; part < parts; part++)

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
    float *memory = allocate(packed_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    memset(memory, 0, packed_floats * sizeof(float));
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
    float *memory = allocate(packed_floats + part_floats * parts);
    if (!memory) return OUT_OF_MEMORY;

    /* All of it: padding and the gradients' sums must start at zero. */
    memset(memory, 0, (packed_floats + part_floats * parts) * sizeof(float));
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
    /* The packed gradients are the last thing in a part's scratch, and in one piece. */
    const size_t start = (size_t)(total.grads[0].conv_weight - first_arena.base);
    for (int64_t part = 1; part < parts; part++) {
        const float *from = first_arena.base + part_floats * part;
        for (size_t i = start; i < part_floats; i++) first_arena.base[i] += from[i];
    }
    for (int d = 0; d < DIRECTIONS; d++) unpack(s, &p, &total.grads[d], &grads->weights[d]);
    free(memory);
    return DONE;
}
