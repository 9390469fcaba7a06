/* Encoders for features: which modalities, from which files, with which configuration. The order of the layers is in
 * `configure`. */
#include "eval/encode/models.h"

#include <string.h>

#include "backend/open.h"
#include "base/pool.h"
#include "eval/encode/embed_files.h"

/* Of a transform that a file does not name; no value of the option. */
static const xkd_transform UNNAMED = (xkd_transform)-1;

/* Which encoders there are. Describing also overlays the configuration of their training, on which all else builds. */
static xkd_status describe(xkd_context *cx, const xkd_model_request *q, const char *path, xkd_config *config,
                           bool has[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    bool other[XKD_MODALITIES];
    XKD_TRY(xkd_encoder_describe(cx, path, config, has));
    if (!q->audio_model) goto fail;
    XKD_TRY(xkd_encoder_describe(cx, q->audio_model, config, other));
    if (!other[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no audio encoder ('xkd inspect' says what it holds)", q->audio_model);
    /* The audio encoder of MODEL, if it has one, is not used then. */
    has[XKD_AUDIO] = true;
fail:
    return status;
}

/* Features are made by a recipe of their own, whatever the model was trained with. */
static void take_recipe(xkd_config *config)
{
    xkd_embed_clip_defaults(&config->eval);
    config->eval.return_video = config->eval.return_audio = true;
    /* Of both modalities in the model's own configuration: another duration of one alone must not meet it. */
    config->data.audio_clip_duration = 0;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) xkd_clip_training_views(&config->data, m);
}

/* The user's file over the recipe. A released svm_*.yaml names its transforms; *named says those of which modalities. A
 * file that names others is of a pre-training or fine-tuning: its augmentation and clips are made for another purpose and
 * would be too strong for a linear model. */
static xkd_status load_file(xkd_context *cx, const xkd_model_request *q, xkd_config *config, bool named[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    xkd_transform *const transform[] = {&config->eval.vid_transform, &config->eval.aud_transform};
    bool ours = false, another = false;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) *transform[m] = UNNAMED;
    if (q->config)
        XKD_TRY(q->config_again ? xkd_config_load_again(cx, config, q->config)
                                : xkd_config_load(cx, config, q->config, false));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        named[m] = *transform[m] != UNNAMED && *transform[m] != XKD_TRANSFORM_PRETRAIN;
        if (*transform[m] == UNNAMED) continue;
        ours |= *transform[m] == XKD_TRANSFORM_STRONG;
        another |= *transform[m] != XKD_TRANSFORM_STRONG;
        if (*transform[m] != XKD_TRANSFORM_STRONG) xkd_clip_training_views(&config->data, m);
    }
    if (another && !ours) xkd_embed_clip_defaults(&config->eval);
fail:
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) *transform[m] = XKD_TRANSFORM_STRONG; /* what features have */
    return status;
}

/* What is loaded: what is asked for by name, else what the file's transforms and all settings leave, else all there is. Only what was
 * asked for by name has to be there. */
static xkd_status choose(xkd_context *cx, const xkd_model_request *q, const char *path, const bool named[2],
                         const bool has[XKD_MODALITIES], xkd_models *out)
{
    xkd_status status = XKD_OK;
    bool by_name = q->wanted != XKD_WANT_ALL;
    const bool returned[] = {out->config.eval.return_video, out->config.eval.return_audio};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const char *name = m == XKD_VIDEO ? "video" : "audio";
        bool by_file = named[XKD_VIDEO] || named[XKD_AUDIO];
        bool asked = by_name
                         ? q->wanted == XKD_WANT_BOTH || q->wanted == (m == XKD_VIDEO ? XKD_WANT_VIDEO : XKD_WANT_AUDIO)
                         : returned[m] && (by_file ? named[m] : !returned[!m]);
        if (asked && !has[m])
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no %s encoder ('xkd inspect' says what it holds)", path, name);
        out->wanted[m] = asked || (!by_name && !by_file && returned[m] && has[m]);
    }
    if (!out->wanted[XKD_VIDEO] && !out->wanted[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_CONFIG,
                 "dataset.return_video, return_audio: the configuration leaves neither video nor sound");
fail:
    return status;
}

/* Layers: the model's own configuration, the recipe of features, the command's settings, the user's file, KEY=VALUE; the
 * later wins. */
static xkd_status configure(xkd_context *cx, const xkd_model_request *q, const char *path, char *const *overrides,
                            int64_t count, xkd_models *out)
{
    xkd_status status = XKD_OK;
    bool has[XKD_MODALITIES], named[XKD_MODALITIES];
    XKD_TRY(xkd_config_init(cx, &out->config));
    XKD_TRY(describe(cx, q, path, &out->config, has));
    out->config.data.follow_links = false; /* a model may come from anybody; only the user's own words allow it */
    take_recipe(&out->config);
    for (const char *const *s = q->settings; s && *s; s++) XKD_TRY(xkd_config_override(cx, &out->config, *s));
    XKD_TRY(load_file(cx, q, &out->config, named));
    for (int64_t i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &out->config, overrides[i]));
    out->config.data.follow_links |= q->follow_links;
    XKD_TRY(xkd_config_finish(cx, &out->config));
    XKD_TRY(choose(cx, q, path, named, has, out));
    XKD_TRY(xkd_config_choose_duration(cx, out->wanted, &out->config));
fail:
    return status;
}

xkd_status xkd_models_load(xkd_context *cx, const xkd_model_request *q, const char *path, char *const *overrides,
                           int64_t count, xkd_models *out)
{
    xkd_status status = XKD_OK;
    XKD_TRY(configure(cx, q, path, overrides, count, out));
    int threads = out->config.threads ? (int)out->config.threads : xkd_processor_count();
    /* One backend for both encoders: they never run at the same time. */
    XKD_TRY(xkd_backend_open(cx, &out->be, out->config.device, &out->config, threads));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_encoder_source source = {.path = m == XKD_AUDIO && q->audio_model ? q->audio_model : path,
                                     /* Two files may hold the two encoders, as the released ones do. */
                                     .modality = m,
                                     .student = q->student,
                                     .heads = q->heads,
                                     .projector = q->projector,
                                     /* The resolved one: geometry may have been corrected by KEY=VALUE. */
                                     .geometry = &out->config.model};
        if (out->wanted[m]) XKD_TRY(xkd_encoder_load(cx, &source, out->be, &out->encoder[m]));
    }
fail:
    return status;
}

/* Also of models that were never loaded. */
void xkd_models_free(xkd_models *models)
{
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_encoder_free(&models->encoder[m]);
    xkd_backend_free(models->be);
    xkd_config_free(&models->config);
    *models = (xkd_models){0};
}

xkd_status xkd_models_check_norm(xkd_context *cx, const xkd_config *config)
{
    if (!config->eval.batch_norm) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG,
                    "model.apply_bn: batch norm is for fine-tuning; 'xkd svm' has --scale (model.svm.scale_features)");
}

xkd_status xkd_models_check(xkd_context *cx, const xkd_config *config)
{
    if (config->eval.vid_transform == XKD_TRANSFORM_RANDAUG)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "dataset.vid_transform=randaug3crop: is for fine-tuning; features have strong3crop");
    return xkd_models_check_norm(cx, config);
}

/* The options borrow the models' encoders. */
void xkd_models_choose(const xkd_models *models, xkd_embed_options *options)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        options->clips.wanted[m] = models->wanted[m];
        options->encoder[m] = models->wanted[m] ? &models->encoder[m] : NULL;
    }
}
