/* Tensor files: what is written is read back, and files made to hurt are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"

static char path[64];

static int setup(void **state)
{
    *state = xkd_context_new();
    snprintf(path, sizeof path, "/tmp/xkd-test-tensors-%d", (int)getpid());
    return *state == NULL;
}

static int teardown(void **state)
{
    unlink(path);
    xkd_context_free(*state);
    return 0;
}

static void write_sample(xkd_context *cx)
{
    static const float numbers[6] = {1, 2, 3, 4, 5, 6};
    static const uint8_t bytes[3] = {7, 8, 9};
    static const double real = 0.25;
    const xkd_tensor_item items[] = {{"bytes", XKD_U8, {1, {3}}, bytes},
                                     {"a.weight", XKD_F32, {2, {2, 3}}, numbers},
                                     {"scalar", XKD_F64, {0}, &real},
                                     {"empty", XKD_F32, {2, {0, 4}}, NULL}};
    const xkd_metadata_item metadata[] = {{"step", "12"}, {"config", "a: \"b\"\nc: \xc3\xa4\n"}};
    assert_int_equal(xkd_safetensors_write(cx, path, items, 4, metadata, 2), XKD_OK);
}

static void test_round_trip(void **state)
{
    xkd_context *cx = *state;
    xkd_safetensors *file;
    int present;
    write_sample(cx);
    assert_int_equal(xkd_safetensors_open(cx, path, &file), XKD_OK);
    assert_int_equal(xkd_safetensors_count(file), 4);
    const xkd_stored_tensor *t = xkd_safetensors_find(file, "a.weight");
    assert_non_null(t);
    assert_int_equal(t->shape.ndim, 2);
    assert_int_equal(t->shape.dims[1], 3);
    assert_true(((const float *)t->data)[5] == 6);
    assert_int_equal(((const uint8_t *)xkd_safetensors_find(file, "bytes")->data)[2], 9);
    assert_true(*(const double *)xkd_safetensors_find(file, "scalar")->data == 0.25);
    assert_int_equal(xkd_safetensors_find(file, "empty")->bytes, 0);
    assert_null(xkd_safetensors_find(file, "b"));
    assert_string_equal(xkd_safetensors_metadata(file, "config"), "a: \"b\"\nc: \xc3\xa4\n");
    assert_null(xkd_safetensors_metadata(file, "none"));
    assert_int_equal(xkd_safetensors_verify(cx, file, &present), XKD_OK);
    assert_int_equal(present, 1);
    xkd_safetensors_close(file);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    xkd_context *cx = *state;
    char *bytes;
    int64_t size;
    write_sample(cx);
    assert_int_equal(xkd_read_file(cx, path, 1 << 20, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    for (int64_t i = 0; i < size * 8; i++) {
        xkd_safetensors *file;
        bytes[i / 8] ^= (char)(1 << i % 8);
        assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
        bytes[i / 8] ^= (char)(1 << i % 8);
        int present = 0;
        xkd_status status = xkd_safetensors_open(cx, path, &file);
        if (status == XKD_OK) status = xkd_safetensors_verify(cx, file, &present);
        /* A flip within the checksum's key makes it a file of another program: readable, without a sum. */
        assert_true(status == XKD_ERR_CHECKPOINT || (status == XKD_OK && !present));
        xkd_safetensors_close(file);
        i += 4; /* a fifth of the bits: each is a file on disk with two fsyncs */
    }
    xkd_free(bytes);
}

static void test_bad_names_are_not_written(void **state)
{
    xkd_context *cx = *state;
    const float x = 1;
    const xkd_tensor_item items[] = {{"a", XKD_F32, {0}, &x}, {"a", XKD_F32, {0}, &x}};
    const xkd_tensor_item others[] = {
        {"__metadata__", XKD_F32, {0}, &x}, {"a\nb", XKD_F32, {0}, &x}, {"\xff", XKD_F32, {0}, &x}};
    assert_int_equal(xkd_safetensors_write(cx, path, items, 2, NULL, 0), XKD_ERR_CONFIG);
    for (int i = 0; i < 3; i++)
        assert_int_equal(xkd_safetensors_write(cx, path, &others[i], 1, NULL, 0), XKD_ERR_CONFIG);
}

static xkd_status open_text(xkd_context *cx, const char *header, int64_t length, int64_t data)
{
    char buffer[4096] = {0};
    int64_t size = (int64_t)strlen(header);
    for (int i = 0; i < 8; i++) buffer[i] = (char)((uint64_t)length >> (8 * i));
    memcpy(buffer + 8, header, (size_t)size);
    assert_int_equal(xkd_write_file(cx, path, buffer, 8 + size + data), XKD_OK);
    xkd_safetensors *file;
    xkd_clear_error(cx);
    xkd_status status = xkd_safetensors_open(cx, path, &file);
    xkd_safetensors_close(file);
    return status;
}

#define ENTRY(dtype, shape, range) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

static void test_hostile_files(void **state)
{
    xkd_context *cx = *state;
    static const struct {
        const char *header;
        int64_t data;
        const char *message;
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{\"a\":1", 0, "header:"},
        {"{\"a\":1}", 0, "not an object of dtype"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "duplicate"},
        {"{\"a\":" ENTRY("F99", "[1]", "[0,4]") "}", 4, "unknown dtype"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,4]") "}", 4, "do not hold its shape"},
        {"{\"a\":" ENTRY("F32", "[1.0]", "[0,4]") "}", 4, "not an unsigned integer"},
        {"{\"a\":" ENTRY("F32", "[-1]", "[0,4]") "}", 4, "unsigned integers"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,8]") "}", 4, "within the file"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4,0]") "}", 4, "within the file"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,99999999999999999999]") "}", 4, "header:"},
        {"{\"a\":" ENTRY("F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "do not hold its shape"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "overlaps"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", 8, "overlaps"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 5, "behind the last"},
        {"{\"a\\u0007\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "control characters"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "not a string"},
        {"{\"__metadata__\":[]}", 0, "not an object"},
        {"{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "at most 8 sizes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t length = (int64_t)strlen(cases[i].header);
        assert_int_equal(open_text(cx, cases[i].header, length, cases[i].data), XKD_ERR_CHECKPOINT);
        if (!strstr(xkd_last_error(cx), cases[i].message)) fail_msg("case %zu: %s", i, xkd_last_error(cx));
        if (!strstr(xkd_last_error(cx), path)) fail_msg("case %zu does not name the file", i);
    }
    assert_int_equal(open_text(cx, "{}", INT64_MAX, 0), XKD_ERR_CHECKPOINT);
    assert_int_equal(open_text(cx, "{}", 200, 0), XKD_ERR_CHECKPOINT);
    assert_int_equal(open_text(cx, "{}", -1, 0), XKD_ERR_CHECKPOINT);
    assert_int_equal(open_text(cx, "{}", 2, 0), XKD_OK);
    assert_int_equal(xkd_write_file(cx, path, "abc", 3), XKD_OK);
    xkd_safetensors *file;
    assert_int_equal(xkd_safetensors_open(cx, path, &file), XKD_ERR_CHECKPOINT);
    assert_int_equal(xkd_safetensors_open(cx, "/nonexistent", &file), XKD_ERR_STORAGE);
}

static void test_misaligned_data_is_copied(void **state)
{
    xkd_context *cx = *state;
    /* One byte before a float: legal in the format, but not readable in place. */
    static const char header[] = "{\"b\":" ENTRY("U8", "[1]", "[0,1]") ",\"f\":" ENTRY("F32", "[1]", "[1,5]") "}";
    char buffer[512] = {(char)(sizeof header - 1)};
    const float value = 2.5f;
    memcpy(buffer + 8, header, sizeof header - 1);
    memcpy(buffer + 8 + sizeof header - 1 + 1, &value, 4);
    assert_int_equal(xkd_write_file(cx, path, buffer, 8 + (int64_t)sizeof header - 1 + 5), XKD_OK);
    xkd_safetensors *file;
    int present = 1;
    assert_int_equal(xkd_safetensors_open(cx, path, &file), XKD_OK);
    const xkd_stored_tensor *t = xkd_safetensors_find(file, "f");
    assert_int_equal((uintptr_t)t->data % 4, 0);
    assert_true(*(const float *)t->data == value);
    assert_int_equal(xkd_safetensors_verify(cx, file, &present), XKD_OK);
    assert_int_equal(present, 0);
    xkd_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_bad_names_are_not_written),
        cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_misaligned_data_is_copied),
    };
    return cmocka_run_group_tests_name("safetensors", tests, setup, teardown);
}
