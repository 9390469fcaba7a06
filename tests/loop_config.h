/* A run that takes a moment, on the views of fake_loader.h. */
#ifndef XKD_TESTS_LOOP_CONFIG_H
#define XKD_TESTS_LOOP_CONFIG_H

#include <stdio.h>

#include "config/config.h"

/* 3 epochs of 3 steps of 2 micro-batches of 2 samples, in the folder `out`. Free with xkd_config_free. */
static inline xkd_status loop_configure(xkd_context *cx, xkd_config *c, const char *out)
{
    xkd_status status = XKD_OK;
    static const char *const small[] = {
        "model.kwargs={frame_size: [3, 16, 16], num_frames: 4, vid_patch_spatial: [8, 8], vid_patch_temporal: 2}",
        "model.kwargs={spec_size: [16, 16], spec_patch_spatial: [4, 8], decoder_cfg: {embed_dim: 16, depth: 1, "
        "num_heads: 2}}",
        "model.kwargs.teacher_cfg={embed_dim: 16, depth: 1, num_heads: 2}",
        "model.kwargs.student_cfg={embed_dim: 16, depth: 1, num_heads: 2}",
        "model.kwargs.projector_cfg={hidden_dim: 16, bottleneck_dim: 8, out_dim: 16}",
        "model.fwd_kwargs={vid_mask_ratio: 0.5, aud_mask_ratio: 0.5}",
        "dataset={crop_size: 16, clip_duration: 1, video_fps: 4, audio_fps: 1600, hop_length: 106, n_mels: 16, n_fft: "
        "256}",
        "dataset.train.vid_aug_kwargs={temporal_ratio: 1, spatial_ratio: 1}",
        "dataset.train.aud_aug_kwargs.temporal_ratio=1",
        "dataset.batch_size=4",
        "num_node=1",
        "train.accumulate=2",
        "hyperparams.num_epochs=3",
        "hyperparams.lr={warmup_epochs: 0, base_lr: 0.01}",
        "run.backend=ref",
        "run.threads=1",
        "run.picture_steps=off",
        "run.save_minutes=off",
        "data.path=none",
        "progress.log2tb=false"};
    char folder[300];
    XKD_TRY(xkd_config_init(cx, c));
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) XKD_TRY(xkd_config_override(cx, c, small[i]));
    snprintf(folder, sizeof folder, "run.out=%s", out);
    XKD_TRY(xkd_config_override(cx, c, folder));
    XKD_TRY(xkd_config_finish(cx, c));
fail:
    return status;
}

#endif
