/* A model in parts, as hubs keep them: read by its folder or its index; names that lead elsewhere, and indexes that are
 * wrong, are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/tensor_file.h"

static char root[] = "/tmp/xkd-test-shards-XXXXXX";
static xkd_context *cx;

static const char *path_of(const char *name)
{
    static char path[4][200];
    static int at;
    at = (at + 1) % 4;
    snprintf(path[at], sizeof path[at], "%s/%s", root, name);
    return path[at];
}

/* One tensor of one number. */
static void put_part(const char *name, const char *tensor, float value, xkd_file_kind kind)
{
    const xkd_tensor_item item = {tensor, XKD_F32, {1, {1}}, &value};
    assert_int_equal(xkd_tensor_file_write(cx, path_of(name), kind, &item, 1, NULL, 0), XKD_OK);
}

static void put_index(const char *name, const char *text)
{
    assert_int_equal(xkd_write_file(cx, path_of(name), text, (int64_t)strlen(text)), XKD_OK);
}

static int empty(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", root, root);
    return system(command);
}

static float value_of(const xkd_tensor_file *file, const char *name)
{
    const xkd_stored_tensor *t = xkd_tensor_file_find(file, name);
    assert_non_null(t);
    return *(const float *)t->data;
}

static void parts_are_one_model(void **state)
{
    (void)state;
    static const char index[] = "{\"metadata\": {\"total_size\": 8},\n \"weight_map\": {\"a\": \"%s\", \"b\": \"%s\"}}";
    const struct {
        const char *one, *two, *index;
        xkd_file_kind kind;
    } forms[] = {{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                  "model.safetensors.index.json", XKD_FILE_SAFETENSORS},
                 {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
                  "pytorch_model.bin.index.json", XKD_FILE_TORCH}};
    for (int f = 0; f < 2; f++) {
        char text[400];
        empty(NULL);
        put_part(forms[f].one, "a", 1, forms[f].kind);
        put_part(forms[f].two, "b", 2, forms[f].kind);
        snprintf(text, sizeof text, index, forms[f].one, forms[f].two);
        put_index(forms[f].index, text);
        for (int by_folder = 0; by_folder < 2; by_folder++) {
            xkd_tensor_file file;
            if (xkd_tensor_file_open(cx, by_folder ? root : path_of(forms[f].index), &file) != XKD_OK)
                fail_msg("%s", xkd_last_error(cx));
            assert_int_equal(file.kind, XKD_FILE_SHARDS);
            assert_int_equal(file.count, 2);
            assert_true(value_of(&file, "a") == 1 && value_of(&file, "b") == 2 && file.checksummed);
            xkd_tensor_file_close(&file);
        }
    }
}

static void one_file_of_a_hub(void **state)
{
    (void)state;
    xkd_tensor_file file;
    put_part("pytorch_model.bin", "a", 3, XKD_FILE_TORCH);
    assert_int_equal(xkd_tensor_file_open(cx, root, &file), XKD_OK);
    assert_true(value_of(&file, "a") == 3);
    xkd_tensor_file_close(&file);
    put_part("model.safetensors", "a", 4, XKD_FILE_SAFETENSORS);
    assert_int_equal(xkd_tensor_file_open(cx, root, &file), XKD_OK);
    assert_true(value_of(&file, "a") == 4);
    xkd_tensor_file_close(&file);
}

static void what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *message;
        xkd_status status;
    } cases[] = {
        {"{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "only files beside the index", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "only files beside the index", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"..\"}}", "only files beside the index", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"sub/one\"}}", "only files beside the index", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"\"}}", "only files beside the index", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": 3}}", "the part of 'a' is no name", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"c\": \"one\"}}", "'c' is not in", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"two\"}}", "'a' is not in", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"one\", \"x\": \"again\"}}", "'x' is not in", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"again\", \"b\": \"two\", \"a\": \"one\"}}", "JSON without", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"index\"}}", "and an index itself", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}", "and an index itself", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": {\"a\": \"gone\"}}", "cannot open", XKD_ERR_STORAGE},
        {"{\"weight_map\": {}}", "JSON without the \"weight_map\"", XKD_ERR_CHECKPOINT},
        {"{\"model_type\": \"xkd\"}", "JSON without the \"weight_map\"", XKD_ERR_CHECKPOINT},
        {"{\"weight_map\": ", "JSON without the \"weight_map\"", XKD_ERR_CHECKPOINT},
    };
    put_part("one", "a", 1, XKD_FILE_SAFETENSORS);
    put_part("again", "a", 1, XKD_FILE_SAFETENSORS);
    put_part("two", "b", 2, XKD_FILE_SAFETENSORS);
    put_index("index", "{\"weight_map\": {\"a\": \"one\"}}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xkd_tensor_file file;
        put_index("model.safetensors.index.json", cases[i].index);
        xkd_status status = xkd_tensor_file_open(cx, root, &file);
        if (status != cases[i].status || !strstr(xkd_last_error(cx), cases[i].message))
            fail_msg("%s: %d %s", cases[i].index, status, xkd_last_error(cx));
        xkd_clear_error(cx);
        xkd_tensor_file_close(&file);
    }
    /* The same tensor in two parts that are both wanted. */
    xkd_tensor_file file;
    const xkd_tensor_item both[] = {{"a", XKD_F32, {1, {1}}, &(float){1}}, {"b", XKD_F32, {1, {1}}, &(float){2}}};
    assert_int_equal(xkd_tensor_file_write(cx, path_of("both"), XKD_FILE_SAFETENSORS, both, 2, NULL, 0), XKD_OK);
    put_index("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"one\", \"b\": \"both\"}}");
    assert_int_equal(xkd_tensor_file_open(cx, root, &file), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "two tensors are called 'a'"));
    xkd_clear_error(cx);
    xkd_tensor_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(parts_are_one_model, empty),
        cmocka_unit_test_setup(one_file_of_a_hub, empty),
        cmocka_unit_test_setup(what_is_refused, empty),
    };
    cx = xkd_context_new();
    if (!cx || !mkdtemp(root)) return 1;
    int failed = cmocka_run_group_tests_name("shards", tests, NULL, NULL);
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    xkd_context_free(cx);
    return system(command) || failed;
}
