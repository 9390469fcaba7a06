/* What packing will do: how the samples are cut into runs, and what that comes to. */
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "data/packing_parts.h"
#include "media/jpeg.h"
#include "media/worker.h"

/* Of a file whose length nobody has measured. */
static const double ASSUMED_SECONDS = 10;
/* Bytes of a JPEG pixel, by which runs are cut: films at a short side of 128 and quality 95 have 0.4 to 0.7 with full colour
 * and a quarter less with half; larger ones have fewer, and quality 50 a third. What a forecast says is measured. */
static const double JPEG_FULL = 0.45, JPEG_HALF = 0.34;
/* Files that a forecast looks at, a second of each. */
enum { LOOKED_AT = 8 };

static uint64_t hash_rows(const xkd_manifest *m)
{
    XXH64_hash_t hash = 0;
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        hash = XXH3_64bits_withSeed(s->path, strlen(s->path) + 1, hash);
        int64_t label = s->label, labels = xkd_sample_label_count(s); /* 64 bits, as packs have it that are begun */
        hash = XXH3_64bits_withSeed(&label, sizeof label, hash);
        if (labels) hash = XXH3_64bits_withSeed(s->more->labels, (size_t)labels * sizeof(int32_t), hash);
        hash = XXH3_64bits_withSeed(s->split, strlen(s->split) + 1, hash);
    }
    return hash;
}

xkd_pack_settings xkd_pack_settings_of(const xkd_data_config *d, int64_t short_side, const xkd_record_options *record,
                                       int64_t shard_bytes, const xkd_manifest *m)
{
    return (xkd_pack_settings){.samples = m->count,
                               .short_side = short_side,
                               .record = *record,
                               .streams = {!d->left_out[XKD_VIDEO], !d->left_out[XKD_AUDIO]},
                               .stream_colour = d->stream_colour,
                               .hold_last_frame = d->hold_last_frame,
                               .audio_track = d->audio_track,
                               .shard_bytes = shard_bytes,
                               .rows = hash_rows(m)};
}

static double length_of(const xkd_sample *s, const bool streams[XKD_MODALITIES])
{
    double seconds = streams[XKD_VIDEO] ? s->video_seconds : 0;
    return streams[XKD_AUDIO] ? fmax(seconds, s->audio_seconds) : seconds;
}

static double assumed_pixel(const xkd_pack_settings *s)
{
    if (s->record.codec != XKD_CODEC_JPEG) return 3;
    return (s->record.full_colour ? JPEG_FULL : JPEG_HALF) * pow(3, ((double)s->record.quality - 95) / 45);
}

/* Bytes of a sample's record, as far as can be told before; `pixel`: those of a pixel. */
static double bytes_of(const xkd_pack_settings *s, const xkd_sample *x, double seconds, double pixel)
{
    double w = x->width > 0 ? (double)x->width : 16, h = x->height > 0 ? (double)x->height : 9,
           side = (double)s->short_side;
    double pixels = side > 0 ? side * side * fmax(w / h, h / w) : x->width > 0 ? w * h : 640 * 360;
    double video = s->streams[XKD_VIDEO] && x->has_video != 0 ? pixels * pixel * s->record.grid_fps : 0;
    double audio = s->streams[XKD_AUDIO] && x->has_audio != 0 ? 2 * (double)s->record.audio_rate : 0;
    return XKD_RECORD_ALIGN + seconds * (video + audio);
}

/* Cuts the list where the samples so far would fill a shard. `runs` NULL: they are counted only. */
static int64_t cut_runs(const xkd_manifest *m, const xkd_packing_options *o, double measured, xkd_packing_stretch *runs,
                        xkd_packing_forecast *f)
{
    int64_t count = 0, first = 0, mine = 0;
    double bytes = 0, seconds = 0, length, really = 0, assumed = assumed_pixel(&o->settings);
    for (int64_t i = 0; i < m->count; i++) {
        length = length_of(&m->samples[i], o->settings.streams);
        bool known = length > 0, is_mine = count % o->parts == o->part;
        if (!known) length = ASSUMED_SECONDS;
        f->without_length += is_mine && !known;
        /* The cuts must be the same in all sittings and processes; only what is said of them is measured. */
        bytes += bytes_of(&o->settings, &m->samples[i], length, assumed);
        really += bytes_of(&o->settings, &m->samples[i], length, measured);
        seconds += length;
        if (bytes < (double)o->settings.shard_bytes && i + 1 < m->count) continue;
        if (is_mine) {
            if (runs) runs[mine] = (xkd_packing_stretch){first, i + 1 - first};
            mine++;
            f->samples += i + 1 - first;
            f->bytes += really;
            f->seconds += seconds;
        }
        count++;
        first = i + 1;
        bytes = really = seconds = 0;
    }
    return mine;
}

int64_t xkd_packing_cut(const xkd_manifest *m, const xkd_packing_options *o, xkd_packing_stretch *runs,
                        xkd_packing_forecast *out)
{
    return cut_runs(m, o, assumed_pixel(&o->settings), runs, out);
}

/* Where frames go of which only the size as JPEG matters. */
typedef struct {
    xkd_jpeg *jpeg;
    const xkd_record_options *record;
    double bytes, pixels;
} scales;

static xkd_status weigh_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    scales *w = user;
    const uint8_t *data;
    int64_t size;
    (void)index;
    xkd_status status =
        xkd_jpeg_encode(w->jpeg, rgb, width, height, w->record->quality, w->record->full_colour, &data, &size);
    w->bytes += status == XKD_OK ? (double)size : 0;
    w->pixels += (double)(width * height);
    return status;
}

static xkd_status weigh_sound(void *user, const int16_t *samples, int64_t count)
{
    (void)user, (void)samples, (void)count;
    return XKD_OK;
}

static xkd_status weigh_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

/* A second of a file; one that cannot be read weighs nothing. */
static xkd_status weigh_file(xkd_context *cx, xkd_worker *worker, const xkd_manifest *m, int64_t i,
                             const xkd_data_config *d, const xkd_packing_options *o, scales *w)
{
    xkd_status status = XKD_OK;
    xkd_source source = {.fd = -1};
    xkd_media_fault fault = XKD_FAULT_NONE;
    xkd_media_result result;
    const xkd_media_sink sink = {.user = w, .begin = weigh_begin, .frame = weigh_frame, .sound = weigh_sound};
    const xkd_media_request q = {.mode = XKD_CLIP_PLACE,
                                 .start = 0.5,
                                 .duration = 1,
                                 .fps = o->settings.record.grid_fps,
                                 .short_side = o->settings.short_side,
                                 .audio_rate = o->settings.record.audio_rate,
                                 .video = true};
    status = xkd_manifest_open(cx, m, &m->samples[i], d->follow_links, &source, &fault);
    if (status != XKD_OK && fault != XKD_FAULT_NONE) {
        xkd_clear_error(cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    XKD_TRY(xkd_worker_decode(worker, &source, &q, &sink, &result));
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

xkd_status xkd_packing_plan(xkd_context *cx, const xkd_manifest *m, const xkd_data_config *d,
                            const xkd_packing_options *o, xkd_packing_forecast *out)
{
    xkd_status status = XKD_OK;
    const xkd_pack_settings *s = &o->settings;
    scales w = {.record = &s->record};
    xkd_worker *worker = NULL;
    double pixel = assumed_pixel(s);
    int64_t looks = m->count < LOOKED_AT ? m->count : LOOKED_AT;
    *out = (xkd_packing_forecast){.free_bytes = xkd_free_space(o->out)};
    if (s->record.codec == XKD_CODEC_JPEG && s->streams[XKD_VIDEO]) {
        XKD_TRY(xkd_jpeg_new(cx, &w.jpeg));
        XKD_TRY(xkd_worker_new(cx, NULL, d->decode_seconds, &worker));
        for (int64_t k = 0; k < looks; k++) XKD_TRY(weigh_file(cx, worker, m, k * m->count / looks, d, o, &w));
        if (w.pixels > 0) pixel = w.bytes / w.pixels;
    }
    out->runs = cut_runs(m, o, pixel, NULL, out);
fail:
    xkd_worker_free(worker);
    xkd_jpeg_free(w.jpeg);
    return status;
}
