/* Nearest neighbours by cosine: searches, votes of training videos, and the clips near a file, for `xkd retrieve` and
 * <xkd/retrieve.h>. */
#include "eval/judge/neighbours.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "eval/judge/metrics.h"

enum { MOST_NEAR = 256 }; /* neighbours of a row: search_row holds as many on the stack */

/* One search; `near` is written by rows, so threads share nothing. */
typedef struct {
    const float *a, *b; /* [n,D]; [m,D] */
    int64_t m, D, k;
    int64_t *near;
} search;

/* Norms are computed again for each pair: the sets are small, and no copy of them is needed. */
double xkd_cosine(const float *a, const float *b, int64_t D)
{
    double dot = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < D; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    double c = dot / fmax(sqrt(aa * bb), 1e-24); /* a zero vector is as near to all: cosine 0 */
    /* What is not a number is farther than anything, as in xkd_ranks: no comparison would move it out of a list, and
     * as a vote it would void its class. */
    return isnan(c) ? -INFINITY : c;
}

/* Keeps the k best in order by insertion: k is small. */
static void search_row(void *arg, int64_t i, int thread)
{
    const search *s = arg;
    int64_t *near = s->near + i * s->k, held = 0;
    (void)thread;
    double value[MOST_NEAR];
    for (int64_t j = 0; j < s->m; j++) {
        double c = xkd_cosine(s->a + i * s->D, s->b + j * s->D, s->D);
        /* Strictly better only: of equals the lower index stays. */
        if (held == s->k && !(c > value[held - 1])) continue;
        int64_t at = held < s->k ? held++ : held - 1;
        for (; at > 0 && c > value[at - 1]; at--) {
            value[at] = value[at - 1];
            near[at] = near[at - 1];
        }
        value[at] = c;
        near[at] = j;
    }
}

/* Apart from xkd_nearest, for who makes room for the lists first. */
static xkd_status check_neighbours(xkd_context *cx, int64_t k, int64_t m)
{
    int64_t most = m < MOST_NEAR ? m : MOST_NEAR;
    if (k >= 1 && k <= most) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "k = %lld neighbours: 1 to %lld", (long long)k, (long long)most);
}

xkd_status xkd_nearest(xkd_context *cx, xkd_pool *pool, const float *a, int64_t n, const float *b, int64_t m, int64_t D,
                       int64_t k, int64_t *near)
{
    xkd_status status = check_neighbours(cx, k, m);
    if (status != XKD_OK) return status;
    search s = {a, b, m, D, k, near};
    xkd_parallel_for(pool, n, search_row, &s);
    return XKD_OK;
}

/* Weight of a neighbour: exp((c - 1) / t) ranks as exp(c / t) does and cannot overflow. t is 0.07 by custom (Wu et
 * al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018). */
static float vote(const float *a, const float *b, int64_t D, double temperature)
{
    return (float)exp((xkd_cosine(a, b, D) - 1) / temperature);
}

/* A row is its own nearest neighbour but for exact doubles of it, so one more is asked for and itself passed over. */
xkd_status xkd_knn_leave_one_out(xkd_context *cx, xkd_pool *pool, const xkd_knn_rows *r, int64_t k, double temperature,
                                 int64_t *near, float *scores, double *top1)
{
    int64_t hits = 0;
    xkd_status status = xkd_nearest(cx, pool, r->x, r->n, r->x, r->n, r->D, k + 1, near);
    if (status != XKD_OK) return status;
    memset(scores, 0, (size_t)(r->n * r->K) * sizeof *scores); /* the votes add up */
    for (int64_t i = 0; i < r->n; i++) {
        int64_t rank, taken = 0;
        /* With exact copies the row itself may not be among the k + 1; then the last of them is not counted. */
        for (int64_t j = 0; j <= k && taken < k; j++) {
            int64_t other = near[i * (k + 1) + j];
            if (other == i) continue;
            taken++;
            scores[i * r->K + r->label[other]] += vote(r->x + i * r->D, r->x + other * r->D, r->D, temperature);
        }
        xkd_ranks(scores + i * r->K, r->label + i, 1, r->K, &rank);
        hits += rank == 0;
    }
    *top1 = 100.0 * (double)hits / (double)r->n;
    return XKD_OK;
}

/* The own row is right even where a copy of it stands elsewhere in the set. */
double xkd_own_recall(const int64_t *near, int64_t n, int64_t k, int64_t at)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k && j < at; j++) hits += near[i * k + j] == i;
    return n > 0 ? 100.0 * (double)hits / (double)n : 0;
}

xkd_status xkd_knn(xkd_context *cx, xkd_pool *pool, const xkd_clip_set *train, const xkd_clip_set *test, int64_t k,
                   double temperature, float *scores)
{
    xkd_status status = XKD_OK;
    float *a = NULL, *b = NULL;
    int64_t *near = NULL, D = train->D, K = train->K;
    if (test->D != D || test->K > K)
        XKD_FAIL(XKD_ERR_DATA,
                 "training and test set differ in width or classes: embed both with one model and one list of classes");
    XKD_TRY(check_neighbours(cx, k, train->videos));
    XKD_TRY(xkd_alloc(cx, &a, test->videos * D, sizeof *a));
    XKD_TRY(xkd_alloc(cx, &b, train->videos * D, sizeof *b));
    XKD_TRY(xkd_alloc(cx, &near, test->videos * k, sizeof *near));
    /* Neighbours are videos: the mean feature of their clips. */
    xkd_video_mean(test, test->x, D, a);
    xkd_video_mean(train, train->x, D, b);
    XKD_TRY(xkd_nearest(cx, pool, a, test->videos, b, train->videos, D, k, near));
    memset(scores, 0, (size_t)(test->videos * K) * sizeof *scores);
    for (int64_t i = 0; i < test->videos; i++)
        for (int64_t j = 0; j < k; j++) {
            int64_t v = near[i * k + j];
            float weight = vote(a + i * D, b + v * D, D, temperature);
            if (!train->truth) scores[i * K + train->video_label[v]] += weight;
            /* A video of several labels votes for each of them. */
            for (int64_t c = 0; train->truth && c < K; c++)
                scores[i * K + c] += weight * (float)train->truth[v * K + c];
        }
fail:
    xkd_free(a);
    xkd_free(b);
    xkd_free(near);
    return status;
}

/* ---- what is like a file ---- */

bool xkd_file_mean(const xkd_feature_table *t, int64_t f, int64_t *cursor, float *out)
{
    int64_t clips = 0, D = t->rows * t->width;
    memset(out, 0, (size_t)D * sizeof *out);
    while (*cursor < t->count && t->file[*cursor] < f) ++*cursor;
    for (; *cursor < t->count && t->file[*cursor] == f; ++*cursor, clips++)
        for (int64_t k = 0; k < D; k++) out[k] += t->x[*cursor * D + k];
    for (int64_t k = 0; clips && k < D; k++) out[k] /= (float)clips;
    return clips > 0;
}

/* As many more are asked for as will be left out. */
xkd_status xkd_nearest_clips(xkd_context *cx, xkd_pool *pool, const xkd_feature_table *t, const float *query,
                             int64_t without, int64_t k, int64_t *near, int64_t *found)
{
    xkd_status status = XKD_OK;
    int64_t own = 0, *all = NULL;
    *found = 0;
    for (int64_t i = 0; without >= 0 && i < t->count; i++) own += t->file[i] == without;
    int64_t asked = k + own < t->count ? k + own : t->count;
    if (asked == own) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &all, asked, sizeof *all));
    XKD_TRY(xkd_nearest(cx, pool, query, 1, t->x, t->count, t->rows * t->width, asked, all));
    for (int64_t i = 0; i < asked && *found < k; i++)
        if (t->file[all[i]] != without) near[(*found)++] = all[i];
fail:
    xkd_free(all);
    return status;
}

xkd_status xkd_check_comparable(xkd_context *cx, const xkd_embeddings *e, xkd_modality query, xkd_modality against)
{
    if (query == against || e->kind == XKD_FEATURE_HEAD) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_DATA,
                    "features of video and of sound can be compared only as outputs of the projection heads: "
                    "embed with --pool head");
}
