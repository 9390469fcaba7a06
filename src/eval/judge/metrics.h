/* What is said about scores: top-k, average precision, confusion, per class, and how sure one can be. Scores are
 * [n,K]: a row a sample, a column a class. */
#ifndef XKD_EVAL_JUDGE_METRICS_H
#define XKD_EVAL_JUDGE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/pool.h"

/* Rank of the true class of every sample: how many classes score higher, or as high and stand before it. 0 is a hit.
 * A score that is not a number loses against all others. rank [n]. */
void xkd_ranks(const float *scores, const int32_t *label, int64_t n, int64_t K, int64_t *rank);

/* Percent of samples whose rank is below k. */
double xkd_top_k(const int64_t *rank, int64_t n, int64_t k);

/* Average precision of one class as scikit-learn's average_precision_score: sum of (R_i - R_{i-1}) P_i over the
 * distinct scores from above. truth [n] 0 or 1, both taken with `stride` elements from sample to sample. 0 without
 * positives. */
xkd_status xkd_average_precision(xkd_context *cx, const float *scores, const uint8_t *truth, int64_t n, int64_t stride,
                                 double *out);

/* Mean over classes (macro). truth [n,K]. each [K] may be NULL. *empty: classes without positives, which count as 0 as
 * they do in scikit-learn. */
xkd_status xkd_mean_average_precision(xkd_context *cx, const float *scores, const uint8_t *truth, int64_t n, int64_t K,
                                      double *each, double *mean, int64_t *empty);

/* counts [K,K] += 1 at [true class, best class]. */
void xkd_confusion(const float *scores, const int32_t *label, int64_t n, int64_t K, int64_t *counts);

/* Writes the confusion matrix as a PNG: a row a true class, normalised to its samples. Errors: XKD_ERR_STORAGE. */
xkd_status xkd_confusion_picture(xkd_context *cx, const char *path, const int64_t *counts, int64_t K);

/* One line of the per-class table, from a confusion matrix. */
typedef struct {
    int64_t samples, hits, predicted; /* of this class; right; predicted to be of it */
    double recall, precision;         /* percent; precision 0 where nothing was predicted */
    int64_t confused;                 /* the other class it is most often taken for, -1: none */
} xkd_class_row;

void xkd_class_table(const int64_t *counts, int64_t K, xkd_class_row *rows);

/* Percentile bootstrap of a mean: values [n] (0 or 100 for an accuracy in percent), `level` e.g. 0.95. */
typedef struct {
    double mean, low, high;
} xkd_interval;

xkd_status xkd_bootstrap(xkd_context *cx, const double *values, int64_t n, int64_t draws, double level, uint64_t seed,
                         xkd_interval *out);

/* Scores of samples that may belong to several classes; borrowed. */
typedef struct {
    const float *scores;  /* [n,K] */
    const uint8_t *truth; /* [n,K] 0 or 1 */
    int64_t n, K;
} xkd_multi_scores;

/* The same of a mean average precision, in percent: samples are drawn, classes averaged. A class none of whose samples
 * was drawn takes no part in that draw; one that has none at all counts as 0, as it does in the mean itself. The draws' bias is taken off. */
xkd_status xkd_bootstrap_precision(xkd_context *cx, xkd_pool *pool, const xkd_multi_scores *s, int64_t draws,
                                   double level, uint64_t seed, xkd_interval *out);

/* Mean and standard deviation (n - 1; 0 for one value), for tables over folds and seeds; values are `stride` apart. */
void xkd_mean_deviation(const double *values, int64_t n, int64_t stride, double *mean, double *deviation);

#endif
