/* Element types: conversion and the search for numbers that are not finite. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/dtype.h"

/* Every pattern of 16 bits, one by one, against what conversion to double says. */
static void halves_are_told_apart(void **state)
{
    (void)state;
    for (int type = 0; type < 2; type++) {
        xkd_dtype dtype = type ? XKD_BF16 : XKD_F16;
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint16_t half = (uint16_t)bits;
            int64_t wanted = !isfinite(xkd_element(dtype, &half, 0));
            assert_int_equal(xkd_count_non_finite(dtype, &half, 1), wanted);
        }
    }
}

/* The largest and smallest finite numbers beside the others; enough of them that vectors and the rest both run. */
static void wide_types_are_counted(void **state)
{
    (void)state;
    enum { N = 67 };
    float f[N];
    double d[N];
    for (int i = 0; i < N; i++)
        f[i] = i % 2 ? 3.4028234e38f : 1.4e-45f, d[i] = i % 2 ? -1.7976931348623157e308 : 5e-324;
    assert_int_equal(xkd_count_non_finite(XKD_F32, f, N), 0);
    assert_int_equal(xkd_count_non_finite(XKD_F64, d, N), 0);
    f[0] = NAN, f[33] = -INFINITY, f[N - 1] = INFINITY;
    d[1] = INFINITY, d[N - 1] = -NAN;
    assert_int_equal(xkd_count_non_finite(XKD_F32, f, N), 3);
    assert_int_equal(xkd_count_non_finite(XKD_F64, d, N), 2);
    assert_int_equal(xkd_count_non_finite(XKD_F32, f, 0), 0);
}

/* All bits set is a number there. */
static void integers_are_finite(void **state)
{
    (void)state;
    uint8_t ones[16];
    memset(ones, 255, sizeof ones);
    for (xkd_dtype t = XKD_I64; t < XKD_DTYPE_COUNT; t++)
        assert_int_equal(xkd_count_non_finite(t, ones, (int64_t)sizeof ones / xkd_dtype_size(t)), 0);
}

/* Beyond 2^53 a double would not do. */
static void integers_are_exact(void **state)
{
    (void)state;
    const int64_t s[] = {INT64_MIN, INT64_MAX, -1};
    const uint64_t u[] = {UINT64_MAX, UINT64_MAX - 1};
    const uint16_t h[] = {65535};
    assert_true(xkd_integer_element(XKD_I64, s, 1) - (long double)INT64_MAX == 0);
    assert_true(xkd_integer_element(XKD_I64, s, 0) < 0 && xkd_integer_element(XKD_I64, s, 2) == -1);
    assert_true(xkd_integer_element(XKD_U64, u, 0) - xkd_integer_element(XKD_U64, u, 1) == 1);
    assert_true(xkd_integer_element(XKD_U16, h, 0) == 65535);
    for (xkd_dtype t = 0; t < XKD_DTYPE_COUNT; t++) assert_int_equal(xkd_dtype_is_integer(t), t > XKD_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_told_apart),
        cmocka_unit_test(wide_types_are_counted),
        cmocka_unit_test(integers_are_finite),
        cmocka_unit_test(integers_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
