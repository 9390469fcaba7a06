/* Log-mel spectrograms (method.md section 2) and the two operations that are applied to them. One
 * object holds all scratch and belongs to one thread. */
#include "media/mel.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "base/alloc.h"
#include "media/fft.h"

struct xkd_mel {
    xkd_mel_tables tables;
    int64_t bins; /* n_fft/2+1 */
    xkd_fft *fft;
    float *window, *bank; /* of a plan that owns its tables; NULL elsewhere */
    int32_t *first, *last;
    float *frame;    /* [n_fft] */
    float *spectrum; /* [bins] complex */
    float *power;    /* [bins] */
};

/* Slaney's scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels for a factor 6.4). */
static double mel_to_hertz(double mel)
{
    const double step = 200.0 / 3.0, knee = 1000.0, knee_mel = knee / step, log_step = log(6.4) / 27.0;
    return mel < knee_mel ? step * mel : knee * exp(log_step * (mel - knee_mel));
}

/* The inverse of mel_to_hertz. */
static double hertz_to_mel(double hertz)
{
    const double step = 200.0 / 3.0, knee = 1000.0, knee_mel = knee / step, log_step = log(6.4) / 27.0;
    return hertz < knee ? hertz / step : knee_mel + log(hertz / knee) / log_step;
}

/* Triangles over the band edges, each of area 1 (librosa's norm = "slaney").
 * The bands are narrow, so first and last non-zero bin are kept and the rest is never multiplied. */
static void fill_bank(xkd_mel *mel, int64_t rate)
{
    double top = hertz_to_mel((double)rate / 2), bands = (double)mel->tables.bands;
    for (int64_t f = 0; f < mel->tables.bands; f++) {
        double low = mel_to_hertz(top * (double)f / (bands + 1)),
               mid = mel_to_hertz(top * (double)(f + 1) / (bands + 1));
        double high = mel_to_hertz(top * (double)(f + 2) / (bands + 1));
        float *row = mel->bank + f * mel->bins;
        mel->first[f] = (int32_t)mel->bins;
        for (int64_t k = 0; k < mel->bins; k++) {
            double hertz = (double)rate * (double)k / (double)mel->tables.n_fft;
            double weight = fmin((hertz - low) / (mid - low), (high - hertz) / (high - mid));
            row[k] = weight > 0 ? (float)(weight * 2.0 / (high - low)) : 0;
            if (weight > 0 && mel->first[f] == mel->bins) mel->first[f] = (int32_t)k;
            if (weight > 0) mel->last[f] = (int32_t)k + 1;
        }
        /* A band between two bins has no weight at all: an empty sum. */
        if (mel->last[f] == 0) mel->first[f] = 0;
    }
}

xkd_status xkd_mel_borrow(xkd_context *cx, const xkd_mel_tables *tables, xkd_mel **out)
{
    xkd_status status = XKD_OK;
    xkd_mel *mel = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &mel, 1, sizeof *mel));
    mel->tables = *tables;
    mel->bins = tables->n_fft / 2 + 1;
    XKD_TRY(xkd_fft_new(cx, tables->n_fft, &mel->fft));
    XKD_TRY(xkd_alloc(cx, &mel->frame, tables->n_fft, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &mel->spectrum, 2 * mel->bins + 16, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &mel->power, mel->bins, sizeof(float)));
    *out = mel;
    mel = NULL;
fail:
    xkd_mel_free(mel);
    return status;
}

/* rate in Hz; hop in samples. n_fft is checked by the transform. */
xkd_status xkd_mel_new(xkd_context *cx, int64_t rate, int64_t n_fft, int64_t hop, int64_t bands, xkd_mel **out)
{
    xkd_status status = XKD_OK;
    xkd_mel *mel = NULL;
    *out = NULL;
    if (hop < 1 || bands < 1 || bands > 4096 || rate < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "hop_length=%lld, n_mels=%lld, audio_fps=%lld: must be positive", (long long)hop,
                 (long long)bands, (long long)rate);
    XKD_TRY(xkd_mel_borrow(cx, &(xkd_mel_tables){.n_fft = n_fft, .hop = hop, .bands = bands}, &mel));
    XKD_TRY(xkd_alloc(cx, &mel->window, n_fft, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &mel->bank, bands * mel->bins, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &mel->first, bands, sizeof *mel->first));
    XKD_TRY(xkd_alloc(cx, &mel->last, bands, sizeof *mel->last));
    /* Periodic Hann: divided by n, not by n - 1. */
    for (int64_t i = 0; i < n_fft; i++) mel->window[i] = (float)(0.5 - 0.5 * cos(2 * M_PI * (double)i / (double)n_fft));
    fill_bank(mel, rate);
    mel->tables.window = mel->window;
    mel->tables.bank = mel->bank;
    mel->tables.first = mel->first;
    mel->tables.last = mel->last;
    *out = mel;
    mel = NULL;
fail:
    xkd_mel_free(mel);
    return status;
}

void xkd_mel_free(xkd_mel *mel)
{
    if (!mel) return;
    xkd_fft_free(mel->fft);
    xkd_free(mel->window);
    xkd_free(mel->bank);
    xkd_free(mel->first);
    xkd_free(mel->last);
    xkd_free(mel->frame);
    xkd_free(mel->spectrum);
    xkd_free(mel->power);
    xkd_free(mel);
}

/* Centred frames: one at every multiple of hop, both ends included. */
int64_t xkd_mel_columns(int64_t samples, int64_t hop)
{
    return 1 + samples / hop;
}

const xkd_mel_tables *xkd_mel_tables_of(const xkd_mel *mel)
{
    return &mel->tables;
}

/* Windowed samples around column t; outside the wave it is mirrored at its first and last sample.
 * The mirror needs more than n_fft/2 samples, which the view's sizes guarantee. */
static void cut_frame(const xkd_mel *mel, const float *wave, int64_t samples, int64_t t)
{
    int64_t n = mel->tables.n_fft, start = t * mel->tables.hop - n / 2;
    float *restrict frame = mel->frame;
    const float *restrict window = mel->tables.window;
    if (start >= 0 && start + n <= samples) {
        const float *restrict from = wave + start;
        for (int64_t i = 0; i < n; i++) frame[i] = from[i] * window[i];
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = start + i;
        if (at < 0) at = -at;
        if (at >= samples) at = 2 * samples - 2 - at;
        frame[i] = wave[at] * window[i];
    }
}

/* Eight running sums, so that the loop vectorises with a fixed order of additions. */
XKD_CLONES static float weighted_sum(const float *restrict a, const float *restrict b, int64_t n)
{
    float sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    float rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7])) + rest;
}

/* Power spectrum, mel bank, logarithm. The floor is added per bin, before the bank, as in the
 * release. Out is [F, columns]. */
void xkd_mel_run(xkd_mel *mel, const float *wave, int64_t samples, float *out)
{
    const xkd_mel_tables *m = &mel->tables;
    int64_t columns = xkd_mel_columns(samples, m->hop);
    for (int64_t t = 0; t < columns; t++) {
        cut_frame(mel, wave, samples, t);
        xkd_fft_run(mel->fft, mel->frame, mel->spectrum);
        const float *restrict z = mel->spectrum;
        float *restrict power = mel->power;
        for (int64_t k = 0; k < mel->bins; k++)
            power[k] = z[2 * k] * z[2 * k] + z[2 * k + 1] * z[2 * k + 1] + XKD_POWER_FLOOR;
        for (int64_t f = 0; f < m->bands; f++)
            out[f * columns + t] =
                weighted_sum(m->bank + f * mel->bins + m->first[f], power + m->first[f], m->last[f] - m->first[f]);
    }
    for (int64_t i = 0; i < m->bands * columns; i++) out[i] = logf(out[i] + XKD_LOG_FLOOR);
}

/* Keys' cubic with a = -0.75, as PyTorch: weights of the four neighbours at fraction t. */
static void cubic_weights(float t, float w[4])
{
    const float a = -0.75f;
    float far = t + 1, opposite = 1 - t, beyond = 2 - t;
    w[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * opposite - (a + 3)) * opposite * opposite + 1;
    w[3] = ((a * beyond - 5 * a) * beyond + 8 * a) * beyond - 4 * a;
}

/* Neighbours outside repeat the border. */
typedef struct {
    int64_t index[4];
    float weight[4];
} taps;

static taps cubic_taps(int64_t i, int64_t in, int64_t out, int align_corners)
{
    taps t;
    float x = align_corners ? (out > 1 ? (float)i * ((float)(in - 1) / (float)(out - 1)) : 0)
                            : ((float)in / (float)out) * ((float)i + 0.5f) - 0.5f;
    float base = floorf(x);
    cubic_weights(x - base, t.weight);
    for (int k = 0; k < 4; k++) {
        int64_t at = (int64_t)base - 1 + k;
        t.index[k] = at < 0 ? 0 : at >= in ? in - 1 : at;
    }
    return t;
}

/* The spectrogram sits in the middle of a zero canvas; the box is cut and resized back in place,
 * along frequency first. scratch: canvas and [F, box width]. */
void xkd_spec_resize_crop(float *spec, int64_t bands, int64_t columns, const xkd_spec_box *box, float *scratch)
{
    int64_t stride = box->canvas_width, top = (box->canvas_height - bands) / 2, left = (stride - columns) / 2;
    float *canvas = scratch, *rows = scratch + box->canvas_height * stride; /* rows: [F, box width] */
    memset(canvas, 0, (size_t)(box->canvas_height * stride) * sizeof *canvas);
    for (int64_t f = 0; f < bands; f++)
        memcpy(canvas + (top + f) * stride + left, spec + f * columns, (size_t)columns * sizeof *spec);
    for (int64_t f = 0; f < bands; f++) {
        taps y = cubic_taps(f, box->height, bands, 1);
        const float *from = canvas + box->top * stride + box->left;
        for (int64_t x = 0; x < box->width; x++) {
            float sum = 0;
            for (int k = 0; k < 4; k++) sum += y.weight[k] * from[y.index[k] * stride + x];
            rows[f * box->width + x] = sum;
        }
    }
    for (int64_t t = 0; t < columns; t++) {
        taps x = cubic_taps(t, box->width, columns, 1);
        for (int64_t f = 0; f < bands; f++) {
            float sum = 0;
            for (int k = 0; k < 4; k++) sum += x.weight[k] * rows[f * box->width + x.index[k]];
            spec[f * columns + t] = sum;
        }
    }
}

/* Columns before `centre` are stretched to `warped`, the others to the rest; scratch is [F, columns]. */
void xkd_spec_time_warp(float *spec, int64_t bands, int64_t columns, int64_t centre, int64_t warped, float *scratch)
{
    for (int64_t t = 0; t < columns; t++) {
        int64_t offset = t < warped ? 0 : centre;
        taps x = t < warped ? cubic_taps(t, centre, warped, 0)
                            : cubic_taps(t - warped, columns - centre, columns - warped, 0);
        for (int64_t f = 0; f < bands; f++) {
            float sum = 0;
            for (int k = 0; k < 4; k++) sum += x.weight[k] * spec[f * columns + offset + x.index[k]];
            scratch[f * columns + t] = sum;
        }
    }
    memcpy(spec, scratch, (size_t)(bands * columns) * sizeof *spec);
}
