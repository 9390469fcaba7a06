/* xkd data show: the views that training would make of a clip, as pictures and sound. What is shown goes through the
 * same functions as training's views, so it is what the network gets. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/status.h"
#include "data/fetch.h"
#include "data/index.h"
#include "media/image.h"
#include "data/wav.h"
#include "data_args.h"
#include "report/png.h"

enum { TILES = 8 }; /* frames in a row of the sheet */

/* epoch and sample choose the random draws, so that a view of a run can be looked at. */
struct values {
    const char *out, *config;
    int64_t epoch, sample;
    bool follow_links;
};

/* Numbers are those of training, where sample and epoch key all draws. */
static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "folder for the pictures and sounds (default: show)"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration of the views"},
    {0, "epoch", CLI_INT, offsetof(struct values, epoch), "N", "draws of this epoch (default: 0)"},
    {0, "sample", CLI_INT, offsetof(struct values, sample), "N", "draws of this sample number (default: 0)"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

/* Everything that is needed for one clip. */
struct show {
    struct cli *cli;
    const struct values *v;
    const xkd_config *config;
    xkd_clip clip;
    xkd_view_shapes shapes;
    xkd_view_key key;
    xkd_viewer *viewer;
};

/* WHAT-NUMBER-global.png and the like. */
static xkd_status path_for(const struct show *s, char **out, const char *what, int64_t view, const char *end)
{
    return xkd_format_string(s->cli->cx, out, "%s/%s-%" PRId64 "-%s.%s", s->v->out, what, view,
                             view < s->config->data.global_views ? "global" : "local", end);
}

/* All frames of a view side by side, as the network gets them but without the normalisation. */
static xkd_status show_video(struct show *s, int64_t view)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cli->cx;
    int64_t t = s->shapes.video[view].frames, h = s->shapes.video[view].height, w = s->shapes.video[view].width;
    /* At most eight frames a row, so that sheets stay narrow. */
    int64_t columns = t < TILES ? t : TILES, rows = (t + columns - 1) / columns;
    float *values = NULL;
    uint8_t *sheet = NULL, *frame = NULL;
    char *path = NULL;
    XKD_TRY(xkd_alloc(cx, &values, 3 * t * h * w, sizeof *values));
    XKD_TRY(xkd_alloc(cx, &sheet, 3 * rows * h * columns * w, 1));
    XKD_TRY(xkd_alloc(cx, &frame, 3 * h * w, 1));
    XKD_TRY(xkd_view_video(s->viewer, &s->clip, s->key, view, values));
    /* Frames [T] of h x w become rows of tiles in one picture. */
    for (int64_t i = 0; i < t; i++) {
        xkd_image_denormalise(values, t, h, w, i, frame);
        for (int64_t y = 0; y < h; y++)
            memcpy(sheet + 3 * ((i / columns * h + y) * columns * w + i % columns * w), frame + 3 * y * w,
                   (size_t)(3 * w));
    }
    XKD_TRY(path_for(s, &path, "video", view, "png"));
    XKD_TRY(xkd_png_write(cx, path, sheet, columns * w, rows * h));
    printf("%s\n", path);
fail:
    xkd_free(values);
    xkd_free(sheet);
    xkd_free(frame);
    xkd_free(path);
    return status;
}

/* Low frequencies at the bottom; three deviations from black to white. */
static void paint_spectrogram(const float *spec, int64_t bands, int64_t columns, uint8_t *rgb)
{
    for (int64_t f = 0; f < bands; f++) {
        for (int64_t t = 0; t < columns; t++) {
            /* Normalised log-mel: mean 0 and deviation 1 over a data set. */
            double level = ((double)spec[f * columns + t] + 2) / 4 * 255;
            memset(rgb + 3 * ((bands - 1 - f) * columns + t), (int)fmin(fmax(level, 0), 255), 3);
        }
    }
}

/* The sound is what goes into the view before the spectrogram, with its volume: the crop of the
 * spectrogram cannot be heard. */
static xkd_status show_audio(struct show *s, int64_t view)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->cli->cx;
    const xkd_data_config *d = &s->config->data;
    int64_t bands = s->shapes.audio[view].bands, columns = s->shapes.audio[view].columns;
    int64_t count = llround(d->clip_duration * (double)d->audio_rate);
    xkd_audio_draw draw = xkd_draw_audio(d, &s->shapes, s->key, view);
    float *spec = NULL;
    uint8_t *rgb = NULL;
    int16_t *sound = NULL;
    char *path = NULL;
    /* A local view hears only its part. */
    if (view >= d->global_views) count /= d->audio_temporal_ratio;
    XKD_TRY(xkd_alloc(cx, &spec, bands * columns, sizeof *spec));
    XKD_TRY(xkd_alloc(cx, &rgb, 3 * bands * columns, 1));
    XKD_TRY(xkd_alloc(cx, &sound, count, sizeof *sound));
    XKD_TRY(xkd_view_audio(s->viewer, &s->clip, s->key, view, spec));
    paint_spectrogram(spec, bands, columns, rgb);
    XKD_TRY(path_for(s, &path, "audio", view, "png"));
    XKD_TRY(xkd_png_write(cx, path, rgb, columns, bands));
    printf("%s\n", path);
    for (int64_t i = 0; i < count && draw.first_sample + i < s->clip.samples; i++) {
        double value = draw.gain * s->clip.sound[draw.first_sample + i];
        /* Cut, as a factor above 1 may leave the range. */
        sound[i] = (int16_t)fmin(fmax(value, -32768), 32767);
    }
    xkd_free(path);
    path = NULL;
    XKD_TRY(path_for(s, &path, "audio", view, "wav"));
    XKD_TRY(xkd_wav_write(cx, path, sound, count, d->audio_rate));
    printf("%s\n", path);
fail:
    xkd_free(spec);
    xkd_free(rgb);
    xkd_free(sound);
    xkd_free(path);
    return status;
}

/* Global views first, as they are numbered. */
static xkd_status show_views(struct show *s)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_make_folder(s->cli->cx, s->v->out));
    const bool *left_out = s->config->data.left_out;
    for (int64_t v = 0; !left_out[XKD_VIDEO] && v < s->shapes.video_views; v++) XKD_TRY(show_video(s, v));
    for (int64_t v = 0; !left_out[XKD_AUDIO] && v < s->shapes.audio_views; v++) XKD_TRY(show_audio(s, v));
fail:
    return status;
}

/* A file by itself, or sample --sample of a set. */
static xkd_status load(struct cli *cli, const struct values *v, const char *path, const xkd_config *config,
                       xkd_manifest *m, int64_t *index)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    size_t length = strlen(path);
    bool set = xkd_is_folder(path) || (length > 6 && !strcmp(path + length - 6, ".jsonl"));
    *index = set ? v->sample : 0;
    if (!set) return xkd_manifest_of_file(cx, path, m);
    XKD_TRY(xkd_manifest_load(cx, path, config->data.follow_links, m));
    if (*index < 0 || *index >= m->count)
        XKD_FAIL(XKD_ERR_CONFIG, "--sample %lld: %s has samples 0 to %lld", (long long)*index, path,
                 (long long)m->count - 1);
    cli_say(cli, "sample %lld: %s", (long long)*index, m->samples[*index].path);
fail:
    return status;
}

/* The same draws as in training: key of the view, stream of the clip's place. */
static xkd_status show_clip(struct cli *cli, const struct values *v, const char *path, const xkd_config *config)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_manifest manifest = {0};
    xkd_fetcher *fetcher = NULL;
    xkd_media_result result;
    bool silent = false;
    int64_t index;
    /* Sample and epoch are 32 bits wide in the keys of draws. */
    struct show s = {
        .cli = cli, .v = v, .config = config, .key = {config->train.seed, (uint32_t)v->epoch, (uint32_t)v->sample}};
    XKD_TRY(load(cli, v, path, config, &manifest, &index));
    XKD_TRY(xkd_view_shapes_of(cx, &config->data, &s.shapes));
    /* No cache: the clip is decoded for this one look. */
    XKD_TRY(xkd_fetcher_new(cx, &config->data, &manifest, NULL, &fetcher));
    XKD_TRY(xkd_viewer_new(cx, &config->data, &s.viewer));
    xkd_rng rng = xkd_rng_make(s.key.seed, s.key.epoch, s.key.sample, 0, XKD_RNG_CLIP);
    XKD_TRY(xkd_fetch_clip(fetcher, index, xkd_rng_uniform(&rng), &s.clip, &silent, &result));
    if (result.fault != XKD_FAULT_NONE)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: %s", manifest.samples[index].path, xkd_media_fault_name(result.fault),
                 result.message);
    if (silent && !config->data.left_out[XKD_AUDIO])
        cli_say(cli, "%s has no sound: the audio views are silence", manifest.samples[index].path);
    XKD_TRY(show_views(&s));
fail:
    xkd_fetcher_free(fetcher);
    xkd_viewer_free(s.viewer);
    xkd_manifest_free(&manifest);
    return status;
}

/* KEY=VALUE may follow the file. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.out = "show"};
    xkd_config config = {0};
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_show, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "data show: which clip? (xkd data show FILE)");
    XKD_TRY(data_configure(cli, v.config, argv + 2, rest - 1, &config));
    config.data.follow_links |= v.follow_links;
    XKD_TRY(show_clip(cli, &v, argv[1], &config));
fail:
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_data_show = {
    .name = "show",
    .summary = "write the views that training would make of a clip as PNG and WAV",
    .usage = "FILE|MANIFEST|PACK [--sample N] [--out DIR] [-c FILE] [KEY=VALUE ...]",
    .example = "xkd data show videos/cat.mp4 --out show",
    .options = options,
    .run = run,
};
