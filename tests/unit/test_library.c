/* The library as a program of somebody's own uses it: the public headers of clips and features. What the files hold is known
 * (tests/media_files.h), and the features are compared with themselves by other ways to the bit; tests/cli/test_examples.sh
 * compares them with `xkd embed`. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <xkd/xkd.h>

#include <cmocka.h>

#include "base/context.h"
#include "data/loader.h"
#include "media_files.h"

#define VIDEO_MODEL "tests/golden/backbone/vid_teacher.safetensors"
#define AUDIO_MODEL "tests/golden/backbone/aud_teacher.pth.tar"
#define CONFIG "tests/data/backbone.yaml"

static char folder[] = "/tmp/xkd-library-XXXXXX", whole[64], mute[64], broken[64], brief[64];

static void make(xkd_context *cx, char *path, const char *name, test_file *file)
{
    snprintf(path, 64, "%s/%s", folder, name);
    assert_int_equal(make_test_file(cx, path, file), XKD_OK);
}

static int make_files(void **state)
{
    xkd_context *cx = xkd_context_new();
    test_file f = test_file_default();
    (void)state;
    assert_non_null(mkdtemp(folder));
    f.tone_from = 2;
    make(cx, whole, "whole.mp4", &f);
    f.seconds = 1;
    make(cx, brief, "brief.mp4", &f);
    f.seconds = 6;
    f.encode.sample_rate = 0;
    make(cx, mute, "mute.mp4", &f);
    snprintf(broken, sizeof broken, "%s/broken.mp4", folder);
    FILE *out = fopen(broken, "wb");
    for (int i = 0; i < 2000; i++) fputc(i * 7 % 251, out);
    fclose(out);
    xkd_context_free(cx);
    return 0;
}

static int remove_files(void **state)
{
    const char *const names[] = {whole, mute, broken, brief};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(names[i]);
    rmdir(folder);
    return 0;
}

static xkd_embedder_options options_of(xkd_wanted wanted)
{
    xkd_embedder_options o;
    xkd_embedder_defaults(&o);
    o.config = CONFIG;
    o.audio_model = AUDIO_MODEL;
    o.wanted = wanted;
    o.threads = 1;
    return o;
}

static xkd_embedder *open_embedder(xkd_context *cx, const xkd_embedder_options *o)
{
    xkd_embedder *e = NULL;
    if (xkd_embedder_open(cx, VIDEO_MODEL, o, &e) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return e;
}

#define GOOD(call, handle_error) \
    if ((call) != XKD_OK) fail_msg("%s", handle_error)

/* ---- clips ---- */

/* A clip begins where it was asked to, has the length of one, and the tone where the file has it. */
static void reads_clips(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_reader *r;
    xkd_clip_data clip;
    (void)state;
    GOOD(xkd_reader_open(cx, NULL, 0, &r), xkd_last_error(cx));
    GOOD(xkd_reader_clip(r, whole, 1.5, &clip), xkd_reader_error(r));
    assert_int_equal(clip.frame_count, 32);
    assert_int_equal(clip.height, 112);
    assert_int_equal(clip.width, 160);
    assert_int_equal(clip.sample_rate, 16000);
    assert_in_range(clip.sample_count, 63900, 64000);
    assert_true(fabs(clip.duration - 6) < 0.1 && clip.start == 1.5 && clip.fps == 8);
    /* 25 frames a second: at 1.5 s + k/8 the last frame that has begun. */
    for (int k = 0; k < 32; k++)
        assert_int_equal(read_number(clip.frames + (int64_t)k * 3 * 112 * 160, 160, 112), (int)((1.5 + k / 8.0) * 25));
    double before = 0, behind = 0;
    for (int i = 0; i < 7000; i++) before += fabs(clip.samples[i]);
    for (int i = 9000; i < 16000; i++) behind += fabs(clip.samples[i]);
    assert_true(before < 1 && behind > 100);
    /* The end of the file is the end of the clip. */
    GOOD(xkd_reader_clip(r, whole, 5, &clip), xkd_reader_error(r));
    assert_int_equal(clip.frame_count, 8);
    GOOD(xkd_reader_clip(r, mute, 0, &clip), xkd_reader_error(r));
    assert_true(clip.samples == NULL && clip.sample_count == 0 && clip.frame_count == 32);
    xkd_reader_close(r);
    xkd_context_free(cx);
}

static void reads_views(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_reader *r;
    xkd_clip_views a, b;
    (void)state;
    GOOD(xkd_reader_open(cx, NULL, 0, &r), xkd_last_error(cx));
    GOOD(xkd_reader_views(r, whole, 1, 5, 2, 7, &a), xkd_reader_error(r));
    assert_int_equal(a.count[XKD_VIDEO], 2);
    assert_int_equal(a.count[XKD_AUDIO], 2);
    const int64_t global[] = {3, 32, 112, 112}, local[] = {1, 1, 80, 112};
    assert_memory_equal(a.video[0].shape, global, sizeof global);
    assert_memory_equal(a.audio[1].shape, local, sizeof local);
    float first = a.video[0].data[1000], sum = 0;
    for (int i = 0; i < 3 * 32 * 112 * 112; i++) sum += a.video[0].data[i];
    assert_true(isfinite(sum));
    GOOD(xkd_reader_views(r, whole, 1, 5, 2, 7, &b), xkd_reader_error(r));
    assert_true(b.video[0].data[1000] == first); /* the same draw */
    GOOD(xkd_reader_views(r, whole, 1, 5, 3, 7, &b), xkd_reader_error(r));
    float other = 0;
    for (int i = 0; i < 3 * 32 * 112 * 112; i++) other += b.video[0].data[i];
    assert_true(other != sum); /* of another epoch */
    xkd_reader_close(r);
    xkd_context_free(cx);
}

/* What pre-training's loader makes of a file and what a reader makes of it are one. */
static void reads_as_training_does(void **state)
{
    char set[80], path[2][96], assignment[128];
    xkd_context *cx = xkd_context_new();
    xkd_config config;
    xkd_loader *loader;
    const xkd_batch *batch;
    xkd_listing *listing;
    xkd_reader *r;
    xkd_clip_views v;
    test_file f = test_file_default();
    (void)state;
    snprintf(set, sizeof set, "%s/set", folder);
    assert_int_equal(mkdir(set, 0700), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%d.mp4", set, i);
        f.seconds = 5 + i;
        assert_int_equal(make_test_file(cx, path[i], &f), XKD_OK);
    }
    snprintf(assignment, sizeof assignment, "data.path=%s", set);
    assert_int_equal(xkd_config_init(cx, &config), XKD_OK);
    assert_int_equal(xkd_config_override(cx, &config, assignment), XKD_OK);
    assert_int_equal(xkd_config_override(cx, &config, "num_node=1"), XKD_OK);
    assert_int_equal(xkd_config_override(cx, &config, "dataset.batch_size=2"), XKD_OK);
    assert_int_equal(xkd_config_override(cx, &config, "data.workers=1"), XKD_OK);
    assert_int_equal(xkd_config_finish(cx, &config), XKD_OK);
    if (xkd_loader_new(cx, &config.data, &config.train, 0, 1, &loader) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_loader_next(loader, &batch), XKD_OK);
    GOOD(xkd_listing_open(cx, set, NULL, 0, &listing), xkd_last_error(cx));
    GOOD(xkd_reader_open(cx, NULL, 0, &r), xkd_last_error(cx));
    assert_int_equal(xkd_listing_count(listing), 2);
    for (int64_t b = 0; b < 2; b++) {
        xkd_listed_file file = xkd_listing_file(listing, batch->source[b]);
        GOOD(xkd_reader_training_views(r, file.path, config.train.seed, 0, (uint32_t)batch->sample[b], &v),
             xkd_reader_error(r));
        assert_int_equal(v.count[XKD_VIDEO], batch->video_views);
        for (int64_t k = 0; k < batch->video_views; k++) {
            const int64_t *s = v.video[k].shape, n = s[0] * s[1] * s[2] * s[3];
            assert_memory_equal(v.video[k].data, batch->frames[k] + b * n, (size_t)n * sizeof(float));
        }
        for (int64_t k = 0; k < batch->audio_views; k++) {
            int64_t n = v.audio[k].shape[2] * v.audio[k].shape[3];
            assert_memory_equal(v.audio[k].data, batch->specs[k] + b * n, (size_t)n * sizeof(float));
        }
    }
    xkd_reader_close(r);
    xkd_listing_close(listing);
    xkd_loader_free(loader);
    xkd_config_free(&config);
    for (int i = 0; i < 2; i++) unlink(path[i]);
    rmdir(set);
    xkd_context_free(cx);
}

static void lists_files(void **state)
{
    char set[80], path[2][2][112], name[96];
    xkd_context *cx = xkd_context_new();
    xkd_listing *l;
    (void)state;
    snprintf(set, sizeof set, "%s/classes", folder);
    assert_int_equal(mkdir(set, 0700), 0);
    for (int c = 0; c < 2; c++) {
        snprintf(name, sizeof name, "%s/%s", set, c ? "dogs" : "cats");
        assert_int_equal(mkdir(name, 0700), 0);
        for (int i = 0; i < 2; i++) {
            snprintf(path[c][i], sizeof path[c][i], "%s/%d.mp4", name, i);
            assert_int_equal(symlink(whole, path[c][i]), 0);
        }
    }
    /* Links lead out of the folder: a listing of somebody's folder does not follow them. */
    assert_int_equal(xkd_listing_open(cx, set, NULL, 0, &l), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_last_error(cx), "cats/0.mp4"));
    xkd_clear_error(cx);
    GOOD(xkd_listing_open(cx, set, NULL, 1, &l), xkd_last_error(cx));
    assert_int_equal(xkd_listing_count(l), 4);
    xkd_listing_close(l);
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 2; i++) {
            unlink(path[c][i]);
            assert_int_equal(link(whole, path[c][i]), 0);
        }
    GOOD(xkd_listing_open(cx, set, NULL, 0, &l), xkd_last_error(cx));
    assert_int_equal(xkd_listing_count(l), 4);
    assert_int_equal(xkd_listing_class_count(l), 2);
    assert_string_equal(xkd_listing_class(l, 1), "dogs");
    assert_null(xkd_listing_class(l, 2));
    assert_int_equal(xkd_listing_file(l, 3).label, 1);
    assert_string_equal(xkd_listing_file(l, 3).path, path[1][1]);
    assert_null(xkd_listing_file(l, 4).path);
    xkd_listing_close(l);
    assert_int_equal(xkd_listing_open(cx, "/no/such", NULL, 0, &l), XKD_ERR_DATA);
    assert_null(l);
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < 2; i++) unlink(path[c][i]);
        snprintf(name, sizeof name, "%s/%s", set, c ? "dogs" : "cats");
        rmdir(name);
    }
    rmdir(set);
    xkd_context_free(cx);
}

static void reader_refuses(void **state)
{
    static const char *const bad[] = {"dataset.crop_sise=112"};
    xkd_context *cx = xkd_context_new();
    xkd_reader *r;
    xkd_clip_data clip;
    (void)state;
    assert_int_equal(xkd_reader_open(cx, bad, 1, &r), XKD_ERR_CONFIG);
    assert_null(r);
    assert_non_null(strstr(xkd_last_error(cx), "crop_size")); /* what was meant */
    xkd_clear_error(cx);
    GOOD(xkd_reader_open(cx, NULL, 0, &r), xkd_last_error(cx));
    assert_int_equal(xkd_reader_clip(r, "/no/such.mp4", 0, &clip), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_reader_error(r), "/no/such.mp4"));
    assert_int_equal(xkd_reader_clip(r, broken, 0, &clip), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_reader_error(r), broken));
    assert_int_equal(xkd_reader_clip(r, whole, 60, &clip), XKD_ERR_DATA);
    if (!strstr(xkd_reader_error(r), "ends at 6.0")) fail_msg("%s", xkd_reader_error(r));
    assert_int_equal(xkd_reader_clip(r, whole, -1, &clip), XKD_ERR_CONFIG);
    assert_int_equal(xkd_reader_clip(r, whole, NAN, &clip), XKD_ERR_CONFIG);
    assert_string_equal(xkd_last_error(cx), ""); /* messages are the handle's */
    GOOD(xkd_reader_clip(r, whole, 0, &clip), xkd_reader_error(r));
    assert_string_equal(xkd_reader_error(r), "");
    xkd_reader_close(r);
    xkd_context_free(cx);
}

/* ---- features ---- */

static void copy(const xkd_features *f, int m, float *out, int64_t most)
{
    int64_t n = f->count[m] * f->rows[m] * f->width[m];
    assert_true(n <= most);
    memcpy(out, f->row[m], (size_t)n * sizeof *out);
}

/* Windows of a file: their number and places, and the same rows by the iterator, by batches of other sizes, and by prepared
 * clips that are computed alone. */
static void embeds_files(void **state)
{
    enum { MOST = 4096 };
    static float all[XKD_MODALITIES][MOST];
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    xkd_features f;
    (void)state;
    o.stride = 1;
    xkd_embedder *e = open_embedder(cx, &o);
    xkd_encoder_info video = xkd_embedder_info(e, XKD_VIDEO), audio = xkd_embedder_info(e, XKD_AUDIO);
    assert_true(video.present && audio.present && video.rows == 1 && strlen(video.hash) == 32);
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    /* As many as end within the file. */
    int64_t n = (int64_t)(6 - video.seconds) + 1;
    assert_int_equal(f.count[XKD_VIDEO], n);
    assert_in_range(f.count[XKD_AUDIO], n - 1, n);
    for (int64_t i = 0; i < n; i++) assert_true(f.seconds[XKD_VIDEO][i] == (double)i);
    for (int m = 0; m < XKD_MODALITIES; m++) copy(&f, m, all[m], MOST);
    int64_t sounds = f.count[XKD_AUDIO];

    xkd_windows *w;
    xkd_window window;
    int more = 1;
    int64_t seen = 0;
    GOOD(xkd_embedder_windows(e, whole, &w), xkd_embedder_error(e));
    assert_int_equal(xkd_embedder_file(e, whole, &f), XKD_ERR_CONFIG); /* one thing at a time */
    for (; more; seen += more) {
        GOOD(xkd_windows_next(w, &window, &more), xkd_embedder_error(e));
        if (!more) break;
        assert_int_equal(window.index, seen);
        assert_true(window.seconds == (double)seen);
        assert_memory_equal(window.row[XKD_VIDEO], all[XKD_VIDEO] + seen * video.width, (size_t)video.width * 4);
        assert_true((window.row[XKD_AUDIO] != NULL) == (seen < sounds));
        if (seen < sounds)
            assert_memory_equal(window.row[XKD_AUDIO], all[XKD_AUDIO] + seen * audio.width, (size_t)audio.width * 4);
    }
    assert_int_equal(seen, n);
    xkd_windows_close(w);
    /* Given up in the middle, the handle goes on. */
    GOOD(xkd_embedder_windows(e, whole, &w), xkd_embedder_error(e));
    GOOD(xkd_windows_next(w, &window, &more), xkd_embedder_error(e));
    xkd_windows_close(w);
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    assert_memory_equal(f.row[XKD_VIDEO], all[XKD_VIDEO], (size_t)(n * video.width) * 4);
    /* Without sound the windows have none, and a file shorter than a clip is one. */
    GOOD(xkd_embedder_windows(e, mute, &w), xkd_embedder_error(e));
    GOOD(xkd_windows_next(w, &window, &more), xkd_embedder_error(e));
    assert_true(more && window.row[XKD_VIDEO] && !window.row[XKD_AUDIO]);
    xkd_windows_close(w);
    GOOD(xkd_embedder_file(e, brief, &f), xkd_embedder_error(e));
    assert_int_equal(f.count[XKD_VIDEO], 1);
    xkd_embedder_close(e);
    o.batch = 1;
    e = open_embedder(cx, &o);
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    assert_memory_equal(f.row[XKD_VIDEO], all[XKD_VIDEO], (size_t)(n * video.width) * 4);
    xkd_embedder_close(e);
    xkd_context_free(cx);
}

/* Frames and samples that a reader took from a file are embedded as the file is: to the bit where they are all of it. Packed,
 * turned upside down in memory with negative strides, and with a fourth byte a pixel. */
static void embeds_memory(void **state)
{
    /* The model's clip, frames as they are in the file (0 would be the side of training), and twice as long a clip, the file. */
    static const char *const settings[] = {"dataset.crop_size=112", "dataset.clip_duration=6"};
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    xkd_reader *r;
    xkd_clip_data clip;
    xkd_features f;
    float file[2][2048];
    int64_t count[2];
    (void)state;
    GOOD(xkd_reader_open(cx, settings, 2, &r), xkd_last_error(cx));
    GOOD(xkd_reader_clip(r, whole, 0, &clip), xkd_reader_error(r));
    assert_int_equal(clip.height, TEST_HEIGHT); /* not resized, so that the embedder resizes what the file has */
    xkd_embedder *e = open_embedder(cx, &o);
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    for (int m = 0; m < 2; m++) {
        copy(&f, m, file[m], 2048);
        count[m] = f.count[m] * f.width[m];
    }
    xkd_frames frames = {.data = clip.frames, .count = clip.frame_count, .height = clip.height, .width = clip.width};
    xkd_samples samples = {.data = clip.samples, .count = clip.sample_count};
    GOOD(xkd_embedder_memory(e, &frames, &samples, &f), xkd_embedder_error(e));
    assert_int_equal(f.count[XKD_VIDEO] * f.width[XKD_VIDEO], count[XKD_VIDEO]);
    for (int m = 0; m < 2; m++) assert_memory_equal(f.row[m], file[m], (size_t)count[m] * sizeof(float));
    /* Rows from the last to the first, four bytes a pixel, every second sample of an array. */
    int64_t pixels = clip.frame_count * clip.height * clip.width;
    uint8_t *wide = malloc((size_t)pixels * 4);
    float *spread = malloc((size_t)clip.sample_count * 2 * sizeof *spread);
    for (int64_t t = 0; t < clip.frame_count; t++)
        for (int64_t y = 0; y < clip.height; y++)
            for (int64_t x = 0; x < clip.width; x++)
                memcpy(wide + ((t * clip.height + clip.height - 1 - y) * clip.width + x) * 4,
                       clip.frames + ((t * clip.height + y) * clip.width + x) * 3, 3);
    for (int64_t i = 0; i < clip.sample_count; i++) spread[2 * i] = clip.samples[i];
    frames.data = wide + (clip.height - 1) * clip.width * 4;
    frames.pixel_stride = 4;
    frames.row_stride = -4 * clip.width;
    frames.frame_stride = 4 * clip.width * clip.height;
    samples = (xkd_samples){spread, clip.sample_count, 2};
    GOOD(xkd_embedder_memory(e, &frames, &samples, &f), xkd_embedder_error(e));
    for (int m = 0; m < 2; m++) assert_memory_equal(f.row[m], file[m], (size_t)count[m] * sizeof(float));
    /* Of one modality alone. */
    GOOD(xkd_embedder_memory(e, NULL, &samples, &f), xkd_embedder_error(e));
    assert_int_equal(f.count[XKD_VIDEO], 0);
    assert_memory_equal(f.row[XKD_AUDIO], file[XKD_AUDIO], (size_t)count[XKD_AUDIO] * sizeof(float));
    spread[200] = NAN;
    assert_int_equal(xkd_embedder_memory(e, NULL, &samples, &f), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_embedder_error(e), "number 100 is not finite"));
    assert_int_equal(xkd_embedder_memory(e, NULL, NULL, &f), XKD_ERR_CONFIG);
    free(wide);
    free(spread);
    xkd_embedder_close(e);
    xkd_reader_close(r);
    xkd_context_free(cx);
}

/* A clip's row does not depend on the clips beside it. */
static void embeds_clips(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_AUDIO);
    float together[11 * 512], alone[512];
    (void)state;
    o.batch = 4;
    xkd_embedder *e = open_embedder(cx, &o);
    xkd_encoder_info info = xkd_embedder_info(e, XKD_AUDIO);
    int64_t floats = info.clip[0] * info.clip[1] * info.clip[2] * info.clip[3];
    float *clips = malloc((size_t)(11 * floats) * sizeof *clips);
    assert_true(info.width <= 512 && !xkd_embedder_info(e, XKD_VIDEO).present);
    for (int64_t i = 0; i < 11 * floats; i++) clips[i] = (float)sin((double)i * 0.37) + (float)(i / floats) * 0.1f;
    GOOD(xkd_embedder_clips(e, XKD_AUDIO, clips, 11, together), xkd_embedder_error(e));
    for (int64_t i = 0; i < 11; i++) {
        GOOD(xkd_embedder_clips(e, XKD_AUDIO, clips + i * floats, 1, alone), xkd_embedder_error(e));
        assert_memory_equal(alone, together + i * info.width, (size_t)info.width * sizeof(float));
    }
    assert_int_equal(xkd_embedder_clips(e, XKD_VIDEO, clips, 1, alone), XKD_ERR_CONFIG);
    clips[3] = NAN;
    assert_int_equal(xkd_embedder_clips(e, XKD_AUDIO, clips, 1, alone), XKD_ERR_NUMERIC);
    free(clips);
    xkd_embedder_close(e);
    xkd_context_free(cx);
}

/* The tensors of an encoder, as another framework would take them. */
static void gives_weights(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_VIDEO);
    xkd_weight w;
    int64_t count = 0, rows = 0;
    (void)state;
    xkd_embedder *e = open_embedder(cx, &o);
    xkd_encoder_geometry g = xkd_embedder_geometry(e, XKD_VIDEO);
    assert_true(g.width == 32 && g.depth == 2 && g.heads == 2 && g.channels == 3 && g.cls_token);
    const int64_t patch[] = {2, 8, 8}, grid[] = {4, 4, 4};
    assert_memory_equal(g.patch, patch, sizeof patch);
    assert_memory_equal(g.grid, grid, sizeof grid);
    for (; xkd_embedder_weight(e, XKD_VIDEO, count, &w) == XKD_OK; count++)
        if (strcmp(w.name, "enc_pos_embed") == 0) rows = w.shape[1];
    assert_int_equal(rows, 65);
    /* class token, positions, embedding, final norm; of a block two norms and, but for the bias of qkv, four layers */
    assert_int_equal(count, 2 + 2 + 2 + 2 * (4 + 7));
    assert_int_equal(xkd_embedder_weight(e, XKD_AUDIO, 0, &w), XKD_ERR_CONFIG);
    assert_int_equal(xkd_embedder_geometry(e, XKD_AUDIO).width, 0);
    /* The same from a device whose memory the host cannot read. */
    static const char *const guard[] = {"run.device=guard"};
    o.settings = guard;
    o.setting_count = 1;
    xkd_embedder *far = open_embedder(cx, &o);
    xkd_features f;
    for (int64_t i = 0; i < count; i++) {
        xkd_weight there;
        assert_int_equal(xkd_embedder_weight(e, XKD_VIDEO, i, &w), XKD_OK);
        GOOD(xkd_embedder_weight(far, XKD_VIDEO, i, &there), xkd_embedder_error(far));
        assert_memory_equal(there.data, w.data, (size_t)(w.shape[0] * (w.dims > 1 ? w.shape[1] : 1)) * sizeof(float));
    }
    GOOD(xkd_embedder_file(far, brief, &f), xkd_embedder_error(far));
    xkd_embedder_close(far);
    xkd_embedder_close(e);
    xkd_context_free(cx);
}

/* ---- many files, stopping, threads ---- */

struct seen {
    int calls, features, errors, stop_at;
    char error[128];
};

static int take(void *user, int64_t index, const xkd_features *f, const char *error)
{
    struct seen *s = user;
    assert_int_equal(index, s->calls);
    s->calls++;
    s->features += f != NULL;
    if (error) snprintf(s->error, sizeof s->error, "%s", error);
    s->errors += error != NULL;
    return s->calls == s->stop_at;
}

static void embeds_lists(void **state)
{
    const char *const paths[] = {whole, broken, "/no/such.mp4", mute, brief};
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    struct seen s = {0};
    xkd_features f;
    (void)state;
    xkd_embedder *e = open_embedder(cx, &o);
    GOOD(xkd_embedder_files(e, paths, 5, take, &s), xkd_embedder_error(e));
    assert_int_equal(s.calls, 5);
    assert_int_equal(s.features, 3);
    assert_int_equal(s.errors, 2);
    assert_non_null(strstr(s.error, "missing")); /* of the last that failed */
    s = (struct seen){.stop_at = 1};
    assert_int_equal(xkd_embedder_files(e, paths, 5, take, &s), XKD_ERR_INTERRUPTED);
    assert_int_equal(s.calls, 1);
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    assert_int_equal(xkd_embedder_file(e, broken, &f), XKD_ERR_DATA);
    assert_non_null(strstr(xkd_embedder_error(e), broken));
    assert_int_equal(f.count[XKD_VIDEO], 0);
    assert_int_equal(xkd_embedder_file(e, "/no/such.mp4", &f), XKD_ERR_DATA);
    assert_int_equal(xkd_embedder_file(e, folder, &f), XKD_ERR_DATA);
    xkd_embedder_close(e);
    xkd_context_free(cx);
}

static int count_down(void *user, const xkd_progress *progress)
{
    int *left = user;
    assert_non_null(progress->what);
    return (*left)-- == 0;
}

/* The progress callback stops a call, and the handle is as good as before. */
static void stops(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    xkd_features f;
    int left;
    (void)state;
    xkd_embedder *e = open_embedder(cx, &o);
    xkd_context_set_progress(cx, count_down, &left);
    for (int at = 0; at < 3; at++) {
        left = at;
        assert_int_equal(xkd_embedder_file(e, whole, &f), XKD_ERR_INTERRUPTED);
        assert_non_null(strstr(xkd_embedder_error(e), "stopped by the caller"));
    }
    left = 1000000;
    GOOD(xkd_embedder_file(e, whole, &f), xkd_embedder_error(e));
    assert_true(left < 1000000);
    xkd_embedder_close(e);
    xkd_context_free(cx);
}

static void refuses_models(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    xkd_embedder *e;
    xkd_predictor *p;
    (void)state;
    assert_int_equal(xkd_embedder_open(cx, "/no/model", NULL, &e), XKD_ERR_CHECKPOINT);
    assert_null(e);
    assert_non_null(strstr(xkd_last_error(cx), "/no/model"));
    xkd_clear_error(cx);
    assert_int_equal(xkd_embedder_open(cx, whole, NULL, &e), XKD_ERR_CHECKPOINT);
    xkd_clear_error(cx);
    o.audio_model = NULL;
    assert_int_equal(xkd_embedder_open(cx, VIDEO_MODEL, &o, &e), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "has no audio encoder"));
    xkd_clear_error(cx);
    o = options_of(XKD_WANT_VIDEO);
    o.batch = 0;
    assert_int_equal(xkd_embedder_open(cx, VIDEO_MODEL, &o, &e), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    assert_int_equal(xkd_predictor_open(cx, VIDEO_MODEL, NULL, 0, &p), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(cx), "has no classifier"));
    assert_null(p);
    xkd_embedder_close(NULL);
    xkd_predictor_close(NULL);
    xkd_reader_close(NULL);
    xkd_windows_close(NULL);
    xkd_context_free(cx);
}

struct runner {
    xkd_embedder *embedder;
    float rows[1024];
    int failures;
};

/* A handle that was opened in another thread, used in this one. */
static void *run_files(void *user)
{
    struct runner *r = user;
    xkd_features f;
    for (int i = 0; i < 4; i++) {
        const char *path = i == 1 ? broken : whole;
        xkd_status status = xkd_embedder_file(r->embedder, path, &f);
        if ((status == XKD_OK) != (i != 1)) r->failures++;
        if (i == 1 && !strstr(xkd_embedder_error(r->embedder), "broken.mp4")) r->failures++;
        if (status == XKD_OK) memcpy(r->rows, f.row[XKD_VIDEO], (size_t)f.width[XKD_VIDEO] * sizeof(float));
    }
    return NULL;
}

/* Two handles of one context in two threads, whose errors and results are their own; then one passes on to another thread. */
static void two_threads(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_embedder_options o = options_of(XKD_WANT_BOTH);
    static struct runner r[2];
    pthread_t thread[2];
    xkd_features f;
    (void)state;
    for (int i = 0; i < 2; i++) {
        o.threads = i + 1;
        r[i].embedder = open_embedder(cx, &o);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, run_files, &r[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    assert_int_equal(r[0].failures + r[1].failures, 0);
    GOOD(xkd_embedder_file(r[0].embedder, whole, &f), xkd_embedder_error(r[0].embedder));
    size_t bytes = (size_t)f.width[XKD_VIDEO] * sizeof(float);
    assert_memory_equal(r[0].rows, r[1].rows, bytes);
    assert_memory_equal(f.row[XKD_VIDEO], r[1].rows, bytes);
    for (int i = 0; i < 2; i++) xkd_embedder_close(r[i].embedder);
    xkd_context_free(cx);
}

/* Whichever allocation fails, a call says so and leaves nothing behind (the address sanitizer looks for that). */
static void survives_without_memory(void **state)
{
    static float sound[16000];
    const xkd_samples samples = {sound, 16000, 1};
    xkd_embedder_options o = options_of(XKD_WANT_AUDIO);
    int64_t failed = 0;
    (void)state;
    for (int64_t at = 0;; at++) {
        xkd_context *cx = xkd_context_new();
        xkd_embedder *e = NULL;
        xkd_features f;
        xkd_context_account(cx)->fail_at = at;
        xkd_status status = xkd_embedder_open(cx, VIDEO_MODEL, &o, &e);
        if (status != XKD_OK) assert_null(e);
        const char *message = e ? "" : xkd_last_error(cx);
        if (e) status = xkd_embedder_memory(e, NULL, &samples, &f);
        if (e) message = xkd_embedder_error(e);
        if (status != XKD_OK && status != XKD_ERR_MEMORY) fail_msg("allocation %d: %d: %s", (int)at, status, message);
        failed += status == XKD_ERR_MEMORY;
        xkd_embedder_close(e);
        xkd_context_free(cx);
        if (status == XKD_OK) break;
    }
    assert_true(failed > 50);
}

static void *read_once(void *user)
{
    xkd_clip_data clip;
    return xkd_reader_clip(user, whole, 1, &clip) == XKD_OK && clip.frame_count == 32 ? user : NULL;
}

/* A reader's process dies with the thread that started it; the next thread's call starts another. */
static void passes_from_thread_to_thread(void **state)
{
    xkd_context *cx = xkd_context_new();
    xkd_reader *r;
    (void)state;
    GOOD(xkd_reader_open(cx, NULL, 0, &r), xkd_last_error(cx));
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        void *good;
        pthread_create(&thread, NULL, read_once, r);
        pthread_join(thread, &good);
        if (!good) fail_msg("thread %d: %s", i, xkd_reader_error(r));
    }
    assert_non_null(read_once(r));
    xkd_reader_close(r);
    xkd_context_free(cx);
}

/* Names that programs see. */
static void tells_its_version(void **state)
{
    char text[32];
    (void)state;
    snprintf(text, sizeof text, "%d.%d.%d", XKD_VERSION_MAJOR, XKD_VERSION_MINOR, XKD_VERSION_PATCH);
    assert_string_equal(xkd_version(), text);
    assert_string_equal(xkd_status_name(XKD_ERR_DATA), "data");
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_clips),
        cmocka_unit_test(reads_views),
        cmocka_unit_test(reads_as_training_does),
        cmocka_unit_test(lists_files),
        cmocka_unit_test(reader_refuses),
        cmocka_unit_test(embeds_files),
        cmocka_unit_test(embeds_memory),
        cmocka_unit_test(embeds_clips),
        cmocka_unit_test(gives_weights),
        cmocka_unit_test(embeds_lists),
        cmocka_unit_test(stops),
        cmocka_unit_test(refuses_models),
        cmocka_unit_test(survives_without_memory),
        cmocka_unit_test(two_threads),
        cmocka_unit_test(passes_from_thread_to_thread),
        cmocka_unit_test(tells_its_version),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
