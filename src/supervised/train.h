/* Supervised training from manifests: fine-tuning and the linear classifier on a frozen encoder, with their tests;
 * method.md section 10. A run is a folder as pre-training makes it, and like it stops at a signal, goes on to the same
 * bits, and survives unreadable files within the budget of data.max_bad_fraction. */
#ifndef XKD_SUPERVISED_TRAIN_H
#define XKD_SUPERVISED_TRAIN_H

#include <xkd/pretrain.h>

#include "config/config.h"
#include "dist/dist.h"
#include "eval/judge/metrics.h"

/* Fills *config (initialised) for training on top of `model`: the option table's defaults, the geometry, frame grid and
 * spectrogram of the model's own configuration, one view a clip, num_node 1; with `recipe` also the hyper-parameters of
 * the released files for `mode`, for what the model sees (video first). Files and overrides come after it, then
 * xkd_config_finish. */
xkd_status xkd_supervised_defaults(xkd_context *cx, const char *model, xkd_eval_mode mode, bool recipe,
                                   xkd_config *config);

/* Which of a model's modalities `config` means: the one that eval.return_video and return_audio leave, else the one
 * whose transform is not pre-training's, else video. */
xkd_modality xkd_supervised_modality(const xkd_config *config, const bool has[XKD_MODALITIES]);

/* One training. NULL texts: what stands in the configuration (run.init, data.path, data.split, eval.test_path,
 * eval.test_split, run.out). Everything is the caller's and must outlive the call. */
typedef struct {
    const xkd_config *config; /* finished; is not changed */
    const char *model;        /* any form that eval/encode/encoder.h takes */
    const char *train, *train_split;
    const char *test, *test_split;       /* test NULL and eval.test_path empty: the training manifest */
    const struct xkd_manifest *manifest; /* what `train` would hold, which then is a name alone; NULL: it is read */
    const char *out;
    int64_t heads;       /* of the encoder, where neither file nor configuration can say; 0: they can */
    xkd_run_options run; /* new, resumed or forced; stop and progress */
    xkd_dist *dist;      /* the ranks that train together; NULL: this process alone. Rank 0 writes */
} xkd_supervised_options;

/* One test. NAN where a figure does not exist: mean average precision of single labels, accuracies of several. */
typedef struct {
    int64_t epoch, step;                          /* after which; epoch 0: there was none */
    double clip_top1, clip_top5, top1, top5, map; /* percent; by clip and crop, by file */
} xkd_test_scores;

/* Free with xkd_supervised_result_free in any case. */
typedef struct {
    xkd_run_result run;
    bool multi_label, finished;
    bool agreed; /* the call ended alike on all ranks */
    int64_t classes, train_files, test_files;
    int64_t replaced;           /* training files that could not be read, so far in the whole run; -1: unknown */
    int64_t unreadable;         /* test files that could not be read in the last test: they are in no figure */
    int64_t damaged;            /* clips of that test with more damage than data.max_clip_damage: they are in it */
    int64_t empty_classes;      /* without a test file; they count as 0 in the mean average precision */
    int64_t in_both;            /* files that are in the training and the test split */
    xkd_test_scores last, best; /* `last` is the honest figure once `finished`; `best` is what the release reports */
    xkd_interval interval;      /* of last.top1, or of the last epoch's map: 95 % of bootstrap samples; else NAN */
    /* Of the last test of this call; NULL where it made none. */
    float *scores;  /* [scored,classes] by file */
    int32_t *label; /* [scored]; -1 for several labels */
    uint8_t *truth; /* [scored,classes] of several labels, else NULL */
    int64_t scored;
    char **names; /* [classes] */
} xkd_supervised_result;

/* Trains, tests every eval.frequency epochs and after the last, and leaves in the folder classifier.safetensors (the
 * newest test's model, or that of the stop), best.safetensors, tests.jsonl and what pre-training leaves. Returns XKD_OK;
 * XKD_ERR_INTERRUPTED or XKD_ERR_PREEMPTED with the run saved; XKD_ERR_CONFIG (settings, splits, an existing folder),
 * XKD_ERR_DATA (manifests, labels, too many unreadable files), XKD_ERR_CHECKPOINT (the model, another class list in the
 * run), XKD_ERR_NUMERIC, XKD_ERR_STORAGE or XKD_ERR_MEMORY. */
xkd_status xkd_supervised_train(xkd_context *cx, const xkd_supervised_options *options, xkd_supervised_result *result);
void xkd_supervised_result_free(xkd_supervised_result *result);

/* What it would be, without a folder: data and model are opened and checked, and one step of a clip or two is timed. */
typedef struct {
    xkd_modality modality;
    bool multi_label;
    int64_t classes, train_files, test_files, steps_per_epoch, total_steps, parameters, trained, tokens;
    int64_t batch; /* smaller than the configuration's where the files do not fill that */
    double state_bytes, activation_bytes, loader_bytes; /* loader: batches that are read ahead */
    double available_bytes;                             /* free in the machine or its control group */
    double seconds; /* of all training steps; tests and decoding, which goes on beside them, are not in it */
} xkd_supervised_plan;

xkd_status xkd_supervised_look(xkd_context *cx, const xkd_supervised_options *options, xkd_supervised_plan *plan);

#endif
