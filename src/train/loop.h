/* A whole pre-training run: data, steps, logs, checkpoints, pictures, report. */
#ifndef XKD_TRAIN_LOOP_H
#define XKD_TRAIN_LOOP_H

#include "config/config.h"
#include "dist/dist.h"
#include "train/folder.h"

/* Trains as `config` says (finished by xkd_config_finish) in the folder config->run.out, together with the other ranks of `dist`
 * (NULL: alone). At the end, at max_steps and on a signal everything is saved, by rank 0 alone; *agreed tells whether
 * all ranks end as this one does (NULL: not wanted). Returns XKD_OK, XKD_ERR_INTERRUPTED (SIGINT) or XKD_ERR_PREEMPTED (other signals) with
 * the run saved, XKD_ERR_NUMERIC past run.max_bad_steps, XKD_ERR_PEER where another rank was lost, XKD_ERR_DATA, XKD_ERR_CHECKPOINT, XKD_ERR_CONFIG,
 * XKD_ERR_STORAGE or XKD_ERR_MEMORY; the last whole step is saved where that is still possible. */
xkd_status xkd_train(xkd_context *cx, const xkd_config *config, const xkd_run_options *options, xkd_dist *dist,
                     xkd_run_result *result, bool *agreed);

/* Opens the data (if config->data.path is not empty), lays out the model, and times one small step where the machine
 * has the memory for it. Writes nothing. */
xkd_status xkd_plan_training(xkd_context *cx, const xkd_config *config, xkd_train_plan *out);

/* What else a plan knows. */
typedef struct {
    double products_per_sample;    /* multiply-adds of matrix products; 0: not measured */
    double backbone_bytes;         /* of the exported encoders */
    double cache_folder_bytes;     /* of decoded files where data.cache is a folder; 0 without data */
    double small, grouped, larger; /* bytes of activations of a few samples, from which those of any batch follow */
} xkd_plan_details;

/* The same with details; without `timed` no step is done. *details is {0}, or that of a plan of the same model with another batch,
 * whose layout is not made again. */
xkd_status xkd_plan_details_of(xkd_context *cx, const xkd_config *config, bool timed, xkd_train_plan *out,
                               xkd_plan_details *details);

#endif
