/* A pack of many shards: read by several threads at a time, and held once by all ranks of a host. Its records are empty, for
 * opening reads the indexes alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/index.h"
#include "data/pack.h"
#include "data/shard.h"
#include "data/shared_list.h"
#include "join_ranks.h"
#include "media_files.h"

enum { SHARDS = 40, EACH = 50, RECORDS = SHARDS * EACH, RANKS = 3 };

static xkd_context *cx;
static char folder[4200];

static bool is_missing(int64_t i)
{
    return i % 7 == 3;
}

/* Every third row is one that no quick reader takes: its path has an escape. */
static void row_of(int64_t i, char *row, size_t size)
{
    char fault[64] = "";
    if (is_missing(i)) snprintf(fault, sizeof fault, ", \"pack_fault\": \"gone %d\"", (int)i);
    snprintf(row, size, "{\"path\": \"%s/%06d.mp4\", \"label\": %d, \"split\": \"%s\"%s}", i % 3 ? "set" : "\\u00e9",
             (int)i, (int)(i % 2), i % 5 ? "train" : "test", fault);
}

static void name_of(int64_t shard, char *path, size_t size)
{
    snprintf(path, size, "%s/%012d" XKD_SHARD_ENDING, folder, (int)(shard * EACH));
}

static void write_shard(int64_t shard, const char *text, const char *label)
{
    char path[4300], row[200];
    static const char zeros[XKD_RECORD_ALIGN];
    xkd_records_index index = {0};
    xkd_writer *w;
    name_of(shard, path, sizeof path);
    assert_int_equal(xkd_writer_open(cx, path, &w), XKD_OK);
    assert_int_equal(xkd_records_begin(cx, w, text, shard * EACH), XKD_OK);
    for (int64_t i = shard * EACH; i < (shard + 1) * EACH; i++) {
        row_of(i, row, sizeof row);
        if (label && i == shard * EACH + 7) snprintf(row, sizeof row, "{\"path\": \"x\", \"label\": %s}", label);
        const xkd_record_head head = {.number = i,
                                      .bytes = XKD_RECORD_ALIGN * (1 + i % 2),
                                      .row_bytes = (int64_t)strlen(row),
                                      .row_sum = XXH3_64bits(row, strlen(row)),
                                      .fault = is_missing(i) ? XKD_FAULT_MISSING : XKD_FAULT_NONE};
        assert_int_equal(xkd_records_note(cx, &index, &head, xkd_writer_size(w), row), XKD_OK);
        for (int64_t k = 0; k < 1 + i % 2; k++) assert_int_equal(xkd_writer_write(w, zeros, sizeof zeros), XKD_OK);
    }
    assert_int_equal(xkd_records_finish(w, &index), XKD_OK);
    assert_int_equal(xkd_writer_commit(w), XKD_OK);
    xkd_records_free(&index);
}

/* `classes` of the pack's settings: two or none. The caller frees the text. */
static char *settings_of(int64_t classes)
{
    static const char *const CLASSES[] = {"a", "b"};
    const xkd_pack_settings settings = {
        .samples = RECORDS,
        .short_side = 32,
        .record = {.codec = XKD_CODEC_JPEG, .quality = 90, .grid_fps = 8, .audio_rate = 16000},
        .streams = {true, true},
        .shard_bytes = 1 << 20,
        .rows = 5};
    xkd_manifest m = {0};
    char *text;
    assert_int_equal(xkd_manifest_set_classes(cx, &m, CLASSES, classes), XKD_OK);
    assert_int_equal(xkd_pack_settings_write(cx, &settings, &m, &text), XKD_OK);
    xkd_manifest_free_classes(&m);
    return text;
}

static void write_pack(int64_t classes)
{
    char path[4300];
    char *text = settings_of(classes);
    remove_test_folder(folder);
    assert_int_equal(xkd_make_folder(cx, folder), XKD_OK);
    snprintf(path, sizeof path, "%s/" XKD_PACK_FILE, folder);
    assert_int_equal(xkd_write_file(cx, path, text, (int64_t)strlen(text)), XKD_OK);
    for (int64_t s = 0; s < SHARDS; s++) write_shard(s, text, NULL);
    xkd_free(text);
}

/* What is wrong with the list; 0: nothing. */
static int fault_of_list(xkd_context *own, const xkd_manifest *m)
{
    if (m->count != RECORDS || !m->pack || m->class_count != 2) return 1;
    for (int64_t i = 0; i < RECORDS; i++) {
        const xkd_sample *s = &m->samples[i];
        char path[64], name[32], said[32];
        xkd_source source;
        xkd_media_fault fault;
        snprintf(path, sizeof path, "%s/%06d.mp4", i % 3 ? "set" : "\u00e9", (int)i);
        snprintf(name, sizeof name, "%012d" XKD_SHARD_ENDING, (int)(i / EACH * EACH));
        snprintf(said, sizeof said, "gone %d (", (int)i);
        if (strcmp(s->path, path) || s->label != i % 2 || strcmp(s->split, i % 5 ? "train" : "test")) return 2;
        if (s->record != i + 1 || strcmp(xkd_pack_shard(m->pack, i), name)) return 3;
        xkd_status status = xkd_pack_open(own, m->pack, i, &source, &fault);
        if ((status != XKD_OK) != is_missing(i)) return 4;
        if (is_missing(i) && (fault != XKD_FAULT_MISSING || !strstr(xkd_last_error(own), said))) return 5;
        xkd_clear_error(own);
        if (is_missing(i)) continue;
        close(source.fd);
        if (source.offset % XKD_RECORD_ALIGN || source.size != XKD_RECORD_ALIGN * (1 + i % 2)) return 6;
    }
    return 0;
}

static void many_shards_are_read_in_their_order(void **state)
{
    xkd_manifest m;
    (void)state;
    write_pack(2);
    if (xkd_pack_read(cx, folder, &m) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(fault_of_list(cx, &m), 0);
    xkd_manifest_free(&m);
}

static void refuses(const char *part)
{
    xkd_manifest m;
    assert_int_equal(xkd_pack_read(cx, folder, &m), XKD_ERR_DATA);
    if (!strstr(xkd_last_error(cx), part)) fail_msg("\"%s\" is not in: %s", part, xkd_last_error(cx));
    xkd_clear_error(cx);
}

/* Several shards are wrong at once: the first of them is named, whichever thread is done first. */
static void the_first_wrong_shard_is_named(void **state)
{
    char path[4300], *other = settings_of(1), *right = settings_of(2);
    (void)state;
    write_pack(2);
    write_shard(30, other, NULL);
    write_shard(20, right, "\"c\"");
    refuses("000000001000.xkdpack:1007: label \"c\" is none of the 2 classes");
    name_of(10, path, sizeof path);
    assert_int_equal(xkd_remove_file(cx, path), XKD_OK);
    refuses("000000000550.xkdpack: begins with sample 550 where 500 should follow");
    write_shard(10, other, NULL);
    refuses("000000000500.xkdpack: belongs to another pack");
    xkd_free(other);
    xkd_free(right);
}

static void names_need_a_list_of_classes(void **state)
{
    char *text = settings_of(0);
    (void)state;
    write_pack(0);
    write_shard(12, text, "\"c\"");
    refuses("000000000600.xkdpack: record 607 has a class that pack.json does not list");
    xkd_free(text);
}

static xkd_status read_pack(xkd_context *own, void *user, xkd_manifest *m, int64_t *note)
{
    (void)user;
    (void)note;
    return xkd_pack_read(own, folder, m);
}

/* A copy keeps the pack, and so the memory that it lies in, when the list itself has gone. */
static int share(xkd_context *own, xkd_dist *d, const void *user)
{
    const xkd_list_source source = {.path = folder, .settings = 3, .make = read_pack};
    xkd_manifest m, copy;
    int64_t note, here = 0;
    (void)user;
    if (xkd_list_share(own, d, &source, &m, &note) != XKD_OK) return 1;
    if (!m.shared || m.pieces.bytes) return 2;
    int fault = fault_of_list(own, &m);
    if (fault) return 10 + fault;
    if (xkd_pack_about(m.pack)->record.quality != 90) return 3;
    uint64_t identity = xkd_pack_identity(m.pack, 77);
    if (xkd_manifest_copy(own, &m, &copy) != XKD_OK) return 4;
    xkd_manifest_free(&m);
    fault = fault_of_list(own, &copy);
    if (fault) return 20 + fault;
    if (xkd_pack_identity(copy.pack, 77) != identity) return 5;
    xkd_manifest_free(&copy);
    return xkd_dist_largest(d, &here, 1) == XKD_OK ? 0 : 6;
}

static void ranks_of_a_host_have_one_copy(void **state)
{
    int codes[RANKS];
    (void)state;
    write_pack(2);
    fork_ranks(cx, RANKS, share, NULL, codes);
    for (int r = 0; r < RANKS; r++) assert_int_equal(codes[r], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_shards_are_read_in_their_order),
        cmocka_unit_test(the_first_wrong_shard_is_named),
        cmocka_unit_test(names_need_a_list_of_classes),
        cmocka_unit_test(ranks_of_a_host_have_one_copy),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("large-pack"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
