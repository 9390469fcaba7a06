/* What a training step promises beyond its numbers: no allocation, the same bits for any thread count, accumulation,
 * skipped terms, non-finite safety, frozen layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <cmocka.h>

#include "small_model.h"

static void build(small_model *s, const char *backend, xkd_dtype dtype, int threads)
{
    if (small_model_build(s, backend, dtype, threads) != XKD_OK) fail_msg("%s", xkd_last_error(s->cx));
}

static xkd_step_result one_step(small_model *s)
{
    xkd_step_result result;
    xkd_step_begin(s->trainer, &s->values);
    for (int64_t i = 0; i < s->config.train.accumulate; i++) xkd_step_micro_batch(s->trainer, &s->input);
    assert_int_equal(xkd_step_finish(s->trainer), XKD_OK);
    assert_int_equal(xkd_step_collect(s->trainer, &result), XKD_OK);
    return result;
}

static const xkd_arena *values_of(const small_model *s)
{
    return &xkd_trainer_look(s->trainer)->networks.params.values;
}

static void no_allocation_after_the_first_step(void **state)
{
    static const char *const backends[] = {"ref", "cpu"};
    (void)state;
    for (int b = 0; b < 2; b++) {
        small_model s = small_model_defaults();
        build(&s, backends[b], XKD_F32, 3);
        one_step(&s);
        int64_t before = xkd_alloc_count(s.cx);
        for (int i = 0; i < 30; i++) one_step(&s);
        assert_int_equal(xkd_alloc_count(s.cx), before);
        small_model_free(&s);
    }
}

/* Steps with the last, smaller batch of an epoch between: after both sizes have been met nothing is allocated, and each step
 * does what a trainer of its own size does. */
static void smaller_batches_share_the_memory(void **state)
{
    (void)state;
    small_model s = small_model_defaults(), small = small_model_defaults();
    s.B = 4;
    small.B = 2;
    build(&s, "cpu", XKD_F32, 2);
    build(&small, "cpu", XKD_F32, 2);
    int64_t views = s.config.step.global_views;
    xkd_batch_shape full = {.B = 4, .views = {views + s.locals[0], views + s.locals[1]}, .shape = {s.shapes[0], s.shapes[1]}};
    xkd_batch_shape last = full;
    last.B = 2;
    const xkd_pass_input input = s.input;
    int64_t before = 0;
    for (int round = 0; round < 4; round++) {
        s.input = small.input;
        assert_int_equal(xkd_trainer_fit(s.cx, s.trainer, &last), XKD_OK);
        xkd_step_result a = one_step(&s);
        if (round == 0) {
            xkd_step_result b = one_step(&small);
            assert_memory_equal(&a, &b, sizeof a);
            assert_memory_equal(values_of(&s)->memory, values_of(&small)->memory, (size_t)values_of(&s)->used);
        }
        s.input = input;
        assert_int_equal(xkd_trainer_fit(s.cx, s.trainer, &full), XKD_OK);
        one_step(&s);
        if (round == 0) before = xkd_alloc_count(s.cx);
    }
    assert_int_equal(xkd_alloc_count(s.cx), before);
    assert_int_equal(xkd_trainer_look(s.trainer)->pass.B, 4);
    small_model_free(&s);
    small_model_free(&small);
}

/* Width 96, 2 blocks: the shapes of the demo; larger than one tile in rows. */
static small_model demo_like(void)
{
    small_model s = small_model_defaults();
    s.config.model.frame_height = 64;
    s.config.model.frame_width = 64;
    s.config.model.spec_time = 128;
    s.config.model.teacher = s.config.model.student = (xkd_vit_size){96, 2, 4};
    s.config.model.decoder = (xkd_vit_size){48, 1, 4};
    s.config.model.head = (xkd_head_size){128, 64, 256};
    s.B = 5;
    return s;
}

static void same_bits_for_any_threads(void **state)
{
    static const int counts[] = {1, 2, 3, 5, 8};
    small_model first = demo_like();
    (void)state;
    build(&first, "cpu", XKD_F32, counts[0]);
    for (int i = 0; i < 2; i++) one_step(&first);
    for (int c = 1; c < 5; c++) {
        small_model s = demo_like();
        build(&s, "cpu", XKD_F32, counts[c]);
        for (int i = 0; i < 2; i++) one_step(&s);
        assert_memory_equal(values_of(&first)->memory, values_of(&s)->memory, (size_t)values_of(&s)->used);
        small_model_free(&s);
    }
    small_model_free(&first);
}

/* Two equal micro-batches give what one gives: the mean gradient, loss and centre. */
static void accumulation_averages(void **state)
{
    small_model once = small_model_defaults(), twice = small_model_defaults();
    (void)state;
    twice.config.train.accumulate = 2;
    build(&once, "ref", XKD_F64, 1);
    build(&twice, "ref", XKD_F64, 1);
    xkd_step_result a = one_step(&once), b = one_step(&twice);
    assert_true(fabs(a.loss[XKD_LOSS_TOTAL] - b.loss[XKD_LOSS_TOTAL]) < 1e-12);
    const double *x = (const double *)values_of(&once)->memory, *y = (const double *)values_of(&twice)->memory;
    for (int64_t i = 0; i < values_of(&once)->used / 8; i++) assert_true(fabs(x[i] - y[i]) < 1e-9);
    small_model_free(&once);
    small_model_free(&twice);
}

/* One batch with mmd_group = n computes what ranks of n samples each average to: here the two halves of a batch. */
static void mmd_groups_equal_ranks(void **state)
{
    small_model whole = small_model_defaults();
    double sum = 0;
    (void)state;
    whole.B = 4;
    whole.config.step.mmd_group = 2;
    build(&whole, "ref", XKD_F64, 1);
    xkd_step_result together = one_step(&whole);
    for (int half = 0; half < 2; half++) {
        small_model part = small_model_defaults();
        build(&part, "ref", XKD_F64, 1);
        for (int m = 0; m < XKD_MODALITIES; m++) {
            for (int v = 0; v < 2; v++) {
                xkd_view_shape *s = &part.shapes[m][v];
                int64_t each = (m == XKD_VIDEO ? 3 : 1) * s->T * s->H * s->W;
                memcpy(part.clips[m][v], whole.clips[m][v] + half * 2 * each, (size_t)(2 * each) * sizeof(float));
            }
            int64_t N = xkd_grid_tokens(xkd_trainer_look(part.trainer)->networks.student[m].grid);
            memcpy(part.noise[m], whole.noise[m] + half * 2 * N, (size_t)(2 * N) * sizeof(float));
        }
        sum += one_step(&part).loss[XKD_LOSS_TOTAL];
        small_model_free(&part);
    }
    assert_true(fabs(sum / 2 - together.loss[XKD_LOSS_TOTAL]) < 1e-12);
    small_model_free(&whole);
}

static void zero_coefficients_skip_work(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.step.align_coeff = s.config.step.cmkd_coeff = 0;
    build(&s, "cpu", XKD_F32, 1);
    assert_false(xkd_trainer_look(s.trainer)->pass.wants.teachers);
    assert_int_equal(xkd_trainer_look(s.trainer)->pass.views[XKD_VIDEO], 1); /* no local view is embedded */
    xkd_step_result r = one_step(&s);
    assert_true(r.loss[XKD_LOSS_KD] == 0 && r.loss[XKD_LOSS_ALIGN] == 0);
    assert_true(r.loss[XKD_LOSS_TOTAL] == r.loss[XKD_LOSS_RECON] && r.loss[XKD_LOSS_TOTAL] > 0);
    small_model_free(&s);
}

static void non_finite_changes_nothing(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    build(&s, "cpu", XKD_F32, 2);
    one_step(&s);
    char *before = NULL;
    size_t size = (size_t)values_of(&s)->used;
    assert_int_equal(xkd_alloc(s.cx, &before, (int64_t)size, 1), XKD_OK);
    memcpy(before, values_of(&s)->memory, size);
    s.clips[XKD_AUDIO][1][3] = NAN;
    assert_true(one_step(&s).skipped);
    assert_memory_equal(before, values_of(&s)->memory, size);
    s.clips[XKD_AUDIO][1][3] = 0;
    assert_false(one_step(&s).skipped);
    xkd_free(before);
    small_model_free(&s);
}

static void frozen_last_layer(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.step.freeze_last_layer = 1;
    build(&s, "ref", XKD_F64, 1);
    const xkd_param *row = xkd_trainer_look(s.trainer)->networks.student_head[XKD_VIDEO].direction;
    const xkd_param *teacher = xkd_trainer_look(s.trainer)->networks.teacher_head[XKD_VIDEO].direction;
    double value = *(double *)row->value, average = *(double *)teacher->value;
    one_step(&s);
    assert_true(*(double *)row->value == value && row->steps == 0);
    assert_true(*(double *)teacher->value == 0.992 * average + (1 - 0.992) * value);
    s.values.epoch = 1;
    one_step(&s);
    assert_true(*(double *)row->value != value && row->steps == 1);
    small_model_free(&s);
}

static void one_modality_alone(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.step.modality = XKD_TRAIN_AUDIO;
    build(&s, "cpu", XKD_F32, 1);
    float video = *(float *)xkd_trainer_look(s.trainer)->networks.student[XKD_VIDEO].pos->value;
    float audio = *(float *)xkd_trainer_look(s.trainer)->networks.student[XKD_AUDIO].pos->value;
    xkd_step_result r = one_step(&s);
    assert_true(r.loss[XKD_LOSS_TOTAL] == r.loss[XKD_LOSS_AUD_RECON] && r.loss[XKD_LOSS_TOTAL] > 0);
    assert_true(*(float *)xkd_trainer_look(s.trainer)->networks.student[XKD_VIDEO].pos->value == video);
    assert_true(*(float *)xkd_trainer_look(s.trainer)->networks.student[XKD_AUDIO].pos->value != audio);
    small_model_free(&s);
}

static volatile sig_atomic_t alarms;

static void count_alarm(int number)
{
    (void)number;
    alarms++;
}

/* A program's signal handlers must not disturb the products: oneDNN's generated code does not survive them. */
static void signals_change_nothing(void **state)
{
    small_model quiet = demo_like(), disturbed = demo_like();
    struct sigaction action = {.sa_handler = count_alarm}, old;
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    (void)state;
    build(&quiet, "cpu", XKD_F32, 2);
    build(&disturbed, "cpu", XKD_F32, 2);
    for (int i = 0; i < 10; i++) one_step(&quiet);
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 10; i++) one_step(&disturbed);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_true(alarms > 10);
    assert_memory_equal(values_of(&quiet)->memory, values_of(&disturbed)->memory, (size_t)values_of(&quiet)->used);
    small_model_free(&quiet);
    small_model_free(&disturbed);
}

static xkd_status try_build(void (*change)(small_model *))
{
    small_model s = small_model_defaults();
    change(&s);
    xkd_status status = small_model_build(&s, "ref", XKD_F32, 1);
    assert_true(status == XKD_OK || xkd_last_error(s.cx)[0]);
    small_model_free(&s);
    return status;
}

static void without_locals(small_model *s)
{
    s->locals[XKD_VIDEO] = 0;
}

static void odd_group(small_model *s)
{
    s->config.step.mmd_group = 3;
}

static void coral_of_one(small_model *s)
{
    s->config.model.align_loss = XKD_ALIGN_CORAL;
    s->B = 1;
}

static void everything_masked(small_model *s)
{
    s->config.step.mask_ratio[0] = 0.99;
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    assert_int_equal(try_build(without_locals), XKD_ERR_CONFIG);
    assert_int_equal(try_build(odd_group), XKD_ERR_CONFIG);
    assert_int_equal(try_build(coral_of_one), XKD_ERR_CONFIG);
    assert_int_equal(try_build(everything_masked), XKD_ERR_CONFIG);
}

/* Every allocation of building and running a model fails once: a clean status, nothing leaks (under ASan). */
static void failing_allocations(void **state)
{
    int64_t n = 0;
    (void)state;
    for (int done = 0; !done; n++) {
        small_model s = small_model_defaults();
        xkd_status status = XKD_OK;
        s.cx = xkd_context_new();
        small_views(&s);
        int64_t g = s.config.step.global_views;
        xkd_batch_shape shape = {.B = s.B, .views = {g + s.locals[0], g + s.locals[1]}, .shape = {s.shapes[0], s.shapes[1]}};
        atomic_store(&xkd_context_account(s.cx)->fail_at, xkd_alloc_count(s.cx) + n);
        status = xkd_backend_new(s.cx, &s.be, "cpu", XKD_F32, 2);
        if (status == XKD_OK) status = xkd_trainer_new(s.cx, &s.trainer, s.be, NULL, &s.config, &shape, false);
        done = status == XKD_OK;
        if (!done) assert_int_equal(status, XKD_ERR_MEMORY);
        small_model_free(&s);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_allocation_after_the_first_step),
        cmocka_unit_test(smaller_batches_share_the_memory),
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(signals_change_nothing),
        cmocka_unit_test(accumulation_averages),
        cmocka_unit_test(mmd_groups_equal_ranks),
        cmocka_unit_test(zero_coefficients_skip_work),
        cmocka_unit_test(non_finite_changes_nothing),
        cmocka_unit_test(frozen_last_layer),
        cmocka_unit_test(one_modality_alone),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
