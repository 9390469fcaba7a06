/* Training and judging a linear SVM on two sets of clips. Nothing here knows where the clips are from. */
#include "eval/judge/svm_run.h"

#include <inttypes.h>
#include <math.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "report/progress.h"

/* Cross-validation is not in released files, and 3 folds keep it at three more trainings. */
xkd_svm_settings xkd_svm_settings_of(const xkd_config *config)
{
    xkd_svm_options o = xkd_svm_defaults();
    xkd_svm_settings s = {.iterations = config->eval.svm_iterations,
                          .folds = 3,
                          .threads = config->threads ? config->threads : xkd_processor_count(),
                          .tolerance = o.tolerance,
                          .scale = config->eval.svm_scale};
    /* The list in the configuration is limited to as many as fit. */
    for (; s.costs < config->eval.cost.count; s.costs++) s.cost[s.costs] = config->eval.cost.value[s.costs];
    return s;
}

void xkd_svm_verdict_free(xkd_svm_verdict *v)
{
    xkd_free(v->scores);
    *v = (xkd_svm_verdict){0};
}

/* Without a cross-validation there is no honest choice, and the best has to stand in. */
const xkd_svm_row *xkd_svm_chosen(const xkd_svm_verdict *v)
{
    return &v->rows[v->honest >= 0 ? v->honest : v->best];
}

/* ---- training ---- */

/* What the callbacks know. */
typedef struct {
    const xkd_listener *listener;
    double start;
} hearing;

/* `done` counts trainings, of which a fold is one. */
static void progress(void *user, int64_t done, int64_t total)
{
    const hearing *h = user;
    const xkd_listener *l = h->listener;
    if (l && l->progress) l->progress(l->user, "svm", h->start, done, total);
}

static int stop(void *user)
{
    const hearing *h = user;
    return h->listener && h->listener->stop ? h->listener->stop(h->listener->user) : 0;
}

/* Tells before it starts what it will take. */
static xkd_status say_cost(xkd_context *cx, const xkd_listener *listener, xkd_pool *pool, const xkd_clip_set *train,
                           const xkd_svm_settings *s)
{
    xkd_svm_cost cost;
    char time[32], memory[32];
    xkd_status status = xkd_svm_estimate(cx, pool, train->n, train->D, train->K, &cost);
    if (status != XKD_OK) return status;
    /* A fold of N trains on (N-1)/N of the samples. The costs of all C, each once on everything and once without each
     * fold. */
    double trainings = (double)s->costs * (1 + (s->folds ? (double)(s->folds - 1) : 0));
    xkd_format_duration(time, sizeof time, cost.seconds * trainings);
    xkd_format_count(memory, sizeof memory, cost.bytes, "B");
    xkd_say(listener,
            "%" PRId64 " clips of %" PRId64 " videos, %" PRId64 " features, %" PRId64 " classes: up to about %s and %s",
            train->n, train->videos, train->D, train->K, time, memory);
    return XKD_OK;
}

/* Said with the class's name, and before anything is computed. */
static xkd_status check_classes(xkd_context *cx, const xkd_clip_set *train, const xkd_manifest *files)
{
    for (int64_t v = 0; v < train->videos; v++)
        if (train->truth || train->video_label[v] != train->video_label[0]) return XKD_OK;
    if (!train->videos)
        return xkd_fail(cx, XKD_ERR_DATA, "svm: the training set has no video (--train names its split)");
    int64_t k = train->video_label[0];
    return xkd_fail(cx, XKD_ERR_DATA,
                    "svm: all %" PRId64 " videos of the training set are of class %" PRId64
                    " (%s), and an SVM tells classes apart (add videos of another, or choose a split with --train)",
                    train->videos, k, k < files->class_count ? files->classes[k] : "without a name");
}

/* Changes the sets where scaling is asked for; both are the caller's. */
xkd_status xkd_svm_run(xkd_context *cx, xkd_clip_set *train, xkd_clip_set *test, const xkd_manifest *files,
                       const xkd_svm_settings *s, const xkd_listener *listener, xkd_svm_verdict *out)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    hearing hears = {listener, xkd_now()};
    xkd_svm_protocol p = {.cost = s->cost,
                          .costs = s->costs,
                          .folds = (int)s->folds,
                          .svm = xkd_svm_defaults(),
                          .progress = progress,
                          .stop = stop,
                          .user = &hears};
    p.svm.tolerance = s->tolerance;
    p.svm.iterations = s->iterations;
    p.svm.seed = (uint64_t)s->seed;
    *out = (xkd_svm_verdict){.costs = s->costs,
                             .multi = test->truth != NULL,
                             .train_lacking = train->lacking,
                             .test_lacking = test->lacking,
                             .train_damaged = train->damaged,
                             .test_damaged = test->damaged,
                             .train_videos = train->videos,
                             .train_clips = train->n,
                             .test_videos = test->videos,
                             .test_clips = test->n,
                             .classes = train->K};
    XKD_TRY(check_classes(cx, train, files));
    if (s->scale) XKD_TRY(xkd_clip_sets_scale(cx, train, test)); /* before the memory of the training is taken */
    XKD_TRY(xkd_alloc(cx, &out->scores, test->videos * train->K, sizeof *out->scores));
    XKD_TRY(xkd_pool_new(cx, &pool, (int)s->threads));
    XKD_TRY(say_cost(cx, listener, pool, train, s));
    XKD_TRY(xkd_svm_evaluate(cx, pool, train, test, &p, out->rows, &out->best, &out->honest, out->scores));
    /* A bar goes before anything else is said. */
    if (listener && listener->progress) listener->progress(listener->user, NULL, 0, 0, 0);
    /* Of the chosen C's scores, which xkd_svm_evaluate has left in `scores`. */
    XKD_TRY(xkd_video_interval(cx, pool, test, out->scores, p.svm.seed, &out->interval));
fail:
    xkd_pool_free(pool);
    return status;
}

/* ---- what came out ---- */

/* NAN is null: a figure that does not exist for this kind of labels. */
static void number(xkd_text *out, const char *key, double value)
{
    xkd_text_printf(out, ", \"%s\": ", key);
    if (isnan(value))
        xkd_text_puts(out, "null");
    else
        xkd_text_printf(out, "%.4f", value);
}

/* Figures of one kind of data set alone stand in a row; the other's would be null throughout. */
static void row_json(xkd_text *out, const xkd_svm_verdict *v, const xkd_svm_row *r, bool whole)
{
    xkd_text_printf(out, "{\"C\": %g", r->C);
    if (v->multi) {
        number(out, "map", r->test.map);
    } else {
        number(out, "top1", r->test.top1);
        number(out, "top5", r->test.top5);
        if (whole) number(out, "clip_top1", r->test.clip_top1);
    }
    if (whole) {
        number(out, "cross_validated", r->cross_validated);
        xkd_text_printf(out, ", \"unconverged\": %" PRId64, r->unconverged);
    }
    xkd_text_puts(out, "}");
}

/* Without a newline: other documents hold it. */
void xkd_svm_json(xkd_text *out, const xkd_svm_verdict *v)
{
    xkd_text_printf(out,
                    "{\"train_videos\": %" PRId64 ", \"train_clips\": %" PRId64 ", \"test_videos\": %" PRId64
                    ", \"test_clips\": %" PRId64 ", \"train_without_features\": %" PRId64
                    ", \"test_without_features\": %" PRId64 ", \"train_damaged_clips\": %" PRId64
                    ", \"test_damaged_clips\": %" PRId64 ", \"classes\": %" PRId64 ", \"rows\": [",
                    v->train_videos, v->train_clips, v->test_videos, v->test_clips, v->train_lacking, v->test_lacking,
                    v->train_damaged, v->test_damaged, v->classes);
    /* Rows by C; `best` and `honest` repeat theirs without what is only of interest beside others. */
    for (int64_t c = 0; c < v->costs; c++) {
        if (c) xkd_text_puts(out, ", ");
        row_json(out, v, &v->rows[c], true);
    }
    xkd_text_puts(out, "], \"best\": ");
    row_json(out, v, &v->rows[v->best], false);
    if (v->honest >= 0) {
        xkd_text_puts(out, ", \"honest\": ");
        row_json(out, v, &v->rows[v->honest], false);
    }
    xkd_text_printf(out, ", \"interval95\": [%.4f, %.4f]}", v->interval.low, v->interval.high);
}
