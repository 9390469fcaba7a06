/* Recorded steps as several ranks run them together; one process alone goes through <xkd/replay.h>. */
#ifndef XKD_TRAIN_REPLAY_H
#define XKD_TRAIN_REPLAY_H

#include <xkd/replay.h>

#include "dist/dist.h"

/* As xkd_replay; every rank of `dist` (NULL: this process alone) takes an equal run of each recorded batch's samples, in order of
 * ranks, and rank 0 alone writes. XKD_ERR_CONFIG on all ranks where the samples cannot be shared equally. MMD and CORAL compare the
 * samples of one rank, or groups of mmd_group samples, which must divide them. *agreed: all ranks return alike. */
xkd_status xkd_replay_shared(xkd_context *cx, const xkd_replay_options *options, xkd_dist *dist, bool *agreed);

#endif
