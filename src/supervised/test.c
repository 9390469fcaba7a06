/* Tests of a run in training, and tests.jsonl, their log. A test scores every file by its clips; the log holds one
 * line a test, from which a resumed run knows its best. */
#include "supervised/test.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "report/progress.h"

enum { BOOTSTRAPS = 2000, PRECISION_DRAWS = 1000 };

/* ---- the log ---- */

/* Figures by their key; the two counts come first. */
static double *figure_of(xkd_test_scores *s, int i)
{
    double *const fields[] = {&s->clip_top1, &s->clip_top5, &s->top1, &s->top5, &s->map};
    return fields[i];
}

static const char *const figure_keys[] = {"clip_top1", "clip_top5", "top1", "top5", "map"};
enum { FIGURES = 5 };

/* The figure that decides which test is the best. */
static double merit(const xkd_test_scores *s)
{
    return isnan(s->map) ? s->top1 : s->map;
}

/* Strictly better: of equal tests the earlier one is the best, as less training is. */
static xkd_status note(xkd_test_log *log, const xkd_test_scores *s)
{
    xkd_status status = xkd_reserve(log->cx, &log->all, log->count, &log->capacity, sizeof *log->all);
    if (status != XKD_OK) return status;
    log->all[log->count++] = *s;
    log->last = *s;
    if (log->best.epoch == 0 || merit(s) > merit(&log->best)) log->best = *s;
    return XKD_OK;
}

/* False for a line that is none of ours, such as one that a crash cut off. */
static bool parse_line(const char *line, size_t length, xkd_test_scores *out)
{
    json_t *o = json_loadb(line, length, 0, NULL);
    /* A line without a step places nothing. */
    bool good = json_is_object(o) && json_is_integer(json_object_get(o, "step"));
    if (good) {
        out->step = json_integer_value(json_object_get(o, "step"));
        out->epoch = json_integer_value(json_object_get(o, "epoch"));
        for (int i = 0; i < FIGURES; i++) {
            const json_t *value = json_object_get(o, figure_keys[i]);
            /* Null: the figure does not exist for these labels. */
            *figure_of(out, i) = json_is_number(value) ? json_number_value(value) : NAN;
        }
    }
    json_decref(o);
    return good;
}

xkd_status xkd_test_log_open(xkd_context *cx, const char *folder, int64_t step, xkd_test_log *out)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    int64_t size = 0;
    xkd_text kept = xkd_text_make(cx);
    *out = (xkd_test_log){.cx = cx, .fd = -1};
    XKD_TRY(xkd_join_path(cx, &out->path, folder, "tests.jsonl"));
    /* step < 0: a new run. Its log is written empty, so nothing of a former run in the folder is taken for its own. */
    if (step >= 0 && xkd_path_exists(out->path))
        XKD_TRY(xkd_read_file(cx, out->path, (int64_t)64 << 20, XKD_ERR_DATA, &text, &size));
    /* Only whole lines: what stands behind the last line feed was cut off by a crash. */
    for (char *line = text, *end; line && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        xkd_test_scores s;
        /* Tests behind the checkpoint that the run goes on from will be made again. */
        if (!parse_line(line, (size_t)(end - line), &s) || s.step > step) continue;
        XKD_TRY(note(out, &s));
        xkd_text_add(&kept, line, end + 1 - line);
    }
    XKD_TRY(kept.status);
    /* The shortened log replaces the file at once; lines are appended to it from then on. */
    XKD_TRY(xkd_write_file(cx, out->path, kept.data, kept.size));
    XKD_TRY(xkd_append_open(cx, out->path, &out->fd));
fail:
    xkd_text_free(&kept);
    xkd_free(text);
    return status;
}

void xkd_test_log_close(xkd_test_log *log)
{
    if (log->fd >= 0) close(log->fd);
    xkd_free(log->path);
    xkd_free(log->all);
    *log = (xkd_test_log){.fd = -1};
}

xkd_status xkd_test_log_share(xkd_test_log *log, xkd_dist *dist)
{
    xkd_status status = XKD_OK;
    int64_t count = log->count;
    xkd_test_scores *all = NULL;
    if (!dist) return XKD_OK;
    XKD_TRY(xkd_dist_broadcast(dist, &count, sizeof count));
    XKD_TRY(xkd_alloc(log->cx, &all, count, sizeof *all));
    if (xkd_dist_rank(dist) == 0 && count) memcpy(all, log->all, (size_t)count * sizeof *all);
    XKD_TRY(xkd_dist_broadcast(dist, all, count * (int64_t)sizeof *all));
    for (int64_t i = 0; i < count && xkd_dist_rank(dist) > 0; i++) XKD_TRY(note(log, &all[i]));
fail:
    xkd_free(all);
    return status;
}

/* One write a line, so a crash leaves a torn last line at most. */
static xkd_status append(xkd_test_log *log, xkd_test_scores *s)
{
    xkd_text line = xkd_text_make(log->cx);
    if (log->fd < 0) return XKD_OK;
    xkd_text_printf(&line, "{\"step\": %" PRId64 ", \"epoch\": %" PRId64, s->step, s->epoch);
    for (int i = 0; i < FIGURES; i++) {
        xkd_text_printf(&line, ", \"%s\": ", figure_keys[i]);
        xkd_text_json_number(&line, *figure_of(s, i));
    }
    xkd_text_puts(&line, "}\n");
    xkd_status status = line.status;
    if (status == XKD_OK) status = xkd_append(log->cx, log->fd, log->path, line.data, line.size);
    xkd_text_free(&line);
    return status;
}

/* ---- a test ---- */

typedef struct {
    const xkd_tester *t;
    xkd_supervised_result *result;
    int64_t clips, clip_hits, clip_hits5, tested; /* tested: clips of any kind of labels */
    int64_t *scored; /* [files of this rank] which of the test files each row of scores is of; owned */
    double started;
} work;

/* Every rank takes every size-th file; its `input`-th is this one. */
static int64_t file_of(const xkd_tester *t, int64_t input)
{
    return xkd_dist_rank(t->dist) + input * xkd_dist_size(t->dist);
}

/* `scores` [clips,K] of one file. A clip is judged by itself here, before the ensemble. */
static void count_clips(work *w, const float *scores, int64_t clips, int64_t label)
{
    int64_t K = w->result->classes;
    for (int64_t i = 0; i < clips; i++) {
        int32_t own = (int32_t)label;
        int64_t rank;
        xkd_ranks(scores + i * K, &own, 1, K, &rank);
        w->clip_hits += rank < 1;
        w->clip_hits5 += rank < 5;
    }
    w->clips += clips;
}

/* The row of scores behind the last one is of this file. */
static void add_row(work *w, int64_t number)
{
    xkd_supervised_result *r = w->result;
    const xkd_sample *s = &w->t->data->test.samples[number];
    r->label[r->scored] = (int32_t)s->label; /* -1 where there are several, and then not used */
    if (r->truth) xkd_truth_of(s, r->classes, r->truth + r->scored * r->classes);
    w->scored[r->scored++] = number;
}

/* An unreadable file is named and counted, and is in no figure. */
static xkd_status file_done(void *user, const xkd_embedded *file)
{
    work *w = user;
    xkd_supervised_result *r = w->result;
    const xkd_tester *t = w->t;
    int64_t number = file_of(t, file->input);
    const xkd_sample *s = &t->data->test.samples[number];
    xkd_modality m = t->data->modality;
    int64_t K = r->classes;
    char line[300];
    if (t->run->progress) {
        /* In the caller's thread, like all of the test but the decoding. */
        xkd_progress_line(line, sizeof line, "test", 0, number + 1, t->data->test.count, xkd_now() - w->started, "");
        t->run->progress(t->run->user, line);
    }
    if (file->result.fault != XKD_FAULT_NONE || file->count[m] == 0) {
        r->unreadable++;
        /* Not an error: the budget is checked when all files are through. */
        xkd_log(t->cx, XKD_LOG_WARN, "%s: %s: %s: left out of the test", s->path,
                xkd_media_fault_name(file->result.fault), file->result.message);
        return XKD_OK;
    }
    /* The file's clips become row `scored` of the result; unreadable files leave no gap. */
    const float *scores = file->feature[m];
    w->tested += file->count[m];
    r->damaged += file->damaged;
    xkd_ensemble_scores(t->net->options.loss, t->config->eval.ensemble, scores, file->count[m], K,
                        r->scores + r->scored * K);
    if (!t->data->multi_label) count_clips(w, scores, file->count[m], s->label);
    add_row(w, number);
    return XKD_OK;
}

/* The test is made again from its start when the run goes on. What was scored is dropped, for a part of the files is
 * no test. */
static int stop(void *user)
{
    const work *w = user;
    const xkd_run_options *o = w->t->run;
    return o->stop_signal ? o->stop_signal(o->user) : 0;
}

static xkd_status make_room(work *w)
{
    xkd_status status = XKD_OK;
    const xkd_tester *t = w->t;
    xkd_supervised_result *r = w->result;
    int64_t K = t->data->classes.count, n = t->data->test.count;
    r->classes = K;
    r->scored = r->unreadable = r->damaged = r->empty_classes = 0;
    /* A later test of the same run has the same sizes, so the memory stays. */
    XKD_TRY(xkd_alloc(t->cx, &w->scored, n, sizeof *w->scored));
    if (!r->scores) XKD_TRY(xkd_alloc(t->cx, &r->scores, n * K, sizeof *r->scores));
    if (!r->label) XKD_TRY(xkd_alloc(t->cx, &r->label, n, sizeof *r->label));
    /* [files,K], this test's alone. */
    if (t->data->multi_label && !r->truth) XKD_TRY(xkd_alloc(t->cx, &r->truth, n * K, 1));
    if (r->names) goto fail;
    XKD_TRY(xkd_alloc(t->cx, &r->names, K, sizeof *r->names));
    for (int64_t k = 0; k < K; k++) XKD_TRY(xkd_copy_string(t->cx, &r->names[k], t->data->classes.items[k]));
fail:
    return status;
}

/* This rank's files. */
static xkd_status classify(work *w, const xkd_embed_sink *sink)
{
    xkd_status status = XKD_OK;
    const xkd_tester *t = w->t;
    xkd_embed_input *inputs = NULL;
    int64_t count = 0;
    if (!t->dist) return xkd_classify_files(t->cx, t->net, t->config, t->data->inputs, t->data->test.count, sink);
    XKD_TRY(xkd_alloc(t->cx, &inputs, t->data->test.count, sizeof *inputs));
    for (int64_t number; (number = file_of(t, count)) < t->data->test.count; count++)
        inputs[count] = t->data->inputs[number];
    if (count) XKD_TRY(xkd_classify_files(t->cx, t->net, t->config, inputs, count, sink));
fail:
    xkd_free(inputs);
    return status;
}

/* Rows of all ranks in the order of files: number by number, from whichever rank has it. */
static void merge(work *w, const float *scores, const int64_t *scored, const int64_t *rows)
{
    const xkd_tester *t = w->t;
    xkd_supervised_result *r = w->result;
    int64_t size = xkd_dist_size(t->dist), K = r->classes, at[XKD_MOST_RANKS], end[XKD_MOST_RANKS], sum = 0;
    for (int64_t k = 0; k < size; sum += rows[k++]) {
        at[k] = sum;
        end[k] = sum + rows[k];
    }
    r->scored = 0;
    for (int64_t number = 0; number < t->data->test.count; number++) {
        int64_t k = number % size;
        if (at[k] == end[k] || scored[at[k]] != number) continue; /* it could not be read */
        memcpy(r->scores + r->scored * K, scores + at[k]++ * K, (size_t)K * sizeof *scores);
        add_row(w, number);
    }
}

/* What all ranks have, on every rank. A signal to any of them ends the test of all: *signal. */
static xkd_status join(work *w, int *signal)
{
    xkd_status status = XKD_OK;
    xkd_dist *dist = w->t->dist;
    xkd_supervised_result *r = w->result;
    enum { CLIPS, HITS, HITS5, TESTED, UNREADABLE, DAMAGED, SIGNAL, COUNTS };
    int64_t mine[COUNTS] = {w->clips, w->clip_hits, w->clip_hits5, w->tested, r->unreadable, r->damaged, *signal};
    int64_t sums[COUNTS] = {0};
    int64_t *all = NULL, *rows = NULL, *scored = NULL, K = r->classes;
    float *scores = NULL;
    if (!dist) return XKD_OK;
    XKD_TRY(xkd_alloc(w->t->cx, &all, (int64_t)COUNTS * xkd_dist_size(dist), sizeof *all));
    XKD_TRY(xkd_alloc(w->t->cx, &rows, xkd_dist_size(dist), sizeof *rows));
    XKD_TRY(xkd_dist_gather(dist, all, mine, sizeof mine));
    for (int64_t i = 0; i < (int64_t)COUNTS * xkd_dist_size(dist); i++) {
        sums[i % COUNTS] += all[i];
        if (i % COUNTS == SIGNAL && all[i] > *signal) *signal = (int)all[i];
    }
    if (*signal) goto fail;
    w->clips = sums[CLIPS];
    w->clip_hits = sums[HITS];
    w->clip_hits5 = sums[HITS5];
    w->tested = sums[TESTED];
    r->unreadable = sums[UNREADABLE];
    r->damaged = sums[DAMAGED];
    XKD_TRY(xkd_dist_gather_sized(dist, (void **)&scores, rows, r->scores, r->scored * K * (int64_t)sizeof *scores));
    XKD_TRY(xkd_dist_gather_sized(dist, (void **)&scored, rows, w->scored, r->scored * (int64_t)sizeof *scored));
    for (int k = 0; k < xkd_dist_size(dist); k++) rows[k] /= (int64_t)sizeof *scored;
    merge(w, scores, scored, rows);
fail:
    xkd_free(all);
    xkd_free(rows);
    xkd_free(scored);
    xkd_free(scores);
    return status;
}

/* Above the budget the figure would be of other files than the user thinks. */
static xkd_status check_budget(const work *w)
{
    const xkd_tester *t = w->t;
    const xkd_supervised_result *r = w->result;
    double most = t->config->data.max_bad_fraction, limit = most * (double)t->data->test.count;
    if (r->scored > 0 && (double)r->unreadable <= limit && (double)r->damaged > most * (double)w->tested)
        return xkd_fail(t->cx, XKD_ERR_DATA,
                        "%" PRId64 " of %" PRId64 " test clips are damaged beyond data.max_clip_damage, more than "
                        "data.max_bad_fraction allows: repair the set and --resume, or raise one of both",
                        r->damaged, w->tested);
    if (r->scored > 0 && (double)r->unreadable <= limit) return XKD_OK;
    /* The run stays where it was: with repaired files the test is made again. */
    return xkd_fail(t->cx, XKD_ERR_DATA,
                    "%" PRId64 " of %" PRId64
                    " test files cannot be read, more than data.max_bad_fraction allows: repair the "
                    "set (`xkd data check`) and --resume",
                    r->unreadable, t->data->test.count);
}

/* Drawing whole score tables anew takes seconds for large sets, so it is done for the figure that counts alone: that of
 * the last epoch. */
static xkd_status precision_interval(work *w)
{
    const xkd_tester *t = w->t;
    xkd_supervised_result *r = w->result;
    xkd_pool *pool = NULL;
    if (t->epoch != t->config->train.epochs) return XKD_OK;
    const xkd_multi_scores scores = {r->scores, r->truth, r->scored, r->classes};
    xkd_status status = xkd_pool_new(t->cx, &pool, (int)t->config->threads);
    if (status == XKD_OK)
        status =
            xkd_bootstrap_precision(t->cx, pool, &scores, PRECISION_DRAWS, 0.95, t->config->train.seed, &r->interval);
    xkd_pool_free(pool);
    return status;
}

/* Figures in percent. */
static xkd_status measure(work *w, xkd_test_scores *s)
{
    xkd_status status = XKD_OK;
    const xkd_tester *t = w->t;
    xkd_supervised_result *r = w->result;
    int64_t *rank = NULL, n = r->scored;
    double *hit = NULL;
    /* NAN stands for figures that these labels do not have. */
    *s = (xkd_test_scores){t->epoch, t->step, NAN, NAN, NAN, NAN, NAN};
    if (t->data->multi_label) {
        XKD_TRY(
            xkd_mean_average_precision(t->cx, r->scores, r->truth, n, r->classes, NULL, &s->map, &r->empty_classes));
        s->map *= 100;
        XKD_TRY(precision_interval(w));
        goto fail;
    }
    XKD_TRY(xkd_alloc(t->cx, &rank, n, sizeof *rank));
    XKD_TRY(xkd_alloc(t->cx, &hit, n, sizeof *hit));
    xkd_ranks(r->scores, r->label, n, r->classes, rank);
    s->top1 = xkd_top_k(rank, n, 1);
    s->top5 = xkd_top_k(rank, n, 5);
    s->clip_top1 = 100 * (double)w->clip_hits / (double)w->clips;
    s->clip_top5 = 100 * (double)w->clip_hits5 / (double)w->clips;
    for (int64_t i = 0; i < n; i++) hit[i] = rank[i] == 0 ? 100 : 0;
    /* Seeded by the run: a test that is made again has the same interval. */
    XKD_TRY(xkd_bootstrap(t->cx, hit, n, BOOTSTRAPS, 0.95, t->config->train.seed, &r->interval));
fail:
    xkd_free(rank);
    xkd_free(hit);
    return status;
}

/* TensorBoard leaves out the figures that do not exist. */
static xkd_status show(const xkd_tester *t, xkd_test_scores *s)
{
    double values[FIGURES];
    for (int f = 0; f < FIGURES; f++) values[f] = *figure_of(s, f);
    return xkd_metrics_scalars(t->metrics, s->step, "test", figure_keys, values, FIGURES);
}

xkd_status xkd_supervised_test(const xkd_tester *t, xkd_test_log *log, xkd_supervised_result *result, bool *best)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = t->cx;
    work w = {.t = t, .result = result, .started = xkd_now()};
    const xkd_embed_sink sink = {&w, file_done, stop};
    xkd_test_scores s;
    int signal = 0;
    *best = result->agreed = false;
    XKD_TRY(make_room(&w));
    status = classify(&w, &sink);
    /* The embedder knows of `stop` and no more; which signal it was decides the code, as at a training step. */
    if (status == XKD_ERR_INTERRUPTED) {
        signal = stop(&w);
        xkd_clear_error(cx);
        status = XKD_OK;
    }
    XKD_TRY(status);
    XKD_TRY(join(&w, &signal));
    result->agreed = true;
    if (signal)
        XKD_FAIL(signal == SIGINT ? XKD_ERR_INTERRUPTED : XKD_ERR_PREEMPTED,
                 "stopped by signal %d during the test after step %" PRId64 "; the run is saved: --resume goes on",
                 signal, t->step);
    XKD_TRY(check_budget(&w));
    XKD_TRY(measure(&w, &s));
    XKD_TRY(append(log, &s));
    XKD_TRY(note(log, &s));
    XKD_TRY(show(t, &s));
    *best = log->best.step == s.step; /* log->best was just updated by `note` */
fail:
    xkd_free(w.scored);
    if (status != XKD_OK) { /* some files' scores are no test */
        xkd_free(result->scores);
        xkd_free(result->label);
        xkd_free(result->truth);
        result->scores = NULL;
        result->label = NULL;
        result->truth = NULL;
        result->scored = 0;
    }
    return status;
}
