/* Memory that runs out in supervised training and where a classifier is read: the status says so, nothing is passed off as
 * a result, and nothing leaks (the sanitizer build sees to that). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/context.h"
#include "base/file.h"
#include "supervised/classifier.h"
#include "data/synth.h"
#include "media/worker.h"
#include "supervised/train.h"

static char folder[4096], data[5000];
static const char MODEL[] = "tests/golden/backbone/vid_teacher.safetensors";

static const char *const settings[] = {"dataset={batch_size: 2, train: {split: train}, test: {split: test, clips_per_video: 1}}",
                                       "num_node=1",
                                       "hyperparams.num_epochs=1",
                                       "eval.vid_transform=randaug3crop",
                                       "eval.batch_norm=true",
                                       "run.backend=ref",
                                       "run.threads=1",
                                       "progress.log2tb=false",
                                       "data.workers=1"};

static xkd_status configure(xkd_context *cx, xkd_config *c)
{
    char text[6000];
    xkd_status status = xkd_config_init(cx, c);
    if (status == XKD_OK) status = xkd_config_load(cx, c, "tests/data/backbone.yaml", true);
    for (size_t i = 0; status == XKD_OK && i < sizeof settings / sizeof *settings; i++)
        status = xkd_config_override(cx, c, settings[i]);
    snprintf(text, sizeof text, "run.out=%s/run", folder);
    if (status == XKD_OK) status = xkd_config_override(cx, c, text);
    if (status == XKD_OK) status = xkd_config_finish(cx, c);
    return status;
}

/* Allocation `fail_at` from the start of the training fails. */
static xkd_status train(xkd_context *cx, int64_t fail_at, bool *reached)
{
    xkd_config c = {0};
    xkd_supervised_result result;
    assert_int_equal(configure(cx, &c), XKD_OK);
    const xkd_supervised_options o = {.config = &c, .model = MODEL, .train = data, .run = {.mode = XKD_RUN_FORCE}};
    xkd_account *account = xkd_context_account(cx);
    account->count = 0;
    account->fail_at = fail_at;
    xkd_status status = xkd_supervised_train(cx, &o, &result);
    *reached = account->count > fail_at;
    account->fail_at = -1;
    if (status != XKD_OK) assert_false(result.finished && result.run.step == 0);
    xkd_supervised_result_free(&result);
    xkd_config_free(&c);
    return status;
}

static xkd_status read_classifier(xkd_context *cx, int64_t fail_at, bool *reached)
{
    char path[5000];
    xkd_classifier classifier;
    char *const overrides[] = {(char[]){"run.threads=1"}};
    snprintf(path, sizeof path, "%s/run", folder);
    xkd_account *account = xkd_context_account(cx);
    account->count = 0;
    account->fail_at = fail_at;
    xkd_status status = xkd_classifier_load(cx, path, overrides, 1, &classifier);
    *reached = account->count > fail_at;
    account->fail_at = -1;
    xkd_classifier_free(&classifier);
    return status;
}

/* A prime step meets other places than every allocation of one kind. */
static void exhaust(xkd_status (*run)(xkd_context *, int64_t, bool *), int64_t step)
{
    int64_t n = 0;
    for (bool reached = true; reached; n += step) {
        xkd_context *cx = xkd_context_new();
        assert_non_null(cx);
        xkd_status status = run(cx, n, &reached);
        if (status != (reached ? XKD_ERR_MEMORY : XKD_OK))
            fail_msg("allocation %lld: status %d: %s", (long long)n, status, xkd_last_error(cx));
        xkd_context_free(cx);
    }
    assert_true(n > 100);
}

static void training(void **state)
{
    (void)state;
    exhaust(train, 17);
}

static void reading(void **state)
{
    (void)state;
    exhaust(read_classifier, 3);
}

static int setup(void **state)
{
    (void)state;
    const char *build = getenv("XKD_BUILD");
    xkd_context *cx = xkd_context_new();
    xkd_synth_options o = xkd_synth_defaults();
    snprintf(folder, sizeof folder, "%s/test-supervised-memory-%d", build ? build : "build", (int)getpid());
    snprintf(data, sizeof data, "%s/toys", folder);
    o.out = data;
    o.classes = o.clips = 2;
    o.seconds = 1;
    o.width = o.height = 48;
    o.test_share = 0.5;
    o.threads = 1;
    int bad = xkd_make_folder(cx, folder) != XKD_OK || xkd_synth(cx, &o, NULL, NULL) != XKD_OK;
    if (bad) print_error("%s\n", xkd_last_error(cx));
    xkd_context_free(cx);
    return bad;
}

static int teardown(void **state)
{
    (void)state;
    char command[5000];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(training), cmocka_unit_test(reading)};
    return cmocka_run_group_tests_name("supervised_memory", tests, setup, teardown);
}
