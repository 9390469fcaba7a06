/* The ground: random numbers with known answers, threads, arenas, failing allocations, files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/context.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/text.h"

/* Known answers of Philox4x32-10 from the Random123 distribution. */
static void philox_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        xkd_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void streams_do_not_meet(void **state)
{
    xkd_rng a = xkd_rng_make(1, 2, 3, 4, XKD_RNG_CLIP), again = a, b = xkd_rng_make(1, 2, 3, 4, XKD_RNG_INIT);
    (void)state;
    assert_int_equal(xkd_rng_u32(&a), xkd_rng_u32(&again));
    assert_int_not_equal(xkd_rng_u32(&a), xkd_rng_u32(&b));
    double sum = 0, squares = 0;
    for (int i = 0; i < 100000; i++) {
        double x = xkd_rng_normal(&a), u = xkd_rng_uniform(&b);
        int64_t k = xkd_rng_below(&b, 3);
        assert_true(u >= 0 && u < 1 && k >= 0 && k < 3);
        sum += x;
        squares += x * x;
    }
    assert_true(sum / 1e5 < 0.02 && sum / 1e5 > -0.02); /* 6 sigma */
    assert_true(squares / 1e5 > 0.97 && squares / 1e5 < 1.03);
}

static void count_up(void *arg, int64_t index, int thread)
{
    int64_t *counts = arg;
    (void)thread;
    counts[index]++;
}

static void pool_runs_each_index_once(void **state)
{
    static const int threads[] = {1, 2, 3, 8};
    (void)state;
    for (int t = 0; t < 4; t++) {
        xkd_context *cx = xkd_context_new();
        xkd_pool *pool;
        int64_t counts[1000] = {0};
        assert_int_equal(xkd_pool_new(cx, &pool, threads[t]), XKD_OK);
        for (int repeat = 0; repeat < 200; repeat++) xkd_parallel_for(pool, 1 + repeat % 7 * 166, count_up, counts);
        for (int64_t i = 0; i < 997; i++) {
            int64_t expected = 0;
            for (int repeat = 0; repeat < 200; repeat++) expected += i < 1 + repeat % 7 * 166;
            assert_int_equal(counts[i], expected);
        }
        xkd_pool_free(pool);
        xkd_context_free(cx);
    }
}

static void pool_refuses_no_threads(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_pool *pool;
    (void)state;
    assert_int_equal(xkd_pool_new(cx, &pool, 0), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "threads=0"));
    xkd_context_free(cx);
}

static void arena_measures_then_hands_out(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_arena arena = {0};
    (void)state;
    assert_null(xkd_arena_take(&arena, 100));
    int64_t mark = arena.used;
    xkd_arena_take(&arena, 1000);
    xkd_arena_rewind(&arena, mark);
    xkd_arena_take(&arena, 10);
    assert_int_equal(arena.peak, 128 + 1024);
    assert_int_equal(xkd_arena_commit(cx, &arena), XKD_OK);
    char *a = xkd_arena_take(&arena, 100), *b = xkd_arena_take(&arena, 1000);
    assert_int_equal(b - a, 128);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal(xkd_arena_check(cx, &arena), XKD_OK);
    assert_null(xkd_arena_take(&arena, 1));
    assert_int_equal(xkd_arena_check(cx, &arena), XKD_ERR_INTERNAL);
    xkd_arena_free(&arena);
    xkd_context_free(cx);
}

static void allocations_fail_cleanly(void **state)
{
    xkd_context *cx = xkd_context_new();
    int *memory;
    (void)state;
    assert_int_equal(xkd_alloc(cx, &memory, INT64_MAX, 8), XKD_ERR_MEMORY);
    assert_null(memory);
    xkd_clear_error(cx);
    assert_int_equal(xkd_alloc(cx, &memory, 3, sizeof *memory), XKD_OK);
    memory[2] = 5;
    assert_int_equal(xkd_resize(cx, &memory, 3, 6, sizeof *memory), XKD_OK);
    assert_true(memory[2] == 5 && memory[5] == 0);
    atomic_store(&xkd_context_account(cx)->fail_at, xkd_alloc_count(cx));
    assert_int_equal(xkd_resize(cx, &memory, 6, 600, sizeof *memory), XKD_ERR_MEMORY);
    assert_true(memory[2] == 5);
    assert_non_null(strstr(xkd_last_error(cx), "out of memory"));
    xkd_free(memory);
    xkd_context_free(cx);
}

static void files_are_replaced_whole(void **state)
{
    xkd_context *cx = xkd_context_new();
    char folder[] = "/tmp/xkd-base-XXXXXX", path[200], *text;
    int64_t size;
    xkd_writer *writer;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    assert_int_equal(xkd_write_file(cx, path, "old", 3), XKD_OK);
    assert_int_equal(xkd_writer_open(cx, path, &writer), XKD_OK);
    assert_int_equal(xkd_writer_write(writer, "new text", 8), XKD_OK);
    xkd_writer_abort(writer);
    assert_int_equal(xkd_read_file(cx, path, 100, XKD_ERR_DATA, &text, &size), XKD_OK);
    assert_string_equal(text, "old");
    xkd_free(text);
    assert_int_equal(xkd_read_file(cx, path, 2, XKD_ERR_DATA, &text, &size), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), path));
    xkd_clear_error(cx);
    assert_int_equal(xkd_read_file(cx, folder, 2, XKD_ERR_DATA, &text, &size), XKD_ERR_STORAGE);
    xkd_clear_error(cx);
    assert_int_equal(xkd_read_file(cx, "/nonexistent/x", 2, XKD_ERR_DATA, &text, &size), XKD_ERR_STORAGE);
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* no temporary file is left */
    xkd_context_free(cx);
}

/* Only regular files are replaced: a FIFO stays what it is, as devices must, and a link leads to what is written. */
static void only_files_are_replaced(void **state)
{
    char folder[] = "/tmp/xkd-test-base-XXXXXX", fifo[64], link_to_fifo[64], file[64], link_to_file[64], nowhere[64],
         *text;
    int64_t size;
    struct stat st;
    (void)state;
    xkd_context *cx = xkd_context_new();
    assert_non_null(mkdtemp(folder));
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    snprintf(link_to_fifo, sizeof link_to_fifo, "%s/link-to-fifo", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(link_to_file, sizeof link_to_file, "%s/link-to-file", folder);
    snprintf(nowhere, sizeof nowhere, "%s/nowhere", folder);
    assert_int_equal(mkfifo(fifo, 0600) | symlink("fifo", link_to_fifo) | symlink("file", link_to_file), 0);
    assert_int_equal(symlink("gone/away", nowhere), 0);
    assert_int_equal(xkd_write_file(cx, file, "old", 3), XKD_OK);
    for (int k = 0; k < 2; k++) {
        const char *path = k ? link_to_fifo : fifo;
        assert_int_equal(xkd_write_file(cx, path, "new", 3), XKD_ERR_STORAGE);
        assert_non_null(strstr(xkd_last_error(cx), "is no regular file"));
        xkd_clear_error(cx);
        assert_int_equal(xkd_check_folder_of(cx, path), XKD_ERR_STORAGE);
        xkd_clear_error(cx);
        assert_true(lstat(path, &st) == 0 && (k ? S_ISLNK(st.st_mode) : S_ISFIFO(st.st_mode)));
    }
    assert_int_equal(xkd_write_file(cx, link_to_file, "new", 3), XKD_OK);
    assert_true(lstat(link_to_file, &st) == 0 && S_ISLNK(st.st_mode));
    assert_int_equal(xkd_read_file(cx, file, 100, XKD_ERR_DATA, &text, &size), XKD_OK);
    assert_string_equal(text, "new");
    xkd_free(text);
    assert_int_equal(xkd_write_file(cx, nowhere, "new", 3), XKD_OK); /* leads to nothing that could be kept */
    unlink(nowhere);
    unlink(link_to_file);
    unlink(file);
    unlink(link_to_fifo);
    unlink(fifo);
    assert_int_equal(rmdir(folder), 0); /* and nothing else is left */
    xkd_context_free(cx);
}

static void errors_keep_the_first_message(void **state)
{
    xkd_context *cx = xkd_context_new();
    (void)state;
    assert_int_equal(xkd_fail(cx, XKD_ERR_DATA, "first %d", 1), XKD_ERR_DATA);
    xkd_fail(cx, XKD_ERR_STORAGE, "second");
    xkd_error_prefix(cx, "clip %s", "a.mp4");
    assert_string_equal(xkd_last_error(cx), "clip a.mp4: first 1");
    xkd_clear_error(cx);
    assert_string_equal(xkd_last_error(cx), "");
    xkd_context_free(cx);
}

/* Text out of files of others, for a terminal. */
static void escapes(void **state)
{
    char out[32];
    (void)state;
    assert_string_equal(xkd_escape(out, sizeof out, "a\n\x1b[2J\x7f", 7, ""), "a\\x0a\\x1b[2J\\x7f");
    assert_string_equal(xkd_escape(out, sizeof out, "a\nb", 3, "\n\t"), "a\nb");
    /* A-umlaut stays; U+009B, a cut character, an overlong and a surrogate do not. */
    assert_string_equal(xkd_escape(out, sizeof out, "\xc3\xa4\xc2\x9b", 4, ""), "\xc3\xa4\\xc2\\x9b");
    assert_string_equal(xkd_escape(out, sizeof out, "\xc3\xa4", 1, ""), "\\xc3");
    assert_string_equal(xkd_escape(out, sizeof out, "\xe0\x80\xaf", 3, ""), "\\xe0\\x80\\xaf");
    assert_string_equal(xkd_escape(out, sizeof out, "\xed\xa0\x80", 3, ""), "\\xed\\xa0\\x80");
    /* Cut between characters, never within one. */
    assert_string_equal(xkd_escape(out, 4, "a\xe2\x82\xac", 4, ""), "a");
    assert_string_equal(xkd_escape(out, 4, "\x1b", 1, ""), "");
    assert_true(xkd_is_printable("a \xe2\x82\xac"));
    assert_false(xkd_is_printable("a\xe2\x82"));
    assert_false(xkd_is_printable("\xc2\x80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(streams_do_not_meet),
        cmocka_unit_test(pool_runs_each_index_once),
        cmocka_unit_test(pool_refuses_no_threads),
        cmocka_unit_test(arena_measures_then_hands_out),
        cmocka_unit_test(allocations_fail_cleanly),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(only_files_are_replaced),
        cmocka_unit_test(errors_keep_the_first_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
