/* What the names of a tensor file mean, told from files that say something odd. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
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
static void identify_shape(xkd_context *cx, const char *const *names, int64_t count, const xkd_shape *shape)
{
    static const float numbers[8] = {1};
    xkd_tensor_item items[8];
    for (int64_t i = 0; i < count; i++) items[i] = (xkd_tensor_item){names[i], XKD_F32, *shape, numbers};
    assert_int_equal(xkd_tensor_file_write(cx, path, XKD_FILE_SAFETENSORS, items, count, NULL, 0), XKD_OK);
    assert_int_equal(xkd_tensor_file_open(cx, path, &file), XKD_OK);
    assert_int_equal(xkd_content_identify(cx, &file, &content), XKD_OK);
}

static void identify(xkd_context *cx, const char *const *names, int64_t count)
{
    identify_shape(cx, names, count, &(xkd_shape){2, {1, 1}});
}

/* The number of a block is text of the file: only as many blocks as there are tensors can be meant. */
static void depth_is_bounded(void **state)
{
    static const char *const names[] = {"encoder.blocks.9223372036854775807.x",
                                        "encoder.blocks.9223372036854775806.x",
                                        "encoder.blocks.99999999999999999999.x",
                                        "encoder.blocks.-5.x",
                                        "encoder.blocks.2.x",
                                        "patch_embed.proj.weight"};
    identify(*state, names, 6);
    assert_int_equal(content.kind, XKD_CONTENT_BACKBONE);
    assert_int_equal(content.geometry.depth, 3);
}

/* "model." is the prefix of most models of other projects: nothing of them may be lost or renamed. */
static void foreign_models_stay_whole(void **state)
{
    static const char *const files[][3] = {
        {"model.w", "lm_head.weight"}, {"model.w", "model.v"}, {"module.w", "module.v"}};
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

/* What training programs put in front of an encoder's names is cut off, and said. */
static void wrappers_are_cut_off(void **state)
{
    static const struct {
        const char *prefix;
        bool checkpoint;
    } cases[] = {{"_orig_mod.", false},
                 {"module._orig_mod.", false},
                 {"_orig_mod.module.", false},
                 {"state_dict.", true},
                 {"state_dict.model.", true},
                 {"state_dict.model._orig_mod.", true},
                 {"model_state_dict.", true},
                 {"model_state_dict.module.", true},
                 {"encoder.", false},
                 {"module.encoder.", false},
                 {"model.encoder.", true},
                 {"model.module.encoder.", true},
                 {"backbone.", false},
                 {"state_dict.net.", true},
                 {"_fsdp_wrapped_module.", false},
                 {"state_dict._forward_module.model.", true},
                 {"module._fsdp_wrapped_module._orig_mod.", false},
                 {"_checkpoint_wrapped_module.", false},
                 {"model_ema.module.", true},
                 /* Any other one, where it is the only place. */
                 {"teacher.", false},
                 {"video_encoder.trunk.", false},
                 {"0.", false},
                 {"checkpoint.state.model.", false}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char text[4][120], *described;
        const char *names[5];
        static const char *const own[] = {"cls_token", "encoder.blocks.0.norm1.weight", "patch_embed.proj.weight",
                                          "encoder_norm.weight"};
        for (int i = 0; i < 4; i++) {
            snprintf(text[i], sizeof text[i], "%s%s", cases[k].prefix, own[i]);
            names[i] = text[i];
        }
        names[4] = "optimizer.state.0.exp_avg";
        identify(*state, names, cases[k].checkpoint ? 5 : 4);
        assert_int_equal(content.kind, XKD_CONTENT_BACKBONE);
        assert_int_equal(content.checkpoint, cases[k].checkpoint);
        assert_int_equal(content.count, 4);
        for (int i = 0; i < 4; i++) assert_string_equal(content.tensors[i].name, own[i]);
        assert_int_equal(xkd_content_describe(*state, &content, &described), XKD_OK);
        if (!strstr(described, cases[k].prefix)) fail_msg("%s: %s", cases[k].prefix, described);
        xkd_free(described);
        xkd_content_free(&content);
        xkd_tensor_file_close(&file);
    }
    /* The backbone's own "encoder." is none. */
    static const char *const bare[] = {"cls_token", "encoder.blocks.0.norm1.weight", "patch_embed.proj.weight"};
    identify(*state, bare, 3);
    assert_string_equal(content.prefix, "");
    assert_int_equal(content.count, 3);
}

/* A whole model is one place, though its encoders are several. */
static void of_unknown_places_only_one_is_taken(void **state)
{
    static const char *const model[] = {"saved.vid_student.backbone.encoder.blocks.0.x",
                                        "saved.vid_student.backbone.cuboid_embed.proj.weight",
                                        "saved.aud_student.backbone.patch_embed.proj.weight"};
    static const char *const two[] = {"left.encoder.blocks.0.x", "left.patch_embed.proj.weight",
                                      "right.encoder.blocks.0.x", "right.patch_embed.proj.weight"};
    identify(*state, model, 3);
    assert_int_equal(content.kind, XKD_CONTENT_MODEL);
    assert_string_equal(content.prefix, "saved.");
    assert_string_equal(content.tensors[2].name, "aud_student.backbone.patch_embed.proj.weight");
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    identify(*state, two, 4);
    assert_int_equal(content.kind, XKD_CONTENT_OTHER);
    assert_string_equal(content.prefix, "");
    assert_int_equal(content.count, 4);
    assert_int_equal(xkd_content_refuse(*state, &content, "F"), XKD_ERR_CHECKPOINT);
    assert_string_equal(
        xkd_last_error(*state),
        "F: holds several networks, behind 'left.' and 'right.': 'xkd convert --part' takes one of them");
    xkd_clear_error(*state);
}

/* torch.compile, FSDP and activation checkpointing wrap parts of a network, too. */
static void wrappers_within_names_are_cut_out(void **state)
{
    static const char *const names[] = {
        "module.cls_token", "module.encoder.blocks.0._fsdp_wrapped_module._orig_mod.norm1.weight",
        "module.encoder.blocks.1._checkpoint_wrapped_module.norm1.weight", "module.patch_embed._orig_mod.proj.weight"};
    static const char *const own[] = {"cls_token", "encoder.blocks.0.norm1.weight", "encoder.blocks.1.norm1.weight",
                                      "patch_embed.proj.weight"};
    char *described;
    identify(*state, names, 4);
    assert_int_equal(content.kind, XKD_CONTENT_BACKBONE);
    for (int i = 0; i < 4; i++) assert_string_equal(content.tensors[i].name, own[i]);
    assert_int_equal(content.geometry.depth, 2);
    assert_int_equal(content.geometry.width, 1);
    assert_int_equal(xkd_content_describe(*state, &content, &described), XKD_OK);
    assert_non_null(strstr(described, "within its names"));
    xkd_free(described);
}

/* The weights themselves are taken, not their average beside them; and a model of one network has its sizes. */
static void of_two_places_the_weights_come_first(void **state)
{
    static const char *const names[] = {"model_ema.encoder.blocks.0.x", "model_ema.patch_embed.proj.weight",
                                        "state_dict.encoder.blocks.0.x", "state_dict.patch_embed.proj.weight"};
    static const char *const part[] = {"vid_teacher.backbone.encoder.blocks.0.x",
                                       "vid_teacher.backbone.cuboid_embed.proj.weight"};
    static const char *const head[] = {"vid_teacher.projector.w"};
    char *described;
    identify(*state, names, 4);
    assert_string_equal(content.prefix, "state_dict.");
    assert_int_equal(content.rest_count, 2);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    identify(*state, part, 2);
    assert_int_equal(content.kind, XKD_CONTENT_MODEL);
    assert_int_equal(content.geometry.width, 1);
    assert_int_equal(content.geometry.depth, 1);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    identify(*state, head, 1);
    assert_int_equal(xkd_content_describe(*state, &content, &described), XKD_OK);
    assert_string_equal(described, "whole XKD model");
    xkd_free(described);
}

/* Names of others are told by what they are, not as an encoder of width 0. */
static void other_architectures_are_told(void **state)
{
    static const char *const names[] = {"model.patch_embed.proj.weight", "model.blocks.0.attn.qkv.weight",
                                        "model.blocks.0.attn.q_bias"};
    static const xkd_shape video = {5, {1, 3, 2, 1, 1}}, image = {4, {1, 3, 1, 1}};
    for (int k = 0; k < 2; k++) {
        identify_shape(*state, names, 3, k ? &image : &video);
        assert_int_equal(content.kind, XKD_CONTENT_OTHER);
        assert_int_equal(xkd_content_refuse(*state, &content, "x.pth"), XKD_ERR_CHECKPOINT);
        assert_non_null(strstr(xkd_last_error(*state), k ? "patches by 2-D convolution" : "as VideoMAE's"));
        assert_non_null(strstr(xkd_last_error(*state), "another architecture"));
        xkd_clear_error(*state);
        xkd_content_free(&content);
        xkd_tensor_file_close(&file);
    }
    static const char *const hub[] = {"videomae.encoder.layer.0.attention.attention.query.weight"};
    identify(*state, hub, 1);
    assert_non_null(content.foreign);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(depth_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_models_stay_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(checkpoints_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(wrappers_are_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(wrappers_within_names_are_cut_out, setup, teardown),
        cmocka_unit_test_setup_teardown(of_unknown_places_only_one_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(of_two_places_the_weights_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(other_architectures_are_told, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
