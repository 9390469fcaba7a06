/* A whole pre-training run: data, steps, logs, checkpoints, pictures, report. */
#ifndef XKD_TRAIN_LOOP_H
#define XKD_TRAIN_LOOP_H

#include "config/config.h"
#include "train/folder.h"

/* What the caller wants and how the loop reaches it. Callbacks may be NULL. */
typedef struct {
    xkd_folder_mode mode;
    /* Number of a signal that asks the run to stop, 0: none; asked after every step. */
    int (*stop_signal)(void *user);
    /* A line of a progress bar; NULL: the bar ends. `line` is valid during the call. */
    void (*progress)(void *user, const char *line);
    void *user;
} xkd_loop_options;

typedef struct {
    int64_t step, total_steps; /* done in all, and of the whole schedule */
    int64_t bad_steps, bad_clips;
    int64_t parameters;                             /* of all four networks and decoders */
    double loss;                                    /* of the last step */
    double seconds, samples_per_second, data_share; /* of this call; share of time spent waiting for data */
} xkd_loop_result;

/* Trains as `config` says (finished by xkd_config_finish) in the folder config->run.out. At the end, at max_steps and on
 * a signal everything is saved. Returns XKD_OK, XKD_ERR_INTERRUPTED (SIGINT) or XKD_ERR_PREEMPTED (other signals) with
 * the run saved, XKD_ERR_NUMERIC past run.max_bad_steps, XKD_ERR_DATA, XKD_ERR_CHECKPOINT, XKD_ERR_CONFIG,
 * XKD_ERR_STORAGE or XKD_ERR_MEMORY; the last whole step is saved where that is still possible. */
xkd_status xkd_train(xkd_context *cx, const xkd_config *config, const xkd_loop_options *options,
                     xkd_loop_result *result);

/* What a run would be, for --dry-run. */
typedef struct {
    int64_t samples, steps_per_epoch, total_steps; /* 0: no data was given */
    int64_t parameters, trained;                   /* elements */
    int64_t micro_batch;
    int64_t video_tokens, audio_tokens, video_kept, audio_kept; /* of a global view */
    double state_bytes, activation_bytes;
    double seconds_per_sample; /* measured by a step on noise; 0: not measured */
} xkd_train_plan;

/* Opens the data (if config->data.path is not empty), lays out the model, and times one small step where the machine
 * has the memory for it. Writes nothing. */
xkd_status xkd_plan_training(xkd_context *cx, const xkd_config *config, xkd_train_plan *out);

#endif
