/* A step of two ranks against the formula of method.md, computed here: the loss of each rank over its own samples, their mean
 * gradient, clipping, AdamW and averages by hand, and centres over the samples of all. The losses' gradients are those of two
 * processes that know nothing of each other, in float64; the ranks are real processes, in float32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "dist/socket.h"
#include "join_ranks.h"
#include "small_model.h"

enum { RANKS = 2, EACH = 2, MOST = 1 << 18 };

/* Float32 against float64: a gradient is the sum of some 1e4 products. Relative to the norm of its tensor, or to 1e-5 of the
 * largest one, as for the golden steps. */
static const double GRADIENT = 1e-4;
/* Of a weight of up to 3, after an update of up to `lr`, whose gradient has the error above. */
static const double WEIGHT = 2e-6;

/* What a rank leaves for the test. */
typedef struct {
    double loss, grad_norm;
    int64_t count;      /* of all rows */
    double value[MOST]; /* row by row */
    double grad[MOST];  /* likewise; 0 of rows that are not trained */
} outcome;

static small_model settings(int64_t B)
{
    small_model s = small_model_defaults();
    s.B = B;
    /* The first step of AdamW is lr * g / (|g| + eps): a large eps lets the size of a gradient count. */
    s.config.train.eps = 0.01;
    s.values.lr = 0.05;
    s.values.ema[XKD_VIDEO] = 0.6;
    s.values.ema[XKD_AUDIO] = 0.7;
    return s;
}

static void build(small_model *s, xkd_dtype dtype)
{
    if (small_model_build(s, "ref", dtype, 1) != XKD_OK) {
        fprintf(stderr, "# %s\n", xkd_last_error(s->cx));
        abort();
    }
}

/* The samples of a rank: those of its place in the batch of all. */
static void take_part(small_model *part, const small_model *whole, int rank)
{
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int v = 0; v < part->config.step.global_views + part->locals[m]; v++) {
            const xkd_view_shape *s = &part->shapes[m][v];
            int64_t each = (m == XKD_VIDEO ? 3 : 1) * s->T * s->H * s->W * EACH;
            memcpy(part->clips[m][v], whole->clips[m][v] + rank * each, (size_t)each * sizeof(float));
        }
        int64_t N = xkd_grid_tokens(xkd_trainer_look(part->trainer)->networks.student[m].grid) * EACH;
        memcpy(part->noise[m], whole->noise[m] + rank * N, (size_t)N * sizeof(float));
    }
}

static void note(const small_model *s, outcome *out)
{
    const xkd_params *p = &xkd_trainer_look(s->trainer)->networks.params;
    out->count = 0;
    for (int64_t i = 0; i < p->count; i++) {
        const xkd_param *row = p->rows[i];
        for (int64_t k = 0; k < row->count; k++, out->count++) {
            if (out->count == MOST) abort();
            out->value[out->count] = xkd_get(p->dtype, row->master ? row->master : row->value, k);
            out->grad[out->count] = row->grad ? xkd_get(p->dtype, row->grad, k) : 0;
        }
    }
}

static xkd_status step(small_model *s, xkd_step_result *r)
{
    xkd_status status;
    xkd_step_begin(s->trainer, &s->values);
    xkd_step_micro_batch(s->trainer, &s->input);
    status = xkd_step_finish(s->trainer);
    return status == XKD_OK ? xkd_step_collect(s->trainer, r) : status;
}

static int be_rank(const small_model *whole, int rank, int listener, int port, outcome *out)
{
    small_model s = settings(EACH);
    xkd_context *cx = xkd_context_new();
    xkd_step_result r;
    if (join_ranks(cx, rank, RANKS, listener, port, 60, &s.dist) != XKD_OK) return 1;
    build(&s, XKD_F32);
    take_part(&s, whole, rank);
    if (step(&s, &r) != XKD_OK || r.skipped) return 2;
    note(&s, out);
    out->loss = r.loss[XKD_LOSS_TOTAL];
    out->grad_norm = r.grad_norm;
    xkd_dist *dist = s.dist;
    small_model_free(&s);
    if (xkd_dist_leave(dist, XKD_OK, "") != XKD_OK) return 3;
    xkd_context_free(cx);
    return 0;
}

static void run_ranks(const small_model *whole, outcome *out)
{
    xkd_context *cx = xkd_context_new();
    int listener, port;
    pid_t pid[RANKS];
    assert_int_equal(xkd_listen_everywhere(cx, 0, &listener, &port), XKD_OK);
    xkd_context_free(cx);
    fflush(NULL);
    for (int r = 0; r < RANKS; r++) {
        pid[r] = fork();
        if (pid[r] == 0) _exit(be_rank(whole, r, listener, port, &out[r]));
    }
    close(listener);
    for (int r = 0; r < RANKS; r++) {
        int status;
        waitpid(pid[r], &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* The step by hand. */
typedef struct {
    small_model *model;             /* before the step: rows, weights, centres */
    double *grad, *after;           /* by row, as in `outcome` */
    double sum[XKD_MODALITIES][64]; /* of the teachers' outputs over all samples */
    double loss, norm;
} oracle;

static int64_t place_of(const xkd_params *p, const xkd_param *row)
{
    int64_t at = 0;
    for (int64_t i = 0; p->rows[i] != row; i++) at += p->rows[i]->count;
    return at;
}

static void apply(oracle *o, const outcome *start)
{
    const small_model *s = o->model;
    const xkd_params *p = &xkd_trainer_look(s->trainer)->networks.params;
    int64_t at = 0, K = s->config.model.head.outputs;
    double squares = 0;
    for (int64_t i = 0; i < p->count; at += p->rows[i++]->count) {
        const xkd_param *row = p->rows[i];
        double own = 0, lr = s->values.lr;
        memcpy(o->after + at, start->value + at, (size_t)row->count * sizeof(double));
        if (row->role != XKD_ROLE_TRAINED) continue;
        for (int64_t k = at; k < at + row->count; k++) own += o->grad[k] * o->grad[k];
        squares += own;
        double factor = row->clipped ? fmin(1, s->config.step.clip_grad / (sqrt(own) + 1e-6)) : 1;
        for (int64_t k = at; k < at + row->count; k++) {
            double g = factor * o->grad[k];
            if (row->decayed) o->after[k] *= 1 - lr * s->values.weight_decay;
            o->after[k] -= lr * g / (fabs(g) + s->config.train.eps);
        }
    }
    o->norm = sqrt(squares);
    for (int64_t i = 0; i < p->pair_count; i++) {
        const xkd_ema_pair *e = &p->pairs[i];
        double m = s->values.ema[e->modality];
        int64_t t = place_of(p, e->teacher), from = place_of(p, e->student);
        for (int64_t k = 0; k < e->teacher->count; k++)
            o->after[t + k] = m * start->value[t + k] + (1 - m) * o->after[from + k];
    }
    for (int m = 0; m < XKD_MODALITIES; m++) {
        int64_t c = place_of(p, xkd_trainer_look(s->trainer)->networks.centre[m]);
        double keep = s->config.model.center_momentum[m];
        for (int64_t k = 0; k < K; k++)
            o->after[c + k] = keep * start->value[c + k] + (1 - keep) * o->sum[m][k] / (RANKS * EACH);
    }
}

/* Gradients, losses and teachers' outputs of one part alone are added with their share. */
static void add_part(const small_model *whole, int rank, oracle *o, outcome *scratch)
{
    small_model s = settings(EACH);
    xkd_step_result r;
    build(&s, XKD_F64);
    take_part(&s, whole, rank);
    xkd_step_begin(s.trainer, &s.values);
    xkd_step_micro_batch(s.trainer, &s.input);
    note(&s, scratch);
    for (int64_t k = 0; k < scratch->count; k++) o->grad[k] += scratch->grad[k] / RANKS;
    for (int m = 0; m < XKD_MODALITIES; m++)
        for (int64_t k = 0; k < s.config.model.head.outputs; k++)
            o->sum[m][k] += ((const double *)xkd_trainer_look(s.trainer)->parts.vectors[1 + m].x)[k];
    assert_int_equal(xkd_step_finish(s.trainer), XKD_OK);
    assert_int_equal(xkd_step_collect(s.trainer, &r), XKD_OK);
    o->loss += r.loss[XKD_LOSS_TOTAL] / RANKS;
    small_model_free(&s);
}

static double norm_of(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += x[k] * x[k];
    return sqrt(sum);
}

static void compare(const xkd_params *p, const oracle *o, const outcome *got)
{
    double largest = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < p->count; at += p->rows[i++]->count)
        largest = fmax(largest, norm_of(o->grad + at, p->rows[i]->count));
    at = 0;
    for (int64_t i = 0; i < p->count; at += p->rows[i++]->count) {
        const xkd_param *row = p->rows[i];
        double off = 0, worst = 0;
        for (int64_t k = at; k < at + row->count; k++) {
            off += (got->grad[k] - o->grad[k]) * (got->grad[k] - o->grad[k]);
            worst = fmax(worst, fabs(got->value[k] - o->after[k]));
        }
        if (!(sqrt(off) <= GRADIENT * fmax(norm_of(o->grad + at, row->count), 1e-5 * largest)))
            fail_msg("%s: its gradient is off by %g of %g", row->name, sqrt(off), norm_of(o->grad + at, row->count));
        if (!(worst <= WEIGHT)) fail_msg("%s: off by %g after the step", row->name, worst);
    }
}

static void two_ranks_are_the_formula(void **state)
{
    (void)state;
    outcome *got = mmap(NULL, (RANKS + 2) * sizeof *got, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(got, MAP_FAILED);
    outcome *start = &got[RANKS], *scratch = &got[RANKS + 1];
    small_model whole = settings(RANKS * EACH);
    xkd_step_result all;
    build(&whole, XKD_F64);
    note(&whole, start);
    oracle o = {.model = &whole};
    o.grad = calloc(MOST, sizeof *o.grad);
    o.after = calloc(MOST, sizeof *o.after);
    for (int r = 0; r < RANKS; r++) add_part(&whole, r, &o, scratch);
    apply(&o, start);
    run_ranks(&whole, got);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(got[r].count, start->count);
        assert_true(fabs(got[r].loss - o.loss) < 2e-5 * fabs(o.loss));
        assert_true(fabs(got[r].grad_norm - o.norm) < 1e-4 * o.norm);
        compare(&xkd_trainer_look(whole.trainer)->networks.params, &o, &got[r]);
    }
    /* And not that of one batch of all samples: alignment looks at the samples of a rank. */
    assert_int_equal(step(&whole, &all), XKD_OK);
    assert_true(fabs(all.loss[XKD_LOSS_TOTAL] - o.loss) > 1e-3 * fabs(o.loss));
    free(o.grad);
    free(o.after);
    small_model_free(&whole);
    munmap(got, (RANKS + 2) * sizeof *got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_ranks_are_the_formula)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
