/* Saving and resuming: exact values back, damage passed over, other models refused, nothing half loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/state.h"

static char folder[] = "/tmp/xkd-test-state-XXXXXX";
static int warnings;

static void count_warnings(void *user, xkd_log_level level, const char *line)
{
    (void)user;
    if (level == XKD_LOG_WARN && strstr(line, "falling back to")) warnings++;
}

static int setup(void **state)
{
    *state = xkd_context_new();
    xkd_context_set_log(*state, count_warnings, NULL, XKD_LOG_DEBUG);
    return *state == NULL || !mkdtemp(folder);
}

static int teardown(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    xkd_context_free(*state);
    return system(command);
}

static int empty_folder(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    xkd_clear_error(*state);
    warnings = 0;
    return system(command);
}

static void must(xkd_context *cx, xkd_status status)
{
    if (status != XKD_OK) fail_msg("%s", xkd_last_error(cx));
}

/* A table like the model's: a trained row with an alias, a teacher row and a buffer. */
static void make_params(xkd_context *cx, xkd_params *params, int64_t width, const char *extra)
{
    xkd_param *row;
    *params = (xkd_params){0};
    xkd_param w = {.name = "vid_student.backbone.norm.weight", .shape = {2, {2, width}}, .role = XKD_ROLE_TRAINED};
    xkd_param t = {.name = "aud_teacher.backbone.cls_token", .shape = {1, {3}}, .role = XKD_ROLE_TEACHER};
    xkd_param c = {.name = "vt2as_ce_loss.center", .shape = {1, {4}}, .role = XKD_ROLE_BUFFER};
    must(cx, xkd_params_add(cx, params, &w, &row));
    must(cx, xkd_params_add_alias(cx, params, row, "aud_student.backbone.norm.weight", true));
    must(cx, xkd_params_add_alias(cx, params, row, "vid_ae.encoder.norm.weight", false));
    must(cx, xkd_params_add(cx, params, &t, &row));
    must(cx, xkd_params_add(cx, params, &c, &row));
    if (extra) {
        xkd_param e = {.shape = {1, {1}}, .role = XKD_ROLE_BUFFER};
        snprintf(e.name, sizeof e.name, "%s", extra);
        must(cx, xkd_params_add(cx, params, &e, &row));
    }
    must(cx, xkd_params_allocate(cx, params, NULL, XKD_F32, true));
}

static void fill(xkd_params *params, float start)
{
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        for (int64_t k = 0; k < row->count; k++) {
            ((float *)row->value)[k] = start++;
            if (row->moment1) ((float *)row->moment1)[k] = start++;
            if (row->moment2) ((float *)row->moment2)[k] = start++;
        }
        row->steps = (int64_t)start;
    }
}

static bool same(const xkd_params *a, const xkd_params *b)
{
    for (int64_t i = 0; i < a->count; i++) {
        const xkd_param *x = a->rows[i], *y = b->rows[i];
        size_t bytes = (size_t)x->count * 4;
        if (x->steps != y->steps || memcmp(x->value, y->value, bytes)) return false;
        if (x->moment1 && (memcmp(x->moment1, y->moment1, bytes) || memcmp(x->moment2, y->moment2, bytes)))
            return false;
    }
    return true;
}

static xkd_run_state state_at(int64_t step)
{
    return (xkd_run_state){.step = step,
                           .epoch = 3,
                           .epoch_step = 4,
                           .bad_steps = 1,
                           .seed = UINT64_MAX - 1,
                           .data_hash = 0xfedcba9876543210u,
                           .seconds = 0.1,
                           .epoch_loss = 1.0 / 3,
                           .config = (char *)(uintptr_t) "name: \"x\"\n"};
}

static void test_round_trip(void **context)
{
    xkd_context *cx = *context;
    xkd_params a, b;
    xkd_run_state s = state_at(12), loaded;
    make_params(cx, &a, 5, NULL);
    make_params(cx, &b, 5, NULL);
    fill(&a, 1);
    must(cx, xkd_state_save(cx, folder, &a, &s, 2));
    must(cx, xkd_state_load_newest(cx, folder, &b, &loaded));
    assert_true(same(&a, &b));
    assert_int_equal(loaded.step, 12);
    assert_int_equal(loaded.epoch, 3);
    assert_int_equal(loaded.epoch_step, 4);
    assert_int_equal(loaded.bad_steps, 1);
    assert_true(loaded.seed == s.seed && loaded.data_hash == s.data_hash);
    assert_true(loaded.seconds == s.seconds && loaded.epoch_loss == s.epoch_loss);
    assert_string_equal(loaded.config, s.config);
    xkd_run_state_free(&loaded);
    /* The model is in the file under its public names, shared tensors under both. */
    char *path;
    xkd_safetensors *file;
    must(cx, xkd_join_path(cx, &path, folder, "step-00000012.safetensors"));
    must(cx, xkd_safetensors_open(cx, path, &file));
    assert_non_null(xkd_safetensors_find(file, "aud_student.backbone.norm.weight"));
    assert_null(xkd_safetensors_find(file, "vid_ae.encoder.norm.weight"));
    xkd_safetensors_close(file);
    xkd_free(path);
    xkd_params_free(&a);
    xkd_params_free(&b);
}

static bool exists(xkd_context *cx, const char *name)
{
    char *path;
    must(cx, xkd_join_path(cx, &path, folder, name));
    bool there = xkd_path_exists(path);
    xkd_free(path);
    return there;
}

static void damage(xkd_context *cx, const char *name, int64_t at, bool cut)
{
    char *path, *bytes;
    int64_t size;
    must(cx, xkd_join_path(cx, &path, folder, name));
    must(cx, xkd_read_file(cx, path, 1 << 20, XKD_ERR_DATA, &bytes, &size));
    bytes[size - at] ^= 4;
    must(cx, xkd_write_file(cx, path, bytes, cut ? size - at : size));
    xkd_free(bytes);
    xkd_free(path);
}

static void test_damaged_newest_falls_back(void **context)
{
    xkd_context *cx = *context;
    xkd_params a, b;
    xkd_run_state loaded;
    make_params(cx, &a, 5, NULL);
    make_params(cx, &b, 5, NULL);
    for (int64_t step = 1; step <= 4; step++) {
        xkd_run_state s = state_at(step);
        fill(&a, (float)(100 * step));
        must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    }
    int64_t count;
    must(cx, xkd_state_count(cx, folder, &count));
    assert_int_equal(count, 3);
    damage(cx, "step-00000004.safetensors", 9, false);
    damage(cx, "step-00000003.safetensors", 9, true);
    must(cx, xkd_state_load_newest(cx, folder, &b, &loaded));
    assert_int_equal(loaded.step, 2);
    assert_int_equal(warnings, 2);
    fill(&a, 200);
    assert_true(same(&a, &b));
    /* Going on from step 2, the damaged later one makes way, but is not lost. */
    loaded.step = 3;
    must(cx, xkd_state_save(cx, folder, &b, &loaded, 3));
    must(cx, xkd_state_count(cx, folder, &count));
    assert_int_equal(count, 2);
    assert_true(exists(cx, "step-00000004.safetensors.aside"));
    xkd_run_state_free(&loaded);
    xkd_params_free(&a);
    xkd_params_free(&b);
}

/* A link into a disk that is not mounted stands for all that may be mended: rights, a server, a limit of files. */
static void test_newest_that_cannot_be_read_now(void **context)
{
    xkd_context *cx = *context;
    xkd_params a, b;
    xkd_run_state loaded;
    char *path, *away;
    make_params(cx, &a, 5, NULL);
    make_params(cx, &b, 5, NULL);
    for (int64_t step = 1; step <= 2; step++) {
        xkd_run_state s = state_at(step);
        fill(&a, (float)(100 * step));
        must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    }
    must(cx, xkd_join_path(cx, &path, folder, "step-00000002.safetensors"));
    must(cx, xkd_join_path(cx, &away, folder, "away"));
    assert_int_equal(rename(path, away) | symlink("/nonexistent/disk", path), 0);
    assert_int_equal(xkd_state_load_newest(cx, folder, &b, &loaded), XKD_ERR_STORAGE);
    assert_non_null(strstr(xkd_last_error(cx), "step-00000002.safetensors: cannot open"));
    assert_non_null(strstr(xkd_last_error(cx), "move it away to go on from step-00000001.safetensors"));
    xkd_clear_error(cx);
    assert_int_equal(warnings, 0);
    /* A save of an earlier step, by whatever way it comes about, puts it aside as well. */
    xkd_run_state s = state_at(1);
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    assert_true(exists(cx, "step-00000002.safetensors.aside"));
    assert_int_equal(rename(away, path), 0);
    must(cx, xkd_state_load_newest(cx, folder, &b, &loaded));
    assert_int_equal(loaded.step, 2);
    assert_true(same(&a, &b));
    xkd_run_state_free(&loaded);
    /* Nothing is written over what is aside already. */
    s.step = 1;
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    assert_true(exists(cx, "step-00000002.safetensors.aside") && exists(cx, "step-00000002.safetensors.aside-2"));
    xkd_free(path);
    xkd_free(away);
    xkd_params_free(&a);
    xkd_params_free(&b);
}

static void test_all_damaged_or_none(void **context)
{
    xkd_context *cx = *context;
    xkd_params a;
    xkd_run_state s = state_at(1), loaded;
    make_params(cx, &a, 5, NULL);
    assert_int_equal(xkd_state_load_newest(cx, folder, &a, &loaded), XKD_ERR_CHECKPOINT);
    assert_int_equal(xkd_state_load_newest(cx, "/nonexistent", &a, &loaded), XKD_ERR_CHECKPOINT);
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    damage(cx, "step-00000001.safetensors", 1, false);
    assert_int_equal(xkd_state_load_newest(cx, folder, &a, &loaded), XKD_ERR_CHECKPOINT);
    xkd_params_free(&a);
}

static void test_other_architecture(void **context)
{
    xkd_context *cx = *context;
    xkd_params a, b, before;
    xkd_run_state s = state_at(1), loaded;
    make_params(cx, &a, 5, "only.here");
    make_params(cx, &b, 6, NULL);
    make_params(cx, &before, 6, NULL);
    fill(&b, 7);
    fill(&before, 7);
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    assert_int_equal(xkd_state_load_newest(cx, folder, &b, &loaded), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "2 differences"));
    assert_non_null(
        strstr(xkd_last_error(cx), "vid_student.backbone.norm.weight is [2,5] in the file, [2,6] in the model"));
    assert_non_null(strstr(xkd_last_error(cx), "only.here is not in the model"));
    assert_true(same(&b, &before));
    xkd_params_free(&a);
    xkd_params_free(&b);
    xkd_params_free(&before);
}

static void test_export(void **context)
{
    xkd_context *cx = *context;
    xkd_params a;
    xkd_safetensors *file;
    char *path;
    make_params(cx, &a, 5, NULL);
    fill(&a, 1);
    must(cx, xkd_export_backbones(cx, folder, &a, (const bool[]){false, false}));
    must(cx, xkd_join_path(cx, &path, folder, "aud_student.safetensors"));
    must(cx, xkd_safetensors_open(cx, path, &file));
    assert_int_equal(xkd_safetensors_count(file), 1);
    assert_non_null(xkd_safetensors_find(file, "norm.weight"));
    xkd_safetensors_close(file);
    xkd_free(path);
    xkd_params_free(&a);
}

static void test_no_space_left(void **context)
{
    xkd_context *cx = *context;
    xkd_params a, b;
    xkd_run_state s = state_at(1), loaded;
    make_params(cx, &a, 500, NULL);
    make_params(cx, &b, 500, NULL);
    fill(&a, 1);
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    /* A file size limit is a full disk that tests can have. */
    struct rlimit old, limit = {.rlim_cur = 2000};
    getrlimit(RLIMIT_FSIZE, &old);
    limit.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    s.step = 2;
    xkd_status status = xkd_state_save(cx, folder, &a, &s, 3);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, XKD_ERR_STORAGE);
    must(cx, xkd_state_load_newest(cx, folder, &b, &loaded));
    assert_int_equal(loaded.step, 1);
    assert_true(same(&a, &b));
    xkd_run_state_free(&loaded);
    xkd_params_free(&a);
    xkd_params_free(&b);
}

static void test_left_over_temporaries_are_removed(void **context)
{
    xkd_context *cx = *context;
    xkd_params a;
    xkd_run_state s = state_at(1), loaded;
    char *path;
    make_params(cx, &a, 5, NULL);
    must(cx, xkd_state_save(cx, folder, &a, &s, 3));
    must(cx, xkd_join_path(cx, &path, folder, "step-00000002.safetensors.tmp-1"));
    must(cx, xkd_write_file(cx, path, "x", 1));
    must(cx, xkd_state_load_newest(cx, folder, &a, &loaded));
    assert_false(xkd_path_exists(path));
    assert_int_equal(loaded.step, 1);
    xkd_run_state_free(&loaded);
    xkd_free(path);
    xkd_params_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_round_trip, empty_folder),
        cmocka_unit_test_setup(test_damaged_newest_falls_back, empty_folder),
        cmocka_unit_test_setup(test_newest_that_cannot_be_read_now, empty_folder),
        cmocka_unit_test_setup(test_all_damaged_or_none, empty_folder),
        cmocka_unit_test_setup(test_other_architecture, empty_folder),
        cmocka_unit_test_setup(test_export, empty_folder),
        cmocka_unit_test_setup(test_no_space_left, empty_folder),
        cmocka_unit_test_setup(test_left_over_temporaries_are_removed, empty_folder),
    };
    return cmocka_run_group_tests_name("state", tests, setup, teardown);
}
