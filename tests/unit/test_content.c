/* What the names of a tensor file mean, told from files that say something odd. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "checkpoint/content.h"

static char path[64];
static xkd_tensor_file file;
static xkd_content content;

static int setup(void **state)
{
    *state = xkd_context_new();
    snprintf(path, sizeof path, "/tmp/xkd-test-content-%d", (int)getpid());
    return *state == NULL;
}

static int teardown(void **state)
{
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    unlink(path);
    xkd_context_free(*state);
    return 0;
}

/* A file of one number under each name, opened and identified. */
static void identify(xkd_context *cx, const char *const *names, int64_t count)
{
    static const float number = 1;
    xkd_tensor_item items[8];
    for (int64_t i = 0; i < count; i++) items[i] = (xkd_tensor_item){names[i], XKD_F32, {2, {1, 1}}, &number};
    assert_int_equal(xkd_tensor_file_write(cx, path, XKD_FILE_SAFETENSORS, items, count, NULL, 0), XKD_OK);
    assert_int_equal(xkd_tensor_file_open(cx, path, &file), XKD_OK);
    assert_int_equal(xkd_content_identify(cx, &file, &content), XKD_OK);
}

/* The number of a block is text of the file: only as many blocks as there are tensors can be meant. */
static void depth_is_bounded(void **state)
{
    static const char *const names[] = {
        "encoder.blocks.9223372036854775807.x", "encoder.blocks.9223372036854775806.x",
        "encoder.blocks.99999999999999999999.x", "encoder.blocks.-5.x",
        "encoder.blocks.2.x", "patch_embed.proj.weight"};
    identify(*state, names, 6);
    assert_int_equal(content.kind, XKD_CONTENT_BACKBONE);
    assert_int_equal(content.geometry.depth, 3);
}

/* "model." is the prefix of most models of other projects: nothing of them may be lost or renamed. */
static void foreign_models_stay_whole(void **state)
{
    static const char *const files[][3] = {{"model.w", "lm_head.weight"}, {"model.w", "model.v"}, {"module.w", "module.v"}};
    for (int k = 0; k < 3; k++) {
        identify(*state, files[k], 2);
        assert_false(content.checkpoint);
        assert_int_equal(content.count, 2);
        assert_int_equal(content.rest_count, 0);
        for (int i = 0; i < 2; i++) assert_string_equal(content.tensors[i].name, files[k][i]);
        xkd_content_free(&content);
        xkd_tensor_file_close(&file);
    }
}

/* What stands beside the model is kept apart, whatever the model is. */
static void checkpoints_are_told(void **state)
{
    static const char *const foreign[] = {"model.module.w", "optimizer.state.0.exp_avg", "epoch"};
    static const char *const released[] = {"model.module.vid_student.w"};
    identify(*state, foreign, 3);
    assert_true(content.checkpoint && content.ddp);
    assert_int_equal(content.count, 1);
    assert_string_equal(content.tensors[0].name, "w");
    assert_int_equal(content.rest_count, 2);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    identify(*state, released, 1);
    assert_true(content.checkpoint && content.ddp);
    assert_string_equal(content.tensors[0].name, "vid_student.w");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(depth_is_bounded, setup, teardown),
                                       cmocka_unit_test_setup_teardown(foreign_models_stay_whole, setup, teardown),
                                       cmocka_unit_test_setup_teardown(checkpoints_are_told, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
