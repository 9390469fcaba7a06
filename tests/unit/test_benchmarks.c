/* The table of evaluations: every setting of every row is one that the configuration takes, and says what the released
 * files say; results of folds read back as they were written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/import.h"
#include "eval/judge/benchmarks.h"
#include "eval/judge/fold_result.h"

static void must(xkd_context *cx, xkd_status status, const char *what)
{
    if (status != XKD_OK) fail_msg("%s: %s", what, xkd_last_error(cx));
}

static void configure(xkd_context *cx, const char *name, int64_t fold, xkd_config *c)
{
    const xkd_benchmark *b;
    const char *settings[XKD_BENCHMARK_SETTINGS];
    char text[32];
    must(cx, xkd_benchmark_find(cx, name, &b), name);
    xkd_benchmark_settings(b, settings);
    snprintf(text, sizeof text, "dataset.fold=%d", (int)fold);
    must(cx, xkd_config_init(cx, c), "init");
    for (int i = 0; settings[i]; i++) must(cx, xkd_config_override(cx, c, settings[i]), settings[i]);
    must(cx, xkd_config_override(cx, c, text), text);
    must(cx, xkd_config_finish(cx, c), name);
}

/* Rows are complete: known data sets, settings that are accepted and fit, names that differ. */
static void every_row(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    for (int64_t i = 0; i < xkd_benchmark_count(); i++) {
        const xkd_benchmark *b = xkd_benchmark_at(i);
        int known = 0, settings = 1;
        for (int64_t k = 0; k < xkd_import_count(); k++) known += strcmp(xkd_import_name(k), b->set) == 0;
        if (known != 1) fail_msg("%s: no data set %s", b->name, b->set);
        for (const char *const *s = b->shared; *s; s++) settings++;
        for (const char *const *s = b->own; *s; s++) settings++;
        if (settings >= XKD_BENCHMARK_SETTINGS) fail_msg("%s: %d settings", b->name, settings);
        for (int64_t k = 0; k < i; k++) assert_string_not_equal(b->name, xkd_benchmark_at(k)->name);
        xkd_config c;
        configure(cx, b->name, b->folds ? b->folds : 1, &c);
        bool svm = b->task == XKD_BENCHMARK_SVM;
        /* What is augmented is what is used. */
        assert_int_equal(b->uses[XKD_VIDEO], c.eval.vid_transform != XKD_TRANSFORM_PRETRAIN &&
                                                 (c.eval.return_video || !b->uses[XKD_AUDIO]) &&
                                                 strcmp(b->name, "kinetics-sound-audio-svm") != 0);
        assert_true(svm ? c.eval.cost.count >= 4 : c.train.lr.base > 0 && c.train.epochs >= 30);
        assert_null(strchr(c.data.split, '{'));
        assert_null(strchr(c.eval.test_split, '{'));
        assert_true(b->paper[0] > 40 && b->paper[0] < 100);
        xkd_config_free(&c);
    }
    xkd_context_free(cx);
}

static void some_values(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    const xkd_benchmark *b;
    xkd_config c;
    configure(cx, "ucf101-svm", 2, &c);
    assert_string_equal(c.data.split, "trainlist02");
    assert_string_equal(c.eval.test_split, "testlist02");
    assert_int_equal(c.eval.train_clips, 25);
    xkd_config_free(&c);
    configure(cx, "esc50-svm", 5, &c);
    assert_string_equal(c.eval.test_split, "test-5");
    assert_int_equal(c.eval.train_clips, 100);
    xkd_config_free(&c);
    configure(cx, "hmdb51-finetune", 1, &c);
    assert_true(c.eval.mixup == 1 && c.eval.layer_decay == 0.75 && c.train.lr.base == 1e-4);
    assert_int_equal(c.data.crop_size, 224);
    xkd_config_free(&c);
    configure(cx, "kinetics400-linear", 1, &c);
    assert_int_equal(c.eval.mode, XKD_EVAL_LINEAR);
    assert_string_equal(c.eval.test_split, "val");
    xkd_config_free(&c);
    assert_int_equal(xkd_benchmark_find(cx, "esc50-smv", &b), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "did you mean 'esc50-svm'?"));
    xkd_context_free(cx);
}

/* Whole is what is known to be: without an official number, by lists that name every file. */
static void wholeness(void **state)
{
    (void)state;
    const xkd_import_counts official = {.listed = 100, .files = 100, .official_files = 100};
    const xkd_import_counts lists = {.listed = 100, .files = 100}, absent = {.listed = 100, .files = 99, .missing = 1};
    const xkd_import_counts folders = {.files = 100}, mixed = {.listed = 40, .files = 99, .missing = 1};
    assert_true(xkd_import_is_whole(&official) && xkd_import_is_whole(&lists));
    assert_false(xkd_import_is_whole(&absent) || xkd_import_is_whole(&folders) || xkd_import_is_whole(&mixed));
    assert_false(xkd_import_is_unlisted(&lists) || xkd_import_is_unlisted(&absent));
    assert_true(xkd_import_is_unlisted(&folders) && xkd_import_is_unlisted(&mixed));
}

static void results_read_back(void **state)
{
    (void)state;
    _Static_assert(XKD_FOLD_FORMAT == 5, "the texts below are of this format");
    static const char *const bad[] = {"", "[]", "{}", "{\"xkd_fold_result\": 5}",
                                      "{\"xkd_fold_result\": 5, \"fold\": 1}"};
    static const char earlier[] = "{\"xkd_fold_result\": 4}";
    xkd_context *cx = xkd_context_new();
    char path[] = "/tmp/xkd-fold-XXXXXX";
    close(mkstemp(path));
    const xkd_fold_result r = {.fold = 3,
                               .settings = 0xfedcba9876543210u,
                               .honest = {80.125, 90, 70, NAN, 0.01},
                               .best = {81, 91, 71, NAN, 1},
                               .interval = {79, NAN},
                               .files = {9537, 3783},
                               .unreadable = {1, 2},
                               .damaged = {3, 4},
                               .imported = {13320, 5, 13315, 13320, 3783, 0, 101, 101},
                               .seconds = 1.5};
    xkd_fold_result back;
    must(cx, xkd_fold_result_write(cx, path, &r), "write");
    must(cx, xkd_fold_result_read(cx, path, &back), "read");
    assert_true(back.settings == r.settings && back.fold == 3 && back.honest.top1 == 80.125 && isnan(back.best.map));
    assert_true(isnan(back.interval[1]) && back.unreadable[1] == 2 && back.seconds == 1.5);
    assert_true(back.damaged[0] == 3 && back.damaged[1] == 4);
    assert_memory_equal(&back.imported, &r.imported, sizeof r.imported);
    assert_false(xkd_import_is_whole(&back.imported));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        must(cx, xkd_write_file(cx, path, bad[i], (int64_t)strlen(bad[i])), "write");
        assert_int_equal(xkd_fold_result_read(cx, path, &back), XKD_ERR_DATA);
        xkd_clear_error(cx);
    }
    must(cx, xkd_write_file(cx, path, earlier, (int64_t)strlen(earlier)), "write");
    assert_int_equal(xkd_fold_result_read(cx, path, &back), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "another version"));
    xkd_clear_error(cx);
    xkd_fold_result two[2] = {r, r};
    two[1].honest.top1 = 82.125;
    xkd_fold_mean m = xkd_fold_results_mean(two, 2, false);
    assert_true(m.mean.top1 == 81.125 && fabs(m.deviation.top1 - sqrt(2)) < 1e-12 && isnan(m.mean.map));
    assert_true(isnan(m.mean.at) && isnan(m.deviation.at));
    /* Of 40 folds every one counts. */
    xkd_fold_result many[40];
    for (int i = 0; i < 40; i++) {
        many[i] = r;
        many[i].best.top1 = i;
    }
    m = xkd_fold_results_mean(many, 40, true);
    assert_true(m.mean.top1 == 19.5 && m.mean.top5 == 91 && m.deviation.top5 == 0);
    unlink(path);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row), cmocka_unit_test(some_values),
                                       cmocka_unit_test(wholeness), cmocka_unit_test(results_read_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
