/* Every hostile tensor file that scripts/make-hostile made: refused with XKD_ERR_CHECKPOINT, its own words, its path,
 * in under a second, and nothing written. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "checkpoint/content.h"

#define FOLDER "tests/failure/hostile/"

static int refused(const char *path, const char *words)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file;
    double start = xkd_now();
    xkd_status status = xkd_tensor_file_open(cx, path, &file);
    const char *says = xkd_last_error(cx);
    /* The words must come behind the path: a path may contain them. */
    const char *behind = strncmp(says, path, strlen(path)) == 0 ? says + strlen(path) : "";
    int good = status == XKD_ERR_CHECKPOINT && strstr(behind, words) && xkd_now() - start < 1;
    if (!good) print_message("%s: status %d, \"%s\", wanted \"%s\"\n", path, status, says, words);
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
    return good;
}

static void all_are_refused(void **state)
{
    char line[512], path[600];
    int count = 0, good = 0;
    FILE *list = fopen(FOLDER "expected.tsv", "r");
    (void)state;
    assert_non_null(list);
    while (fgets(line, sizeof line, list)) {
        char *words = strchr(line, '\t');
        assert_non_null(words);
        *words++ = 0;
        words[strcspn(words, "\n")] = 0;
        snprintf(path, sizeof path, FOLDER "%s", line);
        good += refused(path, words);
        count++;
    }
    fclose(list);
    assert_true(count >= 245);
    assert_int_equal(good, count);
    assert_int_not_equal(access("pwned", F_OK), 0);
}

/* 1, 2, 3, ... in every tensor. */
static int read_well(const char *path)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file;
    int good = xkd_tensor_file_open(cx, path, &file) == XKD_OK && file.count > 0;
    for (int64_t i = 0; good && i < file.count; i++)
        for (int64_t k = 0; k < xkd_shape_count(&file.tensors[i].shape); k++)
            good &= xkd_element(file.tensors[i].dtype, file.tensors[i].data, k) == (double)(k + 1);
    if (!good) print_message("%s: \"%s\"\n", path, xkd_last_error(cx));
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
    return good;
}

/* What scripts/make-hostile keeps beside them is unusual but right: strictness must not grow into refusing it. */
static void neighbours_are_read(void **state)
{
    static const char *const targets[] = {"torch", "npy", "safetensors"};
    char folder[64], path[400];
    int count = 0, good = 0;
    (void)state;
    for (int k = 0; k < 3; k++) {
        snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", targets[k]);
        DIR *list = opendir(folder);
        assert_non_null(list);
        for (const struct dirent *e; (e = readdir(list));) {
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            good += read_well(path);
            count++;
        }
        closedir(list);
    }
    assert_true(count >= 32);
    assert_int_equal(good, count);
}

/* Nothing of a checkpoint is lost without a word: what names cannot be made of is told. */
static void what_is_passed_over_is_told(void **state)
{
    static const char *const files[][2] = {{"odd-keys", "passed over (items whose keys are neither text nor integers)"},
                                           {"range", "passed over (__builtin__.xrange)"},
                                           {"layout", "passed over (torch.serialization._get_layout)"}};
    xkd_context *cx = xkd_context_new();
    (void)state;
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        char path[100];
        xkd_tensor_file file;
        const char *said = "";
        snprintf(path, sizeof path, "tests/fuzz/corpus/torch/%s", files[k][0]);
        assert_int_equal(xkd_tensor_file_open(cx, path, &file), XKD_OK);
        for (int64_t i = 0; i < file.note_count; i++)
            if (!strcmp(file.notes[i].name, "x")) said = file.notes[i].value;
        assert_string_equal(said, files[k][1]);
        xkd_tensor_file_close(&file);
    }
    xkd_context_free(cx);
}

/* Bytes that repeat, which would be large files: many values from little text. */
static void long_repetitions(void **state)
{
    /* Before the values: the older format's number, PROTO and a mark. */
#define LEGACY "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02("
#define TEN_TIMES "h\1h\1h\1h\1h\1h\1h\1h\1h\1h\1"
    static const struct {
        const char *lead;
        size_t size;
        const char *piece;
        int count;
        const char *words;
    } files[] = {{LEGACY, 18, "N", 600000, "values on the stack"},
                 {LEGACY, 18, "]", 600000, "values on the stack"},
                 {LEGACY "Nq\1", 21, "](" TEN_TIMES "e", 110000, "items"},
                 /* 2^24 bytes of header: as many as there may be. */
                 {"\0\0\0\1\0\0\0\0{\"a\":[ ", 15, "[],", 5592403, "values"}};
    char path[] = "/tmp/xkd-hostile-XXXXXX";
    int fd = mkstemp(path), good = 0;
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        FILE *out = fopen(path, "wb");
        fwrite(files[k].lead, 1, files[k].size, out);
        for (int i = 0; i < files[k].count; i++) fputs(files[k].piece, out);
        fclose(out);
        good += refused(path, files[k].words);
    }
    unlink(path);
    assert_int_equal(good, sizeof files / sizeof *files);
}

/* Cutting a good file at every length, and flipping every bit of its first kilobyte, must never crash and never yield
 * tensors that reach outside the file. */
static void cut_and_flipped(void **state)
{
    static const char *const files[] = {"tests/golden/torch/state.pth", "tests/golden/torch/legacy.pth",
                                        "tests/golden/torch/state.safetensors"};
    char path[] = "/tmp/xkd-hostile-XXXXXX", data[8192];
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    for (int k = 0; k < 3; k++) {
        FILE *in = fopen(files[k], "rb");
        size_t size = fread(data, 1, sizeof data, in);
        fclose(in);
        for (size_t i = 0; i < size + 1024 * 8; i += i < size ? 7 : 1) {
            xkd_context *cx = xkd_context_new();
            xkd_tensor_file file;
            xkd_content content = {0};
            size_t bit = i - size, cut = i < size ? i : size;
            if (i >= size) data[bit / 8] ^= (char)(1 << bit % 8);
            FILE *out = fopen(path, "wb");
            fwrite(data, 1, cut, out);
            fclose(out);
            if (xkd_tensor_file_open(cx, path, &file) == XKD_OK) {
                assert_true(i >= size);
                assert_true(xkd_content_identify(cx, &file, &content) == XKD_OK || xkd_last_error(cx)[0]);
                double sum = 0;
                for (int64_t t = 0; t < file.count; t++)
                    for (int64_t e = 0; e < xkd_shape_count(&file.tensors[t].shape); e++)
                        sum += xkd_element(file.tensors[t].dtype, file.tensors[t].data, e);
                (void)sum;
            } else {
                assert_true(xkd_last_error(cx)[0]);
            }
            xkd_content_free(&content);
            xkd_tensor_file_close(&file);
            xkd_context_free(cx);
            if (i >= size) data[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_are_refused), cmocka_unit_test(neighbours_are_read),
                                       cmocka_unit_test(what_is_passed_over_is_told),
                                       cmocka_unit_test(long_repetitions), cmocka_unit_test(cut_and_flipped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
