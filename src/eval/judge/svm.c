/* Dual coordinate descent for one-vs-rest, by blocks of classes. The dual of a class is min 1/2 a'Qa - sum a over a >=
 * 0 with Q_ij = y_i y_j x_i.x_j + [i = j] / (2C); w = sum a_i y_i x_i is kept beside it, so a coordinate costs one dot
 * product and one update of w. The classes of a block share each row that is fetched, and go their own ways in
 * everything else: bounds, shrinking, convergence. */
#include "eval/judge/svm.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"

enum {
    BLOCK = 16, /* classes of one sweep: their weights (16 x 769 doubles) stay in a core's second-level cache */
    LANES = 8,  /* rows of weights are padded to it, as the loops want */
    TYPICAL_SWEEPS = 200 /* full-sweep equivalents up to 1000 sweeps with shrinking, measured at UCF101's size */
};

/* A projected gradient below this does not move the dual (liblinear's constant). */
static const double STILL = 1e-12;

/* State of one class within a block. */
typedef struct {
    double high_old, high, low; /* largest projected gradient of the last sweep; largest and smallest of this one */
    int64_t iterations;
    bool live, shrunk;
} class_state;

typedef struct {
    const xkd_svm_data *data;
    const xkd_svm_options *options;
    xkd_svm_model *model; /* written at disjoint places by the blocks */
    const xkd_double_loops *loops;
    int64_t stride;         /* of weights and of a sample as doubles: D + 1 rounded up */
    const double *diagonal; /* [n] x.x + 1 + 1/(2C) */
    pthread_mutex_t *lock;  /* of `done` and the callback */
    xkd_context *cx;
    int64_t done;
    xkd_status status; /* of the block that failed last */
} job;

/* One block of classes while it is solved. */
typedef struct {
    const job *job;
    int64_t first, classes, number; /* of the block in the model; in this block; of the block */
    double *w;                      /* [BLOCK,stride] */
    double *alpha;                  /* [n,BLOCK] */
    uint16_t *mask;                 /* [n] bit c: sample takes part in class c's sweeps */
    int64_t *active;                /* [active_count] samples with a bit */
    int64_t active_count;
    double *x; /* [stride] the sample at hand, with its 1 */
    class_state state[BLOCK];
} block;

xkd_svm_options xkd_svm_defaults(void)
{
    return (xkd_svm_options){.C = 1, .tolerance = 1e-4, .iterations = 1000};
}

static int64_t row_of(const xkd_svm_data *d, int64_t i)
{
    return d->row ? d->row[i] : i;
}

/* Once a row instead of once a class. */
static void widen(double *out, const float *x, int64_t D)
{
    for (int64_t i = 0; i < D; i++) out[i] = x[i];
}

/* One coordinate: class c, sample i, whose row is in b->x. False when the sample leaves the class's active set. */
static bool update(block *b, int c, int64_t i, double sign)
{
    class_state *s = &b->state[c];
    const job *j = b->job;
    double *w = b->w + c * j->stride, *alpha = &b->alpha[i * BLOCK + c];
    /* y w.x - 1 + a / (2C), the derivative of the dual by a_i. */
    double gradient = sign * j->loops->dot(w, b->x, j->stride) - 1 + *alpha / (2 * j->options->C), projected = gradient;
    /* At the bound a = 0 only a negative gradient moves the coordinate. A gradient above the largest of the last sweep
     * is taken as a sign that it stays there: shrinking, which is checked again before the class is done. */
    if (*alpha == 0) {
        if (gradient > s->high_old) {
            s->shrunk = true;
            return false;
        }
        projected = fmin(gradient, 0);
    }
    s->high = fmax(s->high, projected);
    s->low = fmin(s->low, projected);
    /* The exact minimum along the coordinate, clipped to the bound: Q_ii is the diagonal. */
    if (fabs(projected) > STILL) {
        double old = *alpha;
        *alpha = fmax(old - gradient / j->diagonal[i], 0);
        j->loops->add_scaled(w, (*alpha - old) * sign, b->x, j->stride);
    }
    return true;
}

/* Bit c: the row belongs to class c of the block. */
static unsigned positives(const block *b, int64_t row)
{
    const xkd_svm_data *d = b->job->data;
    if (!d->truth) {
        int64_t own = d->label[row] - b->first;
        return own >= 0 && own < b->classes ? 1u << own : 0;
    }
    const uint8_t *truth = d->truth + d->truth_row[row] * d->K + b->first;
    unsigned bits = 0;
    for (int64_t c = 0; c < b->classes; c++) bits |= (unsigned)(truth[c] != 0) << c;
    return bits;
}

/* The order is random, so the hardware cannot guess the next one. */
static void prefetch(const float *row, int64_t D)
{
    for (int64_t i = 0; i < D; i += 64 / (int64_t)sizeof *row) __builtin_prefetch(row + i);
}

/* One pass over the active samples in random order; drops those that no class of the block wants any more. */
static void sweep(block *b, int64_t iteration)
{
    const xkd_svm_data *d = b->job->data;
    /* By sweep and block: the order of samples is the same however many threads there are. */
    xkd_rng rng = xkd_rng_make(b->job->options->seed, (uint32_t)iteration, (uint32_t)b->number, 0, XKD_RNG_SVM);
    xkd_rng_shuffle(&rng, b->active, b->active_count);
    int64_t kept = 0;
    for (int64_t k = 0; k < b->active_count; k++) {
        int64_t i = b->active[k], row = row_of(d, i);
        if (k + 1 < b->active_count) prefetch(d->x + row_of(d, b->active[k + 1]) * d->D, d->D);
        widen(b->x, d->x + row * d->D, d->D);
        unsigned own = positives(b, row);
        /* The bits that are set, from the lowest. */
        for (unsigned left = b->mask[i]; left; left &= left - 1) {
            int c = __builtin_ctz(left);
            if (!update(b, c, i, own >> c & 1 ? 1 : -1)) b->mask[i] &= (uint16_t) ~(1u << c);
        }
        if (b->mask[i]) b->active[kept++] = i;
    }
    b->active_count = kept;
}

/* Ascending again: the shuffle of the next sweep starts from an order that depends on the masks alone. */
static void list_active(block *b)
{
    b->active_count = 0;
    for (int64_t i = 0; i < b->job->data->n; i++)
        if (b->mask[i]) b->active[b->active_count++] = i;
}

/* Adds or removes all samples for one class: at its end, and when a shrunk problem looks solved. */
static void set_class(block *b, int c, bool on)
{
    uint16_t bit = (uint16_t)(1u << c);
    for (int64_t i = 0; i < b->job->data->n; i++)
        b->mask[i] = on ? (uint16_t)(b->mask[i] | bit) : (uint16_t)(b->mask[i] & ~bit);
}

/* What the last sweep means for class c: done, to be checked on all samples again, or the bounds of the next sweep.
 * The tolerance is on the range of the projected gradients, as in liblinear. */
static bool settle(block *b, int c)
{
    class_state *s = &b->state[c];
    const xkd_svm_options *o = b->job->options;
    bool changed = false;
    s->iterations++;
    bool flat = s->high - s->low <= o->tolerance;
    if ((flat && !s->shrunk) || s->iterations >= o->iterations) {
        s->live = false;
        /* Relaxed: nothing else is ordered by the count. */
        if (!(flat && !s->shrunk)) __atomic_fetch_add(&b->job->model->unconverged, 1, __ATOMIC_RELAXED);
        set_class(b, c, false);
        changed = true;
        /* Solved on what was not shrunk away. Once more on all samples, without shrinking in the first sweep. */
    } else if (flat) {
        s->shrunk = false;
        s->high_old = INFINITY;
        set_class(b, c, true);
        changed = true;
    } else { /* a bound that is not positive would shrink samples away that are not settled */
        s->high_old = s->high > 0 ? s->high : INFINITY;
    }
    s->high = -INFINITY;
    s->low = INFINITY;
    return changed;
}

/* Blocks end in any order; the callback gets a growing count. */
static void report(job *j, int64_t classes)
{
    pthread_mutex_lock(j->lock);
    j->done += classes;
    if (j->options->progress) j->options->progress(j->options->user, j->done, j->data->K);
    pthread_mutex_unlock(j->lock);
}

/* Made by the thread that solves the block, so that its pages are near that core. */
static xkd_status block_new(block *b, const job *j, int64_t number)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = j->cx;
    int64_t n = j->data->n, left = j->data->K - number * BLOCK;
    *b = (block){.job = j, .number = number, .first = number * BLOCK, .classes = left < BLOCK ? left : BLOCK};
    XKD_TRY(xkd_alloc(cx, &b->w, BLOCK * j->stride, sizeof *b->w));
    XKD_TRY(xkd_alloc(cx, &b->alpha, n * BLOCK, sizeof *b->alpha));
    XKD_TRY(xkd_alloc(cx, &b->mask, n, sizeof *b->mask));
    XKD_TRY(xkd_alloc(cx, &b->active, n, sizeof *b->active));
    XKD_TRY(xkd_alloc(cx, &b->x, j->stride, sizeof *b->x));
    b->x[j->data->D] = 1; /* the bias: a feature of 1 behind the D */
    for (int64_t c = 0; c < b->classes; c++) b->state[c] = (class_state){INFINITY, -INFINITY, INFINITY, 0, true, false};
    for (int64_t i = 0; i < n; i++) b->mask[i] = (uint16_t)((1u << b->classes) - 1);
    list_active(b);
fail:
    return status;
}

static void block_free(block *b)
{
    xkd_free(b->w);
    xkd_free(b->alpha);
    xkd_free(b->mask);
    xkd_free(b->active);
    xkd_free(b->x);
}

/* Solves one block of classes; a pool function. */
static void solve(void *arg, int64_t number, int thread)
{
    job *j = arg;
    block b;
    (void)thread;
    xkd_status status = block_new(&b, j, number);
    if (status != XKD_OK) __atomic_store_n(&j->status, status, __ATOMIC_RELAXED);
    int64_t live = status == XKD_OK ? b.classes : 0;
    for (int64_t iteration = 0; live > 0; iteration++) {
        bool changed = false;
        sweep(&b, iteration);
        live = 0;
        for (int c = 0; c < (int)b.classes; c++) {
            if (b.state[c].live) changed |= settle(&b, c);
            live += b.state[c].live;
        }
        if (changed) list_active(&b);
    }
    for (int64_t c = 0; status == XKD_OK && c < b.classes; c++) {
        int64_t D1 = j->data->D + 1;
        /* without the padding */
        memcpy(j->model->w + (b.first + c) * D1, b.w + c * j->stride, (size_t)D1 * sizeof(double));
        j->model->iterations[b.first + c] = b.state[c].iterations;
    }
    block_free(&b);
    report(j, b.classes);
}

/* One feature that is not finite would poison the weights of every class. */
static xkd_status check_data(xkd_context *cx, const xkd_svm_data *d, const xkd_svm_options *o)
{
    xkd_status status = XKD_OK;
    bool two = false;
    /* Labels are checked before they are compared or used as an index. */
    if (d->n < 1 || d->D < 1 || d->K < 1)
        XKD_FAIL(XKD_ERR_DATA,
                 "svm: %lld samples of %lld features and %lld classes: nothing to train on (embed files that have "
                 "labels)",
                 (long long)d->n, (long long)d->D, (long long)d->K);
    if (!(o->C > 0) || !(o->tolerance > 0) || o->iterations < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "svm: C, tolerance and iterations must be positive");
    for (int64_t i = 0; i < d->n; i++) {
        int64_t row = row_of(d, i);
        if (!d->truth && (d->label[row] < 0 || d->label[row] >= d->K))
            XKD_FAIL(XKD_ERR_DATA, "svm: sample %lld has label %d of %lld classes", (long long)row, (int)d->label[row],
                     (long long)d->K);
        two |= d->truth || d->label[row] != d->label[row_of(d, 0)]; /* with several labels "all" is a fair answer */
        for (int64_t k = 0; k < d->D; k++)
            if (!isfinite(d->x[row * d->D + k]))
                XKD_FAIL(XKD_ERR_NUMERIC, "svm: feature %lld of sample %lld is not finite", (long long)k,
                         (long long)row);
    }
    if (!two)
        XKD_FAIL(XKD_ERR_DATA,
                 "svm: all %lld samples have the label %d, but it tells classes apart (add files of another)",
                 (long long)d->n, (int)d->label[row_of(d, 0)]);
fail:
    return status;
}

/* Squared norms are the same for all classes. */
static xkd_status make_diagonal(xkd_context *cx, const xkd_svm_data *d, double C, double **out)
{
    xkd_status status = xkd_alloc(cx, out, d->n, sizeof **out);
    for (int64_t i = 0; status == XKD_OK && i < d->n; i++) {
        const float *x = d->x + row_of(d, i) * d->D;
        double sum = 1 + 1 / (2 * C);
        for (int64_t k = 0; k < d->D; k++) sum += (double)x[k] * x[k];
        (*out)[i] = sum;
    }
    return status;
}

/* Blocks of 16 classes are the unit of work whatever the number of threads: results cannot depend on it. */
xkd_status xkd_svm_train(xkd_context *cx, xkd_pool *pool, const xkd_svm_data *data, const xkd_svm_options *options,
                         xkd_svm_model *out)
{
    xkd_status status = XKD_OK;
    double *diagonal = NULL;
    const xkd_cpu_level *level;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    *out = (xkd_svm_model){.D = data->D, .K = data->K};
    XKD_TRY(check_data(cx, data, options));
    XKD_TRY(xkd_cpu_level_choose(cx, &level));
    XKD_TRY(xkd_alloc(cx, &out->w, data->K * (data->D + 1), sizeof *out->w));
    XKD_TRY(xkd_alloc(cx, &out->iterations, data->K, sizeof *out->iterations));
    XKD_TRY(make_diagonal(cx, data, options->C, &diagonal));
    job j = {.data = data,
             .options = options,
             .model = out,
             /* The lock is on the stack: all blocks have ended when xkd_parallel_for returns. */
             .diagonal = diagonal,
             .lock = &lock,
             .cx = cx,
             .loops = level->loops,
             .stride = (data->D + 1 + LANES - 1) / LANES * LANES};
    xkd_parallel_for(pool, (data->K + BLOCK - 1) / BLOCK, solve, &j);
    XKD_TRY(j.status);
fail:
    xkd_free(diagonal);
    if (status != XKD_OK) xkd_svm_free(out);
    return status;
}

void xkd_svm_free(xkd_svm_model *model)
{
    xkd_free(model->w);
    xkd_free(model->iterations);
    *model = (xkd_svm_model){0};
}

typedef struct {
    const xkd_svm_model *model;
    const float *x;
    float *out;
} decision;

/* Summed in double: decision values near 0 decide. */
static void decide_row(void *arg, int64_t i, int thread)
{
    const decision *d = arg;
    int64_t D = d->model->D, K = d->model->K;
    (void)thread;
    for (int64_t c = 0; c < K; c++) {
        const double *w = d->model->w + c * (D + 1);
        double sum = 0;
        for (int64_t k = 0; k < D; k++) sum += w[k] * d->x[i * D + k];
        d->out[i * K + c] = (float)(sum + w[D]);
    }
}

void xkd_svm_decide(const xkd_svm_model *model, xkd_pool *pool, const float *x, int64_t rows, float *out)
{
    decision d = {model, x, out};
    xkd_parallel_for(pool, rows, decide_row, &d);
}

xkd_status xkd_svm_estimate(xkd_context *cx, xkd_pool *pool, int64_t n, int64_t D, int64_t K, xkd_svm_cost *out)
{
    enum { TRIES = 20000 };
    /* A rate measured on this machine, on vectors of this width that lie in cache as a block's weights do. */
    xkd_status status = XKD_OK;
    int64_t stride = (D + LANES) / LANES * LANES, blocks = (K + BLOCK - 1) / BLOCK, threads = xkd_pool_threads(pool);
    double *w = NULL;
    const xkd_cpu_level *level;
    volatile double sink = 0;
    XKD_TRY(xkd_cpu_level_choose(cx, &level));
    XKD_TRY(xkd_alloc(cx, &w, (BLOCK + 1) * stride, sizeof *w));
    double start = xkd_now();
    for (int i = 0; i < TRIES; i++) sink = sink + level->loops->dot(w + i % BLOCK * stride, w + BLOCK * stride, stride);
    double rate = (xkd_now() - start) / TRIES; /* seconds of one class and one sample */
    /* Threads beyond the number of blocks have nothing to do. */
    int64_t side = threads < blocks ? threads : blocks;
    double per_block = (double)n * (BLOCK * 8.0 + 2 + 8); /* per sample: duals of 16 classes, mask, index */
    out->bytes = (double)n * (double)D * 4 + (double)n * 8 + (double)side * per_block + (double)(K * (D + 1)) * 8;
    out->seconds = rate * (double)n * (double)K * TYPICAL_SWEEPS / (double)side;
fail:
    xkd_free(w);
    return status;
}

xkd_status xkd_svm_folds(xkd_context *cx, const int32_t *label, const int64_t *group, int64_t n, int64_t K, int folds,
                         uint64_t seed, int32_t *fold)
{
    xkd_status status = XKD_OK;
    int64_t *start = NULL, *turn = NULL, groups = 0;
    if (folds < 2) XKD_FAIL(XKD_ERR_CONFIG, "cross-validation needs at least 2 folds");
    XKD_TRY(xkd_alloc(cx, &start, n, sizeof *start));
    XKD_TRY(xkd_alloc(cx, &turn, K, sizeof *turn));
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || group[i] != group[i - 1]) start[groups++] = i;
    /* Groups are shuffled and then dealt out class by class, so each fold gets its share of every class. */
    xkd_rng rng = xkd_rng_make(seed, 0, 0, 0, XKD_RNG_SVM);
    xkd_rng_shuffle(&rng, start, groups);
    for (int64_t g = 0; g < groups; g++) {
        int32_t k = label[start[g]], f = (int32_t)(turn[k]++ % folds);
        for (int64_t i = start[g]; i < n && group[i] == group[start[g]]; i++) fold[i] = f;
    }
fail:
    xkd_free(start);
    xkd_free(turn);
    return status;
}
