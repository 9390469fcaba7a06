/* Encoders from the command line: which modalities, from which files, with which configuration. The order of the
 * layers is in models_load. */
#include "model_args.h"

#include <string.h>

#include "base/pool.h"
#include "eval/embed_files.h"

/* Of a transform that a file does not name; no value of the option. */
static const xkd_transform UNNAMED = (xkd_transform)-1;

/* Which encoders there are. Describing also overlays the configuration of their training, on which all else builds. */
static xkd_status describe(struct cli *cli, const struct model_args *args, const char *path, xkd_config *config,
                           bool has[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    bool other[XKD_MODALITIES];
    XKD_TRY(xkd_encoder_describe(cx, path, config, has));
    if (!args->audio_model) goto fail;
    XKD_TRY(xkd_encoder_describe(cx, args->audio_model, config, other));
    if (!other[XKD_AUDIO]) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no audio encoder", args->audio_model);
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
static xkd_status load_file(struct cli *cli, const struct model_args *args, xkd_config *config,
                            bool named[XKD_MODALITIES])
{
    xkd_status status = XKD_OK;
    xkd_transform *const transform[] = {&config->eval.vid_transform, &config->eval.aud_transform};
    bool ours = false, another = false;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) *transform[m] = UNNAMED;
    if (args->config)
        XKD_TRY(args->config_again ? xkd_config_load_again(cli->cx, config, args->config)
                                   : xkd_config_load(cli->cx, config, args->config, false));
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

/* What is asked for: --modality, else what the file's transforms and all settings leave, else all there is. Only what was
 * asked for by name has to be there. */
static xkd_status choose(struct cli *cli, const struct model_args *args, const char *path, const bool named[2],
                         const bool has[XKD_MODALITIES], struct models *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    const char *word = args->modality;
    const bool returned[] = {out->config.eval.return_video, out->config.eval.return_audio};
    if (word && strcmp(word, "video") != 0 && strcmp(word, "audio") != 0 && strcmp(word, "both") != 0)
        XKD_FAIL(XKD_ERR_CONFIG, "--modality %s: video, audio or both", word);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        const char *name = m == XKD_VIDEO ? "video" : "audio";
        bool by_file = named[XKD_VIDEO] || named[XKD_AUDIO];
        bool asked = word ? strcmp(word, name) == 0 || strcmp(word, "both") == 0
                          : returned[m] && (by_file ? named[m] : !returned[!m]);
        if (asked && !has[m]) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: has no %s encoder", path, name);
        out->wanted[m] = asked || (!word && !by_file && returned[m] && has[m]);
    }
    if (!out->wanted[XKD_VIDEO] && !out->wanted[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_CONFIG,
                 "dataset.return_video, return_audio: the configuration leaves neither video nor sound");
fail:
    return status;
}

/* Layers: the model's own configuration, the recipe of features, the command's settings, the user's file, KEY=VALUE; the
 * later wins. */
static xkd_status configure(struct cli *cli, const struct model_args *args, const char *path, char **overrides,
                            int count, struct models *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    bool has[XKD_MODALITIES], named[XKD_MODALITIES];
    XKD_TRY(xkd_config_init(cx, &out->config));
    XKD_TRY(describe(cli, args, path, &out->config, has));
    out->config.data.follow_links = false; /* a model may come from anybody; only the user's own words allow it */
    take_recipe(&out->config);
    for (const char *const *s = args->settings; s && *s; s++) XKD_TRY(xkd_config_override(cx, &out->config, *s));
    XKD_TRY(load_file(cli, args, &out->config, named));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &out->config, overrides[i]));
    out->config.data.follow_links |= args->follow_links;
    XKD_TRY(xkd_config_finish(cx, &out->config));
    XKD_TRY(choose(cli, args, path, named, has, out));
    XKD_TRY(xkd_config_choose_duration(cx, out->wanted, &out->config));
fail:
    return status;
}

xkd_status models_load(struct cli *cli, const struct model_args *args, const char *path, char **overrides, int count,
                       struct models *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    XKD_TRY(configure(cli, args, path, overrides, count, out));
    int threads = out->config.threads ? (int)out->config.threads : xkd_processor_count();
    /* One backend for both encoders: they never run at the same time. */
    XKD_TRY(xkd_backend_new(cx, &out->be, out->config.device, XKD_F32, threads));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_encoder_source source = {.path = m == XKD_AUDIO && args->audio_model ? args->audio_model : path,
                                     /* Two files may hold the two encoders, as the released ones do. */
                                     .modality = m,
                                     .student = args->student,
                                     .heads = args->heads,
                                     .projector = args->projector,
                                     /* The resolved one: geometry may have been corrected by KEY=VALUE. */
                                     .geometry = &out->config.model};
        if (out->wanted[m]) XKD_TRY(xkd_encoder_load(cx, &source, out->be, &out->encoder[m]));
    }
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
