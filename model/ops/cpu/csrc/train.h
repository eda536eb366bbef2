/* A residual block for training, put together from its parts:
 *
 *   head -> graph convolution in each direction (or none) -> inner block -> tail
 *
 * Where a sequence's rows lie one after the other (a frame's joints), a group of sequences goes
 * through as many parts at once as BatchNorm's statistics allow; the data between the parts stays in
 * the cache. Otherwise (a joint's frames) each part computes all rows before the next part begins.
 */
#pragma once
#include "block.h"
#include "graph.h"
#include "head.h"
#include "inner_backward.h"
#include "tail.h"

typedef struct {
    Head head;
    Graph graph[DIRECTIONS];
    Inner inner; /* in the backward, its out is scratch for its gradient, which the tail writes */
    Tail tail;
} Train;

typedef struct {
    HeadGrads head;
    GraphGrads graph[DIRECTIONS];
    InnerGrads inner;
    TailGrads tail;
} TrainGrads;

/* --- the parts of a block. `by` is NULL in the forward. In the backward, the outputs of the block
 * and of its parts hold their gradients. */
static Graph graph_part(const Block *in, int direction) {
    const GraphWeights *w = graph_weights(&in->weights, direction);
    const Shape *s = &in->shape;
    if (!has_graph(in, direction)) return (Graph){0};
    return (Graph){.rows = s->outer * s->inner * s->length,
                   .channels = s->channels,
                   .joints = s->length,
                   .x = in->kept.inner_x,
                   .norm_weight = w->norm_weight,
                   .norm_bias = w->norm_bias,
                   .own = w->own,
                   .own_bias = w->own_bias,
                   .neighbours = w->neighbours,
                   .neighbours_bias = w->neighbours_bias,
                   .bn_weight = w->bn_weight,
                   .bn_bias = w->bn_bias,
                   .adjacency = in->weights.adjacency,
                   .mixed = in->kept.mixed[direction],
                   .out = in->kept.graph_out[direction],
                   .sums = in->sums[direction],
                   .statistics = in->kept.statistics[direction],
                   .eps = in->graph_eps};
}

static Train train_parts(const Block *in, const BlockGrads *by) {
    const BlockWeights *w = &in->weights;
    const Kept *kept = &in->kept;
    const int64_t rows = in->shape.outer * in->shape.inner * in->shape.length;
    Train t = {.head = {.rows = rows,
                        .channels = in->shape.channels,
                        .x = in->x.data,
                        .norm_weight = w->norm1_weight,
                        .norm_bias = w->norm1_bias,
                        .weight = w->in_proj,
                        .out = {by ? by->inner_x : kept->inner_x, by ? by->z : kept->z},
                        .eps = in->norm_eps},
               .inner = {.shape = in->shape,
                         .z = view_like(in->x, kept->z),
                         .out = view_like(in->x, by ? by->inner : kept->inner),
                         .states = kept->states},
               .tail = {.rows = rows,
                        .channels = in->shape.channels,
                        .hidden = in->hidden,
                        .x = in->x.data,
                        .inner = kept->inner,
                        .mask1 = in->mask1,
                        .mask2 = in->mask2,
                        .out_proj = w->out_proj,
                        .norm_weight = w->norm2_weight,
                        .norm_bias = w->norm2_bias,
                        .fc1 = w->fc1,
                        .fc1_bias = w->fc1_bias,
                        .fc2 = w->fc2,
                        .fc2_bias = w->fc2_bias,
                        .last_weight = w->last_weight,
                        .last_bias = w->last_bias,
                        .before_last = kept->before_last,
                        .out = in->out.data,
                        .eps = in->norm_eps,
                        .last_eps = in->last_eps}};
    for (int d = 0; d < DIRECTIONS; d++) {
        t.graph[d] = graph_part(in, d);
        t.inner.x[d] = view_like(in->x, has_graph(in, d) ? kept->graph_out[d] : kept->inner_x);
        t.inner.weights[d] = *direction_weights(w, d);
    }
    return t;
}

static TrainGrads train_grads(const Block *in, const BlockGrads *by) {
    const BlockWeights *w = &by->weights;
    TrainGrads t = {.head = {by->x, w->norm1_weight, w->norm1_bias, w->in_proj},
                    .inner = {.z = view_like(in->x, by->z)},
                    .tail = {.x = by->x,
                             .inner = by->inner,
                             .out_proj = w->out_proj,
                             .norm_weight = w->norm2_weight,
                             .norm_bias = w->norm2_bias,
                             .fc1 = w->fc1,
                             .fc1_bias = w->fc1_bias,
                             .fc2 = w->fc2,
                             .fc2_bias = w->fc2_bias,
                             .last_weight = w->last_weight,
                             .last_bias = w->last_bias}};
    for (int d = 0; d < DIRECTIONS; d++) {
        const GraphWeights *g = graph_weights(w, d);
        t.inner.x[d] = view_like(in->x, has_graph(in, d) ? by->graph_out[d] : by->inner_x);
        t.inner.weights[d] = *direction_weights(w, d);
        t.graph[d] = (GraphGrads){.out = by->graph_out[d],
                                  .totals = by->totals[d],
                                  .x = by->inner_x,
                                  .norm_weight = g->norm_weight,
                                  .norm_bias = g->norm_bias,
                                  .own = g->own,
                                  .own_bias = g->own_bias,
                                  .neighbours = g->neighbours,
                                  .neighbours_bias = g->neighbours_bias,
                                  .bn_weight = g->bn_weight,
                                  .bn_bias = g->bn_bias};
    }
    return t;
}

INLINE int any_graph(const Train *in) { return in->graph[0].joints || in->graph[1].joints; }

INLINE int dense_sequences(const Train *in) {
    const Shape *s = &in->inner.shape;
    const View *z = &in->inner.z;
    return z->step == s->channels && z->inner == s->length * s->channels &&
           (s->outer == 1 || z->outer == s->inner * z->inner);
}

INLINE int64_t sequence_count(const Train *in) {
    const Shape *s = &in->inner.shape;
    return s->length ? s->outer * s->inner : 0;
}

/* --- forward */
typedef struct {
    float *head; /* packed */
    GraphShared graph[DIRECTIONS];
    Packed inner[DIRECTIONS];
    TailShared tail;
} TrainShared;

typedef struct {
    float *rows; /* (tile, channels) */
    Stage stage;
    TailScratch tail;
} TrainScratch;

static TrainScratch take_train_scratch(Arena *arena, const Train *in, const Padded *p) {
    TrainScratch b;
    b.rows = take(arena, ROW_TILE * in->head.channels);
    b.tail = take_tail_scratch(arena, &in->tail);
    start_of_zeros(arena);
    b.stage = take_stage(arena, &in->inner.shape, p, 0);
    return b;
}

/* Computes all that BatchNorm's statistics need. */
static void enter_tile(const Train *in, const TrainShared *w, int64_t first, int64_t rows,
                       const TrainScratch *b) {
    head_forward_tile(&in->head, w->head, first, rows, b->rows);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints)
            graph_mix_tile(&in->graph[d], &w->graph[d], first, rows, b->rows);
}

/* The rest of the block, for dense sequences; without graphs, the whole block. */
static void leave_group(const Train *in, const Padded *p, const TrainShared *w, int64_t first,
                        int64_t sequences, const TrainScratch *b) {
    const int64_t length = in->inner.shape.length, from = first * length, rows = sequences * length;
    if (!any_graph(in))
        for (int64_t row = from; row < from + rows; row += ROW_TILE)
            head_forward_tile(&in->head, w->head, row, smaller(ROW_TILE, from + rows - row),
                              b->rows);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints) graph_output_tile(&in->graph[d], from, rows);
    for (int64_t i = 0; i < sequences; i++)
        inner_forward_row(&in->inner, p, w->inner, first + i, &b->stage);
    for (int64_t row = from; row < from + rows; row += ROW_TILE)
        tail_forward_tile(&in->tail, &w->tail, row, smaller(ROW_TILE, from + rows - row), &b->tail);
}

/* --- backward, in the opposite order */
typedef struct {
    TailBackwardScratch tail;
    BackwardScratch inner;
    HeadBackwardScratch head;
    GraphBackwardScratch graph; /* of both directions, except for the sums */
    GraphGrads graph_grads[DIRECTIONS];
} TrainBackwardScratch;

/* The summed gradients are the last pieces; the first of them is returned. */
static float *take_leave_scratch(Arena *arena, const Train *in, const Padded *p,
                                 TrainBackwardScratch *b) {
    b->tail = take_tail_backward_scratch(arena, &in->tail);
    b->head = take_head_backward_scratch(arena, &in->head);
    start_of_zeros(arena);
    b->inner = take_backward_scratch(arena, &in->inner.shape, p);
    b->tail.grads = take_tail_grads(arena, &in->tail);
    take_inner_grads(arena, &in->inner.shape, p, b->inner.grads);
    b->head.grads = take_head_grads(arena, &in->head);
    return b->tail.grads.out_proj;
}

static float *take_enter_scratch(Arena *arena, const Train *in, TrainBackwardScratch *b) {
    b->head = take_head_backward_scratch(arena, &in->head);
    b->graph = take_graph_backward_scratch(arena, &in->graph[in->graph[0].joints ? 0 : 1]);
    start_of_zeros(arena);
    b->head.grads = take_head_grads(arena, &in->head);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints) b->graph_grads[d] = take_graph_grads(arena, &in->graph[d]);
    return b->head.grads.norm_weight;
}

static void leave_backward_group(const Train *in, const TrainGrads *grads, const Padded *p,
                                 const TrainShared *w, int64_t first, int64_t sequences,
                                 const TrainBackwardScratch *b) {
    const int64_t length = in->inner.shape.length, from = first * length, rows = sequences * length;
    for (int64_t row = from; row < from + rows; row += ROW_TILE)
        tail_backward_tile(&in->tail, &grads->tail, &w->tail, row,
                           smaller(ROW_TILE, from + rows - row), &b->tail);
    for (int64_t i = 0; i < sequences; i++)
        inner_backward_row(&in->inner, &grads->inner, p, w->inner, first + i, &b->inner);
    for (int d = 0; d < DIRECTIONS; d++)
        if (in->graph[d].joints) graph_sums_tile(&in->graph[d], &grads->graph[d], from, rows);
    if (!any_graph(in))
        for (int64_t row = from; row < from + rows; row += ROW_TILE)
            head_backward_tile(&in->head, &grads->head, row, smaller(ROW_TILE, from + rows - row),
                               &b->head);
}

static void enter_backward_tile(const Train *in, const TrainGrads *grads, int64_t first,
                                int64_t rows, const TrainBackwardScratch *b) {
    const int64_t c = in->head.channels;
    if (in->graph[0].joints && in->graph[1].joints) /* nobody else has written x's gradient */
        memset(grads->graph[0].x + first * c, 0, rows * c * sizeof(float));
    for (int d = 0; d < DIRECTIONS; d++) {
        if (!in->graph[d].joints) continue;
        GraphBackwardScratch scratch = b->graph;
        scratch.grads = b->graph_grads[d];
        graph_backward_tile(&in->graph[d], &grads->graph[d], first, rows, &scratch);
    }
    head_backward_tile(&in->head, &grads->head, first, rows, &b->head);
}
