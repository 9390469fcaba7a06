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
#include "data/packing.h"
#include "data/raw.h"
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

/* A raw batch, its copy, and views made of it by the reference. */
static xkd_status make_views_of_raw(void)
{
    xkd_status status = XKD_OK;
    static float view[3 * 16 * 32 * 32]; /* a global video view is the largest */
    xkd_backend *be = NULL;
    xkd_raw_plan plan = {0};
    xkd_raw_batch batch = {0}, copy = {0};
    const xkd_data_config data = small_data_config(folder);
    XKD_TRY(xkd_backend_new(cx, &be, "ref", XKD_F32, 1));
    XKD_TRY(xkd_raw_plan_new(cx, &data, 2, &plan));
    XKD_TRY(xkd_raw_batch_new(cx, &plan, NULL, &batch));
    XKD_TRY(xkd_raw_fill(cx, &batch, 2));
    XKD_TRY(xkd_raw_copy(cx, &batch, &copy));
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_raw_view(be, &plan, copy.block.host, m, 0, 1, view);
        XKD_TRY(xkd_backend_status(be));
    }
fail:
    xkd_raw_batch_free(&copy);
    xkd_raw_batch_free(&batch);
    xkd_raw_plan_free(&plan);
    xkd_backend_free(be);
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

/* Threads of packing have contexts of their own, in which nothing fails; what is around them does. */
static xkd_status pack_folder(void)
{
    xkd_manifest m = {0};
    xkd_data_config data = small_data_config(folder);
    xkd_packing_result result;
    xkd_packing_forecast forecast;
    const xkd_record_options record = {
        .codec = XKD_CODEC_JPEG, .quality = 90, .grid_fps = 8, .audio_rate = data.audio_rate};
    char out[6000], media_folder[6000];
    snprintf(out, sizeof out, "%s/packed", folder);
    snprintf(media_folder, sizeof media_folder, "%s/media", folder);
    xkd_status status = xkd_manifest_load(cx, media_folder, false, &m);
    xkd_packing_options o = {.out = out, .parts = 1, .threads = 1};
    if (status == XKD_OK) o.settings = xkd_pack_settings_of(&data, 32, &record, 1 << 20, &m);
    if (status == XKD_OK) status = xkd_packing_plan(cx, &m, &data, &o, &forecast);
    if (status == XKD_OK) status = xkd_packing_run(cx, &m, &data, &o, &result);
    xkd_manifest_free(&m);
    return status;
}

static xkd_status fetch_from(const char *name, xkd_cache_mode mode)
{
    xkd_manifest m = {0};
    xkd_fetcher *fetcher = NULL;
    xkd_cache *cache = NULL;
    xkd_media_result result;
    xkd_clip clip;
    bool silent;
    xkd_data_config data = small_data_config(folder);
    char in[6000], kept[6000];
    snprintf(in, sizeof in, "%s/%s", folder, name);
    snprintf(kept, sizeof kept, "%s/kept", folder);
    data.cache = mode;
    data.cache_folder = kept;
    data.cache_memory = 1;
    xkd_status status = xkd_manifest_load(cx, in, false, &m);
    if (status == XKD_OK && mode != XKD_CACHE_NONE) status = xkd_cache_new(cx, &data, m.count, &cache);
    if (status == XKD_OK) status = xkd_fetcher_new(cx, &data, &m, cache, &fetcher);
    if (status == XKD_OK) status = xkd_fetch_clip(fetcher, 0, 0.5, &clip, &silent, &result);
    xkd_fetcher_free(fetcher);
    xkd_cache_free(cache);
    xkd_manifest_free(&m);
    return status;
}

static xkd_status fetch_from_raw_pack(void)
{
    return fetch_from("raw", XKD_CACHE_NONE);
}

static xkd_status fetch_from_larger_pack(void)
{
    return fetch_from("larger", XKD_CACHE_NONE);
}

/* Written by nobody but this: a failure while it is written is told and costs nothing, so it is there before. */
static xkd_status fetch_from_folder_cache(void)
{
    return fetch_from("media", XKD_CACHE_FOLDER);
}

static xkd_status fetch_from_archive(void)
{
    return fetch_from("tars", XKD_CACHE_NONE);
}

static void shell(const char *format)
{
    char command[20000];
    snprintf(command, sizeof command, format, folder, folder, folder, folder, folder);
    assert_int_equal(system(command), 0);
}

static void make_pack(const char *name, int64_t side)
{
    xkd_manifest m;
    xkd_data_config data = small_data_config(folder);
    xkd_packing_result result;
    const xkd_record_options record = {.codec = XKD_CODEC_RAW, .grid_fps = 8, .audio_rate = data.audio_rate};
    char out[6000], in[6000];
    snprintf(out, sizeof out, "%s/%s", folder, name);
    snprintf(in, sizeof in, "%s/media", folder);
    assert_int_equal(xkd_manifest_load(cx, in, false, &m), XKD_OK);
    const xkd_packing_options o = {
        .out = out, .parts = 1, .threads = 1, .settings = xkd_pack_settings_of(&data, side, &record, 1 << 20, &m)};
    assert_int_equal(xkd_packing_run(cx, &m, &data, &o, &result), XKD_OK);
    xkd_manifest_free(&m);
}

static void packs_and_archives(void **state)
{
    (void)state;
    shell("mkdir -p '%s/media' '%s/tars' && cp '%s/a.mp4' '%s/media'");
    shell("cd '%s/media' && echo cat >a.cls && tar cf ../tars/a.tar a.mp4 a.cls && rm a.cls");
    make_pack("raw", 32);
    make_pack("larger", 40);
    assert_int_equal(fetch_from_folder_cache(), XKD_OK);
    exhaust(pack_folder);
    exhaust(fetch_from_raw_pack);
    exhaust(fetch_from_larger_pack);
    exhaust(fetch_from_folder_cache);
    exhaust(fetch_from_archive);
}

static void data_structures(void **state)
{
    (void)state;
    exhaust(write_and_read_manifest);
    exhaust(index_folder);
    exhaust(make_viewer);
    exhaust(make_views_of_raw);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(data_structures), cmocka_unit_test(media),
                                       cmocka_unit_test(packs_and_archives)};
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
