/* One function a task, from a fold that has been opened and checked to its figures; figures of unlike tasks end in the same
 * struct, so that tables need not know them. */
#include "eval_tasks.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "config_args.h"
#include "report/progress.h"
#include "svm_args.h"
#include "supervised/train.h"

enum { MOST_FOLDS = 16 }; /* ESC50 has five, the most of all */

/* Files of one split in the manifest: what the figures should be made of. */
static int64_t count_split(const xkd_manifest *m, const char *split)
{
    int64_t count = 0;
    for (int64_t i = 0; i < m->count; i++) count += strcmp(m->samples[i].split, split) == 0;
    return count;
}

/* ---- linear SVM ---- */

/* Borrows the fold's models, manifest and folder. */
static xkd_svm_videos videos_of(struct eval_fold *f)
{
    return (xkd_svm_videos){.models = &f->models,
                            .manifest = &f->manifest,
                            .train = f->models.config.data.split,
                            .test = f->models.config.eval.test_split,
                            .draws = f->draws,
                            .dist = f->dist,
                            .folder = f->folder};
}

static xkd_figures figures_of(const xkd_svm_row *r) /* C and epoch share the field `at` */
{
    return (xkd_figures){
        .top1 = r->test.top1, .top5 = r->test.top5, .clip_top1 = r->test.clip_top1, .map = r->test.map, .at = r->C};
}

/* Folders of the other folds, which have the same clips of a training file (draws.h). */
static xkd_status list_donors(xkd_context *cx, const struct eval_fold *f, char *donors[MOST_FOLDS], int64_t *count)
{
    xkd_status status = XKD_OK;
    char name[40];
    for (int64_t k = 1; f->out && f->fold && k <= f->benchmark->folds && *count < MOST_FOLDS; k++) {
        if (k == f->fold) continue;
        snprintf(name, sizeof name, "fold-%" PRId64, k);
        XKD_TRY(xkd_join_path(cx, &donors[*count], f->out, name));
        ++*count;
    }
fail:
    return status;
}

/* Features stay in the fold's folder; the SVM itself is quick beside them and is not kept. What the split lists and the
 * sets lack could not be read. */
static xkd_status run_svm(struct cli *cli, struct eval_fold *f, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    xkd_svm_videos videos = videos_of(f);
    char *donors[MOST_FOLDS];
    xkd_feature_choice choice = {.normalise = f->models.config.eval.l2_norm};
    xkd_svm_settings settings = xkd_svm_settings_of(&f->models.config);
    xkd_feature_sets sets = {0};
    xkd_svm_verdict verdict = {0};
    const xkd_listener listener = cli_listener(cli);
    /* The run's seed also orders the SVM's samples, so one key repeats everything. */
    settings.seed = (int64_t)f->models.config.train.seed;
    videos.donors = donors;
    XKD_TRY(list_donors(cli->cx, f, donors, &videos.donor_count));
    XKD_TRY(svm_embed_videos(cli, &videos, &choice, &sets));
    if (xkd_dist_rank(f->dist) > 0) goto fail; /* the rest is rank 0's */
    XKD_TRY(xkd_svm_run(cli->cx, &sets.train_set, &sets.test_set, &sets.train.files, &settings, &listener, &verdict));
    /* xkd_svm_chosen: the honest row where there was a cross-validation, else the best. */
    out->honest = figures_of(xkd_svm_chosen(&verdict));
    out->best = figures_of(&verdict.rows[verdict.best]);
    /* A result has one field for the interval, whichever figure it is of. */
    out->interval[0] = verdict.interval.low;
    out->interval[1] = verdict.interval.high;
    /* Files that the split lists minus videos that came through. */
    out->unreadable[0] = out->files[0] - verdict.train_videos;
    out->unreadable[1] = out->files[1] - verdict.test_videos;
    out->damaged[0] = verdict.train_damaged;
    out->damaged[1] = verdict.test_damaged;
fail:
    for (int64_t i = 0; i < videos.donor_count; i++) xkd_free(donors[i]);
    xkd_svm_verdict_free(&verdict);
    xkd_feature_sets_free(&sets);
    return status;
}

static xkd_status plan_svm(struct cli *cli, struct eval_fold *f, xkd_text *out)
{
    xkd_svm_videos videos = videos_of(f);
    xkd_svm_plan plan;
    char time[32], memory[32];
    /* Only a pass of one clip is run, to time the encoder. */
    xkd_status status = xkd_svm_plan_videos(cli->cx, &videos, &plan);
    if (status != XKD_OK) return status;
    xkd_format_duration(time, sizeof time, plan.seconds);
    xkd_format_count(memory, sizeof memory, plan.bytes, "B");
    xkd_text_printf(out,
                    "%" PRId64 " training files, %" PRId64 " clips; %" PRId64 " test files, %" PRId64
                    " clips; about %s in the encoder, %s for the SVM",
                    plan.files[0], plan.clips[0], plan.files[1], plan.clips[1], time, memory);
    return XKD_OK;
}

/* ---- fine-tuning and the linear classifier ---- */

/* `at` is the epoch that was tested. */
static xkd_figures figures_of_test(const xkd_test_scores *s)
{
    return (xkd_figures){
        .top1 = s->top1, .top5 = s->top5, .clip_top1 = s->clip_top1, .map = s->map, .at = (double)s->epoch};
}

/* What a training of the fold and its plan have in common. The manifest is both sets': splits tell them apart. */
static xkd_supervised_options training_of(const struct eval_fold *f)
{
    return (xkd_supervised_options){.config = &f->config,
                                    .model = f->model,
                                    .train = f->manifest_path,
                                    .test = f->manifest_path,
                                    .heads = f->heads};
}

/* The run has a folder of its own below the fold's; one that was begun goes on to the same bits. */
static xkd_status run_training(struct cli *cli, struct eval_fold *f, xkd_fold_result *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_supervised_result r = {0};
    char *run = NULL, *config = NULL;
    /* The name of the folder is fixed, so a second call finds the run. */
    XKD_TRY(xkd_join_path(cx, &run, f->folder, "run"));
    XKD_TRY(xkd_join_path(cx, &config, run, "config.yaml"));
    xkd_supervised_options o = training_of(f);
    o.out = run;
    o.dist = f->dist;
    bool begun = xkd_path_exists(config);
    XKD_TRY(xkd_dist_broadcast(f->dist, &begun, sizeof begun));
    /* The configuration is the last thing that a start writes. XKD_RUN_FORCE and not NEW: a start that was killed has
     * left a folder without a configuration. */
    o.run = (xkd_run_options){
        .mode = begun ? XKD_RUN_RESUME : XKD_RUN_FORCE, .stop_signal = stop_signal, .progress = progress, .user = cli};
    status = xkd_supervised_train(cx, &o, &r);
    f->agreed = r.agreed;
    XKD_TRY(status);
    /* No figure is made up from an unfinished training; the run stays for the next call. */
    if (!r.finished)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: the training ended at step %" PRId64 " of %" PRId64
                 ", so there is no figure yet: give the command again without run.max_steps",
                 run, r.run.step, r.run.total_steps);
    out->honest = figures_of_test(&r.last);
    out->best = figures_of_test(&r.best);
    out->interval[0] = r.interval.low;
    out->interval[1] = r.interval.high;
    out->unreadable[0] = r.replaced; /* by other files of the class */
    out->unreadable[1] = r.unreadable;
    out->damaged[1] = r.damaged; /* in training such a clip is replaced */
fail:
    xkd_supervised_result_free(&r);
    xkd_free(run);
    xkd_free(config);
    return status;
}

static xkd_status plan_training(struct cli *cli, const struct eval_fold *f, xkd_text *out)
{
    const xkd_config *c = &f->config;
    xkd_supervised_plan p;
    char time[32], memory[32], parameters[32];
    xkd_supervised_options o = training_of(f);
    o.manifest = &f->manifest; /* a plan writes none */
    xkd_status status = xkd_supervised_look(cli->cx, &o, &p);
    if (status != XKD_OK) return status;
    xkd_format_duration(time, sizeof time, p.seconds);
    double bytes = p.state_bytes + p.activation_bytes + p.loader_bytes;
    xkd_format_count(memory, sizeof memory, bytes, "B");
    xkd_format_count(parameters, sizeof parameters, (double)p.trained, "");
    xkd_text_printf(out,
                    "%" PRId64 " training files, %" PRId64 " test files of %" PRId64 " clips; %" PRId64
                    " epochs of %" PRId64 " steps of %" PRId64
                    " clips; %s parameters trained; about %s in training steps (tests come on top), %s",
                    p.train_files, p.test_files, c->eval.test_clips, c->train.epochs, p.steps_per_epoch, p.batch,
                    parameters, time, memory);
    say_memory(cli, bytes, p.available_bytes);
    return XKD_OK;
}

/* ---- whichever it is ---- */

const xkd_config *eval_fold_config(const struct eval_fold *f)
{
    return f->benchmark->task == XKD_BENCHMARK_SVM ? &f->models.config : &f->config;
}

/* The result's frame is the same for all tasks; the task fills in the figures. */
xkd_status eval_fold_run(struct cli *cli, struct eval_fold *f, xkd_fold_result *out)
{
    const xkd_config *c = eval_fold_config(f);
    *out = (xkd_fold_result){
        .fold = f->fold,
        .settings = f->settings,
        .files = {count_split(&f->manifest, c->data.split), count_split(&f->manifest, c->eval.test_split)},
        .imported = f->imported.counts};
    return f->benchmark->task == XKD_BENCHMARK_SVM ? run_svm(cli, f, out) : run_training(cli, f, out);
}

/* One line a fold; a plan costs seconds, the work days. */
xkd_status eval_fold_plan(struct cli *cli, struct eval_fold *f, bool done)
{
    xkd_status status = XKD_OK;
    xkd_text line = xkd_text_make(cli->cx);
    if (f->fold)
        xkd_text_printf(&line, "fold %" PRId64 ": ", f->fold);
    else
        xkd_text_puts(&line, "whole set: ");
    if (done)
        xkd_text_puts(&line, "done already");
    else
        XKD_TRY(f->benchmark->task == XKD_BENCHMARK_SVM ? plan_svm(cli, f, &line) : plan_training(cli, f, &line));
    XKD_TRY(line.status);
    puts(line.data);
fail:
    xkd_text_free(&line);
    return status;
}
