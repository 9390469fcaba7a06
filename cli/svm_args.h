/* What `xkd svm` and `xkd eval` share: an SVM on two sets of clips with all that is said about it. */
#ifndef XKD_CLI_SVM_ARGS_H
#define XKD_CLI_SVM_ARGS_H

#include "base/text.h"
#include "config/config.h"
#include "embed_args.h"
#include "feature_args.h"

enum { SVM_MOST_COSTS = 32 };

struct svm_settings {
    double cost[SVM_MOST_COSTS];
    int64_t costs, iterations, folds, seed, threads; /* folds of the cross-validation; 0: none */
    double tolerance;
    bool scale;
};

/* C, iterations and scaling as the configuration has them; 3 folds, tolerance 1e-4, all processors. */
struct svm_settings svm_settings_of(const xkd_config *config);

/* "0.001,0.1" into cost and costs. */
xkd_status svm_parse_costs(struct cli *cli, const char *text, struct svm_settings *out);

/* What came out. Release with svm_verdict_free. */
struct svm_verdict {
    xkd_svm_row rows[SVM_MOST_COSTS];
    int64_t costs, best, honest; /* honest -1: no cross-validation */
    xkd_interval interval;       /* of the chosen row's headline */
    bool multi;                  /* mean average precision instead of top-1 and top-5 */
    int64_t train_videos, train_clips, test_videos, test_clips, classes;
    int64_t train_lacking, test_lacking; /* videos that were listed but have no clips */
    float *scores;                       /* [test_videos,classes] of the chosen row */
};
void svm_verdict_free(struct svm_verdict *verdict);

/* The row that is reported first: the honest one where there is one. */
const xkd_svm_row *svm_chosen(const struct svm_verdict *verdict);

/* Says what it will take, trains and tests. Both sets are changed where features are scaled. */
xkd_status svm_run(struct cli *cli, xkd_clip_set *train, xkd_clip_set *test, const struct svm_settings *settings,
                   struct svm_verdict *out);

/* One JSON object, without a line end. */
void svm_json(xkd_text *out, const struct svm_verdict *verdict);
/* The table as text on stdout. */
void svm_print(const struct svm_verdict *verdict);

/* Videos instead of features: which manifest, where features are kept. */
struct svm_videos {
    xkd_models *models;
    const xkd_manifest *manifest;
    const char *train, *test; /* splits */
    char **donors; /* [donor_count] folders of other folds, whose features of the same draws are taken; NULL: none */
    int64_t donor_count;
    const char *folder; /* train-N.safetensors and test-N.safetensors, N clips a file, stay there */
    int64_t subsample;  /* clips of a training video; 0: as configured */
};

/* Clips of both splits and what they will take, said on stderr and, if `plan` is not NULL, kept there. */
struct svm_plan {
    int64_t files[2], clips[2]; /* training, test */
    double seconds, bytes;      /* of the encoder; of features and SVM */
};
xkd_status svm_plan_videos(struct cli *cli, const struct svm_videos *videos, struct svm_plan *plan);

/* Embeds both splits, or reads what is there from an earlier call, into out->train and out->test. */
xkd_status svm_embed_videos(struct cli *cli, const struct svm_videos *videos, const struct feature_args *args,
                            struct feature_sets *out);

#endif
