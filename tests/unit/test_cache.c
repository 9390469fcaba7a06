/* What a cache may cost: a clip where something goes wrong, never a run, and never the work of other threads. Reads, writes
 * and syncs of this program go through the functions below, which can be told to fail; its worker processes are this
 * program as well, in which nothing fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096], cached[4200];
static atomic_int fail_reads, fail_writes, hold_syncs, waiting;
static unsigned version = 0x3b2564;

ssize_t pread(int fd, void *buffer, size_t size, off_t at)
{
    if (fail_reads) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, buffer, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (fail_writes && size > 4096) { /* not what is said on a terminal or a socket */
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, fd, data, size);
}

int fsync(int fd)
{
    (void)fd;
    waiting = hold_syncs;
    while (hold_syncs) usleep(1000);
    return 0;
}

/* Of libavcodec, by which a cache knows the decoders. */
unsigned avcodec_version(void);
unsigned avcodec_version(void)
{
    return version;
}

static int files_in_cache(void)
{
    char command[4400], text[32] = "";
    snprintf(command, sizeof command, "ls '%s' 2>/dev/null | grep -c xkdclip$", cached);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(text, sizeof text, pipe));
    pclose(pipe);
    return atoi(text);
}

/* One clip of the one file, by a cache of its own; the frames are those of `out`. */
static xkd_media_result fetch(const xkd_data_config *data, uint8_t *out, int64_t *bytes)
{
    char where[4500];
    xkd_manifest m;
    xkd_cache *cache = NULL;
    xkd_fetcher *f = NULL;
    xkd_clip clip;
    xkd_media_result result;
    bool silent;
    snprintf(where, sizeof where, "%s/data", folder);
    assert_int_equal(xkd_manifest_load(cx, where, false, &m), XKD_OK);
    assert_int_equal(xkd_cache_new(cx, data, m.count, &cache), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, data, &m, cache, &f), XKD_OK);
    if (xkd_fetch_clip(f, 0, 0.5, &clip, &silent, &result) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    *bytes = 3 * clip.count * clip.height * clip.width;
    if (clip.count) memcpy(out, clip.frames, (size_t)*bytes);
    xkd_fetcher_free(f);
    xkd_cache_free(cache);
    xkd_manifest_free(&m);
    return result;
}

static uint8_t whole[1 << 20], other[1 << 20];
static int64_t whole_bytes, other_bytes;

/* An empty cache, and the clip as it should be. */
static xkd_data_config fresh(void)
{
    char command[4400];
    xkd_data_config data = small_data_config(folder);
    data.max_clip_damage = 0.1;
    data.cache = XKD_CACHE_FOLDER;
    data.cache_folder = cached;
    snprintf(command, sizeof command, "rm -rf '%s'", cached);
    assert_int_equal(system(command), 0);
    assert_int_equal(fetch(&data, whole, &whole_bytes).fault, XKD_FAULT_NONE);
    assert_true(whole_bytes > 0);
    assert_int_equal(files_in_cache(), 1);
    return data;
}

static void same(void)
{
    assert_int_equal(whole_bytes, other_bytes);
    assert_memory_equal(whole, other, (size_t)whole_bytes);
}

/* The manifest has no hashes, so the file is read for its own. */
static void a_read_error_while_hashing_costs_the_file(void **state)
{
    xkd_data_config data = fresh();
    (void)state;
    fail_reads = 1;
    xkd_media_result r = fetch(&data, other, &other_bytes);
    fail_reads = 0;
    assert_int_equal(r.fault, XKD_FAULT_UNREADABLE);
    assert_non_null(strstr(r.message, "Input/output error"));
    assert_int_equal(other_bytes, 0);
    assert_string_equal(xkd_last_error(cx), "");
}

static void a_full_disk_costs_nothing(void **state)
{
    xkd_data_config data = fresh();
    (void)state;
    data.hold_last_frame = true; /* another key: nothing of it is there */
    fail_writes = 1;
    xkd_media_result r = fetch(&data, other, &other_bytes);
    fail_writes = 0;
    assert_int_equal(r.fault, XKD_FAULT_NONE);
    same();
    assert_int_equal(files_in_cache(), 1);
}

/* It is decoded clip by clip, at the same starts. */
static void a_film_that_is_too_long_is_not_kept(void **state)
{
    xkd_data_config data = fresh();
    (void)state;
    data.hold_last_frame = true;
    data.cache_memory = 1e-4; /* 100 kB; 6 s are 212 kB of frames */
    assert_int_equal(fetch(&data, other, &other_bytes).fault, XKD_FAULT_NONE);
    same();
    assert_int_equal(files_in_cache(), 1);
    data.cache_memory = 1;
    assert_int_equal(fetch(&data, other, &other_bytes).fault, XKD_FAULT_NONE);
    same();
    assert_int_equal(files_in_cache(), 2);
}

static void other_decoders_find_nothing(void **state)
{
    xkd_data_config data = fresh();
    (void)state;
    assert_int_equal(fetch(&data, other, &other_bytes).fault, XKD_FAULT_NONE);
    assert_int_equal(files_in_cache(), 1);
    version++;
    assert_int_equal(fetch(&data, other, &other_bytes).fault, XKD_FAULT_NONE);
    version--;
    assert_int_equal(files_in_cache(), 2);
    same();
}

typedef struct {
    xkd_cache *cache;
    xkd_context *cx;
    const char *hash;
    int64_t sample;
    atomic_int done;
} writer;

static xkd_cached *small_entry(xkd_context *own)
{
    xkd_cached *e = NULL;
    assert_int_equal(xkd_alloc(own, &e, 1, sizeof *e), XKD_OK);
    *e = (xkd_cached){.frames = 1, .height = 4, .width = 4, .samples = 8, .has_audio = 1, .seconds = 1};
    assert_int_equal(xkd_alloc(own, &e->rgb, 48, 1), XKD_OK);
    assert_int_equal(xkd_alloc(own, &e->sound, 8, sizeof *e->sound), XKD_OK);
    return e;
}

static void *put_one(void *user)
{
    writer *w = user;
    const xkd_cached *entry;
    if (xkd_cache_put(w->cache, w->cx, w->sample, w->hash, small_entry(w->cx), &entry) == XKD_OK)
        xkd_cache_release(w->cache, entry);
    w->done = 1;
    return NULL;
}

/* While one thread waits for the disk the others look things up and begin to write: all of eight are at the disk at once. */
static void a_slow_disk_holds_up_nobody_else(void **state)
{
    enum { THREADS = 8 };
    static char hash[THREADS][33];
    xkd_data_config data = fresh();
    writer w[THREADS];
    pthread_t thread[THREADS];
    xkd_cache *cache = NULL;
    const xkd_cached *entry;
    int at_disk = 0;
    (void)state;
    assert_int_equal(xkd_cache_new(cx, &data, THREADS, &cache), XKD_OK);
    hold_syncs = 1;
    waiting = 0;
    for (int t = 0; t < THREADS; t++) {
        snprintf(hash[t], sizeof hash[t], "%032d", t);
        w[t] = (writer){.cache = cache, .cx = xkd_context_new(), .hash = hash[t], .sample = t};
        waiting = 0;
        assert_int_equal(pthread_create(&thread[t], NULL, put_one, &w[t]), 0);
        /* Two in 64 locks may meet: most must get through. */
        for (int i = 0; i < 300 && !waiting; i++) usleep(1000);
        at_disk += waiting;
    }
    assert_true(xkd_cache_room(cache) > 0);
    assert_false(xkd_cache_passes(cache, 0));
    assert_int_equal(xkd_cache_get(cache, cx, 0, hash[0], &entry), XKD_OK);
    assert_null(entry); /* not yet whole */
    for (int t = 0; t < THREADS; t++) assert_int_equal(w[t].done, 0);
    assert_in_range(at_disk, THREADS / 2, THREADS);
    hold_syncs = 0;
    for (int t = 0; t < THREADS; t++) {
        pthread_join(thread[t], NULL);
        xkd_context_free(w[t].cx);
    }
    assert_int_equal(xkd_cache_get(cache, cx, 0, hash[0], &entry), XKD_OK);
    assert_non_null(entry);
    xkd_cache_release(cache, entry);
    xkd_cache_free(cache);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_error_while_hashing_costs_the_file), cmocka_unit_test(a_full_disk_costs_nothing),
        cmocka_unit_test(a_film_that_is_too_long_is_not_kept),       cmocka_unit_test(other_decoders_find_nothing),
        cmocka_unit_test(a_slow_disk_holds_up_nobody_else),
    };
    char path[4500];
    test_file file = test_file_default();
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("cache"));
    snprintf(cached, sizeof cached, "%s/kept", folder);
    snprintf(path, sizeof path, "%s/data", folder);
    if (xkd_make_folder(cx, path) != XKD_OK) return 1;
    snprintf(path, sizeof path, "%s/data/a.mp4", folder);
    file.encode.height = 48;
    if (make_test_file(cx, path, &file) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
