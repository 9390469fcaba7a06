/* Features of clips -> sets of labelled videos: how sets are made and brought into line with one another. */
#include "eval/judge/clip_set.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

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
        *multi |= xkd_sample_label_count(s) > 0;
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
        if (s->label < 0 && !xkd_sample_label_count(s))
            XKD_FAIL(XKD_ERR_DATA, "%s: has no label: embed a manifest with labels", s->path);
        /* After the pairing: the first clips of both are taken. */
        if (c->most_clips && clips > c->most_clips) clips = c->most_clips;
        for (int64_t i = 0; i < clips; i++, out->n++) {
            float *x = out->x + out->n * out->D;
            if (c->video) put_feature(x, v->x + (first[0] + i) * v->width, v->width, both || c->normalise);
            if (c->audio)
                put_feature(x + (c->video ? v->width : 0), a->x + (first[1] + i) * a->width, a->width,
                            both || c->normalise);
            out->damaged += (c->video && v->damage[first[0] + i] > c->max_damage) ||
                            (c->audio && a->damage[first[1] + i] > c->max_damage);
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
