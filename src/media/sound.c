/* From decoded sound of any rate and layout to 16-bit mono at one rate, placed on the clip's clock:
 * what is late is preceded by silence, what overlaps is dropped, so that sample i always lies at
 * start + i / rate. */
#include "media/sound.h"

#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* Time stamps in containers are rounded (1 ms in Matroska) and encoders drift a little: only a larger jump is a real
 * gap, for which sound must be moved to stay in step with the picture. */
static const double GAP_SECONDS = 0.05;

/* Silence is delivered in pieces of this many samples, and a time stamp that claims a longer gap than an hour is
 * damaged rather than true. */
enum { PIECE = 4096, MAX_GAP_SECONDS = 3600 };

/* Rates that have little in common would take long to bring together: 11 025 Hz and 16 kHz take 441 samples. */
enum { MAX_PERIOD = 2048 };
/* Of a sample: what time stamps in doubles cannot tell apart. */
static const double SAME_PLACE = 1e-4;

struct xkd_sound {
    xkd_media *media; /* both the caller's */
    const xkd_media_sink *sink;
    int64_t rate, limit; /* Hz out; samples wanted, -1: all */
    double start;        /* s, time of sample 0 */
    SwrContext *swr;
    AVChannelLayout layout;  /* of the input that swr was made for */
    AVChannelLayout as_told; /* what the frames say: the same, or no positions at all */
    int in_rate, in_format;  /* Hz; AVSampleFormat */
    double next;             /* time at which the next frame is expected */
    int64_t at;              /* index of the next sample out of swr; negative before `start` */
    int64_t delivered;       /* samples given to the sink */
    int16_t *buffer;         /* [capacity], output of one conversion */
    int64_t capacity;
};

/* The resampler is made with the first frame, whose format is known then. */
xkd_status xkd_sound_new(xkd_media *media, int64_t rate, double start, int64_t limit, const xkd_media_sink *sink,
                         xkd_sound **out)
{
    xkd_status status = xkd_alloc(media->cx, out, 1, sizeof **out);
    if (status != XKD_OK) return status;
    **out = (xkd_sound){.media = media, .sink = sink, .rate = rate, .limit = limit, .start = start};
    return XKD_OK;
}

void xkd_sound_free(xkd_sound *sound)
{
    if (!sound) return;
    swr_free(&sound->swr);
    av_channel_layout_uninit(&sound->layout);
    av_channel_layout_uninit(&sound->as_told);
    xkd_free(sound->buffer);
    xkd_free(sound);
}

int64_t xkd_sound_delivered(const xkd_sound *sound)
{
    return sound->delivered;
}

/* The old content is not needed, so the buffer is told to be empty and nothing is copied. */
static xkd_status reserve(xkd_sound *s, int64_t count)
{
    if (count <= s->capacity) return XKD_OK;
    int64_t capacity = count + PIECE;
    xkd_status status = xkd_resize(s->media->cx, &s->buffer, 0, capacity, sizeof *s->buffer);
    s->capacity = status == XKD_OK ? capacity : s->capacity;
    return status;
}

/* Never more than `limit`: the sink may rely on that for its memory. */
static xkd_status deliver(xkd_sound *s, const int16_t *samples, int64_t count)
{
    if (s->limit >= 0 && count > s->limit - s->delivered) count = s->limit - s->delivered;
    if (count <= 0) return XKD_OK;
    s->delivered += count;
    return s->sink->sound(s->sink->user, samples, count);
}

/* Puts `count` samples at s->at: what lies before the samples already delivered is dropped, a gap is silence. */
static xkd_status place(xkd_sound *s, const int16_t *samples, int64_t count)
{
    static const int16_t SILENCE[PIECE];
    xkd_status status = XKD_OK;
    while (count > 0 && s->at > s->delivered && (s->limit < 0 || s->delivered < s->limit)) {
        int64_t gap = s->at - s->delivered;
        XKD_TRY(deliver(s, SILENCE, gap < PIECE ? gap : PIECE));
    }
    int64_t skip = s->delivered - s->at;
    s->at += count;
    if (skip < 0) skip = 0;
    if (skip < count) XKD_TRY(deliver(s, samples + skip, count - skip));
fail:
    return status;
}

/* Feeds one frame (NULL: the end) to the resampler and places what comes out.
 * 64 samples more than FFmpeg promises: its figure is an estimate for some filters. */
static xkd_status convert(xkd_sound *s, const AVFrame *frame)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->media->cx;
    int in = frame ? frame->nb_samples : 0;
    int room = swr_get_out_samples(s->swr, in);
    if (room < 0) room = 0;
    XKD_TRY(reserve(s, room + 64));
    uint8_t *planes[1] = {(uint8_t *)s->buffer};
    int got = swr_convert(s->swr, planes, room + 64, frame ? (const uint8_t **)(void *)frame->extended_data : NULL, in);
    if (got < 0) XKD_FAIL(XKD_ERR_DATA, "%s: the sound cannot be resampled", s->media->name);
    XKD_TRY(place(s, s->buffer, got));
fail:
    return status;
}

/* The resampler's filter still holds a few samples. */
xkd_status xkd_sound_finish(xkd_sound *s)
{
    return s->swr ? convert(s, NULL) : XKD_OK;
}

/* swresample's default down-mix and filter, as in the release (method.md section 2). A layout without
 * positions is taken for the usual one of its number of channels. */
static xkd_status make_resampler(xkd_sound *s, const AVFrame *frame, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->media->cx;
    AVChannelLayout mono = AV_CHANNEL_LAYOUT_MONO;
    swr_free(&s->swr);
    av_channel_layout_uninit(&s->layout);
    if (av_channel_layout_copy(&s->layout, &frame->ch_layout) < 0 ||
        av_channel_layout_copy(&s->as_told, &frame->ch_layout) < 0)
        XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", s->media->name);
    if (s->layout.order == AV_CHANNEL_ORDER_UNSPEC) av_channel_layout_default(&s->layout, frame->ch_layout.nb_channels);
    s->in_rate = frame->sample_rate;
    s->in_format = frame->format;
    if (swr_alloc_set_opts2(&s->swr, &mono, AV_SAMPLE_FMT_S16, (int)s->rate, &s->layout, frame->format,
                            frame->sample_rate, 0, NULL) < 0 ||
        swr_init(s->swr) < 0) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: sound of %d channels at %d Hz cannot be resampled", s->media->name,
                 frame->ch_layout.nb_channels, frame->sample_rate);
    }
fail:
    return status;
}

/* The resampler gives its first sample at the time of what it is fed first. Silence of so many samples of the input in front
 * brings that time to one of the output's, as nearly as the two rates allow (44.1 kHz to 16 kHz: to 1/882 of a sample), so that
 * a sound has the same samples wherever decoding began. *at: the index of the first sample then. */
static int64_t samples_in_front(const xkd_sound *s, double time, int64_t *at)
{
    int64_t a = s->in_rate, b = s->rate;
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    int64_t period = s->in_rate / a, best = 0;
    double first = (time - s->start) * (double)s->rate, least = INFINITY;
    for (int64_t q = 0; q < period && q < MAX_PERIOD && least > SAME_PLACE; q++) {
        double place = first - (double)q * (double)s->rate / s->in_rate, off = fabs(place - round(place));
        if (off > least - SAME_PLACE) continue;
        least = off;
        best = q;
        *at = llround(place);
    }
    return best;
}

/* Anything else would be fed to a resampler that was made for other data. Five channels are mixed by where they stand,
 * so their number is not enough. */
static bool same_input(const xkd_sound *s, const AVFrame *frame)
{
    return s->in_rate == frame->sample_rate && s->in_format == frame->format &&
           av_channel_layout_compare(&s->as_told, &frame->ch_layout) == 0;
}

/* Within one run of frames `at` counts samples; only a gap or another format places it anew by
 * time. */
xkd_status xkd_sound_add(xkd_sound *s, const AVFrame *frame, double time, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = s->media->cx;
    if (frame->sample_rate < 1 || frame->sample_rate > XKD_MEDIA_MAX_RATE || frame->ch_layout.nb_channels < 1 ||
        frame->ch_layout.nb_channels > XKD_MEDIA_MAX_CHANNELS) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: refused: sound of %d channels at %d Hz (docs/media-formats.md has the limits)",
                 s->media->name, frame->ch_layout.nb_channels, frame->sample_rate);
    }
    bool gap = s->swr && fabs(time - s->next) > GAP_SECONDS;
    if (gap && fabs(time - s->next) > MAX_GAP_SECONDS) {
        time = s->next;
        gap = false;
    }
    if (!s->swr || gap || !same_input(s, frame)) {
        XKD_TRY(xkd_sound_finish(s));
        XKD_TRY(make_resampler(s, frame, fault));
        int64_t silence = samples_in_front(s, time, &s->at);
        if (silence && swr_inject_silence(s->swr, (int)silence) < 0)
            XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", s->media->name);
        s->next = time;
    }
    s->next += (double)frame->nb_samples / frame->sample_rate;
    XKD_TRY(convert(s, frame));
fail:
    return status;
}
