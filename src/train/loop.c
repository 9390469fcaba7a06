/* The loop around the training step. Start reading at xkd_train at the end; each function above is one of its parts.
 * A run is one struct; its parts are opened in start, used in steps, and closed in finish and release. The
 * order of a step is: feed, train, advance the position, collect what it left, report, perhaps save.
 *
 * Where the backend works while the host does other things, a step's numbers are collected when the next step has been asked
 * for: neither waits for the other. Whatever looks at the run itself - a save, a stop, the probe, pictures, the line of an
 * epoch - collects first. */
#include "train/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "checkpoint/params_file.h"
#include "report/html.h"
#include "report/progress.h"
#include "report/sparkline.h"
#include "train/feed.h"
#include "train/position.h"
#include "train/probe.h"
#include "train/ranks.h"
#include "train/schedule.h"
#include "train/show.h"
#include "train/watch.h"

/* Columns of metrics.csv behind the losses, and TensorBoard tags. */
enum {
    LR = XKD_LOSS_COUNT,
    WD,
    VID_EMA,
    AUD_EMA,
    VIDEO_TEACHER_TEMP,
    VIDEO_STUDENT_TEMP,
    AUDIO_TEACHER_TEMP,
    AUDIO_STUDENT_TEMP,
    TIME,
    DATA,
    SAMPLES_PER_SECOND,
    GRAD_NORM,
    SKIPPED,
    VIDEO_ENTROPY,
    AUDIO_ENTROPY,
    VIDEO_CENTRE,
    AUDIO_CENTRE,
    VIDEO_SPREAD,
    AUDIO_SPREAD,
    PROBE, /* XKD_PROBE_FIGURES of them */
    COLUMNS = PROBE + XKD_PROBE_FIGURES
};
/* Losses come first in the table and take their names from xkd_loss_names, so a new loss appears everywhere
 * by itself. Time and Data are spelt as in the release's logs. */
static const char *const column_names[PROBE] = {[LR] = "lr",
                                                [WD] = "wd",
                                                [VID_EMA] = "vid_ema",
                                                [AUD_EMA] = "aud_ema",
                                                [VIDEO_TEACHER_TEMP] = "video_teacher_temp",
                                                [VIDEO_STUDENT_TEMP] = "video_student_temp",
                                                [AUDIO_TEACHER_TEMP] = "audio_teacher_temp",
                                                [AUDIO_STUDENT_TEMP] = "audio_student_temp",
                                                [TIME] = "Time",
                                                [DATA] = "Data",
                                                [SAMPLES_PER_SECOND] = "samples_per_second",
                                                [GRAD_NORM] = "grad_norm",
                                                [SKIPPED] = "skipped",
                                                [VIDEO_ENTROPY] = "video_teacher_entropy",
                                                [AUDIO_ENTROPY] = "audio_teacher_entropy",
                                                [VIDEO_CENTRE] = "video_centre_norm",
                                                [AUDIO_CENTRE] = "audio_centre_norm",
                                                [VIDEO_SPREAD] = "video_feature_spread",
                                                [AUDIO_SPREAD] = "audio_feature_spread"};

/* A step that was asked for. */
typedef struct {
    xkd_schedule_values schedule;
    int64_t step, epoch;  /* its number from 1; the epoch in which it lies */
    double begin, wait;   /* by xkd_now, s; the wait for data, s */
    double samples;       /* of this rank */
    bool closes_an_epoch; /* it is the last one of it */
} asked_step;

/* Everything a run holds while it lasts. */
typedef struct {
    xkd_context *cx;
    xkd_config config; /* the caller's, with numbers of threads and workers filled in; its strings are the caller's */
    const xkd_run_options *options; /* the caller's; outlives the call */
    xkd_dist *dist;                 /* likewise; NULL: this process alone */
    bool writes;                    /* rank 0: the folder, the log and all that people see are its own */
    xkd_run_folder folder;          /* holds the lock while the run lasts */
    xkd_loader *loader;
    xkd_feed feed;
    xkd_backend *backend;
    xkd_trainer *trainer;
    xkd_metrics *metrics;
    const char *columns[COLUMNS]; /* names of all columns, for the metrics writer */
    xkd_run_position at;
    xkd_watch watch[XKD_MODALITIES];
    xkd_probe *probe;                 /* NULL: not wanted */
    asked_step asked[XKD_STEPS_OPEN]; /* of the steps that are not collected, by their number */
    double collected;                 /* when the last step was, by xkd_now */
    double values[COLUMNS];           /* the row of the step collected last */
    xkd_sparkline loss;               /* of this call, for the progress line */
    bool agreed;                      /* the status that ends the run is that of all ranks */
} run;

/* A last batch of an epoch may be smaller where drop_last is off. */
static xkd_status fit_pass(run *r, int64_t B)
{
    const xkd_batch_shape shape = xkd_feed_shape(&r->feed, B);
    return xkd_trainer_fit(r->cx, r->trainer, &shape);
}

/* Plans for full micro-batches and for the last ones of an epoch. report_all is off: terms of coefficient 0 cost nothing. */
static xkd_status make_trainer(run *r)
{
    xkd_batch_shape shape = xkd_feed_shape(&r->feed, r->feed.samples);
    xkd_status status = xkd_dist_meet_devices(r->dist, r->backend);
    if (status == XKD_OK) status = xkd_trainer_new(r->cx, &r->trainer, r->backend, r->dist, &r->config, &shape, false);
    if (status == XKD_OK) r->at.params = &xkd_trainer_look(r->trainer)->networks.params;
    int64_t last = xkd_loader_last_count(r->loader);
    if (status == XKD_OK && last != r->feed.samples) status = fit_pass(r, last);
    if (status == XKD_OK) status = fit_pass(r, r->feed.samples);
    /* A run that is resumed overwrites this with its own state. */
    if (status == XKD_OK && r->config.run.init[0])
        status = xkd_params_start_from(r->cx, &xkd_trainer_look(r->trainer)->networks.params, r->config.run.init);
    return status;
}

/* The loader's threads start at once and fill batches while the model is being built. Batches that a device makes the views of
 * lie in memory that it reads, so the device comes first. */
static xkd_status open_data(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    int rank = xkd_dist_rank(r->dist), world = xkd_dist_size(r->dist);
    bool there;
    XKD_TRY(xkd_config_device_views(cx, c, &there));
    XKD_TRY(xkd_backend_open(cx, &r->backend, c->device, c, (int)c->threads));
    XKD_TRY(there ? xkd_loader_new_raw(cx, &c->data, &c->train, rank, world, r->backend->memory, &r->loader)
                  : xkd_loader_new(cx, &c->data, &c->train, rank, world, &r->loader));
    r->at.steps_per_epoch = xkd_loader_steps_per_epoch(r->loader);
    r->at.total = c->train.epochs * r->at.steps_per_epoch;
    XKD_TRY(xkd_feed_new(cx, &r->feed, c, r->loader));
fail:
    return status;
}

/* The folder, which rank 0 has to itself: it reads the state there, and all others get theirs from it. */
static xkd_status open_folder(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    bool resumed = r->options->mode == XKD_RUN_RESUME;
    if (r->writes) {
        XKD_TRY(xkd_run_folder_open(cx, c->run.out, r->options->mode, &r->folder));
        XKD_TRY(xkd_loader_set_folder(r->loader, r->folder.path));
        if (resumed) XKD_TRY(xkd_position_restore(&r->at));
        XKD_TRY(xkd_run_folder_write_config(cx, &r->folder, r->at.state.config));
    }
    if (resumed || c->run.init[0])
        XKD_TRY(xkd_ranks_share_params(cx, r->dist, &xkd_trainer_look(r->trainer)->networks.params));
    XKD_TRY(xkd_ranks_share_state(r->dist, &r->at.state));
    if (resumed) XKD_TRY(xkd_loader_seek(r->loader, (uint32_t)r->at.state.epoch, r->at.state.epoch_step));
fail:
    return status;
}

/* On resume, rows behind the checkpoint's step are dropped by the metrics writer: those steps are done again. */
static xkd_status open_logs(run *r)
{
    bool resumed = r->options->mode == XKD_RUN_RESUME;
    if (!r->writes) return XKD_OK;
    for (int i = 0; i < COLUMNS; i++)
        r->columns[i] = i < XKD_LOSS_COUNT ? xkd_loss_names[i]
                        : i < PROBE        ? column_names[i]
                                           : xkd_probe_names[i - PROBE];
    return xkd_metrics_open(r->cx, r->folder.path, r->columns, COLUMNS, resumed ? r->at.state.step : -1,
                            r->at.state.epoch, r->config.run.tensorboard, &r->metrics);
}

/* How a step is shared, for rank 0's log. */
static void tell_shares(const run *r)
{
    const xkd_train_config *t = &r->config.train;
    if (!r->dist || !r->writes) return;
    xkd_log(r->cx, XKD_LOG_INFO,
            "a step is %" PRId64 " samples, %" PRId64 " a rank in %" PRId64 " micro-batches of %" PRId64
            "; on %s, %" PRId64 " threads a rank",
            t->batch, t->batch / t->ranks, t->accumulate, t->batch / t->parts, r->config.device, r->config.threads);
}

/* Opens everything in the order data, model, folder, state, logs.
 * Whatever fails here leaves the run to `release`, which takes any half-open state. */
static xkd_status start(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    XKD_TRY(xkd_config_write(cx, c, &r->at.state.config));
    xkd_run_fill_in_machine(&r->config);
    /* The folder comes after everything that may be refused: a mistake leaves nothing behind. */
    XKD_TRY(open_data(r));
    XKD_TRY(make_trainer(r));
    if (c->run.probe_epochs && r->writes) XKD_TRY(xkd_probe_new(cx, c, r->trainer, &r->probe));
    r->at.state.seed = c->train.seed;
    r->at.state.data_hash = xkd_loader_data_hash(r->loader);
    XKD_TRY(xkd_ranks_compare(cx, r->dist, &r->at.state, xkd_loader_sample_count(r->loader)));
    tell_shares(r);
    if (c->train.wire_bfloat16) XKD_TRY(xkd_dist_halve(r->dist));
    XKD_TRY(open_folder(r));
    XKD_TRY(open_logs(r));
    for (int m = 0; m < XKD_MODALITIES; m++) r->watch[m] = (xkd_watch){.outputs = c->model.head.outputs};
    XKD_TRY(xkd_position_start(&r->at));
fail:
    return status;
}

static asked_step *asked(run *r, int64_t step)
{
    return &r->asked[step % XKD_STEPS_OPEN];
}

/* The row of a step in metrics.csv, as far as it is known before the step's time is. */
static void note_values(run *r, const xkd_schedule_values *s, const xkd_step_result *result)
{
    double *v = r->values;
    for (int i = 0; i < XKD_LOSS_COUNT; i++) v[i] = result->loss[i];
    v[LR] = s->lr;
    v[WD] = s->weight_decay;
    v[VID_EMA] = s->ema[XKD_VIDEO];
    v[AUD_EMA] = s->ema[XKD_AUDIO];
    v[VIDEO_TEACHER_TEMP] = s->teacher_temp[XKD_VIDEO];
    v[VIDEO_STUDENT_TEMP] = s->student_temp[XKD_VIDEO];
    v[AUDIO_TEACHER_TEMP] = s->teacher_temp[XKD_AUDIO];
    v[AUDIO_STUDENT_TEMP] = s->student_temp[XKD_AUDIO];
    v[GRAD_NORM] = result->grad_norm;
    v[SKIPPED] = (double)(r->at.state.bad_steps + result->skipped);
}

/* Measures both teachers and passes on what the collapse watch has to say. A skipped step has nothing to say.
 * The advice goes to the log and the run goes on: whether to stop is the user's decision. */
static xkd_status watch(run *r, const xkd_step_result *result)
{
    static const char *const names[] = {"video", "audio"};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_watch_sample s = xkd_watch_measure(r->trainer, result, m);
        r->values[VIDEO_ENTROPY + m] = s.entropy;
        r->values[VIDEO_CENTRE + m] = s.centre_norm;
        r->values[VIDEO_SPREAD + m] = s.spread;
        const char *advice = result->skipped ? NULL : xkd_watch_step(&r->watch[m], &s);
        if (!advice) continue;
        xkd_status status = xkd_metrics_line(
            r->metrics,
            "collapse watch, %s teacher: %s (distillation %.3g, ln K %.3g, entropy %.3g, centre %.3g, "
            "spread %.3g)",
            names[m], advice, s.kd, log((double)r->watch[m].outputs), s.entropy, s.centre_norm, s.spread);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* One optimiser step: `accumulate` micro-batches, then the update. *in is left at the last micro-batch. The position moves on:
 * from here on the weights are those of the next step (or unchanged, if it is skipped). */
static xkd_status ask_step(run *r, xkd_pass_input *in)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_batch *batch;
    asked_step a = {.step = r->at.state.step + 1, .epoch = r->at.state.epoch, .begin = xkd_now()};
    const xkd_schedule_values *s = &a.schedule;
    /* Schedules depend on the step alone, so a resumed run has the values it would have had. */
    xkd_schedule_at(&r->config.train, r->at.state.step, r->at.steps_per_epoch, &a.schedule);
    const xkd_step_values values = {.lr = s->lr,
                                    .weight_decay = s->weight_decay,
                                    .ema = {s->ema[0], s->ema[1]},
                                    .temp = {.teacher_temp = {s->teacher_temp[0], s->teacher_temp[1]},
                                             .student_temp = {s->student_temp[0], s->student_temp[1]}},
                                    .epoch = s->epoch};
    xkd_step_begin(r->trainer, &values);
    for (int64_t i = 0; i < r->config.train.accumulate; i++) {
        XKD_TRY(xkd_feed_next(cx, &r->feed, &batch, in));
        XKD_TRY(fit_pass(r, batch->count));
        xkd_step_micro_batch(r->trainer, in);
        a.wait += batch->wait_seconds;
        a.samples += (double)batch->count;
    }
    XKD_TRY(xkd_step_finish(r->trainer));
    a.closes_an_epoch = xkd_position_advance(&r->at);
    *asked(r, a.step) = a;
fail:
    return status;
}

/* What all ranks do alike behind a step: the largest signal that any of them has, and the files that any could not read.
 * An end that follows from it is no loss of a rank. */
static xkd_status agree(run *r, int *stop)
{
    int64_t signal = r->options->stop_signal ? r->options->stop_signal(r->options->user) : 0;
    xkd_status status = xkd_dist_largest(r->dist, &signal, 1);
    *stop = (int)signal;
    if (status == XKD_OK) status = xkd_loader_share(r->loader, r->dist);
    r->agreed = status == XKD_ERR_DATA;
    return status;
}

/* Where `due`, the teachers' figures join the row of the step just done; other rows have none. Files that have become
 * unreadable since the start cost the figures, not the run. */
static xkd_status probe(run *r, bool due)
{
    xkd_status status = XKD_OK;
    double *v = r->values + PROBE;
    for (int i = 0; i < XKD_PROBE_FIGURES; i++) v[i] = NAN;
    if (!due) return XKD_OK;
    status = xkd_probe_run(r->probe, v);
    if (status == XKD_ERR_DATA) {
        xkd_log(r->cx, XKD_LOG_WARN, "probe: no figures: %s", xkd_last_error(r->cx));
        xkd_clear_error(r->cx);
        return XKD_OK;
    }
    if (status != XKD_OK) return status;
    return xkd_metrics_line(r->metrics,
                            "probe after epoch %" PRId64 ": kNN video %.1f audio %.1f, recall@1/@5 video to audio "
                            "%.1f/%.1f, audio to video %.1f/%.1f (%%)",
                            r->at.state.epoch, v[XKD_PROBE_VIDEO_KNN], v[XKD_PROBE_AUDIO_KNN],
                            v[XKD_PROBE_VIDEO_RECALL1], v[XKD_PROBE_VIDEO_RECALL5], v[XKD_PROBE_AUDIO_RECALL1],
                            v[XKD_PROBE_AUDIO_RECALL5]);
}

/* The bar counts from where this call began, so that the time left is right after a resume.
 * Called every step; the receiver decides how often it draws. */
static void show_progress(run *r, const asked_step *a)
{
    char spark[4 * XKD_SPARK_CELLS], tail[200], line[300];
    if (!r->options->progress || !r->writes) return;
    double seconds = xkd_now() - r->at.started, loss = r->values[XKD_LOSS_TOTAL];
    xkd_sparkline_add(&r->loss, loss);
    xkd_sparkline_draw(&r->loss, spark, sizeof spark);
    snprintf(tail, sizeof tail, "loss %.4f %s  data %.0f %%  %.1f samples/s", loss, spark, 100 * r->at.waited / seconds,
             r->values[SAMPLES_PER_SECOND]);
    xkd_progress_line(line, sizeof line, "pretrain", r->at.first_step, a->step, r->at.total, seconds, tail);
    r->options->progress(r->options->user, line);
}

/* The line for people, every progress.print_freq steps and at the end. */
static xkd_status print_line(run *r, const asked_step *a)
{
    const double *v = r->values;
    /* Figures of the last step only, not means: the curves are in the metrics files. */
    if (a->step % r->config.run.print_steps != 0 && a->step != r->at.total) return XKD_OK;
    return xkd_metrics_line(r->metrics,
                            "epoch %" PRId64 " step %" PRId64 "/%" PRId64 " loss %.4f recon %.4f kd %.4f align %.4f "
                            "lr %.3g %.1f samples/s data %.0f %%",
                            a->epoch + a->closes_an_epoch, a->step, r->at.total, v[XKD_LOSS_TOTAL], v[XKD_LOSS_RECON],
                            v[XKD_LOSS_KD], v[XKD_LOSS_ALIGN], v[LR], v[SAMPLES_PER_SECOND],
                            v[TIME] > 0 ? 100 * v[DATA] / v[TIME] : 0);
}

/* Everything that a step's numbers are for. The time of a step that was asked for while another was on its way counts from when
 * that one was collected. Times include the wait for data. */
static xkd_status take_in(run *r, const asked_step *a, const xkd_step_result *result)
{
    xkd_status status = XKD_OK;
    double *v = r->values;
    note_values(r, &a->schedule, result);
    XKD_TRY(watch(r, result));
    double now = xkd_now(), seconds = now - fmax(a->begin, r->collected);
    r->collected = now;
    v[TIME] = seconds;
    v[DATA] = a->wait;
    v[SAMPLES_PER_SECOND] = a->samples * xkd_dist_size(r->dist) / seconds;
    xkd_position_count(&r->at, a->step, seconds, a->wait, result->loss[XKD_LOSS_TOTAL], result->skipped);
    XKD_TRY(probe(r, a->closes_an_epoch && r->writes && xkd_probe_is_due(r->probe, a->epoch + 1)));
    XKD_TRY(xkd_metrics_step(r->metrics, a->step, a->epoch, v));
    if (a->closes_an_epoch) XKD_TRY(xkd_position_log_epoch(&r->at, r->metrics));
    XKD_TRY(print_line(r, a));
    show_progress(r, a);
    /* Isolated bad steps are survived; a run that keeps producing them is not training. The bad values
     * never reached the weights. */
    if (result->skipped)
        XKD_TRY(xkd_position_skipped(&r->at, a->step, "lower hyperparams.lr.base_lr or raise the temperatures"));
fail:
    return status;
}

/* Collects steps, the oldest first, until no more than `open` are on their way. */
static xkd_status collect(run *r, int open)
{
    xkd_status status = XKD_OK;
    while (status == XKD_OK && xkd_step_open(r->trainer) > open) {
        xkd_step_result result;
        const asked_step *a = asked(r, r->at.state.step - xkd_step_open(r->trainer) + 1);
        status = xkd_step_collect(r->trainer, &result);
        if (status == XKD_OK) status = take_in(r, a, &result);
    }
    return status;
}

/* Behind a step that was just asked for: how many may stay on their way. Ranks wait for each other in every step, and must end
 * for the same one. */
static int may_stay_open(run *r, int64_t end)
{
    const xkd_run_state *s = &r->at.state;
    if (!xkd_memory_is_late(r->backend->memory) || r->dist) return 0;
    return asked(r, s->step)->closes_an_epoch || s->step == end ? 0 : 1;
}

/* Pictures at the end are worth a forward pass even where the interval has not come round. */
static bool picture_is_due(const run *r, bool last)
{
    int64_t every = r->config.run.picture_steps;
    return r->writes && every > 0 && (last || r->at.state.step % every == 0);
}

/* Steps until the schedule, run.max_steps, a signal or an error ends them. State is consistent wherever this returns:
 * weights and position change together in ask_step, and finish collects what is still on its way.
 * The stop signal is looked at between steps only, so a step is either done or not begun. */
static xkd_status steps(run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    int64_t end = xkd_position_end(&r->at);
    while (r->at.state.step < end) {
        xkd_pass_input in;
        int stop;
        XKD_TRY(ask_step(r, &in));
        XKD_TRY(collect(r, may_stay_open(r, end)));
        XKD_TRY(agree(r, &stop));
        /* With the data of the step just done, after its update. */
        if (picture_is_due(r, r->at.state.step == end || stop)) {
            XKD_TRY(collect(r, 0));
            XKD_TRY(xkd_show_reconstruction(cx, r->trainer, &in, r->metrics, r->at.state.step));
        }
        if (r->writes && xkd_position_save_is_due(&r->at)) {
            XKD_TRY(collect(r, 0));
            XKD_TRY(xkd_position_save(&r->at));
        }
        if (stop) XKD_TRY(collect(r, 0));
        XKD_TRY(xkd_position_heed(&r->at, stop));
    }
fail:
    return status;
}

/* Numbers of this call for the caller, and of the whole run where a resume would hide them.
 * A call that did nothing, at the end of the schedule, has no loss. */
static void summarise(const run *r, xkd_run_result *out)
{
    xkd_loader_statistics data;
    xkd_loader_stats(r->loader, &data);
    double seconds = xkd_now() - r->at.started;
    int64_t done = r->at.state.step - r->at.first_step;
    *out = (xkd_run_result){.step = r->at.state.step,
                            .total_steps = r->at.total,
                            .bad_steps = r->at.state.bad_steps,
                            .bad_clips = data.bad_clips,
                            .loss = done > 0 ? r->values[XKD_LOSS_TOTAL] : NAN,
                            .seconds = seconds};
    for (int64_t i = 0; i < xkd_trainer_look(r->trainer)->networks.params.count; i++)
        out->parameters += xkd_trainer_look(r->trainer)->networks.params.rows[i]->count;
    out->samples_per_second = (double)(done * r->config.train.batch) / seconds;
    out->data_share = r->at.waited / seconds;
}

/* Saves what there is, whatever ended the steps; the first error is the one that counts.
 * An interrupted run is saved and reported like a finished one; only the backbones are exported at the end
 * alone. */
static xkd_status finish(run *r, xkd_status status, xkd_run_result *result)
{
    /* What has been asked for is part of the run, whatever came after it. A fault that shows only now is the one that counts: the
     * weights may be its. */
    if (xkd_status_allows_save(status)) {
        xkd_status last = collect(r, 0);
        if (!xkd_status_allows_save(last) || status == XKD_OK) status = last;
    }
    if (r->options->progress) r->options->progress(r->options->user, NULL);
    summarise(r, result);
    if (!r->writes) return status;
    /* The run keeps its last checkpoint, and the first message is the one that is shown. */
    if (!xkd_status_allows_save(status)) return status;
    xkd_status saved = xkd_position_save(&r->at);
    if (saved == XKD_OK && status == XKD_OK)
        saved = xkd_export_backbones(r->cx, r->folder.backbones, &xkd_trainer_look(r->trainer)->networks.params,
                                     r->config.data.left_out);
    /* Of the files, not of memory: a resumed run shows its curves from the first step. */
    if (saved == XKD_OK) saved = xkd_report_write(r->cx, r->folder.path, r->at.total, NULL);
    return status != XKD_OK ? status : saved;
}

/* In the opposite order of start: the loader's threads use what the feed does not own, and its batches may lie in memory of
 * the device's.
 * Every part may be unopened. */
static void release(run *r)
{
    xkd_metrics_close(r->metrics);
    xkd_probe_free(r->probe); /* borrows the trainer */
    xkd_trainer_free(r->trainer);
    if (r->feed.config) xkd_feed_free(&r->feed);
    xkd_loader_free(r->loader);
    xkd_dist_part_devices(r->dist);
    xkd_backend_free(r->backend);
    xkd_run_folder_close(&r->folder);
    xkd_position_free(&r->at);
}

/* The configuration is copied by value, so the caller's is never changed. */
xkd_status xkd_train(xkd_context *cx, const xkd_config *config, const xkd_run_options *options, xkd_dist *dist,
                     xkd_run_result *result, bool *agreed)
{
    run r = {.cx = cx, .config = *config, .options = options, .dist = dist, .folder = {.lock = -1}};
    r.writes = xkd_dist_rank(dist) == 0;
    r.at =
        (xkd_run_position){.cx = cx, .backend = &r.backend, .config = &r.config, .folder = &r.folder, .saved_step = -1};
    *result = (xkd_run_result){0};
    xkd_status status = start(&r);
    if (status == XKD_OK) {
        status = steps(&r);
        status = finish(&r, status, result);
    }
    if (agreed) *agreed = xkd_ranks_end_alike(status, r.agreed);
    release(&r);
    return status;
}
