/* Small settings for data tests: 2 s clips, 32-pixel frames, one global and two local views of each modality. */
#ifndef XKD_TESTS_DATA_CONFIG_H
#define XKD_TESTS_DATA_CONFIG_H

#include "config/config.h"

static inline xkd_data_config small_data_config(char *path)
{
    xkd_data_config d = {
        .path = path,
        .split = "",
        .clip_duration = 2,
        .video_fps = 8,
        .crop_size = 32,
        .audio_rate = 16000,
        .hop_length = 143,
        .n_mels = 80,
        .n_fft = 1024,
        .mel_mean = -5.3688107,
        .mel_std = 4.410007,
        .video_temporal_ratio = 4,
        .audio_temporal_ratio = 4,
        .video_spatial_ratio = 1.16,
        .video_local_views = 2,
        .audio_local_views = 2,
        .global_views = 1,
        .shuffle = true,
        .drop_last = true,
        .audio_policy = XKD_AUDIO_REQUIRE,
        .max_bad_fraction = 0.01,
        .workers = 1,
        .decode_seconds = 30,
        .file_memory = 4,
    };
    for (int k = 0; k < XKD_VIEW_KINDS; k++) {
        d.video_view[k] = (xkd_video_view_config){.color = {0.4, 0.4, 0.4, 0.2}, .crop_scale = {0.2, 1}, .p_flip = 0.5};
        d.audio_view[k] = (xkd_audio_view_config){.volume_jitter = true,
                                                  .volume = 0.1,
                                                  .virtual_crop_scale = {1, 1.5},
                                                  .freq_scale = {0.6, 1.5},
                                                  .time_scale = {0.6, 1.5}};
    }
    xkd_video_view_config *local = &d.video_view[XKD_LOCAL_VIEW];
    local->crop_scale[0] = 0.08;
    local->crop_scale[1] = 0.4;
    local->p_gray = 0.2;
    local->p_blur = 0.5;
    d.audio_view[XKD_LOCAL_VIEW].rand_crop = true;
    return d;
}

#endif
