/* The public interface of reading clips: any file, any start. Training's own reader (fetch.h) goes by the lines of a manifest
 * and draws the starts. */
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <xkd/clip.h>

#include "base/alloc.h"
#include "base/context.h"
#include "data/manifest.h"
#include "data/views.h"
#include "media/damage.h"
#include "media/worker.h"

/* Sound is 16-bit in a file and divided by this, as in training. */
static const float SOUND_SCALE = 32767.0f;

struct xkd_reader {
    xkd_context *cx; /* a branch of the caller's */
    xkd_config config;
    xkd_worker *worker;
    xkd_viewer *viewer;     /* made with the first views */
    xkd_view_shapes shapes; /* likewise */
    /* The clip at hand. */
    uint8_t *rgb;   /* [frames,height,width,3] */
    int16_t *sound; /* [samples] */
    float *wave;    /* [samples] */
    int64_t rgb_bytes, sound_capacity, wave_capacity;
    int64_t frames, height, width, samples;
    double start, duration;
    float *views[XKD_MODALITIES][XKD_MAX_VIEWS];
};

xkd_status xkd_reader_open(xkd_context *parent, const char *const *settings, int64_t count, xkd_reader **out)
{
    xkd_status status = XKD_OK;
    xkd_reader *r = NULL;
    xkd_context *cx = xkd_context_branch(parent);
    *out = NULL;
    if (!cx) return xkd_fail(parent, XKD_ERR_MEMORY, "out of memory");
    XKD_TRY(xkd_alloc(cx, &r, 1, sizeof *r));
    r->cx = cx;
    XKD_TRY(xkd_config_init(cx, &r->config));
    for (int64_t i = 0; i < count; i++) XKD_TRY(xkd_config_override(cx, &r->config, settings[i]));
    XKD_TRY(xkd_config_finish(cx, &r->config));
    XKD_TRY(xkd_worker_new(cx, NULL, r->config.data.decode_seconds, &r->worker));
    *out = r;
    return XKD_OK;
fail:
    xkd_context_hand_up(cx);
    if (r) xkd_reader_close(r);
    if (!r) xkd_context_free(cx);
    return status;
}

void xkd_reader_close(xkd_reader *r)
{
    if (!r) return;
    for (int m = 0; m < XKD_MODALITIES; m++)
        for (int v = 0; v < XKD_MAX_VIEWS; v++) xkd_free(r->views[m][v]);
    xkd_viewer_free(r->viewer);
    xkd_worker_free(r->worker);
    xkd_free(r->rgb);
    xkd_free(r->sound);
    xkd_free(r->wave);
    xkd_config_free(&r->config);
    xkd_context *cx = r->cx;
    xkd_free(r);
    xkd_context_free(cx);
}

const char *xkd_reader_error(const xkd_reader *r)
{
    return xkd_last_error(r->cx);
}

/* Room for `need` elements; doubled, so that growing is rare. *memory keeps what it has. */
static xkd_status hold(xkd_context *cx, void *memory, int64_t need, int64_t *capacity, size_t size)
{
    if (need <= *capacity) return XKD_OK;
    int64_t larger = need > 2 * *capacity ? need : 2 * *capacity;
    xkd_status status = xkd_resize(cx, memory, *capacity, larger, size);
    if (status == XKD_OK) *capacity = larger;
    return status;
}

/* ---- what the decoder delivers ---- */

/* Where an index was wrong, decoding begins again, and what came before is void. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    xkd_reader *r = user;
    r->frames = r->samples = 0;
    r->start = start;
    r->duration = fmax(info->end - info->start, 0);
    return xkd_tell_progress(r->cx, "read", 0, 0);
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    xkd_status status = XKD_OK;
    xkd_reader *r = user;
    xkd_context *cx = r->cx;
    int64_t bytes = 3 * width * height;
    if (index != r->frames || (index && (width != r->width || height != r->height)))
        XKD_FAIL(XKD_ERR_INTERNAL, "a media worker delivered frames out of order");
    XKD_TRY(hold(cx, &r->rgb, (index + 1) * bytes, &r->rgb_bytes, 1));
    memcpy(r->rgb + index * bytes, rgb, (size_t)bytes);
    r->width = width;
    r->height = height;
    r->frames++;
    XKD_TRY(xkd_tell_progress(cx, "read", r->frames, 0));
fail:
    return status;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    xkd_reader *r = user;
    xkd_status status = hold(r->cx, &r->sound, r->samples + count, &r->sound_capacity, sizeof *r->sound);
    if (status != XKD_OK) return status;
    memcpy(r->sound + r->samples, samples, (size_t)count * sizeof *samples);
    r->samples += count;
    return XKD_OK;
}

/* The caller asked for this clip and gets what there is of it. */
static void tell_damage(const xkd_reader *r, const char *path, double start, const xkd_media_tally *t)
{
    const double share[XKD_MODALITIES] = {t->video_damage, t->audio_damage}, most = r->config.data.max_clip_damage;
    char words[160];
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        if (!(share[m] > most)) continue;
        xkd_damage_words(words, sizeof words, "the clip's", m, share[m], most);
        xkd_log(r->cx, XKD_LOG_WARN, "%s: at %.2f s %s", path, start, words);
    }
}

/* Decodes the clip into the reader's memory. `video`: a clip without any picture is a fault. */
static xkd_status read_clip(xkd_reader *r, const char *path, xkd_clip_mode mode, double start, bool video)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_data_config *d = &r->config.data;
    xkd_manifest file = {0};
    xkd_media_result result = {0};
    xkd_source source = {.fd = -1};
    xkd_clear_error(cx);
    if (!(start >= 0 && isfinite(start)))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: a clip cannot begin at %g s (from 0 on)", path, start);
    XKD_TRY(xkd_manifest_of_file(cx, path, &file));
    /* The caller names the file itself, so where a link leads is its own affair. */
    XKD_TRY(xkd_manifest_open(cx, &file, &file.samples[0], true, &source, &result.fault));
    xkd_media_request request = {.mode = mode,
                                 .start = start,
                                 .duration = d->clip_duration,
                                 .fps = d->video_fps,
                                 .short_side = d->crop_size,
                                 .audio_rate = d->audio_rate,
                                 .video = true,
                                 .audio = true,
                                 .stream_colour = d->stream_colour,
                                 .hold_last_frame = d->hold_last_frame,
                                 .audio_track = d->audio_track,
                                 .span = xkd_sample_span(&file.samples[0], source.fd, d->audio_track)};
    xkd_media_sink sink = {.user = r, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    r->frames = r->samples = 0;
    r->duration = 0;
    XKD_TRY(xkd_worker_decode(r->worker, &source, &request, &sink, &result));
    double end = fmax(r->duration, result.info.end - result.info.start);
    /* The decoder calls a clip without frames broken, wherever it was asked for. */
    if (mode == XKD_CLIP_AT && end > 0 && start >= end)
        XKD_FAIL(XKD_ERR_DATA, "%s: ends at %.3f s, before the clip begins at %.3f s (begin it earlier)", path, end,
                 start);
    if (result.fault != XKD_FAULT_NONE)
        XKD_FAIL(XKD_ERR_DATA, "%s: %s: %s", path, xkd_media_fault_name(result.fault), result.message);
    if (r->frames == 0 && (video || r->samples == 0))
        XKD_FAIL(XKD_ERR_DATA, "%s: no %s could be decoded at %.3f s", path, video ? "picture" : "picture and no sound",
                 start);
    tell_damage(r, path, start, &result.tally);
fail:
    if (source.fd >= 0) close(source.fd);
    xkd_manifest_free(&file);
    return status;
}

xkd_status xkd_reader_clip(xkd_reader *r, const char *path, double start, xkd_clip_data *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_clip_data){0};
    XKD_TRY(read_clip(r, path, XKD_CLIP_AT, start, false));
    XKD_TRY(hold(r->cx, &r->wave, r->samples, &r->wave_capacity, sizeof *r->wave));
    for (int64_t i = 0; i < r->samples; i++) r->wave[i] = (float)r->sound[i] / SOUND_SCALE;
    *out = (xkd_clip_data){.frames = r->frames ? r->rgb : NULL,
                           .frame_count = r->frames,
                           .height = r->frames ? r->height : 0,
                           .width = r->frames ? r->width : 0,
                           .samples = r->samples ? r->wave : NULL,
                           .sample_count = r->samples,
                           .fps = r->config.data.video_fps,
                           .sample_rate = r->config.data.audio_rate,
                           .start = r->start,
                           .duration = r->duration};
fail:
    return status;
}

/* ---- views ---- */

/* Shapes and memory of all views, once. */
static xkd_status make_viewer(xkd_reader *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    xkd_view_shapes *s = &r->shapes;
    if (r->viewer) return XKD_OK;
    XKD_TRY(xkd_view_shapes_of(cx, &r->config.data, s));
    for (int64_t v = 0; v < s->video_views; v++)
        if (!r->views[XKD_VIDEO][v])
            XKD_TRY(xkd_alloc(cx, &r->views[XKD_VIDEO][v],
                              3 * s->video[v].frames * s->video[v].height * s->video[v].width, sizeof(float)));
    for (int64_t v = 0; v < s->audio_views; v++)
        if (!r->views[XKD_AUDIO][v])
            XKD_TRY(xkd_alloc(cx, &r->views[XKD_AUDIO][v], s->audio[v].bands * s->audio[v].columns, sizeof(float)));
    XKD_TRY(xkd_viewer_new(cx, &r->config.data, &r->viewer));
fail:
    return status;
}

/* Of the clip at hand. */
static xkd_status make_views(xkd_reader *r, xkd_view_key key, xkd_clip_views *out)
{
    xkd_status status = XKD_OK;
    const xkd_view_shapes *s = &r->shapes;
    XKD_TRY(make_viewer(r));
    const xkd_clip clip = {r->rgb, r->frames, r->height, r->width, r->sound, r->samples};
    for (int64_t v = 0; v < s->video_views; v++) {
        XKD_TRY(xkd_view_video(r->viewer, &clip, key, v, r->views[XKD_VIDEO][v]));
        out->video[v].data = r->views[XKD_VIDEO][v];
        const int64_t shape[] = {3, s->video[v].frames, s->video[v].height, s->video[v].width};
        memcpy(out->video[v].shape, shape, sizeof shape);
    }
    for (int64_t v = 0; v < s->audio_views; v++) {
        XKD_TRY(xkd_view_audio(r->viewer, &clip, key, v, r->views[XKD_AUDIO][v]));
        out->audio[v].data = r->views[XKD_AUDIO][v];
        const int64_t shape[] = {1, 1, s->audio[v].bands, s->audio[v].columns};
        memcpy(out->audio[v].shape, shape, sizeof shape);
    }
    out->count[XKD_VIDEO] = s->video_views;
    out->count[XKD_AUDIO] = s->audio_views;
fail:
    return status;
}

xkd_status xkd_reader_views(xkd_reader *r, const char *path, double start, uint64_t seed, uint32_t epoch,
                            uint32_t sample, xkd_clip_views *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_clip_views){0};
    XKD_TRY(read_clip(r, path, XKD_CLIP_AT, start, true));
    XKD_TRY(make_views(r, (xkd_view_key){seed, epoch, sample}, out));
fail:
    return status;
}

/* The draw is that of the loader's first try (loader_work.c). */
xkd_status xkd_reader_training_views(xkd_reader *r, const char *path, uint64_t seed, uint32_t epoch, uint32_t sample,
                                     xkd_clip_views *out)
{
    xkd_status status = XKD_OK;
    xkd_rng rng = xkd_rng_make(seed, epoch, sample, 0, XKD_RNG_CLIP);
    *out = (xkd_clip_views){0};
    XKD_TRY(read_clip(r, path, XKD_CLIP_PLACE, xkd_rng_uniform(&rng), true));
    XKD_TRY(make_views(r, (xkd_view_key){seed, epoch, sample}, out));
fail:
    return status;
}
