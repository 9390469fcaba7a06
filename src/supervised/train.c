/* The loop of supervised training; start reading at xkd_supervised_train at the end. Its order is that of the
 * pre-training loop: feed, train, advance the position, report, test, perhaps save. */
#include "supervised/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "report/html.h"
#include "report/progress.h"
#include "report/sparkline.h"
#include "train/position.h"
#include "train/ranks.h"
#include "train/schedule.h"
#include "supervised/test.h"

enum { LOSS, LR, WD, TIME, DATA, SAMPLES_PER_SECOND, SKIPPED, COLUMNS }; /* columns of the metrics, in this order */
static const char *const columns[COLUMNS] = {"loss", "lr", "wd", "Time", "Data", "samples_per_second", "skipped"};

/* Everything a run holds while it lasts. */
typedef struct {
    xkd_context *cx;
    const xkd_supervised_options *options; /* the caller's; outlives the run */
    xkd_dist *dist;                        /* of the options */
    bool writes;                           /* rank 0: folder, logs and models are its own */
    bool look;                             /* nothing but a plan: memory for a batch is not taken */
    bool agreed;                           /* the status that ends the run is that of all ranks */
    xkd_config config;                     /* the caller's with what `options` replaces; its strings are the caller's */
    xkd_run_folder folder;
    xkd_supervised_data data;
    xkd_backend *be;
    xkd_finetune net;
    xkd_metrics *metrics;
    xkd_test_log tests; /* tests.jsonl: the figures of all tests of the run */
    xkd_run_position at;
    double samples, testing; /* clips trained on by this rank; seconds spent in tests */
    double *losses;          /* [parts] of the step's micro-batches; owned */
    double values[COLUMNS];
    xkd_sparkline loss;            /* of this call, for the progress line */
    xkd_supervised_result *result; /* the caller's; filled by tests and at the end */
} run;

/* ---- opening ---- */

/* Private copy of the configuration: texts of the options win, views become one. */
static void take_options(run *r, const xkd_supervised_options *o)
{
    xkd_config *c = &r->config;
    *c = *o->config;
    /* The fields are char * for the option table; nothing here writes or frees them. */
    if (o->train) c->data.path = (char *)(uintptr_t)o->train;
    if (o->train_split) c->data.split = (char *)(uintptr_t)o->train_split;
    if (o->test) c->eval.test_path = (char *)(uintptr_t)o->test;
    if (o->test_split) c->eval.test_split = (char *)(uintptr_t)o->test_split;
    if (o->out) c->run.out = (char *)(uintptr_t)o->out;
    if (o->model) c->run.init = (char *)(uintptr_t)o->model;
    /* A clip is one view here, whatever the pre-training that the configuration came from had. */
    c->data.global_views = 1;
    c->data.video_local_views = c->data.audio_local_views = 0;
}

/* Chooses the modality, with its clip duration, and writes it into the configuration, so that a resumed run need not
 * choose again. */
static xkd_status choose_modality(run *r, xkd_modality *m)
{
    xkd_status status = XKD_OK;
    xkd_config *c = &r->config, own = {0};
    bool has[XKD_MODALITIES];
    /* The model is opened twice in all, here for what it has and in make_net for its values: the data, which come
     * between the two, depend on the modality. */
    XKD_TRY(xkd_config_init(r->cx, &own));
    XKD_TRY(xkd_encoder_describe(r->cx, c->run.init, &own, has));
    /* A plain request for one modality is not overruled by what the model has: the encoder's reader refuses it. */
    *m = c->eval.return_video != c->eval.return_audio && !(c->eval.return_video ? has[XKD_VIDEO] : has[XKD_AUDIO])
             ? (c->eval.return_video ? XKD_VIDEO : XKD_AUDIO)
             : xkd_supervised_modality(c, has);
    c->eval.return_video = *m == XKD_VIDEO;
    c->eval.return_audio = *m == XKD_AUDIO;
    XKD_TRY(xkd_config_choose_duration(r->cx, (const bool[]){*m == XKD_VIDEO, *m == XKD_AUDIO}, c));
fail:
    xkd_config_free(&own);
    return status;
}

/* What the command line may leave out, before any file is opened: with the remedy, not only the key. */
static xkd_status check_settings(run *r)
{
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    if (!*c->run.init) return xkd_fail(cx, XKD_ERR_CONFIG, "which model? Name a run folder or a file with an encoder");
    if (!*c->data.path)
        return xkd_fail(cx, XKD_ERR_CONFIG, "which data? Name a manifest ('xkd data import' makes one)");
    if (c->augment == XKD_AUGMENT_GPU)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "run.augment=gpu: this training makes its views on the processors: take "
                        "run.augment=auto or cpu");
    if (c->train.epochs < 1) return xkd_fail(cx, XKD_ERR_CONFIG, "hyperparams.num_epochs: at least 1");
    if (c->train.batch % c->train.parts)
        return xkd_fail(cx, XKD_ERR_CONFIG, "the batch of %" PRId64 " is no multiple of train.parts=%" PRId64,
                        c->train.batch, c->train.parts);
    return XKD_OK;
}

/* Clips that a plan computes: batch norm needs two. */
static int64_t look_batch(const run *r)
{
    return r->config.eval.batch_norm ? 2 : 1;
}

static xkd_status make_net(run *r)
{
    xkd_status status = XKD_OK;
    xkd_config *c = &r->config;
    /* The geometry is the configuration's, which took it from the model's own. */
    const xkd_encoder_source source = {.path = c->run.init,
                                       .modality = r->data.modality,
                                       .student = c->eval.student,
                                       .geometry = &c->model,
                                       .heads = r->options->heads};
    xkd_view_shape shape = xkd_clip_shape(&c->data, r->data.modality);
    xkd_finetune_options options = xkd_finetune_options_of(c, r->data.multi_label);
    shape.B = r->look ? look_batch(r) : r->data.batch;
    XKD_TRY(xkd_backend_open(r->cx, &r->be, c->device, c, (int)c->threads));
    XKD_TRY(xkd_dist_meet_devices(r->dist, r->be));
    XKD_TRY(xkd_finetune_new(r->cx, r->be, &source, &shape, r->data.classes.count, &options, &r->net));
    XKD_TRY(xkd_finetune_share(r->cx, &r->net, r->dist, c->train.accumulate));
    /* The encoder's file knows its width, depth and class token; the configuration that is stored must say the same. */
    c->model = r->net.encoder.config;
fail:
    return status;
}

/* classes.json says what the rows of the classifier mean; a run goes on with no other list. */
static xkd_status check_classes(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    char *path = NULL, *now = NULL, *before = NULL;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, r->folder.path, "classes.json"));
    XKD_TRY(xkd_class_names_write(cx, &r->data.classes, &now));
    if (r->options->run.mode == XKD_RUN_RESUME && xkd_path_exists(path)) {
        XKD_TRY(xkd_read_file(cx, path, (int64_t)64 << 20, XKD_ERR_CHECKPOINT, &before, &size));
        /* A row of the classifier would mean another class from one step to the next. */
        if (strcmp(before, now) != 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT,
                     "%s: the run was trained for other classes than %s names: resume with the manifest it began with",
                     path, r->config.data.path);
    }
    /* Written again on resume: it is the same text, and a folder without the file gets it. */
    XKD_TRY(xkd_write_file(cx, path, now, (int64_t)strlen(now)));
fail:
    xkd_free(path);
    xkd_free(now);
    xkd_free(before);
    return status;
}

/* A (micro-)batch of one clip has no variance; the last one of an epoch may be so small. */
static xkd_status check_batch_norm(run *r)
{
    const xkd_train_config *t = &r->config.train;
    /* Clips of the last, smaller batch, per micro-batch. */
    int64_t rest = r->config.data.drop_last ? 0 : r->data.train->count * r->data.plan.passes % t->batch / t->parts;
    if (!r->config.eval.batch_norm || (r->data.batch > 1 && rest != 1)) return XKD_OK;
    return xkd_fail(r->cx, XKD_ERR_CONFIG,
                    "batch norm needs two clips in every (micro-)batch: change dataset.batch_size or set "
                    "dataset.train.drop_last");
}

/* The mean of softmax rows is a distribution; their maximum and sum are none. */
static xkd_status check_ensemble(run *r)
{
    if (r->data.multi_label || r->config.eval.ensemble == XKD_ENSEMBLE_MEAN) return XKD_OK;
    return xkd_fail(
        r->cx, XKD_ERR_CONFIG,
        "dataset.test.ensemble: max and sum are for several labels a file; with one label the clips' scores "
        "are averaged: mean");
}

/* Data and model, without a folder. */
static xkd_status open_parts(run *r)
{
    xkd_status status = XKD_OK;
    xkd_modality m;
    take_options(r, r->options);
    XKD_TRY(check_settings(r));
    XKD_TRY(choose_modality(r, &m));
    xkd_run_fill_in_machine(&r->config);
    XKD_TRY(xkd_supervised_data_open(r->cx, &r->config, m, r->options->manifest, r->dist, r->look, &r->data));
    XKD_TRY(check_batch_norm(r));
    XKD_TRY(check_ensemble(r));
    XKD_TRY(xkd_alloc(r->cx, &r->losses, r->config.train.parts, sizeof *r->losses));
    r->at.steps_per_epoch = xkd_loader_steps_per_epoch(r->data.loader);
    r->at.total = r->config.train.epochs * r->at.steps_per_epoch;
    XKD_TRY(make_net(r));
fail:
    return status;
}

/* Rank 0's: what it reads there reaches the others from it. */
static xkd_status open_folder(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    bool resume = r->options->run.mode == XKD_RUN_RESUME;
    XKD_TRY(xkd_run_folder_open(cx, c->run.out, r->options->run.mode, &r->folder));
    XKD_TRY(xkd_loader_set_folder(r->data.loader, r->folder.path));
    /* Before the state is loaded: with other classes its rows would not fit, and the message would be about shapes. */
    XKD_TRY(check_classes(r));
    if (resume) XKD_TRY(xkd_position_restore(&r->at));
    /* Lines of tests behind the checkpoint are dropped: those epochs are done again. */
    XKD_TRY(xkd_test_log_open(cx, r->folder.path, resume ? r->at.state.step : -1, &r->tests));
    XKD_TRY(xkd_run_folder_write_config(cx, &r->folder, r->at.state.config));
    XKD_TRY(xkd_metrics_open(cx, r->folder.path, columns, COLUMNS, resume ? r->at.state.step : -1, r->at.state.epoch,
                             c->run.tensorboard, &r->metrics));
fail:
    return status;
}

/* The folder comes after everything that may be refused: a mistake leaves nothing behind. Order: data and model,
 * folder, state, logs, as in train/loop.c. What fails leaves the run to `release`. */
static xkd_status start(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    xkd_config written;
    bool resume = r->options->run.mode == XKD_RUN_RESUME;
    if (!*r->options->config->run.out && !r->options->out)
        XKD_FAIL(XKD_ERR_CONFIG, "where to? --out names the run folder");
    XKD_TRY(open_parts(r));
    written = *c;
    /* Numbers of threads and workers belong to the machine, and a resume may happen on another. */
    written.threads = r->options->config->threads; /* "auto" stays */
    written.data.workers = r->options->config->data.workers;
    XKD_TRY(xkd_config_write(cx, &written, &r->at.state.config));
    r->at.state.seed = c->train.seed;
    r->at.state.data_hash = xkd_loader_data_hash(r->data.loader);
    XKD_TRY(xkd_ranks_compare(cx, r->dist, &r->at.state, xkd_loader_sample_count(r->data.loader)));
    if (c->train.wire_bfloat16) XKD_TRY(xkd_dist_halve(r->dist));
    if (r->writes) XKD_TRY(open_folder(r));
    if (resume) XKD_TRY(xkd_ranks_share_params(cx, r->dist, &r->net.encoder.params));
    XKD_TRY(xkd_ranks_share_state(r->dist, &r->at.state));
    XKD_TRY(xkd_test_log_share(&r->tests, r->dist));
    /* The first batch over and over is that of epoch 0. */
    if (resume && !c->run.overfit)
        XKD_TRY(xkd_loader_seek(r->data.loader, (uint32_t)r->at.state.epoch, r->at.state.epoch_step));
    XKD_TRY(xkd_position_start(&r->at));
fail:
    return status;
}

/* ---- saving ---- */

/* The classifier with its encoder, as `xkd predict` takes it; not a state to resume from. */
static xkd_status write_model(run *r, const char *name)
{
    char *path;
    if (!r->writes) return XKD_OK;
    xkd_status status = xkd_join_path(r->cx, &path, r->folder.path, name);
    if (status != XKD_OK) return status;
    status = xkd_classifier_write(r->cx, path, &r->net, &r->config, &r->data.classes);
    xkd_free(path);
    return status;
}

/* ---- testing ---- */

/* Behind every eval.frequency-th epoch and the last one; what was tested before a stop is not tested again. */
static bool test_is_due(const run *r)
{
    const xkd_run_state *s = &r->at.state;
    /* Only at the end of an epoch. last.step comes from the log as well, so a resumed run knows what was tested. */
    if (s->step == 0 || s->epoch_step != 0 || r->tests.last.step == s->step) return false;
    return s->epoch % r->config.eval.frequency == 0 || s->step == r->at.total;
}

/* Files are written before the state is saved: a stop between the two costs a second test, never a missing model. */
static xkd_status test(run *r)
{
    xkd_status status = XKD_OK;
    bool best;
    double begin = xkd_now();
    const xkd_tester tester = {.cx = r->cx,
                               .config = &r->config,
                               .data = &r->data,
                               .net = &r->net,
                               .run = &r->options->run,
                               .metrics = r->metrics,
                               .epoch = r->at.state.epoch,
                               .step = r->at.state.step,
                               .dist = r->dist};
    /* Batches of one size, whatever the epoch ended with: a product's rounding may depend on it. */
    if (r->net.B != r->data.batch) XKD_TRY(xkd_finetune_resize(r->cx, &r->net, r->data.batch));
    status = xkd_supervised_test(&tester, &r->tests, r->result, &best);
    /* Ranks that have put a test together end it alike; before that a fault is one rank's. */
    r->agreed =
        r->result->agreed && (status == XKD_ERR_DATA || status == XKD_ERR_INTERRUPTED || status == XKD_ERR_PREEMPTED);
    XKD_TRY(status);
    r->testing += xkd_now() - begin; /* tests are no training time: speeds are told without them */
    XKD_TRY(write_model(r, "classifier.safetensors"));
    if (best) XKD_TRY(write_model(r, "best.safetensors"));
    const xkd_test_scores *t = &r->tests.last;
    XKD_TRY(r->data.multi_label
                ? xkd_metrics_line(r->metrics, "test after epoch %" PRId64 ": mean average precision %.2f%s", t->epoch,
                                   t->map, best ? ", the best so far" : "")
                : xkd_metrics_line(
                      r->metrics, "test after epoch %" PRId64 ": top-1 %.2f, top-5 %.2f, by clip %.2f and %.2f%s",
                      t->epoch, t->top1, t->top5, t->clip_top1, t->clip_top5, best ? ", the best so far" : ""));
    /* So that a kill during the next epoch does not cost this test's epoch. */
    if (r->writes) XKD_TRY(xkd_position_save(&r->at));
fail:
    return status;
}

/* ---- steps ---- */

/* Loss of the step from those of its micro-batches, over all ranks and in their order; not finite where one is. */
static xkd_status join_losses(run *r, double *loss, bool *skipped)
{
    xkd_status status = XKD_OK;
    int64_t parts = r->config.train.parts, accumulate = r->config.train.accumulate;
    const double *mine = r->losses + xkd_dist_rank(r->dist) * accumulate;
    *loss = 0;
    XKD_TRY(xkd_dist_gather(r->dist, r->losses, mine, accumulate * (int64_t)sizeof *mine));
    for (int64_t p = 0; p < parts; p++) *loss += r->losses[p] / (double)parts;
    *skipped = !isfinite(*loss);
fail:
    return status;
}

/* Gradients of all micro-batches of a step. A loss that is not finite leaves the others to be read, for the position. */
static xkd_status micro_batches(run *r, double *loss, double *wait, bool *skipped)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    int64_t accumulate = r->config.train.accumulate;
    double *mine = r->losses + xkd_dist_rank(r->dist) * accumulate;
    for (int64_t i = 0; i < accumulate; i++) {
        float *clips;
        int64_t count;
        double seconds;
        mine[i] = NAN;
        XKD_TRY(xkd_supervised_next(&r->config, &r->data, &clips, &count, &seconds));
        *wait += seconds;
        r->samples += (double)count; /* of the clips drawn, also where the step is skipped */
        /* The remaining micro-batches must be taken from the loader: the position counts them. */
        if (*skipped) continue;
        if (r->net.B != count) XKD_TRY(xkd_finetune_resize(cx, &r->net, count));
        if (i == 0) xkd_finetune_begin(&r->net); /* behind a new plan, which loses the batch norm's sums */
        /* The share makes gradients the mean over micro-batches. */
        double share = 1 / (double)r->config.train.parts;
        status = xkd_finetune_micro_batch(cx, &r->net, clips, r->data.targets, share, &mine[i]);
        *skipped = status == XKD_ERR_NUMERIC;
        if (!*skipped) XKD_TRY(status);
        /* The error has been noted as a skipped step, and the next micro-batch begins without it. */
        status = XKD_OK;
    }
    XKD_TRY(join_losses(r, loss, skipped));
fail:
    return status;
}

/* One optimiser step, or none (*skipped) where a loss or gradient is not finite. */
static xkd_status one_step(run *r, bool *skipped)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_train_config *t = &r->config.train;
    double begin = xkd_now(), loss = 0, wait = 0, before = r->samples;
    *skipped = false;
    /* Rates by the step alone: a resumed run has the values it would have had. */
    double lr = xkd_supervised_rate(t, &r->config.eval, r->at.state.step, r->at.steps_per_epoch);
    double wd = xkd_schedule_value(&t->weight_decay, r->at.state.step, r->at.steps_per_epoch, t->epochs);
    r->net.step = r->at.state.step; /* names the draws: also after a skipped step */
    XKD_TRY(micro_batches(r, &loss, &wait, skipped));
    if (!*skipped) {
        status = xkd_finetune_finish(cx, &r->net, lr, wd);
        *skipped = status == XKD_ERR_NUMERIC;
        if (!*skipped) XKD_TRY(status);
        status = XKD_OK;
    }
    /* The message of the skipped step would otherwise stand as the last error of a run that goes on. */
    if (*skipped) xkd_clear_error(cx);
    double seconds = xkd_now() - begin;
    xkd_position_count(&r->at, r->at.state.step + 1, seconds, wait, loss, *skipped);
    const double values[COLUMNS] = {loss,
                                    lr,
                                    wd,
                                    seconds,
                                    wait,
                                    (r->samples - before) * xkd_dist_size(r->dist) / seconds,
                                    (double)r->at.state.bad_steps};
    memcpy(r->values, values, sizeof values);
fail:
    return status;
}

/* A metrics row carries the epoch in which its step lies, not the next one. */
static xkd_status advance(run *r)
{
    int64_t epoch = r->at.state.epoch;
    bool closed = xkd_position_advance(&r->at);
    xkd_status status = xkd_metrics_step(r->metrics, r->at.state.step, epoch, r->values);
    if (status == XKD_OK && closed) status = xkd_position_log_epoch(&r->at, r->metrics);
    return status;
}

/* The bar on every step, the receiver decides how often it draws; the line by print_steps and at the end. */
static xkd_status report_step(run *r)
{
    char spark[4 * XKD_SPARK_CELLS], tail[200], line[300];
    const double *v = r->values;
    double seconds = xkd_now() - r->at.started;
    if (r->options->run.progress && r->writes) {
        /* Waiting as a share of the time without tests, which wait for data of their own. */
        xkd_sparkline_add(&r->loss, v[LOSS]);
        xkd_sparkline_draw(&r->loss, spark, sizeof spark);
        snprintf(tail, sizeof tail, "loss %.4f %s  data %.0f %%  %.1f samples/s", v[LOSS], spark,
                 100 * r->at.waited / (seconds - r->testing), v[SAMPLES_PER_SECOND]);
        xkd_progress_line(line, sizeof line, r->net.options.frozen ? "linear" : "finetune", r->at.first_step,
                          r->at.state.step, r->at.total, seconds, tail);
        r->options->run.progress(r->options->run.user, line);
    }
    if (r->at.state.step % r->config.run.print_steps != 0 && r->at.state.step != r->at.total) return XKD_OK;
    return xkd_metrics_line(
        r->metrics, "epoch %" PRId64 " step %" PRId64 "/%" PRId64 " loss %.4f lr %.3g %.1f samples/s data %.0f %%",
        r->at.state.epoch, r->at.state.step, r->at.total, v[LOSS], v[LR], v[SAMPLES_PER_SECOND],
        v[TIME] > 0 ? 100 * v[DATA] / v[TIME] : 0);
}

/* As in pre-training: the largest signal of all ranks, and the files that any could not read. */
static xkd_status agree(run *r, int *stop)
{
    const xkd_run_options *o = &r->options->run;
    int64_t signal = o->stop_signal ? o->stop_signal(o->user) : 0;
    xkd_status status = xkd_dist_largest(r->dist, &signal, 1);
    *stop = (int)signal;
    if (status == XKD_OK) status = xkd_loader_share(r->data.loader, r->dist);
    r->agreed = status == XKD_ERR_DATA;
    return status;
}

/* A test comes before the step behind it, so that a run that was stopped during one makes it when it goes on. */
static xkd_status steps(run *r)
{
    xkd_status status = XKD_OK;
    int64_t end = xkd_position_end(&r->at);
    /* The test stands at the head of the loop: a run resumed at the end of an epoch comes here first. */
    for (;;) {
        if (test_is_due(r)) XKD_TRY(test(r));
        if (r->at.state.step >= end) break;
        bool skipped;
        int stop;
        XKD_TRY(one_step(r, &skipped));
        XKD_TRY(advance(r));
        XKD_TRY(report_step(r));
        if (skipped) XKD_TRY(xkd_position_skipped(&r->at, r->at.state.step, "lower hyperparams.lr.base_lr"));
        if (r->writes && xkd_position_save_is_due(&r->at)) XKD_TRY(xkd_position_save(&r->at));
        XKD_TRY(agree(r, &stop));
        XKD_TRY(xkd_position_heed(&r->at, stop));
    }
fail:
    return status;
}

/* ---- the end ---- */

/* Figures of this call; the tests' are of the whole run, since the log is. */
static void summarise(run *r)
{
    xkd_supervised_result *out = r->result;
    xkd_loader_statistics data;
    xkd_loader_stats(r->data.loader, &data);
    double seconds = xkd_now() - r->at.started, training = seconds - r->testing;
    out->run = (xkd_run_result){.step = r->at.state.step,
                                .total_steps = r->at.total,
                                .bad_steps = r->at.state.bad_steps,
                                .bad_clips = data.bad_clips,
                                .loss = r->at.state.step > r->at.first_step ? r->values[LOSS] : NAN,
                                .seconds = seconds,
                                .samples_per_second = r->samples * xkd_dist_size(r->dist) / training,
                                .data_share = r->at.waited / training};
    for (int64_t i = 0; i < r->net.encoder.params.count; i++)
        out->run.parameters += r->net.encoder.params.rows[i]->count;
    out->multi_label = r->data.multi_label;
    out->classes = r->data.classes.count;
    out->train_files = r->data.train->count;
    out->test_files = r->data.test.count;
    out->in_both = r->data.in_both;
    out->last = r->tests.last;
    out->best = r->tests.best;
    out->finished = r->at.state.step == r->at.total && out->last.step == r->at.total;
}

static xkd_status save_all(run *r)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_position_save(&r->at));
    if (r->tests.last.step != r->at.state.step) XKD_TRY(write_model(r, "classifier.safetensors"));
    XKD_TRY(xkd_report_write(r->cx, r->folder.path, r->result->run.total_steps, NULL));
fail:
    return status;
}

/* After all is saved: the log of a long run may be damaged or of any size, and its count is no reason to lose a step. An
 * earlier error keeps its message. Only memory that is refused is an error, as everywhere. */
static xkd_status count_replaced(run *r)
{
    xkd_context *cx = r->cx;
    bool failed = *xkd_last_error(cx);
    xkd_status status = xkd_loader_bad_files(r->data.loader, &r->result->replaced);
    if (status == XKD_OK) return XKD_OK;
    r->result->replaced = -1;
    if (status == XKD_ERR_MEMORY) return status;
    xkd_log(cx, XKD_LOG_WARN, "how many training files were replaced is unknown: %s",
            failed ? "bad_clips.jsonl cannot be read" : xkd_last_error(cx));
    if (!failed) xkd_clear_error(cx);
    return XKD_OK;
}

/* Saves what there is, whatever ended the steps; the first error is the one that counts. */
static xkd_status finish(run *r, xkd_status status)
{
    xkd_status saved = XKD_OK, counted;
    if (r->options->run.progress) r->options->run.progress(r->options->run.user, NULL);
    summarise(r);
    /* Else the last checkpoint stays, and the first message is the one that is shown. */
    if (!r->writes) return status;
    if (xkd_status_allows_save(status)) saved = save_all(r);
    counted = count_replaced(r);
    return status != XKD_OK ? status : saved != XKD_OK ? saved : counted;
}

/* In the opposite order of `start`; every part may be unopened. */
static void release(run *r)
{
    xkd_metrics_close(r->metrics);
    xkd_test_log_close(&r->tests);
    xkd_finetune_free(&r->net);
    xkd_dist_part_devices(r->dist);
    xkd_backend_free(r->be);
    xkd_supervised_data_free(&r->data);
    xkd_free(r->losses);
    xkd_run_folder_close(&r->folder);
    xkd_position_free(&r->at);
}

/* Descriptors start at -1: 0 would be closed by `release` of a run that opened nothing. */
xkd_status xkd_supervised_train(xkd_context *cx, const xkd_supervised_options *options, xkd_supervised_result *result)
{
    run r = {.cx = cx, .options = options, .folder = {.lock = -1}, .tests = {.fd = -1}, .result = result};
    r.dist = options->dist;
    r.tests.cx = cx;
    r.writes = xkd_dist_rank(r.dist) == 0;
    r.at = (xkd_run_position){.cx = cx,
                              .backend = &r.be,
                              .config = &r.config,
                              .folder = &r.folder,
                              .params = &r.net.encoder.params,
                              .saved_step = -1};
    *result = (xkd_supervised_result){.interval = {NAN, NAN, NAN}};
    xkd_status status = start(&r);
    if (status == XKD_OK) {
        status = steps(&r);
        status = finish(&r, status);
    }
    result->agreed = xkd_ranks_end_alike(status, r.agreed);
    release(&r);
    return status;
}

void xkd_supervised_result_free(xkd_supervised_result *r)
{
    for (int64_t k = 0; r->names && k < r->classes; k++) xkd_free(r->names[k]);
    xkd_free(r->names);
    xkd_free(r->scores);
    xkd_free(r->label);
    xkd_free(r->truth);
    *r = (xkd_supervised_result){0};
}

/* On clips of zeros, which take as long as any. A whole batch would take minutes for a plan. */
static xkd_status time_clip(run *r, double *seconds)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    float *clips = NULL;
    double loss, begin;
    int64_t B = look_batch(r);
    XKD_TRY(xkd_alloc(cx, &clips, B * r->data.clip_floats, sizeof *clips));
    XKD_TRY(xkd_finetune_resize(cx, &r->net, B));
    /* A short step is done twice, since the first one touches memory for the first time. */
    for (int round = 0; round < 2 && *seconds < 1; round++) {
        begin = xkd_now();
        XKD_TRY(xkd_finetune_step(cx, &r->net, clips, r->data.targets, 0, 0, &loss));
        *seconds = (xkd_now() - begin) / (double)B;
    }
fail:
    xkd_free(clips);
    return status;
}

/* Memory of the model is really taken: the sizes are those that a training will have. That of a batch is counted alone, for
 * who asks may have less. */
xkd_status xkd_supervised_look(xkd_context *cx, const xkd_supervised_options *options, xkd_supervised_plan *plan)
{
    xkd_status status = XKD_OK;
    run r = {.cx = cx, .options = options, .folder = {.lock = -1}, .tests = {.fd = -1}, .look = true};
    XKD_TRY(open_parts(&r));
    const xkd_params *params = &r.net.encoder.params;
    *plan = (xkd_supervised_plan){.modality = r.data.modality,
                                  .multi_label = r.data.multi_label,
                                  .classes = r.data.classes.count,
                                  .train_files = r.data.train->count,
                                  .test_files = r.data.test.count,
                                  .steps_per_epoch = r.at.steps_per_epoch,
                                  .total_steps = r.at.total,
                                  .tokens = r.net.run.items[0].tokens,
                                  .batch = r.config.train.batch,
                                  .loader_bytes = (double)xkd_loader_ring_bytes(r.data.loader),
                                  .available_bytes = (double)xkd_available_memory()};
    plan->state_bytes = (double)(params->values.size + params->copies.size + params->grads.size + params->moments.size);
    for (int64_t i = 0; i < params->count; i++) {
        plan->parameters += params->rows[i]->count;
        plan->trained += params->rows[i]->role == XKD_ROLE_TRAINED ? params->rows[i]->count : 0;
    }
    /* Last, since they plan the network anew. */
    XKD_TRY(xkd_finetune_measure(cx, &r.net, r.data.batch, &plan->activation_bytes));
    XKD_TRY(time_clip(&r, &plan->seconds));
    plan->seconds *= (double)(r.at.total * r.config.train.batch);
fail:
    release(&r);
    return status;
}
