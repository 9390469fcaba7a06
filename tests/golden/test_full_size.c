/* The full-size official model on the cpu backend in float32 against the reference in float64: losses and every
 * gradient within the bounds of the golden cases. Needs 15 GB and minutes, so it only runs with XKD_LONG=1. The same
 * step at 1, 2, 3, 5 and 8 threads must give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "train/step.h"

enum { B = 2, VIEWS = 2 };

/* Random views of the official configuration and one model that sees them. */
typedef struct {
    xkd_config config;
    xkd_view_shape shape[XKD_MODALITIES][VIEWS];
    float *clips[XKD_MODALITIES][VIEWS], *noise[XKD_MODALITIES];
    xkd_backend *be;
    xkd_trainer *trainer;
    xkd_step_result result;
} full;

static float *random_floats(xkd_context *cx, int64_t count, uint32_t stream, bool normal)
{
    float *out = NULL;
    xkd_rng rng = xkd_rng_make(3, 0, stream, 0, XKD_RNG_TEST);
    assert_int_equal(xkd_alloc(cx, &out, count, sizeof *out), XKD_OK);
    for (int64_t i = 0; i < count; i++) out[i] = (float)(normal ? xkd_rng_normal(&rng) : xkd_rng_uniform(&rng));
    return out;
}

static void build(xkd_context *cx, full *f, const char *backend, xkd_dtype dtype, int threads)
{
    assert_int_equal(xkd_config_init(cx, &f->config), XKD_OK);
    f->config.train.accumulate = 1;
    assert_int_equal(xkd_config_finish(cx, &f->config), XKD_OK);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        for (int v = 0; v < VIEWS; v++) {
            xkd_view_shape *s = &f->shape[m][v];
            *s = xkd_config_view(&f->config, m, v > 0);
            f->clips[m][v] = random_floats(cx, B * 3 * s->T * s->H * s->W, (uint32_t)(10 * m + v), true);
        }
        f->noise[m] = random_floats(cx, B * 4000, 100 + m, false);
    }
    xkd_batch_shape shape = {.B = B, .views = {VIEWS, VIEWS}, .shape = {f->shape[0], f->shape[1]}};
    assert_int_equal(xkd_backend_new(cx, &f->be, backend, dtype, threads), XKD_OK);
    if (xkd_trainer_new(cx, &f->trainer, f->be, NULL, &f->config, &shape, false) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
}

static void run_step(full *f)
{
    xkd_pass_input in = {.clips = {(const float *const *)f->clips[0], (const float *const *)f->clips[1]},
                         .noise = {f->noise[0], f->noise[1]}};
    xkd_step_values values = {.temp = {.teacher_temp = {0.1, 0.07}, .student_temp = {0.1, 0.1}}};
    xkd_step_begin(f->trainer, &values);
    xkd_step_micro_batch(f->trainer, &in);
    xkd_pass_report(&xkd_trainer_look(f->trainer)->pass, xkd_trainer_look(f->trainer)->pass.scalars, f->result.loss);
    assert_int_equal(xkd_backend_status(f->be), XKD_OK);
}

static void release(full *f)
{
    xkd_trainer_free(f->trainer);
    xkd_backend_free(f->be);
    for (int m = 0; m < XKD_MODALITIES; m++) {
        for (int v = 0; v < VIEWS; v++) xkd_free(f->clips[m][v]);
        xkd_free(f->noise[m]);
    }
    xkd_config_free(&f->config);
}

static double norm(const xkd_param *a, xkd_dtype type, const xkd_param *b, xkd_dtype other)
{
    double sum = 0;
    for (int64_t i = 0; i < a->count; i++) {
        double d = xkd_get(type, a->grad, i) - (b ? xkd_get(other, b->grad, i) : 0);
        sum += d * d;
    }
    return sqrt(sum);
}

static void against_float64(void **state)
{
    (void)state;
    if (!getenv("XKD_LONG")) skip();
    xkd_context *cx = xkd_context_new();
    full *fast = test_calloc(1, sizeof *fast), *truth = test_calloc(1, sizeof *truth);
    build(cx, fast, "cpu", XKD_F32, 2);
    build(cx, truth, "ref", XKD_F64, 2);
    xkd_params *p = &xkd_trainer_look(fast->trainer)->networks.params, *q = &xkd_trainer_look(truth->trainer)->networks.params;
    for (int64_t i = 0; i < p->count; i++)
        for (int64_t k = 0; k < p->rows[i]->count; k++)
            xkd_set(XKD_F64, q->rows[i]->value, k, xkd_get(XKD_F32, p->rows[i]->value, k));
    run_step(fast);
    run_step(truth);
    double loss_error = 0, gradient_error = 0, largest = 0;
    for (int i = 0; i < XKD_LOSS_COUNT; i++)
        loss_error = fmax(loss_error, fabs(fast->result.loss[i] - truth->result.loss[i]) /
                                          fmax(1, fabs(truth->result.loss[i])));
    for (int64_t i = 0; i < q->count; i++)
        if (q->rows[i]->grad) largest = fmax(largest, norm(q->rows[i], XKD_F64, NULL, XKD_F64));
    for (int64_t i = 0; i < q->count; i++) {
        if (!q->rows[i]->grad) continue;
        double size = fmax(norm(q->rows[i], XKD_F64, NULL, XKD_F64), 1e-5 * largest);
        double error = norm(p->rows[i], XKD_F32, q->rows[i], XKD_F64) / size;
        if (error > gradient_error) print_message("%s: gradient off by %.3g\n", q->rows[i]->name, error);
        gradient_error = fmax(gradient_error, error);
    }
    print_message("full size: losses within %.3g, gradients within %.3g of float64\n", loss_error, gradient_error);
    assert_true(loss_error <= 2e-4 && gradient_error <= 1e-4);
    release(fast);
    release(truth);
    test_free(fast);
    test_free(truth);
    xkd_context_free(cx);
}

static void same_bits_for_any_threads(void **state)
{
    static const int counts[] = {1, 2, 3, 5, 8};
    (void)state;
    if (!getenv("XKD_LONG")) skip();
    xkd_context *cx = xkd_context_new();
    float *first = NULL;
    int64_t count = 0;
    double loss = 0;
    for (int c = 0; c < 5; c++) {
        full f = {0};
        build(cx, &f, "cpu", XKD_F32, counts[c]);
        run_step(&f);
        const xkd_arena *grads = &xkd_trainer_look(f.trainer)->networks.params.grads;
        if (c == 0) {
            count = grads->used / 4;
            loss = f.result.loss[XKD_LOSS_TOTAL];
            assert_int_equal(xkd_alloc(cx, &first, count, sizeof *first), XKD_OK);
            memcpy(first, grads->memory, (size_t)count * 4);
        }
        assert_true(loss == f.result.loss[XKD_LOSS_TOTAL]);
        assert_memory_equal(first, grads->memory, (size_t)count * 4);
        release(&f);
    }
    xkd_free(first);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(against_float64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
