/* Protocols on features: clips become a set of labelled videos, and a set an accuracy. First how sets are made and
 * brought into line with one another, then the SVM with its two ways to choose C, then nearest neighbours. All figures
 * are of videos; a clip by itself counts in clip_top1 only. */
#include "eval/protocols.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* Of an interval. Average precision takes a pass over all samples for each class and draw, hence fewer of them. */
static const double LEVEL = 0.95;
enum { DRAWS = 2000, PRECISION_DRAWS = 1000 };

/* ---- clip sets ---- */

void xkd_clip_set_free(xkd_clip_set *s)
{
    xkd_free(s->x);
    xkd_free(s->label);
    xkd_free(s->video);
    xkd_free(s->video_label);
    xkd_free(s->file);
    xkd_free(s->without);
    xkd_free(s->truth);
    *s = (xkd_clip_set){0};
}

/* Clips [first, first + count) of file f in a table. `cursor` only moves forward, so a whole table is walked once. */
static void clips_of(const xkd_feature_table *t, int64_t f, int64_t *cursor, int64_t *first, int64_t *count)
{
    while (*cursor < t->count && t->file[*cursor] < f) ++*cursor;
    *first = *cursor;
    while (*cursor < t->count && t->file[*cursor] == f) ++*cursor;
    *count = *cursor - *first;
}

/* dst [D] = src, divided by its norm if `normalise`. */
static void put_feature(float *dst, const float *src, int64_t D, bool normalise)
{
    double sum = 0;
    for (int64_t k = 0; k < D; k++) sum += (double)src[k] * src[k];
    double scale = normalise ? 1 / fmax(sqrt(sum), 1e-12) : 1; /* torch.nn.functional.normalize's eps */
    for (int64_t k = 0; k < D; k++) dst[k] = (float)(src[k] * scale);
}

static bool in_split(const xkd_sample *s, const char *split)
{
    return !split || !*split || strcmp(s->split, split) == 0;
}

/* Room for all clips; a split may use less. Sizes are checked here: what follows indexes without asking. */
static xkd_status set_new(xkd_context *cx, const xkd_embeddings *e, const xkd_clip_choice *c, xkd_clip_set *out)
{
    xkd_status status = XKD_OK;
    const xkd_feature_table *v = &e->table[XKD_VIDEO], *a = &e->table[XKD_AUDIO];
    int64_t most = c->video ? v->count : a->count;
    *out = (xkd_clip_set){.D = (c->video ? v->width : 0) + (c->audio ? a->width : 0), .K = e->files.class_count};
    if ((c->video && !v->count) || (c->audio && !a->count))
        XKD_FAIL(XKD_ERR_DATA, "the features hold no %s", c->video && !v->count ? "video" : "audio");
    if ((c->video && v->rows != 1) || (c->audio && a->rows != 1))
        XKD_FAIL(XKD_ERR_DATA, "the features are of single tokens: embed with --pool mean or cls");
    if (most > INT32_MAX) XKD_FAIL(XKD_ERR_DATA, "more clips than an index holds");
    XKD_TRY(xkd_alloc(cx, &out->x, most * out->D, sizeof *out->x));
    XKD_TRY(xkd_alloc(cx, &out->label, most, sizeof *out->label));
    XKD_TRY(xkd_alloc(cx, &out->video, most, sizeof *out->video));
    XKD_TRY(xkd_alloc(cx, &out->video_label, e->files.count, sizeof *out->video_label));
    XKD_TRY(xkd_alloc(cx, &out->file, e->files.count, sizeof *out->file));
    XKD_TRY(xkd_alloc(cx, &out->without, e->files.count, sizeof *out->without));
fail:
    return status;
}

/* K: lists with numbers for labels name no classes, so the largest label counts as well. */
static void count_classes(const xkd_embeddings *e, const xkd_clip_choice *c, int64_t *K, bool *multi)
{
    for (int64_t f = 0; f < e->files.count; f++) {
        const xkd_sample *s = &e->files.samples[f];
        const int32_t *list;
        int32_t single;
        if (!in_split(s, c->split)) continue; /* classes of other splits do not count */
        int64_t count = xkd_sample_labels(s, &list, &single);
        for (int64_t k = 0; k < count; k++)
            if (list[k] >= *K) *K = list[k] + 1;
        *multi |= s->label_count > 0;
    }
}

/* The label of a video that fewest videos have: folds balanced by it give every class its share. scikit-learn has no
 * stratified folds for several labels; the rarest label is the one that a fold could miss. */
static xkd_status choose_rarest(xkd_context *cx, xkd_clip_set *s)
{
    int64_t *videos = NULL;
    xkd_status status = xkd_alloc(cx, &videos, s->K, sizeof *videos);
    if (status != XKD_OK) return status;
    for (int64_t i = 0; i < s->videos * s->K; i++) videos[i % s->K] += s->truth[i];
    for (int64_t v = 0; v < s->videos; v++) {
        int64_t rarest = -1;
        for (int64_t k = 0; k < s->K; k++)
            if (s->truth[v * s->K + k] && (rarest < 0 || videos[k] < videos[rarest])) rarest = k;
        s->video_label[v] = (int32_t)rarest;
    }
    for (int64_t i = 0; i < s->n; i++) s->label[i] = s->video_label[s->video[i]];
    xkd_free(videos);
    return XKD_OK;
}

/* truth [videos,K] from what the files say, or from `video_label` for a set of single labels (e NULL). K may have
 * grown, so the rows are laid out anew. */
static xkd_status make_truth(xkd_context *cx, const xkd_embeddings *e, int64_t K, xkd_clip_set *s)
{
    xkd_status status = XKD_OK;
    uint8_t *truth = NULL;
    XKD_TRY(xkd_alloc(cx, &truth, s->videos * K, 1));
    for (int64_t v = 0; v < s->videos; v++) {
        const int32_t *list;
        int32_t single;
        if (s->truth) memcpy(truth + v * K, s->truth + v * s->K, (size_t)s->K);
        if (!e && !s->truth) truth[v * K + s->video_label[v]] = 1;
        if (!e) continue;
        int64_t count = xkd_sample_labels(&e->files.samples[s->file[v]], &list, &single);
        for (int64_t k = 0; k < count; k++) truth[v * K + list[k]] = 1;
    }
    xkd_free(s->truth);
    s->truth = truth;
    s->K = K;
    /* `label` and `video_label` become the rarest label; what they were is in `truth` now. */
    XKD_TRY(choose_rarest(cx, s));
fail:
    return status;
}

/* A class that is tested but was never trained cannot be got right: its videos would lower the figure unseen. */
static xkd_status check_trained(xkd_context *cx, const xkd_clip_set *train, const xkd_clip_set *test,
                                const xkd_manifest *files)
{
    xkd_status status = XKD_OK;
    uint8_t *seen = NULL;
    int64_t K = train->K;
    XKD_TRY(xkd_alloc(cx, &seen, K, 1));
    for (int64_t v = 0; v < train->videos; v++) seen[train->video_label[v]] = 1;
    for (int64_t i = 0; train->truth && i < train->videos * K; i++) seen[i % K] |= train->truth[i];
    for (int64_t v = 0; v < test->videos; v++) /* any label of a test video */
        for (int64_t k = 0; k < K; k++)
            if ((test->truth ? test->truth[v * K + k] : test->video_label[v] == k) && !seen[k])
                XKD_FAIL(XKD_ERR_DATA,
                         "class %lld (%s) has videos to test on but none to train on: is the training split complete?",
                         (long long)k, k < files->class_count ? files->classes[k] : "without a name");
fail:
    xkd_free(seen);
    return status;
}

/* Numbers of classes differ where one set lacks the last ones, kinds of labels where its files happen to have one each. */
xkd_status xkd_clip_sets_align(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test, const xkd_manifest *files)
{
    xkd_status status = XKD_OK;
    int64_t K = train->K > test->K ? train->K : test->K;
    /* One set with several labels makes both so: the other's single labels become rows of truth with one 1. */
    if (train->truth || test->truth) {
        XKD_TRY(make_truth(cx, NULL, K, train));
        XKD_TRY(make_truth(cx, NULL, K, test));
    }
    train->K = test->K = K;
    XKD_TRY(check_trained(cx, train, test, files));
fail:
    return status;
}

/* Files are walked in order with a cursor into each table: both are sorted by file. */
xkd_status xkd_clip_set_make(xkd_context *cx, const xkd_embeddings *e, const xkd_clip_choice *c, xkd_clip_set *out)
{
    xkd_status status = XKD_OK;
    const xkd_feature_table *v = &e->table[XKD_VIDEO], *a = &e->table[XKD_AUDIO];
    int64_t at[2] = {0}, first[2], count[2];
    bool both = c->video && c->audio, multi = false;
    XKD_TRY(set_new(cx, e, c, out));
    count_classes(e, c, &out->K, &multi);
    for (int64_t f = 0; f < e->files.count; f++) {
        const xkd_sample *s = &e->files.samples[f];
        clips_of(v, f, &at[0], &first[0], &count[0]);
        clips_of(a, f, &at[1], &first[1], &count[1]);
        int64_t clips = c->video ? count[0] : count[1];
        if (!in_split(s, c->split)) continue;
        if (clips == 0) {
            out->without[out->lacking++] = f;
            continue;
        }
        /* Video clip i and sound clip i are cut at the same place, so pairs are by number; unequal counts mean that
         * they are not. */
        if (both && count[0] != count[1])
            XKD_FAIL(XKD_ERR_DATA, "%s: %lld video clips and %lld audio clips do not pair up", s->path,
                     (long long)count[0], (long long)count[1]);
        if (s->label < 0 && !s->label_count)
            XKD_FAIL(XKD_ERR_DATA, "%s: has no label: embed a manifest with labels", s->path);
        /* After the pairing: the first clips of both are taken. */
        if (c->most_clips && clips > c->most_clips) clips = c->most_clips;
        for (int64_t i = 0; i < clips; i++, out->n++) {
            float *x = out->x + out->n * out->D;
            if (c->video) put_feature(x, v->x + (first[0] + i) * v->width, v->width, both || c->normalise);
            if (c->audio)
                put_feature(x + (c->video ? v->width : 0), a->x + (first[1] + i) * a->width, a->width,
                            both || c->normalise);
            out->label[out->n] = (int32_t)s->label; /* replaced below where there are several labels */
            out->video[out->n] = out->videos;
        }
        /* Videos are numbered without gaps, whatever files were passed over. */
        out->file[out->videos] = f;
        out->video_label[out->videos++] = (int32_t)s->label;
    }
    if (out->n == 0) XKD_FAIL(XKD_ERR_DATA, "no clips of split '%s'", c->split ? c->split : "");
    if (multi) XKD_TRY(make_truth(cx, e, out->K, out));
fail:
    return status;
}

/* Measured on the training set alone: test statistics would leak. */
xkd_status xkd_clip_sets_scale(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test)
{
    xkd_status status = XKD_OK;
    double *mean = NULL, *square = NULL;
    int64_t D = train->D;
    XKD_TRY(xkd_alloc(cx, &mean, D, sizeof *mean));
    XKD_TRY(xkd_alloc(cx, &square, D, sizeof *square));
    /* Two passes for the variance: features with a large mean would lose it in E[x^2] - E[x]^2. It is the biased one,
     * as in StandardScaler. */
    for (int64_t i = 0; i < train->n * D; i++) mean[i % D] += train->x[i] / (double)train->n;
    for (int64_t i = 0; i < train->n * D; i++)
        square[i % D] += (train->x[i] - mean[i % D]) * (train->x[i] - mean[i % D]) / (double)train->n;
    xkd_clip_set *sets[] = {train, test};
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < sets[s]->n * D; i++) {
            /* A constant feature stays 0, as in scikit-learn's StandardScaler. */
            double deviation = square[i % D] > 0 ? sqrt(square[i % D]) : 1;
            sets[s]->x[i] = (float)((sets[s]->x[i] - mean[i % D]) / deviation);
        }
fail:
    xkd_free(mean);
    xkd_free(square);
    return status;
}

/* out [videos,K]; relies on clips of a video standing together. Also used for mean features, with K = D. */
void xkd_video_mean(const xkd_clip_set *set, const float *scores, int64_t K, float *out)
{
    for (int64_t i = 0; i < set->n;) {
        int64_t v = set->video[i], end = i;
        while (end < set->n && set->video[end] == v) end++;
        for (int64_t c = 0; c < K; c++) {
            double sum = 0;
            for (int64_t k = i; k < end; k++) sum += scores[k * K + c];
            out[v * K + c] = (float)(sum / (double)(end - i));
        }
        i = end;
    }
}

/* ---- SVM ---- */

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

/* ---- neighbours ---- */

enum { MOST_NEAR = 256 }; /* neighbours of a row: search_row holds as many on the stack */

/* One search; `near` is written by rows, so threads share nothing. */
typedef struct {
    const float *a, *b; /* [n,D]; [m,D] */
    int64_t m, D, k;
    int64_t *near;
} search;

/* Norms are computed again for each pair: the sets are small, and no copy of them is needed. */
double xkd_cosine(const float *a, const float *b, int64_t D)
{
    double dot = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < D; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    double c = dot / fmax(sqrt(aa * bb), 1e-24); /* a zero vector is as near to all: cosine 0 */
    /* What is not a number is farther than anything, as in xkd_ranks: no comparison would move it out of a list, and
     * as a vote it would void its class. */
    return isnan(c) ? -INFINITY : c;
}

/* Keeps the k best in order by insertion: k is small. */
static void search_row(void *arg, int64_t i, int thread)
{
    const search *s = arg;
    int64_t *near = s->near + i * s->k, held = 0;
    (void)thread;
    double value[MOST_NEAR];
    for (int64_t j = 0; j < s->m; j++) {
        double c = xkd_cosine(s->a + i * s->D, s->b + j * s->D, s->D);
        /* Strictly better only: of equals the lower index stays. */
        if (held == s->k && !(c > value[held - 1])) continue;
        int64_t at = held < s->k ? held++ : held - 1;
        for (; at > 0 && c > value[at - 1]; at--) {
            value[at] = value[at - 1];
            near[at] = near[at - 1];
        }
        value[at] = c;
        near[at] = j;
    }
}

/* Apart from xkd_nearest, for who makes room for the lists first. */
static xkd_status check_neighbours(xkd_context *cx, int64_t k, int64_t m)
{
    int64_t most = m < MOST_NEAR ? m : MOST_NEAR;
    if (k >= 1 && k <= most) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "k = %lld neighbours: 1 to %lld", (long long)k, (long long)most);
}

xkd_status xkd_nearest(xkd_context *cx, xkd_pool *pool, const float *a, int64_t n, const float *b, int64_t m, int64_t D,
                       int64_t k, int64_t *near)
{
    xkd_status status = check_neighbours(cx, k, m);
    if (status != XKD_OK) return status;
    search s = {a, b, m, D, k, near};
    xkd_parallel_for(pool, n, search_row, &s);
    return XKD_OK;
}

/* Weight of a neighbour: exp((c - 1) / t) ranks as exp(c / t) does and cannot overflow. t is 0.07 by custom (Wu et
 * al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018). */
static float vote(const float *a, const float *b, int64_t D, double temperature)
{
    return (float)exp((xkd_cosine(a, b, D) - 1) / temperature);
}

/* A row is its own nearest neighbour but for exact doubles of it, so one more is asked for and itself passed over. */
xkd_status xkd_knn_leave_one_out(xkd_context *cx, xkd_pool *pool, const xkd_knn_rows *r, int64_t k, double temperature,
                                 int64_t *near, float *scores, double *top1)
{
    int64_t hits = 0;
    xkd_status status = xkd_nearest(cx, pool, r->x, r->n, r->x, r->n, r->D, k + 1, near);
    if (status != XKD_OK) return status;
    memset(scores, 0, (size_t)(r->n * r->K) * sizeof *scores); /* the votes add up */
    for (int64_t i = 0; i < r->n; i++) {
        int64_t rank, taken = 0;
        /* With exact copies the row itself may not be among the k + 1; then the last of them is not counted. */
        for (int64_t j = 0; j <= k && taken < k; j++) {
            int64_t other = near[i * (k + 1) + j];
            if (other == i) continue;
            taken++;
            scores[i * r->K + r->label[other]] += vote(r->x + i * r->D, r->x + other * r->D, r->D, temperature);
        }
        xkd_ranks(scores + i * r->K, r->label + i, 1, r->K, &rank);
        hits += rank == 0;
    }
    *top1 = 100.0 * (double)hits / (double)r->n;
    return XKD_OK;
}

/* The own row is right even where a copy of it stands elsewhere in the set. */
double xkd_own_recall(const int64_t *near, int64_t n, int64_t k, int64_t at)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k && j < at; j++) hits += near[i * k + j] == i;
    return n > 0 ? 100.0 * (double)hits / (double)n : 0;
}

xkd_status xkd_knn(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *train, const xkd_clip_set *test, int64_t k,
                   double temperature, float *scores)
{
    xkd_status status = XKD_OK;
    float *a = NULL, *b = NULL;
    int64_t *near = NULL, D = train->D, K = train->K;
    if (test->D != D || test->K > K) XKD_FAIL(XKD_ERR_DATA, "training and test set differ in width or classes");
    XKD_TRY(check_neighbours(cx, k, train->videos));
    XKD_TRY(xkd_alloc(cx, &a, test->videos * D, sizeof *a));
    XKD_TRY(xkd_alloc(cx, &b, train->videos * D, sizeof *b));
    XKD_TRY(xkd_alloc(cx, &near, test->videos * k, sizeof *near));
    /* Neighbours are videos: the mean feature of their clips. */
    xkd_video_mean(test, test->x, D, a);
    xkd_video_mean(train, train->x, D, b);
    XKD_TRY(xkd_nearest(cx, pool, a, test->videos, b, train->videos, D, k, near));
    memset(scores, 0, (size_t)(test->videos * K) * sizeof *scores);
    for (int64_t i = 0; i < test->videos; i++)
        for (int64_t j = 0; j < k; j++) {
            int64_t v = near[i * k + j];
            float weight = vote(a + i * D, b + v * D, D, temperature);
            if (!train->truth) scores[i * K + train->video_label[v]] += weight;
            /* A video of several labels votes for each of them. */
            for (int64_t c = 0; train->truth && c < K; c++)
                scores[i * K + c] += weight * (float)train->truth[v * K + c];
        }
fail:
    xkd_free(a);
    xkd_free(b);
    xkd_free(near);
    return status;
}
