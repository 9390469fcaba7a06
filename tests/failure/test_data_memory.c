/* Every allocation on the way from file to views fails once: each time XKD_ERR_MEMORY comes back and nothing leaks (the
 * sanitizer build sees to that). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/file.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data_config.h"
#include "media/encode.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096], path[5000];

enum { MOST = 2000 }; /* no operation here allocates so often */

/* Fails allocation 0, 1, 2, ... of `run` until it succeeds. */
static void exhaust(xkd_status (*run)(void))
{
    int k = 0;
    xkd_account *account = xkd_context_account(cx);
    for (; k < MOST; k++) {
        xkd_clear_error(cx);
        atomic_store(&account->fail_at, atomic_load(&account->count) + k);
        xkd_status status = run();
        bool reached = atomic_load(&account->count) > atomic_load(&account->fail_at);
        atomic_store(&account->fail_at, -1);
        if (!reached) {
            assert_int_equal(status, XKD_OK);
            break;
        }
        assert_int_equal(status, XKD_ERR_MEMORY);
    }
    assert_in_range(k, 1, MOST - 1);
}

static xkd_status write_and_read_manifest(void)
{
    xkd_manifest m = {0}, back = {0};
    xkd_sample *s = NULL;
    int64_t label;
    char file[6000];
    snprintf(file, sizeof file, "%s/m.jsonl", folder);
    xkd_status status = xkd_manifest_class(cx, &m, "a", true, &label);
    if (status == XKD_OK) status = xkd_manifest_add(cx, &m, "\xff.mp4", &s);
    if (status == XKD_OK) status = xkd_manifest_write(cx, &m, file, NULL);
    if (status == XKD_OK) status = xkd_manifest_read(cx, file, &back);
    xkd_manifest_free(&m);
    xkd_manifest_free(&back);
    return status;
}

static xkd_status index_folder(void)
{
    xkd_manifest m;
    int64_t skipped;
    xkd_status status = xkd_index_folder(cx, folder, false, &m, &skipped);
    xkd_manifest_free(&m);
    return status;
}

static xkd_status make_viewer(void)
{
    xkd_viewer *viewer = NULL;
    xkd_data_config data = small_data_config(folder);
    xkd_status status = xkd_viewer_new(cx, &data, &viewer);
    xkd_viewer_free(viewer);
    return status;
}

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    (void)user, (void)samples, (void)count;
    return XKD_OK;
}

static xkd_status decode_clip(void)
{
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    xkd_media_request request = {.mode = XKD_CLIP_AT,
                                 .start = 0.3,
                                 .duration = 0.5,
                                 .fps = 8,
                                 .short_side = 24,
                                 .audio_rate = 16000,
                                 .video = true,
                                 .audio = true};
    xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    xkd_status status = xkd_media_open(cx, path, &media, &fault);
    if (status == XKD_OK) status = xkd_media_decode(media, &request, &sink, &tally, &fault);
    xkd_media_free(media);
    return status;
}

static xkd_status encode_file(void)
{
    char file[6000];
    test_file f = test_file_default();
    f.seconds = 0.2;
    f.encode.width = 32;
    f.encode.height = 32;
    snprintf(file, sizeof file, "%s/e.avi", folder);
    f.encode.format = "avi";
    f.encode.video_codec = "mpeg4";
    return make_test_file(cx, file, &f);
}

static xkd_status fetch_through_cache(void)
{
    xkd_manifest m = {0};
    xkd_fetcher *fetcher = NULL;
    xkd_cache *cache = NULL;
    xkd_sample *s = NULL;
    xkd_media_result result;
    xkd_clip clip;
    bool silent;
    xkd_data_config data = small_data_config(folder);
    data.cache = XKD_CACHE_RAM;
    xkd_status status = xkd_copy_string(cx, &m.root, folder);
    if (status == XKD_OK) status = xkd_manifest_add(cx, &m, "a.mp4", &s);
    if (status == XKD_OK) status = xkd_cache_new(cx, &data, 1, &cache);
    if (status == XKD_OK) status = xkd_fetcher_new(cx, &data, &m, cache, &fetcher);
    if (status == XKD_OK) status = xkd_fetch_clip(fetcher, 0, 0.5, &clip, &silent, &result);
    xkd_fetcher_free(fetcher);
    xkd_cache_free(cache);
    xkd_manifest_free(&m);
    return status;
}

static void data_structures(void **state)
{
    (void)state;
    exhaust(write_and_read_manifest);
    exhaust(index_folder);
    exhaust(make_viewer);
}

static void media(void **state)
{
    (void)state;
    exhaust(decode_clip);
    exhaust(encode_file);
    exhaust(fetch_through_cache);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(data_structures), cmocka_unit_test(media)};
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("memory"));
    snprintf(path, sizeof path, "%s/a.mp4", folder);
    test_file f = test_file_default();
    f.encode.width = 64;
    f.encode.height = 48;
    f.seconds = 1;
    if (xkd_make_folder(cx, folder) != XKD_OK || make_test_file(cx, path, &f) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
