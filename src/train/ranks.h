/* What the ranks of a training have in common, and how they come to it. Everything here does nothing for a process alone
 * (dist NULL). */
#ifndef XKD_TRAIN_RANKS_H
#define XKD_TRAIN_RANKS_H

#include "backend/backend.h"
#include "checkpoint/state.h"
#include "dist/dist.h"
#include "train/parts.h"

/* What must be the same everywhere for ranks to train one model. */
typedef struct {
    const char *config;  /* the text of xkd_config_write */
    uint64_t data_hash;  /* of xkd_loader_data_hash */
    int64_t samples;     /* files that are drawn from */
    const char *kernels; /* the level of the kernels in use: other levels round differently */
} xkd_rank_facts;

/* Compares them with rank 0's: XKD_ERR_CONFIG on a rank that differs, with what does. */
xkd_status xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_rank_facts *mine);

/* One line that lists the machines and their ranks. */
xkd_status xkd_ranks_tell(xkd_context *cx, xkd_dist *dist);

/* Processors for this rank: those that it may use, shared with the ranks of the same machine that may use the same ones. */
xkd_status xkd_ranks_processors(xkd_context *cx, xkd_dist *dist, int *out);

/* x = sum over ranks of x, in the fixed tree of xkd_dist_sum. Tensors of F32. */
xkd_status xkd_ranks_sum(xkd_dist *dist, xkd_backend *be, const xkd_part_vector *x);

/* Rank 0's values and moments of all rows, and their counts of updates, on every rank. */
xkd_status xkd_ranks_share_params(xkd_context *cx, xkd_dist *dist, xkd_params *params);

/* Rank 0's place in the run, on every rank; texts stay those of the rank. */
xkd_status xkd_ranks_share_state(xkd_dist *dist, xkd_run_state *state);

#endif
