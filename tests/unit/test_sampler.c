/* The order of samples: a permutation, cut without gaps or overlaps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "data/sampler.h"

static xkd_context *cx;

static void order_is_a_permutation_of_the_epoch(void **state)
{
    xkd_sampler s = {
        .samples = 1000, .batch = 10, .accumulate = 1, .world = 1, .shuffle = true, .drop_last = true, .seed = 3};
    int64_t a[1000], b[1000];
    char seen[1000] = {0};
    (void)state;
    xkd_sampler_order(&s, 4, a);
    xkd_sampler_order(&s, 4, b);
    assert_memory_equal(a, b, sizeof a);
    xkd_sampler_order(&s, 5, b);
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < 1000; i++) seen[a[i]]++;
    for (int i = 0; i < 1000; i++) assert_int_equal(seen[i], 1);
    s.shuffle = false;
    xkd_sampler_order(&s, 4, a);
    for (int i = 0; i < 1000; i++) assert_int_equal(a[i], i);
}

/* Ranks and micro-batches together take each place of the epoch's whole batches exactly once, in order. */
static void parts_cover_the_epoch(void **state)
{
    (void)state;
    for (int drop = 0; drop < 2; drop++) {
        xkd_sampler s = {.samples = 107, .batch = 24, .accumulate = 3, .world = 2, .drop_last = drop};
        char seen[107] = {0};
        assert_int_equal(xkd_sampler_check(cx, &s), XKD_OK);
        assert_int_equal(xkd_sampler_steps(&s), drop ? 4 : 5);
        for (int64_t step = 0; step < xkd_sampler_steps(&s); step++)
            for (s.rank = 0; s.rank < s.world; s.rank++)
                for (int64_t micro = 0; micro < 3; micro++) {
                    int64_t first, count;
                    xkd_sampler_part(&s, step, micro, &first, &count);
                    assert_int_equal(count, step < 4 ? 4 : 1); /* 11 are left for the last: 6 are used */
                    assert_int_equal(first, step * 24 + (s.rank * 3 + micro) * count);
                    for (int64_t i = 0; i < count; i++) seen[first + i]++;
                }
        for (int i = 0; i < 107; i++) assert_int_equal(seen[i], i < (drop ? 96 : 102));
    }
}

static void impossible_batches_are_refused(void **state)
{
    xkd_sampler s = {.samples = 100, .batch = 10, .accumulate = 3, .world = 1, .drop_last = true};
    (void)state;
    assert_int_equal(xkd_sampler_check(cx, &s), XKD_ERR_CONFIG);
    s.accumulate = 1;
    s.samples = 9;
    xkd_clear_error(cx);
    assert_int_equal(xkd_sampler_check(cx, &s), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "batch_size"));
    s.world = 0;
    assert_int_equal(xkd_sampler_check(cx, &s), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_a_permutation_of_the_epoch),
        cmocka_unit_test(parts_cover_the_epoch),
        cmocka_unit_test(impossible_batches_are_refused),
    };
    cx = xkd_context_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
