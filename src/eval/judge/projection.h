/* Rows of many numbers as points of a plane, for maps; and groups of rows. All of it gives the same bits at any number of
 * threads. */
#ifndef XKD_EVAL_JUDGE_PROJECTION_H
#define XKD_EVAL_JUDGE_PROJECTION_H

#include "base/pool.h"

/* The first `parts` principal components of x [n,D] into out [n,parts]: mean taken off, each component's sign such that its
 * largest loading is positive, components without variance 0. parts <= 64. By orthogonal iteration, which stops when
 * no component turns any more or after 300 rounds. */
xkd_status xkd_pca(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D, int64_t parts, float *out);

/* Parameters of t-SNE (van der Maaten and Hinton, JMLR 2008); xkd_tsne_defaults. */
typedef struct {
    double perplexity;   /* of each row's neighbours; at most (n - 1) / 3 is used */
    int64_t steps;       /* of gradient descent */
    int64_t exaggerated; /* of them with attraction times `exaggeration` and momentum 0.5, later 0.8 */
    double exaggeration;
    double rate; /* 0: max(n / exaggeration / 4, 50) */
} xkd_tsne_options;
xkd_tsne_options xkd_tsne_defaults(void);

enum { XKD_TSNE_MOST = 5000 }; /* rows: the affinities take n^2 floats, and a step n^2 operations */

/* x [n,D] -> out [n,2], centred. Exact: all pairs. Starts from the first two of x's columns, which the caller has made principal
 * components, scaled to a deviation of 1e-4: no random numbers. `stop`, asked once a step, may be NULL; not 0 ends it with
 * XKD_ERR_INTERRUPTED. */
xkd_status xkd_tsne(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D,
                    const xkd_tsne_options *options, int (*stop)(void *user), void *user, float *out);

/* k-means: group [n] 0 .. k-1. Starts from k rows chosen by k-means++ with a fixed seed, at most 100 rounds of Lloyd; the
 * largest group is 0, and an empty one is left empty. */
xkd_status xkd_kmeans(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D, int64_t k, int32_t *group);

#endif
