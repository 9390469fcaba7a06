/* What the ranks of a training have in common, and how they come to it. Everything here does nothing for a process alone
 * (dist NULL). */
#ifndef XKD_TRAIN_RANKS_H
#define XKD_TRAIN_RANKS_H

#include "checkpoint/state.h"
#include "dist/dist.h"

/* Compares configuration (state->config), data hash, number of samples and kernels with rank 0's: XKD_ERR_CONFIG on a rank that
 * differs, with what does. Ranks train one model only where all of this is the same. */
xkd_status xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_run_state *state, int64_t samples);

/* Whether all ranks end with this status, as it follows from what they have in common: a stop, bad numbers, and what `agreed`
 * knows of. Any other is that of one rank, and a loss to the others. */
bool xkd_ranks_end_alike(xkd_status status, bool agreed);

/* Rank 0's values and moments of all rows, and their counts of updates, on every rank; working copies follow. */
xkd_status xkd_ranks_share_params(xkd_context *cx, xkd_dist *dist, xkd_params *params);

/* Rank 0's place in the run, on every rank; texts stay those of the rank. */
xkd_status xkd_ranks_share_state(xkd_dist *dist, xkd_run_state *state);

/* all [size,count] of `memory` = what every rank has at its place of it, in their order. host [size,count]: room. */
xkd_status xkd_ranks_join_numbers(xkd_dist *dist, xkd_memory *memory, double *all, double *host, int64_t count);

#endif
