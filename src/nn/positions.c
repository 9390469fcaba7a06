/* Interpolated positional tables as sparse matrices (method.md section 3). The weights depend on shapes
 * alone, so they are worked out once per view; a step then only multiplies, forward with S and backward with
 * its transpose. */
#include "nn/positions.h"

#include <math.h>

#include "base/alloc.h"

/* Cubic convolution mixes four neighbours; linear two. */
enum { MOST_TAPS = 4 };

/* The source tokens one destination token of one axis mixes. */
typedef struct {
    int count;                /* used entries */
    int64_t index[MOST_TAPS]; /* source tokens along the axis */
    double weight[MOST_TAPS]; /* sum to 1 */
} taps;

/* Indices outside repeat the border, as PyTorch does. */
static int64_t clamp(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Cubic convolution kernel with a = -0.75 (Keys, 1981), the one PyTorch's bicubic uses. */
static double cubic_weight(double x)
{
    const double a = -0.75;
    x = fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}

/* Taps of one destination token along one axis. An axis whose size is unchanged is copied exactly, and not
 * resampled with the 0.1 in the scale. */
static taps axis_taps(int64_t dst, int64_t n_dst, int64_t n_src, bool cubic)
{
    if (n_dst == n_src) return (taps){1, {dst}, {1}};
    /* 0.1 keeps floor(n_src * scale) at n_dst in floating point; the release passes it, so the scale has it too. */
    double scale = ((double)n_dst + 0.1) / (double)n_src, at = ((double)dst + 0.5) / scale - 0.5;
    taps t = {0};
    if (!cubic) {
        /* Linear interpolation clamps the coordinate from below; the cubic one must not, its taps are clamped
         * instead. */
        if (at < 0) at = 0;
        int64_t low = clamp((int64_t)floor(at), n_src);
        double fraction = at - (double)low;
        t = (taps){2, {low, clamp(low + 1, n_src)}, {1 - fraction, fraction}};
        return t;
    }
    int64_t low = (int64_t)floor(at);
    t.count = MOST_TAPS;
    for (int k = 0; k < MOST_TAPS; k++) {
        t.index[k] = clamp(low - 1 + k, n_src);
        t.weight[k] = cubic_weight(at - (double)(low - 1 + k));
    }
    return t;
}

/* Appends the products of the three axes' taps as row `row`.
 * Order of entries: t, h, w. It fixes the order of the sums, and so the result. */
static void add_row(int32_t *start, int32_t *index, double *weight, int64_t row, const taps axis[3], xkd_grid src,
                    int64_t cls)
{
    int32_t k = start[row];
    for (int t = 0; t < axis[0].count; t++)
        for (int h = 0; h < axis[1].count; h++)
            for (int w = 0; w < axis[2].count; w++) {
                int64_t token = (axis[0].index[t] * src.h + axis[1].index[h]) * src.w + axis[2].index[w];
                index[k] = (int32_t)(cls + token);
                weight[k++] = axis[0].weight[t] * axis[1].weight[h] * axis[2].weight[w];
            }
    start[row + 1] = k;
}

/* Entries sorted by column instead of row, rows in ascending order within a column.
 * A counting sort. `start` is advanced while filling and shifted back by one at the end, which saves a second
 * array of cursors. Zeros are expected in `start` on entry. */
static void transpose(const xkd_sparse_rows *in, int32_t *start, int32_t *index, double *weight)
{
    int32_t entries = in->start[in->rows_out];
    for (int32_t k = 0; k < entries; k++) start[in->index[k] + 1]++;
    for (int64_t c = 0; c < in->rows_in; c++) start[c + 1] += start[c];
    for (int64_t r = 0; r < in->rows_out; r++)
        for (int32_t k = in->start[r]; k < in->start[r + 1]; k++) {
            int32_t at = start[in->index[k]]++;
            index[at] = (int32_t)r;
            weight[at] = in->weight[k];
        }
    for (int64_t c = in->rows_in; c > 0; c--) start[c] = start[c - 1];
    start[0] = 0;
}

/* One block of memory holds both matrices: doubles first, so that all parts are aligned. Row 0 is the class
 * token's, copied as it is. */
xkd_status xkd_resample_make(xkd_context *cx, xkd_resample *out, xkd_grid src, xkd_grid dst, bool cubic, int64_t cls)
{
    xkd_status status = XKD_OK;
    int64_t rows_out = cls + dst.t * dst.h * dst.w, rows_in = cls + src.t * src.h * src.w;
    int64_t most = rows_out * MOST_TAPS * MOST_TAPS * MOST_TAPS;
    char *memory;
    *out = (xkd_resample){0};
    /* The release fixes the frequency side; interpolating it would mix mel bands. */
    if (cubic && src.h != dst.h)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "a spectrogram of %lld frequency patches does not fit a model of %lld: the number of "
                 "mel bands must match",
                 (long long)dst.h, (long long)src.h);
    /* 12 bytes an entry (weight and index), twice; 4 a row, twice. */
    out->bytes = 2 * most * 12 + (rows_out + rows_in + 2) * 4;
    XKD_TRY(xkd_alloc(cx, &memory, out->bytes, 1));
    double *weight = (double *)memory, *weight_t = weight + most;
    int32_t *index = (int32_t *)(weight_t + most), *index_t = index + most;
    int32_t *start = index_t + most, *start_t = start + rows_out + 1;
    out->memory = memory;
    for (int64_t i = 0; i < cls; i++) {
        index[i] = (int32_t)i;
        weight[i] = 1;
        start[i + 1] = (int32_t)i + 1;
    }
    for (int64_t i = 0; i < rows_out - cls; i++) {
        taps axis[3] = {axis_taps(i / (dst.h * dst.w), dst.t, src.t, cubic),
                        axis_taps(i / dst.w % dst.h, dst.h, src.h, cubic), axis_taps(i % dst.w, dst.w, src.w, cubic)};
        add_row(start, index, weight, cls + i, axis, src, cls);
    }
    out->forward = (xkd_sparse_rows){rows_out, rows_in, start, index, weight};
    transpose(&out->forward, start_t, index_t, weight_t);
    out->backward = (xkd_sparse_rows){rows_in, rows_out, start_t, index_t, weight_t};
fail:
    return status;
}

static const void *moved(const xkd_resample *r, const void *array, const void *room)
{
    return (const char *)room + ((const char *)array - (const char *)r->memory);
}

xkd_sparse_rows xkd_resample_at(const xkd_resample *r, const xkd_sparse_rows *matrix, const void *room)
{
    xkd_sparse_rows out = *matrix;
    out.start = moved(r, matrix->start, room);
    out.index = moved(r, matrix->index, room);
    out.weight = moved(r, matrix->weight, room);
    return out;
}

/* Safe on a view that was never resampled. */
void xkd_resample_free(xkd_resample *r)
{
    xkd_free(r->memory);
    *r = (xkd_resample){0};
}
