/* What supervised training starts from before files and overrides: the model's own geometry and, where no file is given,
 * a recipe with the released hyper-parameters. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "eval/encode/encoder.h"
#include "supervised/train.h"

/* Always: what the released evaluation files leave to their code. A batch is batch_size there, on one node. They are
 * settings like any other, in the same form as a user's, and pass the same checks. */
static const char BASE[] =
    "num_node: 1\n"
    "dataset: {train: {vid_aug_kwargs: {num_local_views: 0}, aud_aug_kwargs: {num_local_views: 0}}}\n"
    "hyperparams: {weight_decay: 0, optimizer: {betas: [0.9, 0.999]}, lr: {warmup_epochs: 0}}\n";

/* finetune_ucf101, finetune_esc50, linear_kinetics400 and linear_fsd50 of the release. */
static const char *const recipes[2][XKD_MODALITIES] = {
    [XKD_EVAL_FINETUNE] =
        {[XKD_VIDEO] = "dataset:\n"
                       "  batch_size: 24\n"
                       "  vid_transform: randaug3crop\n"
                       "  train: {vid_aug_kwargs: {auto_augment: rand-m7-n4-mstd0.5-inc1, min_area: [0.2, 0.766], "
                       "rand_erase: {probability: 0.25}}}\n"
                       "eval_freq: 10\n"
                       "hyperparams:\n"
                       "  {num_epochs: 100, mixup: 0.6, cutmix: 0.5, label_smoothing: 0.1, layer_decay: 0.45, "
                       "weight_decay: 0.05,\n"
                       "   lr: {base_lr: 0.0005, final_lr: 1.0e-06, warmup_epochs: 5}}\n"
                       "model: {classifier: {use_dropout: true, dropout: 0.5}}\n",
         [XKD_AUDIO] =
             "dataset:\n"
             "  batch_size: 64\n"
             "  aud_transform: strong\n"
             "  train: {aud_aug_kwargs: {vol: 0.2, fmask: true, tmask: true, wrap_window: 20, timewarp: true, "
             "randcrop: true}}\n"
             "hyperparams:\n"
             "  {num_epochs: 100, layer_decay: 0.65, weight_decay: 0.005, lr: {base_lr: 0.0001, warmup_epochs: "
             "10}}\n"
             "model: {classifier: {l2_norm: true, use_dropout: true, dropout: 0.5}}\n"},
    [XKD_EVAL_LINEAR] = {[XKD_VIDEO] = "dataset:\n"
                                       "  batch_size: 256\n"
                                       "  vid_transform: strong3crop\n"
                                       "  train: {vid_aug_kwargs: {min_area: 0.08}}\n"
                                       "hyperparams: {num_epochs: 100, lr: {base_lr: 0.01, warmup_epochs: 10}}\n",
                         [XKD_AUDIO] =
                             "dataset: {batch_size: 256, aud_transform: strong}\n"
                             "hyperparams: {num_epochs: 50, weight_decay: 0.00001, lr: {name: fixed, base_lr: 0.001}}\n"
                             "model: {classifier: {use_dropout: true, dropout: 0.3}}\n"}};

/* Strict: an unknown key here would be a mistake of ours. */
static xkd_status overlay(xkd_context *cx, xkd_config *config, const char *text)
{
    return xkd_config_parse(cx, config, "built-in recipe", text, (int64_t)strlen(text), true);
}

/* Only what decides the input's form: hyper-parameters, names and paths of the pre-training say nothing here. The
 * clip's length, frame grid and spectrogram must be those of the pre-training, or positions would mean something
 * else. */
static void take_geometry(xkd_config *to, const xkd_config *from)
{
    xkd_data_config *d = &to->data;
    const xkd_data_config *s = &from->data;
    to->model = from->model;
    d->clip_duration = s->clip_duration;
    d->video_fps = s->video_fps;
    d->crop_size = s->crop_size;
    d->audio_rate = s->audio_rate;
    d->hop_length = s->hop_length;
    d->n_mels = s->n_mels;
    d->n_fft = s->n_fft;
    d->mel_mean = s->mel_mean;
    d->mel_std = s->mel_std;
    d->stream_colour = s->stream_colour;
}

xkd_status xkd_supervised_defaults(xkd_context *cx, const char *model, xkd_eval_mode mode, bool recipe,
                                   xkd_config *config)
{
    xkd_status status = XKD_OK;
    xkd_config own = {0};
    bool has[XKD_MODALITIES];
    char crop[64];
    XKD_TRY(xkd_config_init(cx, &own));
    XKD_TRY(xkd_encoder_describe(cx, model, &own, has));
    /* Order: the model's geometry, the release's habits, the recipe. Later ones win, and the user's come behind them
     * all. */
    take_geometry(config, &own);
    XKD_TRY(overlay(cx, config, BASE));
    config->eval.mode = mode;
    config->eval.return_video = has[XKD_VIDEO];
    config->eval.return_audio = has[XKD_AUDIO];
    if (!recipe) goto fail;
    /* A model of both modalities gets the recipe of video; overrides may say otherwise. */
    xkd_modality m = has[XKD_VIDEO] ? XKD_VIDEO : XKD_AUDIO;
    XKD_TRY(overlay(cx, config, recipes[mode][m]));
    /* 224 for the released models, whose frames have 112. */
    snprintf(crop, sizeof crop, "dataset: {crop_size: %" PRId64 "}", 2 * config->model.frame_width);
    if (m == XKD_VIDEO && mode == XKD_EVAL_FINETUNE) XKD_TRY(overlay(cx, config, crop));
fail:
    xkd_config_free(&own);
    return status;
}

/* In doubt the configuration's own words decide, then its transforms, then video. */
xkd_modality xkd_supervised_modality(const xkd_config *c, const bool has[XKD_MODALITIES])
{
    if (has[XKD_VIDEO] != has[XKD_AUDIO]) return has[XKD_VIDEO] ? XKD_VIDEO : XKD_AUDIO;
    if (c->eval.return_video != c->eval.return_audio) return c->eval.return_video ? XKD_VIDEO : XKD_AUDIO;
    bool sound = c->eval.aud_transform != XKD_TRANSFORM_PRETRAIN && c->eval.vid_transform == XKD_TRANSFORM_PRETRAIN;
    return sound ? XKD_AUDIO : XKD_VIDEO;
}
