/* Pre-training: what a run (train/run.h) does in its way alone. Start reading at xkd_train at the end; each function above is one
 * of its parts. */
#include "train/loop.h"

#include <inttypes.h>
#include <math.h>

#include "backend/open.h"
#include "checkpoint/params_file.h"
#include "train/feed.h"
#include "train/probe.h"
#include "train/ranks.h"
#include "train/run.h"
#include "train/schedule.h"
#include "train/show.h"
#include "train/step.h"
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

/* Everything that pre-training holds while it lasts. */
typedef struct {
    xkd_run run;
    xkd_feed feed;
    xkd_trainer *trainer;
    xkd_probe *probe;             /* NULL: not wanted */
    const char *columns[COLUMNS]; /* names of all columns, for the metrics writer */
    double values[COLUMNS];
    xkd_watch watch[XKD_MODALITIES];
    xkd_schedule_values schedules[XKD_STEPS_OPEN]; /* of the steps that are not collected, by their number */
    xkd_pass_input in;                             /* the last micro-batch that was fed */
} pretraining;

/* A last batch of an epoch may be smaller where drop_last is off. */
static xkd_status fit_pass(pretraining *p, int64_t B)
{
    const xkd_batch_shape shape = xkd_feed_shape(&p->feed, B);
    return xkd_trainer_fit(p->run.cx, p->trainer, &shape);
}

/* Plans for full micro-batches and for the last ones of an epoch. report_all is off: terms of coefficient 0 cost nothing. */
static xkd_status make_trainer(pretraining *p)
{
    xkd_status status = XKD_OK;
    xkd_run *r = &p->run;
    xkd_batch_shape shape = xkd_feed_shape(&p->feed, p->feed.samples);
    int64_t last = xkd_loader_last_count(r->loader);
    XKD_TRY(xkd_dist_meet_devices(r->dist, r->backend));
    XKD_TRY(xkd_trainer_new(r->cx, &p->trainer, r->backend, r->dist, &r->config, &shape, false));
    r->at.params = &xkd_trainer_look(p->trainer)->networks.params;
    if (last != p->feed.samples) XKD_TRY(fit_pass(p, last));
    XKD_TRY(fit_pass(p, p->feed.samples));
    /* A run that is resumed overwrites this with its own state. */
    if (r->config.run.init[0]) XKD_TRY(xkd_params_start_from(r->cx, r->at.params, r->config.run.init));
fail:
    return status;
}

/* The loader's threads start at once and fill batches while the model is being built. Batches that a device makes the views of
 * lie in memory that it reads, so the device comes first. */
static xkd_status open_data(pretraining *p)
{
    xkd_status status = XKD_OK;
    xkd_run *r = &p->run;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    bool there;
    XKD_TRY(xkd_config_device_views(cx, c, &there));
    XKD_TRY(xkd_backend_open(cx, &r->backend, c->device, c, (int)c->threads));
    XKD_TRY(xkd_loader_new_ranked(cx, &c->data, &c->train, r->dist, there, r->backend->memory, &r->loader));
    XKD_TRY(xkd_feed_new(cx, &p->feed, c, r->loader));
fail:
    return status;
}

/* Opens data and model, then the run.
 * Whatever fails here leaves it to `release`, which takes any half-open state. */
static xkd_status start(pretraining *p)
{
    xkd_status status = XKD_OK;
    xkd_run *r = &p->run;
    xkd_context *cx = r->cx;
    const xkd_config *c = &r->config;
    XKD_TRY(xkd_config_write(cx, c, &r->at.state.config));
    xkd_run_fill_in_machine(&r->config);
    XKD_TRY(open_data(p));
    XKD_TRY(make_trainer(p));
    if (c->run.probe_epochs && r->writes) XKD_TRY(xkd_probe_new(cx, c, p->trainer, &p->probe));
    for (int i = 0; i < COLUMNS; i++)
        p->columns[i] = i < XKD_LOSS_COUNT ? xkd_loss_names[i]
                        : i < PROBE        ? column_names[i]
                                           : xkd_probe_names[i - PROBE];
    for (int m = 0; m < XKD_MODALITIES; m++) p->watch[m] = (xkd_watch){.outputs = c->model.head.outputs};
    XKD_TRY(xkd_run_enter(r));
fail:
    return status;
}

/* How a step is shared, for rank 0's log. */
static xkd_status tell_shares(void *self)
{
    const xkd_run *r = &((pretraining *)self)->run;
    const xkd_train_config *t = &r->config.train;
    if (!r->dist) return XKD_OK;
    xkd_log(r->cx, XKD_LOG_INFO,
            "a step is %" PRId64 " samples, %" PRId64 " a rank in %" PRId64 " micro-batches of %" PRId64
            "; on %s, %" PRId64 " threads a rank",
            t->batch, t->batch / t->ranks, t->accumulate, t->batch / t->parts, r->config.device, r->config.threads);
    return XKD_OK;
}

/* One optimiser step: `accumulate` micro-batches, then the update. */
static xkd_status ask(void *self, xkd_asked_step *a)
{
    xkd_status status = XKD_OK;
    pretraining *p = self;
    xkd_run *r = &p->run;
    const xkd_batch *batch;
    xkd_schedule_values *s = &p->schedules[a->step % XKD_STEPS_OPEN];
    /* Schedules depend on the step alone, so a resumed run has the values it would have had. */
    xkd_schedule_at(&r->config.train, r->at.state.step, r->at.steps_per_epoch, s);
    const xkd_step_values values = {.lr = s->lr,
                                    .weight_decay = s->weight_decay,
                                    .ema = {s->ema[0], s->ema[1]},
                                    .temp = {.teacher_temp = {s->teacher_temp[0], s->teacher_temp[1]},
                                             .student_temp = {s->student_temp[0], s->student_temp[1]}},
                                    .epoch = s->epoch};
    xkd_step_begin(p->trainer, &values);
    for (int64_t i = 0; i < r->config.train.accumulate; i++) {
        XKD_TRY(xkd_feed_next(r->cx, &p->feed, &batch, &p->in));
        XKD_TRY(fit_pass(p, batch->count));
        xkd_step_micro_batch(p->trainer, &p->in);
        a->wait += batch->wait_seconds;
        a->samples += (double)batch->count;
    }
    XKD_TRY(xkd_step_finish(p->trainer));
fail:
    return status;
}

/* Measures both teachers and passes on what the collapse watch has to say. A skipped step has nothing to say.
 * The advice goes to the log and the run goes on: whether to stop is the user's decision. */
static xkd_status watch(pretraining *p, const xkd_step_result *result)
{
    static const char *const names[] = {"video", "audio"};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_watch_sample s = xkd_watch_measure(p->trainer, result, m);
        p->values[VIDEO_ENTROPY + m] = s.entropy;
        p->values[VIDEO_CENTRE + m] = s.centre_norm;
        p->values[VIDEO_SPREAD + m] = s.spread;
        const char *advice = result->skipped ? NULL : xkd_watch_step(&p->watch[m], &s);
        if (!advice) continue;
        xkd_status status = xkd_metrics_line(
            p->run.metrics,
            "collapse watch, %s teacher: %s (distillation %.3g, ln K %.3g, entropy %.3g, centre %.3g, "
            "spread %.3g)",
            names[m], advice, s.kd, log((double)p->watch[m].outputs), s.entropy, s.centre_norm, s.spread);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

static xkd_status collect(void *self, xkd_asked_step *a)
{
    pretraining *p = self;
    double *v = p->values;
    const xkd_schedule_values *s = &p->schedules[a->step % XKD_STEPS_OPEN];
    xkd_step_result result;
    xkd_status status = xkd_step_collect(p->trainer, &result);
    if (status != XKD_OK) return status;
    for (int i = 0; i < XKD_LOSS_COUNT; i++) v[i] = result.loss[i];
    v[LR] = s->lr;
    v[WD] = s->weight_decay;
    v[VID_EMA] = s->ema[XKD_VIDEO];
    v[AUD_EMA] = s->ema[XKD_AUDIO];
    v[VIDEO_TEACHER_TEMP] = s->teacher_temp[XKD_VIDEO];
    v[VIDEO_STUDENT_TEMP] = s->student_temp[XKD_VIDEO];
    v[AUDIO_TEACHER_TEMP] = s->teacher_temp[XKD_AUDIO];
    v[AUDIO_STUDENT_TEMP] = s->student_temp[XKD_AUDIO];
    v[GRAD_NORM] = result.grad_norm;
    a->skipped = result.skipped;
    return watch(p, &result);
}

/* Where it is due, the teachers' figures join the row of the step just done; other rows have none. Files that have become
 * unreadable since the start cost the figures, not the run. */
static xkd_status probe(void *self, const xkd_asked_step *a)
{
    pretraining *p = self;
    xkd_run *r = &p->run;
    double *v = p->values + PROBE;
    for (int i = 0; i < XKD_PROBE_FIGURES; i++) v[i] = NAN;
    if (!a->closes_an_epoch || !r->writes || !xkd_probe_is_due(p->probe, a->epoch + 1)) return XKD_OK;
    xkd_status status = xkd_probe_run(p->probe, v);
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

static xkd_status show(void *self)
{
    pretraining *p = self;
    return xkd_show_reconstruction(p->run.cx, p->trainer, &p->in, p->run.metrics, p->run.at.state.step);
}

/* Only the backbones are exported at the end alone. */
static xkd_status leave(void *self, xkd_status status)
{
    const xkd_run *r = &((pretraining *)self)->run;
    if (status != XKD_OK) return XKD_OK;
    return xkd_export_backbones(r->cx, r->folder.backbones, r->at.params, r->config.data.left_out);
}

/* In the opposite order of start: the loader's threads use what the feed does not own, and its batches may lie in memory of
 * the device's.
 * Every part may be unopened. */
static void release(pretraining *p)
{
    xkd_probe_free(p->probe); /* borrows the trainer */
    xkd_trainer_free(p->trainer);
    if (p->feed.config) xkd_feed_free(&p->feed);
    xkd_loader_free(p->run.loader);
    xkd_run_close(&p->run);
}

static const xkd_run_kind kind = {.columns = COLUMNS,
                                  .loss = XKD_LOSS_TOTAL,
                                  .lr = LR,
                                  .skipped = SKIPPED,
                                  .time = TIME,
                                  .more = {{"recon", XKD_LOSS_RECON}, {"kd", XKD_LOSS_KD}, {"align", XKD_LOSS_ALIGN}},
                                  .remedy = "lower hyperparams.lr.base_lr or raise the temperatures",
                                  .enter = tell_shares,
                                  .ask = ask,
                                  .collect = collect,
                                  .measure = probe,
                                  .show = show,
                                  .leave = leave};

/* The configuration is copied by value, so the caller's is never changed. */
xkd_status xkd_train(xkd_context *cx, const xkd_config *config, const xkd_run_options *options, xkd_dist *dist,
                     xkd_run_result *result, bool *agreed)
{
    pretraining p = {0};
    xkd_run_init(&p.run, cx, &kind, &p, options, dist);
    p.run.title = "pretrain";
    p.run.config = *config;
    p.run.columns = p.columns;
    p.run.values = p.values;
    *result = (xkd_run_result){0};
    xkd_status status = start(&p);
    if (status == XKD_OK) status = xkd_run_go(&p.run, result);
    if (agreed) *agreed = xkd_ranks_end_alike(status, p.run.agreed);
    release(&p);
    return status;
}
