/* PCA, exact t-SNE and k-means. Every sum over rows is made whole by one thread in a fixed order, so the number of threads does
 * not show. */
#include "eval/judge/projection.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

/* ---- principal components ---- */

enum { MOST_PARTS = 64, ROUNDS = 300, CHUNK = 256 };

struct pca {
    const float *x;
    const double *mean;
    double *v;     /* [parts,D] the components */
    double *score; /* [n,parts] */
    double *next;  /* [parts,D] */
    int64_t n, D, parts;
};

/* score = (x - mean) v' of one row. */
static void score_row(void *arg, int64_t i, int thread)
{
    (void)thread;
    struct pca *p = arg;
    const float *x = p->x + i * p->D;
    for (int64_t c = 0; c < p->parts; c++) {
        double sum = 0;
        for (int64_t d = 0; d < p->D; d++) sum += (x[d] - p->mean[d]) * p->v[c * p->D + d];
        p->score[i * p->parts + c] = sum;
    }
}

/* next = score' (x - mean), some columns of it. */
static void turn_columns(void *arg, int64_t chunk, int thread)
{
    (void)thread;
    struct pca *p = arg;
    int64_t from = chunk * CHUNK, to = from + CHUNK < p->D ? from + CHUNK : p->D;
    for (int64_t c = 0; c < p->parts; c++) memset(p->next + c * p->D + from, 0, (size_t)(to - from) * sizeof *p->next);
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t c = 0; c < p->parts; c++) {
            double s = p->score[i * p->parts + c], *next = p->next + c * p->D;
            for (int64_t d = from; d < to; d++) next[d] += s * (p->x[i * p->D + d] - p->mean[d]);
        }
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Gram-Schmidt, twice for the last digits; a row that vanishes becomes 0. Returns 1 - the smallest |cosine| of a row with its
 * former self, of rows that are not 0. */
static double orthonormalise(double *rows, const double *former, int64_t parts, int64_t D)
{
    double turned = 0, largest = 0;
    for (int64_t c = 0; c < parts; c++) {
        double *v = rows + c * D, before = sqrt(dot(v, v, D));
        if (c == 0) largest = before;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t b = 0; b < c; b++) {
                double s = dot(v, rows + b * D, D);
                for (int64_t d = 0; d < D; d++) v[d] -= s * rows[b * D + d];
            }
        double norm = sqrt(dot(v, v, D));
        bool none = !(norm > 1e-12 * largest) || !(norm > 1e-9 * before) || norm == 0;
        for (int64_t d = 0; d < D; d++) v[d] = none ? 0 : v[d] / norm;
        if (!none) turned = fmax(turned, 1 - fabs(dot(v, former + c * D, D)));
    }
    return turned;
}

static void fix_signs(double *rows, int64_t parts, int64_t D)
{
    for (int64_t c = 0; c < parts; c++) {
        int64_t best = 0;
        for (int64_t d = 1; d < D; d++)
            if (fabs(rows[c * D + d]) > fabs(rows[c * D + best])) best = d;
        if (rows[c * D + best] < 0)
            for (int64_t d = 0; d < D; d++) rows[c * D + d] = -rows[c * D + d];
    }
}

xkd_status xkd_pca(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D, int64_t parts, float *out)
{
    xkd_status status = XKD_OK;
    double *mean = NULL, *v = NULL, *next = NULL, *score = NULL;
    if (parts < 1 || parts > MOST_PARTS) XKD_FAIL(XKD_ERR_INTERNAL, "%lld principal components", (long long)parts);
    XKD_TRY(xkd_alloc(cx, &mean, D, sizeof *mean));
    XKD_TRY(xkd_alloc(cx, &v, parts * D, sizeof *v));
    XKD_TRY(xkd_alloc(cx, &next, parts * D, sizeof *next));
    XKD_TRY(xkd_alloc(cx, &score, n * parts, sizeof *score));
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < D; d++) mean[d] += x[i * D + d];
    for (int64_t d = 0; d < D; d++) mean[d] /= (double)n;
    xkd_rng rng = xkd_rng_make(0, 0, 0, 0, XKD_RNG_EVAL);
    for (int64_t i = 0; i < parts * D; i++) v[i] = xkd_rng_normal(&rng);
    orthonormalise(v, next, parts, D);
    struct pca p = {x, mean, v, score, next, n, D, parts};
    double turned = 1;
    for (int round = 0; round < ROUNDS && turned > 1e-12; round++) {
        xkd_parallel_for(pool, n, score_row, &p);
        xkd_parallel_for(pool, (D + CHUNK - 1) / CHUNK, turn_columns, &p);
        turned = orthonormalise(next, v, parts, D);
        memcpy(v, next, (size_t)(parts * D) * sizeof *v);
    }
    fix_signs(v, parts, D);
    xkd_parallel_for(pool, n, score_row, &p);
    for (int64_t i = 0; i < n * parts; i++) out[i] = (float)score[i];
fail:
    xkd_free(mean);
    xkd_free(v);
    xkd_free(next);
    xkd_free(score);
    return status;
}

/* ---- t-SNE ---- */

xkd_tsne_options xkd_tsne_defaults(void)
{
    return (xkd_tsne_options){.perplexity = 30, .steps = 750, .exaggerated = 250, .exaggeration = 12};
}

struct tsne {
    const float *x;
    int64_t n, D;
    double perplexity;
    float *p;     /* [n,n] affinities */
    double *y;    /* [n,2] */
    double *pull; /* [n,2] sum of p_ij w_ij (y_i - y_j) */
    double *push; /* [n,2] sum of w_ij^2 (y_i - y_j) */
    double *mass; /* [n] sum of w_ij */
};

/* Affinities of one row: the precision whose entropy is ln(perplexity), found by bisection. */
static void affinity_row(void *arg, int64_t i, int thread)
{
    (void)thread;
    struct tsne *t = arg;
    int64_t n = t->n, D = t->D;
    float *p = t->p + i * n;
    double least = INFINITY, beta = 1, low = 0, high = INFINITY, wanted = log(t->perplexity), sum = 1;
    for (int64_t j = 0; j < n; j++) {
        double s = 0;
        for (int64_t d = 0; d < D; d++) {
            double difference = (double)t->x[i * D + d] - t->x[j * D + d];
            s += difference * difference;
        }
        p[j] = (float)s;
        if (j != i) least = fmin(least, p[j]);
    }
    for (int round = 0; round < 64; round++) {
        double weighted = 0;
        sum = 0;
        for (int64_t j = 0; j < n; j++) {
            if (j == i) continue;
            double w = exp(-beta * (p[j] - least));
            sum += w;
            weighted += w * (p[j] - least);
        }
        double entropy = log(sum) + beta * weighted / sum;
        if (fabs(entropy - wanted) < 1e-5) break;
        if (entropy > wanted) {
            low = beta;
            beta = isfinite(high) ? (low + high) / 2 : beta * 2;
        } else {
            high = beta;
            beta = (low + high) / 2;
        }
        if (!isfinite(beta)) break;
    }
    sum = 0;
    for (int64_t j = 0; j < n; j++) {
        double w = j == i ? 0 : exp(-beta * (p[j] - least));
        p[j] = (float)(isfinite(w) ? w : 0);
        sum += p[j];
    }
    for (int64_t j = 0; j < n && sum > 0; j++) p[j] = (float)(p[j] / sum);
}

/* Pull and push on one row by all others, with Student's kernel. */
static void force_row(void *arg, int64_t i, int thread)
{
    (void)thread;
    struct tsne *t = arg;
    const float *p = t->p + i * t->n;
    const double *y = t->y;
    double a0 = 0, a1 = 0, r0 = 0, r1 = 0, mass = 0, x0 = y[2 * i], x1 = y[2 * i + 1];
    for (int64_t j = 0; j < t->n; j++) {
        double d0 = x0 - y[2 * j], d1 = x1 - y[2 * j + 1], w = 1 / (1 + d0 * d0 + d1 * d1), a = p[j] * w, r = w * w;
        a0 += a * d0;
        a1 += a * d1;
        r0 += r * d0;
        r1 += r * d1;
        mass += w;
    }
    t->mass[i] = mass - 1; /* without the row itself */
    t->pull[2 * i] = a0;
    t->pull[2 * i + 1] = a1;
    t->push[2 * i] = r0;
    t->push[2 * i + 1] = r1;
}

/* p_ij = (p_j|i + p_i|j) / 2n */
static void make_symmetric(float *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++) {
            float both = (p[i * n + j] + p[j * n + i]) / (2 * (float)n);
            p[i * n + j] = p[j * n + i] = both;
        }
}

static void begin_from_components(struct tsne *t)
{
    double squares = 0;
    for (int64_t i = 0; i < t->n; i++) squares += (double)t->x[i * t->D] * t->x[i * t->D];
    double scale = squares > 0 ? 1e-4 / sqrt(squares / (double)t->n) : 0;
    for (int64_t i = 0; i < t->n; i++) {
        t->y[2 * i] = t->x[i * t->D] * scale;
        t->y[2 * i + 1] = t->D > 1 ? t->x[i * t->D + 1] * scale : 0;
        /* Rows that are equal would stay on each other; a spiral far below the scale parts them. */
        t->y[2 * i] += 1e-7 * cos((double)i);
        t->y[2 * i + 1] += 1e-7 * sin((double)i);
    }
}

/* One step of gradient descent with momentum and gains (Jacobs), then the mean is taken off. */
static void descend(struct tsne *t, double exaggeration, double momentum, double rate, double *speed, double *gain)
{
    double mass = 0, mean[2] = {0, 0};
    for (int64_t i = 0; i < t->n; i++) mass += t->mass[i];
    for (int64_t k = 0; k < 2 * t->n; k++) {
        double gradient = 4 * (exaggeration * t->pull[k] - t->push[k] / mass);
        gain[k] = fmax((gradient > 0) != (speed[k] > 0) ? gain[k] + 0.2 : gain[k] * 0.8, 0.01);
        speed[k] = momentum * speed[k] - rate * gain[k] * gradient;
        t->y[k] += speed[k];
        mean[k & 1] += t->y[k];
    }
    for (int64_t k = 0; k < 2 * t->n; k++) t->y[k] -= mean[k & 1] / (double)t->n;
}

xkd_status xkd_tsne(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D,
                    const xkd_tsne_options *options, int (*stop)(void *user), void *user, float *out)
{
    xkd_status status = XKD_OK;
    double *memory = NULL;
    struct tsne t = {.x = x, .n = n, .D = D, .perplexity = fmax(fmin(options->perplexity, (double)(n - 1) / 3), 1)};
    if (n > XKD_TSNE_MOST) XKD_FAIL(XKD_ERR_INTERNAL, "t-SNE of %lld rows", (long long)n);
    XKD_TRY(xkd_alloc(cx, &t.p, n * n, sizeof *t.p));
    XKD_TRY(xkd_alloc(cx, &memory, 11 * n, sizeof *memory));
    t.y = memory;
    t.pull = memory + 2 * n;
    t.push = memory + 4 * n;
    t.mass = memory + 6 * n;
    double *speed = memory + 7 * n, *gain = memory + 9 * n;
    for (int64_t k = 0; k < 2 * n; k++) gain[k] = 1;
    begin_from_components(&t);
    if (n > 1) {
        xkd_parallel_for(pool, n, affinity_row, &t);
        make_symmetric(t.p, n);
    }
    double rate = options->rate > 0 ? options->rate : fmax((double)n / options->exaggeration / 4, 50);
    for (int64_t step = 0; n > 1 && step < options->steps; step++) {
        bool early = step < options->exaggerated;
        xkd_parallel_for(pool, n, force_row, &t);
        descend(&t, early ? options->exaggeration : 1, early ? 0.5 : 0.8, rate, speed, gain);
        if (stop && stop(user)) XKD_FAIL(XKD_ERR_INTERRUPTED, "stopped by a signal");
    }
    for (int64_t k = 0; k < 2 * n; k++) out[k] = (float)t.y[k];
fail:
    xkd_free(t.p);
    xkd_free(memory);
    return status;
}

/* ---- k-means ---- */

struct kmeans {
    const float *x;
    int64_t n, D, k;
    double *centre; /* [k,D] */
    double *far;    /* [n] squared distance to the own centre */
    int32_t *group;
};

static double distance(const float *x, const double *centre, int64_t D)
{
    double sum = 0;
    for (int64_t d = 0; d < D; d++) {
        double difference = x[d] - centre[d];
        sum += difference * difference;
    }
    return sum;
}

/* Of equals the centre that stands first. */
static void choose_group(void *arg, int64_t i, int thread)
{
    (void)thread;
    struct kmeans *m = arg;
    m->far[i] = INFINITY;
    for (int64_t c = 0; c < m->k; c++) {
        double s = distance(m->x + i * m->D, m->centre + c * m->D, m->D);
        if (s < m->far[i]) {
            m->far[i] = s;
            m->group[i] = (int32_t)c;
        }
    }
}

/* k-means++ (Arthur and Vassilvitskii, SODA 2007): the next centre by the squared distance to those there are. */
static void choose_centres(struct kmeans *m, xkd_pool *pool, int64_t k)
{
    xkd_rng rng = xkd_rng_make(0, 0, 1, 0, XKD_RNG_EVAL);
    int64_t row = 0;
    for (m->k = 0; m->k < k;) {
        for (int64_t d = 0; d < m->D; d++) m->centre[m->k * m->D + d] = m->x[row * m->D + d];
        m->k++;
        xkd_parallel_for(pool, m->n, choose_group, m);
        double sum = 0;
        for (int64_t i = 0; i < m->n; i++) sum += m->far[i];
        double left = xkd_rng_uniform(&rng) * sum;
        for (row = 0; row < m->n - 1 && left >= m->far[row]; row++) left -= m->far[row];
    }
}

/* Means of the groups; an empty one keeps its centre. */
static void move_centres(struct kmeans *m, int64_t *size)
{
    memset(size, 0, (size_t)m->k * sizeof *size);
    for (int64_t i = 0; i < m->n; i++) size[m->group[i]]++;
    for (int64_t c = 0; c < m->k; c++)
        if (size[c]) memset(m->centre + c * m->D, 0, (size_t)m->D * sizeof *m->centre);
    for (int64_t i = 0; i < m->n; i++)
        for (int64_t d = 0; d < m->D; d++)
            m->centre[m->group[i] * m->D + d] += m->x[i * m->D + d] / (double)size[m->group[i]];
}

/* Numbers by size, of equals by the former number. */
static void number_by_size(struct kmeans *m, const int64_t *size)
{
    for (int64_t i = 0; i < m->n; i++) {
        int64_t own = m->group[i], before = 0;
        for (int64_t c = 0; c < m->k; c++) before += size[c] > size[own] || (size[c] == size[own] && c < own);
        m->group[i] = (int32_t)before;
    }
}

xkd_status xkd_kmeans(xkd_context *cx, xkd_pool *pool, const float *x, int64_t n, int64_t D, int64_t k, int32_t *group)
{
    xkd_status status = XKD_OK;
    struct kmeans m = {.x = x, .n = n, .D = D, .group = group};
    int64_t *size = NULL;
    if (n == 0) return XKD_OK;
    if (k > n) k = n;
    XKD_TRY(xkd_alloc(cx, &m.centre, k * D, sizeof *m.centre));
    XKD_TRY(xkd_alloc(cx, &m.far, n, sizeof *m.far));
    XKD_TRY(xkd_alloc(cx, &size, k, sizeof *size));
    choose_centres(&m, pool, k);
    double last = INFINITY;
    for (int round = 0; round < 100; round++) {
        double sum = 0;
        xkd_parallel_for(pool, n, choose_group, &m);
        for (int64_t i = 0; i < n; i++) sum += m.far[i];
        move_centres(&m, size);
        if (!(sum < last)) break;
        last = sum;
    }
    number_by_size(&m, size);
fail:
    xkd_free(m.centre);
    xkd_free(m.far);
    xkd_free(size);
    return status;
}
