/* A training run on disk: everything that is needed to go on with the same bits as if it had never stopped. */
#ifndef XKD_CHECKPOINT_STATE_H
#define XKD_CHECKPOINT_STATE_H

#include <stdint.h>

#include "tensor/params.h"

/* Where a run stands. The seed is the whole state of the random numbers: they are functions of it and the place in the data. */
typedef struct {
    int64_t step;              /* optimiser steps done, skipped ones included */
    int64_t epoch, epoch_step; /* place of the next step in the data */
    int64_t bad_steps;         /* skipped because something was not finite */
    int64_t epoch_skipped;     /* of them, those of this epoch */
    uint64_t seed, data_hash;
    double seconds;                               /* of training so far */
    double epoch_loss, epoch_seconds, epoch_wait; /* sums over the epoch so far */
    char *config;                                 /* YAML, owned by the state */
} xkd_run_state;

void xkd_run_state_free(xkd_run_state *state);

/* Writes folder/step-NNNNNNNN.safetensors (model under public names, moments, place in the data), atomically and with a checksum,
 * then removes all but the newest `keep_last` checkpoints. `folder` is made if it is missing. */
xkd_status xkd_state_save(xkd_context *cx, const char *folder, const xkd_params *params, const xkd_run_state *state,
                          int64_t keep_last);

/* Loads the newest checkpoint of the folder into params and *state. A damaged one is passed over with a warning. None
 * that is whole, or one of another architecture (the message lists the differences): XKD_ERR_CHECKPOINT. Left-over
 * temporary files of a killed run are removed. */
xkd_status xkd_state_load_newest(xkd_context *cx, const char *folder, xkd_params *params, xkd_run_state *state);

/* Loads one file. */
xkd_status xkd_state_load(xkd_context *cx, const char *path, xkd_params *params, xkd_run_state *state);

/* The newest checkpoint of a run folder, by its name; *out is NULL where there is none. The caller frees it. */
xkd_status xkd_state_newest(xkd_context *cx, const char *run, char **out);

/* Number of checkpoint files in the folder, whole or not; a folder that is not there has none. */
xkd_status xkd_state_count(xkd_context *cx, const char *folder, int64_t *count);

/* Writes folder/{vid,aud}_{student,teacher}.safetensors: one backbone each, names without prefix, as released. Of a
 * modality that was left out there is none: its weights are those of the start. */
xkd_status xkd_export_backbones(xkd_context *cx, const char *folder, const xkd_params *params, const bool left_out[2]);

#endif
