/* The loader: batches depend on nothing but data, seed and position; bad clips are replaced, counted, and finally too
 * many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/loader.h"
#include "data/raw.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

enum { FILES = 14, BATCH = 4 };

static xkd_context *cx;
static char folder[4096];

static xkd_train_config training(void)
{
    return (xkd_train_config){.batch = BATCH, .accumulate = 1, .seed = 7};
}

/* Whether loaders leave the views to a device; here that is the reference. */
static bool raw;

/* One view's n floats: those of the batch, or what is made of a raw one. */
static uint64_t hash_view(const xkd_batch *b, xkd_modality m, int64_t v, int64_t n, uint64_t h)
{
    const size_t bytes = (size_t)n * sizeof(float);
    xkd_backend *be = NULL;
    float *view = NULL;
    if (!b->raw) return XXH3_64bits_withSeed(m == XKD_VIDEO ? b->frames[v] : b->specs[v], bytes, h);
    assert_int_equal(xkd_backend_new(cx, &be, "ref", XKD_F32, 1), XKD_OK);
    assert_int_equal(xkd_alloc(cx, &view, n, sizeof *view), XKD_OK);
    xkd_raw_view(be, b->raw->plan, b->raw->block.host, m, v, b->count, view);
    assert_int_equal(xkd_backend_status(be), XKD_OK);
    h = XXH3_64bits_withSeed(view, bytes, h);
    xkd_free(view);
    xkd_backend_free(be);
    return h;
}

static uint64_t hash_batch(const xkd_loader *l, const xkd_batch *b)
{
    const xkd_view_shapes *s = xkd_loader_shapes(l);
    uint64_t h = XXH3_64bits(b->sample, (size_t)b->count * sizeof *b->sample);
    for (int64_t v = 0; v < b->video_views; v++)
        h = hash_view(b, XKD_VIDEO, v, b->count * 3 * s->video[v].frames * s->video[v].height * s->video[v].width, h);
    for (int64_t v = 0; v < b->audio_views; v++)
        h = hash_view(b, XKD_AUDIO, v, b->count * s->audio[v].bands * s->audio[v].columns, h);
    return h;
}

/* Hashes of the first n micro-batches from (epoch, step) on. */
static xkd_status run(const xkd_data_config *data, const xkd_train_config *train, int rank, int world, uint32_t epoch,
                      int64_t step, int n, uint64_t *hashes, xkd_loader_statistics *stats)
{
    xkd_loader *l = NULL;
    const xkd_batch *b = NULL;
    xkd_clear_error(cx);
    xkd_status status = raw ? xkd_loader_new_raw(cx, data, train, rank, world, NULL, &l)
                            : xkd_loader_new(cx, data, train, rank, world, &l);
    if (status == XKD_OK) status = xkd_loader_set_folder(l, folder);
    if (status == XKD_OK && (epoch || step)) status = xkd_loader_seek(l, epoch, step);
    for (int i = 0; i < n && status == XKD_OK; i++) {
        status = xkd_loader_next(l, &b);
        if (status == XKD_OK) hashes[i] = hash_batch(l, b);
    }
    if (l && stats) xkd_loader_stats(l, stats);
    xkd_loader_free(l);
    return status;
}

static void workers_and_resume_change_nothing(void **state)
{
    uint64_t one[7], many[7], later[3];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    (void)state;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, one, NULL), XKD_OK);
    data.workers = 3;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, many, NULL), XKD_OK);
    assert_memory_equal(one, many, sizeof one);
    assert_int_equal(run(&data, &train, 0, 1, 1, 1, 3, later, NULL), XKD_OK); /* 3 steps an epoch */
    assert_memory_equal(later, one + 4, sizeof later);
    for (int i = 1; i < 7; i++) assert_true(one[i] != one[0]);
}

static void shapes_are_the_methods(void **state)
{
    xkd_data_config data = small_data_config(folder);
    xkd_view_shapes s;
    (void)state;
    data.clip_duration = 4;
    data.crop_size = 112;
    data.video_local_views = 1;
    data.audio_local_views = 1;
    assert_int_equal(xkd_view_shapes_of(cx, &data, &s), XKD_OK);
    assert_int_equal(s.video[0].frames, 32);
    assert_int_equal(s.video[0].height, 112);
    assert_int_equal(s.video[1].frames, 8);
    assert_int_equal(s.video[1].width, 96);
    assert_int_equal(s.audio[0].bands, 80);
    assert_int_equal(s.audio[0].columns, 448);
    assert_int_equal(s.audio[1].columns, 112);
}

static void caches_agree(void **state)
{
    uint64_t ram[7], cold[7], warm[7];
    char where[5000];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    (void)state;
    snprintf(where, sizeof where, "%s/.cache", folder);
    data.cache = XKD_CACHE_RAM;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, ram, NULL), XKD_OK);
    data.cache = XKD_CACHE_FOLDER;
    data.cache_folder = where;
    data.workers = 2;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, cold, NULL), XKD_OK);
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, warm, NULL), XKD_OK);
    assert_memory_equal(ram, cold, sizeof ram);
    assert_memory_equal(ram, warm, sizeof ram);
    /* A damaged cache file is noticed and made again. */
    char command[6000];
    snprintf(command, sizeof command,
             "for f in '%s'/*; do printf x | dd of=\"$f\" bs=1 seek=5000 conv=notrunc 2>/dev/null; done", where);
    assert_int_equal(system(command), 0);
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, warm, NULL), XKD_OK);
    assert_memory_equal(ram, warm, sizeof ram);
}

/* A folder that takes no files, as on a full disk (here their paths are too long), and no room in memory: clips are decoded,
 * and no run ends. */
static void a_full_cache_ends_no_run(void **state)
{
    uint64_t cold[7], full[7];
    char where[5000], fresh[5000];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    xkd_loader_statistics stats;
    (void)state;
    snprintf(where, sizeof where, "%s/.cache2", folder);
    snprintf(fresh, sizeof fresh, "%s/.cache3", folder);
    data.max_clip_damage = 0.1;
    data.cache = XKD_CACHE_FOLDER;
    data.cache_folder = where;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, cold, NULL), XKD_OK);
    data.cache_folder = fresh;
    while (strlen(fresh) < 4060) {
        size_t length = strlen(fresh), room = 4085 - length;
        snprintf(fresh + length, sizeof fresh - length, "/%0*d", (int)(room < 200 ? room - 1 : 150), 0);
        assert_int_equal(xkd_make_folder(cx, fresh), XKD_OK);
    }
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, full, &stats), XKD_OK);
    assert_int_equal(stats.bad_clips, 0);
    assert_memory_equal(cold, full, sizeof cold);
    data.cache = XKD_CACHE_RAM;
    data.cache_memory = 1e-6;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, full, &stats), XKD_OK);
    assert_int_equal(stats.bad_clips, 0);
}

/* Frames of the global view of one global batch, however it is split. */
static void ranks_and_accumulation_split_a_batch(void **state)
{
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    xkd_loader *l = NULL;
    const xkd_batch *b = NULL;
    int64_t whole[BATCH], parts[BATCH];
    (void)state;
    xkd_clear_error(cx);
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &l), XKD_OK);
    assert_int_equal(xkd_loader_next(l, &b), XKD_OK);
    memcpy(whole, b->sample, sizeof whole);
    xkd_loader_free(l);
    train.accumulate = 2;
    for (int rank = 0; rank < 2; rank++) {
        assert_int_equal(xkd_loader_new(cx, &data, &train, rank, 2, &l), XKD_OK);
        for (int micro = 0; micro < 2; micro++) {
            assert_int_equal(xkd_loader_next(l, &b), XKD_OK);
            assert_int_equal(b->count, 1);
            assert_int_equal(b->micro, micro);
            assert_int_equal(b->step, 0);
            parts[2 * rank + micro] = b->sample[0];
        }
        xkd_loader_free(l);
    }
    assert_memory_equal(whole, parts, sizeof whole);
    train.accumulate = 3;
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &l), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    train.accumulate = 1;
    train.batch = 64;
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &l), XKD_ERR_DATA);
    data.workers = 0;
    xkd_clear_error(cx);
    assert_int_equal(xkd_loader_new(cx, &data, &train, 0, 1, &l), XKD_ERR_CONFIG);
}

static void bad_clips_are_replaced_and_counted(void **state)
{
    uint64_t one[6], many[6];
    char path[5000];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    xkd_loader_statistics stats, again;
    (void)state;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/a/broken%d.mp4", folder, i);
        assert_int_equal(xkd_write_file(cx, path, "junk", 4), XKD_OK);
    }
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 6, one, &stats), XKD_OK);
    assert_true(stats.bad_files > 0 && stats.bad_files <= 3);
    assert_true(stats.bad_clips >= stats.bad_files);
    data.workers = 2;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 6, many, &again), XKD_OK);
    assert_memory_equal(one, many, sizeof one);
    assert_int_equal(stats.bad_clips, again.bad_clips);
    snprintf(path, sizeof path, "%s/bad_clips.jsonl", folder);
    assert_true(xkd_path_exists(path));
    /* A run that goes back meets them again: the log holds each once, whatever a crash left at its end. */
    char *whole, *cut;
    int64_t size;
    unlink(path);
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 6, many, NULL), XKD_OK);
    assert_int_equal(xkd_read_file(cx, path, 1 << 20, XKD_ERR_DATA, &whole, &size), XKD_OK);
    FILE *torn = fopen(path, "ab");
    fputs("{\"epoch\":0,\"st", torn);
    fclose(torn);
    assert_int_equal(run(&data, &train, 0, 1, 0, 2, 4, many, NULL), XKD_OK);
    assert_int_equal(xkd_read_file(cx, path, 1 << 20, XKD_ERR_DATA, &cut, &size), XKD_OK);
    assert_string_equal(whole, cut);
    xkd_free(whole);
    xkd_free(cut);
    /* Too many distinct ones end the run. */
    for (int i = 3; i < 40; i++) {
        snprintf(path, sizeof path, "%s/a/broken%d.mp4", folder, i);
        assert_int_equal(xkd_write_file(cx, path, "junk", 4), XKD_OK);
    }
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 6, one, NULL), XKD_ERR_DATA);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "%s/a/broken%d.mp4", folder, i);
        unlink(path);
    }
}

/* Damaged files and silent ones among them. */
static void raw_batches_hold_the_same_views(void **state)
{
    uint64_t made[7], there[7];
    char path[5000];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    xkd_loader_statistics stats, again;
    test_file mute = test_file_default();
    (void)state;
    mute.encode.sample_rate = 0;
    data.audio_policy = XKD_AUDIO_SILENCE;
    data.workers = 3;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/a/broken%d.mp4", folder, i);
        assert_int_equal(xkd_write_file(cx, path, "junk", 4), XKD_OK);
        snprintf(path, sizeof path, "%s/a/mute%d.mp4", folder, i);
        assert_int_equal(make_test_file(cx, path, &mute), XKD_OK);
    }
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, made, &stats), XKD_OK);
    raw = true;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 7, there, &again), XKD_OK);
    raw = false;
    assert_memory_equal(made, there, sizeof made);
    assert_true(stats.bad_clips > 0 && stats.silent_clips > 0);
    assert_int_equal(stats.bad_clips, again.bad_clips);
    assert_int_equal(stats.silent_clips, again.silent_clips);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/a/broken%d.mp4", folder, i);
        unlink(path);
        snprintf(path, sizeof path, "%s/a/mute%d.mp4", folder, i);
        unlink(path);
    }
}

static void sound_policies(void **state)
{
    uint64_t h[4];
    char path[5000];
    xkd_data_config data = small_data_config(folder);
    xkd_train_config train = training();
    xkd_loader_statistics stats;
    test_file mute = test_file_default();
    (void)state;
    mute.encode.sample_rate = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/a/mute%d.mp4", folder, i);
        assert_int_equal(make_test_file(cx, path, &mute), XKD_OK);
    }
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 4, h, &stats), XKD_OK);
    assert_true(stats.bad_files > 0);
    data.audio_policy = XKD_AUDIO_SILENCE;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 4, h, &stats), XKD_OK);
    assert_int_equal(stats.bad_files, 0);
    assert_true(stats.silent_clips > 0);
    data.audio_policy = XKD_AUDIO_DROP;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 4, h, &stats), XKD_OK);
    assert_int_equal(stats.bad_files, 0);
    assert_true(stats.dropped_files > 0);
    /* Known to be silent from the list: left out before anything is read, labels and all. */
    snprintf(path, sizeof path, "%s/several.jsonl", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 80; i++)
        fprintf(f, "{\"path\":\"a/%d.mp4\",\"labels\":[0,1],\"has_audio\":%s}\n", i, i < 3 ? "false" : "true");
    fclose(f);
    data.path = path;
    assert_int_equal(run(&data, &train, 0, 1, 0, 0, 0, h, &stats), XKD_OK);
    assert_int_equal(stats.dropped_files, 3);
    unlink(path);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_and_resume_change_nothing),
        cmocka_unit_test(shapes_are_the_methods),
        cmocka_unit_test(caches_agree),
        cmocka_unit_test(a_full_cache_ends_no_run),
        cmocka_unit_test(ranks_and_accumulation_split_a_batch),
        cmocka_unit_test(bad_clips_are_replaced_and_counted),
        cmocka_unit_test(raw_batches_hold_the_same_views),
        cmocka_unit_test(sound_policies),
    };
    char path[5000];
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("loader"));
    for (int i = 0; i < FILES; i++) {
        test_file file = test_file_default();
        file.seconds = 2.2 + 0.1 * i;
        file.encode.width = 64;
        file.encode.height = 48;
        file.tone_from = 0.05 * i;
        snprintf(path, sizeof path, "%s/%s", folder, i % 2 ? "a" : "b");
        if (xkd_make_folder(cx, path) != XKD_OK) return 1;
        snprintf(path, sizeof path, "%s/%s/%d.mp4", folder, i % 2 ? "a" : "b", i);
        if (make_test_file(cx, path, &file) != XKD_OK) return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
