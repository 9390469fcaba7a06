/* Replays recorded steps: views, noise and step values come from files, so that losses, gradients and the
 * state afterwards can be compared with another implementation's, number by number.
 * Start at xkd_replay_shared at the end. */
#include "train/replay.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/params_file.h"
#include "train/step.h"

/* A step is about 300 bytes, so this is 50 000 steps; more is not a recording but a mistake. */
enum { STEPS_FILE_LIMIT = 16 << 20 };

/* Names of the recorded tensors of one modality. */
static const char *const clip_names[] = {"frames", "specs"}, *const noise_names[] = {"vid_noise", "aud_noise"};

typedef struct {
    const xkd_replay_options *options;         /* the caller's */
    xkd_dist *dist;                            /* likewise; NULL: this process alone */
    char *batch_path, *init_path, *steps_path; /* names for messages */
    xkd_config config;
    xkd_safetensors *batch; /* recorded views and noise, mapped */
    json_t *steps, *losses;
    xkd_view_shape *shapes[XKD_MODALITIES]; /* [views], of this rank's samples */
    const float **clips[XKD_MODALITIES];    /* [views], into `batch` */
    float *noise[XKD_MODALITIES];           /* of this rank's samples, global view by global view */
    int64_t views[XKD_MODALITIES];
    int64_t recorded, B; /* samples of a recorded batch, and of this rank's share of it */
    xkd_backend *be;
    xkd_trainer *trainer;
} replay;

/* The recording's own configuration. Data settings in it are not checked, as no data are opened. */
static xkd_status load_config(xkd_context *cx, replay *r)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    XKD_TRY(xkd_config_init(cx, &r->config));
    XKD_TRY(xkd_join_path(cx, &path, r->options->folder, "config.yaml"));
    XKD_TRY(xkd_config_load(cx, &r->config, path, false));
    r->config.train.accumulate = 1; /* a recorded step is one batch */
    XKD_TRY(xkd_config_finish(cx, &r->config));
fail:
    xkd_free(path);
    return status;
}

/* A key given twice would leave open which number was used, so it is refused. */
static xkd_status load_steps(xkd_context *cx, replay *r)
{
    xkd_status status = XKD_OK;
    json_error_t error;
    char *text = NULL;
    int64_t size;
    XKD_TRY(xkd_read_file(cx, r->steps_path, STEPS_FILE_LIMIT, XKD_ERR_DATA, &text, &size));
    r->steps = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    if (!r->steps) XKD_FAIL(XKD_ERR_DATA, "%s:%d: not JSON: %s", r->steps_path, error.line, error.text);
    if (!json_is_array(r->steps) || json_array_size(r->steps) == 0)
        XKD_FAIL(XKD_ERR_DATA, "%s: must be a list of steps, one object each", r->steps_path);
fail:
    xkd_free(text);
    return status;
}

/* One number of a step; with `parent` it is parent.key. */
static xkd_status step_number(xkd_context *cx, const replay *r, size_t step, const char *parent, const char *key,
                              double *out)
{
    const json_t *object = json_array_get(r->steps, step), *value;
    if (parent) object = json_object_get(object, parent);
    value = json_object_get(object, key);
    if (!json_is_number(value))
        return xkd_fail(cx, XKD_ERR_DATA, "%s: step %zu: \"%s%s%s\" must be a number", r->steps_path, step + 1,
                        parent ? parent : "", parent ? "." : "", key);
    *out = json_number_value(value);
    return XKD_OK;
}

/* Every value that a schedule would give is explicit in the recording: a replay tests the step and not the
 * schedules. */
static xkd_status step_values(xkd_context *cx, const replay *r, size_t step, xkd_step_values *v)
{
    xkd_status status = XKD_OK;
    *v = (xkd_step_values){0};
    XKD_TRY(step_number(cx, r, step, NULL, "lr", &v->lr));
    XKD_TRY(step_number(cx, r, step, NULL, "weight_decay", &v->weight_decay));
    XKD_TRY(step_number(cx, r, step, NULL, "vid_ema", &v->ema[XKD_VIDEO]));
    XKD_TRY(step_number(cx, r, step, NULL, "aud_ema", &v->ema[XKD_AUDIO]));
    XKD_TRY(step_number(cx, r, step, "teacher_temp", "video", &v->temp.teacher_temp[XKD_VIDEO]));
    XKD_TRY(step_number(cx, r, step, "teacher_temp", "audio", &v->temp.teacher_temp[XKD_AUDIO]));
    XKD_TRY(step_number(cx, r, step, "student_temp", "video", &v->temp.student_temp[XKD_VIDEO]));
    XKD_TRY(step_number(cx, r, step, "student_temp", "audio", &v->temp.student_temp[XKD_AUDIO]));
    /* A step without "epoch" is of epoch 0. */
    v->epoch = json_integer_value(json_object_get(json_array_get(r->steps, step), "epoch"));
fail:
    return status;
}

/* The recorded tensor stepN.name, with `view` >= 0 stepN.name.view; NULL if there is none.
 * Steps count from 1 in the files. */
static const xkd_stored_tensor *recorded(const replay *r, size_t step, const char *name, int64_t view)
{
    char full[64];
    if (view < 0)
        snprintf(full, sizeof full, "step%zu.%s", step + 1, name);
    else
        snprintf(full, sizeof full, "step%zu.%s.%lld", step + 1, name, (long long)view);
    return xkd_safetensors_find(r->batch, full);
}

/* Shape of a view: [B,3,T,H,W] frames or [B,1,F,T] spectrograms.
 * Recorded in PyTorch's order of axes, which is also the pass's. */
static xkd_status view_shape(xkd_context *cx, const replay *r, xkd_modality m, const xkd_stored_tensor *t,
                             xkd_view_shape *out)
{
    const int64_t *d = t->shape.dims;
    bool video = m == XKD_VIDEO, fits = t->shape.ndim == (video ? 5 : 4) && t->dtype == XKD_F32;
    if (!fits || d[1] != (video ? r->config.model.channels : 1))
        return xkd_fail(cx, XKD_ERR_DATA, "%s: %s must be float32 of shape %s", r->batch_path, t->name,
                        video ? "(B,3,T,H,W)" : "(B,1,F,T)");
    *out = video ? (xkd_view_shape){0, d[2], d[3], d[4], 0} : (xkd_view_shape){0, 1, d[2], d[3], 0};
    return XKD_OK;
}

/* Whether the run computes this modality; a recording of the other one alone need not hold its data. */
static bool is_used(const replay *r, xkd_modality m)
{
    xkd_trained trained = r->config.step.modality;
    return trained == XKD_TRAIN_BOTH || (trained == XKD_TRAIN_VIDEO) == (m == XKD_VIDEO);
}

/* Every rank takes as many samples of a batch. */
static xkd_status share_samples(xkd_context *cx, replay *r)
{
    xkd_modality first = is_used(r, XKD_VIDEO) ? XKD_VIDEO : XKD_AUDIO;
    int64_t ranks = xkd_dist_size(r->dist);
    r->recorded = recorded(r, 0, clip_names[first], 0)->shape.dims[0];
    if (r->recorded < 1) return xkd_fail(cx, XKD_ERR_DATA, "%s: step 1 has no samples", r->batch_path);
    if (r->recorded % ranks)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "%s: %lld samples a step cannot be shared by %lld ranks: use a number that divides them",
                        r->batch_path, (long long)r->recorded, (long long)ranks);
    r->B = r->recorded / ranks;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        for (int64_t v = 0; v < r->views[m]; v++) r->shapes[m][v].B = r->B;
    return XKD_OK;
}

/* Number and sizes of the views come from the first step's data.
 * All views of a modality are numbered from 0 without gaps. */
static xkd_status find_views(xkd_context *cx, replay *r)
{
    xkd_status status = XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!is_used(r, m)) continue;
        while (recorded(r, 0, clip_names[m], r->views[m])) r->views[m]++;
        if (r->views[m] == 0) XKD_FAIL(XKD_ERR_DATA, "%s: has no tensor step1.%s.0", r->batch_path, clip_names[m]);
        XKD_TRY(xkd_alloc(cx, &r->shapes[m], r->views[m], sizeof *r->shapes[m]));
        XKD_TRY(xkd_alloc(cx, &r->clips[m], r->views[m], sizeof *r->clips[m]));
        for (int64_t v = 0; v < r->views[m]; v++)
            XKD_TRY(view_shape(cx, r, m, recorded(r, 0, clip_names[m], v), &r->shapes[m][v]));
    }
    XKD_TRY(share_samples(cx, r));
fail:
    return status;
}

/* Points `in` at this rank's samples of a view. They are used where they lie in the mapped file. Every step is checked against the
 * first one, because the file is input like any other. */
static xkd_status view_input(xkd_context *cx, replay *r, size_t step, xkd_modality m, int64_t view)
{
    const xkd_stored_tensor *t = recorded(r, step, clip_names[m], view), *first = recorded(r, 0, clip_names[m], view);
    if (!t || t->dtype != XKD_F32 || !xkd_shape_equal(&t->shape, &first->shape) || t->shape.dims[0] != r->recorded)
        return xkd_fail(cx, XKD_ERR_DATA,
                        "%s: step%zu.%s.%lld must be float32, of the shape it has in step 1, with %lld samples",
                        r->batch_path, step + 1, clip_names[m], (long long)view, (long long)r->recorded);
    r->clips[m][view] =
        (const float *)t->data + xkd_dist_rank(r->dist) * (xkd_shape_count(&t->shape) / r->recorded) * r->B;
    return XKD_OK;
}

/* The noise of this rank's samples: the recording has that of all samples, global view by global view. */
static xkd_status noise_input(xkd_context *cx, replay *r, size_t step, xkd_modality m)
{
    const xkd_stored_tensor *noise = recorded(r, step, noise_names[m], -1);
    int64_t g = r->config.step.global_views,
            N = xkd_grid_tokens(xkd_trainer_look(r->trainer)->networks.student[m].grid);
    if (!noise || noise->dtype != XKD_F32 || xkd_shape_count(&noise->shape) != g * r->recorded * N)
        return xkd_fail(cx, XKD_ERR_DATA, "%s: step%zu.%s must be float32 with %lld values", r->batch_path, step + 1,
                        noise_names[m], (long long)(g * r->recorded * N));
    const float *mine = (const float *)noise->data + xkd_dist_rank(r->dist) * r->B * N;
    for (int64_t v = 0; v < g; v++)
        memcpy(r->noise[m] + v * r->B * N, mine + v * r->recorded * N, (size_t)(r->B * N) * sizeof(float));
    return XKD_OK;
}

static xkd_status step_input(xkd_context *cx, replay *r, size_t step, xkd_pass_input *in)
{
    xkd_status status = XKD_OK;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!is_used(r, m)) continue;
        for (int64_t v = 0; v < r->views[m]; v++) XKD_TRY(view_input(cx, r, step, m, v));
        XKD_TRY(noise_input(cx, r, step, m));
        in->clips[m] = r->clips[m];
        in->noise[m] = r->noise[m];
    }
fail:
    return status;
}

/* Values or gradients under their public names, teachers and centres included. All ranks have the same; one writes. */
static xkd_status write_list(xkd_context *cx, const replay *r, const char *name, xkd_param_part part)
{
    xkd_status status = XKD_OK;
    xkd_tensor_list list = {0};
    char *path = NULL;
    if (xkd_dist_rank(r->dist) > 0) return XKD_OK;
    XKD_TRY(xkd_params_list(cx, &xkd_trainer_look(r->trainer)->networks.params, part, &list));
    XKD_TRY(xkd_join_path(cx, &path, r->options->out, name));
    XKD_TRY(xkd_safetensors_write(cx, path, list.items, list.count, NULL, 0));
fail:
    xkd_free(list.items);
    xkd_free(path);
    return status;
}

/* JSON has no NaN: null says that the loss was not finite. */
static xkd_status add_losses(xkd_context *cx, replay *r, const xkd_step_result *result)
{
    json_t *object = json_object();
    for (int i = 0; i < XKD_LOSS_COUNT; i++)
        if (json_object_set_new(object, xkd_loss_names[i], json_real(result->loss[i])) != 0)
            json_object_set_new(object, xkd_loss_names[i], json_null()); /* not finite: JSON has no number for it */
    if (json_array_append_new(r->losses, object) == 0) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory for the list of losses");
}

/* 17 digits give back the same double. */
static xkd_status write_losses(xkd_context *cx, const replay *r)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *text = NULL;
    if (xkd_dist_rank(r->dist) > 0) return XKD_OK;
    text = json_dumps(r->losses, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "out of memory for losses.json");
    XKD_TRY(xkd_join_path(cx, &path, r->options->out, "losses.json"));
    XKD_TRY(xkd_write_file(cx, path, text, (int64_t)strlen(text)));
fail:
    free(text); /* jansson's */
    xkd_free(path);
    return status;
}

/* Gradients are kept of the first step only: later ones start from weights that rounding has already moved
 * apart. */
static xkd_status run_step(xkd_context *cx, replay *r, size_t step)
{
    xkd_status status = XKD_OK;
    xkd_step_values values;
    xkd_pass_input in;
    xkd_step_result result;
    XKD_TRY(step_values(cx, r, step, &values));
    XKD_TRY(step_input(cx, r, step, &in));
    xkd_step_begin(r->trainer, &values);
    xkd_step_micro_batch(r->trainer, &in);
    XKD_TRY(xkd_step_finish(r->trainer));
    XKD_TRY(xkd_step_collect(r->trainer, &result));
    if (result.skipped) xkd_log(cx, XKD_LOG_WARN, "step %zu: not finite, nothing was updated", step + 1);
    XKD_TRY(add_losses(cx, r, &result));
    if (step == 0) XKD_TRY(write_list(cx, r, "grads.safetensors", XKD_PARAM_GRAD));
fail:
    return status;
}

static xkd_status choose_type(xkd_context *cx, const char *word, xkd_dtype *out)
{
    static const struct {
        const char *word;
        xkd_dtype dtype;
    } types[] = {{"f32", XKD_F32}, {"bf16", XKD_BF16}, {"tf32", XKD_F32}, {"f64", XKD_F64}};
    *out = XKD_F32;
    if (!word) return XKD_OK;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(word, types[i].word) != 0) continue;
        *out = types[i].dtype;
        return XKD_OK;
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "dtype %.20s: wants f32, tf32, bf16 or f64", word);
}

/* Opens everything, and builds the model in the recorded state.
 * report_all is on: losses of coefficient 0 are compared as well. */
static xkd_status prepare(xkd_context *cx, replay *r)
{
    xkd_status status = XKD_OK;
    xkd_safetensors *init = NULL;
    xkd_dtype dtype = XKD_F32;
    const char *folder = r->options->folder;
    XKD_TRY(load_config(cx, r));
    XKD_TRY(xkd_join_path(cx, &r->batch_path, folder, "batch.safetensors"));
    XKD_TRY(xkd_join_path(cx, &r->init_path, folder, "init.safetensors"));
    XKD_TRY(xkd_join_path(cx, &r->steps_path, folder, "steps.json"));
    XKD_TRY(load_steps(cx, r));
    XKD_TRY(xkd_safetensors_open(cx, r->batch_path, &r->batch));
    XKD_TRY(find_views(cx, r));
    XKD_TRY(choose_type(cx, r->options->dtype, &dtype));
    XKD_TRY(xkd_backend_new(cx, &r->be, r->options->device, dtype, r->options->threads));
    if (r->options->dtype && strcmp(r->options->dtype, "tf32") == 0)
        XKD_TRY(xkd_backend_allow_tf32(cx, r->be, r->options->device));
    xkd_batch_shape shape = {.B = r->B, .views = {r->views[0], r->views[1]}, .shape = {r->shapes[0], r->shapes[1]}};
    XKD_TRY(xkd_trainer_new(cx, &r->trainer, r->be, r->dist, &r->config, &shape, true));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        XKD_TRY(xkd_alloc(cx, &r->noise[m],
                          r->config.step.global_views * r->B *
                              xkd_grid_tokens(xkd_trainer_look(r->trainer)->networks.student[m].grid),
                          sizeof *r->noise[m]));
    XKD_TRY(xkd_safetensors_open(cx, r->init_path, &init));
    /* The initial weights replace the random ones; every tensor must be there. */
    XKD_TRY(xkd_params_load(cx, &xkd_trainer_look(r->trainer)->networks.params, xkd_safetensors_at(init, 0),
                            xkd_safetensors_count(init), r->init_path));
    XKD_TRY(xkd_make_folder(cx, r->options->out));
fail:
    xkd_safetensors_close(init);
    return status;
}

/* Whether all ranks have this status: files may be missing on one machine alone. */
static bool is_status_of_all(xkd_dist *dist, xkd_status status)
{
    int64_t ends[] = {status, -(int64_t)status};
    return xkd_dist_largest(dist, ends, 2) == XKD_OK && ends[0] == -ends[1];
}

/* Parts that were never opened are NULL or zero, so one clean-up serves all ways out. */
xkd_status xkd_replay_shared(xkd_context *cx, const xkd_replay_options *options, xkd_dist *dist, bool *agreed)
{
    replay r = {.options = options, .dist = dist, .losses = json_array()};
    xkd_status status = prepare(cx, &r);
    *agreed = is_status_of_all(dist, status);
    XKD_TRY(status);
    *agreed = false; /* what a step ends with is a rank's own */
    for (size_t step = 0; step < json_array_size(r.steps); step++) XKD_TRY(run_step(cx, &r, step));
    XKD_TRY(write_list(cx, &r, "state.safetensors", XKD_PARAM_VALUE));
    XKD_TRY(write_losses(cx, &r));
    *agreed = true;
fail:
    xkd_trainer_free(r.trainer);
    xkd_backend_free(r.be);
    xkd_safetensors_close(r.batch);
    json_decref(r.steps);
    json_decref(r.losses);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_free(r.shapes[m]);
        xkd_free(r.clips[m]);
        xkd_free(r.noise[m]);
    }
    xkd_free(r.batch_path);
    xkd_free(r.init_path);
    xkd_free(r.steps_path);
    xkd_config_free(&r.config);
    return status;
}

xkd_status xkd_replay(xkd_context *cx, const xkd_replay_options *options)
{
    bool agreed;
    return xkd_replay_shared(cx, options, NULL, &agreed);
}
