/* What one fold of an evaluation came to, kept as a small JSON file so that a finished fold is not done again. */
#ifndef XKD_EVAL_JUDGE_FOLD_RESULT_H
#define XKD_EVAL_JUDGE_FOLD_RESULT_H

#include "base/text.h"
#include "data/import.h"
#include "eval/judge/metrics.h"

/* Of the result and of what the folder says about its settings. To be raised where either changes, or where a default of the
 * configuration does: folds of two versions are not mixed. */
enum { XKD_FOLD_FORMAT = 5 };

/* Percent; NAN where a figure does not exist: mAP of single labels, accuracies of several. */
typedef struct {
    double top1, top5, clip_top1, map;
    double at; /* the C or epoch that it is of */
} xkd_figures;

typedef struct {
    int64_t fold;               /* 0: the data set has none */
    uint64_t settings;          /* hash of model, configuration and files */
    xkd_figures honest;         /* last epoch; C by cross-validation on the training split */
    xkd_figures best;           /* as released: chosen on the test split */
    double interval[2];         /* 95 %, of the honest top1 or map */
    int64_t files[2];           /* training, test: in the manifest */
    int64_t unreadable[2];      /* of them: in no figure; -1: unknown */
    int64_t damaged[2];         /* training, test: clips in the figures that are damaged beyond data.max_clip_damage */
    xkd_import_counts imported; /* of all splits, beside the official set */
    double seconds;
} xkd_fold_result;

/* Writes atomically. */
xkd_status xkd_fold_result_write(xkd_context *cx, const char *path, const xkd_fold_result *result);

/* XKD_ERR_DATA for a file that is none, XKD_ERR_CONFIG for a result of another version. */
xkd_status xkd_fold_result_read(xkd_context *cx, const char *path, xkd_fold_result *out);

/* The same text, as it stands in larger JSON documents. */
void xkd_fold_result_json(xkd_text *out, const xkd_fold_result *result);

/* Mean and standard deviation (n - 1) of each figure over folds. */
typedef struct {
    xkd_figures mean, deviation; /* deviation 0 for one fold; `at` is not averaged: NAN */
} xkd_fold_mean;

xkd_fold_mean xkd_fold_results_mean(const xkd_fold_result *results, int64_t count, bool best);

#endif
