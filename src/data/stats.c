/* Figures of a data set: what the manifest knows of all files, and mean and deviation of log-mel
 * values over some of them, for data whose loudness differs from the default normalisation. */
#include "data/stats.h"

#include <math.h>
#include <unistd.h>

#include "base/alloc.h"
#include "media/mel.h"
#include "data/pack.h"
#include "media/worker.h"

/* Sound of one clip, cut to `room` samples. */
typedef struct {
    xkd_context *cx;
    int64_t room, samples;
    float *wave;
    bool silent; /* the file has no sound at all */
} listener;

/* The worker's callbacks; only sound is asked for. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)info, (void)start;
    ((listener *)user)->samples = 0;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    return XKD_OK;
}

/* More than a clip holds is not delivered; the bound guards against a worker that does. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    listener *l = user;
    for (int64_t i = 0; i < count && l->samples < l->room; i++) l->wave[l->samples++] = (float)samples[i] / 32767.0f;
    return XKD_OK;
}

/* From the manifest alone; nothing is opened. */
static void count(const xkd_manifest *m, const xkd_data_config *d, xkd_data_stats *out)
{
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        out->files++;
        out->with_audio += s->has_audio == 1;
        out->without_audio += s->has_audio == 0;
        out->unknown_audio += s->has_audio < 0;
        out->labelled += s->label >= 0 || xkd_sample_label_count(s) > 0;
        double seconds = xkd_sample_seconds(s, d->left_out);
        if (!(seconds > 0)) continue;
        if (out->shortest == 0 || seconds < out->shortest) out->shortest = seconds;
        if (seconds > out->longest) out->longest = seconds;
        out->video_hours += seconds / 3600;
    }
}

/* Sum and sum of squares of one file's log-mel values.
 * NAN says that the file gave nothing. Sums are in double: a clip has 36 000 cells. */
static xkd_status hear(listener *l, xkd_worker *worker, xkd_mel *mel, const xkd_manifest *m, const xkd_sample *s,
                       const xkd_data_config *d, float *spec, double sums[2])
{
    xkd_status status = XKD_OK;
    xkd_source source = {.fd = -1};
    xkd_media_fault fault;
    xkd_media_result result;
    xkd_media_request request = {.mode = XKD_CLIP_PLACE,
                                 /* 0.5: the middle of the starts that leave room for a clip. */
                                 .start = 0.5,
                                 .duration = d->clip_duration,
                                 .fps = d->video_fps,
                                 .audio_rate = d->audio_rate,
                                 .audio = true,
                                 .hold_last_frame = d->hold_last_frame,
                                 .audio_track = d->audio_track};
    xkd_media_sink sink = {.user = l, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    sums[0] = sums[1] = NAN;
    if (m->pack) XKD_TRY(xkd_pack_fits(l->cx, m->pack, &request));
    status = xkd_manifest_open(l->cx, m, s, d->follow_links, &source, &fault);
    if (status != XKD_OK) {
        xkd_clear_error(l->cx);
        /* A file's fault leaves its sums NAN and is counted by the caller; an error of ours ends it all. */
        return fault == XKD_FAULT_NONE ? status : XKD_OK;
    }
    l->samples = 0;
    l->silent = false;
    XKD_TRY(xkd_worker_decode(worker, &source, &request, &sink, &result));
    l->silent = result.fault == XKD_FAULT_NO_AUDIO || (result.fault == XKD_FAULT_NONE && !result.info.has_audio);
    if (result.fault != XKD_FAULT_NONE || l->samples == 0) goto fail;
    while (l->samples < l->room) l->wave[l->samples++] = 0; /* as in training */
    xkd_mel_run(mel, l->wave, l->room, spec);
    sums[0] = sums[1] = 0;
    for (int64_t i = 0; i < d->n_mels * xkd_mel_columns(l->room, d->hop_length); i++) {
        sums[0] += (double)spec[i];
        sums[1] += (double)spec[i] * (double)spec[i];
    }
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

/* Files are taken at even distances, so every part of a sorted list is represented. The middle clip
 * of each, as titles and silence tend to be at the ends. */
xkd_status xkd_stats(xkd_context *cx, const xkd_manifest *m, const xkd_data_config *d, int64_t max_files,
                     xkd_data_stats *out)
{
    xkd_status status = XKD_OK;
    listener l = {.cx = cx, .room = llround(d->clip_duration * (double)d->audio_rate)};
    xkd_worker *worker = NULL;
    xkd_mel *mel = NULL;
    float *spec = NULL;
    double total[2] = {0};
    int64_t files = max_files < m->count ? max_files : m->count,
            cells = d->n_mels * xkd_mel_columns(l.room, d->hop_length);
    *out = (xkd_data_stats){0};
    count(m, d, out);
    /* Where pictures alone are trained, nobody listens. */
    if (files < 1 || d->left_out[XKD_AUDIO]) return XKD_OK;
    XKD_TRY(xkd_worker_new(cx, NULL, d->decode_seconds, &worker));
    XKD_TRY(xkd_mel_new(cx, d->audio_rate, d->n_fft, d->hop_length, d->n_mels, &mel));
    XKD_TRY(xkd_alloc(cx, &l.wave, l.room, sizeof *l.wave));
    XKD_TRY(xkd_alloc(cx, &spec, cells, sizeof *spec));
    /* k * count / files spreads `files` places over the list and never repeats one. */
    for (int64_t k = 0; k < files; k++) {
        double sums[2];
        XKD_TRY(hear(&l, worker, mel, m, &m->samples[k * m->count / files], d, spec, sums));
        if (isnan(sums[0])) {
            out->unreadable += !l.silent;
            out->silent += l.silent;
            continue;
        }
        total[0] += sums[0];
        total[1] += sums[1];
        out->mel_files++;
    }
    if (out->mel_files) {
        double n = (double)(out->mel_files * cells);
        out->mel_mean = total[0] / n;
        /* Rounding may push the variance just below 0. */
        out->mel_std = sqrt(fmax(total[1] / n - out->mel_mean * out->mel_mean, 0));
    }
fail:
    xkd_worker_free(worker);
    xkd_mel_free(mel);
    xkd_free(l.wave);
    xkd_free(spec);
    return status;
}
