/* Feature files and the log of an unfinished embedding: what somebody else's file may say, and what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/tensor_file.h"
#include "eval/encode/embed_log.h"
#include "eval/encode/embeddings.h"

static void must(xkd_context *cx, xkd_status status, const char *what)
{
    if (status != XKD_OK) fail_msg("%s: %s", what, xkd_last_error(cx));
}

/* Reads a feature file of one clip whose files and classes are these. */
static xkd_status read_about(xkd_context *cx, const char *path, const char *classes, const char *file)
{
    char about[512];
    float x[2] = {1, 2};
    int64_t of[1] = {0};
    double seconds[1] = {0};
    snprintf(about, sizeof about,
             "{\"xkd_embeddings\":1,\"pool\":\"mean\",\"layer\":-1,\"recipe\":\"0\",\"model\":{},\"classes\":[%s],"
             "\"files\":[%s]}",
             classes, file);
    const xkd_tensor_item items[] = {{"video", XKD_F32, {2, {1, 2}}, x},
                                     {"video.file", XKD_I64, {1, {1}}, of},
                                     {"video.seconds", XKD_F64, {1, {1}}, seconds},
                                     {"about", XKD_U8, {1, {(int64_t)strlen(about)}}, about}};
    must(cx, xkd_tensor_file_write(cx, path, XKD_FILE_SAFETENSORS, items, 4, NULL, 0), "write");
    xkd_embeddings e;
    xkd_status status = xkd_embeddings_read(cx, path, &e);
    xkd_embeddings_free(&e);
    return status;
}

/* Labels are indices later, so every one is in range: of the classes, or of int32 where there are none. */
static void labels_in_range(void **state)
{
    (void)state;
    static const struct {
        const char *classes, *file;
        bool good;
    } cases[] = {{"\"a\",\"b\"", "[\"v.mp4\",1,\"train\"]", true},
                 {"\"a\",\"b\"", "[\"v.mp4\",-1,\"train\"]", true},
                 {"\"a\",\"b\"", "[\"v.mp4\",2,\"train\"]", false},
                 {"\"a\",\"b\"", "[\"v.mp4\",-1,\"train\",[0,2]]", false},
                 {"", "[\"v.mp4\",7,\"train\"]", true},
                 {"", "[\"v.mp4\",-2,\"train\"]", false},
                 {"", "[\"v.mp4\",2147483647,\"train\"]", false},
                 {"", "[\"v.mp4\",4294967295,\"train\"]", false},
                 {"", "[\"v.mp4\",4611686018427387904,\"train\"]", false},
                 {"", "[\"v.mp4\",-1,\"train\",[2147483647]]", false}};
    xkd_context *cx = xkd_context_new();
    char path[] = "/tmp/xkd-features-XXXXXX";
    close(mkstemp(path));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xkd_status status = read_about(cx, path, cases[i].classes, cases[i].file);
        if (status != (cases[i].good ? XKD_OK : XKD_ERR_DATA))
            fail_msg("%s of [%s]: status %d, %s", cases[i].file, cases[i].classes, status, xkd_last_error(cx));
        if (!cases[i].good) assert_non_null(strstr(xkd_last_error(cx), path));
        xkd_clear_error(cx);
    }
    unlink(path);
    xkd_context_free(cx);
}

/* A crash may leave pages of any content at the end. 0xFF is a payload of -1 bytes, which bad counts give as well. */
static void torn_ends(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    char path[] = "/tmp/xkd-log-XXXXXX";
    close(mkstemp(path));
    const xkd_embed_log_head head = {.size = {3, 0}, .settings = 5};
    float feature[] = {1, 2, 3, 4, 5, 6};
    double seconds[] = {0, 1}, damage[] = {0.25, 0};
    const xkd_embedded file = {.count = {2, 0}, .feature = {feature}, .seconds = {seconds}, .damage = {damage}};
    xkd_embed_log *log;
    xkd_embed_record r;
    struct stat whole, cut;
    bool found;
    must(cx, xkd_embed_log_open(cx, path, &head, true, &log), "open");
    must(cx, xkd_embed_log_add(log, 7, 11, &file, NULL), "add");
    xkd_embed_log_close(log);
    assert_int_equal(stat(path, &whole), 0);
    static const int fills[] = {0xFF, 0x7F, 0x80, 0};
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        char tail[4096];
        memset(tail, fills[i], sizeof tail);
        FILE *f = fopen(path, "ab");
        assert_int_equal(fwrite(tail, 1, sizeof tail, f), sizeof tail);
        fclose(f);
        must(cx, xkd_embed_log_open(cx, path, &head, false, &log), "open the torn log");
        must(cx, xkd_embed_log_next(log, true, &r, &found), "next");
        assert_true(found && r.number == 7 && r.identity == 11 && r.count[0] == 2 && r.feature[0][5] == 6 &&
                    r.seconds[0][1] == 1 && r.damage[0][0] == 0.25 && r.damage[0][1] == 0);
        must(cx, xkd_embed_log_next(log, false, &r, &found), "next");
        assert_false(found);
        xkd_embed_log_close(log);
        assert_int_equal(stat(path, &cut), 0);
        assert_int_equal(cut.st_size, whole.st_size);
    }
    unlink(path);
    xkd_context_free(cx);
}

/* A log of the earlier form cannot be gone on with, and may hold days of work: it is not touched. */
static void earlier_logs_stay(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    char path[] = "/tmp/xkd-log-XXXXXX", text[100] = "xkdlog3";
    const xkd_embed_log_head head = {.size = {3, 0}, .settings = 5};
    xkd_embed_log *log;
    struct stat after;
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    close(fd);
    assert_int_equal(xkd_embed_log_open(cx, path, &head, false, &log), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "by an earlier version"));
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, sizeof text);
    xkd_clear_error(cx);
    must(cx, xkd_embed_log_open(cx, path, &head, true, &log), "start anew");
    xkd_embed_log_close(log);
    unlink(path);
    xkd_context_free(cx);
}

/* Damage comes back from every form that holds paths; without any there is no trace of it in the file. */
static void damage_comes_back(void **state)
{
    static const char *const ENDINGS[] = {"safetensors", "npz", "jsonl"};
    (void)state;
    xkd_context *cx = xkd_context_new();
    char folder[] = "/tmp/xkd-features-XXXXXX", path[200], *bytes;
    assert_non_null(mkdtemp(folder));
    for (int form = 0; form < 3; form++) {
        for (int damaged = 0; damaged < 2; damaged++) {
            xkd_embeddings e = {.kind = XKD_FEATURE_MEAN, .layer = -1}, back;
            xkd_sample *s;
            int64_t size;
            must(cx, xkd_manifest_add(cx, &e.files, "a.mp4", &s), "file");
            e.table[XKD_AUDIO].rows = 1;
            e.table[XKD_AUDIO].width = 2;
            for (int i = 0; i < 3; i++) {
                const float x[] = {(float)i, 1};
                const xkd_feature_row row = {0, i, damaged * i / 8.0, x};
                must(cx, xkd_embeddings_add(cx, &e.table[XKD_AUDIO], &row), "clip");
            }
            assert_int_equal(xkd_embeddings_damaged(&e.table[XKD_AUDIO], 0.1), 2 * damaged);
            assert_int_equal(xkd_embeddings_damaged(&e.table[XKD_AUDIO], 0.125), damaged);
            snprintf(path, sizeof path, "%s/%d.%s", folder, damaged, ENDINGS[form]);
            xkd_embeddings_form kind;
            must(cx, xkd_embeddings_form_of(cx, path, &kind), "form");
            must(cx, xkd_embeddings_write(cx, &e, path, kind), "write");
            must(cx, xkd_embeddings_read(cx, path, &back), "read");
            for (int i = 0; i < 3; i++)
                assert_true(back.table[XKD_AUDIO].damage[i] == damaged * i / 8.0 &&
                            back.table[XKD_AUDIO].seconds[i] == i);
            must(cx, xkd_read_file(cx, path, 1 << 20, XKD_ERR_DATA, &bytes, &size), "bytes");
            assert_int_equal(memmem(bytes, (size_t)size, "damage", 6) != NULL, damaged);
            xkd_free(bytes);
            xkd_embeddings_free(&e);
            xkd_embeddings_free(&back);
            unlink(path);
        }
    }
    rmdir(folder);
    xkd_context_free(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(labels_in_range), cmocka_unit_test(torn_ends),
                                       cmocka_unit_test(earlier_logs_stay), cmocka_unit_test(damage_comes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
