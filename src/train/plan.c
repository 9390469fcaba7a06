/* What a run would cost, found out without starting it.
 * Counts come from the declared model, memory from two small plans, time from one small step on random data,
 * and that only where the memory is there. Nothing touches the run folder. */
#include <stdio.h>
#include <math.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/open.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/machine.h"
#include "base/rng.h"
#include "checkpoint/params_file.h"
#include "data/footprint.h"
#include "data/index.h"
#include "data/links.h"
#include "data/loader.h"
#include "train/folder.h"
#include "train/loop.h"
#include "train/step.h"

/* Activations grow linearly with the batch, so two small plans tell those of any batch. Two samples are the least that
 * every loss accepts. */
enum { SMALL = 2, LARGER = 4 };
/* Small models are faster with more samples at a time: a step is timed with as many as take so long, up to the micro-batch. */
static const double TIMED_SECONDS = 0.5;
/* The first step touches memory for the first time and is not counted; the fastest of the others is. */
enum { STEPS = 4 };

/* Views of the configured sizes, filled with numbers that mean nothing. Where the device makes them, what it makes them of. */
typedef struct {
    bool there; /* the device does */
    xkd_raw_plan raw;
    xkd_raw_batch batch;
    xkd_view_shape shape[XKD_MODALITIES][XKD_MAX_VIEWS];                 /* [views] a modality */
    float *clips[XKD_MODALITIES][XKD_MAX_VIEWS], *noise[XKD_MODALITIES]; /* [B,C,T,H,W]; [g*B,N] */
    int64_t views[XKD_MODALITIES];
} dummy;

/* As the loader would deliver them, without opening data: a plan needs none. Raw ones are added by dummy_raw. */
static void dummy_shapes(const xkd_config *c, dummy *d)
{
    const int64_t local[] = {c->data.video_local_views, c->data.audio_local_views};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        d->views[m] = c->step.global_views + local[m];
        for (int64_t v = 0; v < d->views[m]; v++) d->shape[m][v] = xkd_config_view(c, m, v >= c->step.global_views);
    }
}

/* Points into `d`, which must outlive the result. */
static xkd_batch_shape dummy_batch(const dummy *d, int64_t B)
{
    return (xkd_batch_shape){.B = B,
                             .views = {d->views[0], d->views[1]},
                             .shape = {d->shape[0], d->shape[1]},
                             .raw = d->there ? &d->raw : NULL};
}

/* For micro-batches of B samples. */
static xkd_status dummy_raw(xkd_context *cx, const xkd_config *c, int64_t B, dummy *d)
{
    return d->there ? xkd_raw_plan_new(cx, &c->data, B, &d->raw) : XKD_OK;
}

/* The values are of no consequence, but must be finite and not all equal, or norms and losses would leave
 * their usual path. */
static xkd_status random_floats(xkd_context *cx, float **out, int64_t count, uint32_t stream)
{
    xkd_rng rng = xkd_rng_make(1, 0, stream, 0, XKD_RNG_TEST);
    xkd_status status = xkd_alloc(cx, out, count, sizeof **out);
    for (int64_t i = 0; status == XKD_OK && i < count; i++) (*out)[i] = (float)xkd_rng_uniform(&rng);
    return status;
}

/* Noise is sized by pixels instead of tokens: more than enough, and it needs no patch sizes. */
static xkd_status dummy_fill(xkd_context *cx, const xkd_config *c, int64_t B, xkd_memory *memory, dummy *d)
{
    xkd_status status = XKD_OK;
    if (d->there) XKD_TRY(xkd_raw_batch_new(cx, &d->raw, memory, &d->batch));
    if (d->there) XKD_TRY(xkd_raw_fill(cx, &d->batch, B));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        int64_t channels = m == XKD_VIDEO ? c->model.channels : 1;
        for (int64_t v = 0; v < d->views[m] && !d->there; v++) {
            const xkd_view_shape *s = &d->shape[m][v];
            XKD_TRY(random_floats(cx, &d->clips[m][v], B * channels * s->T * s->H * s->W, (uint32_t)(16 * m + v)));
        }
        const xkd_view_shape *s = &d->shape[m][0];
        XKD_TRY(random_floats(cx, &d->noise[m], c->step.global_views * B * s->T * s->H * s->W, 99));
    }
fail:
    return status;
}

/* Takes views that were never filled: their pointers are NULL. */
static void dummy_free(dummy *d)
{
    xkd_raw_batch_free(&d->batch);
    xkd_raw_plan_free(&d->raw);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int v = 0; v < XKD_MAX_VIEWS; v++) xkd_free(d->clips[m][v]);
        xkd_free(d->noise[m]);
    }
}

/* Plans a pass and reads off its arena. Parameters are only declared, not allocated, so this works for models
 * that do not fit into memory. */
static xkd_status pass_bytes(xkd_context *cx, const xkd_networks *n, const xkd_config *config, const dummy *d,
                             int64_t B, int64_t group, double *bytes)
{
    xkd_pass pass = {0};
    dummy own = *d;
    xkd_status status = dummy_raw(cx, config, B, &own);
    if (status != XKD_OK) return status;
    xkd_batch_shape shape = dummy_batch(&own, B);
    xkd_step_config step = config->step;
    xkd_widths element = xkd_widths_of(xkd_config_dtype(config));
    step.mmd_group = group;
    status = xkd_pass_new(cx, &pass, n, &step, &shape, NULL, NULL, element, false);
    *bytes = (double)pass.arena.size + XKD_LANDINGS * (double)own.raw.bytes;
    if (status == XKD_OK) xkd_pass_free(&pass);
    xkd_raw_plan_free(&own.raw);
    return status;
}

/* What two small batches take in one group size, and the larger one in one group, unless a former plan has found out. */
static xkd_status lay_out(xkd_context *cx, const xkd_networks *n, const xkd_config *c, const dummy *d,
                          xkd_plan_details *details)
{
    xkd_status status = XKD_OK;
    if (details->larger > 0) return XKD_OK;
    XKD_TRY(pass_bytes(cx, n, c, d, SMALL, SMALL, &details->small));
    XKD_TRY(pass_bytes(cx, n, c, d, LARGER, SMALL, &details->grouped));
    XKD_TRY(pass_bytes(cx, n, c, d, LARGER, LARGER, &details->larger));
fail:
    return status;
}

/* All is linear in the batch but the pair weights of MMD, which are linear in batch times group: two plans of one group
 * size and a third of another tell both. */
static double activation_bytes(const xkd_plan_details *d, double batch, double group)
{
    double weights = (d->larger - d->grouped) / (LARGER * (LARGER - SMALL)); /* of a sample and a sample of its group */
    return d->small + (d->grouped - d->small) / (LARGER - SMALL) * (batch - SMALL) + weights * batch * (group - SMALL);
}

/* One step's times: of the micro-batch, and of the rest. */
static xkd_status run_step(xkd_trainer *t, const xkd_pass_input *in, const xkd_step_values *values, double seconds[2])
{
    xkd_step_result result;
    double begin = xkd_now();
    xkd_step_begin(t, values);
    xkd_step_micro_batch(t, in);
    double middle = xkd_now();
    xkd_status status = xkd_step_finish(t);
    if (status == XKD_OK) status = xkd_step_collect(t, &result);
    seconds[0] = middle - begin;
    seconds[1] = xkd_now() - middle;
    return status;
}

/* Steps of B samples. With learning rate 0 and EMA momentum 1 the weights stay as they are, so all rounds do the same work. A
 * round that takes long is not repeated. */
static xkd_status time_step(xkd_context *cx, const xkd_config *c, int64_t B, const dummy *shapes, xkd_train_plan *out,
                            double *products)
{
    xkd_status status = XKD_OK;
    xkd_backend *be = NULL;
    xkd_trainer *trainer = NULL;
    dummy d = *shapes;
    int threads = c->threads > 0 ? (int)c->threads : xkd_processor_count();
    xkd_step_values values = {.lr = 0, .ema = {1, 1}};
    double seconds[2];
    for (int m = 0; m < XKD_MODALITIES; m++) values.temp.teacher_temp[m] = values.temp.student_temp[m] = 0.1;
    XKD_TRY(dummy_raw(cx, c, B, &d));
    XKD_TRY(xkd_backend_open(cx, &be, c->device, c, threads));
    XKD_TRY(dummy_fill(cx, c, B, be->memory, &d));
    const xkd_batch_shape shape = dummy_batch(&d, B);
    XKD_TRY(xkd_trainer_new(cx, &trainer, be, NULL, c, &shape, false));
    const xkd_pass_input in = {.clips = {(const float *const *)d.clips[0], (const float *const *)d.clips[1]},
                               .noise = {d.noise[0], d.noise[1]},
                               .raw = &d.batch};
    XKD_TRY(run_step(trainer, &in, &values, seconds));
    out->seconds_per_sample = out->seconds_per_step = INFINITY;
    for (int round = 1; round < STEPS && (round == 1 || seconds[0] < TIMED_SECONDS); round++) {
        be->products = 0;
        XKD_TRY(run_step(trainer, &in, &values, seconds));
        out->seconds_per_sample = fmin(out->seconds_per_sample, seconds[0] / (double)B);
        out->seconds_per_step = fmin(out->seconds_per_step, seconds[1]);
    }
    *products = (double)be->products / (double)B;
    out->scratch_bytes = (double)xkd_backend_held(be);
fail:
    xkd_trainer_free(trainer);
    dummy_free(&d);
    xkd_backend_free(be);
    return status;
}

/* With few samples first, which cannot take long; then with more where the model is small. */
static xkd_status time_steps(xkd_context *cx, const xkd_config *c, const dummy *shapes, xkd_train_plan *out,
                             double *products)
{
    xkd_status status = time_step(cx, c, LARGER, shapes, out, products);
    if (status != XKD_OK) return status;
    double more = floor(TIMED_SECONDS / (out->seconds_per_sample * LARGER)) * LARGER;
    int64_t B = (int64_t)fmin(more, (double)out->micro_batch);
    return B > LARGER ? time_step(cx, c, B, shapes, out, products) : XKD_OK;
}

/* Frozen, teacher and buffer rows have a value only; in bfloat16 what operations read of it is a copy. */
static void count_parameters(const xkd_params *params, const xkd_config *config, xkd_train_plan *out)
{
    xkd_widths element = xkd_widths_of(xkd_config_dtype(config));
    int64_t waiting = xkd_parts_waiting(config->train.accumulate);
    for (int64_t i = 0; i < params->count; i++) {
        const xkd_param *row = params->rows[i];
        bool trained = row->role == XKD_ROLE_TRAINED;
        out->parameters += row->count;
        out->trained += trained ? row->count : 0;
        /* Value, gradient, two moments, and the gradients that wait for those of other micro-batches. */
        out->state_bytes += (double)(row->count * element.exact * (trained ? 4 + waiting : 1));
        if (element.stored != element.exact && !row->exact) out->state_bytes += (double)(row->count * element.stored);
    }
}

/* A GPU's are counted whether it will meet the others or not: that shows when the run starts. */
static double exchange_bytes(const xkd_config *config)
{
    int64_t ranks = config->train.ranks, bytes = xkd_dist_host_buckets(ranks, config->train.wire_bfloat16);
    if (xkd_cuda_is_named(config->device)) bytes += xkd_dist_device_buckets(ranks);
    return (double)bytes;
}

/* What the probe refuses, before a training has been begun for it. */
static xkd_status look_at_probe(xkd_context *cx, const xkd_config *config)
{
    xkd_status status = XKD_OK;
    const xkd_run_config *run = &config->run;
    xkd_manifest files = {0};
    if (!run->probe_epochs) return XKD_OK;
    if (!*run->probe_data)
        XKD_FAIL(XKD_ERR_CONFIG, "run.probe_epochs needs run.probe_data: a manifest or folder of held-out files");
    XKD_TRY(xkd_manifest_load(cx, run->probe_data, config->data.follow_links, &files));
    xkd_manifest_keep_split(&files, run->probe_split);
    if (files.count < 2)
        XKD_FAIL(XKD_ERR_DATA, "%s: has %lld files of split '%s': a probe needs two (run.probe_split)", run->probe_data,
                 (long long)files.count, run->probe_split);
fail:
    xkd_manifest_free(&files);
    return status;
}

/* One worker, since nothing is decoded: only the list of samples is read. Without a data path the plan covers
 * the model alone. */
static xkd_status look_at_data(xkd_context *cx, const xkd_config *config, xkd_train_plan *out,
                               xkd_plan_details *details)
{
    xkd_status status = XKD_OK;
    xkd_loader *loader = NULL;
    bool links;
    bool there;
    xkd_data_config data = config->data;
    data.workers = 1;
    if (!*data.path) return XKD_OK;
    XKD_TRY(xkd_config_device_views(cx, config, &there));
    XKD_TRY(xkd_loader_new_ranked(cx, &data, &config->train, NULL, there, NULL, &loader));
    XKD_TRY(xkd_manifest_check_links(cx, xkd_loader_manifest(loader), data.follow_links, &links));
    out->samples = xkd_loader_sample_count(loader);
    out->steps_per_epoch = xkd_loader_steps_per_epoch(loader);
    out->total_steps = out->steps_per_epoch * config->train.epochs;
    if (config->run.max_steps > 0 && config->run.max_steps < out->total_steps) out->total_steps = config->run.max_steps;
    xkd_config filled = *config;
    xkd_run_fill_in_machine(&filled);
    xkd_data_footprint footprint = xkd_data_footprint_of(&config->data, loader, filled.data.workers);
    out->list_bytes = footprint.list;
    out->ring_bytes = footprint.ring;
    out->worker_bytes = footprint.workers;
    out->cache_bytes = footprint.cache;
    /* What a folder holds is what memory would: all files, decoded once. */
    data.cache = XKD_CACHE_RAM;
    data.cache_memory = 1e9;
    if (config->data.cache == XKD_CACHE_FOLDER)
        details->cache_folder_bytes = xkd_data_footprint_of(&data, loader, filled.data.workers).cache;
fail:
    xkd_loader_free(loader);
    return status;
}

/* The files that a run exports at its end: each row that is an encoder's, under its own name and under a shared one. */
static double backbone_bytes(const xkd_params *params)
{
    double count = 0;
    for (int64_t i = 0; i < params->count; i++)
        if (strstr(params->rows[i]->name, ".backbone.")) count += (double)params->rows[i]->count;
    for (int64_t i = 0; i < params->alias_count; i++)
        if (strstr(params->aliases[i].name, ".backbone.")) count += (double)params->aliases[i].row->count;
    return count * (double)sizeof(float);
}

/* Order: what costs nothing first, so that a wrong data path is told before any model is declared. */
xkd_status xkd_plan_details_of(xkd_context *cx, const xkd_config *config, bool timed, xkd_train_plan *out,
                               xkd_plan_details *details)
{
    xkd_status status = XKD_OK;
    xkd_networks networks = {0};
    dummy d = {0};
    xkd_config c = *config;
    const xkd_model_config *m = &c.model;
    *out = (xkd_train_plan){.micro_batch = c.train.batch / c.train.parts};
    c.step.mmd_group = 0; /* it need not divide the small batch that is timed */
    c.train.accumulate = c.train.parts = c.train.ranks = 1;
    XKD_TRY(look_at_data(cx, config, out, details));
    XKD_TRY(look_at_probe(cx, config));
    dummy_shapes(&c, &d);
    XKD_TRY(xkd_config_device_views(cx, &c, &d.there));
    XKD_TRY(xkd_networks_declare(cx, &networks, m));
    count_parameters(&networks.params, config, out);
    details->backbone_bytes = backbone_bytes(&networks.params);
    if (*c.run.init) XKD_TRY(xkd_params_start_from(cx, &networks.params, c.run.init));
    XKD_TRY(lay_out(cx, &networks, config, &d, details));
    double batch = (double)out->micro_batch;
    out->activation_bytes =
        activation_bytes(details, batch, config->step.mmd_group ? (double)config->step.mmd_group : batch);
    out->exchange_bytes = exchange_bytes(config);
    out->video_tokens =
        (m->num_frames / m->vid_patch_t) * (m->frame_height / m->vid_patch_h) * (m->frame_width / m->vid_patch_w);
    out->audio_tokens = (m->spec_freq / m->spec_patch_f) * (m->spec_time / m->spec_patch_t);
    out->video_kept = xkd_masking_kept(out->video_tokens, c.step.mask_ratio[XKD_VIDEO]);
    out->audio_kept = xkd_masking_kept(out->audio_tokens, c.step.mask_ratio[XKD_AUDIO]);
    /* Half of the memory: the rest of the machine has to live too, and a plan must never cause an
     * out-of-memory kill. */
    out->available_bytes = (double)xkd_available_memory();
    if (timed && out->state_bytes + details->larger < out->available_bytes / 2)
        XKD_TRY(time_steps(cx, &c, &d, out, &details->products_per_sample));
fail:
    xkd_networks_free(&networks);
    return status;
}

xkd_status xkd_plan_training(xkd_context *cx, const xkd_config *config, xkd_train_plan *out)
{
    xkd_plan_details details = {0};
    return xkd_plan_details_of(cx, config, true, out, &details);
}
