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
    uint32_t a[1000], b[1000];
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

/* A last micro-batch is whole groups, and two samples at least where a covariance is taken. */
static void last_batches_keep_whole_groups(void **state)
{
    static const struct {
        int64_t samples, multiple, least, steps, last, left_out;
    } cases[] = {
        {32, 4, 1, 2, 8, 0}, /* nothing is left over */
        {38, 4, 1, 2, 8, 6}, /* 6 over two micro-batches: 3 each, no group of 4 */
        {45, 4, 1, 3, 4, 5}, /* 13: 6 each, of which 4 */
        {47, 3, 1, 3, 6, 3}, /* 15: 7 each, of which 6 */
        {34, 1, 2, 2, 8, 2}, /* one each: no covariance */
        {36, 1, 2, 3, 2, 0}, /* two each */
        {35, 1, 1, 3, 1, 1}, /* as without an alignment loss */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xkd_sampler s = {.samples = cases[i].samples,
                         .batch = 16,
                         .accumulate = 2,
                         .world = 1,
                         .multiple = cases[i].multiple,
                         .least = cases[i].least};
        int64_t first, count;
        assert_int_equal(xkd_sampler_steps(&s), cases[i].steps);
        assert_int_equal(xkd_sampler_left_out(&s), cases[i].left_out);
        for (int64_t micro = 0; micro < 2; micro++) {
            xkd_sampler_part(&s, cases[i].steps - 1, micro, &first, &count);
            assert_int_equal(count, cases[i].last);
            assert_int_equal(first, (cases[i].steps - 1) * 16 + micro * count);
        }
        s.drop_last = true;
        assert_int_equal(xkd_sampler_steps(&s), cases[i].samples / 16);
        assert_int_equal(xkd_sampler_left_out(&s), cases[i].samples % 16);
    }
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
        cmocka_unit_test(last_batches_keep_whole_groups),
        cmocka_unit_test(impossible_batches_are_refused),
    };
    cx = xkd_context_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
