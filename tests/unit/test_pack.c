/* Packs: the bits of a cache, the same draws, and what damage, stops and a full disk cost. Writes of this program go through
 * the function below, which can be told that the disk is full; its worker processes are this program as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/loader.h"
#include "data/packing.h"
#include "data/shard.h"
#include "data_config.h"
#include "media/worker.h"
#include "media_files.h"

static xkd_context *cx;
static char folder[4096], media[4200], packed[4200], cached[4200];
static int64_t disk_bytes = INT64_MAX; /* that may still be written in large pieces */

ssize_t write(int fd, const void *data, size_t size)
{
    if (size > 4000) {
        if ((int64_t)size > disk_bytes) {
            errno = ENOSPC;
            return -1;
        }
        disk_bytes -= (int64_t)size;
    }
    return syscall(SYS_write, fd, data, size);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[20000];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command) != 0) fail_msg("%s", command);
}

static xkd_packing_options small_pack(const xkd_manifest *m, const xkd_data_config *d, int codec, int64_t short_side)
{
    const xkd_record_options record = {
        .codec = codec, .quality = 95, .full_colour = true, .grid_fps = 8, .audio_rate = d->audio_rate};
    return (xkd_packing_options){
        .out = packed, .parts = 1, .threads = 1, .settings = xkd_pack_settings_of(d, short_side, &record, 150000, m)};
}

/* A fresh pack of the media folder, which has one file that is none. */
static void pack(int codec, int64_t short_side, int threads, xkd_packing_result *r)
{
    xkd_data_config d = small_data_config(media);
    xkd_manifest m;
    d.max_bad_fraction = 0.5;
    shell("rm -rf '%s'", packed);
    assert_int_equal(xkd_manifest_load(cx, media, false, &m), XKD_OK);
    xkd_packing_options o = small_pack(&m, &d, codec, short_side);
    o.threads = threads;
    if (xkd_packing_run(cx, &m, &d, &o, r) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    xkd_manifest_free(&m);
}

/* One clip, copied. */
typedef struct {
    uint8_t rgb[1 << 20];
    int16_t sound[1 << 16];
    xkd_clip clip;
    bool silent;
    xkd_media_result result;
} fetched;

static void fetch(xkd_fetcher *f, int64_t i, double place, fetched *out)
{
    if (xkd_fetch_clip(f, i, place, &out->clip, &out->silent, &out->result) != XKD_OK)
        fail_msg("%s", xkd_last_error(cx));
    const xkd_clip *c = &out->clip;
    assert_true(3 * c->count * c->height * c->width <= (int64_t)sizeof out->rgb);
    if (c->count) memcpy(out->rgb, c->frames, (size_t)(3 * c->count * c->height * c->width));
    if (c->samples) memcpy(out->sound, c->sound, (size_t)c->samples * 2);
}

static void same_clip(const fetched *a, const fetched *b)
{
    assert_int_equal(a->result.fault, b->result.fault);
    assert_int_equal(a->silent, b->silent);
    assert_int_equal(a->clip.count, b->clip.count);
    assert_int_equal(a->clip.samples, b->clip.samples);
    if (!a->clip.count) return;
    assert_int_equal(a->clip.width, b->clip.width);
    assert_int_equal(a->clip.height, b->clip.height);
    assert_memory_equal(a->rgb, b->rgb, (size_t)(3 * a->clip.count * a->clip.height * a->clip.width));
    assert_memory_equal(a->sound, b->sound, (size_t)a->clip.samples * 2);
}

/* The pack against a cache of this kind, at these frames a second. */
static void compare_with_cache(xkd_cache_mode mode, double fps, const bool left_out[XKD_MODALITIES])
{
    static fetched a, b;
    xkd_data_config d = small_data_config(media);
    xkd_manifest files, records;
    xkd_cache *cache = NULL;
    xkd_fetcher *from_cache = NULL, *from_pack = NULL;
    d.cache = mode;
    d.cache_folder = cached;
    d.cache_memory = 1;
    d.video_fps = fps;
    memcpy(d.left_out, left_out, sizeof d.left_out);
    assert_int_equal(xkd_manifest_load(cx, media, false, &files), XKD_OK);
    if (xkd_manifest_load(cx, packed, false, &records) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(records.count, files.count);
    assert_int_equal(records.class_count, files.class_count);
    assert_int_equal(xkd_cache_new(cx, &d, files.count, &cache), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &files, cache, &from_cache), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &records, NULL, &from_pack), XKD_OK);
    for (int64_t i = 0; i < files.count; i++) {
        assert_string_equal(files.samples[i].path, records.samples[i].path);
        assert_int_equal(files.samples[i].label, records.samples[i].label);
        assert_string_equal(files.samples[i].split, records.samples[i].split);
        for (int k = 0; k < 6; k++) {
            fetch(from_cache, i, k / 5.0001, &a);
            fetch(from_pack, i, k / 5.0001, &b);
            same_clip(&a, &b);
        }
    }
    assert_int_equal(xkd_fetcher_restarts(from_pack), 0);
    xkd_fetcher_free(from_cache);
    xkd_fetcher_free(from_pack);
    xkd_cache_free(cache);
    xkd_manifest_free(&files);
    xkd_manifest_free(&records);
}

static const bool BOTH[XKD_MODALITIES] = {false, false};

static void raw_is_the_bits_of_a_cache(void **state)
{
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    assert_int_equal(r.packed, 6);
    assert_int_equal(r.unreadable, 1);
    assert_true(r.shards > 2);
    compare_with_cache(XKD_CACHE_RAM, 8, BOTH);
    compare_with_cache(XKD_CACHE_FOLDER, 8, BOTH);
    compare_with_cache(XKD_CACHE_FOLDER, 8, BOTH); /* warm */
    compare_with_cache(XKD_CACHE_RAM, 4, BOTH);
    shell("rm -rf '%s'", cached);
}

/* A fact of a pack: pictures before the sound begins are not in it. Where both begin together, one alone is the same. */
static void one_stream_of_a_pack_is_that_of_a_cache(void **state)
{
    xkd_packing_result r;
    (void)state;
    shell("mv '%s/b/late.mp4' '%s'", media, folder);
    pack(XKD_CODEC_RAW, 32, 2, &r);
    compare_with_cache(XKD_CACHE_RAM, 8, (const bool[]){false, true});
    shell("mv '%s/late.mp4' '%s/b'", folder, media);
}

static void a_still_picture_is_kept_once(void **state)
{
    xkd_manifest m;
    xkd_source s;
    xkd_media_fault fault;
    (void)state;
    xkd_packing_result r;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &m), XKD_OK);
    for (int64_t i = 0; i < m.count; i++) {
        if (strcmp(m.samples[i].path, "b/still.mp4")) continue;
        assert_int_equal(xkd_manifest_open(cx, &m, &m.samples[i], false, &s, &fault), XKD_OK);
        /* 6 s of 32 x 45 pixels are 207 kB; the sound is 192 kB. */
        assert_true(s.size < 230000);
        close(s.fd);
    }
    xkd_manifest_free(&m);
}

/* All batches of an epoch, summed. */
static uint64_t sum_batches(char *path, xkd_cache_mode mode, int64_t workers)
{
    xkd_data_config d = small_data_config(path);
    xkd_train_config t = {.batch = 3, .accumulate = 1, .seed = 5};
    xkd_loader *l = NULL;
    const xkd_batch *b;
    uint64_t sum = 0;
    d.cache = mode;
    d.cache_memory = 1;
    d.audio_policy = XKD_AUDIO_SILENCE;
    d.max_bad_fraction = 0.5;
    d.workers = workers;
    if (xkd_loader_new(cx, &d, &t, 0, 1, &l) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    const xkd_view_shapes *s = xkd_loader_shapes(l);
    for (int64_t k = 0; k < 2 * xkd_loader_steps_per_epoch(l); k++) {
        assert_int_equal(xkd_loader_next(l, &b), XKD_OK);
        for (int64_t v = 0; v < b->video_views; v++) {
            int64_t n = b->count * 3 * s->video[v].frames * s->video[v].height * s->video[v].width;
            for (int64_t i = 0; i < n; i++) sum = sum * 31 + (uint64_t)(int64_t)(b->frames[v][i] * 1e6f);
        }
        for (int64_t v = 0; v < b->audio_views; v++) {
            int64_t n = b->count * s->audio[v].bands * s->audio[v].columns;
            for (int64_t i = 0; i < n; i++) sum = sum * 31 + (uint64_t)(int64_t)(b->specs[v][i] * 1e6f);
        }
        for (int64_t i = 0; i < b->count; i++) sum = sum * 31 + (uint64_t)(b->sample[i] * 100 + b->source[i]);
    }
    xkd_loader_statistics stats;
    xkd_loader_stats(l, &stats);
    assert_int_equal(stats.bad_files, 1);
    xkd_loader_free(l);
    return sum;
}

static void training_draws_the_same(void **state)
{
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    uint64_t expected = sum_batches(media, XKD_CACHE_RAM, 1);
    assert_true(sum_batches(packed, XKD_CACHE_NONE, 1) == expected);
    assert_true(sum_batches(packed, XKD_CACHE_NONE, 3) == expected);
    assert_true(sum_batches(packed, XKD_CACHE_RAM, 2) == expected); /* without effect */
}

/* The largest difference of two clips. */
static int distance(const fetched *a, const fetched *b)
{
    int most = 0;
    assert_int_equal(a->clip.count, b->clip.count);
    for (int64_t i = 0; i < 3 * a->clip.count * a->clip.width * a->clip.height; i++) {
        int d = abs(a->rgb[i] - b->rgb[i]);
        if (d > most) most = d;
    }
    return most;
}

static void jpeg_is_near_and_a_larger_pack_is_made_small(void **state)
{
    static fetched a, b;
    static const struct {
        int codec;
        int64_t side;
        int most;
    } KINDS[] = {{XKD_CODEC_JPEG, 32, 24}, {XKD_CODEC_JPEG, 48, 60}, {XKD_CODEC_RAW, 48, 60}, {XKD_CODEC_RAW, 0, 60}};
    xkd_data_config d = small_data_config(media);
    xkd_manifest files, records;
    xkd_fetcher *x = NULL, *y = NULL;
    xkd_cache *cache = NULL;
    (void)state;
    d.cache = XKD_CACHE_RAM;
    d.cache_memory = 1;
    assert_int_equal(xkd_manifest_load(cx, media, false, &files), XKD_OK);
    assert_int_equal(xkd_cache_new(cx, &d, files.count, &cache), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &files, cache, &x), XKD_OK);
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        xkd_packing_result r;
        pack(KINDS[k].codec, KINDS[k].side, 1, &r);
        assert_int_equal(xkd_manifest_load(cx, packed, false, &records), XKD_OK);
        assert_int_equal(xkd_fetcher_new(cx, &d, &records, NULL, &y), XKD_OK);
        for (int64_t i = 0; i < files.count; i++) {
            fetch(x, i, 0.6, &a);
            fetch(y, i, 0.6, &b);
            assert_int_equal(a.result.fault, b.result.fault);
            if (a.result.fault) continue;
            assert_in_range(distance(&a, &b), 0, KINDS[k].most);
            assert_int_equal(a.clip.samples, b.clip.samples);
            assert_memory_equal(a.sound, b.sound, (size_t)a.clip.samples * 2);
        }
        assert_int_equal(xkd_fetcher_restarts(y), 0);
        xkd_fetcher_free(y);
        xkd_manifest_free(&records);
    }
    xkd_fetcher_free(x);
    xkd_cache_free(cache);
    xkd_manifest_free(&files);
}

static void refused(void (*change)(xkd_data_config *), const char *words)
{
    xkd_data_config d = small_data_config(packed);
    xkd_train_config t = {.batch = 3, .accumulate = 1};
    xkd_loader *l = NULL;
    change(&d);
    xkd_clear_error(cx);
    assert_int_equal(xkd_loader_new(cx, &d, &t, 0, 1, &l), XKD_ERR_CONFIG);
    if (!strstr(xkd_last_error(cx), words)) fail_msg("%s", xkd_last_error(cx));
    xkd_clear_error(cx);
}

static void larger(xkd_data_config *d)
{
    d->crop_size = 48;
}

static void faster(xkd_data_config *d)
{
    d->video_fps = 10;
}

static void higher(xkd_data_config *d)
{
    d->audio_rate = 22050;
}

static void coloured(xkd_data_config *d)
{
    d->stream_colour = true;
}

static void held(xkd_data_config *d)
{
    d->hold_last_frame = true;
}

static void other_track(xkd_data_config *d)
{
    d->audio_track = 2;
}

static void what_a_pack_cannot_give_is_refused(void **state)
{
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_JPEG, 32, 1, &r);
    refused(larger, "have a short side of 32, and the views are made of 48");
    refused(faster, "dataset.video_fps=10");
    refused(higher, "16000 Hz");
    refused(coloured, "data.colour=default");
    refused(held, "data.hold_last_frame=false");
    refused(other_track, "data.audio_track=0");
}

/* A record of one frame of side x side, which is open for reading behind it; its head claims claimed [width, height], NULL: the
 * frame's own. */
static void write_frame(const xkd_record_options *options, const uint8_t *frame, int32_t side, const int32_t *claimed,
                        xkd_source *source)
{
    static const xkd_media_info info = {.has_video = true, .video_end = 1, .end = 1};
    static const xkd_media_tally tally;
    char path[5000];
    xkd_writer *file = NULL;
    xkd_record_writer *w = NULL;
    xkd_record_head head;
    snprintf(path, sizeof path, "%s/record", folder);
    assert_int_equal(xkd_writer_open(cx, path, &file), XKD_OK);
    assert_int_equal(xkd_record_writer_new(cx, options, &w), XKD_OK);
    assert_int_equal(xkd_record_begin(w, file, 0), XKD_OK);
    assert_int_equal(xkd_record_add_frame(w, frame, side, side), XKD_OK);
    assert_int_equal(xkd_record_end(w, &info, &tally, XKD_FAULT_NONE, "{}", &head), XKD_OK);
    if (claimed) {
        head.width = claimed[0];
        head.height = claimed[1];
        head.sum = xkd_record_head_sum(&head);
        assert_int_equal(xkd_writer_patch(file, 0, &head, sizeof head), XKD_OK);
    }
    assert_int_equal(xkd_writer_commit(file), XKD_OK);
    assert_int_equal(xkd_open_read(cx, path, &source->fd, &source->size), XKD_OK);
    xkd_record_writer_free(w);
}

/* The smallest that JPEG can make of a size is still more than what is refused as too little for it. */
static void a_picture_of_one_colour_is_believed(void **state)
{
    enum { SIDE = 2048 };
    static uint8_t grey[3 * SIDE * SIDE], back[3 * SIDE * SIDE];
    (void)state;
    memset(grey, 128, sizeof grey);
    for (int full = 0; full < 2; full++) {
        const xkd_record_options options = {
            .codec = XKD_CODEC_JPEG, .quality = 50, .full_colour = full, .grid_fps = 8, .audio_rate = 16000};
        xkd_record_reader *r = NULL;
        xkd_source source = {.record = true};
        xkd_media_fault fault;
        write_frame(&options, grey, SIDE, NULL, &source);
        assert_int_equal(xkd_record_reader_new(cx, &r), XKD_OK);
        if (xkd_record_open(r, &source, &fault) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        assert_int_equal(xkd_record_frames(r, 0, 1, 1, back, &fault), XKD_OK);
        assert_memory_equal(back, grey, sizeof grey);
        xkd_record_reader_free(r);
        close(source.fd);
    }
}

/* A strip of one pixel's height would be resized to terabytes: it is refused by its record's head. */
static void strips_are_no_frames(void **state)
{
    static const struct {
        int32_t size[2];
        xkd_status status;
    } CASES[] = {{{64, 64}, XKD_OK},        {{32, 1}, XKD_OK},         {{33, 1}, XKD_ERR_DATA},
                 {{1, 33}, XKD_ERR_DATA},   {{4096, 1}, XKD_ERR_DATA}, {{1, 4096}, XKD_ERR_DATA},
                 {{272, 15}, XKD_ERR_DATA}, {{240, 15}, XKD_OK}};
    static uint8_t frame[3 * 64 * 64];
    const xkd_record_options options = {.codec = XKD_CODEC_RAW, .grid_fps = 8, .audio_rate = 16000};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        xkd_record_reader *r = NULL;
        xkd_source source = {.record = true};
        xkd_media_fault fault;
        write_frame(&options, frame, 64, CASES[i].size, &source);
        assert_int_equal(xkd_record_reader_new(cx, &r), XKD_OK);
        assert_int_equal(xkd_record_open(r, &source, &fault), CASES[i].status);
        if (CASES[i].status != XKD_OK) assert_non_null(strstr(xkd_last_error(cx), "frames of an impossible size"));
        xkd_clear_error(cx);
        xkd_record_reader_free(r);
        close(source.fd);
    }
}

static int stop_after;
static int stop(void *user)
{
    (void)user;
    return stop_after-- <= 0;
}

/* Listing and sums of all files of the pack. */
static void digest(char out[64])
{
    char command[9000];
    snprintf(command, sizeof command, "cd '%s' && cat pack.json *.xkdpack | md5sum && ls | grep -c part", packed);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fread(out, 1, 40, pipe) > 33, true);
    pclose(pipe);
    out[40] = 0;
}

static void the_same_files_whatever_stops_it(void **state)
{
    char once[64] = "", again[64] = "";
    xkd_data_config d = small_data_config(media);
    xkd_manifest m;
    xkd_packing_result r;
    (void)state;
    d.max_bad_fraction = 0.5;
    pack(XKD_CODEC_JPEG, 32, 1, &r);
    digest(once);
    pack(XKD_CODEC_JPEG, 32, 3, &r);
    digest(again);
    assert_string_equal(once, again);
    /* Stopped after each file. */
    shell("rm -rf '%s'", packed);
    assert_int_equal(xkd_manifest_load(cx, media, false, &m), XKD_OK);
    xkd_packing_options o = small_pack(&m, &d, XKD_CODEC_JPEG, 32);
    o.stop = stop;
    xkd_status status = XKD_ERR_INTERRUPTED;
    for (int sitting = 0; status == XKD_ERR_INTERRUPTED && sitting < 30; sitting++) {
        xkd_clear_error(cx);
        stop_after = 1;
        status = xkd_packing_run(cx, &m, &d, &o, &r);
    }
    assert_int_equal(status, XKD_OK);
    assert_int_equal(r.packed, 6);
    digest(again);
    assert_string_equal(once, again);
    /* In two parts, one after the other. */
    shell("rm -rf '%s'", packed);
    o.stop = NULL;
    o.parts = 2;
    assert_int_equal(xkd_packing_run(cx, &m, &d, &o, &r), XKD_OK);
    xkd_manifest half;
    xkd_clear_error(cx);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &half), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "data pack"));
    xkd_clear_error(cx);
    o.part = 1;
    assert_int_equal(xkd_packing_run(cx, &m, &d, &o, &r), XKD_OK);
    digest(again);
    assert_string_equal(once, again);
    /* Other settings do not get into it. */
    o.settings.record.quality = 90;
    assert_int_equal(xkd_packing_run(cx, &m, &d, &o, &r), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    xkd_manifest_free(&m);
}

/* The media files, to be packed into a folder that is not there, and how. */
typedef struct {
    xkd_data_config d;
    xkd_manifest m;
    xkd_packing_options o;
} packing;

static void begin_packing(packing *p, int codec)
{
    p->d = small_data_config(media);
    p->d.max_bad_fraction = 0.5;
    assert_int_equal(xkd_manifest_load(cx, media, false, &p->m), XKD_OK);
    p->o = small_pack(&p->m, &p->d, codec, 32);
    shell("rm -rf '%s'", packed);
}

static void a_full_disk_ends_it_and_it_goes_on(void **state)
{
    char once[64] = "", again[64] = "";
    packing p;
    xkd_packing_result r;
    int full = 0;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    digest(once);
    begin_packing(&p, XKD_CODEC_RAW);
    for (int64_t room = 100000;; room += 400000) {
        disk_bytes = room;
        xkd_status status = xkd_packing_run(cx, &p.m, &p.d, &p.o, &r);
        disk_bytes = INT64_MAX;
        if (status == XKD_OK) break;
        assert_int_equal(status, XKD_ERR_STORAGE);
        assert_non_null(strstr(xkd_last_error(cx), "free some space, then give the command again"));
        xkd_clear_error(cx);
        assert_true(++full < 20);
    }
    assert_true(full > 1);
    digest(again);
    assert_string_equal(once, again);
    xkd_manifest_free(&p.m);
}

static void write_another_pack(void *user, int64_t done, int64_t total)
{
    (void)user, (void)done, (void)total;
    shell("echo '{}' >'%s/pack.json'", packed);
}

/* Two that begin at once with other settings both find the folder empty. */
static void a_folder_that_another_took_is_told(void **state)
{
    packing p;
    xkd_packing_result r;
    (void)state;
    begin_packing(&p, XKD_CODEC_JPEG);
    p.o.progress = write_another_pack;
    assert_int_equal(xkd_packing_run(cx, &p.m, &p.d, &p.o, &r), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "holds a pack of other data or with other settings"));
    xkd_clear_error(cx);
    shell("rm -rf '%s'", packed);
    xkd_manifest_free(&p.m);
}

/* A power cut leaves zeros or old bytes anywhere in what was not yet safe. */
static void a_torn_part_is_found_and_done_again(void **state)
{
    char once[64] = "", again[64] = "";
    packing p;
    xkd_packing_result r;
    (void)state;
    begin_packing(&p, XKD_CODEC_JPEG);
    p.o.settings.shard_bytes = 1 << 24;
    assert_int_equal(xkd_packing_run(cx, &p.m, &p.d, &p.o, &r), XKD_OK);
    assert_int_equal(r.shards, 1);
    digest(once);
    for (int k = 0; k < 40; k++) {
        int64_t size;
        int fd;
        char path[5000], whole[5000];
        snprintf(whole, sizeof whole, "%s/" XKD_FIRST_SHARD, packed);
        snprintf(path, sizeof path, "%s/" XKD_FIRST_SHARD ".part", packed);
        shell("mv '%s' '%s'", whole, path);
        assert_int_equal(xkd_open_read(cx, path, &fd, &size), XKD_OK);
        close(fd);
        fd = open(path, O_RDWR);
        uint64_t at = (uint64_t)k * 2654435761u % (uint64_t)size;
        assert_int_equal(pwrite(fd, "torn!", 5, (off_t)at), 5);
        if (k % 3 == 0) assert_int_equal(ftruncate(fd, (off_t)at + 2), 0);
        close(fd);
        if (xkd_packing_run(cx, &p.m, &p.d, &p.o, &r) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
        digest(again);
        assert_string_equal(once, again);
    }
    xkd_manifest_free(&p.m);
}

/* One bit or a few bytes anywhere: an error in words, one record at fault, or nothing; never other frames. */
static void damage_costs_what_it_hits(void **state)
{
    static fetched good[7], b;
    xkd_data_config d = small_data_config(media);
    xkd_manifest m;
    xkd_fetcher *f = NULL;
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &m), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &m, NULL, &f), XKD_OK);
    for (int64_t i = 0; i < 7; i++) fetch(f, i, 0.4, &good[i]);
    xkd_fetcher_free(f);
    xkd_manifest_free(&m);
    char path[5000];
    snprintf(path, sizeof path, "%s/" XKD_FIRST_SHARD, packed);
    shell("cp '%s' '%s/copy'", path, folder);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    int hit = 0, unreadable = 0;
    for (int k = 0; k < 400; k++) {
        shell("cp '%s/copy' '%s'", folder, path);
        /* Half of them in the tables at the beginning and the end. */
        uint64_t at = (uint64_t)k * 2654435761u % (uint64_t)(k % 2 ? info.st_size : 6000);
        if (k % 4 == 2) at = (uint64_t)info.st_size - 1 - at % 2000;
        int fd = open(path, O_RDWR);
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
        byte ^= (uint8_t)(1 << k % 8);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
        close(fd);
        xkd_clear_error(cx);
        if (xkd_manifest_load(cx, packed, false, &m) != XKD_OK) {
            assert_true(strlen(xkd_last_error(cx)) > 10);
            unreadable++;
            continue;
        }
        assert_int_equal(xkd_fetcher_new(cx, &d, &m, NULL, &f), XKD_OK);
        for (int64_t i = 0; i < m.count; i++) {
            fetch(f, i, 0.4, &b);
            if (b.result.fault != XKD_FAULT_NONE && good[i].result.fault == XKD_FAULT_NONE) {
                assert_non_null(strstr(b.result.message, ".xkdpack: "));
                hit++;
                continue;
            }
            same_clip(&good[i], &b);
        }
        xkd_fetcher_free(f);
        xkd_manifest_free(&m);
    }
    xkd_clear_error(cx);
    assert_true(hit > 20);
    assert_true(unreadable > 5);
    shell("cp '%s/copy' '%s'", folder, path);
}

static void the_index_is_made_again(void **state)
{
    char path[5000];
    struct stat info;
    xkd_manifest m;
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    snprintf(path, sizeof path, "%s/" XKD_FIRST_SHARD, packed);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - 10), 0);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &m), XKD_OK);
    xkd_manifest_free(&m);
    compare_with_cache(XKD_CACHE_RAM, 8, BOTH);
    /* And the pack's own file, out of the first shard. */
    shell("rm '%s/pack.json'", packed);
    compare_with_cache(XKD_CACHE_RAM, 8, BOTH);
    /* Without a shard there is no telling which samples these are. */
    shell("rm '%s'", path);
    shell("cp '%s/copy' '%s/000000000099.xkdpack'", folder, packed);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &m), XKD_ERR_DATA);
    xkd_clear_error(cx);
}

static void a_shard_that_goes_away_is_named(void **state)
{
    static fetched b;
    xkd_data_config d = small_data_config(media);
    xkd_manifest m;
    xkd_fetcher *f = NULL;
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &m), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &m, NULL, &f), XKD_OK);
    shell("rm '%s/" XKD_FIRST_SHARD "'", packed);
    fetch(f, 0, 0.2, &b);
    assert_int_equal(b.result.fault, XKD_FAULT_MISSING);
    assert_non_null(strstr(b.result.message, XKD_FIRST_SHARD));
    fetch(f, m.count - 1, 0.2, &b);
    assert_int_equal(b.result.fault, XKD_FAULT_NONE);
    /* Cut short while it is open. */
    char path[5000];
    snprintf(path, sizeof path, "%s/%s", packed, xkd_pack_shard(m.pack, m.samples[m.count - 1].record - 1));
    assert_int_equal(truncate(path, 5000), 0);
    fetch(f, m.count - 1, 0.2, &b);
    assert_int_equal(b.result.fault, XKD_FAULT_UNREADABLE);
    assert_non_null(strstr(b.result.message, "shorter than it should be"));
    xkd_fetcher_free(f);
    xkd_manifest_free(&m);
}

/* A choice of a pack's samples with other labels. */
static void a_manifest_may_name_a_pack(void **state)
{
    static const char TEXT[] = "{\"xkd_manifest\": 1, \"pack\": \"packed\", \"classes\": [\"x\", \"y\"]}\n"
                               "{\"path\": \"b/still.mp4\", \"label\": 1, \"split\": \"test\"}\n"
                               "{\"path\": \"a/one.mp4\", \"label\": 0}\n";
    static fetched a, b;
    char path[5000], copy[5000];
    xkd_data_config d = small_data_config(media);
    xkd_manifest m, again, all;
    xkd_fetcher *f = NULL, *g = NULL;
    xkd_packing_result r;
    (void)state;
    pack(XKD_CODEC_RAW, 32, 1, &r);
    snprintf(path, sizeof path, "%s/choice.jsonl", folder);
    snprintf(copy, sizeof copy, "%s/copy.jsonl", folder);
    assert_int_equal(xkd_write_file(cx, path, TEXT, sizeof TEXT - 1), XKD_OK);
    if (xkd_manifest_load(cx, path, false, &m) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_manifest_write(cx, &m, copy, "packed"), XKD_OK);
    assert_int_equal(xkd_manifest_load(cx, copy, false, &again), XKD_OK);
    assert_int_equal(again.count, 2);
    assert_int_equal(again.samples[0].label, 1);
    assert_string_equal(again.samples[0].split, "test");
    assert_int_equal(xkd_manifest_load(cx, packed, false, &all), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &again, NULL, &f), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &d, &all, NULL, &g), XKD_OK);
    for (int64_t i = 0; i < all.count; i++) {
        if (strcmp(all.samples[i].path, "a/one.mp4")) continue;
        fetch(f, 1, 0.7, &a);
        fetch(g, i, 0.7, &b);
        same_clip(&a, &b);
        assert_int_equal(a.result.fault, XKD_FAULT_NONE);
    }
    xkd_fetcher_free(f);
    xkd_fetcher_free(g);
    xkd_manifest_free(&all);
    xkd_manifest_free(&again);
    xkd_manifest_free(&m);
    shell("sed -i s/one.mp4/none.mp4/ '%s'", path);
    assert_int_equal(xkd_manifest_load(cx, path, false, &m), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "a/none.mp4 is not in the pack"));
    xkd_clear_error(cx);
}

/* Files of two classes: usual, short, without sound, with late sound, a still picture, no medium at all, and sound that
 * ends early. */
static int make_media(void)
{
    static const struct {
        const char *name;
        double seconds, picture, sound, late;
        int64_t rate, width, height;
        int fps;
    } FILES[] = {{"a/one.mp4", 6, 0, 0, 0, 44100, 160, 112, 25}, {"a/short.mp4", 1, 0, 0, 0, 16000, 96, 128, 25},
                 {"a/dumb.mp4", 4, 0, 0, 0, 0, 160, 112, 30},    {"b/late.mp4", 6, 0, 0, 0.7, 44100, 160, 112, 24},
                 {"b/still.mp4", 6, 0, 0, 0, 16000, 64, 46, 1},  {"b/early.mp4", 5, 0, 3.3, 0, 48000, 160, 112, 25}};
    char path[5000];
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        test_file f = test_file_default();
        f.seconds = FILES[i].seconds;
        f.sound_seconds = FILES[i].sound;
        f.encode.sample_rate = FILES[i].rate;
        f.encode.width = FILES[i].width;
        f.encode.height = FILES[i].height;
        f.encode.fps = FILES[i].fps;
        f.encode.audio_start = FILES[i].late;
        snprintf(path, sizeof path, "%s/%s", media, FILES[i].name);
        if (make_test_file(cx, path, &f) != XKD_OK) return 1;
    }
    snprintf(path, sizeof path, "%s/b/none.mp4", media);
    return xkd_write_file(cx, path, "no film", 7) != XKD_OK;
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strips_are_no_frames),
        cmocka_unit_test(a_folder_that_another_took_is_told),
        cmocka_unit_test(raw_is_the_bits_of_a_cache),
        cmocka_unit_test(one_stream_of_a_pack_is_that_of_a_cache),
        cmocka_unit_test(a_still_picture_is_kept_once),
        cmocka_unit_test(training_draws_the_same),
        cmocka_unit_test(jpeg_is_near_and_a_larger_pack_is_made_small),
        cmocka_unit_test(what_a_pack_cannot_give_is_refused),
        cmocka_unit_test(a_picture_of_one_colour_is_believed),
        cmocka_unit_test(the_same_files_whatever_stops_it),
        cmocka_unit_test(a_full_disk_ends_it_and_it_goes_on),
        cmocka_unit_test(a_torn_part_is_found_and_done_again),
        cmocka_unit_test(damage_costs_what_it_hits),
        cmocka_unit_test(the_index_is_made_again),
        cmocka_unit_test(a_shard_that_goes_away_is_named),
        cmocka_unit_test(a_manifest_may_name_a_pack),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("pack"));
    snprintf(media, sizeof media, "%s/data", folder);
    snprintf(packed, sizeof packed, "%s/packed", folder);
    snprintf(cached, sizeof cached, "%s/kept", folder);
    shell("mkdir -p '%s/a' '%s/b'", media, media);
    if (make_media()) {
        fprintf(stderr, "%s\n", xkd_last_error(cx));
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
