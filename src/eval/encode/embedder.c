/* The public interface of features: encoders, an engine that decodes and computes, and the results of one source at a time. */
#include <stdio.h>
#include <string.h>
#include <xkd/embed.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/params_file.h"
#include "eval/encode/embed_files.h"
#include "eval/encode/models.h"

struct xkd_windows {
    xkd_embedder *embedder;
    int64_t next;
    bool more; /* the engine has not come to the end */
};

struct xkd_embedder {
    xkd_context *cx; /* a branch of the caller's */
    xkd_models models;
    xkd_embed_options options;
    xkd_embed_engine *engine;
    int64_t rows[XKD_MODALITIES], width[XKD_MODALITIES];
    /* The source at hand, which the engine borrows. */
    xkd_manifest file;
    xkd_clip_memory memory;
    xkd_embed_input input;
    xkd_windows windows;
    bool iterating;
    xkd_tensor_list weights[XKD_MODALITIES]; /* made when they are asked for */
    float **copy[XKD_MODALITIES]; /* [count of weights] of a device's memory, for the caller; NULL: not made */
};

void xkd_embedder_defaults(xkd_embedder_options *o)
{
    *o = (xkd_embedder_options){.layer = -1, .batch = 8};
}

/* ---- opening ---- */

/* The caller's settings, and the threads as a last one. */
static xkd_status load(xkd_embedder *e, const char *model, const xkd_embedder_options *o)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    const xkd_model_request request = {.config = o->config,
                                       .audio_model = o->audio_model,
                                       .wanted = o->wanted,
                                       .student = o->student,
                                       .projector = o->pool == XKD_POOL_HEAD,
                                       .heads = o->heads};
    char **overrides = NULL, *threads = NULL;
    int64_t count = 0;
    XKD_TRY(xkd_alloc(cx, &overrides, o->setting_count + 1, sizeof *overrides));
    for (; count < o->setting_count; count++) overrides[count] = (char *)(uintptr_t)o->settings[count];
    if (o->threads) {
        XKD_TRY(xkd_format_string(cx, &threads, "run.threads=%lld", (long long)o->threads));
        overrides[count++] = threads;
    }
    XKD_TRY(xkd_models_load(cx, &request, model, overrides, count, &e->models));
    XKD_TRY(xkd_models_check(cx, &e->models.config));
    /* The caller names each file itself, so where a link leads is its own affair. */
    e->models.config.data.follow_links = true;
fail:
    xkd_free(overrides);
    xkd_free(threads);
    return status;
}

static xkd_status check_options(xkd_context *cx, const xkd_embedder_options *o)
{
    if (o->take < XKD_TAKE_WINDOWS || o->take > XKD_TAKE_TRAIN || o->pool < XKD_POOL_DEFAULT ||
        o->pool > XKD_POOL_HEAD || o->wanted < XKD_WANT_ALL || o->wanted > XKD_WANT_BOTH)
        return xkd_fail(cx, XKD_ERR_CONFIG, "embedder: an option has a value that is none of its own");
    if (o->clips < 0 || o->batch < 1 || o->threads < 0 || !(o->stride >= 0) || o->setting_count < 0)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "embedder: batch must be positive, clips, threads and stride must not be negative");
    return XKD_OK;
}

static void set_options(xkd_embedder *e, const xkd_embedder_options *o)
{
    static const xkd_clip_protocol protocols[] = {XKD_CLIPS_WINDOWS, XKD_CLIPS_TEST, XKD_CLIPS_TRAIN};
    static const xkd_feature_kind kinds[] = {XKD_FEATURE_MEAN, XKD_FEATURE_MEAN, XKD_FEATURE_CLS, XKD_FEATURE_NONE,
                                             XKD_FEATURE_HEAD};
    e->options = xkd_embed_options_of(&e->models.config, protocols[o->take], o->clips);
    if (o->pool != XKD_POOL_DEFAULT) e->options.kind = kinds[o->pool];
    e->options.layer = o->layer;
    e->options.batch = o->batch;
    if (o->stride > 0) e->options.clips.stride = o->stride;
    xkd_models_choose(&e->models, &e->options);
}

xkd_status xkd_embedder_open(xkd_context *parent, const char *model, const xkd_embedder_options *options,
                             xkd_embedder **out)
{
    xkd_status status = XKD_OK;
    xkd_embedder_options defaults;
    xkd_embedder *e = NULL;
    xkd_context *cx = xkd_context_branch(parent);
    *out = NULL;
    if (!cx) return xkd_fail(parent, XKD_ERR_MEMORY, "out of memory");
    xkd_embedder_defaults(&defaults);
    if (!options) options = &defaults;
    XKD_TRY(check_options(cx, options));
    XKD_TRY(xkd_alloc(cx, &e, 1, sizeof *e));
    e->cx = cx;
    XKD_TRY(load(e, model, options));
    set_options(e, options);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (e->options.clips.wanted[m]) XKD_TRY(xkd_embed_shape(cx, &e->options, m, &e->rows[m], &e->width[m]));
    XKD_TRY(xkd_embed_engine_new(cx, e->models.be, &e->options, &e->engine));
    *out = e;
    return XKD_OK;
fail:
    xkd_context_hand_up(cx);
    if (e)
        xkd_embedder_close(e);
    else
        xkd_context_free(cx);
    return status;
}

void xkd_embedder_close(xkd_embedder *e)
{
    if (!e) return;
    xkd_context *cx = e->cx;
    xkd_embed_engine_free(e->engine);
    xkd_manifest_free(&e->file);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int64_t i = 0; e->copy[m] && i < e->weights[m].count; i++) xkd_free(e->copy[m][i]);
        xkd_free(e->copy[m]);
        xkd_free(e->weights[m].items);
    }
    xkd_models_free(&e->models);
    xkd_free(e);
    xkd_context_free(cx);
}

const char *xkd_embedder_error(const xkd_embedder *e)
{
    return xkd_last_error(e->cx);
}

xkd_encoder_info xkd_embedder_info(const xkd_embedder *e, xkd_modality m)
{
    xkd_encoder_info info = {0};
    if (m < 0 || m >= XKD_MODALITIES || !e->options.clips.wanted[m]) return info;
    const xkd_data_config *d = &e->models.config.data;
    xkd_view_shape s = xkd_clip_shape(d, m);
    info = (xkd_encoder_info){.present = 1,
                              .rows = e->rows[m],
                              .width = e->width[m],
                              .clip = {m == XKD_VIDEO ? 3 : 1, s.T, s.H, s.W},
                              .seconds = d->clip_duration,
                              .rate = m == XKD_VIDEO ? d->video_fps : (double)d->audio_rate};
    memcpy(info.hash, e->models.encoder[m].hash, sizeof info.hash);
    return info;
}

static bool has(const xkd_embedder *e, xkd_modality m)
{
    return m >= 0 && m < XKD_MODALITIES && e->options.clips.wanted[m];
}

xkd_encoder_geometry xkd_embedder_geometry(const xkd_embedder *e, xkd_modality m)
{
    if (!has(e, m)) return (xkd_encoder_geometry){0};
    const xkd_backbone *b = &e->models.encoder[m].backbone;
    return (xkd_encoder_geometry){.width = b->blocks.width,
                                  .depth = b->blocks.depth,
                                  .heads = b->blocks.heads,
                                  .channels = b->C,
                                  .patch = {b->pt, b->ph, b->pw},
                                  .grid = {b->grid.t, b->grid.h, b->grid.w},
                                  .cls_token = b->cls != NULL};
}

xkd_status xkd_embedder_weight(xkd_embedder *e, xkd_modality m, int64_t index, xkd_weight *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    *out = (xkd_weight){0};
    xkd_clear_error(cx);
    if (!has(e, m)) XKD_FAIL(XKD_ERR_CONFIG, "embedder: no such encoder was loaded");
    xkd_tensor_list *list = &e->weights[m];
    if (!e->copy[m]) {
        xkd_free(list->items);
        *list = (xkd_tensor_list){0};
        XKD_TRY(xkd_params_list(cx, &e->models.encoder[m].params, XKD_PARAM_VALUE, list));
        XKD_TRY(xkd_alloc(cx, &e->copy[m], list->count, sizeof *e->copy[m]));
    }
    if (index < 0 || index >= list->count)
        XKD_FAIL(XKD_ERR_CONFIG, "embedder: the encoder has %lld tensors", (long long)list->count);
    const xkd_tensor_item *t = &list->items[index];
    if (t->dtype != XKD_F32 || t->shape.ndim > 4)
        XKD_FAIL(XKD_ERR_INTERNAL, "embedder: %s is no tensor of float32 with up to four sides", t->name);
    float **copy = &e->copy[m][index];
    if (!xkd_memory_is_host(t->memory) && !*copy) {
        XKD_TRY(xkd_alloc(cx, copy, xkd_shape_count(&t->shape), sizeof **copy));
        xkd_memory_download(t->memory, *copy, t->data, xkd_shape_count(&t->shape) * (int64_t)sizeof **copy);
        XKD_TRY(xkd_backend_status(e->models.be));
    }
    *out = (xkd_weight){.name = t->name, .data = *copy ? *copy : t->data, .dims = t->shape.ndim};
    for (int k = 0; k < t->shape.ndim; k++) out->shape[k] = t->shape.dims[k];
fail:
    return status;
}

/* ---- one source ---- */

/* Each call of a handle begins with a clean message, and none may come between the windows of a file. */
static xkd_status begin_call(xkd_embedder *e)
{
    xkd_clear_error(e->cx);
    if (!e->iterating) return XKD_OK;
    return xkd_fail(e->cx, XKD_ERR_CONFIG, "embedder: the windows of a file are open: xkd_windows_close comes first");
}

/* The file as the engine's input. */
static xkd_status take_file(xkd_embedder *e, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file (check the path)", path);
    if (xkd_is_folder(path)) XKD_FAIL(XKD_ERR_DATA, "%s: is a folder: name files", path);
    xkd_manifest_free(&e->file);
    e->file = (xkd_manifest){0};
    XKD_TRY(xkd_manifest_of_file(cx, path, &e->file));
    e->input = (xkd_embed_input){.manifest = &e->file};
fail:
    return status;
}

static void fill(const xkd_embedder *e, const xkd_embedded *file, xkd_features *out)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        out->count[m] = file->count[m];
        out->rows[m] = e->rows[m];
        out->width[m] = e->width[m];
        out->row[m] = file->count[m] ? file->feature[m] : NULL;
        out->seconds[m] = file->count[m] ? file->seconds[m] : NULL;
    }
}

static xkd_status judge(xkd_context *cx, const xkd_embedded *file, const char *name)
{
    if (file->result.fault == XKD_FAULT_NONE) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA, "%s: %s: %s", name, xkd_media_fault_name(file->result.fault),
                    file->result.message);
}

/* Does e->input. */
static xkd_status embed_one(xkd_embedder *e, const char *name, xkd_features *out)
{
    xkd_status status = XKD_OK;
    bool more = true;
    XKD_TRY(xkd_embed_engine_begin(e->engine, &e->input, 1));
    while (more) XKD_TRY(xkd_embed_engine_step(e->engine, &more));
    XKD_TRY(judge(e->cx, xkd_embed_engine_file(e->engine, 0), name));
    fill(e, xkd_embed_engine_file(e->engine, 0), out);
fail:
    return status;
}

xkd_status xkd_embedder_file(xkd_embedder *e, const char *path, xkd_features *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_features){0};
    XKD_TRY(begin_call(e));
    XKD_TRY(take_file(e, path));
    XKD_TRY(embed_one(e, path, out));
fail:
    return status;
}

xkd_status xkd_embedder_memory(xkd_embedder *e, const xkd_frames *frames, const xkd_samples *samples, xkd_features *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_features){0};
    XKD_TRY(begin_call(e));
    e->memory = (xkd_clip_memory){0};
    if (frames) e->memory.frames = *frames;
    if (samples) e->memory.samples = *samples;
    e->input = (xkd_embed_input){.memory = &e->memory};
    XKD_TRY(embed_one(e, "memory", out));
fail:
    return status;
}

xkd_status xkd_embedder_clips(xkd_embedder *e, xkd_modality m, const float *clips, int64_t count, float *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    XKD_TRY(begin_call(e));
    if (!has(e, m)) XKD_FAIL(XKD_ERR_CONFIG, "embedder: no such encoder was loaded");
    if (count < 0) XKD_FAIL(XKD_ERR_CONFIG, "embedder: %lld clips", (long long)count);
    XKD_TRY(xkd_embed_engine_clips(e->engine, m, clips, count, out));
fail:
    return status;
}

/* ---- many files ---- */

struct many {
    xkd_embedder *e;
    xkd_features_sink sink;
    void *user;
};

static xkd_status file_done(void *user, const xkd_embedded *file)
{
    struct many *m = user;
    xkd_features features = {0};
    char error[sizeof file->result.message + 64];
    int stop;
    if (file->result.fault != XKD_FAULT_NONE) {
        snprintf(error, sizeof error, "%s: %s", xkd_media_fault_name(file->result.fault), file->result.message);
        stop = m->sink(m->user, file->input, NULL, error);
    } else {
        fill(m->e, file, &features);
        stop = m->sink(m->user, file->input, &features, NULL);
    }
    return stop ? xkd_fail(m->e->cx, XKD_ERR_INTERRUPTED, "embed: stopped by the caller") : XKD_OK;
}

xkd_status xkd_embedder_files(xkd_embedder *e, const char *const *paths, int64_t count, xkd_features_sink sink,
                              void *user)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = e->cx;
    struct many m = {e, sink, user};
    const xkd_embed_sink engine_sink = {&m, file_done, NULL};
    xkd_input_list list = {0};
    XKD_TRY(begin_call(e));
    XKD_TRY(xkd_input_list_of(cx, paths, count, &list));
    XKD_TRY(xkd_embed_engine_run(e->engine, list.inputs, count, &engine_sink));
fail:
    /* The decoding thread reads the list. */
    xkd_embed_engine_cancel(e->engine);
    xkd_input_list_free(&list);
    return status;
}

/* ---- windows ---- */

xkd_status xkd_embedder_windows(xkd_embedder *e, const char *path, xkd_windows **out)
{
    xkd_status status = XKD_OK;
    *out = NULL;
    XKD_TRY(begin_call(e));
    XKD_TRY(take_file(e, path));
    XKD_TRY(xkd_embed_engine_begin(e->engine, &e->input, 1));
    e->windows = (xkd_windows){.embedder = e, .more = true};
    e->iterating = true;
    *out = &e->windows;
fail:
    return status;
}

/* Whether clip `next` is there in every modality that has clips at all. */
static bool is_there(const xkd_embedder *e, const xkd_embedded *file, int64_t next)
{
    bool any = false;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        if (!e->options.clips.wanted[m] || file->lacks[m]) continue;
        if (file->count[m] <= next) return false;
        any = true;
    }
    return any;
}

xkd_status xkd_windows_next(xkd_windows *w, xkd_window *out, int *more)
{
    xkd_status status = XKD_OK;
    xkd_embedder *e = w->embedder;
    *out = (xkd_window){0};
    *more = 0;
    xkd_clear_error(e->cx);
    const xkd_embedded *file = xkd_embed_engine_file(e->engine, 0);
    while (w->more && !is_there(e, file, w->next)) {
        status = xkd_embed_engine_step(e->engine, &w->more);
        /* After an error, or a stop by the caller, there is nothing more to come. */
        if (status != XKD_OK) w->more = false;
        if (status != XKD_OK) return status;
    }
    for (int m = XKD_MODALITIES - 1; m >= 0; m--) {
        if (file->count[m] <= w->next) continue;
        out->row[m] = file->feature[m] + w->next * e->rows[m] * e->width[m];
        out->seconds = file->seconds[m][w->next];
        *more = 1;
    }
    if (!*more) XKD_TRY(judge(e->cx, file, e->file.samples[0].path));
    out->index = *more ? w->next++ : 0;
fail:
    return status;
}

void xkd_windows_close(xkd_windows *w)
{
    if (!w) return;
    xkd_embed_engine_cancel(w->embedder->engine);
    w->embedder->iterating = false;
}
