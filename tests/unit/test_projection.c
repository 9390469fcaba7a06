/* Principal components, t-SNE and k-means on data whose answer is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "base/status.h"
#include "eval/judge/projection.h"

enum { GROUPS = 4, EACH = 30, N = GROUPS * EACH, D = 10 };

static int setup(void **state)
{
    return (*state = xkd_context_new()) == NULL;
}

static int teardown(void **state)
{
    xkd_context_free(*state);
    return 0;
}

/* Four clouds of deviation 1 whose centres are 20 apart; rows go from cloud to cloud. */
static void make_clouds(float *x)
{
    xkd_rng rng = xkd_rng_make(5, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < N; i++)
        for (int d = 0; d < D; d++) x[i * D + d] = (float)xkd_rng_normal(&rng) + (d == i % GROUPS ? 20.0f : 0);
}

/* Along (3,4)/5 with deviation 10 and across it with 1: the components are known. */
static void test_pca(void **state)
{
    xkd_context *cx = *state;
    xkd_pool *pool;
    float x[8 * 3], out[8 * 3];
    for (int i = 0; i < 8; i++) {
        double along = i < 4 ? -10 : 10, across = i % 2 ? 1 : -1;
        x[i * 3] = (float)(7 + 0.6 * along - 0.8 * across);
        x[i * 3 + 1] = (float)(-2 + 0.8 * along + 0.6 * across);
        x[i * 3 + 2] = 5;
    }
    assert_int_equal(xkd_pool_new(cx, &pool, 2), XKD_OK);
    assert_int_equal(xkd_pca(cx, pool, x, 8, 3, 3, out), XKD_OK);
    for (int i = 0; i < 8; i++) {
        assert_float_equal(out[i * 3], i < 4 ? -10 : 10, 1e-4);
        assert_float_equal(fabsf(out[i * 3 + 1]), 1, 1e-4);
        /* The largest loading of the second component, -0.8 across, is made positive. */
        assert_true((out[i * 3 + 1] > 0) == (i % 2 == 0));
        assert_float_equal(out[i * 3 + 2], 0, 1e-4); /* no variance is left */
    }
    /* Rows that are all equal have no component. */
    for (int i = 0; i < 24; i++) x[i] = 3;
    assert_int_equal(xkd_pca(cx, pool, x, 8, 3, 2, out), XKD_OK);
    for (int i = 0; i < 16; i++) assert_float_equal(out[i], 0, 0);
    xkd_pool_free(pool);
}

static void test_tsne(void **state)
{
    xkd_context *cx = *state;
    float x[N * D], components[N * D], out[2][N * 2];
    xkd_tsne_options options = xkd_tsne_defaults();
    make_clouds(x);
    for (int threads = 1; threads <= 2; threads++) {
        xkd_pool *pool;
        assert_int_equal(xkd_pool_new(cx, &pool, threads), XKD_OK);
        assert_int_equal(xkd_pca(cx, pool, x, N, D, D, components), XKD_OK);
        assert_int_equal(xkd_tsne(cx, pool, components, N, D, &options, NULL, NULL, out[threads - 1]), XKD_OK);
        xkd_pool_free(pool);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    /* The largest distance within a cloud is smaller than the smallest to another. */
    double within = 0, between = INFINITY;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) {
            double d = hypot(out[0][2 * i] - out[0][2 * j], out[0][2 * i + 1] - out[0][2 * j + 1]);
            assert_true(isfinite(d));
            if (i % GROUPS == j % GROUPS)
                within = fmax(within, d);
            else
                between = fmin(between, d);
        }
    assert_true(within < between);
}

static int stop_at_once(void *user)
{
    return ++*(int *)user >= 3;
}

/* One row, two rows, equal rows, and a signal. */
static void test_small(void **state)
{
    xkd_context *cx = *state;
    xkd_pool *pool;
    xkd_tsne_options options = xkd_tsne_defaults();
    float x[40 * 2], out[40 * 2];
    int steps = 0;
    for (int i = 0; i < 80; i++) x[i] = 1;
    assert_int_equal(xkd_pool_new(cx, &pool, 2), XKD_OK);
    for (int n = 1; n <= 40; n = n < 3 ? n + 1 : n * 2) {
        assert_int_equal(xkd_tsne(cx, pool, x, n, 2, &options, NULL, NULL, out), XKD_OK);
        for (int i = 0; i < 2 * n; i++) assert_true(isfinite(out[i]));
    }
    assert_int_equal(xkd_tsne(cx, pool, x, 40, 2, &options, stop_at_once, &steps, out), XKD_ERR_INTERRUPTED);
    assert_int_equal(steps, 3);
    xkd_pool_free(pool);
}

static void test_kmeans(void **state)
{
    xkd_context *cx = *state;
    float x[N * D];
    int32_t group[2][N];
    make_clouds(x);
    for (int threads = 1; threads <= 2; threads++) {
        xkd_pool *pool;
        assert_int_equal(xkd_pool_new(cx, &pool, threads), XKD_OK);
        assert_int_equal(xkd_kmeans(cx, pool, x, N, D, GROUPS, group[threads - 1]), XKD_OK);
        xkd_pool_free(pool);
    }
    assert_memory_equal(group[0], group[1], sizeof group[0]);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) assert_true((group[0][i] == group[0][j]) == (i % GROUPS == j % GROUPS));
    /* More groups than rows that differ: no more are used than there are. */
    xkd_pool *pool;
    for (int i = 0; i < N * D; i++) x[i] = 2;
    assert_int_equal(xkd_pool_new(cx, &pool, 1), XKD_OK);
    assert_int_equal(xkd_kmeans(cx, pool, x, N, D, 5, group[0]), XKD_OK);
    for (int i = 0; i < N; i++) assert_int_equal(group[0][i], 0);
    xkd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pca),
        cmocka_unit_test(test_tsne),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_kmeans),
    };
    return cmocka_run_group_tests_name("projection", tests, setup, teardown);
}
