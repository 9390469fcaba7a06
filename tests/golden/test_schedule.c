/* Schedules against the oracle's numbers, and runs that are shorter than their warm-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <jansson.h>
#include <math.h>
#include <cmocka.h>

#include "train/schedule.h"

/* The oracle computes the same few double operations; the last bits may differ by order and by libm. */
static const double TOLERANCE = 1e-14;

static json_t *expected;

static int setup(void **state)
{
    (void)state;
    expected = json_load_file("tests/golden/schedule/expected.json", 0, NULL);
    return expected == NULL;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(expected);
    return 0;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void check_schedule(const char *name)
{
    const json_t *e = json_object_get(expected, name), *values = json_object_get(e, "values");
    xkd_schedule_config c = {number(e, "warmup_value"), number(e, "base"), number(e, "final"),
                             number(e, "warmup_epochs")};
    int64_t per_epoch = (int64_t)number(e, "steps_per_epoch"), epochs = (int64_t)number(e, "epochs");
    assert_int_equal(json_array_size(values), epochs * per_epoch);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double want = json_number_value(json_array_get(values, i));
        double got = xkd_schedule_value(&c, (int64_t)i, per_epoch, epochs);
        if (fabs(got - want) > TOLERANCE * fmax(1e-4, fabs(want)))
            fail_msg("%s %zu: %.17g, not %.17g", name, i, got, want);
    }
}

static void test_learning_rate(void **state)
{
    (void)state;
    check_schedule("lr");
}

static void test_ema(void **state)
{
    (void)state;
    check_schedule("ema");
}

static void test_teacher_temperature(void **state)
{
    (void)state;
    const json_t *e = json_object_get(expected, "teacher_temp"), *values = json_object_get(e, "values");
    assert_true(json_array_size(values) > 0);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double got = xkd_temperature_value(number(e, "warmup"), number(e, "final"), (int64_t)number(e, "warmup_epochs"),
                                           (int64_t)i);
        assert_true(fabs(got - json_number_value(json_array_get(values, i))) < TOLERANCE);
    }
}

static void test_run_shorter_than_warmup(void **state)
{
    (void)state;
    const xkd_schedule_config lr = {0, 1, 0, 30};
    for (int64_t step = 0; step < 4; step++) assert_true(xkd_schedule_value(&lr, step, 2, 2) == (double)step / 59);
    assert_true(xkd_temperature_value(0.04, 0.07, 30, 1) == 0.04 + (0.07 - 0.04) / 29);
    const xkd_schedule_config one = {0.5, 1, 0, 1};
    assert_true(xkd_schedule_value(&one, 0, 1, 1) == 0.5);
    const xkd_schedule_config none = {0.5, 1, 0, 0};
    assert_true(xkd_schedule_value(&none, 0, 1, 1) == 1);
    assert_true(xkd_schedule_value(&none, 99, 1, 1) == 1);
}

static void test_all_at_once(void **state)
{
    (void)state;
    xkd_train_config t = {.epochs = 10,
                          .batch = 64,
                          .lr_scale_to_batch = 256,
                          .lr = {0, 1, 0, 0},
                          .weight_decay = {0, 0.3, 0.3, 0},
                          .ema = {{0, 0.9, 1, 0}, {0, 0.8, 1, 0}},
                          .teacher_temp = {0.1, 0.07},
                          .teacher_temp_warmup = {0.1, 0.05},
                          .teacher_temp_warmup_epochs = {3, 3},
                          .student_temp = {0.1, 0.2}};
    xkd_schedule_values v;
    xkd_schedule_at(&t, 0, 5, &v);
    assert_true(v.lr == 0.25);
    assert_true(v.ema[XKD_AUDIO] == 0.8);
    assert_true(v.student_temp[XKD_AUDIO] == 0.2);
    xkd_schedule_at(&t, 5, 5, &v);
    assert_int_equal(v.epoch, 1);
    assert_true(fabs(v.teacher_temp[XKD_AUDIO] - 0.06) < 1e-15);
    assert_true(fabs(v.weight_decay - 0.3) < 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning_rate),       cmocka_unit_test(test_ema),
        cmocka_unit_test(test_teacher_temperature), cmocka_unit_test(test_run_shorter_than_warmup),
        cmocka_unit_test(test_all_at_once),
    };
    return cmocka_run_group_tests_name("schedule", tests, setup, teardown);
}
