/* The linear SVM: decision values and accuracies of the recorded case, the same solution as liblinear, results that do
 * not depend on threads, folds that keep videos together, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#ifdef XKD_HAVE_LIBLINEAR
#include <linear.h>
#endif

#include "base/alloc.h"
#include "base/rng.h"
#include "eval/judge/metrics.h"
#include "eval/judge/protocols.h"
#include "eval/judge/svm.h"
#include "golden_file.h"

#define FILE_NAME "tests/golden/svm/svm.safetensors"
enum { GOLDEN_CLASSES = 6, CLIPS = 3 };

static void *golden(const char *name, int64_t shape[4])
{
    int64_t bytes;
    void *out = golden_tensor(FILE_NAME, name, shape, &bytes);
    if (!out) fail_msg("%s is missing", name);
    return out;
}

static int32_t *golden_labels(const char *name, int64_t *n)
{
    int64_t shape[4], *wide = golden(name, shape);
    int32_t *out = malloc((size_t)shape[0] * sizeof *out);
    for (int64_t i = 0; i < shape[0]; i++) out[i] = (int32_t)wide[i];
    *n = shape[0];
    free(wide);
    return out;
}

/* Mean of the decision values of CLIPS clips. */
static void average(const float *clips, int64_t n, float *out)
{
    for (int64_t i = 0; i < n * GOLDEN_CLASSES; i++) {
        double sum = 0;
        for (int k = 0; k < CLIPS; k++)
            sum += clips[(i / GOLDEN_CLASSES * CLIPS + k) * GOLDEN_CLASSES + i % GOLDEN_CLASSES];
        out[i] = (float)(sum / CLIPS);
    }
}

static void recorded_case(void **state)
{
    static const char *const costs[] = {"0.001", "0.01", "0.1", "1.0"};
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    int64_t shape[4], n, tests;
    int32_t *train_y = golden_labels("train_y", &n), *test_y = golden_labels("test_y", &tests);
    float *train_x = golden("train_x", shape), *test_x = golden("test_x", shape), scores[40 * CLIPS * GOLDEN_CLASSES],
          mean[40 * GOLDEN_CLASSES];
    json_error_t error;
    json_t *expected = json_load_file("tests/golden/svm/expected.json", 0, &error);
    assert_int_equal(xkd_pool_new(cx, &pool, 2), XKD_OK);
    for (int k = 0; k < 4; k++) {
        char name[40];
        int64_t rank[40];
        xkd_svm_model model;
        xkd_svm_options options = xkd_svm_defaults();
        options.C = atof(costs[k]);
        options.tolerance = 1e-8;
        options.iterations = 100000;
        xkd_svm_data data = {.x = train_x, .label = train_y, .n = n, .D = 32, .K = GOLDEN_CLASSES};
        if (xkd_svm_train(cx, pool, &data, &options, &model) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        assert_int_equal(model.unconverged, 0);
        xkd_svm_decide(&model, pool, test_x, tests * CLIPS, scores);
        average(scores, tests, mean);
        snprintf(name, sizeof name, "decision_C%s", costs[k]);
        float *want = golden(name, shape);
        for (int i = 0; i < 40 * GOLDEN_CLASSES; i++)
            if (!(fabs(mean[i] - want[i]) <= 1e-3)) fail_msg("%s: value %d is %g, not %g", name, i, mean[i], want[i]);
        json_t *metrics = json_object_get(json_object_get(expected, "metrics"), costs[k]);
        xkd_ranks(mean, test_y, tests, GOLDEN_CLASSES, rank);
        assert_true(fabs(xkd_top_k(rank, tests, 1) - json_number_value(json_object_get(metrics, "top1"))) < 1e-9);
        assert_true(fabs(xkd_top_k(rank, tests, 5) - json_number_value(json_object_get(metrics, "top5"))) < 1e-9);
        free(want);
        xkd_svm_free(&model);
    }
    json_decref(expected);
    free(train_x);
    free(test_x);
    free(train_y);
    free(test_y);
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

static void mean_average_precision(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    int64_t shape[4], *wide = golden("multilabel", shape), n = shape[0], K = shape[1], empty;
    uint8_t truth[60 * 9];
    float *scores = golden("scores", shape);
    double each[9], mean;
    for (int64_t i = 0; i < n * K; i++) truth[i] = (uint8_t)wide[i];
    assert_int_equal(xkd_mean_average_precision(cx, scores, truth, n, K, each, &mean, &empty), XKD_OK);
    assert_true(fabs(mean - 0.7260828744740452) < 1e-6);
    assert_int_equal(empty, 0);
    /* Ties are one threshold: two of three positives share the best score with one negative. */
    const float tied[] = {2, 2, 2, 1, 0};
    const uint8_t positive[] = {1, 0, 1, 1, 0};
    assert_int_equal(xkd_average_precision(cx, tied, positive, 5, 1, &mean), XKD_OK);
    assert_true(fabs(mean - (2.0 / 3 * 2.0 / 3 + 1.0 / 3 * 3.0 / 4)) < 1e-12);
    free(wide);
    free(scores);
    xkd_context_free(cx);
}

/* n clips of D features around K centres that overlap. */
static void make_clips(float *x, int32_t *y, int64_t n, int64_t D, int64_t K)
{
    xkd_rng rng = xkd_rng_make(5, 0, 0, 0, XKD_RNG_TEST);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (int32_t)(i % K);
        for (int64_t k = 0; k < D; k++)
            x[i * D + k] = (float)(0.7 * xkd_rng_normal(&rng) + (k % K == y[i] ? 0.8 : 0.1));
    }
}

enum { N = 400, WIDTH = 21, MANY = 19 }; /* more classes than one block, a width that fills no vector */

static void threads_do_not_matter(void **state)
{
    (void)state;
    static float x[N * WIDTH];
    static int32_t y[N];
    xkd_context *cx = xkd_context_new();
    xkd_svm_model first = {0};
    make_clips(x, y, N, WIDTH, MANY);
    for (int threads = 1; threads <= 5; threads += 2) {
        xkd_pool *pool;
        xkd_svm_model model;
        xkd_svm_options options = xkd_svm_defaults();
        xkd_svm_data data = {.x = x, .label = y, .n = N, .D = WIDTH, .K = MANY};
        assert_int_equal(xkd_pool_new(cx, &pool, threads), XKD_OK);
        assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_OK);
        if (threads == 1)
            first = model;
        else {
            assert_memory_equal(model.w, first.w, MANY * (WIDTH + 1) * sizeof *model.w);
            xkd_svm_free(&model);
        }
        xkd_pool_free(pool);
    }
    xkd_svm_free(&first);
    xkd_context_free(cx);
}

#ifdef XKD_HAVE_LIBLINEAR
static void silent(const char *text)
{
    (void)text;
}

/* One class against the rest by liblinear, weights of D features and the bias. */
static void solve_liblinear(const float *x, const int32_t *y, int32_t positive, double C, double *w)
{
    struct feature_node *nodes = calloc(N * (WIDTH + 2), sizeof *nodes), *rows[N];
    double target[N];
    for (int i = 0; i < N; i++) {
        rows[i] = nodes + i * (WIDTH + 2);
        for (int k = 0; k < WIDTH; k++) rows[i][k] = (struct feature_node){k + 1, x[i * WIDTH + k]};
        rows[i][WIDTH] = (struct feature_node){WIDTH + 1, 1};
        rows[i][WIDTH + 1].index = -1;
        target[i] = y[i] == positive ? 1 : -1;
    }
    struct problem problem = {.l = N, .n = WIDTH + 1, .y = target, .x = rows, .bias = 1};
    struct parameter parameter = {.solver_type = L2R_L2LOSS_SVC_DUAL, .eps = 1e-8, .C = C};
    set_print_string_function(silent);
    struct model *model = train(&problem, &parameter);
    for (int k = 0; k <= WIDTH; k++) w[k] = model->w[k] * (model->label[0] == 1 ? 1 : -1);
    free_and_destroy_model(&model);
    free(nodes);
}
#endif

static void same_as_liblinear(void **state)
{
    (void)state;
#ifndef XKD_HAVE_LIBLINEAR
    skip();
#else
    static const double costs[] = {0.01, 1};
    static float x[N * WIDTH];
    static int32_t y[N];
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    make_clips(x, y, N, WIDTH, 4);
    assert_int_equal(xkd_pool_new(cx, &pool, 1), XKD_OK);
    for (int k = 0; k < 2; k++) {
        xkd_svm_model model;
        xkd_svm_options options = {.C = costs[k], .tolerance = 1e-8, .iterations = 100000};
        xkd_svm_data data = {.x = x, .label = y, .n = N, .D = WIDTH, .K = 4};
        assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_OK);
        for (int c = 0; c < 4; c++) {
            double want[WIDTH + 1];
            solve_liblinear(x, y, c, costs[k], want);
            for (int i = 0; i <= WIDTH; i++) assert_true(fabs(model.w[c * (WIDTH + 1) + i] - want[i]) < 1e-6);
        }
        xkd_svm_free(&model);
    }
    xkd_pool_free(pool);
    xkd_context_free(cx);
#endif
}

static void folds_keep_groups_together(void **state)
{
    (void)state;
    enum { GROUPS = 40, EACH = 5, FOLDS = 4 };
    xkd_context *cx = xkd_context_new();
    int32_t label[GROUPS * EACH], fold[GROUPS * EACH], count[2][FOLDS] = {{0}};
    int64_t group[GROUPS * EACH];
    for (int i = 0; i < GROUPS * EACH; i++) {
        group[i] = i / EACH + 100;
        label[i] = (int32_t)(i / EACH % 2);
    }
    assert_int_equal(xkd_svm_folds(cx, label, group, GROUPS * EACH, 2, FOLDS, 3, fold), XKD_OK);
    for (int i = 0; i < GROUPS * EACH; i++) {
        assert_int_equal(fold[i], fold[i / EACH * EACH]);
        count[label[i]][fold[i]]++;
    }
    for (int k = 0; k < 2 * FOLDS; k++) assert_int_equal(count[k / FOLDS][k % FOLDS], EACH * GROUPS / 2 / FOLDS);
    xkd_context_free(cx);
}

static void refusals(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    xkd_svm_model model;
    xkd_svm_options options = xkd_svm_defaults();
    float x[] = {0, 1, 2, NAN};
    int32_t y[] = {0, 1, 0, 1}, high[] = {0, 1, 2, 1}, one[] = {1, 1, 1, 1};
    assert_int_equal(xkd_pool_new(cx, &pool, 1), XKD_OK);
    xkd_svm_data data = {.x = x, .label = y, .n = 4, .D = 1, .K = 2};
    assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_ERR_NUMERIC);
    x[3] = 3;
    data.label = high;
    assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_ERR_DATA);
    data.label = one;
    assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_ERR_DATA);
    data.label = y;
    options.C = 0;
    assert_int_equal(xkd_svm_train(cx, pool, &data, &options, &model), XKD_ERR_CONFIG);
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

static void tables_and_intervals(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    const float scores[] = {3, 1, 0, 0, 2, 1, 5, 4, 0, 1, 1, 1};
    const int32_t label[] = {0, 1, 1, 2};
    int64_t counts[9] = {0}, rank[4];
    xkd_class_row rows[3];
    xkd_interval interval;
    double values[100], mean, deviation;
    xkd_ranks(scores, label, 4, 3, rank);
    assert_int_equal(rank[3], 2); /* two classes with the same score stand before it */
    assert_true(xkd_top_k(rank, 4, 1) == 50 && xkd_top_k(rank, 4, 2) == 75);
    xkd_confusion(scores, label, 4, 3, counts);
    xkd_class_table(counts, 3, rows);
    assert_true(rows[0].recall == 100 && rows[1].recall == 50 && rows[1].confused == 0 && rows[2].hits == 0);
    /* What is not a number loses: the diagonal is top-1 here too, also where a row has no number at all. */
    const float strange[] = {NAN, 1, 2, NAN, NAN, NAN, NAN, NAN, NAN};
    const int32_t strange_label[] = {2, 0, 1};
    int64_t strange_counts[9] = {0};
    xkd_ranks(strange, strange_label, 3, 3, rank);
    xkd_confusion(strange, strange_label, 3, 3, strange_counts);
    assert_true(rank[0] == 0 && rank[1] == 2 && rank[2] == 2);
    assert_true(strange_counts[8] == 1 && strange_counts[1] == 1 && strange_counts[3] == 1);
    for (int i = 0; i < 100; i++) values[i] = i % 4 ? 100 : 0;
    assert_int_equal(xkd_bootstrap(cx, values, 100, 2000, 0.95, 1, &interval), XKD_OK);
    /* sqrt(.75 * .25 / 100) = 4.33 points: the interval is about 75 +- 8.5. */
    assert_true(interval.mean == 75 && fabs(interval.low - 66.5) < 2.5 && fabs(interval.high - 83.5) < 2.5);
    xkd_mean_deviation((const double[]){1, 9, 2, 9, 3}, 3, 2, &mean, &deviation);
    assert_true(mean == 2 && fabs(deviation - 1) < 1e-12);
    xkd_context_free(cx);
}

/* With several labels each class is a problem of its own: the same weights as a two-class problem of its truth. Rows of
 * truth are found through truth_row, as the clips of a video share one. */
static void several_labels(void **state)
{
    enum { SAMPLES = 60, D = 5, K = 3 };
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    float x[SAMPLES * D];
    uint8_t truth[SAMPLES / 2 * K];
    int64_t row[SAMPLES];
    int32_t binary[SAMPLES];
    xkd_rng rng = xkd_rng_make(3, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < SAMPLES * D; i++) x[i] = (float)xkd_rng_normal(&rng);
    for (int i = 0; i < SAMPLES / 2 * K; i++) truth[i] = xkd_rng_uniform(&rng) < 0.4;
    for (int i = 0; i < SAMPLES; i++) row[i] = i / 2;
    assert_int_equal(xkd_pool_new(cx, &pool, 2), XKD_OK);
    xkd_svm_options o = xkd_svm_defaults();
    o.tolerance = 1e-10;
    o.iterations = 100000;
    const xkd_svm_data multi = {.x = x, .truth = truth, .truth_row = row, .n = SAMPLES, .D = D, .K = K};
    xkd_svm_model a, b;
    assert_int_equal(xkd_svm_train(cx, pool, &multi, &o, &a), XKD_OK);
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < SAMPLES; i++) binary[i] = truth[row[i] * K + k];
        const xkd_svm_data one = {.x = x, .label = binary, .n = SAMPLES, .D = D, .K = 2};
        assert_int_equal(xkd_svm_train(cx, pool, &one, &o, &b), XKD_OK);
        for (int d = 0; d <= D; d++) assert_true(fabs(a.w[k * (D + 1) + d] - b.w[D + 1 + d]) < 1e-6);
        xkd_svm_free(&b);
    }
    xkd_svm_free(&a);
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

/* The interval holds the mean, does not depend on threads, and collapses where every draw gives the same. */
static void interval_of_precision(void **state)
{
    enum { SAMPLES = 80, K = 4 };
    (void)state;
    xkd_context *cx = xkd_context_new();
    float scores[SAMPLES * K];
    uint8_t truth[SAMPLES * K];
    xkd_interval interval[2], perfect;
    xkd_rng rng = xkd_rng_make(5, 0, 0, 0, XKD_RNG_TEST);
    for (int i = 0; i < SAMPLES * K; i++) {
        truth[i] = i % K < 3 && xkd_rng_uniform(&rng) < 0.3; /* the last class has no sample */
        scores[i] = (float)(truth[i] + xkd_rng_normal(&rng));
    }
    const xkd_multi_scores s = {scores, truth, SAMPLES, K};
    for (int t = 0; t < 2; t++) {
        xkd_pool *pool;
        assert_int_equal(xkd_pool_new(cx, &pool, 1 + 2 * t), XKD_OK);
        assert_int_equal(xkd_bootstrap_precision(cx, pool, &s, 200, 0.95, 1, &interval[t]), XKD_OK);
        xkd_pool_free(pool);
    }
    assert_memory_equal(&interval[0], &interval[1], sizeof *interval);
    assert_true(interval[0].low < interval[0].mean && interval[0].mean < interval[0].high);
    assert_true(interval[0].high - interval[0].low > 2 && interval[0].high <= 75);
    for (int i = 0; i < SAMPLES * K; i++) scores[i] = truth[i];
    xkd_pool *pool;
    assert_int_equal(xkd_pool_new(cx, &pool, 1), XKD_OK);
    assert_int_equal(xkd_bootstrap_precision(cx, pool, &s, 50, 0.95, 1, &perfect), XKD_OK);
    assert_true(perfect.mean == 75 && perfect.low == 75 && perfect.high == 75);
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

/* Two tight groups and one stray row of another label: the stray is wrong, all others are right. */
static void leave_one_out(void **state)
{
    enum { SAMPLES = 7, D = 2, K = 2, NEAREST = 2 };
    static const float x[SAMPLES * D] = {1, 0, 1, 0.1f, 1, -0.1f, 0, 1, 0.1f, 1, -0.1f, 1, 0.9f, 0.05f};
    static const int32_t label[SAMPLES] = {0, 0, 0, 1, 1, 1, 1};
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    int64_t near[SAMPLES * (NEAREST + 1)];
    float scores[SAMPLES * K];
    double top1;
    assert_int_equal(xkd_pool_new(cx, &pool, 2), XKD_OK);
    const xkd_knn_rows rows = {x, label, SAMPLES, D, K};
    assert_int_equal(xkd_knn_leave_one_out(cx, pool, &rows, NEAREST, 1e6, near, scores, &top1), XKD_OK);
    /* Equal votes of one neighbour each way go to the lower class, so the stray's neighbours stay right. */
    assert_true(fabs(top1 - 100.0 * 6 / 7) < 1e-9);
    static const int64_t lists[] = {0, 1, 0, 2, 2, 1};
    assert_true(fabs(xkd_own_recall(lists, 3, 2, 1) - 200.0 / 3) < 1e-9);
    assert_true(fabs(xkd_own_recall(lists, 3, 2, 5) - 200.0 / 3) < 1e-9);
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

/* Rows that are no numbers are the last neighbours, wherever they stand, and have no vote; k is tried before anything
 * is made in its size. */
static void strange_neighbours(void **state)
{
    enum { SAMPLES = 4, D = 2, K = 2 };
    static float x[SAMPLES * D] = {NAN, 1, NAN, NAN, 1, 0.5f, 1, 0};
    static int32_t label[SAMPLES] = {0, 1, 1, 1}, video_label[1] = {1};
    static int64_t video[SAMPLES] = {0, 1, 2, 3};
    static float query[D] = {1, 0};
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    int64_t near[SAMPLES];
    float scores[K];
    assert_int_equal(xkd_pool_new(cx, &pool, 1), XKD_OK);
    assert_int_equal(xkd_nearest(cx, pool, query, 1, x, SAMPLES, D, 2, near), XKD_OK);
    assert_true(near[0] == 3 && near[1] == 2);
    assert_int_equal(xkd_nearest(cx, pool, query, 1, x, SAMPLES, D, SAMPLES, near), XKD_OK);
    assert_true(near[0] == 3 && near[1] == 2 && near[2] == 0 && near[3] == 1);
    const xkd_clip_set train = {
        .x = x, .label = label, .video = video, .video_label = label, .n = SAMPLES, .videos = SAMPLES, .D = D, .K = K};
    const xkd_clip_set test = {.x = query,
                               .label = video_label,
                               .video = video,
                               .video_label = video_label,
                               .n = 1,
                               .videos = 1,
                               .D = D,
                               .K = K};
    assert_int_equal(xkd_knn(cx, pool, &train, &test, SAMPLES, 0.07, scores), XKD_OK);
    assert_true(scores[0] == 0 && scores[1] > 1);
    const int64_t bad[] = {0, -1, SAMPLES + 1, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(xkd_knn(cx, pool, &train, &test, bad[i], 0.07, scores), XKD_ERR_CONFIG);
        assert_non_null(strstr(xkd_last_error(cx), "neighbours: 1 to 4"));
        xkd_clear_error(cx);
    }
    xkd_pool_free(pool);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(recorded_case),
                                       cmocka_unit_test(mean_average_precision),
                                       cmocka_unit_test(threads_do_not_matter),
                                       cmocka_unit_test(same_as_liblinear),
                                       cmocka_unit_test(folds_keep_groups_together),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(tables_and_intervals),
                                       cmocka_unit_test(several_labels),
                                       cmocka_unit_test(interval_of_precision),
                                       cmocka_unit_test(leave_one_out),
                                       cmocka_unit_test(strange_neighbours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
