/* Labelled files for supervised training. Both manifests are checked before the first step, since a wrong label or
 * split would show only as a figure that is too low. Then micro-batches with their targets [B,K]. */
#include "supervised/data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "data/index.h"
#include "eval/encode/clips.h"

/* A message with more names than this is not read. */
enum { NAMED = 5 };

/* ---- labels ---- */

/* Either form: one label, or a list of several. */
static bool has_label(const xkd_sample *s)
{
    return s->label >= 0 || xkd_sample_label_count(s) > 0;
}

/* One kind for all files; *most is the largest label. */
static xkd_status check_labels(xkd_context *cx, const xkd_manifest *m, const char *path, bool multi_label,
                               int64_t *most)
{
    int64_t without = 0, first = -1;
    /* Files without a label are counted, for a set has either one or thousands of them; labels of two kinds are
     * refused at the first, for one is enough to see what is wrong. */
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        if (!has_label(s) && without++ == 0) first = i;
        if (has_label(s) && multi_label != (xkd_sample_label_count(s) > 0))
            return xkd_fail(
                cx, XKD_ERR_DATA, "%s: %s has %s, other files have %s: all files need \"label\", or all \"labels\"",
                path, s->path, multi_label ? "one label" : "a list of labels", multi_label ? "lists of labels" : "one");
        if (s->label > *most) *most = s->label;
        for (int64_t k = 0; k < xkd_sample_label_count(s); k++)
            if (s->more->labels[k] > *most) *most = s->more->labels[k];
    }
    if (without)
        return xkd_fail(cx, XKD_ERR_DATA,
                        "%s: %" PRId64 " of %" PRId64
                        " files have no label, the first is %s: import the data set with its "
                        "labels ('xkd data import') or leave them out",
                        path, without, m->count, m->samples[first].path);
    return XKD_OK;
}

void xkd_truth_of(const xkd_sample *s, int64_t K, uint8_t *truth)
{
    memset(truth, 0, (size_t)K);
    if (s->label >= 0 && s->label < K) truth[s->label] = 1;
    for (int64_t k = 0; k < xkd_sample_label_count(s); k++) truth[s->more->labels[k]] = 1;
}

/* A class that no file shows cannot be learnt, and its row would stay what chance made it. Usually the wrong split or
 * an import that was not complete, so it is refused and not only told. */
static xkd_status check_empty_classes(xkd_context *cx, const xkd_supervised_data *d, const char *path)
{
    xkd_status status = XKD_OK;
    uint8_t *truth = NULL, *seen = NULL;
    int64_t K = d->classes.count, empty = 0;
    xkd_text names = xkd_text_make(cx);
    XKD_TRY(xkd_alloc(cx, &truth, K, 1));
    XKD_TRY(xkd_alloc(cx, &seen, K, 1));
    for (int64_t i = 0; i < d->train->count; i++) {
        xkd_truth_of(&d->train->samples[i], K, truth);
        for (int64_t k = 0; k < K; k++) seen[k] |= truth[k];
    }
    for (int64_t k = 0; k < K; k++)
        if (!seen[k] && empty++ < NAMED) xkd_text_printf(&names, "%s%s", empty > 1 ? ", " : "", d->classes.items[k]);
    if (empty)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: %" PRId64 " of %" PRId64
                 " classes have no training file (%s%s): leave them out of the manifest, or "
                 "take another split",
                 path, empty, K, names.data ? names.data : "", empty > NAMED ? ", ..." : "");
fail:
    xkd_text_free(&names);
    xkd_free(truth);
    xkd_free(seen);
    return status;
}

/* eval.num_classes says how many there must be; numbers without names are counted. Names of the manifest come first,
 * then the configuration's number, then the largest label. */
static xkd_status count_classes(xkd_context *cx, const xkd_config *c, const xkd_manifest *m, int64_t most, int64_t *K)
{
    *K = m->class_count ? m->class_count : c->eval.classes ? c->eval.classes : most + 1;
    if (most >= *K)
        return xkd_fail(cx, XKD_ERR_DATA, "%s: label %" PRId64 " of %" PRId64 " classes", c->data.path, most, *K);
    if (c->eval.classes && c->eval.classes != *K)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "eval.num_classes is %" PRId64 ", but %s names %" PRId64
                        " classes: eval.num_classes=auto takes those "
                        "of the manifest",
                        c->eval.classes, c->data.path, *K);
    /* Unless eval.num_classes asks for one: a single label of several, present or not, can be learnt. */
    if (*K < 2 && !c->eval.classes)
        return xkd_fail(cx, XKD_ERR_DATA, "%s: has one class only: there is nothing to tell apart", c->data.path);
    return XKD_OK;
}

/* ---- test files ---- */

/* Splits that a manifest has, for the message. */
static xkd_status no_such_split(xkd_context *cx, const xkd_manifest *m, const char *path, const char *split)
{
    xkd_text names = xkd_text_make(cx);
    const char *seen[NAMED];
    int64_t count = 0;
    for (int64_t i = 0; i < m->count && count < NAMED; i++) {
        int64_t k = 0;
        while (k < count && strcmp(seen[k], m->samples[i].split) != 0) k++;
        if (k < count) continue;
        xkd_text_printf(&names, "%s%s", count ? ", " : "", m->samples[i].split);
        seen[count++] = m->samples[i].split;
    }
    xkd_status status = xkd_fail(cx, XKD_ERR_DATA, "%s: no file is of split '%s'; it has %s (--split, --test-split)",
                                 path, split, names.data && *names.data ? names.data : "no files");
    xkd_text_free(&names);
    return status;
}

static xkd_status load(xkd_context *cx, const char *path, bool follow_links, const xkd_manifest *given,
                       xkd_manifest *out)
{
    return given ? xkd_manifest_copy(cx, given, out) : xkd_manifest_load(cx, path, follow_links, out);
}

/* An empty split is loaded again in full, to say in the message which splits there are. The second loading happens on
 * the way to an error only. */
static xkd_status check_split(xkd_context *cx, const char *path, bool follow_links, const xkd_manifest *given,
                              const char *split, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    xkd_manifest all = {0};
    XKD_TRY(load(cx, path, follow_links, given, out));
    xkd_manifest_keep_split(out, split);
    if (out->count > 0) goto fail;
    XKD_TRY(load(cx, path, follow_links, given, &all));
    status = no_such_split(cx, &all, path, split);
fail:
    xkd_manifest_free(&all);
    return status;
}

/* Pointers to paths, for qsort and bsearch. */
static int by_path(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Files of one manifest that are in both splits: a warning, since overfitting on purpose is a test too. Paths of one
 * manifest are comparable as text; those of two need not be. */
static xkd_status count_in_both(xkd_context *cx, xkd_supervised_data *d)
{
    xkd_status status = XKD_OK;
    const char **paths = NULL;
    XKD_TRY(xkd_alloc(cx, &paths, d->train->count, sizeof *paths));
    for (int64_t i = 0; i < d->train->count; i++) paths[i] = d->train->samples[i].path;
    qsort(paths, (size_t)d->train->count, sizeof *paths, by_path);
    for (int64_t i = 0; i < d->test.count; i++)
        d->in_both += bsearch(&d->test.samples[i].path, paths, (size_t)d->train->count, sizeof *paths, by_path) != NULL;
    if (d->in_both)
        xkd_log(cx, XKD_LOG_WARN,
                "%" PRId64 " of %" PRId64 " test files are training files too: the test says nothing about new files",
                d->in_both, d->test.count);
fail:
    xkd_free(paths);
    return status;
}

/* Without a path of its own the test set is another split of the training manifest. */
static xkd_status open_test(xkd_context *cx, const xkd_config *c, const xkd_manifest *given, xkd_supervised_data *d)
{
    xkd_status status = XKD_OK;
    bool same = !*c->eval.test_path || strcmp(c->eval.test_path, c->data.path) == 0;
    const char *path = same ? c->data.path : c->eval.test_path;
    int64_t most = -1;
    XKD_TRY(check_split(cx, path, c->data.follow_links, same ? given : NULL, c->eval.test_split, &d->test));
    XKD_TRY(check_labels(cx, &d->test, path, d->multi_label, &most));
    if (!same) XKD_TRY(xkd_manifest_compare_classes(cx, d->train, c->data.path, &d->test, path, NULL));
    if (most >= d->classes.count)
        XKD_FAIL(XKD_ERR_DATA, "%s: label %" PRId64 " of %" PRId64 " classes", path, most, d->classes.count);
    if (same) XKD_TRY(count_in_both(cx, d));
    XKD_TRY(xkd_alloc(cx, &d->inputs, d->test.count, sizeof *d->inputs));
    for (int64_t i = 0; i < d->test.count; i++) d->inputs[i] = (xkd_embed_input){&d->test, i, i, i};
fail:
    return status;
}

/* ---- opening ---- */

/* Smoothing takes from one class and gives to the others; with several labels there is no such sum to keep. */
static xkd_status check_settings(xkd_context *cx, const xkd_config *c, bool multi_label)
{
    if (multi_label && c->eval.label_smoothing > 0)
        return xkd_fail(cx, XKD_ERR_CONFIG, "eval.label_smoothing: is for files with one label: set it to 0");
    return XKD_OK;
}

/* [B,K] targets and, for overfitting, copies of a whole step: the loader reuses its memory. */
static xkd_status make_memory(xkd_context *cx, const xkd_config *c, xkd_supervised_data *d)
{
    xkd_status status = XKD_OK;
    xkd_view_shape s = xkd_clip_shape(&c->data, d->modality);
    int64_t accumulate = c->train.accumulate;
    d->batch = c->train.batch / c->train.parts;
    d->planes = d->modality == XKD_VIDEO ? 3 * s.T : 1; /* a clip is `planes` pictures of height x width */
    d->height = s.H;
    d->width = s.W;
    d->clip_floats = d->planes * s.H * s.W;
    XKD_TRY(xkd_alloc(cx, &d->targets, d->batch * d->classes.count, sizeof *d->targets));
    XKD_TRY(xkd_alloc(cx, &d->label, d->batch, sizeof *d->label));
    if (!c->run.overfit || d->plan.look) goto fail;
    XKD_TRY(xkd_alloc(cx, &d->first, accumulate * d->batch * d->clip_floats, sizeof *d->first));
    XKD_TRY(xkd_alloc(cx, &d->first_source, accumulate * d->batch, sizeof *d->first_source));
    XKD_TRY(xkd_alloc(cx, &d->first_count, accumulate, sizeof *d->first_count));
fail:
    return status;
}

/* Fewer files than a batch make no step where a smaller last batch is left out: batches then have as many as there are. The
 * configuration that is stored says so, and a run that goes on has the same. */
static void fit_batch(xkd_context *cx, xkd_config *c, xkd_modality m, const xkd_manifest *train, int64_t passes)
{
    xkd_train_config *t = &c->train;
    int64_t files = 0;
    for (int64_t i = 0; i < train->count; i++)
        files += (m == XKD_VIDEO ? train->samples[i].has_video : train->samples[i].has_audio) != 0;
    int64_t clips = files * (passes > 1 ? passes : 1), batch = clips;
    if (!c->data.drop_last || clips >= t->batch) return;
    while (batch > 0 && (batch % t->parts || batch % t->num_node)) batch--;
    if (batch == 0) return; /* the loader says what is wrong */
    xkd_log(cx, XKD_LOG_WARN,
            "%" PRId64 " clips of %" PRId64 " training files do not fill a batch of %" PRId64 ": batches of %" PRId64
            " are taken (dataset.batch_size)",
            clips, files, t->batch, batch);
    t->batch = batch;
    t->batch_size = batch / t->num_node;
}

/* The training split is looked at before the loader starts its threads, for the better message. */
xkd_status xkd_supervised_data_open(xkd_context *cx, xkd_config *c, xkd_modality modality, const xkd_manifest *given,
                                    xkd_dist *dist, bool look, xkd_supervised_data *d)
{
    xkd_status status = XKD_OK;
    xkd_manifest train = {0};
    int64_t most = -1, K;
    *d = (xkd_supervised_data){.modality = modality, .dist = dist};
    XKD_TRY(check_split(cx, c->data.path, c->data.follow_links, given, c->data.split, &train));
    XKD_TRY(xkd_training_views_new(cx, c, modality, &d->views, &d->plan));
    fit_batch(cx, c, modality, &train, d->plan.passes);
    d->plan.manifest = given;
    d->plan.look = look;
    d->plan.rank = xkd_dist_rank(dist);
    d->plan.world = xkd_dist_size(dist);
    d->plan.dist = given ? NULL : dist; /* ranks that were given a list have it already */
    XKD_TRY(xkd_loader_new_planned(cx, &c->data, &c->train, &d->plan, &d->loader));
    d->train = xkd_loader_manifest(d->loader);
    /* The first file decides; check_labels holds the others to it. */
    d->multi_label = xkd_sample_label_count(&d->train->samples[0]) > 0;
    XKD_TRY(check_settings(cx, c, d->multi_label));
    XKD_TRY(check_labels(cx, d->train, c->data.path, d->multi_label, &most));
    XKD_TRY(count_classes(cx, c, d->train, most, &K));
    XKD_TRY(xkd_class_names_of(cx, d->train, K, &d->classes));
    XKD_TRY(check_empty_classes(cx, d, c->data.path));
    XKD_TRY(open_test(cx, c, given, d));
    XKD_TRY(make_memory(cx, c, d));
fail:
    xkd_manifest_free(&train);
    return status;
}

void xkd_supervised_data_free(xkd_supervised_data *d)
{
    xkd_loader_free(d->loader);
    xkd_manifest_free(&d->test);
    xkd_class_names_free(&d->classes);
    xkd_free(d->inputs);
    xkd_free(d->targets);
    xkd_free(d->label);
    xkd_free(d->first);
    xkd_free(d->first_source);
    xkd_free(d->first_count);
    *d = (xkd_supervised_data){0};
}

/* ---- batches ---- */

/* Targets of the files whose clips these are: an unreadable file's place was filled with another's clip and label. */
static void make_targets(const xkd_config *c, xkd_supervised_data *d, const int64_t *source, int64_t count)
{
    int64_t K = d->classes.count;
    for (int64_t b = 0; b < count; b++) {
        const xkd_sample *s = &d->train->samples[source[b]];
        d->label[b] = (int32_t)s->label;
        /* Rows of an earlier batch are cleared: several labels are set one by one. */
        for (int64_t k = 0; d->multi_label && k < K; k++) d->targets[b * K + k] = 0;
        for (int64_t k = 0; k < xkd_sample_label_count(s); k++) d->targets[b * K + s->more->labels[k]] = 1;
    }
    if (!d->multi_label) xkd_smooth_targets(d->label, count, K, c->eval.label_smoothing, d->targets);
}

static void mix(const xkd_config *c, xkd_supervised_data *d, const xkd_batch *batch, float *clips)
{
    const xkd_eval_config *e = &c->eval;
    /* The number of the micro-batch within the epoch is the key of the draws: a resumed run mixes alike. */
    const xkd_mix how = {e->mixup, e->cutmix, e->mix_probability, e->switch_probability, e->label_smoothing};
    int64_t part = xkd_dist_rank(d->dist) * c->train.accumulate + batch->micro;
    uint32_t number = (uint32_t)(batch->step * c->train.parts + part);
    xkd_rng rng = xkd_rng_make(c->train.seed, batch->epoch, number, XKD_STREAM_MIX, XKD_RNG_EVAL);
    xkd_mix_batch(&rng, &how, clips, batch->count, d->planes, d->height, d->width, d->targets, d->classes.count);
}

/* The first step's micro-batches are kept, and handed out again and again. */
static xkd_status next_overfit(const xkd_config *c, xkd_supervised_data *d, float **clips, int64_t *count)
{
    xkd_status status = XKD_OK;
    int64_t at = d->shown++ % c->train.accumulate, size = d->batch * d->clip_floats;
    float *kept = d->first + at * size;
    /* `at` goes around; the copy is made on the first round only. */
    if (d->copied == at && d->shown <= c->train.accumulate) {
        const xkd_batch *batch;
        XKD_TRY(xkd_loader_next(d->loader, &batch));
        const float *from = d->modality == XKD_VIDEO ? batch->frames[0] : batch->specs[0];
        memcpy(kept, from, (size_t)(batch->count * d->clip_floats) * sizeof *kept);
        memcpy(d->first_source + at * d->batch, batch->source, (size_t)batch->count * sizeof *batch->source);
        d->first_count[at] = batch->count;
        d->copied++;
    }
    *count = d->first_count[at];
    /* Targets are made anew each time, for the buffer is one micro-batch's. No mixing: the point is to fit these
     * clips. */
    make_targets(c, d, d->first_source + at * d->batch, *count);
    *clips = kept;
fail:
    return status;
}

xkd_status xkd_supervised_next(const xkd_config *c, xkd_supervised_data *d, float **clips, int64_t *count,
                               double *wait_seconds)
{
    xkd_status status = XKD_OK;
    const xkd_batch *batch;
    *wait_seconds = 0;
    if (c->run.overfit) return next_overfit(c, d, clips, count);
    XKD_TRY(xkd_loader_next(d->loader, &batch));
    *clips = d->modality == XKD_VIDEO ? batch->frames[0] : batch->specs[0];
    *count = batch->count;
    *wait_seconds = batch->wait_seconds;
    make_targets(c, d, batch->source, *count);
    /* Mixing changes clips and targets in place, so it is the loader's own memory that is written. */
    mix(c, d, batch, *clips);
fail:
    return status;
}
