/* Manifests of many rows: read in parts by several threads, plain rows without a general reader of JSON, in little memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/manifest.h"
#include "data/manifest_row.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096];

enum { ROWS = 30000 }; /* 9 MB: more than one thread reads */

static const char *path_of(const char *name)
{
    static char path[2][5000];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void write_text(const char *name, xkd_text *t)
{
    assert_int_equal(t->status, XKD_OK);
    assert_int_equal(xkd_write_file(cx, path_of(name), t->data, t->size), XKD_OK);
    xkd_text_free(t);
}

/* Row i as it is written, with `more` at its end. Every seventh has rare facts. */
static void add_row(xkd_text *t, int64_t i, const char *label, const char *more)
{
    bool rare = i % 7 == 0;
    xkd_text_printf(t, "{\"path\":\"train/class_%02d/part_%03d/clip_%08d_001.mp4\",%s,\"split\":\"%s\"", (int)(i % 40),
                    (int)(i / 1000), (int)i, label, i % 5 ? "train" : "val");
    xkd_text_printf(t, ",\"video_start\":%s,\"video_seconds\":%d.5,\"fps\":29.97,\"width\":340,\"height\":256",
                    rare ? "-1.25" : "0.0", 3 + (int)(i % 4000));
    xkd_text_printf(t,
                    ",\"has_video\":true,\"has_audio\":true,\"probed\":true,\"video_last\":%d.466633,\"key_gap\":2.002",
                    1 + (int)(i % 4000));
    if (rare) xkd_text_printf(t, ",\"clock_step\":1.5,\"audio_track\":2");
    xkd_text_printf(t, ",\"audio_start\":0.0,\"audio_seconds\":10.007075,\"sample_rate\":44100,\"channels\":2");
    xkd_text_printf(t, ",\"bytes\":%d,\"modified\":17%017d%s}\n", (int)i, (int)i * 7919 % 999983, more);
}

static const char HEADER[] = "{\"xkd_manifest\":1,\"root\":\".\",\"classes\":[\"a\",\"b\",\"c\"]}\n";

/* Rows in an order of their own: i * 7 mod ROWS. */
static void write_rows(const char *name, const char *more)
{
    xkd_text t = xkd_text_make(cx);
    xkd_text_puts(&t, HEADER);
    for (int64_t i = 0; i < ROWS; i++) {
        char label[64];
        int64_t k = i * 7 % ROWS;
        snprintf(label, sizeof label, k % 11 ? "\"label\":%d" : "\"labels\":[%d,0]", (int)(k % 3));
        add_row(&t, k, label, more);
    }
    write_text(name, &t);
}

/* An unknown key sends a row to the general reader. */
static void plain_rows_are_read_as_all_others(void **state)
{
    xkd_manifest a, b;
    char *text[3];
    int64_t size[3];
    static const char *const NAMES[] = {"plain.jsonl", "a.jsonl", "b.jsonl"};
    (void)state;
    write_rows("plain.jsonl", "");
    write_rows("noted.jsonl", ",\"note\":\"mine\"");
    assert_int_equal(xkd_manifest_read(cx, path_of("plain.jsonl"), &a), XKD_OK);
    assert_int_equal(xkd_manifest_read(cx, path_of("noted.jsonl"), &b), XKD_OK);
    assert_int_equal(a.count, ROWS);
    assert_int_equal(xkd_manifest_write(cx, &a, path_of("a.jsonl"), NULL), XKD_OK);
    assert_int_equal(xkd_manifest_write(cx, &b, path_of("b.jsonl"), NULL), XKD_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(xkd_read_file(cx, path_of(NAMES[i]), 1 << 30, XKD_ERR_DATA, &text[i], &size[i]), XKD_OK);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(size[0], size[i]);
        assert_memory_equal(text[0], text[i], (size_t)size[0]);
    }
    for (int i = 0; i < 3; i++) xkd_free(text[i]);
    xkd_manifest_free(&a);
    xkd_manifest_free(&b);
}

static void a_row_takes_150_bytes(void **state)
{
    xkd_manifest m;
    xkd_text t = xkd_text_make(cx);
    (void)state;
    for (int64_t i = 0; i < ROWS; i++) add_row(&t, 7 * i + 1, "\"label\":1", "");
    write_text("usual.jsonl", &t);
    assert_int_equal(xkd_manifest_read(cx, path_of("usual.jsonl"), &m), XKD_OK);
    int64_t bytes = m.count * (int64_t)sizeof *m.samples + m.pieces.bytes, behind = 0;
    int64_t path = (int64_t)strlen(m.samples[0].path);
    print_message("# %.1f bytes a row, %d of them a path\n", (double)bytes / ROWS, (int)path);
    assert_true((int64_t)sizeof *m.samples + path + 1 <= 150);
    /* Nothing stands between a path and the next but where a piece of memory or a thread's part ends. */
    for (int64_t i = 1; i < m.count; i++) behind += m.samples[i].path == m.samples[i - 1].path + path + 1;
    assert_true(behind > ROWS - 1000);
    /* Pieces double, so that the last one of every thread is less than half empty before they have 4 MB. */
    assert_true(m.pieces.bytes <= 3 * m.count * (path + 1) + (64 << 10));
    assert_true(m.capacity <= m.count + m.count / 4 + 64);
    xkd_manifest_free(&m);
}

/* Classes by name are numbered by name, whichever thread meets them first. */
static void names_of_all_parts_are_one_list(void **state)
{
    xkd_manifest m;
    xkd_text t = xkd_text_make(cx);
    (void)state;
    for (int64_t i = 0; i < ROWS; i++) {
        char label[64];
        snprintf(label, sizeof label, "\"label\":\"%c%d\"", 'a' + (char)((ROWS - 1 - i) / 5000), (int)(i % 10));
        add_row(&t, i, label, "");
    }
    write_text("names.jsonl", &t);
    assert_int_equal(xkd_manifest_read(cx, path_of("names.jsonl"), &m), XKD_OK);
    assert_int_equal(m.class_count, 60);
    for (int64_t i = 0; i < ROWS; i++) assert_int_equal(m.samples[i].label, (ROWS - 1 - i) / 5000 * 10 + i % 10);
    xkd_manifest_free(&m);
}

static void refused(const char *name, const char *message)
{
    xkd_manifest m;
    assert_int_equal(xkd_manifest_read(cx, path_of(name), &m), XKD_ERR_DATA);
    if (!strstr(xkd_last_error(cx), message)) fail_msg("%s, not %s", xkd_last_error(cx), message);
    xkd_clear_error(cx);
}

/* The line counts from the file's beginning, whichever part it is in. */
static void faults_are_named_by_line(void **state)
{
    static const struct {
        int64_t at;
        const char *row, *message;
    } CASES[] = {
        {25000, "{\"path\":\"x.mp4\",\"label\":3}", ":25002: label 3 is out of range 0 .. 2"},
        {29999, "{\"path\":\"/x.mp4\"}", ":30001: path \"/x.mp4\" is absolute"},
        {15000, "{\"path\":\"x.mp4\"", ":15002: bad JSON"},
        {20000, "{\"xkd_manifest\":1}", ":20002: \"xkd_manifest\" may stand in the first line only"},
        {29000, "{\"path\":\"train/class_03/part_000/clip_00000003_001.mp4\"}",
         ":29002: path \"train/class_03/part_000/clip_00000003_001.mp4\" stands already in line 5"},
    };
    (void)state;
    for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
        xkd_text t = xkd_text_make(cx);
        xkd_text_puts(&t, HEADER);
        for (int64_t i = 0; i < ROWS; i++) {
            if (i == CASES[c].at)
                xkd_text_printf(&t, "%s\n", CASES[c].row);
            else
                add_row(&t, i, "\"label\":1", "");
        }
        write_text("wrong.jsonl", &t);
        refused("wrong.jsonl", CASES[c].message);
    }
}

/* What is written can be read: both heed one bound. */
static void sizes_are_bounded(void **state)
{
    xkd_manifest m;
    (void)state;
    write_rows("bounded.jsonl", "");
    assert_int_equal(xkd_manifest_read(cx, path_of("bounded.jsonl"), &m), XKD_OK);
    assert_int_equal(xkd_manifest_write_within(cx, &m, path_of("small.jsonl"), NULL, 1 << 20), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "small.jsonl: would have more than"));
    assert_non_null(strstr(xkd_last_error(cx), "divide the set"));
    xkd_clear_error(cx);
    assert_false(xkd_path_exists(path_of("small.jsonl")));
    xkd_manifest_free(&m);
    if (truncate(path_of("bounded.jsonl"), XKD_MANIFEST_MOST_BYTES + 1) != 0) return; /* not on every file system */
    refused("bounded.jsonl", "are more than the 68.7 GB that such a file may have (divide it)");
}

/* Lines with what the general reader makes of them: the short way gives the same, or leaves them alone. */
static void the_short_way_takes_what_it_understands(void **state)
{
    static const struct {
        const char *line;
        bool plain;
    } CASES[] = {
        {"{\"path\":\"a\"}", true},
        {" { \"path\" : \"a\" , \"label\" : 3 } ", true},
        {"{\"path\":\"a\",\"fps\":0.1,\"bytes\":0,\"video_start\":-0.0,\"label\":-1}", true},
        {"{\"path\":\"a\",\"fps\":123456789.012345,\"modified\":9223372036854775807}", true},
        {"{\"path\":\"caf\xc3\xa9/\xe6\x97\xa5.mp4\",\"labels\":[1, 2 ,3],\"has_audio\":null,\"has_video\":false}",
         true},
        {"{\"path\":\"a\",\"labels\":[]}", true},
        {"{\"path\":\"a\",\"labels\":[-3]}", true},
        {"{\"path\":\"a\",\"video_start\":-0,\"audio_start\":-5}", true},
        {"{\"path\":\"a\",\"modified\":9007199254740993,\"video_start\":-9223372036854775807}", true},
        {"{\"path\":\"a\",\"video_start\":-9223372036854775808}", false},
        {"{\"path\":\"a\",\"modified\":9223372036854775808}", false},
        {"{\"path\":\"a\",\"fps\":1234567890.0123456}", false},
        {"{\"path\":\"a\",\"fps\":1e3}", false},
        {"{\"path\":\"a\",\"fps\":1.}", false},
        {"{\"path\":\"a\",\"fps\":01}", false},
        {"{\"path\":\"a\",\"fps\":-}", false},
        {"{\"path\":\"a\",\"fps\":+1}", false},
        {"{\"path\":\"a\",\"labels\":[1.5]}", false},
        {"{\"path\":\"a\\u0000b\"}", false},
        {"{\"path\":\"a\\/b\"}", false},
        {"{\"path\":\"a\tb\"}", false},
        {"{\"path\":\"a\xff\",\"split\":\"b\"}", false},
        {"{\"path\":\"a\",\"path\":\"b\"}", false},
        {"{\"path\":\"a\",\"note\":1}", false},
        {"{\"path\":\"a\",\"label\":[1]}", false},
        {"{\"path\":\"a\",\"label\":{}}", false},
        {"{\"path\":\"a\",\"has_audio\":True}", false},
        {"{\"path\":\"a\"", false},
        {"{\"path\":\"a\",}", false},
        {"{\"path\":\"a\"} x", false},
        {"{\"path\":\"a}", false},
        {"{}", false},
        {"[]", false},
    };
    xkd_row a = {.room = 0}, b = {.room = 0};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char line[256];
        bool plain;
        size_t length = strlen(CASES[i].line);
        memcpy(line, CASES[i].line, length + 1);
        assert_int_equal(xkd_row_scan(cx, &a, line, (int64_t)length, &plain), XKD_OK);
        if (plain != CASES[i].plain) fail_msg("%s", CASES[i].line);
        if (plain) {
            json_t *o = json_loads(CASES[i].line, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(o);
            assert_int_equal(xkd_row_of_json(cx, &b, o), XKD_OK);
            for (int k = 0; k < XKD_ROW_COUNT; k++) {
                const xkd_row_value *x = &a.value[k], *y = &b.value[k];
                bool number = x->kind == XKD_ROW_WHOLE || x->kind == XKD_ROW_REAL;
                if (x->kind != y->kind) fail_msg("%s: kind of key %d", CASES[i].line, k);
                if (number && memcmp(&x->real, &y->real, sizeof x->real)) fail_msg("%s: key %d", CASES[i].line, k);
                if (x->kind == XKD_ROW_WHOLE || x->kind == XKD_ROW_LIST) assert_int_equal(x->whole, y->whole);
                if (x->kind == XKD_ROW_TEXT) assert_string_equal(x->text, y->text);
                if (x->kind == XKD_ROW_LIST) assert_memory_equal(a.list, b.list, (size_t)x->whole * sizeof *a.list);
            }
            json_decref(o);
            xkd_row_restore(&a);
        }
        assert_string_equal(line, CASES[i].line);
    }
    xkd_row_free(&a);
    xkd_row_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_rows_are_read_as_all_others),
        cmocka_unit_test(a_row_takes_150_bytes),
        cmocka_unit_test(names_of_all_parts_are_one_list),
        cmocka_unit_test(faults_are_named_by_line),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(the_short_way_takes_what_it_understands),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("large-manifest"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
