/* A run from its folder to its end; start reading at xkd_run_go. The order of a step is: test, ask, advance the position, collect,
 * report, agree, perhaps show, save and stop.
 *
 * Where the backend works while the host does other things, a step's numbers are collected when the next step has been asked
 * for: neither waits for the other. Whatever looks at the run itself - a save, a stop, the probe, pictures, the line of an
 * epoch - collects first. */
#include "train/run.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "report/html.h"
#include "report/progress.h"
#include "train/ranks.h"

void xkd_run_init(xkd_run *r, xkd_context *cx, const xkd_run_kind *kind, void *self, const xkd_run_options *options,
                  xkd_dist *dist)
{
    *r = (xkd_run){.cx = cx, .kind = kind, .self = self, .options = options, .dist = dist, .folder = {.lock = -1}};
    r->writes = xkd_dist_rank(dist) == 0;
    r->at = (xkd_run_position){
        .cx = cx, .backend = &r->backend, .config = &r->config, .folder = &r->folder, .saved_step = -1};
}

/* The folder comes after everything that may be refused: a mistake leaves nothing behind. Rank 0 has it to itself, and all
 * others get what it reads there. */
xkd_status xkd_run_enter(xkd_run *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    xkd_run_state *s = &r->at.state;
    bool resumed = r->options->mode == XKD_RUN_RESUME;
    r->at.steps_per_epoch = xkd_loader_steps_per_epoch(r->loader);
    r->at.total = c->train.epochs * r->at.steps_per_epoch;
    s->seed = c->train.seed;
    s->data_hash = xkd_loader_data_hash(r->loader);
    XKD_TRY(xkd_ranks_compare(cx, r->dist, s, xkd_loader_sample_count(r->loader)));
    if (c->train.wire_bfloat16) XKD_TRY(xkd_dist_halve(r->dist));
    if (r->writes) {
        XKD_TRY(xkd_run_folder_open(cx, c->run.out, r->options->mode, &r->folder));
        XKD_TRY(xkd_loader_set_folder(r->loader, r->folder.path));
        if (r->kind->enter) XKD_TRY(r->kind->enter(r->self));
        if (resumed) XKD_TRY(xkd_position_restore(&r->at));
    }
    if (r->kind->open_logs) XKD_TRY(r->kind->open_logs(r->self));
    if (r->writes) XKD_TRY(xkd_run_folder_write_config(cx, &r->folder, s->config));
    if (resumed || c->run.init[0]) XKD_TRY(xkd_ranks_share_params(cx, r->dist, r->at.params));
    XKD_TRY(xkd_ranks_share_state(r->dist, s));
    /* The first batch over and over is that of epoch 0. */
    if (resumed && !c->run.overfit) XKD_TRY(xkd_loader_seek(r->loader, (uint32_t)s->epoch, s->epoch_step));
    /* Rows behind the checkpoint's step are dropped: those steps are done again. */
    if (r->writes)
        XKD_TRY(xkd_metrics_open(cx, r->folder.path, r->columns, r->kind->columns, resumed ? s->step : -1, s->epoch,
                                 c->run.tensorboard, &r->metrics));
    /* The call begins here. No step of it has been skipped: what an earlier one could not do may go well at another rate. */
    r->at.first_step = s->step;
    r->at.started = r->at.saved_time = xkd_now();
    XKD_TRY(xkd_alloc(cx, &r->at.skipped, c->run.bad_step_window, sizeof *r->at.skipped));
fail:
    return status;
}

/* ---- a step ---- */

static xkd_asked_step *asked(xkd_run *r, int64_t step)
{
    return &r->asked[step % XKD_STEPS_OPEN];
}

/* From here on the weights are those of the next step (or unchanged, if it is skipped). */
static xkd_status ask(xkd_run *r)
{
    const xkd_run_state *s = &r->at.state;
    xkd_asked_step *a = asked(r, s->step + 1);
    *a = (xkd_asked_step){.step = s->step + 1, .epoch = s->epoch, .begin = xkd_now()};
    xkd_status status = r->kind->ask(r->self, a);
    if (status != XKD_OK) return status;
    a->closes_an_epoch = xkd_position_advance(&r->at);
    r->open++;
    return XKD_OK;
}

/* The line for people, every progress.print_freq steps and at the end. Figures of the last step only, not means: the curves are
 * in the metrics files. */
static xkd_status print_line(xkd_run *r, const xkd_asked_step *a)
{
    const double *v = r->values, *time = v + r->kind->time;
    char more[100] = "";
    if (a->step % r->config.run.print_steps != 0 && a->step != r->at.total) return XKD_OK;
    for (int i = 0; i < 3 && r->kind->more[i].name; i++) {
        size_t used = strlen(more);
        snprintf(more + used, sizeof more - used, " %s %.4f", r->kind->more[i].name, v[r->kind->more[i].column]);
    }
    return xkd_metrics_line(
        r->metrics, "epoch %" PRId64 " step %" PRId64 "/%" PRId64 " loss %.4f%s lr %.3g %.1f samples/s data %.0f %%",
        a->epoch + a->closes_an_epoch, a->step, r->at.total, v[r->kind->loss], more, v[r->kind->lr], time[2],
        time[0] > 0 ? 100 * time[1] / time[0] : 0);
}

/* The bar counts from where this call began, so that the time left is right after a resume. Waiting is a share of the training
 * time. Called every step; the receiver decides how often it draws. */
static void show_progress(xkd_run *r, const xkd_asked_step *a)
{
    char spark[4 * XKD_SPARK_CELLS], tail[200], line[300];
    if (!r->options->progress || !r->writes) return;
    double seconds = xkd_now() - r->at.started, loss = r->values[r->kind->loss];
    xkd_sparkline_add(&r->loss, loss);
    xkd_sparkline_draw(&r->loss, spark, sizeof spark);
    snprintf(tail, sizeof tail, "loss %.4f %s  data %.0f %%  %.1f samples/s", loss, spark,
             100 * r->at.waited / (seconds - r->aside), r->values[r->kind->time + 2]);
    xkd_progress_line(line, sizeof line, r->title, r->at.first_step, a->step, r->at.total, seconds, tail);
    r->options->progress(r->options->user, line);
}

/* Everything that a step's numbers are for. The time of a step that was asked for while another was on its way counts from when
 * that one was collected. Times include the wait for data. A row carries the epoch in which its step lies, not the next one. */
static xkd_status take_in(xkd_run *r, const xkd_asked_step *a)
{
    xkd_status status = XKD_OK;
    double *v = r->values, *time = v + r->kind->time;
    double now = xkd_now(), seconds = now - fmax(a->begin, r->collected);
    r->collected = now;
    r->samples += a->samples;
    time[0] = seconds;
    time[1] = a->wait;
    time[2] = a->samples * xkd_dist_size(r->dist) / seconds;
    xkd_position_count(&r->at, a->step, seconds, a->wait, v[r->kind->loss], a->skipped);
    v[r->kind->skipped] = (double)r->at.state.bad_steps;
    if (r->kind->measure) XKD_TRY(r->kind->measure(r->self, a));
    XKD_TRY(xkd_metrics_step(r->metrics, a->step, a->epoch, v));
    if (a->closes_an_epoch) XKD_TRY(xkd_position_log_epoch(&r->at, r->metrics));
    XKD_TRY(print_line(r, a));
    show_progress(r, a);
    /* Isolated bad steps are survived; a run that keeps producing them is not training. The bad values
     * never reached the weights. */
    if (a->skipped) XKD_TRY(xkd_position_skipped(&r->at, a->step, r->kind->remedy));
fail:
    return status;
}

/* Collects steps, the oldest first, until no more than `open` are on their way. */
static xkd_status collect(xkd_run *r, int open)
{
    xkd_status status = XKD_OK;
    while (status == XKD_OK && r->open > open) {
        xkd_asked_step *a = asked(r, r->at.state.step - --r->open);
        status = r->kind->collect(r->self, a);
        if (status == XKD_OK) status = take_in(r, a);
    }
    return status;
}

/* Behind a step that was just asked for: how many may stay on their way. Ranks wait for each other in every step, and must end
 * for the same one. */
static int may_stay_open(const xkd_run *r, int64_t end)
{
    const xkd_run_state *s = &r->at.state;
    if (!xkd_memory_is_late(r->backend->memory) || r->dist) return 0;
    return s->epoch_step == 0 || s->step == end ? 0 : 1;
}

/* ---- all steps ---- */

/* What all ranks do alike behind a step: the largest signal that any of them has, and the files that any could not read.
 * An end that follows from it is no loss of a rank. */
static xkd_status agree(xkd_run *r, int *stop)
{
    int64_t signal = r->options->stop_signal ? r->options->stop_signal(r->options->user) : 0;
    xkd_status status = xkd_dist_largest(r->dist, &signal, 1);
    *stop = (int)signal;
    if (status == XKD_OK) status = xkd_loader_share(r->loader, r->dist);
    r->agreed = status == XKD_ERR_DATA;
    return status;
}

/* By run.save_steps or run.save_minutes, whichever comes first; 0 turns either off. */
static bool save_is_due(const xkd_run *r)
{
    const xkd_run_config *c = &r->config.run;
    if (c->save_steps > 0 && r->at.state.step % c->save_steps == 0) return true;
    return c->save_minutes > 0 && xkd_now() - r->at.saved_time >= 60 * c->save_minutes;
}

/* Two codes, because a scheduler's signal means `start me again` and the user's Ctrl-C does not. */
static xkd_status heed(const xkd_run *r, int signal)
{
    if (!signal || r->at.state.step >= xkd_position_end(&r->at)) return XKD_OK;
    return xkd_fail(r->cx, signal == SIGINT ? XKD_ERR_INTERRUPTED : XKD_ERR_PREEMPTED,
                    "stopped by signal %d at step %" PRId64 " of %" PRId64 "; the run is saved: --resume goes on",
                    signal, r->at.state.step, r->at.total);
}

/* Pictures at the end are worth a forward pass even where the interval has not come round. */
static bool picture_is_due(const xkd_run *r, bool last)
{
    int64_t every = r->config.run.picture_steps;
    return r->kind->show && r->writes && every > 0 && (last || r->at.state.step % every == 0);
}

/* Steps until the schedule, run.max_steps, a signal or an error ends them. State is consistent wherever this returns:
 * weights and position change together in `ask`, and what is still on its way is collected behind it.
 * The stop signal is looked at between steps only, so a step is either done or not begun. A test stands at the head of the loop,
 * so that a run that was stopped during one makes it when it goes on. */
static xkd_status steps(xkd_run *r)
{
    xkd_status status = XKD_OK;
    int64_t end = xkd_position_end(&r->at);
    for (;;) {
        int stop;
        if (r->kind->test) XKD_TRY(r->kind->test(r->self));
        if (r->at.state.step >= end) break;
        XKD_TRY(ask(r));
        XKD_TRY(collect(r, may_stay_open(r, end)));
        XKD_TRY(agree(r, &stop));
        bool shows = picture_is_due(r, r->at.state.step == end || stop), saves = r->writes && save_is_due(r);
        if (shows || saves || stop) XKD_TRY(collect(r, 0));
        if (shows) XKD_TRY(r->kind->show(r->self));
        if (saves) XKD_TRY(xkd_position_save(&r->at));
        XKD_TRY(heed(r, stop));
    }
fail:
    return status;
}

/* Numbers of this call for the caller, and of the whole run where a resume would hide them.
 * A call that did nothing, at the end of the schedule, has no loss. */
static void summarise(const xkd_run *r, xkd_run_result *out)
{
    xkd_loader_statistics data;
    xkd_loader_stats(r->loader, &data);
    double seconds = xkd_now() - r->at.started, training = seconds - r->aside;
    *out = (xkd_run_result){.step = r->at.state.step,
                            .total_steps = r->at.total,
                            .bad_steps = r->at.state.bad_steps,
                            .bad_clips = data.bad_clips,
                            .loss = r->at.state.step > r->at.first_step ? r->values[r->kind->loss] : NAN,
                            .seconds = seconds,
                            .samples_per_second = r->samples * xkd_dist_size(r->dist) / training,
                            .data_share = r->at.waited / training};
    for (int64_t i = 0; i < r->at.params->count; i++) out->parameters += r->at.params->rows[i]->count;
}

/* A stop, a fault of the data or of the numbers leaves the weights of the last step. After any other status they may be those of
 * no step, or cannot be read or written. It is a list of what is known to be harmless: a status that is added later does not
 * save until somebody has thought of it. */
static bool allows_save(xkd_status status)
{
    return status == XKD_OK || status == XKD_ERR_DATA || status == XKD_ERR_NUMERIC || status == XKD_ERR_PREEMPTED ||
           status == XKD_ERR_INTERRUPTED;
}

/* An interrupted run is saved and reported like a finished one. */
xkd_status xkd_run_go(xkd_run *r, xkd_run_result *result)
{
    xkd_status status = steps(r), saved;
    /* What has been asked for is part of the run, whatever came after it. A fault that shows only now is the one that counts: the
     * weights may be its. */
    if (allows_save(status)) {
        xkd_status last = collect(r, 0);
        if (!allows_save(last) || status == XKD_OK) status = last;
    }
    if (r->options->progress) r->options->progress(r->options->user, NULL);
    summarise(r, result);
    /* Else the run keeps its last checkpoint, and the first message is the one that is shown. */
    if (!r->writes || !allows_save(status)) return status;
    saved = xkd_position_save(&r->at);
    if (saved == XKD_OK && r->kind->leave) saved = r->kind->leave(r->self, status);
    /* Of the files, not of memory: a resumed run shows its curves from the first step. */
    if (saved == XKD_OK) saved = xkd_report_write(r->cx, r->folder.path, r->at.total, NULL);
    return status != XKD_OK ? status : saved;
}

void xkd_run_close(xkd_run *r)
{
    xkd_metrics_close(r->metrics);
    xkd_dist_part_devices(r->dist);
    xkd_backend_free(r->backend);
    xkd_run_folder_close(&r->folder);
    xkd_position_free(&r->at);
}
