/* The training loop on a small model and made-up data: resume is exact, folders are protected, bad steps are counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "fake_loader.h"
#include "loop_config.h"
#include "train/loop.h"
#include "train/watch.h"

static char folder[] = "/tmp/xkd-test-loop-XXXXXX";

static int setup(void **state)
{
    *state = xkd_context_new();
    return *state == NULL || !mkdtemp(folder);
}

static int teardown(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    xkd_context_free(*state);
    return system(command);
}

static int clear(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    memset(&fake, 0, sizeof fake);
    xkd_clear_error(*state);
    return system(command);
}

static void must(xkd_context *cx, xkd_status status, const char *what)
{
    if (status != XKD_OK) fail_msg("%s: %s", what, xkd_last_error(cx));
}

static void configure(xkd_context *cx, xkd_config *c, const char *name)
{
    char out[200];
    snprintf(out, sizeof out, "%s/%s", folder, name);
    must(cx, loop_configure(cx, c, out), "configure");
}

static int64_t stop_after; /* steps until the fake signal comes */
static int stop_number;

static int stop_signal(void *user)
{
    (void)user;
    return --stop_after == 0 ? stop_number : 0;
}

static xkd_status train(xkd_context *cx, const char *name, xkd_run_mode mode, const char *override,
                        xkd_run_result *result)
{
    const xkd_run_options options = {.mode = mode, .stop_signal = stop_signal};
    xkd_config c;
    configure(cx, &c, name);
    if (override) must(cx, xkd_config_override(cx, &c, override), override);
    xkd_status status = xkd_train(cx, &c, &options, NULL, result, NULL);
    xkd_config_free(&c);
    return status;
}

/* Not inlined: the compiler would take what is found in the text for a pointer to the local variable that held it. */
static __attribute__((noinline)) char *read_text(xkd_context *cx, const char *run, const char *name)
{
    char path[300], *text;
    int64_t size;
    snprintf(path, sizeof path, "%s/%s/%s", folder, run, name);
    must(cx, xkd_read_file(cx, path, 1 << 24, XKD_ERR_DATA, &text, &size), path);
    return text;
}

static int count_lines(xkd_context *cx, const char *run, const char *name)
{
    char *text = read_text(cx, run, name);
    int lines = 0;
    for (char *p = text; *p; p++) lines += *p == '\n';
    xkd_free(text);
    return lines;
}

static void assert_same_weights(xkd_context *cx, const char *a, const char *b, const char *name)
{
    char path[2][300];
    xkd_safetensors *file[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s/%s", folder, i ? b : a, name);
        must(cx, xkd_safetensors_open(cx, path[i], &file[i]), path[i]);
    }
    int64_t count = xkd_safetensors_count(file[0]);
    assert_int_equal(count, xkd_safetensors_count(file[1]));
    for (int64_t i = 0; i < count; i++) {
        const xkd_stored_tensor *x = xkd_safetensors_at(file[0], i), *y = xkd_safetensors_find(file[1], x->name);
        assert_non_null(y);
        if (memcmp(x->data, y->data, (size_t)x->bytes) != 0) fail_msg("%s differs", x->name);
    }
    for (int i = 0; i < 2; i++) xkd_safetensors_close(file[i]);
}

static void test_resume_ends_with_the_same_bits(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    static const char last[] = "checkpoints/step-00000009.safetensors";
    must(cx, train(cx, "whole", XKD_RUN_NEW, NULL, &result), "whole");
    assert_int_equal(result.step, 9);
    assert_int_equal(result.total_steps, 9);
    assert_int_equal(count_lines(cx, "whole", "metrics.jsonl"), 9);
    assert_int_equal(count_lines(cx, "whole", "metrics.csv"), 10);
    assert_int_equal(count_lines(cx, "whole", "epochs.jsonl"), 3);
    for (int stop = 1; stop <= 8; stop++) {
        char name[20];
        snprintf(name, sizeof name, "stopped%d", stop);
        stop_after = stop;
        stop_number = stop % 2 ? SIGINT : SIGTERM;
        assert_int_equal(train(cx, name, XKD_RUN_NEW, NULL, &result),
                         stop % 2 ? XKD_ERR_INTERRUPTED : XKD_ERR_PREEMPTED);
        assert_int_equal(result.step, stop);
        xkd_clear_error(cx);
        must(cx, train(cx, name, XKD_RUN_RESUME, NULL, &result), "resume");
        assert_int_equal(result.step, 9);
        assert_same_weights(cx, "whole", name, last);
        assert_int_equal(count_lines(cx, name, "metrics.jsonl"), 9);
        assert_int_equal(count_lines(cx, name, "epochs.jsonl"), 3);
    }
}

static void test_what_a_run_leaves(void **state)
{
    static const char *const files[] = {"config.yaml",
                                        "metrics.jsonl",
                                        "train.log",
                                        "report.html",
                                        "curves/loss.svg",
                                        "pictures/video-00000002.png",
                                        "pictures/audio-00000002.png",
                                        "backbones/vid_teacher.safetensors",
                                        "backbones/aud_student.safetensors",
                                        "checkpoints/step-00000002.safetensors"};
    xkd_context *cx = *state;
    xkd_run_result result;
    xkd_config c, again;
    const xkd_run_options options = {.mode = XKD_RUN_NEW};
    configure(cx, &c, "run");
    c.run.max_steps = 2;
    c.run.picture_steps = 100; /* and one at the end */
    must(cx, xkd_train(cx, &c, &options, NULL, &result, NULL), "train");
    assert_int_equal(result.step, 2);
    assert_true(result.parameters > 1000 && isfinite(result.loss));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) xkd_free(read_text(cx, "run", files[i]));
    char path[300];
    snprintf(path, sizeof path, "%s/run/config.yaml", folder);
    must(cx, xkd_config_init(cx, &again), "init");
    must(cx, xkd_config_load(cx, &again, path, true), "resolved configuration");
    assert_int_equal(again.model.head.outputs, 16);
    xkd_config_free(&again);
    /* The same folder again: refused, unless asked for. */
    assert_int_equal(xkd_train(cx, &c, &options, NULL, &result, NULL), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "--resume goes on with it, --force starts anew"));
    assert_int_equal(count_lines(cx, "run", "metrics.jsonl"), 2);
    xkd_clear_error(cx);
    c.run.max_steps = 1;
    c.run.picture_steps = 0;
    const xkd_run_options force = {.mode = XKD_RUN_FORCE};
    must(cx, xkd_train(cx, &c, &force, NULL, &result, NULL), "force");
    assert_int_equal(result.step, 1);
    snprintf(path, sizeof path, "%s/run/pictures/video-00000002.png", folder);
    assert_false(xkd_path_exists(path));
    xkd_config_free(&c);
}

static void test_resume_refusals(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    assert_int_equal(train(cx, "none", XKD_RUN_RESUME, NULL, &result), XKD_ERR_CONFIG);
    must(cx, train(cx, "run", XKD_RUN_NEW, "run.max_steps=1", &result), "train");
    assert_int_equal(train(cx, "run", XKD_RUN_RESUME, "train.seed=5", &result), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    assert_int_equal(train(cx, "run", XKD_RUN_RESUME, "model.kwargs.projector_cfg.out_dim=32", &result),
                     XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "of another architecture"));
    xkd_clear_error(cx);
    must(cx, train(cx, "run", XKD_RUN_RESUME, NULL, &result), "resume");
    assert_int_equal(result.step, 9);
}

static void test_bad_numbers(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    fake.poison = 3;
    must(cx, train(cx, "one", XKD_RUN_NEW, NULL, &result), "one bad step");
    assert_int_equal(result.bad_steps, 1);
    assert_true(isfinite(result.loss));
    fake.poison = 3;
    assert_int_equal(train(cx, "stop", XKD_RUN_NEW, "run.max_bad_steps=0", &result), XKD_ERR_NUMERIC);
    assert_int_equal(result.step, 2);
    xkd_free(read_text(cx, "stop", "checkpoints/step-00000002.safetensors"));
    xkd_clear_error(cx);
    /* The advice works: what was skipped before does not end a run that goes well now. */
    fake.poison = 0;
    must(cx, train(cx, "stop", XKD_RUN_RESUME, "run.max_bad_steps=0", &result), "resume after bad steps");
    assert_int_equal(result.step, 9);
    assert_int_equal(result.bad_steps, 1);
}

/* Steps 2 and 5 are skipped: one of any two, both of any four. */
static void test_bad_steps_count_in_a_window(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    xkd_config c;
    const xkd_run_options options = {.mode = XKD_RUN_NEW};
    for (int window = 2; window <= 4; window += 2) {
        fake.poison = 3;
        fake.poison_too = 10;
        configure(cx, &c, window == 2 ? "two" : "four");
        c.run.max_bad_steps = 1;
        c.run.bad_step_window = window;
        xkd_status status = xkd_train(cx, &c, &options, NULL, &result, NULL);
        xkd_config_free(&c);
        assert_int_equal(status, window == 2 ? XKD_OK : XKD_ERR_NUMERIC);
        assert_int_equal(result.step, window == 2 ? 9 : 5);
    }
    assert_non_null(strstr(xkd_last_error(cx), "2 steps were not finite, more than run.max_bad_steps allows among 4"));
}

/* Number behind "key": in line `line` of a file of JSON lines. */
static double number_in(xkd_context *cx, const char *run, const char *name, int line, const char *key)
{
    char *text = read_text(cx, run, name), word[40];
    const char *at = text;
    snprintf(word, sizeof word, "\"%s\": ", key);
    for (; line > 0; line--) at = strchr(at, '\n') + 1;
    at = strstr(at, word);
    double value = at ? strtod(at + strlen(word), NULL) : NAN;
    xkd_free(text);
    return value;
}

/* Also where the epoch was resumed in its middle. */
static void test_mean_of_an_epoch_with_a_bad_step(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    fake.poison = 3; /* step 2 */
    must(cx, train(cx, "one", XKD_RUN_NEW, "run.max_steps=2", &result), "begin");
    fake.poison = 0;
    must(cx, train(cx, "one", XKD_RUN_RESUME, "run.max_steps=3", &result), "end of the epoch");
    double mean =
        (number_in(cx, "one", "metrics.jsonl", 0, "loss") + number_in(cx, "one", "metrics.jsonl", 2, "loss")) / 2;
    assert_true(fabs(number_in(cx, "one", "epochs.jsonl", 0, "Loss") - mean) < 1e-12 * mean);
}

/* What a run on the guard, whose results come a step late, must have in common with one on the CPU, which computes the same. */
static void same_rows(xkd_context *cx, const char *late, int rows)
{
    static const char *const keys[] = {"step", "epoch", "loss", "lr", "grad_norm", "skipped", "video_centre_norm"};
    assert_int_equal(count_lines(cx, late, "metrics.jsonl"), rows);
    for (int row = 0; row < rows; row++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            double a = number_in(cx, late, "metrics.jsonl", row, keys[k]);
            double b = number_in(cx, "cpu", "metrics.jsonl", row, keys[k]);
            if (a != b) fail_msg("row %d: %s is %.17g late, %.17g at once", row, keys[k], a, b);
        }
}

/* Step 5, in the middle of an epoch, is not finite. Every step is counted once and as itself, wherever the run is stopped. */
static void test_late_results_are_those_of_their_steps(void **state)
{
    static const char last[] = "checkpoints/step-00000009.safetensors", LATE[] = "run.device=guard";
    xkd_context *cx = *state;
    xkd_run_result result;
    fake.poison = 9;
    must(cx, train(cx, "cpu", XKD_RUN_NEW, "run.device=cpu", &result), "at once");
    must(cx, train(cx, "late", XKD_RUN_NEW, LATE, &result), "late");
    assert_int_equal(result.bad_steps, 1);
    same_rows(cx, "late", 9);
    assert_true(number_in(cx, "late", "metrics.jsonl", 3, "skipped") == 0);
    assert_true(number_in(cx, "late", "metrics.jsonl", 4, "skipped") == 1);
    assert_true(number_in(cx, "late", "epochs.jsonl", 1, "Loss") == number_in(cx, "cpu", "epochs.jsonl", 1, "Loss"));
    assert_same_weights(cx, "cpu", "late", last);
    for (int stop = 4; stop <= 6; stop++) {
        char name[20];
        snprintf(name, sizeof name, "late%d", stop);
        stop_after = stop;
        stop_number = SIGTERM;
        fake.poison = 9;
        assert_int_equal(train(cx, name, XKD_RUN_NEW, LATE, &result), XKD_ERR_PREEMPTED);
        assert_int_equal(result.step, stop);
        assert_int_equal(result.bad_steps, stop > 4);
        same_rows(cx, name, stop);
        fake.poison = stop > 4 ? 0 : 1; /* counted from where the resumed run begins */
        must(cx, train(cx, name, XKD_RUN_RESUME, LATE, &result), "resume");
        same_rows(cx, name, 9);
        assert_same_weights(cx, "cpu", name, last);
    }
}

/* Whatever ends a run, the step before it has been taken in; too many bad steps may be noticed a step late. */
static void test_late_results_are_collected_before_the_end(void **state)
{
    static const char LATE[] = "run.device=guard";
    xkd_context *cx = *state;
    xkd_run_result result;
    xkd_config c;
    const xkd_run_options options = {.mode = XKD_RUN_NEW};
    fake.fail_after = 9; /* in step 5 */
    assert_int_equal(train(cx, "cpu", XKD_RUN_NEW, "run.device=cpu", &result), XKD_ERR_DATA);
    xkd_clear_error(cx);
    assert_int_equal(train(cx, "late", XKD_RUN_NEW, LATE, &result), XKD_ERR_DATA);
    assert_int_equal(result.step, 4);
    same_rows(cx, "late", 4);
    assert_same_weights(cx, "cpu", "late", "checkpoints/step-00000004.safetensors");
    xkd_clear_error(cx);
    memset(&fake, 0, sizeof fake);
    fake.poison = 7; /* step 4 */
    configure(cx, &c, "bad");
    must(cx, xkd_config_override(cx, &c, LATE), LATE);
    c.run.max_bad_steps = 0;
    xkd_status status = xkd_train(cx, &c, &options, NULL, &result, NULL);
    xkd_config_free(&c);
    assert_int_equal(status, XKD_ERR_NUMERIC);
    assert_int_equal(result.step, 5);
    assert_int_equal(result.bad_steps, 1);
    assert_int_equal(count_lines(cx, "bad", "metrics.jsonl"), 5);
    assert_true(number_in(cx, "bad", "metrics.jsonl", 3, "skipped") == 1);
    xkd_free(read_text(cx, "bad", "checkpoints/step-00000005.safetensors"));
}

static char said[8192];

static void listen(void *user, xkd_log_level level, const char *line)
{
    (void)user;
    if (level == XKD_LOG_WARN) snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

/* Numbers of threads say nothing about what is learnt, the backend does; a key that an earlier version did not have is no
 * change, and does not make the lines behind it look changed. */
static void test_what_a_resume_warns_of(void **state)
{
    xkd_context *cx = *state;
    static const char before[] =
        "name: \"a\"\nhyperparams:\n  lr:\n    base_lr: 0.1\n    warmup: 3\nrun:\n  out: \"x\"\n"
        "  overfit: false\n  device: \"cpu\"\n  threads: auto\n";
    static const char now[] = "name: \"a\"\nfresh: 5\nhyperparams:\n  lr:\n    base_lr: 0.2\n    warmup: 3\nrun:\n"
                              "  out: \"y\"\n  more: 1\n  overfit: true\n  device: \"ref\"\n  threads: 3\n";
    xkd_context_set_log(cx, listen, NULL, XKD_LOG_WARN);
    said[0] = 0;
    xkd_run_compare_configs(cx, before, now);
    xkd_context_set_log(cx, NULL, NULL, XKD_LOG_WARN);
    assert_string_equal(said, "resume: the configuration changed from 'base_lr: 0.1' to 'base_lr: 0.2'\n"
                              "resume: the configuration changed from 'overfit: false' to 'overfit: true'\n"
                              "resume: the configuration changed from 'device: \"cpu\"' to 'device: \"ref\"'\n");
}

static void test_data_that_run_out(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result result;
    fake.fail_after = 5; /* in the middle of the third step */
    assert_int_equal(train(cx, "run", XKD_RUN_NEW, NULL, &result), XKD_ERR_DATA);
    xkd_free(read_text(cx, "run", "checkpoints/step-00000002.safetensors"));
    fake.fail_after = 0;
    xkd_clear_error(cx);
    must(cx, train(cx, "run", XKD_RUN_RESUME, NULL, &result), "resume");
    must(cx, train(cx, "whole", XKD_RUN_NEW, NULL, &result), "whole");
    assert_same_weights(cx, "whole", "run", "checkpoints/step-00000009.safetensors");
}

static void test_overfit(void **state)
{
    xkd_context *cx = *state;
    xkd_run_result first, last;
    must(cx, train(cx, "a", XKD_RUN_NEW, "run.max_steps=1", &first), "first");
    xkd_config c;
    configure(cx, &c, "b");
    c.run.overfit = true;
    c.train.epochs = 20;
    const xkd_run_options options = {.mode = XKD_RUN_NEW};
    must(cx, xkd_train(cx, &c, &options, NULL, &last, NULL), "overfit");
    xkd_config_free(&c);
    assert_true(last.loss < first.loss);
}

static void test_plan(void **state)
{
    xkd_context *cx = *state;
    xkd_train_plan plan;
    xkd_config c;
    configure(cx, &c, "plan");
    must(cx, xkd_plan_training(cx, &c, &plan), "plan");
    assert_int_equal(plan.samples, FAKE_SAMPLES);
    assert_int_equal(plan.total_steps, 9);
    assert_int_equal(plan.micro_batch, 2);
    assert_int_equal(plan.video_tokens, 8);
    assert_int_equal(plan.video_kept, 4);
    assert_true(plan.parameters > plan.trained && plan.trained > 0);
    assert_true(plan.activation_bytes > 0 && plan.seconds_per_sample > 0 && plan.seconds_per_step > 0);
    assert_true(plan.ring_bytes == 1000 && plan.worker_bytes > 0 && plan.cache_bytes == 0 && plan.scratch_bytes >= 0);
    assert_true(plan.available_bytes > 0 && plan.exchange_bytes == 0);
    xkd_train_plan grouped, of_ranks;
    c.train.ranks = c.train.parts = 2;
    c.train.wire_bfloat16 = true;
    must(cx, xkd_plan_training(cx, &c, &of_ranks), "plan of two ranks");
    assert_true(of_ranks.exchange_bytes == (double)xkd_dist_host_buckets(2, true));
    c.train.ranks = c.train.accumulate = c.train.parts = 1;
    c.train.batch = 64;
    must(cx, xkd_plan_training(cx, &c, &plan), "plan of one group");
    c.step.mmd_group = 2;
    must(cx, xkd_plan_training(cx, &c, &grouped), "plan of groups of two");
    /* Pair weights are doubles: of 2 modalities x 2 views x 64 students and 2 x 64 teachers in one group, and of 32 groups
     * of 8 and 4. */
    double weights = 8 * (256. * 256 + 128 * 128 - 32 * (8 * 8 + 4 * 4));
    assert_true(fabs(plan.activation_bytes - grouped.activation_bytes - weights) < 0.01 * weights);
    xkd_config_free(&c);
}

static void test_watch(void **state)
{
    (void)state;
    const xkd_watch_sample good = {.kd = 5, .entropy = 4, .centre_norm = 0.3, .spread = 0.5};
    const xkd_watch_sample same = {.kd = 5, .entropy = 4, .centre_norm = 0.3, .spread = 0.001};
    const xkd_watch_sample uniform = {.kd = 9, .entropy = 9, .centre_norm = 0.3, .spread = NAN};
    xkd_watch w = {.outputs = 8192};
    for (int i = 0; i < 1000; i++) assert_null(xkd_watch_step(&w, &good));
    int times = 0;
    for (int i = 0; i < 1000; i++) times += xkd_watch_step(&w, &same) != NULL;
    assert_in_range(times, 1, 2);
    w = (xkd_watch){.outputs = 8192};
    for (int i = 0; i < 199; i++) assert_null(xkd_watch_step(&w, &uniform));
    const char *advice = xkd_watch_step(&w, &uniform);
    assert_non_null(advice);
    assert_non_null(strstr(advice, "lower teacher_temp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_resume_ends_with_the_same_bits, clear),
        cmocka_unit_test_setup(test_what_a_run_leaves, clear),
        cmocka_unit_test_setup(test_resume_refusals, clear),
        cmocka_unit_test_setup(test_bad_numbers, clear),
        cmocka_unit_test_setup(test_late_results_are_those_of_their_steps, clear),
        cmocka_unit_test_setup(test_late_results_are_collected_before_the_end, clear),
        cmocka_unit_test_setup(test_bad_steps_count_in_a_window, clear),
        cmocka_unit_test_setup(test_mean_of_an_epoch_with_a_bad_step, clear),
        cmocka_unit_test_setup(test_what_a_resume_warns_of, clear),
        cmocka_unit_test_setup(test_data_that_run_out, clear),
        cmocka_unit_test_setup(test_overfit, clear),
        cmocka_unit_test_setup(test_plan, clear),
        cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests_name("loop", tests, setup, teardown);
}
