/* Views of supervised training: functions of their key alone, the right operations in the right order, labels of the clips
 * that stand in a batch, and the three crops of a test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data_config.h"
#include "eval/encode/clips.h"
#include "eval/encode/training_views.h"
#include "media/worker.h"
#include "media_files.h"
#include "train/schedule.h"

enum { SIDE = 32, T = 16, W = 160, H = 112, PIXELS = 3 * T * SIDE * SIDE, FILES = 5 };

static xkd_context *cx;
static char folder[4096];
static uint8_t frames[12 * H * W * 3]; /* fewer than a view has */

static xkd_config settings(void)
{
    xkd_config c = {0};
    if (xkd_config_init(cx, &c) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    xkd_data_config own = c.data;
    c.data = small_data_config(own.path); /* the texts stay the configuration's */
    c.data.split = own.split;
    c.data.cache_folder = own.cache_folder;
    c.data.split[0] = 0;
    c.data.video_local_views = c.data.audio_local_views = 0;
    c.data.workers = 2;
    c.eval.vid_transform = XKD_TRANSFORM_RANDAUG;
    return c;
}

static void set(xkd_config *c, const char *assignment)
{
    if (xkd_config_override(cx, c, assignment) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
}

static void make(const xkd_config *c, xkd_modality m, xkd_view_key key, float *out)
{
    static int16_t sound[32000];
    xkd_training_views views;
    xkd_loader_plan plan;
    void *maker;
    for (int i = 0; i < 32000; i++) sound[i] = (int16_t)(9000 * sin(i * 0.3) + i % 977);
    const xkd_clip clip = {.frames = frames, .count = 12, .height = H, .width = W, .sound = sound, .samples = 32000};
    float *const both[] = {m == XKD_VIDEO ? out : NULL, m == XKD_AUDIO ? out : NULL};
    assert_int_equal(xkd_training_views_new(cx, c, m, &views, &plan), XKD_OK);
    assert_true(plan.wanted[m] && !plan.wanted[!m]);
    assert_int_equal(plan.maker_new(cx, plan.user, &maker), XKD_OK);
    assert_int_equal(plan.make(maker, &clip, &key, both), XKD_OK);
    plan.maker_free(maker);
}

static float off_by(const float *a, const float *b, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(a[i] - b[i]));
    return most;
}

/* The same key gives the same view; epoch, sample and seed each give another one. */
static void keys(void **state)
{
    (void)state;
    static float a[PIXELS], b[PIXELS];
    static const xkd_view_key keys[] = {{1, 2, 3}, {1, 2, 3}, {1, 3, 3}, {1, 2, 4}, {2, 2, 3}};
    xkd_config c = settings();
    set(&c, "eval.auto_augment=rand-m7-n4-mstd0.5-inc1");
    set(&c, "eval.erase=0.25");
    for (int transform = 0; transform < 2; transform++) {
        if (transform) c.eval.vid_transform = XKD_TRANSFORM_STRONG;
        make(&c, XKD_VIDEO, keys[0], a);
        for (int k = 1; k < 5; k++) {
            make(&c, XKD_VIDEO, keys[k], b);
            assert_true(k == 1 ? off_by(a, b, PIXELS) == 0 : off_by(a, b, PIXELS) > 0);
        }
    }
    set(&c, "eval.fmask=true");
    set(&c, "eval.tmask=true");
    int64_t n = 80 * 224;
    make(&c, XKD_AUDIO, keys[0], a);
    for (int k = 1; k < 5; k++) {
        make(&c, XKD_AUDIO, keys[k], b);
        assert_true(k == 1 ? off_by(a, b, n) == 0 : off_by(a, b, n) > 0);
    }
    xkd_config_free(&c);
}

/* Without RandAugment: normalised frames, cropped and resized, perhaps mirrored; frames repeat from the start. */
static void crop_and_flip(void **state)
{
    (void)state;
    static float got[PIXELS], want[PIXELS], whole[3 * T * H * W], scratch[H * W];
    static uint8_t planes[3 * T * H * W];
    const xkd_planes p = {T, H, W, {planes, planes + T * H * W, planes + 2 * T * H * W}};
    int flips = 0;
    xkd_config c = settings();
    for (int64_t t = 0; t < T; t++) xkd_planes_put(&p, t, frames + t % 12 * 3 * H * W, false);
    xkd_image_normalise(&p, whole);
    for (uint32_t sample = 0; sample < 20; sample++) {
        xkd_rng rng = xkd_rng_make(5, 1, sample, XKD_STREAM_CROP, XKD_RNG_EVAL);
        xkd_crop_box box = xkd_draw_crop(&rng, c.data.video_view[0].crop_scale, c.eval.aspect_ratio, H, W);
        bool flip = xkd_rng_uniform(&rng) < 0.5;
        flips += flip;
        xkd_crop_resize(whole, 3 * T, H, W, &box, scratch, want, SIDE);
        make(&c, XKD_VIDEO, (xkd_view_key){5, 1, sample}, got);
        for (int64_t i = 0; i < PIXELS; i++) {
            int64_t x = i % SIDE, at = flip ? i - x + SIDE - 1 - x : i;
            assert_true(got[i] == want[at]);
        }
    }
    assert_in_range(flips, 4, 16);
    xkd_config_free(&c);
}

/* Masked bands and columns hold the spectrogram's mean; nothing else changes. */
static void masks(void **state)
{
    (void)state;
    static float plain[80 * 224], masked[80 * 224];
    xkd_config c = settings();
    make(&c, XKD_AUDIO, (xkd_view_key){1, 0, 7}, plain);
    set(&c, "eval.fmask=true");
    set(&c, "eval.fmask_len=[9, 10]");
    set(&c, "eval.num_fmask=1");
    make(&c, XKD_AUDIO, (xkd_view_key){1, 0, 7}, masked);
    double mean = 0;
    int bands = 0;
    for (int i = 0; i < 80 * 224; i++) mean += plain[i] / (80.0 * 224);
    for (int f = 0; f < 80; f++) {
        bool changed = off_by(plain + f * 224, masked + f * 224, 224) > 0;
        bands += changed;
        for (int t = 0; changed && t < 224; t++) assert_true(fabs(masked[f * 224 + t] - mean) < 1e-4);
    }
    assert_int_equal(bands, 9);
    xkd_config_free(&c);
}

/* ---- files ---- */

/* Several passes draw other clips of each file; a file that cannot be read lends its place, not its label. */
static void passes_and_sources(void **state)
{
    (void)state;
    xkd_config c = settings();
    xkd_training_views views;
    xkd_loader_plan plan;
    xkd_loader *l;
    const xkd_batch *b;
    int count[FILES + 1] = {0};
    xkd_train_config train = {.batch = 4, .accumulate = 1, .seed = 3};
    xkd_free(c.data.path);
    assert_int_equal(xkd_copy_string(cx, &c.data.path, folder), XKD_OK);
    c.data.shuffle = c.data.drop_last = true;
    c.eval.train_clips = 2;
    assert_int_equal(xkd_training_views_new(cx, &c, XKD_VIDEO, &views, &plan), XKD_OK);
    assert_int_equal(xkd_loader_new_planned(cx, &c.data, &train, &plan, &l), XKD_OK);
    assert_int_equal(xkd_loader_steps_per_epoch(l), 3); /* 2 passes over 5 files and a broken one, batches of 4 */
    const xkd_manifest *m = xkd_loader_manifest(l);
    assert_int_equal(m->count, FILES + 1);
    for (int step = 0; step < 3; step++) {
        assert_int_equal(xkd_loader_next(l, &b), XKD_OK);
        assert_null(b->specs[0]);
        for (int64_t i = 0; i < b->count; i++) {
            count[b->source[i]]++;
            bool broken = strcmp(m->samples[b->sample[i] % (FILES + 1)].path, "z.mp4") == 0;
            assert_true(broken || b->source[i] == b->sample[i] % (FILES + 1));
            assert_string_not_equal(m->samples[b->source[i]].path, "z.mp4");
        }
    }
    for (int i = 0; i < FILES; i++) assert_true(count[i] >= 2);
    xkd_loader_free(l);
    c.data.cache = XKD_CACHE_RAM;
    assert_int_equal(xkd_loader_new_planned(cx, &c.data, &train, &plan, &l), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
    xkd_config_free(&c);
}

typedef struct {
    float clips[9][PIXELS];
    double seconds[9];
    int count;
} taken;

static xkd_status reserve(void *user, xkd_modality modality, float **clip)
{
    taken *t = user;
    assert_int_equal(modality, XKD_VIDEO);
    assert_in_range(t->count, 0, 8);
    *clip = t->clips[t->count];
    return XKD_OK;
}

static xkd_status commit(void *user, const xkd_clip_place *place)
{
    taken *t = user;
    assert_int_equal(place->clip, t->count);
    t->seconds[t->count++] = place->seconds;
    return XKD_OK;
}

/* Crops of one clip are windows of one resized picture: they overlap where they must. 160x112 becomes 45x32. */
static void three_crops(void **state)
{
    (void)state;
    static taken t;
    const int starts[] = {0, 7, 13};
    xkd_config c = settings();
    xkd_clipper *clipper;
    xkd_manifest m;
    char path[5000];
    xkd_media_result result;
    const xkd_clip_options o = {.data = &c.data, .wanted = {true, false}, .protocol = XKD_CLIPS_TEST, .clips = 3,
                                .three_crops = true};
    const xkd_clip_sink sink = {&t, reserve, commit};
    snprintf(path, sizeof path, "%s/0.mp4", folder);
    assert_int_equal(xkd_manifest_of_file(cx, path, &m), XKD_OK);
    assert_int_equal(xkd_clipper_new(cx, &o, &clipper), XKD_OK);
    assert_int_equal(xkd_clipper_run(clipper, &m, 0, 0, 0, &sink, &result), XKD_OK);
    assert_int_equal(result.fault, XKD_FAULT_NONE);
    assert_int_equal(t.count, 9);
    for (int k = 0; k < 9; k++) assert_true(t.seconds[k] == t.seconds[k / 3 * 3]);
    assert_true(t.seconds[0] == 0 && t.seconds[3] > 0 && t.seconds[6] > t.seconds[3]);
    for (int k = 1; k < 3; k++)
        for (int row = 0; row < 3 * T * SIDE; row++)
            for (int x = 0; x + starts[k] < SIDE; x++)
                assert_true(t.clips[k][row * SIDE + x] == t.clips[0][row * SIDE + x + starts[k]]);
    xkd_clipper_free(clipper);
    xkd_manifest_free(&m);
    xkd_config_free(&c);
}

/* ---- learning rates ---- */

static void rates(void **state)
{
    (void)state;
    xkd_train_config t = {.epochs = 10, .batch = 8, .lr = {.base = 0.1, .warmup_epochs = 2, .final = 0.01}};
    xkd_eval_config e = {.lr_form = XKD_LR_FIXED, .gamma = 0.5, .milestones = {2, {4, 6}}};
    for (int step = 0; step < 50; step++) assert_true(xkd_supervised_rate(&t, &e, step, 5) == 0.1);
    e.lr_form = XKD_LR_COSINE;
    for (int step = 0; step < 50; step++)
        assert_true(xkd_supervised_rate(&t, &e, step, 5) == xkd_schedule_value(&t.lr, step, 5, 10));
    e.lr_form = XKD_LR_STEP;
    assert_true(xkd_supervised_rate(&t, &e, 0, 5) == 0 && xkd_supervised_rate(&t, &e, 9, 5) == 0.1);
    for (int step = 10; step < 50; step++) {
        double want = step < 20 ? 0.1 : step < 30 ? 0.05 : 0.025;
        assert_true(fabs(xkd_supervised_rate(&t, &e, step, 5) - want) < 1e-15);
    }
    t.lr_scale_to_batch = 16;
    e.lr_form = XKD_LR_FIXED;
    assert_true(xkd_supervised_rate(&t, &e, 3, 5) == 0.05);
}

static int setup(void **state)
{
    (void)state;
    cx = xkd_context_new();
    for (size_t i = 0; i < sizeof frames; i++) frames[i] = (uint8_t)(i * 7 % 251 + i / 5000);
    snprintf(folder, sizeof folder, "%s", test_folder("training-views"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    char path[5000];
    test_file f = test_file_default();
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%d.mp4", folder, i);
        if (make_test_file(cx, path, &f) != XKD_OK) return 1;
    }
    snprintf(path, sizeof path, "%s/z.mp4", folder);
    return xkd_write_file(cx, path, "junk", 4);
}

static int teardown(void **state)
{
    (void)state;
    remove_test_folder(folder);
    xkd_context_free(cx);
    return 0;
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys),        cmocka_unit_test(crop_and_flip),
                                       cmocka_unit_test(masks),       cmocka_unit_test(passes_and_sources),
                                       cmocka_unit_test(three_crops), cmocka_unit_test(rates)};
    return cmocka_run_group_tests_name("training_views", tests, setup, teardown);
}
