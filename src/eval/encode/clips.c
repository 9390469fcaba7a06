/* A file -> clips. The decoder's worker calls on_frame and on_sound, which keep what arrives; WINDOWS are given from
 * there while the file is still being read, TEST and TRAIN by `finish` once it is whole. Every clip is written into
 * memory of the sink. */
#include "eval/encode/clips.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "data/finetune_views.h"
#include "media/damage.h"
#include "media/mel.h"
#include "data/pack.h"
#include "media/resize.h"

/* The test crop is this share of the short side, as in the release (112 of 128). */
static const double CROP_SHARE = 0.875;
static const float SOUND_SCALE = 32767.0f; /* 16-bit samples to [-1,1] */

struct xkd_clipper {
    xkd_context *cx;
    xkd_clip_options options;
    xkd_view_shapes shapes;
    int64_t samples, frame_step, sound_step; /* of a clip; between windows */
    xkd_worker *worker;                      /* a process of its own that decodes */
    xkd_viewer *viewer;
    xkd_mel *mel;
    xkd_planes planes;  /* one clip */
    uint8_t *cropped;   /* one frame after the crop */
    float *wave, *spec; /* a clip's samples; a whole file's spectrogram for TEST */
    int64_t wave_capacity, spec_capacity;
    /* For three crops: a normalised frame [3,height,width] and a resized clip [T,3,h,w]. */
    float *frame, *resized;
    int64_t frame_capacity, resized_capacity;
    /* Frames and samples held: a window's worth (rings) or the whole file. */
    uint8_t *rgb;   /* [held,height,width,3] */
    int16_t *sound; /* [held] */
    int64_t rgb_capacity, sound_capacity;
    /* The file at hand. */
    const xkd_clip_sink *sink;
    int64_t number, draw, frames, width, height, heard, windows[XKD_MODALITIES]; /* counts so far in this file */
    bool has[XKD_MODALITIES];                                                    /* streams of the file at hand */
    double sound_until;                                                          /* s, as the file says */
    xkd_damage damage;
    bool too_long; /* a fault of the file, as which `xkd_clipper_run` reports it */
};

/* Rounded and not cut off: 4 s at 7.99 frames a second are 32 frames, and the encoder is planned for a fixed number. */
xkd_view_shape xkd_clip_shape(const xkd_data_config *d, xkd_modality m)
{
    int64_t samples = llround(d->clip_duration * (double)d->audio_rate);
    if (m == XKD_AUDIO) return (xkd_view_shape){.T = 1, .H = d->n_mels, .W = xkd_mel_columns(samples, d->hop_length)};
    return (xkd_view_shape){.T = llround(d->clip_duration * d->video_fps), .H = d->crop_size, .W = d->crop_size};
}

int64_t xkd_clip_short_side(int64_t crop)
{
    return (int64_t)((double)crop / CROP_SHARE);
}

void xkd_clip_training_views(xkd_data_config *d, xkd_modality m)
{
    xkd_audio_view_config *sound = &d->audio_view[XKD_GLOBAL_VIEW];
    if (m == XKD_VIDEO) {
        d->video_view[XKD_GLOBAL_VIEW] = (xkd_video_view_config){
            .color = {0.4, 0.4, 0.4, 0.2}, .crop_scale = {0.08, 1}, .p_flip = 0.5, .p_gray = 0.2};
        return;
    }
    sound->volume_jitter = true;
    sound->volume = 0.1;
    sound->time_warp = sound->rand_crop = false;
}

static int64_t largest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* All memory that does not depend on a file's size is made here, so that a bad configuration fails before any file. */
xkd_status xkd_clipper_new(xkd_context *cx, const xkd_clip_options *options, xkd_clipper **out)
{
    xkd_status status = XKD_OK;
    xkd_clipper *c = NULL;
    const xkd_data_config *d = options->data;
    *out = NULL;
    if (options->protocol == XKD_CLIPS_WINDOWS ? !(options->stride > 0) : options->clips < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "clips: a stride or a number of clips must be positive");
    XKD_TRY(xkd_alloc(cx, &c, 1, sizeof *c));
    c->cx = cx;
    c->options = *options;
    XKD_TRY(xkd_view_shapes_of(cx, d, &c->shapes));
    c->samples = llround(d->clip_duration * (double)d->audio_rate);
    /* At least 1: a stride below half a frame or sample would round to 0, by which on_frame and on_sound divide. */
    c->frame_step = largest(llround(options->stride * d->video_fps), 1);
    c->sound_step = largest(llround(options->stride * (double)d->audio_rate), 1);
    int64_t T = c->shapes.video[0].frames, S = d->crop_size;
    c->planes = (xkd_planes){.frames = T, .height = S, .width = S};
    for (int k = 0; k < 3; k++) XKD_TRY(xkd_alloc(cx, &c->planes.plane[k], T * S * S, 1));
    XKD_TRY(xkd_alloc(cx, &c->cropped, 3 * S * S, 1));
    c->wave_capacity = c->samples;
    XKD_TRY(xkd_alloc(cx, &c->wave, c->wave_capacity, sizeof *c->wave));
    XKD_TRY(xkd_mel_new(cx, d->audio_rate, d->n_fft, d->hop_length, d->n_mels, &c->mel));
    /* Random views are needed by TRAIN alone. */
    if (options->protocol == XKD_CLIPS_TRAIN) XKD_TRY(xkd_viewer_new(cx, d, &c->viewer));
    XKD_TRY(xkd_worker_new(cx, NULL, d->decode_seconds, &c->worker));
    *out = c;
    c = NULL;
fail:
    xkd_clipper_free(c);
    return status;
}

void xkd_clipper_free(xkd_clipper *c)
{
    if (!c) return;
    for (int k = 0; k < 3; k++) xkd_free(c->planes.plane[k]);
    xkd_free(c->cropped);
    xkd_free(c->wave);
    xkd_free(c->spec);
    xkd_free(c->frame);
    xkd_free(c->resized);
    xkd_free(c->rgb);
    xkd_free(c->sound);
    xkd_free(c->damage.item);
    xkd_mel_free(c->mel);
    xkd_viewer_free(c->viewer);
    xkd_worker_free(c->worker);
    xkd_free(c);
}

/* ---- handing clips on ---- */

/* Size of what `reserve` hands out. */
static int64_t clip_floats(const xkd_clipper *c, xkd_modality m)
{
    xkd_view_shape s = xkd_clip_shape(c->options.data, m);
    return (m == XKD_VIDEO ? 3 : 1) * s.T * s.H * s.W;
}

/* Share of the clip from `from` on. A clip that goes around the end of a short file has all of it; a sound that ends before
 * its clip is judged by what there is of it. */
static double damage_of(const xkd_clipper *c, xkd_modality m, double from)
{
    const xkd_data_config *d = c->options.data;
    bool video = m == XKD_VIDEO, around = video || c->options.protocol == XKD_CLIPS_TEST;
    double seconds = video ? (double)c->planes.frames / d->video_fps : d->clip_duration;
    double end = video ? (double)c->frames / d->video_fps : (double)c->heard / (double)d->audio_rate;
    if (c->damage.count == 0) return 0;
    if (!video) end = fmax(end, c->sound_until);
    if (around && from + seconds > end + 1e-6) from = 0;
    return xkd_damage_share(&c->damage, m, from, fmin(seconds, end - from));
}

/* Clips of a modality are numbered in the order in which they are given. Seconds are for the reader of the features:
 * no computation uses them. */
static xkd_status commit(xkd_clipper *c, xkd_modality m, double seconds)
{
    xkd_clip_place place = {.modality = m,
                            .sample = c->number,
                            .clip = c->windows[m]++,
                            .seconds = seconds,
                            .damage = damage_of(c, m, seconds),
                            .has = {c->has[XKD_VIDEO], c->has[XKD_AUDIO]}};
    return c->sink->commit(c->sink->user, &place);
}

/* Frame t of the clip = the held frame `slot`, centre crop. */
static void put_frame(xkd_clipper *c, int64_t t, int64_t slot)
{
    int64_t S = c->options.data->crop_size;
    /* torchvision's centre crop rounds halves to even, as Python does. */
    int64_t top = (int64_t)nearbyint((double)(c->height - S) / 2),
            left = (int64_t)nearbyint((double)(c->width - S) / 2);
    const uint8_t *frame = c->rgb + slot * 3 * c->height * c->width;
    for (int64_t y = 0; y < S; y++)
        memcpy(c->cropped + 3 * y * S, frame + 3 * ((top + y) * c->width + left), (size_t)(3 * S));
    xkd_planes_put(&c->planes, t, c->cropped, false);
}

/* Clip of the frames first, first + 1, ... modulo `period`, held in a ring of `ring` frames. */
static xkd_status give_frames(xkd_clipper *c, int64_t first, int64_t period, int64_t ring)
{
    xkd_status status = XKD_OK;
    float *clip;
    /* `reserve` may block until the consumer has room; the clip is computed into its memory without another copy. */
    XKD_TRY(c->sink->reserve(c->sink->user, XKD_VIDEO, &clip));
    for (int64_t t = 0; t < c->planes.frames; t++) put_frame(c, t, (first + t) % period % ring);
    xkd_image_normalise(&c->planes, clip);
    XKD_TRY(commit(c, XKD_VIDEO, (double)first / c->options.data->video_fps));
fail:
    return status;
}

/* With the constants of the configuration, which are those of pre-training unless it names others. */
static void normalise(const xkd_data_config *d, float *spec, int64_t count)
{
    float mean = (float)d->mel_mean, std = (float)d->mel_std;
    for (int64_t i = 0; i < count; i++) spec[i] = (spec[i] - mean) / std;
}

/* Clip of `count` samples from `first` on in the ring, padded with silence. */
static xkd_status give_sound(xkd_clipper *c, int64_t first, int64_t count)
{
    xkd_status status = XKD_OK;
    float *clip;
    XKD_TRY(c->sink->reserve(c->sink->user, XKD_AUDIO, &clip));
    for (int64_t i = 0; i < c->samples; i++) /* int16 to float as in pre-training, by 32767 and not 32768 */
        c->wave[i] = i < count ? (float)c->sound[(first + i) % c->samples] / SOUND_SCALE : 0;
    xkd_mel_run(c->mel, c->wave, c->samples, clip);
    normalise(c->options.data, clip, clip_floats(c, XKD_AUDIO));
    XKD_TRY(commit(c, XKD_AUDIO, (double)first / (double)c->options.data->audio_rate));
fail:
    return status;
}

/* ---- what the decoder delivers ---- */

/* Nothing to prepare: sizes come with the first frame, and the common clock starts at 0 for whole files. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    xkd_clipper *c = user;
    (void)start;
    c->has[XKD_VIDEO] = info->has_video;
    c->has[XKD_AUDIO] = info->has_audio;
    c->sound_until = info->has_audio ? info->audio_end - info->start : 0;
    return XKD_OK;
}

static xkd_status on_damage(void *user, const xkd_media_stretch *stretch)
{
    xkd_clipper *c = user;
    return xkd_damage_add(c->cx, &c->damage, stretch);
}

/* Then the status is only a way out: whoever gave up looks at nothing any more. */
static bool given_up(const xkd_clipper *c)
{
    return c->options.give_up && atomic_load(c->options.give_up);
}

/* Bytes to hold of a stream that needs `need`, and would like `want` so that growing is rare. Whole files are held by
 * TEST and TRAIN only; an hour at 8 fps and 128 pixels is 1.4 GB. */
static xkd_status held_bytes(xkd_clipper *c, int64_t need, int64_t want, int64_t *bytes)
{
    double limit = 1e9 * c->options.data->file_memory;
    *bytes = (int64_t)fmin((double)want, limit);
    c->too_long = (double)need > limit;
    if (!c->too_long) return XKD_OK;
    return xkd_fail(c->cx, XKD_ERR_DATA,
                    "too long to be held whole: needs more than data.file_memory=%g GB; raise that or cut the file",
                    c->options.data->file_memory);
}

/* Keeps the frame, in a ring for windows and for good otherwise, and gives the window that ends with it. The size
 * checks guard the copies below: the worker that decoded a hostile file is not to be trusted either. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    xkd_status status = XKD_OK;
    xkd_clipper *c = user;
    xkd_context *cx = c->cx;
    /* WINDOWS holds T frames whatever the file's length; the other protocols need frames again and keep all. */
    bool ring = c->options.protocol == XKD_CLIPS_WINDOWS;
    int64_t T = c->planes.frames, bytes = 3 * width * height, slot = ring ? index % T : index;
    if (given_up(c)) return XKD_ERR_INTERRUPTED;
    /* The size is fixed by the first frame. A later one of another size would be copied with the wrong stride. */
    if (index != c->frames || (index && (width != c->width || height != c->height)))
        XKD_FAIL(XKD_ERR_INTERNAL, "a media worker delivered frames out of order");
    if (!c->options.three_crops && (width < c->options.data->crop_size || height < c->options.data->crop_size))
        XKD_FAIL(XKD_ERR_INTERNAL, "a media worker delivered a frame that is too small");
    if ((slot + 1) * bytes > c->rgb_capacity) {
        /* Doubled, so that the frames of a long file are moved a few times and not once a frame. */
        int64_t capacity = T * bytes;
        if (!ring) XKD_TRY(held_bytes(c, (slot + 1) * bytes, largest(2 * slot, T) * bytes, &capacity));
        XKD_TRY(xkd_resize(cx, &c->rgb, c->rgb_capacity, capacity, 1));
        c->rgb_capacity = capacity;
    }
    c->width = width;
    c->height = height;
    memcpy(c->rgb + slot * bytes, rgb, (size_t)bytes);
    c->frames++;
    int64_t first = c->frames - T;
    /* INT64_MAX as period: windows inside a file never wrap, only a file shorter than a clip is repeated (see
     * `finish`). */
    if (ring && first >= 0 && first % c->frame_step == 0) XKD_TRY(give_frames(c, first, INT64_MAX, T));
fail:
    return status;
}

/* Likewise for sound. Windows of sound are cut by samples, not by frames: the streams arrive interleaved as the file
 * has them, and waiting for one another would need memory without bound. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_clipper *c = user;
    xkd_context *cx = c->cx;
    bool ring = c->options.protocol == XKD_CLIPS_WINDOWS;
    if (given_up(c)) return XKD_ERR_INTERRUPTED;
    int64_t need = ring ? c->samples : c->heard + count;
    if (need > c->sound_capacity) {
        int64_t size = sizeof *c->sound, bytes = need * size;
        if (!ring) XKD_TRY(held_bytes(c, need * size, 2 * need * size, &bytes));
        XKD_TRY(xkd_resize(cx, &c->sound, c->sound_capacity, bytes / size, sizeof *c->sound));
        c->sound_capacity = bytes / size;
    }
    if (!ring) {
        memcpy(c->sound + c->heard, samples, (size_t)count * sizeof *samples);
        c->heard += count;
        return XKD_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        c->sound[c->heard++ % c->samples] = samples[i];
        int64_t first = c->heard - c->samples;
        if (first >= 0 && first % c->sound_step == 0) XKD_TRY(give_sound(c, first, c->samples));
    }
fail:
    return status;
}

/* ---- clips of a whole file ---- */

/* int(linspace(0, most, clips))[k]. The release computes the places with numpy's linspace and truncates them: k times
 * a step, in this order of operations. */
static int64_t spread(int64_t most, int64_t clips, int64_t k)
{
    if (k > 0 && k == clips - 1) return most; /* linspace sets its last value, whatever the product rounds to */
    return clips > 1 ? (int64_t)((double)k * ((double)most / (double)(clips - 1))) : 0;
}

/* Makes room for `count` floats. */
static xkd_status room(xkd_context *cx, float **memory, int64_t *capacity, int64_t count)
{
    if (count <= *capacity) return XKD_OK;
    xkd_status status = xkd_resize(cx, memory, *capacity, count, sizeof **memory);
    if (status == XKD_OK) *capacity = count;
    return status;
}

/* Frames first, first + 1, ... of the file, which is repeated, normalised and resized to [T,3,h,w]. */
static xkd_status resize_clip(xkd_clipper *c, int64_t first, int64_t h, int64_t w)
{
    xkd_status status = XKD_OK;
    int64_t pixels = c->height * c->width, T = c->planes.frames;
    uint8_t *planes = NULL;
    XKD_TRY(room(c->cx, &c->frame, &c->frame_capacity, 3 * pixels));
    XKD_TRY(room(c->cx, &c->resized, &c->resized_capacity, T * 3 * h * w));
    XKD_TRY(xkd_alloc(c->cx, &planes, 3 * pixels, 1));
    /* One frame at a time through `planes`: a clip in float at the file's own size could be gigabytes. */
    xkd_planes one = {1, c->height, c->width, {planes, planes + pixels, planes + 2 * pixels}};
    for (int64_t t = 0; t < T; t++) {
        xkd_planes_put(&one, 0, c->rgb + (first + t) % c->frames * 3 * pixels, false);
        xkd_image_normalise(&one, c->frame);
        xkd_tensor_bilinear(c->frame, 3, c->height, c->width, c->resized + t * 3 * h * w, h, w);
    }
fail:
    xkd_free(planes);
    return status;
}

/* The clip that begins at frame `first`, three times. */
static xkd_status give_crops(xkd_clipper *c, int64_t first)
{
    xkd_status status = XKD_OK;
    /* S is the crop; h x w the resized frame, whose short side is S; `start` the three offsets along its long side. */
    int64_t S = c->options.data->crop_size, T = c->planes.frames, h, w, start[3];
    xkd_short_side_size(c->width, c->height, S, &w, &h);
    bool wide = w > h;
    XKD_TRY(resize_clip(c, first, h, w));
    xkd_three_crops(wide ? w : h, S, start);
    for (int k = 0; k < 3; k++) {
        int64_t top = wide ? 0 : start[k], left = wide ? start[k] : 0;
        float *clip;
        XKD_TRY(c->sink->reserve(c->sink->user, XKD_VIDEO, &clip));
        for (int64_t i = 0; i < 3 * T; i++) /* [T,3] becomes [3,T] */
            for (int64_t y = 0; y < S; y++)
                memcpy(clip + ((i % 3 * T + i / 3) * S + y) * S, c->resized + (i * h + top + y) * w + left,
                       (size_t)S * sizeof *clip);
        XKD_TRY(commit(c, XKD_VIDEO, (double)first / c->options.data->video_fps));
    }
fail:
    return status;
}

/* A video shorter than a clip still gives `clips` of them, one frame apart, as the release does. */
static xkd_status test_frames(xkd_clipper *c)
{
    xkd_status status = XKD_OK;
    /* At least 1, as the release's max(frames - 32, 1): the last of several clips starts one frame late in a short
     * file. */
    int64_t most = largest(c->frames - c->planes.frames, 1), ring = c->frames;
    for (int64_t k = 0; k < c->options.clips; k++)
        XKD_TRY(c->options.three_crops ? give_crops(c, spread(most, c->options.clips, k))
                                       : give_frames(c, spread(most, c->options.clips, k), ring, ring));
fail:
    return status;
}

/* Spectrogram of all samples, in columns of which clips are windows. A sound shorter than the transform is silence. */
static xkd_status whole_spectrogram(xkd_clipper *c, int64_t *columns)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    const xkd_data_config *d = c->options.data;
    /* Reflect padding of the transform needs more than n_fft / 2 samples. */
    int64_t n = largest(c->heard, d->n_fft / 2 + 1);
    *columns = xkd_mel_columns(n, d->hop_length);
    XKD_TRY(room(cx, &c->wave, &c->wave_capacity, n));
    XKD_TRY(room(cx, &c->spec, &c->spec_capacity, *columns * d->n_mels));
    for (int64_t i = 0; i < n; i++) c->wave[i] = i < c->heard ? (float)c->sound[i] / SOUND_SCALE : 0;
    xkd_mel_run(c->mel, c->wave, n, c->spec);
    normalise(d, c->spec, *columns * d->n_mels);
fail:
    return status;
}

/* Clips are cut from the spectrogram, not from the samples, so that a short sound is repeated without a click. */
static xkd_status test_sound(xkd_clipper *c)
{
    xkd_status status = XKD_OK;
    xkd_view_shape s = xkd_clip_shape(c->options.data, XKD_AUDIO);
    int64_t columns;
    XKD_TRY(whole_spectrogram(c, &columns));
    for (int64_t k = 0; k < c->options.clips; k++) {
        int64_t first = spread(largest(columns - s.W, 1), c->options.clips, k);
        float *clip;
        XKD_TRY(c->sink->reserve(c->sink->user, XKD_AUDIO, &clip));
        /* columns from `first` on, around the end of a short file */
        for (int64_t f = 0; f < s.H; f++)
            for (int64_t t = 0; t < s.W; t++) clip[f * s.W + t] = c->spec[f * columns + (first + t) % columns];
        double hop = (double)c->options.data->hop_length / (double)c->options.data->audio_rate;
        XKD_TRY(commit(c, XKD_AUDIO, (double)first * hop));
    }
fail:
    return status;
}

/* Augmented clip k: one start for both modalities, so that they belong together. */
static xkd_status training_clip(xkd_clipper *c, int64_t k)
{
    xkd_status status = XKD_OK;
    const xkd_data_config *d = c->options.data;
    /* The draw's key is (seed, clip, draw): a file gives the same clips whatever stands before it in the list. */
    xkd_view_key key = {c->options.seed, (uint32_t)k, (uint32_t)c->draw};
    xkd_rng rng = xkd_rng_make(key.seed, key.epoch, key.sample, 0, XKD_RNG_CLIP);
    double place = xkd_rng_uniform(&rng), fps = d->video_fps, rate = (double)d->audio_rate;
    /* Without frames the sound alone says how long the file is, on the same grid. */
    int64_t length = c->frames > 0 ? c->frames : (int64_t)((double)c->heard / rate * fps);
    int64_t room = largest(length - c->planes.frames, 0), start = (int64_t)(place * (double)(room + 1));
    /* Where the sound ends before the frames, the clip has what is left, perhaps nothing: the viewer pads with
     * silence. */
    int64_t first = llround((double)start / fps * rate), left = largest(c->heard - first, 0);
    xkd_clip clip = {.frames = c->frames ? c->rgb + start * 3 * c->height * c->width : NULL,
                     .count = c->frames - start,
                     .height = c->height,
                     .width = c->width,
                     .sound = c->heard ? c->sound + (left ? first : 0) : NULL,
                     .samples = left < c->samples ? left : c->samples};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        float *out;
        if (!c->options.wanted[m] || (m == XKD_VIDEO ? c->frames : c->heard) == 0) continue;
        XKD_TRY(c->sink->reserve(c->sink->user, m, &out));
        XKD_TRY(m == XKD_VIDEO ? xkd_view_video(c->viewer, &clip, key, 0, out)
                               : xkd_view_masked_audio(c->viewer, &clip, key, 0, &c->options.masks, out));
        XKD_TRY(commit(c, m, (double)start / fps));
    }
fail:
    return status;
}

/* What a whole file gives once it is decoded; for WINDOWS the one clip of a file shorter than a clip. */
static xkd_status finish(xkd_clipper *c)
{
    xkd_status status = XKD_OK;
    const bool *wanted = c->options.wanted;
    switch (c->options.protocol) {
    case XKD_CLIPS_WINDOWS:
        /* Frames 0, 1, ... repeated with the file's own length as period; the ring holds all of them as they are fewer
         * than T. */
        if (wanted[XKD_VIDEO] && c->frames && !c->windows[XKD_VIDEO]) XKD_TRY(give_frames(c, 0, c->frames, c->frames));
        if (wanted[XKD_AUDIO] && c->heard && !c->windows[XKD_AUDIO]) XKD_TRY(give_sound(c, 0, c->heard));
        break;
    case XKD_CLIPS_TEST:
        if (wanted[XKD_VIDEO] && c->frames) XKD_TRY(test_frames(c));
        if (wanted[XKD_AUDIO] && c->heard) XKD_TRY(test_sound(c));
        break;
    case XKD_CLIPS_TRAIN:
        for (int64_t k = 0; k < c->options.clips; k++) XKD_TRY(training_clip(c, k));
        break;
    }
fail:
    return status;
}

/* Features of a file that is mostly damage would stand among the others as if they said something. */
static void judge_damage(const xkd_clipper *c, xkd_media_result *r)
{
    const xkd_media_tally *t = &r->tally;
    const bool *wanted = c->options.wanted;
    double most = c->options.data->max_clip_damage;
    bool video = wanted[XKD_VIDEO] && t->video_damage > most, audio = wanted[XKD_AUDIO] && t->audio_damage > most;
    if (!video && !audio) return;
    r->fault = XKD_FAULT_BROKEN;
    xkd_damage_words(r->message, sizeof r->message, "its", video ? XKD_VIDEO : XKD_AUDIO,
                     video ? t->video_damage : t->audio_damage, most);
}

/* Frames are made small in the worker already: a 4K frame never crosses the process border. */
static xkd_status decode(xkd_clipper *c, const xkd_manifest *m, const xkd_sample *sample, const xkd_source *source,
                         xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    const xkd_data_config *d = c->options.data;
    const bool *wanted = c->options.wanted;
    xkd_media_request request = {
        .mode = XKD_CLIP_WHOLE,
        .fps = d->video_fps,
        .audio_rate = d->audio_rate,
        .short_side = c->options.three_crops ? c->options.short_side : xkd_clip_short_side(d->crop_size),
        .video = wanted[XKD_VIDEO],
        .audio = wanted[XKD_AUDIO],
        .stream_colour = d->stream_colour,
        .hold_last_frame = d->hold_last_frame,
        .view_side = d->crop_size,
        /* Little beside the encoder's work, and features of damaged films stay what they were. */
        .all_pictures = true,
        .audio_track = d->audio_track,
        .span = xkd_sample_span(sample, source->fd, d->audio_track)};
    xkd_media_sink sink = {.user = c, .begin = on_begin, .frame = on_frame, .sound = on_sound, .damage = on_damage};
    if (m->pack) XKD_TRY(xkd_pack_fits(c->cx, m->pack, &request));
    XKD_TRY(xkd_worker_decode(c->worker, source, &request, &sink, result));
    if (result->fault != XKD_FAULT_NONE) xkd_manifest_blame(m, sample, result->message, sizeof result->message);
    if (result->fault != XKD_FAULT_NONE) goto fail;
    /* The worker found a stream but delivered nothing of it, or there is no such stream: a fault of the file, with the
     * more telling of the reasons. A file with one of two wanted streams is no fault here; callers that need pairs say
     * so. */
    if (c->frames == 0 && c->heard == 0) {
        result->fault = wanted[XKD_VIDEO] && result->info.has_video ? XKD_FAULT_BROKEN
                        : wanted[XKD_VIDEO]                         ? XKD_FAULT_NO_VIDEO
                                                                    : XKD_FAULT_NO_AUDIO;
        snprintf(result->message, sizeof result->message, "nothing of the wanted kind could be decoded");
        goto fail;
    }
    judge_damage(c, result);
    if (result->fault != XKD_FAULT_NONE) goto fail;
    XKD_TRY(finish(c));
fail:
    return status;
}

/* What belongs to one file alone. */
static void begin_file(xkd_clipper *c, int64_t number, int64_t draw, const xkd_clip_sink *sink)
{
    c->sink = sink;
    c->number = number;
    c->draw = draw;
    c->frames = c->width = c->height = c->heard = 0;
    c->sound_until = 0;
    c->damage.count = 0;
    c->too_long = false;
    memset(c->windows, 0, sizeof c->windows);
}

/* ---- frames and samples in memory ---- */

/* Copies frame t, tightly packed. */
static void pack_frame(const xkd_frames *f, int64_t t, uint8_t *out)
{
    int64_t pixel = f->pixel_stride ? f->pixel_stride : 3, row = f->row_stride ? f->row_stride : f->width * pixel;
    int64_t frame = f->frame_stride ? f->frame_stride : f->height * row;
    for (int64_t y = 0; y < f->height; y++) {
        const uint8_t *in = f->data + t * frame + y * row;
        for (int64_t x = 0; x < f->width; x++) memcpy(out + 3 * (y * f->width + x), in + x * pixel, 3);
    }
}

/* Frames as a worker would deliver them: made small by the same resize. */
static xkd_status feed_frames(xkd_clipper *c, const xkd_frames *f)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    xkd_resizer *resizer = NULL;
    uint8_t *packed = NULL, *small = NULL;
    int64_t width = f->width, height = f->height;
    int64_t side = c->options.three_crops ? c->options.short_side : xkd_clip_short_side(c->options.data->crop_size);
    if (f->count < 1 || f->width < 1 || f->height < 1 || f->width > XKD_MEDIA_MAX_SIDE ||
        f->height > XKD_MEDIA_MAX_SIDE || f->width * f->height > XKD_MEDIA_MAX_PIXELS ||
        largest(width, height) > XKD_MEDIA_MAX_ASPECT * (width < height ? width : height))
        XKD_FAIL(XKD_ERR_CONFIG, "frames: %lld of %lldx%lld cannot be embedded", (long long)f->count,
                 (long long)f->width, (long long)f->height);
    if (side) xkd_short_side_size(f->width, f->height, side, &width, &height);
    XKD_TRY(xkd_alloc(cx, &packed, 3 * f->width * f->height, 1));
    XKD_TRY(xkd_alloc(cx, &small, 3 * width * height, 1));
    if (width != f->width || height != f->height)
        XKD_TRY(xkd_resizer_new(cx, f->width, f->height, width, height, &resizer));
    for (int64_t t = 0; t < f->count; t++) {
        pack_frame(f, t, packed);
        if (resizer) xkd_resizer_run(resizer, packed, 3 * f->width, small);
        XKD_TRY(on_frame(c, resizer ? small : packed, width, height, t));
    }
fail:
    xkd_resizer_free(resizer);
    xkd_free(packed);
    xkd_free(small);
    return status;
}

/* Samples in pieces of a second, rounded to the 16 bits that a file's have. What is louder than 1 is cut there. */
static xkd_status feed_samples(xkd_clipper *c, const xkd_samples *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    int16_t *piece = NULL;
    int64_t most = c->options.data->audio_rate, stride = s->stride ? s->stride : 1;
    if (s->count < 1) XKD_FAIL(XKD_ERR_CONFIG, "samples: %lld cannot be embedded", (long long)s->count);
    XKD_TRY(xkd_alloc(cx, &piece, most, sizeof *piece));
    for (int64_t i = 0; i < s->count;) {
        int64_t n = 0;
        for (; n < most && i < s->count; n++, i++) {
            float x = s->data[i * stride];
            if (!isfinite(x)) XKD_FAIL(XKD_ERR_CONFIG, "samples: number %lld is not finite", (long long)i);
            piece[n] = (int16_t)lrintf(fminf(fmaxf(x, -1), 1) * SOUND_SCALE);
        }
        XKD_TRY(on_sound(c, piece, n));
    }
fail:
    xkd_free(piece);
    return status;
}

xkd_status xkd_clipper_run_memory(xkd_clipper *c, const xkd_clip_memory *m, int64_t number, const xkd_clip_sink *sink,
                                  xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = c->cx;
    *result = (xkd_media_result){0};
    begin_file(c, number, number, sink);
    c->has[XKD_VIDEO] = m->frames.data;
    c->has[XKD_AUDIO] = m->samples.data;
    if (c->options.wanted[XKD_VIDEO] && m->frames.data) XKD_TRY(feed_frames(c, &m->frames));
    if (c->options.wanted[XKD_AUDIO] && m->samples.data) XKD_TRY(feed_samples(c, &m->samples));
    if (c->frames == 0 && c->heard == 0)
        XKD_FAIL(XKD_ERR_CONFIG, "neither frames nor samples that this model has an encoder for were given");
    XKD_TRY(finish(c));
fail:
    return status;
}

/* ---- a file ---- */

/* A file that is missing or refused is a finding about the file, not an error of ours: the message moves to *result. */
xkd_status xkd_clipper_run(xkd_clipper *c, const xkd_manifest *manifest, int64_t i, int64_t number, int64_t draw,
                           const xkd_clip_sink *sink, xkd_media_result *result)
{
    xkd_status status = XKD_OK;
    xkd_source source;
    *result = (xkd_media_result){0};
    begin_file(c, number, draw, sink);
    /* The fault decides, not the status: errors of the machine, such as no memory, have none and go up. */
    status = xkd_manifest_open(c->cx, manifest, &manifest->samples[i], c->options.data->follow_links, &source,
                               &result->fault);
    if (status == XKD_OK) {
        status = decode(c, manifest, &manifest->samples[i], &source, result);
        if (c->too_long) result->fault = XKD_FAULT_REFUSED;
    }
    if (status != XKD_OK && result->fault != XKD_FAULT_NONE) {
        snprintf(result->message, sizeof result->message, "%.500s", xkd_last_error(c->cx));
        xkd_clear_error(c->cx);
        status = XKD_OK;
    }
    if (source.fd >= 0) close(source.fd);
    return status;
}
