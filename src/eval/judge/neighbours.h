/* Nearest neighbours by cosine, for figures and for retrieval. method.md section 10. */
#ifndef XKD_EVAL_JUDGE_NEIGHBOURS_H
#define XKD_EVAL_JUDGE_NEIGHBOURS_H

#include "base/pool.h"
#include "eval/judge/clip_set.h"

/* Votes of the k nearest training videos by cosine of their mean features, weighted by exp(cosine / temperature).
 * scores [videos of test,K]. */
xkd_status xkd_knn(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *train, const xkd_clip_set *test, int64_t k,
                   double temperature, float *scores);

/* Labelled rows that are judged among themselves; borrowed. */
typedef struct {
    const float *x;       /* [n,D] */
    const int32_t *label; /* [n] 0 .. K-1 */
    int64_t n, D, K;
} xkd_knn_rows;

/* The same vote where there is no training set: each row by its k < n nearest others. *top1: percent right. The caller
 * lends near [n,k+1] and scores [n,K], so that nothing is allocated. */
xkd_status xkd_knn_leave_one_out(xkd_context *cx, xkd_pool *pool, const xkd_knn_rows *rows, int64_t k,
                                 double temperature, int64_t *near, float *scores, double *top1);

/* Percent of the n rows of near [n,k] that name their own number among the first `at`. */
double xkd_own_recall(const int64_t *near, int64_t n, int64_t k, int64_t at);

/* Of a [D] and b [D]; 0 for a zero vector, -INFINITY for one that holds NAN. */
double xkd_cosine(const float *a, const float *b, int64_t D);

/* Row i of a [n,D] against all of b [m,D] by cosine: near [n,k] indices, best first, ties by lower index. */
xkd_status xkd_nearest(xkd_context *cx, xkd_pool *pool, const float *a, int64_t n, const float *b, int64_t m, int64_t D,
                       int64_t k, int64_t *near);

/* Mean of the features of file f; false if there are none. out [rows*width] is overwritten. Moves the cursor, which begins at 0 and
 * is used for ascending files, behind the file. */
bool xkd_file_mean(const xkd_feature_table *table, int64_t f, int64_t *cursor, float *out);

/* The k clips of `gallery` that are nearest to query by cosine, without those of file `without` (-1: all of them): near [k],
 * *found of them. */
xkd_status xkd_nearest_clips(xkd_context *cx, xkd_pool *pool, const xkd_feature_table *gallery, const float *query,
                             int64_t without, int64_t k, int64_t *near, int64_t *found);

/* XKD_ERR_DATA where features of video and of sound lie in different spaces. */
xkd_status xkd_check_comparable(xkd_context *cx, const xkd_embeddings *e, xkd_modality query, xkd_modality against);

#endif
