/* From sets of clips to the figures of a table: linear SVM with its choice of C. method.md section 10. */
#ifndef XKD_EVAL_JUDGE_PROTOCOLS_H
#define XKD_EVAL_JUDGE_PROTOCOLS_H

#include "base/pool.h"
#include "eval/judge/clip_set.h"
#include "eval/judge/metrics.h"
#include "eval/judge/neighbours.h"
#include "eval/judge/svm.h"

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

#endif
