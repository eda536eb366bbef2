/* What the kernels of a residual block share: its weights by direction, and views of its rows.
 *
 * Channels and hidden channels are multiples of LANES. With a graph, a sequence is the joints of a
 * frame.
 */
#pragma once
#include "inner.h"
#include "rows.h"

enum { MAX_JOINTS = ROW_TILE };

INLINE const DirectionWeights *direction_weights(const BlockWeights *w, int direction) {
    return direction ? &w->backward : &w->forward;
}
INLINE const GraphWeights *graph_weights(const BlockWeights *w, int direction) {
    return direction ? &w->backward_graph : &w->forward_graph;
}
INLINE int has_graph(const Block *in, int direction) {
    return graph_weights(&in->weights, direction)->norm_weight != NULL;
}

/* A view of `data` with the strides of `like`. */
INLINE View view_like(View like, float *data) {
    like.data = data;
    return like;
}
