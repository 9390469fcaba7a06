/* The SVM on two sets, with its two ways to choose C. All figures are of videos; a clip by itself counts in clip_top1 only. */
#include "eval/judge/protocols.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* Of an interval. Average precision takes a pass over all samples for each class and draw, hence fewer of them. */
static const double LEVEL = 0.95;
enum { DRAWS = 2000, PRECISION_DRAWS = 1000 };

typedef struct {
    const xkd_clip_set *train, *test;
    const xkd_svm_protocol *protocol;
    xkd_pool *pool;
    float *scores; /* [clips,K] of the larger set */
    float *videos; /* [videos,K] likewise */
    int64_t *rank; /* [clips] likewise */
    int32_t *fold; /* [n of train] */
    int64_t *rows; /* [n of train] */
    int64_t done, total;
} evaluation;

/* Before every training, which is the smallest piece of work that can be stopped without losing a figure. */
static xkd_status tick(xkd_context *cx, evaluation *v)
{
    const xkd_svm_protocol *p = v->protocol;
    if (p->stop && p->stop(p->user)) return xkd_fail(cx, XKD_ERR_INTERRUPTED, "stopped between two trainings");
    if (p->progress) p->progress(p->user, v->done, v->total);
    v->done++;
    return XKD_OK;
}

double xkd_headline(const xkd_accuracy *a)
{
    return isnan(a->map) ? a->top1 : a->map;
}

xkd_status xkd_video_accuracy(xkd_context *cx, const xkd_clip_set *s, const float *scores, xkd_accuracy *out)
{
    xkd_status status = XKD_OK;
    int64_t *rank = NULL, empty;
    /* NAN for what is not measured: a 0 would look like a result. */
    out->top1 = out->top5 = out->map = NAN;
    if (s->truth) {
        XKD_TRY(xkd_mean_average_precision(cx, scores, s->truth, s->videos, s->K, NULL, &out->map, &empty));
        out->map *= 100;
        return XKD_OK;
    }
    XKD_TRY(xkd_alloc(cx, &rank, s->videos, sizeof *rank));
    xkd_ranks(scores, s->video_label, s->videos, s->K, rank);
    out->top1 = xkd_top_k(rank, s->videos, 1);
    out->top5 = xkd_top_k(rank, s->videos, 5);
fail:
    xkd_free(rank);
    return status;
}

/* Videos are drawn, not clips: clips of one video are no independent witnesses. */
xkd_status xkd_video_interval(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *s, const float *scores,
                              uint64_t seed, xkd_interval *out)
{
    xkd_status status = XKD_OK;
    int64_t *rank = NULL;
    double *hit = NULL;
    if (s->truth) {
        xkd_multi_scores multi = {scores, s->truth, s->videos, s->K};
        return xkd_bootstrap_precision(cx, pool, &multi, PRECISION_DRAWS, LEVEL, seed, out);
    }
    XKD_TRY(xkd_alloc(cx, &rank, s->videos, sizeof *rank));
    XKD_TRY(xkd_alloc(cx, &hit, s->videos, sizeof *hit));
    xkd_ranks(scores, s->video_label, s->videos, s->K, rank);
    for (int64_t i = 0; i < s->videos; i++) hit[i] = rank[i] == 0 ? 100 : 0;
    XKD_TRY(xkd_bootstrap(cx, hit, s->videos, DRAWS, LEVEL, seed, out));
fail:
    xkd_free(rank);
    xkd_free(hit);
    return status;
}

/* Decision values of a video's clips are averaged, as the release does, not their ranks. The mean says more than a
 * vote where clips of a video disagree. */
static xkd_status judge(xkd_context *cx, evaluation *v, const xkd_svm_model *model, xkd_accuracy *out)
{
    const xkd_clip_set *t = v->test;
    xkd_svm_decide(model, v->pool, t->x, t->n, v->scores);
    xkd_ranks(v->scores, t->label, t->n, model->K, v->rank);
    /* Ranks need one true class. */
    out->clip_top1 = t->truth ? NAN : xkd_top_k(v->rank, t->n, 1);
    xkd_video_mean(t, v->scores, model->K, v->videos);
    return xkd_video_accuracy(cx, t, v->videos, out);
}

/* The training problem of a set, all rows. */
static xkd_svm_data problem_of(const xkd_clip_set *t)
{
    return (xkd_svm_data){
        .x = t->x, .label = t->label, .truth = t->truth, .truth_row = t->video, .n = t->n, .D = t->D, .K = t->K};
}

/* A class of one video is missing from the training of the fold that holds it out: of two classes one is left then. */
static xkd_status check_fold(xkd_context *cx, const xkd_clip_set *t, const int64_t *rows, int64_t n, int folds)
{
    bool two = t->truth != NULL;
    for (int64_t i = 1; i < n && !two; i++) two = t->label[rows[i]] != t->label[rows[0]];
    if (two) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA,
                    "svm: cross-validation in %d folds leaves one class alone to train on in one of them, as the other "
                    "has a single video (add videos of it, or --folds 0)",
                    folds);
}

/* Percent of training videos that a model of the other folds gets right. */
static xkd_status cross_validate(xkd_context *cx, evaluation *v, double C, double *out)
{
    xkd_status status = XKD_OK;
    const xkd_clip_set *t = v->train;
    xkd_svm_options o = v->protocol->svm;
    xkd_svm_model model = {0};
    o.C = C;
    for (int f = 0; f < v->protocol->folds; f++) {
        xkd_svm_data data = problem_of(t);
        /* The features are not copied for a fold: the solver reads rows by index. */
        data.row = v->rows;
        data.n = 0;
        for (int64_t i = 0; i < t->n; i++)
            if (v->fold[i] != f) v->rows[data.n++] = i;
        XKD_TRY(check_fold(cx, t, v->rows, data.n, v->protocol->folds));
        XKD_TRY(tick(cx, v));
        XKD_TRY(xkd_svm_train(cx, v->pool, &data, &o, &model));
        /* Every clip is held out in one fold, so `scores` is full at the end and is judged as one set, like a test
         * set. */
        for (int64_t i = 0, k; i < t->n; i = k) { /* runs of held-out clips go through in one piece */
            for (k = i + 1; k < t->n && v->fold[k] == v->fold[i]; k++) continue;
            if (v->fold[i] == f) xkd_svm_decide(&model, v->pool, t->x + i * t->D, k - i, v->scores + i * t->K);
        }
        xkd_svm_free(&model);
    }
    xkd_video_mean(t, v->scores, t->K, v->videos);
    xkd_accuracy held_out;
    XKD_TRY(xkd_video_accuracy(cx, t, v->videos, &held_out));
    *out = xkd_headline(&held_out);
fail:
    return status;
}

/* The higher figure; of equals the smaller C, whatever the order of the list. A smaller C regularises more and trains
 * faster. */
static bool better(double figure, double C, double than, double than_C)
{
    return figure > than || (figure == than && C < than_C);
}

/* Buffers for the larger of the two sets serve cross-validation and test alike. */
static xkd_status evaluation_new(xkd_context *cx, evaluation *v)
{
    xkd_status status = XKD_OK;
    int64_t clips = v->train->n > v->test->n ? v->train->n : v->test->n;
    int64_t videos = v->train->videos > v->test->videos ? v->train->videos : v->test->videos, K = v->train->K;
    /* A file of mean features and one of another model can be given. */
    if (v->train->D != v->test->D) XKD_FAIL(XKD_ERR_DATA, "features of training and test set differ in width");
    if (v->test->K != K || !v->test->truth != !v->train->truth)
        XKD_FAIL(XKD_ERR_INTERNAL, "sets of %lld and %lld classes were not aligned", (long long)K,
                 (long long)v->test->K);
    XKD_TRY(xkd_alloc(cx, &v->scores, clips * K, sizeof *v->scores));
    XKD_TRY(xkd_alloc(cx, &v->videos, videos * K, sizeof *v->videos));
    XKD_TRY(xkd_alloc(cx, &v->rank, clips, sizeof *v->rank));
    XKD_TRY(xkd_alloc(cx, &v->rows, v->train->n, sizeof *v->rows));
    XKD_TRY(xkd_alloc(cx, &v->fold, v->train->n, sizeof *v->fold));
    v->total = v->protocol->costs * (1 + v->protocol->folds); /* one training for the test, and one for each fold */
    /* By groups: two clips of one video in training and held-out part would make cross-validation too kind. */
    if (v->protocol->folds)
        XKD_TRY(xkd_svm_folds(cx, v->train->label, v->train->video, v->train->n, K, v->protocol->folds,
                              v->protocol->svm.seed, v->fold));
fail:
    return status;
}

/* Cross-validation comes first for each C, so that a run that is stopped never has a test figure without it. */
xkd_status xkd_svm_evaluate(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *train, const xkd_clip_set *test,
                            const xkd_svm_protocol *protocol, xkd_svm_row *rows, int64_t *best, int64_t *honest,
                            float *scores)
{
    xkd_status status = XKD_OK;
    evaluation v = {.train = train, .test = test, .protocol = protocol, .pool = pool};
    xkd_svm_model model = {0};
    *best = *honest = -1;
    XKD_TRY(evaluation_new(cx, &v));
    for (int64_t c = 0; c < protocol->costs; c++) {
        xkd_svm_row *r = &rows[c];
        *r = (xkd_svm_row){.C = protocol->cost[c], .cross_validated = NAN};
        if (protocol->folds) XKD_TRY(cross_validate(cx, &v, r->C, &r->cross_validated));
        if (protocol->folds &&
            (*honest < 0 || better(r->cross_validated, r->C, rows[*honest].cross_validated, rows[*honest].C)))
            *honest = c;
        xkd_svm_options o = protocol->svm;
        o.C = r->C;
        /* The model for the test is trained on all training clips, whichever folds were used before. */
        const xkd_svm_data data = problem_of(train);
        XKD_TRY(tick(cx, &v));
        XKD_TRY(xkd_svm_train(cx, pool, &data, &o, &model));
        r->unconverged = model.unconverged;
        status = judge(cx, &v, &model, &r->test);
        xkd_svm_free(&model);
        XKD_TRY(status);
        if (*best < 0 || better(xkd_headline(&r->test), r->C, xkd_headline(&rows[*best].test), rows[*best].C))
            *best = c;
        /* The row may be overtaken by a later one, which then overwrites the scores. */
        if (scores && (protocol->folds ? *honest == c : *best == c))
            memcpy(scores, v.videos, (size_t)(test->videos * train->K) * sizeof *scores);
    }
fail:
    xkd_free(v.scores);
    xkd_free(v.videos);
    xkd_free(v.rank);
    xkd_free(v.rows);
    xkd_free(v.fold);
    return status;
}
