/* The evaluations of the paper as one table: data set, folds, task, hyper-parameters of the released configurations, and
 * the paper's own figures; method.md sections 10 and 11. `xkd eval` works from it. */
#ifndef XKD_EVAL_JUDGE_BENCHMARKS_H
#define XKD_EVAL_JUDGE_BENCHMARKS_H

#include "base/status.h"
#include "config/config.h"

typedef enum { XKD_BENCHMARK_SVM, XKD_BENCHMARK_FINETUNE, XKD_BENCHMARK_LINEAR } xkd_benchmark_task;

/* Models of the paper: XKD, XKD-MAS, XKD-MATS pre-trained on Kinetics400, XKD on AudioSet. */
enum { XKD_PAPER_MODELS = 4, XKD_BENCHMARK_SETTINGS = 40 };

typedef struct {
    const char *name; /* "ucf101-svm" */
    const char *set;  /* as xkd_import knows it */
    xkd_benchmark_task task;
    bool uses[XKD_MODALITIES];
    bool multi;    /* several labels a file: mean average precision instead of top-1 and top-5 */
    int64_t folds; /* 0: one split */
    /* KEY=VALUE on top of the model's own configuration: what its task shares, then its own; each ends with NULL. The
     * splits among them hold {fold}. */
    const char *const *shared;
    const char *const *own;
    double paper[XKD_PAPER_MODELS]; /* top-1 or mAP in percent; 0: not reported */
    double paper_top5;              /* of the first; 0: not reported */
} xkd_benchmark;

int64_t xkd_benchmark_count(void);
/* Row i; NULL beyond the last. */
const xkd_benchmark *xkd_benchmark_at(int64_t i);
/* By name. XKD_ERR_CONFIG with a suggestion for an unknown one. */
xkd_status xkd_benchmark_find(xkd_context *cx, const char *name, const xkd_benchmark **out);

/* "linear SVM on frozen features" and the like. */
const char *xkd_benchmark_task_text(xkd_benchmark_task task);
/* "XKD", "XKD-MAS", "XKD-MATS", "XKD, AudioSet". */
const char *xkd_paper_model(int64_t i);

/* All settings of a row, ended by NULL; the strings are the table's. Which fold it is (dataset.fold) is the caller's to
 * say. */
void xkd_benchmark_settings(const xkd_benchmark *benchmark, const char *out[XKD_BENCHMARK_SETTINGS]);

#endif
