/* Figures from scores. Samples are rows and classes columns throughout; percent appears only where a name or the
 * header says so. Sums run in double and in a fixed order, so figures do not depend on the number of threads. */
#include "eval/judge/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "report/canvas.h"
#include "report/png.h"

/* The picture is at least this wide, so that few classes are not a stamp. */
enum { PICTURE_SIDE = 480, MOST_ZOOM = 40 };

/* Ties count against later classes only, so equal scores for all do not look like a hit for every class. A rank and
 * not a hit: all k of top-k come from one pass. */
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

/* Without samples 0, rather than 0/0. */
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

/* No interpolation between points, as in scikit-learn: that would be too kind. Interpolated variants (as in PASCAL
 * VOC) give higher figures that cannot be compared. */
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
    /* Recall is undefined without positives; 0 is what scikit-learn takes. */
    if (positives == 0) goto fail;
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int64_t i = 0; i < n; i++) {
        hits += order[i].truth != 0;
        /* Samples of one score are one threshold: only behind the last of them is there a point of the curve. */
        if (i + 1 < n && by_score(&order[i], &order[i + 1]) == 0) continue;
        /* (R_i - R_before) P_i: recall gained since the last threshold times precision at this one. */
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
        /* Counted here and not by the precision: 0 is also a precision that a class may have. */
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

/* counts [K,K]; the caller may add several sets. Ties go to the lower class and what is not a number loses, as in
 * xkd_ranks: the diagonal is its top-1. A row without any number is a miss there, so here it is the first other class. */
void xkd_confusion(const float *scores, const int32_t *label, int64_t n, int64_t K, int64_t *counts)
{
    for (int64_t i = 0; i < n; i++) {
        const float *s = scores + i * K;
        int64_t best = 0;
        for (int64_t c = 1; c < K; c++)
            if (s[c] > s[best] || (isnan(s[best]) && !isnan(s[c]))) best = c;
        if (isnan(s[best])) best = label[i] == 0 && K > 1;
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
            if (o == c || counts[c * K + o] == 0) continue; /* the diagonal is no confusion */
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
    /* Whole pixels per cell: a picture scaled by a fraction would blur single cells into their neighbours. */
    int64_t zoom = PICTURE_SIDE / K < 1 ? 1 : PICTURE_SIDE / K > MOST_ZOOM ? MOST_ZOOM : PICTURE_SIDE / K;
    int64_t side = zoom * K;
    XKD_TRY(xkd_canvas_new(cx, &canvas, side, side, 255));
    for (int64_t y = 0; y < side; y++) {
        const int64_t *row = counts + y / zoom * K;
        int64_t samples = 0;
        for (int64_t c = 0; c < K; c++) samples += row[c];
        for (int64_t x = 0; x < side; x++) /* By its row, so that rare classes are as visible as frequent ones. */
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

/* Sorts the means of the draws and cuts equal tails off. The index rounds outwards: with few draws the interval
 * becomes wider, never narrower. */
static void percentiles(double *means, int64_t draws, double level, xkd_interval *out)
{
    qsort(means, (size_t)draws, sizeof *means, by_value);
    int64_t tail = (int64_t)floor((1 - level) / 2 * (double)(draws - 1));
    out->low = means[tail];
    out->high = means[draws - 1 - tail];
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
    /* The same n as there are values, drawn with replacement (Efron, 1979). */
    for (int64_t d = 0; d < draws; d++) {
        xkd_rng rng = xkd_rng_make(seed, 0, (uint32_t)d, 1, XKD_RNG_SVM);
        double total = 0;
        for (int64_t i = 0; i < n; i++) total += values[xkd_rng_below(&rng, n)];
        means[d] = total / (double)n;
    }
    out->mean = sum / (double)n;
    percentiles(means, draws, level, out);
fail:
    xkd_free(means);
    return status;
}

/* ---- bootstrap of the mean average precision ---- */

/* What stands at a place of a class's order: a draw then needs one pass and no sorting. */
typedef struct {
    int32_t sample;
    bool truth, last; /* last: of the samples with its score */
} place;

typedef struct {
    const xkd_multi_scores *s;
    place *order;     /* [K,n] best first */
    uint16_t *weight; /* [threads,n] how often a sample was drawn */
    double *means;    /* [draws] */
    int64_t empty;    /* classes without any positive */
    uint64_t seed;
} bootstrap;

/* The sort by score depends on the class only, so K sorts serve all draws instead of K for each. */
static xkd_status order_class(xkd_context *cx, const xkd_multi_scores *s, int64_t c, place *out, bool *empty)
{
    typedef struct {
        scored key; /* first, so that by_score serves */
        int32_t sample;
    } entry;
    entry *list = NULL;
    xkd_status status = xkd_alloc(cx, &list, s->n, sizeof *list);
    if (status != XKD_OK) return status;
    *empty = true;
    for (int64_t i = 0; i < s->n; i++) {
        list[i] = (entry){{s->scores[i * s->K + c], s->truth[i * s->K + c]}, (int32_t)i};
        *empty &= !list[i].key.truth;
    }
    qsort(list, (size_t)s->n, sizeof *list, by_score);
    for (int64_t i = 0; i < s->n; i++)
        out[i] = (place){list[i].sample, list[i].key.truth != 0,
                         i + 1 == s->n || by_score(&list[i].key, &list[i + 1].key) != 0};
    xkd_free(list);
    return XKD_OK;
}

/* Average precision of the drawn samples; negative without positives. A sample drawn w times counts as w samples of
 * the same score, and seen and hits run over the drawn ones alone. */
static double drawn_precision(const place *order, const uint16_t *weight, int64_t n)
{
    double hits = 0, before = 0, seen = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double w = weight[order[i].sample];
        seen += w;
        if (order[i].truth) hits += w;
        /* `hits == before`: no positive since the last threshold, so recall does not grow. It also guards 0/0 before
         * any sample was drawn. */
        if (!order[i].last || hits == before) continue;
        sum += (hits - before) * hits / seen;
        before = hits;
    }
    return hits > 0 ? sum / hits : -1;
}

/* A pool function: one draw. */
static void draw_once(void *arg, int64_t d, int thread)
{
    bootstrap *b = arg;
    /* Classes that are empty in the data count as 0 in every draw, as in the mean. */
    int64_t n = b->s->n, classes = b->empty;
    uint16_t *weight = b->weight + thread * n;
    double sum = 0;
    xkd_rng rng = xkd_rng_make(b->seed, 0, (uint32_t)d, 2, XKD_RNG_SVM);
    memset(weight, 0, (size_t)n * sizeof *weight);
    for (int64_t i = 0; i < n; i++) weight[xkd_rng_below(&rng, n)]++;
    for (int64_t c = 0; c < b->s->K; c++) {
        double precision = drawn_precision(b->order + c * n, weight, n);
        if (precision < 0) continue;
        sum += precision;
        classes++;
    }
    b->means[d] = classes ? 100 * sum / (double)classes : 0;
}

xkd_status xkd_bootstrap_precision(xkd_context *cx, xkd_pool *pool, const xkd_multi_scores *s, int64_t draws,
                                   double level, uint64_t seed, xkd_interval *out)
{
    xkd_status status = XKD_OK;
    bootstrap b = {.s = s, .seed = seed};
    int64_t empty;
    *out = (xkd_interval){0};
    if (s->n < 1 || draws < 1) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &b.order, s->K * s->n, sizeof *b.order));
    XKD_TRY(xkd_alloc(cx, &b.weight, xkd_pool_threads(pool) * s->n, sizeof *b.weight)); /* n numbers of each thread */
    XKD_TRY(xkd_alloc(cx, &b.means, draws, sizeof *b.means));
    for (int64_t c = 0; c < s->K; c++) {
        bool none;
        XKD_TRY(order_class(cx, s, c, b.order + c * s->n, &none));
        b.empty += none;
    }
    xkd_parallel_for(pool, draws, draw_once, &b);
    XKD_TRY(xkd_mean_average_precision(cx, s->scores, s->truth, s->n, s->K, NULL, &out->mean, &empty));
    out->mean *= 100;
    /* Drawing with replacement repeats positives, which lifts the precision of rare classes: all draws lie too high by
     * about the same, which is taken off again. */
    double bias = -out->mean;
    for (int64_t d = 0; d < draws; d++) bias += b.means[d] / (double)draws;
    percentiles(b.means, draws, level, out);
    out->low = fmax(out->low - bias, 0);
    out->high = fmin(out->high - bias, 100);
fail:
    xkd_free(b.order);
    xkd_free(b.weight);
    xkd_free(b.means);
    return status;
}

/* In two passes: the mean is taken off before squaring, for figures of 90 % that differ in the first decimal. */
void xkd_mean_deviation(const double *values, int64_t n, int64_t stride, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i * stride];
    *mean = n > 0 ? sum / (double)n : 0;
    for (int64_t i = 0; i < n; i++) {
        double off = values[i * stride] - *mean;
        squares += off * off;
    }
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}
