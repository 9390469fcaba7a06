/* What the ranks of a training have in common, and how they come to it. Everything here does nothing for a process alone
 * (dist NULL). */
#ifndef XKD_TRAIN_RANKS_H
#define XKD_TRAIN_RANKS_H

#include "checkpoint/state.h"
#include "dist/dist.h"

/* What must be the same everywhere for ranks to train one model. */
typedef struct {
    const char *config;  /* the text of xkd_config_write */
    uint64_t data_hash;  /* of xkd_loader_data_hash */
    int64_t samples;     /* files that are drawn from */
    const char *kernels; /* the level of the kernels in use: other levels round differently */
} xkd_rank_facts;

/* Compares them with rank 0's: XKD_ERR_CONFIG on a rank that differs, with what does. */
xkd_status xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_rank_facts *mine);

/* Rank 0's values and moments of all rows, and their counts of updates, on every rank. */
xkd_status xkd_ranks_share_params(xkd_context *cx, xkd_dist *dist, xkd_params *params);

/* Rank 0's place in the run, on every rank; texts stay those of the rank. */
xkd_status xkd_ranks_share_state(xkd_dist *dist, xkd_run_state *state);

#endif
