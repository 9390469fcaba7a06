/* Linear support vector machine: the problem of scikit-learn's LinearSVC with its defaults, one class against the rest,
 *
 *     min over w of |w|^2 / 2 + C sum_i max(0, 1 - y_i w.x_i)^2,   x with a last feature of 1 whose weight is regularised,
 *
 * solved in the dual by coordinate descent with shrinking (Hsieh, Chang, Lin, Keerthi and Sundararajan, "A dual coordinate
 * descent method for large-scale linear SVM", ICML 2008). One copy of the features, as float32, serves all classes; a
 * sweep over the samples updates 16 classes at a time, so that a row is fetched from memory once for the 16. Weights and
 * duals are double. */
#ifndef XKD_EVAL_JUDGE_SVM_H
#define XKD_EVAL_JUDGE_SVM_H

#include <stdbool.h>

#include "base/pool.h"

/* n samples of D features in K classes; borrowed. */
typedef struct {
    const float *x;       /* [.,D] */
    const int32_t *label; /* [.] 0 .. K-1 */
    /* Samples of several classes instead of `label`: row i of x belongs to class k where truth[truth_row[i]*K + k] is not
     * 0. The clips of a video share a row. NULL: one label each. */
    const uint8_t *truth;     /* [.,K] */
    const int64_t *truth_row; /* [.] */
    const int64_t *row;       /* [n] which rows of x and label take part; NULL: 0 .. n-1 */
    int64_t n, D, K;
} xkd_svm_data;

typedef struct {
    double C;
    double tolerance;   /* of the projected gradients' range, as liblinear's; scikit-learn's default is 1e-4 */
    int64_t iterations; /* most sweeps of a class */
    uint64_t seed;      /* of the order of samples */
    /* Called by one thread at a time with the classes done so far. May be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} xkd_svm_options;

/* C 1, tolerance 1e-4, 1000 iterations. */
xkd_svm_options xkd_svm_defaults(void);

typedef struct {
    int64_t D, K;
    double *w;           /* [K,D+1]; the last of a row is the bias */
    int64_t *iterations; /* [K] sweeps used */
    int64_t unconverged; /* classes that met the iteration limit */
} xkd_svm_model;

/* Trains all classes, in parallel over the pool; the model does not depend on the number of threads. XKD_ERR_NUMERIC for
 * features that are not finite, XKD_ERR_DATA for labels out of range and fewer than two classes present. Free with
 * xkd_svm_free. */
xkd_status xkd_svm_train(xkd_context *cx, xkd_pool *pool, const xkd_svm_data *data, const xkd_svm_options *options,
                         xkd_svm_model *out);
void xkd_svm_free(xkd_svm_model *model);

/* Decision values: out [rows,K] = w.x + b for x [rows,D]. */
void xkd_svm_decide(const xkd_svm_model *model, xkd_pool *pool, const float *x, int64_t rows, float *out);

/* What a training will take. */
typedef struct {
    double bytes;   /* features included */
    double seconds; /* for one C, on this pool; rests on a typical number of sweeps and a measured rate */
} xkd_svm_cost;

xkd_status xkd_svm_estimate(xkd_context *cx, xkd_pool *pool, int64_t n, int64_t D, int64_t K, xkd_svm_cost *out);

/* Folds for cross-validation: fold[i] in 0 .. folds-1 for each of n samples. Samples of one group (clips of one
 * video) stay together; the groups of each class are dealt out evenly. group [n] holds any numbers, in which samples
 * of a group stand next to each other. */
xkd_status xkd_svm_folds(xkd_context *cx, const int32_t *label, const int64_t *group, int64_t n, int64_t K, int folds,
                         uint64_t seed, int32_t *fold);

#endif
