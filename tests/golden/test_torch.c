/* PyTorch files recorded with what they hold: both forms read to the same tensors, round trips are bit-exact, hostile
 * files are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/alloc.h"
#include "checkpoint/tensor_file.h"

#define FOLDER "tests/golden/torch/"

static xkd_tensor_file open_file(xkd_context *cx, const char *path)
{
    xkd_tensor_file file;
    if (xkd_tensor_file_open(cx, path, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return file;
}

static void recorded_tensors(void **state)
{
    xkd_context *cx = xkd_context_new();
    json_error_t error;
    xkd_tensor_file file = open_file(cx, *state), expected = open_file(cx, FOLDER "state.safetensors");
    json_t *types = json_load_file(FOLDER "state.json", 0, &error);
    assert_int_equal(file.count, 11);
    assert_int_equal(json_object_size(types), 11);
    for (int64_t i = 0; i < file.count; i++) {
        const xkd_stored_tensor *t = &file.tensors[i], *e = xkd_tensor_file_find(&expected, t->name);
        json_t *type = json_object_get(types, t->name);
        assert_non_null(e);
        assert_string_equal(xkd_dtype_name(t->dtype), json_string_value(json_object_get(type, "dtype")));
        assert_int_equal(json_array_size(json_object_get(type, "shape")), t->shape.ndim);
        for (int k = 0; k < t->shape.ndim; k++)
            assert_int_equal(json_integer_value(json_array_get(json_object_get(type, "shape"), (size_t)k)),
                             t->shape.dims[k]);
        assert_true(xkd_shape_equal(&t->shape, &e->shape));
        for (int64_t k = 0; k < xkd_shape_count(&t->shape); k++)
            assert_true((float)xkd_element(t->dtype, t->data, k) == ((const float *)e->data)[k]);
    }
    json_decref(types);
    xkd_tensor_file_close(&file);
    xkd_tensor_file_close(&expected);
    xkd_context_free(cx);
}

static void training_checkpoint(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file = open_file(cx, FOLDER "checkpoint.pth.tar");
    xkd_tensor_file model = open_file(cx, FOLDER "checkpoint_model.safetensors");
    char name[64];
    (void)state;
    for (int64_t i = 0; i < model.count; i++) {
        snprintf(name, sizeof name, "model.module.%s", model.tensors[i].name);
        const xkd_stored_tensor *t = xkd_tensor_file_find(&file, name);
        assert_non_null(t);
        assert_int_equal(t->bytes, model.tensors[i].bytes);
        assert_memory_equal(t->data, model.tensors[i].data, (size_t)t->bytes);
    }
    assert_non_null(xkd_tensor_file_find(&file, "optimizer.state.0.exp_avg"));
    int found = 0;
    for (int64_t i = 0; i < file.note_count; i++) found += strcmp(file.notes[i].name, "epoch") == 0;
    assert_int_equal(found, 1);
    xkd_tensor_file_close(&file);
    xkd_tensor_file_close(&model);
    xkd_context_free(cx);
}

/* _metadata of an OrderedDict is read and dropped. */
static void module_state(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file = open_file(cx, FOLDER "module_state.pth");
    (void)state;
    assert_true(file.count > 0);
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
}

static void hostile(void **state)
{
    static const struct {
        const char *path, *says;
    } files[] = {
        {FOLDER "hostile_builtin.pth", "__builtin__.eval"},
        {FOLDER "hostile_reduce.pth", "posix.system"},
        {FOLDER "hostile_truncated.pth", "zip"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        xkd_context *cx = xkd_context_new();
        xkd_tensor_file file;
        assert_int_equal(xkd_tensor_file_open(cx, files[i].path, &file), XKD_ERR_CHECKPOINT);
        assert_non_null(strstr(xkd_last_error(cx), files[i].says));
        assert_non_null(strstr(xkd_last_error(cx), files[i].path));
        xkd_tensor_file_close(&file);
        xkd_context_free(cx);
    }
    assert_int_not_equal(access("pwned", F_OK), 0);
}

static void round_trip(xkd_context *cx, const xkd_tensor_file *file, xkd_file_kind kind, bool without_bfloat16)
{
    xkd_tensor_item items[16];
    int64_t count = 0;
    char path[] = "/tmp/xkd-torch-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    for (int64_t i = 0; i < file->count; i++) {
        const xkd_stored_tensor *t = &file->tensors[i];
        if (!without_bfloat16 || t->dtype != XKD_BF16)
            items[count++] = (xkd_tensor_item){t->name, t->dtype, t->shape, t->data};
    }
    assert_int_equal(xkd_tensor_file_write(cx, path, kind, items, count, NULL, 0), XKD_OK);
    xkd_tensor_file again = open_file(cx, path);
    assert_int_equal(again.kind, kind);
    assert_int_equal(again.count, count);
    for (int64_t i = 0; i < count; i++) {
        const xkd_stored_tensor *t = xkd_tensor_file_find(&again, items[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, items[i].dtype);
        assert_true(xkd_shape_equal(&t->shape, &items[i].shape));
        assert_memory_equal(t->data, items[i].data, (size_t)t->bytes);
    }
    xkd_tensor_file_close(&again);
    unlink(path);
}

static void round_trips(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file = open_file(cx, FOLDER "state.pth");
    (void)state;
    round_trip(cx, &file, XKD_FILE_SAFETENSORS, false);
    round_trip(cx, &file, XKD_FILE_TORCH, false);
    round_trip(cx, &file, XKD_FILE_NPZ, true);
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
}

static void npy_holds_one(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file = open_file(cx, FOLDER "state.pth");
    const xkd_stored_tensor *w = xkd_tensor_file_find(&file, "view.t");
    xkd_tensor_item item = {w->name, w->dtype, w->shape, w->data};
    char path[] = "/tmp/xkd-npy-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    close(fd);
    assert_int_equal(xkd_tensor_file_write(cx, path, XKD_FILE_NPY, &item, 1, NULL, 0), XKD_OK);
    xkd_tensor_file again = open_file(cx, path);
    assert_int_equal(again.kind, XKD_FILE_NPY);
    assert_int_equal(again.tensors[0].shape.dims[0], 10);
    assert_memory_equal(again.tensors[0].data, w->data, (size_t)w->bytes);
    assert_int_equal(xkd_tensor_file_write(cx, path, XKD_FILE_NPY, &item, 0, NULL, 0), XKD_ERR_CONFIG);
    unlink(path);
    xkd_tensor_file_close(&again);
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
}

/* The released-style backbones come as safetensors and as .pth.tar of the same tensors. */
static void backbones(void **state)
{
    static const char *const names[] = {"vid_teacher", "aud_teacher"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        xkd_context *cx = xkd_context_new();
        char a[128], b[128];
        snprintf(a, sizeof a, "tests/golden/backbone/%s.pth.tar", names[k]);
        snprintf(b, sizeof b, "tests/golden/backbone/%s.safetensors", names[k]);
        xkd_tensor_file torch = open_file(cx, a), safe = open_file(cx, b);
        assert_int_equal(torch.count, safe.count);
        for (int64_t i = 0; i < torch.count; i++) {
            const xkd_stored_tensor *t = xkd_tensor_file_find(&safe, torch.tensors[i].name);
            assert_non_null(t);
            assert_int_equal(t->bytes, torch.tensors[i].bytes);
            assert_memory_equal(t->data, torch.tensors[i].data, (size_t)t->bytes);
        }
        xkd_tensor_file_close(&torch);
        xkd_tensor_file_close(&safe);
        xkd_context_free(cx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"zip form", recorded_tensors, NULL, NULL, FOLDER "state.pth"},
        {"older form", recorded_tensors, NULL, NULL, FOLDER "legacy.pth"},
        cmocka_unit_test(training_checkpoint),
        cmocka_unit_test(module_state),
        cmocka_unit_test(hostile),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(npy_holds_one),
        cmocka_unit_test(backbones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
