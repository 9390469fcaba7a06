/* An SVM on two sets of clips, with all that is said about it. */
#ifndef XKD_EVAL_JUDGE_SVM_RUN_H
#define XKD_EVAL_JUDGE_SVM_RUN_H

#include "base/text.h"
#include "config/config.h"
#include "eval/encode/listener.h"
#include "eval/judge/protocols.h"

enum { XKD_SVM_MOST_COSTS = 32 };

typedef struct {
    double cost[XKD_SVM_MOST_COSTS];
    int64_t costs, iterations, folds, seed, threads; /* folds of the cross-validation; 0: none */
    double tolerance;
    bool scale;
} xkd_svm_settings;

/* C, iterations and scaling as the configuration has them; 3 folds, tolerance 1e-4, all processors. */
xkd_svm_settings xkd_svm_settings_of(const xkd_config *config);

/* What came out. Release with xkd_svm_verdict_free. */
typedef struct {
    xkd_svm_row rows[XKD_SVM_MOST_COSTS];
    int64_t costs, best, honest; /* honest -1: no cross-validation */
    xkd_interval interval;       /* of the chosen row's headline */
    bool multi;                  /* mean average precision instead of top-1 and top-5 */
    int64_t train_videos, train_clips, test_videos, test_clips, classes;
    int64_t train_lacking, test_lacking; /* videos that were listed but have no clips */
    int64_t train_damaged, test_damaged; /* clips with more damage than the choice of the sets allows */
    float *scores;                       /* [test_videos,classes] of the chosen row */
} xkd_svm_verdict;
void xkd_svm_verdict_free(xkd_svm_verdict *verdict);

/* The row that is reported first: the honest one where there is one. */
const xkd_svm_row *xkd_svm_chosen(const xkd_svm_verdict *verdict);

/* Says what it will take, trains and tests. Both sets are changed where features are scaled. `files`: those of the training set,
 * for the names of classes. XKD_ERR_DATA where it has one class alone. */
xkd_status xkd_svm_run(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test, const xkd_manifest *files,
                       const xkd_svm_settings *settings, const xkd_listener *listener, xkd_svm_verdict *out);

/* One JSON object, without a line end. */
void xkd_svm_json(xkd_text *out, const xkd_svm_verdict *verdict);
#endif
