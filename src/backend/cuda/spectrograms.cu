/* Views of a batch from what was decoded (media/augment.h): spectrograms. */
#include "kernel.h"
#include "state.h"

extern "C" {
#include "media/augment.h"
}

namespace
{
/* The tables of a spectrogram on the device: the weights of a band [widest] begin at its first bin. */
struct bank {
    const float *window;          /* [n_fft] */
    const int32_t *first, *count; /* [F] */
    const float *weight;          /* [F,widest] */
    int n_fft, hop, widest;
};

struct audio_job {
    const unsigned char *from;
    const xkd_audio_change *change; /* [B] */
    bank tables;
    int64_t samples; /* of the view */
    int F, columns, canvas_width;
    float mean, std;
    float *plain;  /* [B,F,columns] */
    float *warped; /* [B,F,columns] */
    float *rows;   /* [B,F,canvas_width] boxes resized along frequency */
    float *spec;   /* [B,F,columns] */
};

/* ---- log-mel: one column a block ---- */

/* A windowed sample of column t; the wave is mirrored at its ends. */
__device__ inline float windowed(const audio_job &j, const short *sound, float gain, int64_t t, int i)
{
    int64_t at = t * j.tables.hop - j.tables.n_fft / 2 + i;
    if (at < 0) at = -at;
    if (at >= j.samples) at = 2 * j.samples - 2 - at;
    return (float)sound[at] / XKD_SOUND_SCALE * gain * j.tables.window[i];
}

__device__ inline int reversed(int i, int bits)
{
    int out = 0;
    for (; bits > 0; bits--, i >>= 1) out = out << 1 | (i & 1);
    return out;
}

/* z [n], n = 2^bits, in the order of reversed bits -> its transform. turn [n/2] are the roots of unity. */
__device__ inline void transform(float2 *z, const float2 *turn, int n, int bits)
{
    for (int stage = 0; stage < bits; stage++) {
        int half = 1 << stage, step = n / 2 >> stage;
        for (int i = (int)threadIdx.x; i < n / 2; i += THREADS) {
            int k = i & (half - 1), low = ((i - k) << 1) + k;
            float2 w = turn[k * step], a = z[low], b = z[low + half];
            float re = w.x * b.x - w.y * b.y, im = w.x * b.y + w.y * b.x;
            z[low] = {a.x + re, a.y + im};
            z[low + half] = {a.x - re, a.y - im};
        }
        __syncthreads();
    }
}

/* Bin k of a length that is no power of two. turn [n] */
__device__ inline float2 bin_of(const float2 *z, const float2 *turn, int n, int k)
{
    float2 sum = {0, 0};
    for (int i = 0, at = 0; i < n; i++) {
        sum.x += z[i].x * turn[at].x;
        sum.y += z[i].x * turn[at].y;
        at += k;
        if (at >= n) at -= n;
    }
    return sum;
}

/* Power of the bins, bands, logarithm, normalisation. */
__global__ void log_mel(audio_job j, int bits)
{
    const int n = j.tables.n_fft, bins = n / 2 + 1, roots = bits ? n / 2 : n;
    SHARED(float2, z); /* [n], roots, and the power of the bins */
    float2 *turn = z + n;
    float *power = (float *)(turn + roots);
    const int64_t t = blockIdx.x % (unsigned)j.columns, b = blockIdx.x / (unsigned)j.columns;
    const short *sound = (const short *)(j.from + j.change[b].at);
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        z[bits ? reversed(i, bits) : i] = {windowed(j, sound, j.change[b].gain, t, i), 0};
    for (int i = (int)threadIdx.x; i < roots; i += THREADS)
        sincospif(-2.0f * (float)i / (float)n, &turn[i].y, &turn[i].x);
    __syncthreads();
    if (bits) transform(z, turn, n, bits);
    for (int k = (int)threadIdx.x; k < bins; k += THREADS) {
        float2 x = bits ? z[k] : bin_of(z, turn, n, k);
        power[k] = x.x * x.x + x.y * x.y + XKD_POWER_FLOOR;
    }
    __syncthreads();
    for (int f = (int)threadIdx.x; f < j.F; f += THREADS) {
        float sum = 0;
        for (int k = 0; k < j.tables.count[f]; k++)
            sum += j.tables.weight[f * j.tables.widest + k] * power[j.tables.first[f] + k];
        j.plain[(b * j.F + f) * j.columns + t] = (logf(sum + XKD_LOG_FLOOR) - j.mean) / j.std;
    }
}

/* ---- warp and box: Keys' cubic with a = -0.75, neighbours outside repeat the border ---- */

struct taps {
    int index[4];
    float weight[4];
};

__device__ inline taps cubic_taps(int i, int in, int out, bool align_corners)
{
    const float a = -0.75f;
    float x = align_corners ? (out > 1 ? (float)i * ((float)(in - 1) / (float)(out - 1)) : 0)
                            : ((float)in / (float)out) * ((float)i + 0.5f) - 0.5f;
    float base = floorf(x), t = x - base, far = t + 1, opposite = 1 - t, beyond = 2 - t;
    taps out_taps;
    out_taps.weight[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    out_taps.weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    out_taps.weight[2] = ((a + 2) * opposite - (a + 3)) * opposite * opposite + 1;
    out_taps.weight[3] = ((a * beyond - 5 * a) * beyond + 8 * a) * beyond - 4 * a;
    for (int k = 0; k < 4; k++) out_taps.index[k] = max(0, min((int)base - 1 + k, in - 1));
    return out_taps;
}

/* Columns before the centre are stretched to another length, the others to the rest. */
struct warp_element {
    audio_job j;
    __device__ void operator()(int64_t i) const
    {
        const xkd_audio_change *c = &j.change[i / j.columns / j.F];
        int t = (int)(i % j.columns), centre = c->warp_centre, to = c->warp_to;
        float sum = 0;
        if (!c->warp) {
            j.warped[i] = j.plain[i];
            return;
        }
        taps x =
            t < to ? cubic_taps(t, centre, to, false) : cubic_taps(t - to, j.columns - centre, j.columns - to, false);
        const float *row = j.plain + (i - t) + (t < to ? 0 : centre);
        for (int k = 0; k < 4; k++) sum += x.weight[k] * row[x.index[k]];
        j.warped[i] = sum;
    }
};

/* A place of the canvas, in whose middle the spectrogram [F,columns] stands; 0 elsewhere. */
__device__ inline float on_canvas(const audio_job &j, const xkd_audio_change *c, const float *spec, int y, int x)
{
    y -= (c->canvas_height - j.F) / 2;
    x -= (c->canvas_width - j.columns) / 2;
    return y >= 0 && y < j.F && x >= 0 && x < j.columns ? spec[y * j.columns + x] : 0;
}

/* Element [b,f,x] of the boxes resized along frequency. */
struct box_row {
    audio_job j;
    __device__ void operator()(int64_t i) const
    {
        int x = (int)(i % j.canvas_width), f = (int)(i / j.canvas_width % j.F);
        int64_t b = i / j.canvas_width / j.F;
        const xkd_audio_change *c = &j.change[b];
        const float *spec = j.warped + b * j.F * j.columns;
        float sum = 0;
        if (!c->crop || x >= c->width) return;
        taps y = cubic_taps(f, c->height, j.F, true);
        for (int k = 0; k < 4; k++) sum += y.weight[k] * on_canvas(j, c, spec, c->top + y.index[k], c->left + x);
        j.rows[i] = sum;
    }
};

struct box_column {
    audio_job j;
    __device__ void operator()(int64_t i) const
    {
        const xkd_audio_change *c = &j.change[i / j.columns / j.F];
        const float *row = j.rows + i / j.columns * j.canvas_width;
        float sum = 0;
        taps x = cubic_taps((int)(i % j.columns), c->width, j.columns, true);
        for (int k = 0; c->crop && k < 4; k++) sum += x.weight[k] * row[x.index[k]];
        j.spec[i] = c->crop ? sum : j.warped[i];
    }
};

/* ---- the operation ---- */

/* The tables as one array that is brought once. False: out of memory. */
bool keep_tables(xkd_backend *be, const xkd_mel_tables *t, bank *out)
{
    const int64_t bins = t->n_fft / 2 + 1, F = t->bands;
    int widest = 1;
    for (int64_t f = 0; f < F; f++)
        if (t->last[f] - t->first[f] > widest) widest = t->last[f] - t->first[f];
    const int64_t words = t->n_fft + 2 * F + F * widest;
    float *host = (float *)cuda_list(be, words * (int64_t)sizeof(float));
    if (!host) return false;
    int32_t *first = (int32_t *)host + t->n_fft, *count = first + F;
    float *weight = (float *)(count + F);
    for (int64_t i = 0; i < t->n_fft; i++) host[i] = t->window[i];
    for (int64_t f = 0; f < F; f++) {
        first[f] = t->first[f];
        count[f] = t->last[f] - t->first[f];
        for (int k = 0; k < widest; k++) weight[f * widest + k] = k < count[f] ? t->bank[f * bins + first[f] + k] : 0;
    }
    const float *there = (const float *)cuda_keep(be, host, words * (int64_t)sizeof(float));
    if (!there) return false;
    const int32_t *bands = (const int32_t *)there + t->n_fft;
    *out = {there, bands, bands + F, (const float *)(bands + 2 * F), (int)t->n_fft, (int)t->hop, widest};
    return true;
}

int64_t lay_out(audio_job *j, char *room, int64_t B)
{
    int64_t used = 0;
    j->plain = carve<float>(room, &used, B * j->F * j->columns);
    j->warped = carve<float>(room, &used, B * j->F * j->columns);
    j->rows = carve<float>(room, &used, B * j->F * j->canvas_width);
    return used;
}

/* log2 of a power of two; 0: it is none. */
int bits_of(int64_t n)
{
    int bits = 0;
    while ((int64_t)1 << bits < n) bits++;
    return (int64_t)1 << bits == n ? bits : 0;
}

/* The account is that of warps and of boxes as wide as the canvas. */
void audio_view(xkd_backend *be, float *spec, const xkd_audio_view_args *a)
{
    const xkd_spec_shape *s = &a->shape;
    const int64_t n = a->B * s->bands * s->columns, rows = a->B * s->bands * a->canvas_width;
    const int64_t transforms = a->B * s->columns, n_fft = a->tables->n_fft, element = (int64_t)sizeof(float);
    const int bits = bits_of(n_fft);
    const int64_t butterflies = bits ? 5 * n_fft * bits : 2 * n_fft * n_fft;
    if (!cuda_begin(be, "audio_view", a->B * s->samples * 2 + (4 * n + 2 * rows + n) * element,
                    transforms * (butterflies + 8 * n_fft) + 40 * n))
        return;
    audio_job j = {};
    if (!keep_tables(be, a->tables, &j.tables)) return;
    j.from = (const unsigned char *)a->from;
    j.change = a->change;
    j.samples = s->samples;
    j.F = (int)s->bands;
    j.columns = (int)s->columns;
    j.canvas_width = (int)a->canvas_width;
    j.mean = s->mean;
    j.std = s->std;
    j.spec = spec;
    char *scratch = (char *)cuda_scratch(be, lay_out(&j, NULL, a->B));
    if (!scratch) return;
    lay_out(&j, scratch, a->B);
    const int64_t complex_numbers = n_fft + (bits ? n_fft / 2 : n_fft);
    const size_t shared = (size_t)complex_numbers * sizeof(float2) + (size_t)(n_fft / 2 + 1) * sizeof(float);
    LAUNCH(be, log_mel, (unsigned)transforms, THREADS, shared, j, bits);
    cuda_each(be, "warp", warp_element{j}, n);
    cuda_each(be, "box_rows", box_row{j}, rows);
    cuda_each(be, "box_columns", box_column{j}, n);
}
} // namespace

void cuda_fill_audio_view(xkd_ops *ops)
{
    ops->audio_view = audio_view;
}
