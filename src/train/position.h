/* Where a run stands in its schedule and its data, and its checkpoints. The position moves before anything is saved, so a
 * checkpoint always names the next step to do. */
#ifndef XKD_TRAIN_POSITION_H
#define XKD_TRAIN_POSITION_H

#include "backend/backend.h"
#include "checkpoint/state.h"
#include "config/config.h"
#include "report/metrics.h"
#include "train/folder.h"

/* Fields are the caller's to fill in and to read; `state` is its own; free all with
 * xkd_position_free. */
typedef struct {
    xkd_context *cx;
    const xkd_config *config;
    const xkd_run_folder *folder;
    xkd_backend **backend; /* where the caller keeps the one that computes the rows */
    xkd_params *params;
    xkd_run_state state;                        /* config: the YAML text of this run */
    int64_t steps_per_epoch, total, first_step; /* steps; first_step: where this call began */
    int64_t saved_step;                         /* -1: never */
    double started, saved_time, waited;         /* by xkd_now, s; waited: sum of waits for data, s */
    bool *skipped;  /* [run.bad_step_window] the last steps of this call, as a ring; owned */
    int64_t recent; /* how many of them were skipped */
} xkd_run_position;

/* Goes back to the newest whole checkpoint of the folder. The loader is the caller's to move there. Without any the run starts
 * at step 0 with a warning; other data or settings than before are warned of as well. XKD_ERR_CONFIG: another seed; else
 * as xkd_state_load_newest. */
xkd_status xkd_position_restore(xkd_run_position *p);

/* Frees what is owned, the state too. */
void xkd_position_free(xkd_run_position *p);

/* Writes a checkpoint, once for a position; nothing where the backend has failed, whose status it returns then. */
xkd_status xkd_position_save(xkd_run_position *p);

/* Adds the seconds of step number `step` (from 1), its wait for data, and its loss unless it was skipped, to the sums of the
 * epoch. */
void xkd_position_count(xkd_run_position *p, int64_t step, double seconds, double wait, double loss, bool skipped);

/* Behind a skipped step: warns of it, and XKD_ERR_NUMERIC with `remedy` where more than run.max_bad_steps of the last
 * run.bad_step_window were skipped. */
xkd_status xkd_position_skipped(const xkd_run_position *p, int64_t step, const char *remedy);

/* Moves on by one step. True where an epoch ended with it; xkd_position_log_epoch then writes its sums and clears them. */
bool xkd_position_advance(xkd_run_position *p);
xkd_status xkd_position_log_epoch(xkd_run_position *p, xkd_metrics *metrics);

/* The step at which this call ends: run.max_steps or the schedule's. */
int64_t xkd_position_end(const xkd_run_position *p);

#endif
