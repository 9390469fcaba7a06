/* The option table: defaults, the release's schema, overrides, refusals, and that the resolved YAML reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "config/config.h"
#include "config/options.h"

static int setup(void **state)
{
    *state = xkd_context_new();
    return *state == NULL;
}

static int teardown(void **state)
{
    xkd_context_free(*state);
    return 0;
}

static void must(xkd_context *cx, xkd_status status, const char *what)
{
    if (status != XKD_OK) fail_msg("%s: %s", what, xkd_last_error(cx));
}

static void test_defaults_are_xkd(void **state)
{
    xkd_context *cx = *state;
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    must(cx, xkd_config_finish(cx, &c), "finish");
    must(cx, xkd_config_check_data(cx, &c), "check_data");
    assert_int_equal(c.train.batch, 256);
    assert_int_equal(c.model.student.width, 768);
    assert_int_equal(c.model.decoder.depth, 4);
    assert_int_equal(c.model.head.outputs, 8192);
    assert_int_equal(c.model.frame_width, 112);
    assert_int_equal(c.model.vid_patch_t, 4);
    assert_true(c.step.mask_ratio[XKD_AUDIO] == 0.8);
    assert_true(c.train.eps == 1e-8);
    assert_true(c.data.audio_view[XKD_LOCAL_VIEW].rand_crop);
    assert_false(c.data.audio_view[XKD_GLOBAL_VIEW].rand_crop);
    assert_true(c.train.teacher_temp[XKD_AUDIO] == 0.07);
    assert_true(c.train.ema[XKD_AUDIO].final == 1);
    assert_string_equal(c.data.split, "train");
    xkd_config_free(&c);
}

static void test_released_keys(void **state)
{
    xkd_context *cx = *state;
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    must(cx, xkd_config_load(cx, &c, "tests/data/release_keys.yaml", true), "load");
    must(cx, xkd_config_finish(cx, &c), "finish");
    must(cx, xkd_config_check_data(cx, &c), "check_data");
    assert_int_equal(c.train.batch, 30);
    assert_int_equal(c.data.audio_rate, 8000);
    assert_string_equal(c.data.split, "trainlist02");
    assert_false(c.data.shuffle);
    assert_int_equal(c.data.video_local_views, 3);
    assert_int_equal(c.data.audio_local_views, 2);
    assert_true(c.data.video_view[XKD_LOCAL_VIEW].color[0] == 0.3);
    assert_true(c.data.video_view[XKD_GLOBAL_VIEW].p_blur == 1);
    assert_int_equal(c.data.audio_view[XKD_LOCAL_VIEW].warp_window, 6);
    assert_true(c.data.audio_view[XKD_LOCAL_VIEW].time_scale[1] == 0.9);
    assert_true(c.train.lr.warmup == 1e-6 && c.train.lr.final == 1e-5);
    assert_true(c.train.weight_decay.final == 0.4);
    assert_true(c.train.ema[XKD_AUDIO].warmup_epochs == 2);
    assert_int_equal(c.model.variant, XKD_VARIANT_MAS);
    assert_int_equal(c.model.vid_patch_h, 8);
    assert_int_equal(c.model.vid_patch_w, 16);
    assert_int_equal(c.model.teacher.heads, 6);
    assert_int_equal(c.model.decoder.width, 96);
    assert_int_equal(c.model.decoder.depth, 1);
    assert_int_equal(c.model.head.bottleneck, 64);
    assert_true(c.model.center_momentum[1] == 0.6);
    assert_int_equal(c.model.align_loss, XKD_ALIGN_CORAL);
    assert_int_equal(c.step.attn_mode, XKD_ATTN_SOFTMAX);
    assert_true(c.step.clip_grad == 0);
    assert_int_equal(c.train.teacher_temp_warmup_epochs[XKD_AUDIO], 5);
    assert_true(c.train.student_temp[XKD_AUDIO] == 0.3);
    assert_int_equal(c.data.global_views, 2);
    assert_false(c.run.tensorboard);
    xkd_config_free(&c);
}

/* Only what was changed, each with its whole key: two maps have keys of one name. */
static void test_changed(void **state)
{
    xkd_context *cx = *state;
    xkd_config c, plain;
    char *text;
    must(cx, xkd_config_init(cx, &plain), "init");
    must(cx, xkd_config_init(cx, &c), "init");
    must(cx, xkd_config_write_changed(cx, &c, &plain, &text), "write");
    assert_string_equal(text, "");
    xkd_free(text);
    must(cx, xkd_config_override(cx, &c, "dataset.clip_duration=1.5"), "real");
    must(cx, xkd_config_override(cx, &c, "dataset.train.split=a b"), "text");
    must(cx, xkd_config_override(cx, &c, "dataset.test.split=test"), "the default");
    must(cx, xkd_config_write_changed(cx, &c, &plain, &text), "write");
    assert_string_equal(text, "dataset.clip_duration: 1.5\ndataset.train.split: \"a b\"\n");
    xkd_free(text);
    xkd_config_free(&c);
    xkd_config_free(&plain);
}

/* Words that switch other keys off are no folders. */
static void test_words_of_the_cache(void **state)
{
    xkd_context *cx = *state;
    static const struct {
        const char *text;
        xkd_cache_mode mode;
        const char *folder;
    } cases[] = {{"off", XKD_CACHE_NONE, ""},  {"No", XKD_CACHE_NONE, ""}, {"false", XKD_CACHE_NONE, ""},
                 {"none", XKD_CACHE_NONE, ""}, {"ram", XKD_CACHE_RAM, ""}, {"./off", XKD_CACHE_FOLDER, "./off"}};
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];
        snprintf(text, sizeof text, "data.cache=%s", cases[i].text);
        must(cx, xkd_config_override(cx, &c, text), text);
        assert_int_equal(c.data.cache, cases[i].mode);
        assert_string_equal(c.data.cache_folder, cases[i].folder);
    }
    xkd_clear_error(cx); /* of another test */
    assert_int_equal(xkd_config_override(cx, &c, "data.cache=on"), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "wants none, ram, or a folder"));
    xkd_clear_error(cx);
    xkd_config_free(&c);
}

static void test_sizes_as_maps(void **state)
{
    xkd_context *cx = *state;
    static const char text[] = "model:\n  name: XKD-MATS\n  kwargs:\n"
                               "    teacher_cfg: {embed_dim: 32, depth: 2, num_heads: 2}\n"
                               "    student_cfg: {embed_dim: 32, depth: 2, num_heads: 2}\n"
                               "    projector_cfg:\n      hidden_dim: 24\n      bottleneck_dim: 8\n      out_dim: 32\n";
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    must(cx, xkd_config_parse(cx, &c, "t", text, sizeof text - 1, true), "parse");
    must(cx, xkd_config_override(cx, &c, "model.kwargs.decoder_cfg={embed_dim: 16, depth: 1, num_heads: 4}"), "map");
    must(cx, xkd_config_override(cx, &c, "model.kwargs.decoder_cfg.num_heads=2"), "part");
    must(cx, xkd_config_finish(cx, &c), "finish");
    assert_int_equal(c.model.variant, XKD_VARIANT_MATS);
    assert_int_equal(c.model.teacher.depth, 2);
    assert_int_equal(c.model.head.hidden, 24);
    assert_int_equal(c.model.head.outputs, 32);
    assert_int_equal(c.model.decoder.width, 16);
    assert_int_equal(c.model.decoder.heads, 2);
    xkd_config_free(&c);
}

/* A value other than the default that the option accepts; false if there is nothing to change. */
static bool other_value(const xkd_option *o, char *out, size_t size)
{
    double value = o->high > 1e5 ? o->low + 3 : o->low + (o->high - o->low) * 0.75;
    switch (o->kind) {
    case XKD_OPTION_INT: value = (double)(int64_t)value; /* fall through */
    case XKD_OPTION_REAL:
        if (o->count == 1) snprintf(out, size, "%s=%.17g", o->key, value);
        if (o->count == 2) snprintf(out, size, "%s=[%.17g, %.17g]", o->key, value, value);
        if (o->count == 3) snprintf(out, size, "%s=[%.17g, %.17g, %.17g]", o->key, value, value, value);
        if (o->count == 4) snprintf(out, size, "%s=[%.17g, %.17g, %.17g, %.17g]", o->key, value, value, value, value);
        return true;
    case XKD_OPTION_BOOL:
        if (o->choices)
            snprintf(out, size, "%s=%s", o->key, strchr(o->choices, '|') + 1);
        else
            snprintf(out, size, "%s=%s", o->key, strcmp(o->initial, "true") == 0 ? "no" : "yes");
        return true;
    case XKD_OPTION_CHOICE: snprintf(out, size, "%s=%s", o->key, strrchr(o->choices, '|') + 1); return true;
    case XKD_OPTION_TEXT: snprintf(out, size, "%s=a \"b\" \\c: #d\xc3\xa9", o->key); return true;
    case XKD_OPTION_CACHE: snprintf(out, size, "%s=/some/folder", o->key); return true;
    default: return false;
    }
}

static char *written(xkd_context *cx, const xkd_config *c)
{
    char *text;
    must(cx, xkd_config_write(cx, c, &text), "write");
    return text;
}

static void test_every_option_survives_writing(void **state)
{
    xkd_context *cx = *state;
    xkd_config c, again;
    for (int i = 0; i < xkd_option_count(); i++) {
        char assignment[400];
        if (!other_value(xkd_option_at(i), assignment, sizeof assignment)) continue;
        must(cx, xkd_config_init(cx, &c), "init");
        char *before = written(cx, &c);
        must(cx, xkd_config_override(cx, &c, assignment), assignment);
        char *text = written(cx, &c);
        if (strcmp(before, text) == 0) fail_msg("%s changes nothing", assignment);
        must(cx, xkd_config_init(cx, &again), "init");
        must(cx, xkd_config_parse(cx, &again, assignment, text, (int64_t)strlen(text), true), "resolved");
        char *second = written(cx, &again);
        assert_string_equal(text, second);
        xkd_free(before);
        xkd_free(text);
        xkd_free(second);
        xkd_config_free(&c);
        xkd_config_free(&again);
    }
}

static void refused(xkd_context *cx, const char *text, const char *message)
{
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    xkd_clear_error(cx);
    xkd_status status = xkd_config_parse(cx, &c, "f.yaml", text, (int64_t)strlen(text), false);
    if (status == XKD_OK) status = xkd_config_finish(cx, &c);
    if (status == XKD_OK) status = xkd_config_check_data(cx, &c);
    assert_int_equal(status, XKD_ERR_CONFIG);
    if (!strstr(xkd_last_error(cx), message)) fail_msg("'%s' gave: %s", text, xkd_last_error(cx));
    xkd_config_free(&c);
    xkd_clear_error(cx);
}

static void test_refusals(void **state)
{
    xkd_context *cx = *state;
    refused(
        cx, "model:\n  fwd_kwargs:\n    vid_mask_ration: 0.8\n",
        "f.yaml:3: unknown key 'model.fwd_kwargs.vid_mask_ration'; did you mean 'model.fwd_kwargs.vid_mask_ratio'?");
    refused(cx, "model: {kwargs: {refine: true}}", "did you mean 'model.fwd_kwargs.refine'?");
    refused(cx, "zzzzzzzz: 1", "f.yaml:1: unknown key 'zzzzzzzz' ('xkd help options'");
    refused(cx, "num_node: two", "f.yaml:1: num_node: wants integer >= 1, not 'two'");
    refused(cx, "num_node: '2'", "wants integer");
    refused(cx, "num_node: 1.5", "wants integer");
    refused(cx, "num_node: 0", "wants integer >= 1");
    refused(cx, "num_node: [1]", "not a list");
    refused(cx, "model: 3", "model: wants a map, not '3'");
    refused(cx, "- a\n- b\n", "a configuration is a map");
    refused(cx, "data: {workers: 0}", "data.workers: wants integer 1..256 or auto, not '0'");
    refused(cx, "model: {fwd_kwargs: {vid_mask_ratio: 1}}", "real 0..<1");
    refused(cx, "model: {fwd_kwargs: {vid_mask_ratio: -0.1}}", "real 0..<1");
    refused(cx, "model: {fwd_kwargs: {vid_mask_ratio: .nan}}", "real 0..<1");
    refused(cx, "model: {fwd_kwargs: {vid_mask_ratio: 0.999}}", "keeps none of 392 tokens");
    refused(cx, "model: {fwd_kwargs: {aud_mask_ratio: 0}}", "masks none of 560 tokens");
    refused(cx, "model: {kwargs: {vid_patch_spatial: [16, 15]}}", "does not divide model.kwargs.frame_size (112)");
    refused(cx, "model: {kwargs: {student_cfg: {num_heads: 7}}}", "num_heads (7) does not divide");
    refused(cx, "model: {kwargs: {student_cfg: small_encoder}}", "must equal student_cfg");
    refused(cx, "model: {kwargs: {student_cfg: huge_encoder}}", "tiny, tiny_h6, small");
    refused(cx, "model: {kwargs: {projector_cfg: '2048-relu-3-256-8192-norm3'}}", "HIDDEN-gelu-3");
    refused(cx, "model: {kwargs: {frame_size: [112, 112]}}", "wants 3 x integer");
    refused(cx, "model: {kwargs: {align_loss: sinkhorn}}", "wants mmd|coral, not 'sinkhorn'");
    refused(cx, "model: {name: XKD_X}", "wants XKD|XKD_MAS|XKD_MATS");
    refused(cx, "hyperparams: {optimizer: {name: sgd}}", "wants adamw");
    refused(cx, "train: {accumulate: 3}", "train.accumulate (3) does not divide");
    refused(cx, "model: {fwd_kwargs: {mmd_group: 5}}", "mmd_group (5) does not divide the micro-batch (256)");
    refused(cx, "model: {fwd_kwargs: {align_coeff: 0, cmkd_coeff: 0, recon_coeff: 0}}", "nothing to learn");
    refused(cx, "run: {backend: gpu}", "wants cpu, cuda, cuda:N, ref or guard");
    refused(cx, "dataset: {train: {vid_aug_kwargs: {local: {crop_scale: [0.5, 0.2]}}}}", "0.5 is above 0.2");
    refused(cx, "dataset: {crop_size: 96}", "differs from model.kwargs.frame_size");
    refused(cx, "dataset: {video_fps: 16}", "64 frames, model.kwargs.num_frames 32");
    refused(cx, "dataset: {n_mels: 64}", "spectrograms are 64x448");
    refused(cx, "model: {fwd_kwargs: {teacher_view: local}}\ndataset: {train: {aud_aug_kwargs: {num_local_views: 0}}}",
            "needs a local view");
}

static void test_overrides(void **state)
{
    xkd_context *cx = *state;
    xkd_config c;
    must(cx, xkd_config_init(cx, &c), "init");
    must(cx, xkd_config_override(cx, &c, "lr.scale_to_batch=256"), "alias");
    assert_true(c.train.lr_scale_to_batch == 256);
    must(cx, xkd_config_override(cx, &c, "data.cache=ram"), "cache");
    assert_int_equal(c.data.cache, XKD_CACHE_RAM);
    must(cx, xkd_config_override(cx, &c, "data.cache=*odd: [name"), "cache folder");
    assert_int_equal(c.data.cache, XKD_CACHE_FOLDER);
    assert_string_equal(c.data.cache_folder, "*odd: [name");
    must(cx, xkd_config_override(cx, &c, "model.fwd_kwargs={clip_grad: off, refine: no}"), "map");
    assert_true(c.step.clip_grad == 0);
    assert_false(c.step.refine);
    must(cx, xkd_config_override(cx, &c, "model.fwd_kwargs.teacher_view=local"), "choice");
    assert_int_equal(c.step.teacher_view, XKD_TEACHER_LOCAL);
    static const char *const bad[] = {"nothing",      "=1",          "model=3",      "modle.name=XKD",
                                      "model.name=[", "model.name=", "num_node=1e9", "lr=3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(xkd_config_override(cx, &c, bad[i]), XKD_ERR_CONFIG);
    xkd_config_free(&c);
}

static void test_missing_file(void **state)
{
    xkd_config c;
    must(*state, xkd_config_init(*state, &c), "init");
    assert_int_equal(xkd_config_load(*state, &c, "/nonexistent.yaml", false), XKD_ERR_CONFIG);
    assert_int_equal(xkd_config_load(*state, &c, "/dev/zero", false), XKD_ERR_CONFIG);
    xkd_config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_xkd),   cmocka_unit_test(test_released_keys),
        cmocka_unit_test(test_sizes_as_maps),      cmocka_unit_test(test_every_option_survives_writing),
        cmocka_unit_test(test_refusals),           cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_missing_file),       cmocka_unit_test(test_changed),
        cmocka_unit_test(test_words_of_the_cache),
    };
    return cmocka_run_group_tests_name("options", tests, setup, teardown);
}
