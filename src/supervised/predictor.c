/* The public interface of classification: a trained classifier, and an engine whose rows are its scores. */
#include <stdio.h>
#include <string.h>
#include <xkd/classify.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/file.h"
#include "supervised/classifier.h"

struct xkd_predictor {
    xkd_context *cx; /* a branch of the caller's */
    xkd_classifier model;
    xkd_embed_scorer scorer;
    xkd_embed_options options;
    xkd_embed_engine *engine;
    float *scores; /* [K] of a file among many */
};

xkd_status xkd_predictor_open(xkd_context *parent, const char *model, const char *const *settings, int64_t count,
                              xkd_predictor **out)
{
    xkd_status status = XKD_OK;
    xkd_predictor *p = NULL;
    xkd_context *cx = xkd_context_branch(parent);
    char **overrides = NULL;
    *out = NULL;
    if (!cx) return xkd_fail(parent, XKD_ERR_MEMORY, "out of memory");
    XKD_TRY(xkd_alloc(cx, &p, 1, sizeof *p));
    p->cx = cx;
    XKD_TRY(xkd_alloc(cx, &overrides, count, sizeof *overrides));
    for (int64_t i = 0; i < count; i++) overrides[i] = (char *)(uintptr_t)settings[i];
    XKD_TRY(xkd_classifier_load(cx, model, overrides, (int)count, &p->model));
    /* The caller names each file itself, so where a link leads is its own affair. */
    p->model.config.data.follow_links = true;
    p->options = xkd_classify_options(&p->model.model, &p->model.config, &p->scorer);
    XKD_TRY(xkd_alloc(cx, &p->scores, p->model.classes.count, sizeof *p->scores));
    XKD_TRY(xkd_embed_engine_new(cx, p->model.be, &p->options, &p->engine));
    xkd_free(overrides);
    *out = p;
    return XKD_OK;
fail:
    xkd_free(overrides);
    xkd_context_hand_up(cx);
    if (p)
        xkd_predictor_close(p);
    else
        xkd_context_free(cx);
    return status;
}

void xkd_predictor_close(xkd_predictor *p)
{
    if (!p) return;
    xkd_context *cx = p->cx;
    xkd_embed_engine_free(p->engine);
    xkd_classifier_free(&p->model);
    xkd_free(p->scores);
    xkd_free(p);
    xkd_context_free(cx);
}

const char *xkd_predictor_error(const xkd_predictor *p)
{
    return xkd_last_error(p->cx);
}

xkd_predictor_description xkd_predictor_info(const xkd_predictor *p)
{
    const xkd_data_config *d = &p->model.config.data;
    xkd_modality m = p->model.modality;
    xkd_view_shape s = xkd_clip_shape(d, m);
    xkd_predictor_description info = {.modality = m,
                                      .classes = p->model.classes.count,
                                      .multi_label = p->model.model.options.loss == XKD_CLASSIFY_SIGMOID,
                                      .clip = {m == XKD_VIDEO ? 3 : 1, s.T, s.H, s.W},
                                      .seconds = d->clip_duration,
                                      .rate = m == XKD_VIDEO ? d->video_fps : (double)d->audio_rate};
    memcpy(info.hash, p->model.model.encoder.hash, sizeof info.hash);
    return info;
}

const char *xkd_predictor_class(const xkd_predictor *p, int64_t k)
{
    return k >= 0 && k < p->model.classes.count ? p->model.classes.items[k] : NULL;
}

static xkd_status predict_one(xkd_predictor *p, const xkd_embed_input *input, const char *name, float *scores)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    bool more = true;
    XKD_TRY(xkd_embed_engine_begin(p->engine, input, 1));
    while (more) XKD_TRY(xkd_embed_engine_step(p->engine, &more));
    const xkd_embedded *file = xkd_embed_engine_file(p->engine, 0);
    if (file->result.fault != XKD_FAULT_NONE)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: %s", name, xkd_media_fault_name(file->result.fault), file->result.message);
    XKD_TRY(xkd_classifier_scores(cx, &p->model, file, name, scores));
fail:
    return status;
}

xkd_status xkd_predictor_file(xkd_predictor *p, const char *path, float *scores)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    xkd_manifest file = {0};
    const xkd_embed_input input = {.manifest = &file};
    xkd_clear_error(cx);
    if (!xkd_path_exists(path)) XKD_FAIL(XKD_ERR_DATA, "%s: no such file (check the path)", path);
    if (xkd_is_folder(path)) XKD_FAIL(XKD_ERR_DATA, "%s: is a folder: name files", path);
    XKD_TRY(xkd_manifest_of_file(cx, path, &file));
    XKD_TRY(predict_one(p, &input, path, scores));
fail:
    xkd_embed_engine_cancel(p->engine); /* the decoding thread reads the manifest */
    xkd_manifest_free(&file);
    return status;
}

xkd_status xkd_predictor_memory(xkd_predictor *p, const xkd_frames *frames, const xkd_samples *samples, float *scores)
{
    xkd_clip_memory memory = {0};
    const xkd_embed_input input = {.memory = &memory};
    if (frames) memory.frames = *frames;
    if (samples) memory.samples = *samples;
    xkd_clear_error(p->cx);
    xkd_status status = predict_one(p, &input, "memory", scores);
    xkd_embed_engine_cancel(p->engine);
    return status;
}

xkd_status xkd_predictor_clips(xkd_predictor *p, const float *clips, int64_t count, float *scores)
{
    xkd_clear_error(p->cx);
    if (count < 0) return xkd_fail(p->cx, XKD_ERR_CONFIG, "predictor: %lld clips", (long long)count);
    return xkd_embed_engine_clips(p->engine, p->model.modality, clips, count, scores);
}

/* ---- many files ---- */

struct many {
    xkd_predictor *p;
    const char *const *paths;
    xkd_scores_sink sink;
    void *user;
};

static xkd_status file_done(void *user, const xkd_embedded *file)
{
    struct many *m = user;
    xkd_predictor *p = m->p;
    char error[sizeof file->result.message + 64];
    int stop;
    if (file->result.fault != XKD_FAULT_NONE) {
        snprintf(error, sizeof error, "%s: %s", xkd_media_fault_name(file->result.fault), file->result.message);
        stop = m->sink(m->user, file->input, NULL, 0, error);
    } else {
        xkd_status status = xkd_classifier_scores(p->cx, &p->model, file, m->paths[file->input], p->scores);
        if (status != XKD_OK) return status;
        stop = m->sink(m->user, file->input, p->scores, file->count[p->model.modality], NULL);
    }
    return stop ? xkd_fail(p->cx, XKD_ERR_INTERRUPTED, "predict: stopped by the caller") : XKD_OK;
}

xkd_status xkd_predictor_files(xkd_predictor *p, const char *const *paths, int64_t count, xkd_scores_sink sink,
                               void *user)
{
    xkd_status status = XKD_OK;
    struct many m = {p, paths, sink, user};
    const xkd_embed_sink engine_sink = {&m, file_done, NULL};
    xkd_input_list list = {0};
    xkd_clear_error(p->cx);
    XKD_TRY(xkd_input_list_of(p->cx, paths, count, &list));
    XKD_TRY(xkd_embed_engine_run(p->engine, list.inputs, count, &engine_sink));
fail:
    xkd_embed_engine_cancel(p->engine); /* the decoding thread reads the list */
    xkd_input_list_free(&list);
    return status;
}
