/* What must hold between the values of a configuration. Messages name the keys that somebody would have to change.
 * Single values have been checked against the option table's ranges when they were set; here are the relations. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "config/config.h"

/* For sizes that must tile each other; the message names both keys, since either may be the wrong
 * one. */
static xkd_status check_divides(xkd_context *cx, const char *part_key, int64_t part, const char *whole_key,
                                int64_t whole)
{
    if (part > 0 && whole % part == 0) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s (%" PRId64 ") does not divide %s (%" PRId64 ")", part_key, part, whole_key,
                    whole);
}

/* method.md section 3: no padding, so patches must tile the input. */
static xkd_status check_patches(xkd_context *cx, const xkd_model_config *m)
{
    xkd_status status = XKD_OK;
    static const char frame[] = "model.kwargs.frame_size", spatial[] = "model.kwargs.vid_patch_spatial";
    static const char spec[] = "model.kwargs.spec_size", patch[] = "model.kwargs.spec_patch_spatial";
    if (m->channels != 3) XKD_FAIL(XKD_ERR_CONFIG, "%s: frames have 3 channels, not %" PRId64, frame, m->channels);
    XKD_TRY(check_divides(cx, spatial, m->vid_patch_h, frame, m->frame_height));
    XKD_TRY(check_divides(cx, spatial, m->vid_patch_w, frame, m->frame_width));
    XKD_TRY(
        check_divides(cx, "model.kwargs.vid_patch_temporal", m->vid_patch_t, "model.kwargs.num_frames", m->num_frames));
    XKD_TRY(check_divides(cx, patch, m->spec_patch_f, spec, m->spec_freq));
    XKD_TRY(check_divides(cx, patch, m->spec_patch_t, spec, m->spec_time));
fail:
    return status;
}

/* Heads share the width evenly; teacher and student have the same tensors.
 * A decoder is not bound to the encoder's size, as mid_proj leads from one to the other. */
static xkd_status check_sizes(xkd_context *cx, const xkd_model_config *m)
{
    xkd_status status = XKD_OK;
    XKD_TRY(check_divides(cx, "model.kwargs.student_cfg.num_heads", m->student.heads,
                          "model.kwargs.student_cfg.embed_dim", m->student.width));
    XKD_TRY(check_divides(cx, "model.kwargs.decoder_cfg.num_heads", m->decoder.heads,
                          "model.kwargs.decoder_cfg.embed_dim", m->decoder.width));
    if (m->teacher.width != m->student.width || m->teacher.depth != m->student.depth ||
        m->teacher.heads != m->student.heads)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "model.kwargs.teacher_cfg (%" PRId64 "/%" PRId64 "/%" PRId64 ") must equal student_cfg (%" PRId64
                 "/%" PRId64 "/%" PRId64 "): a teacher is a moving average of its student",
                 m->teacher.width, m->teacher.depth, m->teacher.heads, m->student.width, m->student.depth,
                 m->student.heads);
fail:
    return status;
}

/* Some tokens must be kept, and some masked where the reconstruction loss reads them.
 * The same rounding as the masking itself: halves to even. */
static xkd_status check_masks(xkd_context *cx, const xkd_config *c)
{
    static const char *const keys[] = {"model.fwd_kwargs.vid_mask_ratio", "model.fwd_kwargs.aud_mask_ratio"};
    const xkd_model_config *m = &c->model;
    /* As xkd_masking_kept counts them, from values that the patches are known to divide. */
    const int64_t tokens[] = {(m->num_frames / m->vid_patch_t) * (m->frame_height / m->vid_patch_h) *
                                  (m->frame_width / m->vid_patch_w),
                              (m->spec_freq / m->spec_patch_f) * (m->spec_time / m->spec_patch_t)};
    for (int i = 0; i < XKD_MODALITIES; i++) {
        int64_t kept = (int64_t)rint((double)tokens[i] * (1 - c->step.mask_ratio[i]));
        if (kept < 1)
            return xkd_fail(cx, XKD_ERR_CONFIG, "%s (%g) keeps none of %" PRId64 " tokens", keys[i],
                            c->step.mask_ratio[i], tokens[i]);
        if (kept >= tokens[i] && c->step.recon_coeff > 0)
            return xkd_fail(cx, XKD_ERR_CONFIG,
                            "%s (%g) masks none of %" PRId64 " tokens, so there is nothing to reconstruct "
                            "(model.fwd_kwargs.recon_coeff=0 turns that off)",
                            keys[i], c->step.mask_ratio[i], tokens[i]);
    }
    return XKD_OK;
}

/* A range is written smallest first. */
static xkd_status check_pair(xkd_context *cx, const char *key, const double pair[2])
{
    if (pair[0] <= pair[1]) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s: %g is above %g", key, pair[0], pair[1]);
}

/* Names of backends (xkd_backend_new); some take a number behind a colon. */
bool xkd_device_is_known(const char *name)
{
    static const struct {
        const char *name;
        bool numbered;
    } names[] = {{"cpu", false}, {"cuda", true}, {"ref", false}, {"guard", true}, {"cuda-sim", true}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t length = strlen(names[i].name);
        if (strncmp(name, names[i].name, length) == 0 && (!name[length] || (names[i].numbered && name[length] == ':')))
            return true;
    }
    return false;
}

/* A GPU's kernel has a whole transform in the shared memory of a block. */
enum { MOST_DEVICE_FFT = 8192 };

xkd_status xkd_config_device_views(xkd_context *cx, const xkd_config *c, bool *out)
{
    bool fits = c->data.n_fft <= MOST_DEVICE_FFT;
    *out =
        c->augment == XKD_AUGMENT_GPU || (c->augment == XKD_AUGMENT_AUTO && strncmp(c->device, "cuda", 4) == 0 && fits);
    if (c->augment != XKD_AUGMENT_GPU) return XKD_OK;
    if (strcmp(c->device, "cpu") == 0)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "run.augment=gpu: run.device=cpu is no GPU: take run.device=cuda, or "
                        "run.augment=cpu");
    if (!fits)
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "run.augment=gpu: dataset.n_fft=%" PRId64 " is above %d: take run.augment=cpu", c->data.n_fft,
                        MOST_DEVICE_FFT);
    return XKD_OK;
}

/* A batch is cut into equal parts. Names the nearest sizes that would do. */
static xkd_status check_batch(xkd_context *cx, const xkd_train_config *t)
{
    int64_t below = t->batch / t->parts * t->parts;
    char smaller[40] = "";
    if (t->ranks == 1)
        return check_divides(cx, "train.accumulate", t->parts, "num_node * dataset.batch_size", t->batch);
    if (t->batch % t->parts == 0) return XKD_OK;
    if (below) snprintf(smaller, sizeof smaller, "%" PRId64 " or ", below);
    return xkd_fail(cx, XKD_ERR_CONFIG,
                    "num_node * dataset.batch_size (%" PRId64 ") cannot be shared by %" PRId64 " ranks with %" PRId64
                    " micro-batches each: the nearest batch that can is %s%" PRId64,
                    t->batch, t->ranks, t->accumulate, smaller, below + t->parts);
}

/* What the loss and the optimiser need.
 * Ranges of single values have been checked when they were read; these are the ones between keys. */
static xkd_status check_training(xkd_context *cx, const xkd_config *c)
{
    xkd_status status = XKD_OK;
    const xkd_step_config *s = &c->step;
    const xkd_train_config *t = &c->train;
    if (!xkd_device_is_known(c->device))
        XKD_FAIL(XKD_ERR_CONFIG, "run.device: wants cpu, cuda, cuda:N, ref or guard, not '%.40s'", c->device);
    XKD_TRY(check_batch(cx, t));
    /* The loss divides by this sum. */
    if (s->align_coeff + s->cmkd_coeff + s->recon_coeff <= 0)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "model.fwd_kwargs: align_coeff, cmkd_coeff and recon_coeff are all 0: nothing to learn");
    if (s->modality != XKD_TRAIN_BOTH && s->recon_coeff <= 0)
        XKD_FAIL(XKD_ERR_CONFIG, "model.fwd_kwargs.modality: one modality alone needs recon_coeff above 0");
    /* Both kinds of view; the message says which key, not which view, for the file shows that. */
    for (int v = 0; v < XKD_VIEW_KINDS; v++) {
        XKD_TRY(check_pair(cx, "crop_scale of a video view", c->data.video_view[v].crop_scale));
        XKD_TRY(check_pair(cx, "freq_scale of an audio view", c->data.audio_view[v].freq_scale));
        XKD_TRY(check_pair(cx, "time_scale of an audio view", c->data.audio_view[v].time_scale));
    }
fail:
    return status;
}

/* "testlist{fold:02d}" and "split{fold}": the two forms of the released files. Any other brace is taken as it stands.
 * The result replaces the configured text, so running it again changes nothing. The caller's text is freed. */
static xkd_status format_split(xkd_context *cx, const xkd_config *c, char **field)
{
    xkd_text out = xkd_text_make(cx);
    for (const char *at = *field; *at;) {
        int width = 0, length = 0;
        if (strncmp(at, "{fold}", 6) == 0)
            length = 6;
        else if (strncmp(at, "{fold:0", 7) == 0 && isdigit((unsigned char)at[7]) && strncmp(at + 8, "d}", 2) == 0) {
            width = at[7] - '0';
            length = 10;
        }
        if (length)
            xkd_text_printf(&out, "%0*" PRId64, width, c->data.fold);
        else
            xkd_text_add(&out, at, 1);
        at += length ? length : 1;
    }
    /* The old text is replaced only when the new one is whole. */
    char *split;
    xkd_status status = xkd_text_take(&out, &split);
    if (status != XKD_OK) return status;
    xkd_free(*field);
    *field = split;
    return XKD_OK;
}

/* method.md section 10: constants by the name of a data set. The default leaves data.mel_mean and mel_std as they are. */
static void choose_mel_norm(xkd_config *c)
{
    static const double norms[][2] = {[XKD_MEL_FSD50K] = {-10.501877, 5.3142986},
                                      [XKD_MEL_ESC50] = {-7.28733, 5.1870246},
                                      [XKD_MEL_OPENMIC] = {-4.718143, 4.2610707}};
    /* Kinetics' constants are the defaults of data.mel_mean and mel_std, which the user may have changed. */
    if (c->eval.mel_norm == XKD_MEL_KINETICS) return;
    c->data.mel_mean = norms[c->eval.mel_norm][0];
    c->data.mel_std = norms[c->eval.mel_norm][1];
}

/* Whether it matters to the losses which samples make up a micro-batch: MMD and CORAL compare those of one. */
static bool grouping_matters(const xkd_config *c)
{
    return c->step.modality == XKD_TRAIN_BOTH && c->step.align_coeff > 0 && !c->step.mmd_group;
}

/* Numbers of ranks that share `parts` equally, as "1, 2, 4". */
static void list_divisors(int64_t parts, char *text, size_t size)
{
    size_t length = 0;
    for (int64_t n = 1; n <= parts && length + 24 < size; n++)
        if (parts % n == 0)
            length += (size_t)snprintf(text + length, size - length, "%s%" PRId64, n > 1 ? ", " : "", n);
}

/* Ranks share the micro-batches of a step. A run that goes on with another number of ranks keeps their number; where that
 * cannot be, smaller ones are as good if no loss looks at a micro-batch as a whole. */
static xkd_status share_parts(xkd_context *cx, xkd_config *config)
{
    xkd_train_config *t = &config->train;
    char divisors[200];
    if (t->ranks < 1) t->ranks = 1;
    if (t->parts == 0) t->parts = t->ranks * t->accumulate;
    int64_t parts = (t->parts + t->ranks - 1) / t->ranks * t->ranks;
    if (parts != t->parts && grouping_matters(config)) {
        list_divisors(t->parts, divisors, sizeof divisors);
        return xkd_fail(cx, XKD_ERR_CONFIG,
                        "a step of %" PRId64 " micro-batches (train.parts) cannot be shared by %" PRId64
                        " ranks, and other ones would change the losses: use %s ranks, or begin the run with "
                        "model.fwd_kwargs.mmd_group",
                        t->parts, t->ranks, divisors);
    }
    int64_t group = config->step.mmd_group > 1 ? config->step.mmd_group : 1;
    if (parts != t->parts)
        while (parts < t->batch && t->batch % (parts * group)) parts += t->ranks;
    t->parts = parts;
    t->accumulate = parts / t->ranks;
    return XKD_OK;
}

/* Derived values first, then checks, which use them. Called once all sources of settings have been
 * read. */
xkd_status xkd_config_finish(xkd_context *cx, xkd_config *config)
{
    xkd_status status = XKD_OK;
    choose_mel_norm(config);
    /* The released files give the batch per node. */
    config->train.batch = config->train.num_node * config->train.batch_size;
    XKD_TRY(share_parts(cx, config));
    config->data.global_views = config->step.global_views;
    config->train.micro_multiple = config->step.mmd_group > 1 ? config->step.mmd_group : 1;
    /* A covariance needs two samples. */
    config->train.micro_least =
        config->model.align_loss == XKD_ALIGN_CORAL && config->step.modality == XKD_TRAIN_BOTH ? 2 : 1;
    config->data.left_out[XKD_VIDEO] = config->step.modality == XKD_TRAIN_AUDIO;
    config->data.left_out[XKD_AUDIO] = config->step.modality == XKD_TRAIN_VIDEO;
    /* One modality alone has its own duration; whether two agree is asked where both are used. */
    if (config->step.modality == XKD_TRAIN_AUDIO && config->data.audio_clip_duration)
        config->data.clip_duration = config->data.audio_clip_duration;
    XKD_TRY(format_split(cx, config, &config->data.split));
    XKD_TRY(format_split(cx, config, &config->eval.test_split));
    XKD_TRY(check_patches(cx, &config->model));
    XKD_TRY(check_sizes(cx, &config->model));
    XKD_TRY(check_masks(cx, config));
    XKD_TRY(check_training(cx, config));
fail:
    return status;
}

/* A clip is one stretch of time in both modalities. */
static xkd_status check_durations(xkd_context *cx, const xkd_data_config *d)
{
    if (!d->audio_clip_duration || d->audio_clip_duration == d->clip_duration) return XKD_OK;
    return xkd_fail(
        cx, XKD_ERR_CONFIG,
        "dataset.audio_clip_duration is %g and dataset.clip_duration %g: one duration holds for both modalities; "
        "set both alike",
        d->audio_clip_duration, d->clip_duration);
}

xkd_status xkd_config_choose_duration(xkd_context *cx, const bool wanted[XKD_MODALITIES], xkd_config *config)
{
    xkd_data_config *d = &config->data;
    if (wanted[XKD_VIDEO] && wanted[XKD_AUDIO]) return check_durations(cx, d);
    if (wanted[XKD_AUDIO] && d->audio_clip_duration) d->clip_duration = d->audio_clip_duration;
    return XKD_OK;
}

/* Sizes of the views that the data keys ask for; method.md section 2. */
xkd_status xkd_config_check_data(xkd_context *cx, const xkd_config *config)
{
    xkd_status status = XKD_OK;
    const xkd_data_config *d = &config->data;
    const xkd_model_config *m = &config->model;
    /* Rounded as the loader and the transform round: a size that differs by one would be found only at the first
     * batch. */
    int64_t frames = llrint(d->clip_duration * d->video_fps);
    double samples = rint(d->clip_duration * (double)d->audio_rate);
    int64_t columns = 1 + (int64_t)(samples / (double)d->hop_length);
    int64_t local_side = llrint(floor((double)d->crop_size / d->video_spatial_ratio));
    int64_t local_columns =
        1 + (int64_t)floor(floor(samples / (double)d->audio_temporal_ratio) / (double)d->hop_length);
    /* Here and not in xkd_config_finish: a replayed step takes its batch from the file, whatever the keys say. */
    if (config->step.mmd_group)
        XKD_TRY(check_divides(cx, "model.fwd_kwargs.mmd_group", config->step.mmd_group, "the micro-batch",
                              config->train.batch / config->train.parts));
    if ((!d->left_out[XKD_VIDEO] && !config->eval.return_video) ||
        (!d->left_out[XKD_AUDIO] && !config->eval.return_audio))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "dataset.return_video, return_audio: pre-training needs both modalities, or the one that "
                 "model.fwd_kwargs.modality names");
    if (!d->left_out[XKD_VIDEO] && !d->left_out[XKD_AUDIO]) XKD_TRY(check_durations(cx, d));
    if (config->eval.vid_transform != XKD_TRANSFORM_PRETRAIN || config->eval.aud_transform != XKD_TRANSFORM_PRETRAIN)
        XKD_FAIL(XKD_ERR_CONFIG, "dataset.vid_transform, aud_transform: pre-training uses global_local");
    if (config->eval.lr_form != XKD_LR_COSINE)
        XKD_FAIL(XKD_ERR_CONFIG, "hyperparams.lr.name: pre-training knows cosine only");
    if (!d->left_out[XKD_VIDEO] && frames != m->num_frames)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "dataset.clip_duration * video_fps is %" PRId64 " frames, model.kwargs.num_frames %" PRId64, frames,
                 m->num_frames);
    if (!d->left_out[XKD_VIDEO] && (d->crop_size != m->frame_height || d->crop_size != m->frame_width))
        XKD_FAIL(XKD_ERR_CONFIG, "dataset.crop_size (%" PRId64 ") differs from model.kwargs.frame_size", d->crop_size);
    if (!d->left_out[XKD_AUDIO] && (d->n_mels != m->spec_freq || columns != m->spec_time))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "spectrograms are %" PRId64 "x%" PRId64 " (n_mels, 1 + clip_duration * audio_fps / hop_length), but "
                 "model.kwargs.spec_size says %" PRId64 "x%" PRId64,
                 d->n_mels, columns, m->spec_freq, m->spec_time);
    if (!d->left_out[XKD_AUDIO] && d->hop_length > d->n_fft)
        XKD_FAIL(XKD_ERR_CONFIG, "dataset.hop_length is above n_fft: sound would be left out");
    if (config->step.teacher_view == XKD_TEACHER_LOCAL && (d->video_local_views < 1 || d->audio_local_views < 1))
        XKD_FAIL(XKD_ERR_CONFIG, "model.fwd_kwargs.teacher_view: local needs a local view of each modality");
    /* Local views must fit the patches just as global ones do. */
    if (!d->left_out[XKD_VIDEO] && d->video_local_views > 0) {
        XKD_TRY(check_divides(cx, "dataset.train.vid_aug_kwargs.temporal_ratio", d->video_temporal_ratio, "num_frames",
                              frames));
        XKD_TRY(check_divides(cx, "model.kwargs.vid_patch_temporal", m->vid_patch_t, "the frames of a local view",
                              frames / d->video_temporal_ratio));
        XKD_TRY(check_divides(cx, "model.kwargs.vid_patch_spatial", m->vid_patch_h, "the side of a local view",
                              local_side));
        XKD_TRY(check_divides(cx, "model.kwargs.vid_patch_spatial", m->vid_patch_w, "the side of a local view",
                              local_side));
    }
    if (!d->left_out[XKD_AUDIO] && d->audio_local_views > 0)
        XKD_TRY(check_divides(cx, "model.kwargs.spec_patch_spatial", m->spec_patch_t, "the columns of a local view",
                              local_columns));
fail:
    return status;
}
