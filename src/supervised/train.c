/* Supervised training: what a run (train/run.h) does in its way alone; start reading at xkd_supervised_train at the end. */
#include "supervised/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "train/ranks.h"
#include "train/run.h"
#include "train/schedule.h"
#include "supervised/test.h"

enum { LOSS, LR, WD, TIME, DATA, SAMPLES_PER_SECOND, SKIPPED, COLUMNS }; /* columns of the metrics, in this order */
static const char *const columns[COLUMNS] = {"loss", "lr", "wd", "Time", "Data", "samples_per_second", "skipped"};

/* Everything that supervised training holds while it lasts. */
typedef struct {
    xkd_run run;
    const xkd_supervised_options *options; /* the caller's; outlives the run */
    bool look;                             /* nothing but a plan: memory for a batch is not taken */
    xkd_supervised_data data;
    xkd_finetune net;
    xkd_test_log tests; /* tests.jsonl: the figures of all tests of the run */
    double values[COLUMNS];
    /* Learning rate and weight decay of the steps that are not collected, by their number. */
    double rates[XKD_STEPS_OPEN][2];
    xkd_supervised_result *result; /* the caller's; filled by tests and at the end */
} training;

/* ---- opening ---- */

/* Private copy of the configuration: texts of the options win, views become one. */
static void take_options(training *t, const xkd_supervised_options *o)
{
    xkd_config *c = &t->run.config;
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
static xkd_status choose_modality(training *t, xkd_modality *m)
{
    xkd_status status = XKD_OK;
    xkd_config *c = &t->run.config, own = {0};
    bool has[XKD_MODALITIES];
    /* The model is opened twice in all, here for what it has and in make_net for its values: the data, which come
     * between the two, depend on the modality. */
    XKD_TRY(xkd_config_init(t->run.cx, &own));
    XKD_TRY(xkd_encoder_describe(t->run.cx, c->run.init, &own, has));
    /* A plain request for one modality is not overruled by what the model has: the encoder's reader refuses it. */
    *m = c->eval.return_video != c->eval.return_audio && !(c->eval.return_video ? has[XKD_VIDEO] : has[XKD_AUDIO])
             ? (c->eval.return_video ? XKD_VIDEO : XKD_AUDIO)
             : xkd_supervised_modality(c, has);
    c->eval.return_video = *m == XKD_VIDEO;
    c->eval.return_audio = *m == XKD_AUDIO;
    XKD_TRY(xkd_config_choose_duration(t->run.cx, (const bool[]){*m == XKD_VIDEO, *m == XKD_AUDIO}, c));
fail:
    xkd_config_free(&own);
    return status;
}

/* What the command line may leave out, before any file is opened: with the remedy, not only the key. */
static xkd_status check_settings(training *t)
{
    xkd_context *cx = t->run.cx;
    const xkd_config *c = &t->run.config;
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
static int64_t look_batch(const training *t)
{
    return t->run.config.eval.batch_norm ? 2 : 1;
}

static xkd_status make_net(training *t)
{
    xkd_status status = XKD_OK;
    xkd_config *c = &t->run.config;
    /* The geometry is the configuration's, which took it from the model's own. */
    const xkd_encoder_source source = {.path = c->run.init,
                                       .modality = t->data.modality,
                                       .student = c->eval.student,
                                       .geometry = &c->model,
                                       .heads = t->options->heads};
    xkd_view_shape shape = xkd_clip_shape(&c->data, t->data.modality);
    xkd_finetune_options options = xkd_finetune_options_of(c, t->data.multi_label);
    shape.B = t->look ? look_batch(t) : t->data.batch;
    XKD_TRY(xkd_backend_open(t->run.cx, &t->run.backend, c->device, c, (int)c->threads));
    XKD_TRY(xkd_dist_meet_devices(t->run.dist, t->run.backend));
    XKD_TRY(xkd_finetune_new(t->run.cx, t->run.backend, &source, &shape, t->data.classes.count, &options, &t->net));
    XKD_TRY(xkd_finetune_share(t->run.cx, &t->net, t->run.dist, c->train.accumulate));
    /* The encoder's file knows its width, depth and class token; the configuration that is stored must say the same. */
    c->model = t->net.encoder.config;
fail:
    return status;
}

/* classes.json says what the rows of the classifier mean; a run goes on with no other list. Looked at before the state is
 * loaded, whose rows would not fit: that message would be about shapes. */
static xkd_status check_classes(void *self)
{
    xkd_status status = XKD_OK;
    training *t = self;
    xkd_context *cx = t->run.cx;
    char *path = NULL, *now = NULL, *before = NULL;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, t->run.folder.path, "classes.json"));
    XKD_TRY(xkd_class_names_write(cx, &t->data.classes, &now));
    if (t->run.options->mode == XKD_RUN_RESUME && xkd_path_exists(path)) {
        XKD_TRY(xkd_read_file(cx, path, (int64_t)64 << 20, XKD_ERR_CHECKPOINT, &before, &size));
        /* A row of the classifier would mean another class from one step to the next. */
        if (strcmp(before, now) != 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT,
                     "%s: the run was trained for other classes than %s names: resume with the manifest it began with",
                     path, t->run.config.data.path);
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
static xkd_status check_batch_norm(training *t)
{
    const xkd_train_config *c = &t->run.config.train;
    /* Clips of the last, smaller batch, per micro-batch. */
    int64_t rest = t->run.config.data.drop_last ? 0 : t->data.train->count * t->data.plan.passes % c->batch / c->parts;
    if (!t->run.config.eval.batch_norm || (t->data.batch > 1 && rest != 1)) return XKD_OK;
    return xkd_fail(t->run.cx, XKD_ERR_CONFIG,
                    "batch norm needs two clips in every (micro-)batch: change dataset.batch_size or set "
                    "dataset.train.drop_last");
}

/* The mean of softmax rows is a distribution; their maximum and sum are none. */
static xkd_status check_ensemble(training *t)
{
    if (t->data.multi_label || t->run.config.eval.ensemble == XKD_ENSEMBLE_MEAN) return XKD_OK;
    return xkd_fail(
        t->run.cx, XKD_ERR_CONFIG,
        "dataset.test.ensemble: max and sum are for several labels a file; with one label the clips' scores "
        "are averaged: mean");
}

/* Data and model, without a folder. */
static xkd_status open_parts(training *t)
{
    xkd_status status = XKD_OK;
    xkd_modality m;
    take_options(t, t->options);
    XKD_TRY(check_settings(t));
    XKD_TRY(choose_modality(t, &m));
    xkd_run_fill_in_machine(&t->run.config);
    XKD_TRY(
        xkd_supervised_data_open(t->run.cx, &t->run.config, m, t->options->manifest, t->run.dist, t->look, &t->data));
    XKD_TRY(check_batch_norm(t));
    XKD_TRY(check_ensemble(t));
    t->run.loader = t->data.loader;
    XKD_TRY(make_net(t));
fail:
    return status;
}

/* Lines of tests behind the checkpoint are dropped: those epochs are done again. */
static xkd_status open_logs(void *self)
{
    xkd_status status = XKD_OK;
    training *t = self;
    const xkd_run *r = &t->run;
    int64_t step = r->options->mode == XKD_RUN_RESUME ? r->at.state.step : -1;
    if (r->writes) status = xkd_test_log_open(r->cx, r->folder.path, step, &t->tests);
    return status == XKD_OK ? xkd_test_log_share(&t->tests, r->dist) : status;
}

/* Opens data and model, then the run. What fails leaves it to `release`. */
static xkd_status start(training *t)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = t->run.cx;
    const xkd_supervised_options *o = t->options;
    xkd_config written;
    if (!*o->config->run.out && !o->out) XKD_FAIL(XKD_ERR_CONFIG, "where to? --out names the run folder");
    XKD_TRY(open_parts(t));
    written = t->run.config;
    /* Numbers of threads and workers belong to the machine, and a resume may happen on another. */
    written.threads = o->config->threads; /* "auto" stays */
    written.data.workers = o->config->data.workers;
    XKD_TRY(xkd_config_write(cx, &written, &t->run.at.state.config));
    XKD_TRY(xkd_run_enter(&t->run));
fail:
    return status;
}

/* ---- saving ---- */

/* The classifier with its encoder, as `xkd predict` takes it; not a state to resume from. */
static xkd_status write_model(training *t, const char *name)
{
    char *path;
    if (!t->run.writes) return XKD_OK;
    xkd_status status = xkd_join_path(t->run.cx, &path, t->run.folder.path, name);
    if (status != XKD_OK) return status;
    status = xkd_classifier_write(t->run.cx, path, &t->net, &t->run.config, &t->data.classes);
    xkd_free(path);
    return status;
}

/* A test has left the model of its step. */
static xkd_status leave(void *self, xkd_status status)
{
    training *t = self;
    (void)status;
    return t->tests.last.step == t->run.at.state.step ? XKD_OK : write_model(t, "classifier.safetensors");
}

/* ---- testing ---- */

/* Behind every eval.frequency-th epoch and the last one; what was tested before a stop is not tested again. */
static bool test_is_due(const training *t)
{
    const xkd_run_state *s = &t->run.at.state;
    /* Only at the end of an epoch. last.step comes from the log as well, so a resumed run knows what was tested. */
    if (s->step == 0 || s->epoch_step != 0 || t->tests.last.step == s->step) return false;
    return s->epoch % t->run.config.eval.frequency == 0 || s->step == t->run.at.total;
}

/* Files are written before the state is saved: a stop between the two costs a second test, never a missing model. */
static xkd_status test(void *self)
{
    xkd_status status = XKD_OK;
    training *t = self;
    bool best;
    double begin = xkd_now();
    if (!test_is_due(t)) return XKD_OK;
    const xkd_tester tester = {.cx = t->run.cx,
                               .config = &t->run.config,
                               .data = &t->data,
                               .net = &t->net,
                               .run = &t->options->run,
                               .metrics = t->run.metrics,
                               .epoch = t->run.at.state.epoch,
                               .step = t->run.at.state.step,
                               .dist = t->run.dist};
    /* Batches of one size, whatever the epoch ended with: a product's rounding may depend on it. */
    if (t->net.B != t->data.batch) XKD_TRY(xkd_finetune_resize(t->run.cx, &t->net, t->data.batch));
    status = xkd_supervised_test(&tester, &t->tests, t->result, &best);
    /* Ranks that have put a test together end it alike; before that a fault is one rank's. */
    t->run.agreed =
        t->result->agreed && (status == XKD_ERR_DATA || status == XKD_ERR_INTERRUPTED || status == XKD_ERR_PREEMPTED);
    XKD_TRY(status);
    t->run.aside += xkd_now() - begin; /* tests are no training time: speeds are told without them */
    XKD_TRY(write_model(t, "classifier.safetensors"));
    if (best) XKD_TRY(write_model(t, "best.safetensors"));
    const xkd_test_scores *last = &t->tests.last;
    XKD_TRY(t->data.multi_label
                ? xkd_metrics_line(t->run.metrics, "test after epoch %" PRId64 ": mean average precision %.2f%s",
                                   last->epoch, last->map, best ? ", the best so far" : "")
                : xkd_metrics_line(t->run.metrics,
                                   "test after epoch %" PRId64 ": top-1 %.2f, top-5 %.2f, by clip %.2f and %.2f%s",
                                   last->epoch, last->top1, last->top5, last->clip_top1, last->clip_top5,
                                   best ? ", the best so far" : ""));
    /* So that a kill during the next epoch does not cost this test's epoch. */
    if (t->run.writes) XKD_TRY(xkd_position_save(&t->run.at));
fail:
    return status;
}

/* ---- steps ---- */

/* Gradients of all micro-batches of a step. */
static xkd_status micro_batches(training *t, xkd_asked_step *a)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = t->run.cx;
    const xkd_train_config *c = &t->run.config.train;
    for (int64_t i = 0; i < c->accumulate; i++) {
        float *clips;
        int64_t count;
        double seconds;
        XKD_TRY(xkd_supervised_next(&t->run.config, &t->data, &clips, &count, &seconds));
        a->wait += seconds;
        a->samples += (double)count;
        if (t->net.B != count) XKD_TRY(xkd_finetune_resize(cx, &t->net, count));
        if (i == 0) xkd_finetune_begin(&t->net); /* behind a new plan, which loses the batch norm's sums */
        /* The share makes gradients the mean over micro-batches. */
        XKD_TRY(xkd_finetune_micro_batch(cx, &t->net, clips, t->data.targets, 1 / (double)c->parts));
    }
fail:
    return status;
}

/* One optimiser step, of which nothing comes about where a loss or gradient is not finite. */
static xkd_status ask(void *self, xkd_asked_step *a)
{
    xkd_status status = XKD_OK;
    training *t = self;
    const xkd_run *r = &t->run;
    const xkd_train_config *c = &r->config.train;
    int64_t done = r->at.state.step;
    double *rates = t->rates[a->step % XKD_STEPS_OPEN];
    /* Rates by the step alone: a resumed run has the values it would have had. */
    rates[0] = xkd_supervised_rate(c, &r->config.eval, done, r->at.steps_per_epoch);
    rates[1] = xkd_schedule_value(&c->weight_decay, done, r->at.steps_per_epoch, c->epochs);
    t->net.step = done; /* names the draws: a resumed run has those too */
    XKD_TRY(micro_batches(t, a));
    XKD_TRY(xkd_finetune_finish(r->cx, &t->net, rates[0], rates[1]));
fail:
    return status;
}

static xkd_status collect(void *self, xkd_asked_step *a)
{
    training *t = self;
    const double *rates = t->rates[a->step % XKD_STEPS_OPEN];
    t->values[LR] = rates[0];
    t->values[WD] = rates[1];
    return xkd_finetune_collect(&t->net, &t->values[LOSS], &a->skipped);
}

/* ---- the end ---- */

/* Figures of the tests are of the whole run, since the log is. */
static void summarise(training *t)
{
    xkd_supervised_result *out = t->result;
    out->multi_label = t->data.multi_label;
    out->classes = t->data.classes.count;
    out->train_files = t->data.train->count;
    out->test_files = t->data.test.count;
    out->in_both = t->data.in_both;
    out->last = t->tests.last;
    out->best = t->tests.best;
    out->finished = out->run.step == out->run.total_steps && out->last.step == out->run.total_steps;
}

/* After all is saved: the log of a long run may be damaged or of any size, and its count is no reason to lose a step. An
 * earlier error keeps its message. Only memory that is refused is an error, as everywhere. */
static xkd_status count_replaced(training *t)
{
    xkd_context *cx = t->run.cx;
    bool failed = *xkd_last_error(cx);
    xkd_status status = xkd_loader_bad_files(t->data.loader, &t->result->replaced);
    if (status == XKD_OK) return XKD_OK;
    t->result->replaced = -1;
    if (status == XKD_ERR_MEMORY) return status;
    xkd_log(cx, XKD_LOG_WARN, "how many training files were replaced is unknown: %s",
            failed ? "bad_clips.jsonl cannot be read" : xkd_last_error(cx));
    if (!failed) xkd_clear_error(cx);
    return XKD_OK;
}

/* In the opposite order of `start`; every part may be unopened. */
static void release(training *t)
{
    xkd_test_log_close(&t->tests);
    xkd_finetune_free(&t->net);
    xkd_supervised_data_free(&t->data);
    xkd_run_close(&t->run);
}

static const xkd_run_kind kind = {.columns = COLUMNS,
                                  .loss = LOSS,
                                  .lr = LR,
                                  .skipped = SKIPPED,
                                  .time = TIME,
                                  .remedy = "lower hyperparams.lr.base_lr",
                                  .enter = check_classes,
                                  .open_logs = open_logs,
                                  .ask = ask,
                                  .collect = collect,
                                  .test = test,
                                  .leave = leave};

/* Descriptors start at -1: 0 would be closed by `release` of a training that opened nothing. */
static void init(training *t, xkd_context *cx, const xkd_supervised_options *options, xkd_dist *dist,
                 xkd_supervised_result *result)
{
    *t = (training){.options = options, .tests = {.cx = cx, .fd = -1}, .result = result};
    xkd_run_init(&t->run, cx, &kind, t, &options->run, dist);
    t->run.at.params = &t->net.encoder.params;
    t->run.columns = columns;
    t->run.values = t->values;
}

xkd_status xkd_supervised_train(xkd_context *cx, const xkd_supervised_options *options, xkd_supervised_result *result)
{
    training t;
    init(&t, cx, options, options->dist, result);
    *result = (xkd_supervised_result){.interval = {NAN, NAN, NAN}};
    xkd_status status = start(&t);
    if (status == XKD_OK) {
        status = xkd_run_go(&t.run, &result->run);
        summarise(&t);
        xkd_status counted = t.run.writes ? count_replaced(&t) : XKD_OK;
        if (status == XKD_OK) status = counted;
    }
    result->agreed = xkd_ranks_end_alike(status, t.run.agreed);
    release(&t);
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
static xkd_status time_clip(training *t, double *seconds)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = t->run.cx;
    float *clips = NULL;
    double loss, begin;
    int64_t B = look_batch(t);
    XKD_TRY(xkd_alloc(cx, &clips, B * t->data.clip_floats, sizeof *clips));
    XKD_TRY(xkd_finetune_resize(cx, &t->net, B));
    /* A short step is done twice, since the first one touches memory for the first time. */
    for (int round = 0; round < 2 && *seconds < 1; round++) {
        begin = xkd_now();
        XKD_TRY(xkd_finetune_step(cx, &t->net, clips, t->data.targets, 0, 0, &loss));
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
    training t;
    init(&t, cx, options, NULL, NULL);
    t.look = true;
    XKD_TRY(open_parts(&t));
    const xkd_params *params = &t.net.encoder.params;
    int64_t steps = xkd_loader_steps_per_epoch(t.data.loader);
    *plan = (xkd_supervised_plan){.modality = t.data.modality,
                                  .multi_label = t.data.multi_label,
                                  .classes = t.data.classes.count,
                                  .train_files = t.data.train->count,
                                  .test_files = t.data.test.count,
                                  .steps_per_epoch = steps,
                                  .total_steps = steps * t.run.config.train.epochs,
                                  .tokens = t.net.run.items[0].tokens,
                                  .batch = t.run.config.train.batch,
                                  .loader_bytes = (double)xkd_loader_ring_bytes(t.data.loader),
                                  .available_bytes = (double)xkd_available_memory()};
    plan->state_bytes = (double)(params->values.size + params->copies.size + params->grads.size + params->moments.size);
    for (int64_t i = 0; i < params->count; i++) {
        plan->parameters += params->rows[i]->count;
        plan->trained += params->rows[i]->role == XKD_ROLE_TRAINED ? params->rows[i]->count : 0;
    }
    /* Last, since they plan the network anew. */
    XKD_TRY(xkd_finetune_measure(cx, &t.net, t.data.batch, &plan->activation_bytes));
    XKD_TRY(time_clip(&t, &plan->seconds));
    plan->seconds *= (double)(plan->total_steps * t.run.config.train.batch);
fail:
    release(&t);
    return status;
}
