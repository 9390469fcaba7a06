/* Encoders from the command line: which modalities, from which files, with which configuration. The order of the
 * layers is in models_load. */
#include "model_args.h"

#include <string.h>

#include "base/pool.h"

/* Which encoders are wanted: asked for and there, or simply there. */
static xkd_status choose(struct cli *cli, const struct model_args *args, const char *path, struct models *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    bool has[XKD_MODALITIES], other[XKD_MODALITIES];
    const char *word = args->modality;
    /* Describing also overlays the configuration of the model's training, on which everything below builds. */
    XKD_TRY(xkd_encoder_describe(cx, path, &out->config, has));
    if (args->audio_model) {
        XKD_TRY(xkd_encoder_describe(cx, args->audio_model, &out->config, other));
        if (!other[XKD_AUDIO]) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no audio encoder", args->audio_model);
        /* The audio encoder of MODEL, if it has one, is not used then. */
        has[XKD_AUDIO] = true;
    }
    if (word && strcmp(word, "video") != 0 && strcmp(word, "audio") != 0 && strcmp(word, "both") != 0)
        XKD_FAIL(XKD_ERR_CONFIG, "--modality %s: video, audio or both", word);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const char *name = m == XKD_VIDEO ? "video" : "audio";
        bool asked = word && (strcmp(word, name) == 0 || strcmp(word, "both") == 0);
        /* Only what was asked for has to be there. */
        if (asked && !has[m]) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no %s encoder", path, name);
        out->wanted[m] = word ? asked : has[m];
    }
fail:
    return status;
}

/* For a command with a configuration file but no --modality. */
xkd_status models_modality(struct cli *cli, struct model_args *args)
{
    xkd_status status = XKD_OK;
    xkd_config config = {0};
    if (args->modality || !args->config) return XKD_OK;
    XKD_TRY(xkd_config_init(cli->cx, &config));
    XKD_TRY(xkd_config_load(cli->cx, &config, args->config, false));
    const xkd_eval_config *e = &config.eval;
    /* A released file names the augmentation of what it uses. */
    bool video = e->return_video && e->vid_transform != XKD_TRANSFORM_PRETRAIN;
    bool audio = e->return_audio && e->aud_transform != XKD_TRANSFORM_PRETRAIN;
    /* A released file of one modality leaves the other at pre-training's transform. */
    if (video || audio) args->modality = video && audio ? "both" : video ? "video" : "audio";
fail:
    xkd_config_free(&config);
    return status;
}

/* Layers: the model's own configuration, the command's settings, the user's file, KEY=VALUE; the later wins. */
xkd_status models_load(struct cli *cli, const struct model_args *args, const char *path, char **overrides, int count,
                       struct models *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    XKD_TRY(xkd_config_init(cx, &out->config));
    XKD_TRY(choose(cli, args, path, out));
    for (const char *const *s = args->settings; s && *s; s++) XKD_TRY(xkd_config_override(cx, &out->config, *s));
    if (args->config) XKD_TRY(xkd_config_load(cx, &out->config, args->config, false));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &out->config, overrides[i]));
    XKD_TRY(xkd_config_finish(cx, &out->config));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_encoder_source source = {.path = m == XKD_AUDIO && args->audio_model ? args->audio_model : path,
                                     /* Two files may hold the two encoders, as the released ones do. */
                                     .modality = m,
                                     .student = args->student,
                                     .heads = args->heads,
                                     .projector = args->projector,
                                     /* The resolved one: geometry may have been corrected by KEY=VALUE. */
                                     .geometry = &out->config.model};
        if (out->wanted[m]) XKD_TRY(xkd_encoder_load(cx, &source, XKD_F32, &out->encoder[m]));
    }
    /* After the encoders: a wrong file fails before threads are made. */
    int threads = out->config.threads ? (int)out->config.threads : xkd_processor_count();
    /* One backend for both encoders: they never run at the same time. */
    XKD_TRY(xkd_backend_new(cx, &out->be, out->config.backend, XKD_F32, threads));
fail:
    return status;
}

/* Also of models that were never loaded. */
void models_free(struct models *models)
{
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_encoder_free(&models->encoder[m]);
    xkd_backend_free(models->be);
    xkd_config_free(&models->config);
    *models = (struct models){0};
}
