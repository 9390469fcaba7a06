/* The tasks of `xkd eval`: from the manifest of one fold to its figures. Each keeps what it has done in the fold's folder
 * and goes on with it. */
#ifndef XKD_CLI_EVAL_TASKS_H
#define XKD_CLI_EVAL_TASKS_H

#include "data/import.h"
#include "eval/judge/draws.h"
#include "eval/judge/benchmarks.h"
#include "eval/judge/fold_result.h"
#include "model_args.h"

struct eval_fold {
    const xkd_benchmark *benchmark;
    int64_t fold; /* 0: the set has none */
    const char *model;
    int64_t heads;     /* of the encoder, where the file cannot say */
    xkd_dist *dist;    /* the ranks that work together; NULL: this process alone. Rank 0 writes and prints */
    bool agreed;       /* the training of this fold ended alike on all ranks */
    xkd_models models; /* for an SVM; loaded with the configuration of this fold */
    xkd_config config; /* for training */
    xkd_manifest manifest;
    xkd_import_result imported;
    const xkd_clip_draws *draws;                /* of training files over all folds; NULL: none */
    const char *out;                            /* of all folds; NULL in a plan without one */
    char *folder, *manifest_path, *result_path; /* owned; the first exists only once something is written there */
    uint64_t settings;                          /* hash of what decides the figures */
    uint64_t begun; /* the same for work that is not done: without contents where the work itself looks at them */
};

/* The configuration that the fold's task works by. */
const xkd_config *eval_fold_config(const struct eval_fold *fold);

/* Does the work of a fold and fills the figures and counts of *out. */
xkd_status eval_fold_run(struct cli *cli, struct eval_fold *fold, xkd_fold_result *out);

/* One line on stdout about what that would be; `done`: there is a result. */
xkd_status eval_fold_plan(struct cli *cli, struct eval_fold *fold, bool done);

#endif
