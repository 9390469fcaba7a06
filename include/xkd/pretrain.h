/* Pre-training from a program of your own; the same as `xkd pretrain`.
 *
 *     xkd_context *cx = xkd_context_new();
 *     xkd_settings *settings;
 *     xkd_settings_new(cx, &settings);
 *     xkd_settings_load(settings, "configs/demo.yaml");
 *     xkd_settings_set(settings, "data.path=videos/");
 *     xkd_settings_set(settings, "run.out=runs/first");
 *     xkd_run_result result;
 *     if (xkd_pretrain(settings, NULL, &result) != XKD_OK) puts(xkd_last_error(cx));
 *
 * Media is decoded in processes of their own that start the program again: see <xkd/worker.h>. */
#ifndef XKD_PRETRAIN_H
#define XKD_PRETRAIN_H

#include <stdint.h>
#include <xkd/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Everything that a run can be told; keys and defaults are listed by `xkd help options`. Opaque. */
typedef struct xkd_settings xkd_settings;

/* Makes settings with the defaults: the full-size XKD. `cx` must outlive them. The caller frees them with
 * xkd_settings_free. */
XKD_API xkd_status xkd_settings_new(xkd_context *cx, xkd_settings **out);
XKD_API void xkd_settings_free(xkd_settings *settings); /* NULL is allowed */

/* Reads a YAML file in the authors' schema; what it does not mention stays. XKD_ERR_CONFIG names file and line. */
XKD_API xkd_status xkd_settings_load(xkd_settings *settings, const char *path);

/* Applies one "key.sub=value". */
XKD_API xkd_status xkd_settings_set(xkd_settings *settings, const char *assignment);

/* The run folder: must be new; goes on where it was; starts anew. */
typedef enum { XKD_RUN_NEW, XKD_RUN_RESUME, XKD_RUN_FORCE } xkd_run_mode;

/* What the caller wants and how the run reaches it. Callbacks may be NULL. */
typedef struct {
    xkd_run_mode mode;
    /* Number of a signal that asks the run to stop, 0: none; asked after every step. */
    int (*stop_signal)(void *user);
    /* A line of a progress bar; NULL: the bar ends. `line` is valid during the call. */
    void (*progress)(void *user, const char *line);
    void *user;
} xkd_run_options;

typedef struct {
    int64_t step, total_steps; /* done in all, and of the whole schedule */
    int64_t bad_steps, bad_clips;
    int64_t parameters;                             /* of all four networks and decoders */
    double loss;                                    /* of the last step */
    double seconds, samples_per_second, data_share; /* of this call; share of time spent waiting for data */
} xkd_run_result;

/* Trains in the folder that run.out names. At the end, at run.max_steps and on a signal everything is saved. Returns
 * XKD_OK, XKD_ERR_INTERRUPTED (SIGINT) or XKD_ERR_PREEMPTED (other signals) with the run saved, XKD_ERR_NUMERIC past
 * run.max_bad_steps, or what went wrong with data, checkpoint, settings, storage or memory; the last whole step is saved
 * where that is still possible. options NULL: a new folder, no callbacks. */
XKD_API xkd_status xkd_pretrain(xkd_settings *settings, const xkd_run_options *options, xkd_run_result *result);

/* What a run would be. */
typedef struct {
    int64_t samples, steps_per_epoch, total_steps; /* 0: no data was given */
    int64_t parameters, trained;                   /* elements */
    int64_t micro_batch;
    int64_t video_tokens, audio_tokens, video_kept, audio_kept; /* of a global view */
    double state_bytes, activation_bytes;
    double seconds_per_sample; /* measured by a step on noise; 0: not measured */
    double seconds_per_step;   /* likewise of the optimiser and the teachers' average, whatever the batch */
    double list_bytes, ring_bytes, worker_bytes,
        cache_bytes;        /* data: list of samples, batches ahead, decoding threads, data.cache=ram; 0 without data */
    double scratch_bytes;   /* of the computing threads; 0: not measured */
    double exchange_bytes;  /* buckets for sums over ranks, on a GPU's memory too; 0 for a process alone */
    double available_bytes; /* what this process may take now */
} xkd_train_plan;

/* Opens the data (if data.path is not empty), lays out the model, and times one small step where the machine has the
 * memory for it. Writes nothing. */
XKD_API xkd_status xkd_plan(xkd_settings *settings, xkd_train_plan *out);

#ifdef __cplusplus
}
#endif
#endif
