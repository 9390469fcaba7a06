#include "eval/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "report/canvas.h"
#include "report/png.h"

/* The picture is at least this wide, so that few classes are not a stamp. */
enum { PICTURE_SIDE = 480, MOST_ZOOM = 40 };

/* Ties count against later classes only, so equal scores for all do not look like a hit for every class. */
void xkd_ranks(const float *scores, const int32_t *label, int64_t n, int64_t K, int64_t *rank)
{
    for (int64_t i = 0; i < n; i++) {
        const float *s = scores + i * K;
        float own = s[label[i]];
        int64_t above = 0;
        for (int64_t c = 0; c < K; c++) {
            if (c == label[i] || isnan(s[c])) continue;
            above += isnan(own) || s[c] > own || (s[c] == own && c < label[i]);
        }
        rank[i] = isnan(own) ? K - 1 : above;
    }
}

double xkd_top_k(const int64_t *rank, int64_t n, int64_t k)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < n; i++) hits += rank[i] < k;
    return n > 0 ? 100.0 * (double)hits / (double)n : 0;
}

typedef struct {
    float score;
    uint8_t truth;
} scored;

/* Best first; what is not a number is worst. */
static int by_score(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    if (isnan(x) || isnan(y)) return isnan(x) - isnan(y); /* last */
    return (x < y) - (x > y);
}

/* No interpolation between points, as in scikit-learn: that would be too kind. */
xkd_status xkd_average_precision(xkd_context *cx, const float *scores, const uint8_t *truth, int64_t n, int64_t stride,
                                 double *out)
{
    xkd_status status = XKD_OK;
    scored *order = NULL;
    int64_t positives = 0, hits = 0, hits_before = 0;
    *out = 0;
    XKD_TRY(xkd_alloc(cx, &order, n, sizeof *order));
    for (int64_t i = 0; i < n; i++) {
        order[i] = (scored){scores[i * stride], truth[i * stride]};
        positives += truth[i * stride] != 0;
    }
    if (positives == 0) goto fail;
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n; i++) {
        hits += order[i].truth != 0;
        /* Samples of one score are one threshold: only behind the last of them is there a point of the curve. */
        if (i + 1 < n && by_score(&order[i], &order[i + 1]) == 0) continue;
        *out += (double)(hits - hits_before) / (double)positives * ((double)hits / (double)(i + 1));
        hits_before = hits;
    }
fail:
    xkd_free(order);
    return status;
}

xkd_status xkd_mean_average_precision(xkd_context *cx, const float *scores, const uint8_t *truth, int64_t n, int64_t K,
                                      double *each, double *mean, int64_t *empty)
{
    xkd_status status = XKD_OK;
    double sum = 0;
    *empty = 0;
    for (int64_t c = 0; c < K; c++) {
        double precision;
        int64_t positives = 0;
        for (int64_t i = 0; i < n; i++) positives += truth[i * K + c] != 0;
        *empty += positives == 0;
        XKD_TRY(xkd_average_precision(cx, scores + c, truth + c, n, K, &precision));
        if (each) each[c] = precision;
        sum += precision;
    }
    *mean = sum / (double)K;
fail:
    return status;
}

void xkd_confusion(const float *scores, const int32_t *label, int64_t n, int64_t K, int64_t *counts)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t best = 0;
        for (int64_t c = 1; c < K; c++)
            if (scores[i * K + c] > scores[i * K + best]) best = c;
        counts[label[i] * K + best]++;
    }
}

/* Row sums are what there is, column sums what was said. */
void xkd_class_table(const int64_t *counts, int64_t K, xkd_class_row *rows)
{
    for (int64_t c = 0; c < K; c++) {
        xkd_class_row *r = &rows[c];
        *r = (xkd_class_row){.hits = counts[c * K + c], .confused = -1};
        for (int64_t o = 0; o < K; o++) {
            r->samples += counts[c * K + o];
            r->predicted += counts[o * K + c];
            if (o == c || counts[c * K + o] == 0) continue;
            if (r->confused < 0 || counts[c * K + o] > counts[c * K + r->confused]) r->confused = o;
        }
        r->recall = r->samples ? 100.0 * (double)r->hits / (double)r->samples : 0;
        r->precision = r->predicted ? 100.0 * (double)r->hits / (double)r->predicted : 0;
    }
}

xkd_status xkd_confusion_picture(xkd_context *cx, const char *path, const int64_t *counts, int64_t K)
{
    xkd_status status = XKD_OK;
    xkd_canvas canvas = {0};
    int64_t zoom = PICTURE_SIDE / K < 1 ? 1 : PICTURE_SIDE / K > MOST_ZOOM ? MOST_ZOOM : PICTURE_SIDE / K;
    int64_t side = zoom * K;
    XKD_TRY(xkd_canvas_new(cx, &canvas, side, side, 255));
    for (int64_t y = 0; y < side; y++) {
        const int64_t *row = counts + y / zoom * K;
        int64_t samples = 0;
        for (int64_t c = 0; c < K; c++) samples += row[c];
        for (int64_t x = 0; x < side; x++)
            xkd_colour_map(samples ? (double)row[x / zoom] / (double)samples : 0, canvas.rgb + 3 * (y * side + x));
    }
    XKD_TRY(xkd_png_write(cx, path, canvas.rgb, side, side));
fail:
    xkd_canvas_free(&canvas);
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Each draw has a stream of its own: the interval depends on the seed alone. */
xkd_status xkd_bootstrap(xkd_context *cx, const double *values, int64_t n, int64_t draws, double level, uint64_t seed,
                         xkd_interval *out)
{
    xkd_status status = XKD_OK;
    double *means = NULL, sum = 0;
    *out = (xkd_interval){0};
    if (n < 1 || draws < 1) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &means, draws, sizeof *means));
    for (int64_t i = 0; i < n; i++) sum += values[i];
    for (int64_t d = 0; d < draws; d++) {
        xkd_rng rng = xkd_rng_make(seed, 0, (uint32_t)d, 1, XKD_RNG_SVM);
        double total = 0;
        for (int64_t i = 0; i < n; i++) total += values[xkd_rng_below(&rng, n)];
        means[d] = total / (double)n;
    }
    qsort(means, (size_t)draws, sizeof *means, by_value);
    double tail = (1 - level) / 2 * (double)(draws - 1);
    *out = (xkd_interval){sum / (double)n, means[(int64_t)floor(tail)], means[draws - 1 - (int64_t)floor(tail)]};
fail:
    xkd_free(means);
    return status;
}

void xkd_mean_deviation(const double *values, int64_t n, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i];
    *mean = n > 0 ? sum / (double)n : 0;
    for (int64_t i = 0; i < n; i++) squares += (values[i] - *mean) * (values[i] - *mean);
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}
