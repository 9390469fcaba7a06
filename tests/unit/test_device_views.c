/* Views that a device makes of raw batches, beside those that the loader's threads make: of the same draws, each augmentation alone
 * and all together. On the reference and behind the guard they are the same to the bit; on a GPU, and the simulation of one,
 * pictures are, and spectrograms within 1e-3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "absent_device.h"
#include "base/alloc.h"
#include "data/raw.h"
#include "data_config.h"

enum { PLACES = 6, SIDE = 32, LONG = 57, RATE = 4000, MOST_FRAMES = 4, MOST_FLOATS = 1 << 16 };

static xkd_context *cx;
static float want[MOST_FLOATS], got[PLACES * MOST_FLOATS];

/* Clips of all forms: wide, high, square, grey, of few frames, silent, shorter than they should be. */
typedef struct {
    uint8_t pixels[MOST_FRAMES * SIDE * LONG * 3];
    int16_t sound[RATE];
    xkd_clip clip;
} made_clip;

static made_clip clips[PLACES];

static void make_clips(void)
{
    for (int k = 0; k < PLACES; k++) {
        made_clip *c = &clips[k];
        xkd_rng rng = xkd_rng_make(3, 0, (uint32_t)k, 0, XKD_RNG_TEST);
        int64_t width = k % 3 == 0 ? LONG : SIDE, height = k % 3 == 1 ? LONG : SIDE;
        for (size_t i = 0; i < sizeof c->pixels; i++) {
            int64_t noise = xkd_rng_below(&rng, k % 2 ? 256 : 20), x = (int64_t)i / 3 % width;
            c->pixels[i] = (uint8_t)(k == 4 ? 7 * x : noise + (k % 2 ? 0 : 3 * x + (int64_t)i % 3 * 40));
        }
        for (int i = 0; i < RATE; i++)
            c->sound[i] = (int16_t)(k == 5 ? 0 : (k % 2 ? 25000 : 300) * sin(0.4 * i) + 30 * xkd_rng_normal(&rng));
        c->clip = (xkd_clip){.frames = c->pixels,
                             .count = k == 3 ? 1 : MOST_FRAMES,
                             .height = height,
                             .width = width,
                             .sound = c->sound,
                             .samples = k == 2   ? RATE / 3
                                        : k == 5 ? 0
                                                 : RATE};
    }
}

/* No augmentation at all. */
static xkd_data_config bare(void)
{
    xkd_data_config d = small_data_config(NULL);
    d.clip_duration = 1;
    d.video_fps = MOST_FRAMES;
    d.video_temporal_ratio = d.audio_temporal_ratio = 2;
    d.audio_rate = RATE;
    d.n_fft = 256;
    d.hop_length = 50;
    d.n_mels = 20;
    d.video_local_views = d.audio_local_views = 1;
    for (int k = 0; k < XKD_VIEW_KINDS; k++) {
        d.video_view[k] = (xkd_video_view_config){.crop_scale = {1, 1}};
        d.audio_view[k] =
            (xkd_audio_view_config){.virtual_crop_scale = {1, 1}, .freq_scale = {1, 1}, .time_scale = {1, 1}};
    }
    return d;
}

static void nothing(xkd_data_config *d, int k)
{
    (void)d;
    (void)k;
}

static void crop(xkd_data_config *d, int k)
{
    d->video_view[k].crop_scale[0] = 0.05;
}

static void flip(xkd_data_config *d, int k)
{
    d->video_view[k].p_flip = 0.5;
}

static void brightness(xkd_data_config *d, int k)
{
    d->video_view[k].color[XKD_BRIGHTNESS] = 0.9;
}

static void contrast(xkd_data_config *d, int k)
{
    d->video_view[k].color[XKD_CONTRAST] = 0.9;
}

static void saturation(xkd_data_config *d, int k)
{
    d->video_view[k].color[XKD_SATURATION] = 0.9;
}

static void hue(xkd_data_config *d, int k)
{
    d->video_view[k].color[XKD_HUE] = 0.5;
}

static void grey(xkd_data_config *d, int k)
{
    d->video_view[k].p_gray = 0.6;
}

static void blur(xkd_data_config *d, int k)
{
    d->crop_size = 40; /* five taps; the clips are as they are */
    d->video_view[k].p_blur = 0.7;
}

static void blur_of_the_release(xkd_data_config *d, int k)
{
    blur(d, k);
    d->release_blur = true;
}

static void volume(xkd_data_config *d, int k)
{
    d->audio_view[k].volume_jitter = true;
    d->audio_view[k].volume = 0.5;
}

static void warp(xkd_data_config *d, int k)
{
    d->audio_view[k].time_warp = true;
    d->audio_view[k].warp_window = 10;
}

static void box(xkd_data_config *d, int k)
{
    xkd_audio_view_config *a = &d->audio_view[k];
    a->rand_crop = true;
    a->virtual_crop_scale[0] = 1.2;
    a->virtual_crop_scale[1] = 1.5;
    a->freq_scale[0] = a->time_scale[0] = 0.3;
    a->freq_scale[1] = a->time_scale[1] = 1.5;
}

static void no_power_of_two(xkd_data_config *d, int k)
{
    (void)k;
    d->n_fft = 240;
}

static void everything(xkd_data_config *d, int k)
{
    crop(d, k);
    flip(d, k);
    brightness(d, k);
    contrast(d, k);
    saturation(d, k);
    hue(d, k);
    grey(d, k);
    blur(d, k);
    volume(d, k);
    warp(d, k);
    box(d, k);
}

static const struct {
    const char *name;
    void (*set)(xkd_data_config *d, int kind);
} cases[] = {{"nothing", nothing},
             {"crop", crop},
             {"flip", flip},
             {"brightness", brightness},
             {"contrast", contrast},
             {"saturation", saturation},
             {"hue", hue},
             {"grey", grey},
             {"blur", blur},
             {"blur as in the release", blur_of_the_release},
             {"volume", volume},
             {"warp", warp},
             {"box", box},
             {"a length that is no power of two", no_power_of_two},
             {"everything", everything}};

/* Floats that differ by more than `allowed` end the test. */
static void compare(const char *what, xkd_modality m, int64_t view, const float *from, int64_t count, float allowed)
{
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(from[i] - want[i]) <= allowed))
            fail_msg("%s: %s view %d, number %d of %d: %.9g, the loader's is %.9g", what, m ? "audio" : "video",
                     (int)view, (int)i, (int)count, (double)from[i], (double)want[i]);
}

/* One view of a batch against the threads' ones. */
static void compare_view(xkd_backend *be, xkd_viewer *viewer, const xkd_raw_plan *plan, const void *block,
                         const char *what, xkd_modality m, int64_t v)
{
    const xkd_view_shapes *s = &plan->shapes;
    const int64_t count = m == XKD_VIDEO ? 3 * s->video[v].frames * s->video[v].height * s->video[v].width
                                         : s->audio[v].bands * s->audio[v].columns;
    const int64_t bytes = PLACES * count * (int64_t)sizeof(float);
    bool device = be->cuda != NULL;
    void *there;
    assert_true(count <= MOST_FLOATS);
    assert_int_equal(xkd_memory_take(cx, be->memory, &there, bytes), XKD_OK);
    xkd_raw_view(be, plan, block, m, v, PLACES, there);
    xkd_memory_download(be->memory, got, there, bytes);
    xkd_memory_give(be->memory, there);
    if (xkd_backend_status(be) != XKD_OK) fail_msg("%s: %s", what, xkd_last_error(cx));
    for (int k = 0; k < PLACES; k++) {
        xkd_view_key key = {11, 2, (uint32_t)k};
        assert_int_equal(m == XKD_VIDEO ? xkd_view_video(viewer, &clips[k].clip, key, v, want)
                                        : xkd_view_audio(viewer, &clips[k].clip, key, v, want),
                         XKD_OK);
        compare(what, m, v, got + k * count, count, m == XKD_AUDIO && device ? 1e-3f : 0);
    }
}

static void views_of_a_batch(xkd_backend *be, const xkd_data_config *d, const char *what)
{
    xkd_raw_plan plan;
    xkd_raw_batch batch;
    xkd_viewer *viewer = NULL;
    void *room;
    assert_int_equal(xkd_raw_plan_new(cx, d, PLACES, &plan), XKD_OK);
    assert_int_equal(xkd_raw_batch_new(cx, &plan, be->memory, &batch), XKD_OK);
    assert_int_equal(xkd_viewer_new(cx, d, &viewer), XKD_OK);
    assert_int_equal(xkd_memory_take(cx, be->memory, &room, plan.bytes), XKD_OK);
    /* Where the boxes lie depends on who comes first. */
    for (int k = PLACES - 1; k >= 0; k--)
        assert_int_equal(xkd_raw_put(cx, &batch, &clips[k].clip, (xkd_view_key){11, 2, (uint32_t)k}, k), XKD_OK);
    assert_true(batch.used <= plan.bytes);
    const void *block = xkd_departure_lend(be->memory, room, &batch.block, batch.used);
    xkd_raw_batch_wait(&batch);
    /* It may be filled anew from here on. */
    if (!xkd_memory_is_host(be->memory)) memset(batch.block.host, 0xa5, (size_t)batch.used);
    for (int64_t v = 0; v < 2; v++)
        for (xkd_modality m = 0; m < XKD_MODALITIES; m++) compare_view(be, viewer, &plan, block, what, m, v);
    xkd_memory_give(be->memory, room);
    xkd_viewer_free(viewer);
    xkd_raw_batch_free(&batch);
    xkd_raw_plan_free(&plan);
}

static void a_device_makes_the_same_views(void **state)
{
    const char *device = *state;
    xkd_backend *be = NULL;
    xkd_status status = xkd_backend_new(cx, &be, device, XKD_F32, 2);
    if (status == XKD_ERR_DEVICE && may_be_absent(device)) {
        print_message("# %s\n", xkd_last_error(cx));
        skip();
    }
    assert_int_equal(status, XKD_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xkd_data_config d = bare();
        for (int k = 0; k < XKD_VIEW_KINDS; k++) cases[i].set(&d, k);
        views_of_a_batch(be, &d, cases[i].name);
    }
    xkd_backend_free(be);
}

/* More decoded pixels than a batch has room for are an error, and no clip whatever the draw. */
static void clips_of_other_sizes_are_refused(void **state)
{
    xkd_data_config d = bare();
    xkd_raw_plan plan;
    xkd_raw_batch batch;
    (void)state;
    d.crop_size = 16;
    xkd_clear_error(cx);
    assert_int_equal(xkd_raw_plan_new(cx, &d, PLACES, &plan), XKD_OK);
    assert_int_equal(xkd_raw_batch_new(cx, &plan, NULL, &batch), XKD_OK);
    assert_int_equal(xkd_raw_put(cx, &batch, &clips[0].clip, (xkd_view_key){0}, 0), XKD_ERR_INTERNAL);
    assert_non_null(strstr(xkd_last_error(cx), "has no room in a batch"));
    xkd_raw_batch_free(&batch);
    xkd_raw_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"views on the reference", a_device_makes_the_same_views, NULL, NULL, (void *)(uintptr_t) "ref"},
        {"views behind the guard", a_device_makes_the_same_views, NULL, NULL, (void *)(uintptr_t) "guard"},
        {"views on a simulated GPU", a_device_makes_the_same_views, NULL, NULL, (void *)(uintptr_t) "cuda-sim"},
        {"views on a GPU", a_device_makes_the_same_views, NULL, NULL, (void *)(uintptr_t) "cuda"},
        cmocka_unit_test(clips_of_other_sizes_are_refused),
    };
    cx = xkd_context_new();
    make_clips();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
