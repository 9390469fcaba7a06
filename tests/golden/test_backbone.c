/* Released-style backbones, read from both file forms, against the oracle's features at three input sizes (the training
 * size, a larger one and a short one: positions interpolated), on both backends, within 1e-4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/safetensors.h"
#include "eval/encode/encoder.h"
#include "golden_file.h"

#define FOLDER "tests/golden/backbone/"

static const double TOLERANCE = 1e-4;

/* params.json's geometry: the file itself cannot say it. */
static const xkd_model_config geometry = {.channels = 3, .frame_height = 32, .frame_width = 32, .num_frames = 8,
                                          .vid_patch_t = 2, .vid_patch_h = 8, .vid_patch_w = 8, .spec_freq = 16,
                                          .spec_time = 32, .spec_patch_f = 4, .spec_patch_t = 8,
                                          .teacher = {32, 2, 2}, .student = {32, 2, 2}};

static float *golden(const char *m, const char *size, const char *what, int64_t shape[4], int64_t *bytes)
{
    char name[80];
    snprintf(name, sizeof name, "%s.%s.%s", m, size, what);
    float *out = golden_tensor(FOLDER "expected.safetensors", name, shape, bytes);
    if (!out) fail_msg("%s is missing", name);
    return out;
}

static xkd_view_shape shape_of(xkd_modality m, const char *size)
{
    bool other = !strcmp(size, "other_size"), small = !strcmp(size, "short");
    if (m == XKD_AUDIO) return (xkd_view_shape){.B = 2, .T = 1, .H = 16, .W = other ? 64 : small ? 8 : 32};
    return (xkd_view_shape){.B = 2, .T = small ? 4 : 8, .H = other ? 64 : small ? 24 : 32, .W = other ? 64 : small ? 24 : 32};
}

static void compare(const float *got, const float *want, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= TOLERANCE))
            fail_msg("%s: element %lld is %g, not %g", what, (long long)i, got[i], want[i]);
}

static void check_size(xkd_context *cx, xkd_backend *be, const xkd_encoder *e, xkd_modality m, const char *size)
{
    const char *name = m == XKD_VIDEO ? "vid" : "aud";
    int64_t sides[4], bytes;
    xkd_view_shape shape = shape_of(m, size);
    float *input = golden(name, size, "input", sides, &bytes), out[2 * 32];
    for (xkd_feature_kind kind = XKD_FEATURE_MEAN; kind <= XKD_FEATURE_CLS; kind++) {
        xkd_encoder_run run;
        float *want = golden(name, size, kind == XKD_FEATURE_MEAN ? "pool" : "cls", sides, &bytes);
        if (xkd_encoder_run_new(cx, e, &shape, kind, -1, &run) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        assert_int_equal(xkd_encoder_features(be, &run, input, out), XKD_OK);
        compare(out, want, 2 * 32, size);
        xkd_encoder_run_free(&run);
        free(want);
    }
    free(input);
}

/* Enough of a backend to load an encoder. */
static const xkd_backend host = {.dtype = XKD_F32};

static void check_file(const char *file, xkd_modality m, const char *backend, xkd_dtype dtype)
{
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_encoder e;
    xkd_encoder_source source = {.path = file, .modality = m, .geometry = &geometry};
    assert_int_equal(xkd_backend_new(cx, &be, backend, dtype, 2), XKD_OK);
    if (xkd_encoder_load(cx, &source, be, &e) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    check_size(cx, be, &e, m, "train_size");
    check_size(cx, be, &e, m, "other_size");
    check_size(cx, be, &e, m, "short");
    xkd_encoder_free(&e);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static void features_of_every_file_and_backend(void **state)
{
    static const char *const files[][2] = {{FOLDER "vid_teacher.safetensors", FOLDER "vid_teacher.pth.tar"},
                                           {FOLDER "aud_teacher.safetensors", FOLDER "aud_teacher.pth.tar"}};
    (void)state;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        for (int form = 0; form < 2; form++) {
            check_file(files[m][form], m, "ref", XKD_F64);
            check_file(files[m][form], m, "ref", XKD_F32);
            check_file(files[m][form], m, "cpu", XKD_F32);
        }
}

/* Layer `depth` is the whole encoder, layer 0 the embedding alone, and all tokens average to the pooled feature. */
static void layers_and_tokens(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_backend *be;
    xkd_encoder e;
    xkd_encoder_run run;
    int64_t sides[4], bytes;
    xkd_view_shape shape = shape_of(XKD_VIDEO, "train_size");
    float *input = golden("vid", "train_size", "input", sides, &bytes);
    float *want = golden("vid", "train_size", "pool", sides, &bytes), out[2 * 32], *all = NULL;
    xkd_encoder_source source = {.path = FOLDER "vid_teacher.safetensors", .geometry = &geometry};
    assert_int_equal(xkd_backend_new(cx, &be, "cpu", XKD_F32, 1), XKD_OK);
    assert_int_equal(xkd_encoder_load(cx, &source, &host, &e), XKD_OK);
    for (int layer = 0; layer <= 2; layer++) {
        assert_int_equal(xkd_encoder_run_new(cx, &e, &shape, XKD_FEATURE_MEAN, layer, &run), XKD_OK);
        assert_int_equal(xkd_encoder_features(be, &run, input, out), XKD_OK);
        double difference = 0;
        for (int i = 0; i < 2 * 32; i++) difference = fmax(difference, fabs(out[i] - want[i]));
        assert_true(layer == 2 ? difference < TOLERANCE : difference > 1e-2);
        xkd_encoder_run_free(&run);
    }
    assert_int_equal(xkd_encoder_run_new(cx, &e, &shape, XKD_FEATURE_NONE, -1, &run), XKD_OK);
    assert_int_equal(run.rows, 65);
    assert_int_equal(xkd_alloc(cx, &all, 2 * run.rows * run.width, sizeof *all), XKD_OK);
    assert_int_equal(xkd_encoder_features(be, &run, input, all), XKD_OK);
    for (int d = 0; d < 32; d++) {
        double mean = 0;
        for (int t = 1; t < 65; t++) mean += all[t * 32 + d] / 64.0;
        assert_true(fabs(mean - want[d]) < TOLERANCE);
    }
    xkd_encoder_run_free(&run);
    assert_int_equal(xkd_encoder_run_new(cx, &e, &shape, XKD_FEATURE_MEAN, 3, &run), XKD_ERR_CONFIG);
    xkd_encoder_run_free(&run);
    xkd_free(all);
    free(input);
    free(want);
    xkd_encoder_free(&e);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

/* Loads a copy of the video backbone with `skip` left out, or with an extra tensor, and expects `wanted`. */
static void try_changed(const char *skip, const char *extra, xkd_modality m, xkd_status wanted)
{
    xkd_context *cx = xkd_context_new();
    xkd_safetensors *file;
    xkd_tensor_item items[64];
    int64_t n = 0;
    char path[] = "/tmp/xkd-backbone-XXXXXX";
    int fd = mkstemp(path);
    float value = 1;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(xkd_safetensors_open(cx, FOLDER "vid_teacher.safetensors", &file), XKD_OK);
    for (int64_t i = 0; i < xkd_safetensors_count(file); i++) {
        const xkd_stored_tensor *t = xkd_safetensors_at(file, i);
        if (!skip || strcmp(skip, t->name) != 0) items[n++] = (xkd_tensor_item){t->name, t->dtype, t->shape, t->data};
    }
    if (extra) items[n++] = (xkd_tensor_item){extra, XKD_F32, {1, {1}}, &value};
    assert_int_equal(xkd_safetensors_write(cx, path, items, n, NULL, 0), XKD_OK);
    xkd_encoder e;
    xkd_encoder_source source = {.path = path, .modality = m, .geometry = &geometry};
    assert_int_equal(xkd_encoder_load(cx, &source, &host, &e), wanted);
    xkd_encoder_free(&e);
    xkd_safetensors_close(file);
    unlink(path);
    xkd_context_free(cx);
}

/* A folder says of a model what its shapes do not: heads and sizes come back from config.json alone. */
static void hugging_face_folder(void **state)
{
    static const char *const names[] = {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"};
    static const char *const files[] = {FOLDER "vid_teacher.pth.tar", FOLDER "aud_teacher.pth.tar"};
    xkd_context *cx = xkd_context_new();
    char *yaml = NULL, path[128];
    int64_t size;
    (void)state;
    assert_int_equal(xkd_read_file(cx, "tests/data/backbone.yaml", 1 << 20, XKD_ERR_CONFIG, &yaml, &size), XKD_OK);
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        char folder[] = "/tmp/xkd-folder-XXXXXX";
        const xkd_metadata_item metadata = {"xkd.config", yaml};
        xkd_tensor_file file;
        xkd_content content;
        xkd_config config;
        xkd_encoder e;
        bool has[XKD_MODALITIES];
        assert_non_null(mkdtemp(folder));
        assert_int_equal(xkd_tensor_file_open(cx, files[m], &file), XKD_OK);
        assert_int_equal(xkd_content_identify(cx, &file, &content), XKD_OK);
        if (xkd_hf_folder_write(cx, folder, &content, &metadata, 1, NULL, 0) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        /* Without the metadata, which say the same. */
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        xkd_tensor_item items[64];
        for (int64_t i = 0; i < content.count; i++) {
            const xkd_stored_tensor *t = &content.tensors[i];
            items[i] = (xkd_tensor_item){t->name, t->dtype, t->shape, t->data};
        }
        assert_int_equal(xkd_safetensors_write(cx, path, items, content.count, NULL, 0), XKD_OK);
        xkd_encoder_source source = {.path = folder, .modality = m};
        if (xkd_encoder_load(cx, &source, &host, &e) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        assert_int_equal(e.backbone.blocks.heads, 2);
        assert_int_equal(xkd_config_init(cx, &config), XKD_OK);
        assert_int_equal(xkd_encoder_describe(cx, folder, &config, has), XKD_OK);
        assert_true(has[m] && !has[!m]);
        assert_int_equal(m == XKD_VIDEO ? config.data.crop_size : config.data.n_mels, m == XKD_VIDEO ? 32 : 16);
        xkd_config_free(&config);
        xkd_encoder_free(&e);
        xkd_content_free(&content);
        xkd_tensor_file_close(&file);
        for (int i = 0; i < 4; i++) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]);
            assert_int_equal(unlink(path), 0);
        }
        rmdir(folder);
    }
    xkd_free(yaml);
    xkd_context_free(cx);
}

static void loading_is_strict(void **state)
{
    (void)state;
    try_changed(NULL, NULL, XKD_VIDEO, XKD_OK);
    try_changed("encoder.blocks.0.norm2.bias", NULL, XKD_VIDEO, XKD_ERR_CHECKPOINT);
    try_changed("encoder_norm.weight", NULL, XKD_VIDEO, XKD_ERR_CHECKPOINT);
    try_changed(NULL, "encoder.extra", XKD_VIDEO, XKD_ERR_CHECKPOINT);
    try_changed(NULL, "encoder.blocks.2.norm1.weight", XKD_VIDEO, XKD_ERR_CHECKPOINT);
    try_changed(NULL, NULL, XKD_AUDIO, XKD_ERR_CHECKPOINT);
    /* Without the geometry the released models' is assumed, and that does not fit. */
    xkd_context *cx = xkd_context_new();
    xkd_encoder e;
    xkd_encoder_source source = {.path = FOLDER "vid_teacher.safetensors"};
    assert_int_equal(xkd_encoder_load(cx, &source, &host, &e), XKD_ERR_CONFIG);
    xkd_encoder_free(&e);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(features_of_every_file_and_backend),
                                       cmocka_unit_test(layers_and_tokens), cmocka_unit_test(loading_is_strict), cmocka_unit_test(hugging_face_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
