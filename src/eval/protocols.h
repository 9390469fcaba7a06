/* From features of clips to the figures of a table: linear SVM with its choice of C, nearest neighbours, retrieval.
 * method.md section 10. */
#ifndef XKD_EVAL_PROTOCOLS_H
#define XKD_EVAL_PROTOCOLS_H

#include "base/pool.h"
#include "eval/embeddings.h"
#include "eval/metrics.h"
#include "eval/svm.h"

/* Clips of labelled videos; clips of a video stand together. Owned; free with xkd_clip_set_free. */
typedef struct {
    int64_t n, D, K, videos;
    float *x;             /* [n,D] */
    int32_t *label;       /* [n] */
    int64_t *video;       /* [n] 0 .. videos-1, ascending */
    int32_t *video_label; /* [videos] */
    int64_t *file;        /* [videos] index into the embeddings' files */
    int64_t *without;     /* [lacking] likewise of the files that belong to the set but have no clips */
    int64_t lacking;
    /* Where a file has several labels: truth [videos,K] 0 or 1, else NULL. `label` and `video_label` are then the
     * rarest label of a video, by which folds are balanced; figures are mean average precision. */
    uint8_t *truth;
} xkd_clip_set;

/* What of the embeddings is taken. */
typedef struct {
    bool video, audio;  /* both: each L2-normalised, one behind the other, clip by clip */
    const char *split;  /* NULL or "": every file */
    int64_t most_clips; /* of a file; 0: all */
    bool normalise;     /* L2, also of one modality alone */
} xkd_clip_choice;

/* XKD_ERR_DATA: a file without label, no clips of the split, features of all tokens, clips that do not pair up. */
xkd_status xkd_clip_set_make(xkd_context *cx, const xkd_embeddings *e, const xkd_clip_choice *choice,
                             xkd_clip_set *out);
void xkd_clip_set_free(xkd_clip_set *set);

/* Brings both sets to the larger number of classes, and to several labels a file where one of them has that. XKD_ERR_DATA: a
 * class that is tested has no training video; `files` names it. */
xkd_status xkd_clip_sets_align(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test, const xkd_manifest *files);

/* Zero mean and unit deviation of every feature, measured on `train` and applied to both. */
xkd_status xkd_clip_sets_scale(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test);

/* Mean of each video's rows: scores [n,K] -> out [videos,K]. */
void xkd_video_mean(const xkd_clip_set *set, const float *scores, int64_t K, float *out);

/* Percent right, by clip and by video; with several labels a file the mean average precision in percent, and the rest is
 * NAN. */
typedef struct {
    double clip_top1, top1, top5, map;
} xkd_accuracy;

/* The figure by which settings are compared: map where there is one, else top1. */
double xkd_headline(const xkd_accuracy *a);

/* What scores [videos,K] say about a set. clip_top1 is left alone. */
xkd_status xkd_video_accuracy(xkd_context *cx, const xkd_clip_set *set, const float *scores, xkd_accuracy *out);

/* 95 % bootstrap interval of the headline over the videos. */
xkd_status xkd_video_interval(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *set, const float *scores,
                              uint64_t seed, xkd_interval *out);

typedef struct {
    double C;
    xkd_accuracy test;
    double cross_validated; /* headline by video on the training set; NAN where it was not done */
    int64_t unconverged;    /* classes that met the iteration limit */
} xkd_svm_row;

typedef struct {
    const double *cost; /* [costs] */
    int64_t costs;
    int folds; /* of cross-validation; 0: none */
    xkd_svm_options svm;
    /* Called before each training. May be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total);
    /* Asked before each training; non-zero ends it all with XKD_ERR_INTERRUPTED. May be NULL. */
    int (*stop)(void *user);
    void *user;
} xkd_svm_protocol;

/* Trains with every C and fills rows [costs]. *best is the row with the best test accuracy, as the release reports it;
 * *honest the one that cross-validation on the training set chose (-1 without). Of equals the smaller C. scores
 * [videos of test,K] are those of the honest row, else of the best; may be NULL. */
xkd_status xkd_svm_evaluate(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *train, const xkd_clip_set *test,
                            const xkd_svm_protocol *protocol, xkd_svm_row *rows, int64_t *best, int64_t *honest,
                            float *scores);

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

#endif
