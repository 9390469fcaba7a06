/* Views: draws have the documented ranges and depend on the key alone; what a view does to a known clip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "media/mel.h"
#include "data/views.h"
#include "data_config.h"

enum { FRAMES = 16, HEIGHT = 32, WIDTH = 44, SAMPLES = 32000 };

static xkd_context *cx;
static xkd_data_config data;
static xkd_view_shapes shapes;
static uint8_t pixels[FRAMES * HEIGHT * WIDTH * 3];
static int16_t sound[SAMPLES];
static xkd_clip clip = {pixels, FRAMES, HEIGHT, WIDTH, sound, SAMPLES};
static float out[3 * FRAMES * HEIGHT * HEIGHT], again[3 * FRAMES * HEIGHT * HEIGHT];

static int setup(void **state)
{
    (void)state;
    data = small_data_config(NULL);
    for (int t = 0; t < FRAMES; t++)
        for (int i = 0; i < HEIGHT * WIDTH * 3; i++) pixels[t * HEIGHT * WIDTH * 3 + i] = (uint8_t)(10 * t + i % 7);
    for (int i = 0; i < SAMPLES; i++) sound[i] = (int16_t)(8000 * sin(0.3 * i) + i % 91);
    return xkd_view_shapes_of(cx, &data, &shapes) == XKD_OK ? 0 : -1;
}

static void video_draws_stay_in_range(void **state)
{
    int flips = 0, greys = 0, first[13] = {0};
    (void)state;
    for (uint32_t sample = 0; sample < 4000; sample++) {
        xkd_view_key key = {5, 1, sample};
        xkd_video_draw d = xkd_draw_video(&data, &shapes, key, 1, HEIGHT, WIDTH);
        xkd_video_draw same = xkd_draw_video(&data, &shapes, key, 1, HEIGHT, WIDTH);
        assert_memory_equal(d.factor, same.factor, sizeof d.factor);
        assert_true(d.top >= 0 && d.left >= 0 && d.height >= 1 && d.width >= 1);
        assert_true(d.top + d.height <= HEIGHT && d.left + d.width <= WIDTH);
        double area = (double)(d.height * d.width) / (HEIGHT * WIDTH), ratio = (double)d.width / (double)d.height;
        assert_true(area > 0.06 && area < 0.45 && ratio > 0.68 && ratio < 1.5);
        assert_true(d.factor[0] >= 0.6 && d.factor[0] < 1.4 && fabs(d.factor[3]) <= 0.2);
        assert_true(d.sigma_x == d.sigma_y && d.sigma_x >= 0.1 && d.sigma_x < 2);
        assert_true(d.first_frame >= 0 && d.first_frame <= 12);
        first[d.first_frame]++;
        flips += d.flip;
        greys += d.grey;
        int seen = 0;
        for (int i = 0; i < 4; i++) seen |= 1 << d.order[i];
        assert_int_equal(seen, 15);
    }
    assert_true(abs(flips - 2000) < 160 && abs(greys - 800) < 130); /* five deviations */
    for (int i = 0; i < 13; i++) assert_true(abs(first[i] - 308) < 90);
}

static void audio_draws_stay_in_range(void **state)
{
    (void)state;
    for (uint32_t sample = 0; sample < 2000; sample++) {
        xkd_audio_draw d = xkd_draw_audio(&data, &shapes, (xkd_view_key){5, 1, sample}, 1);
        int64_t bands = shapes.audio[1].bands, columns = shapes.audio[1].columns;
        assert_true(d.first_sample % 100 == 0 && d.first_sample >= 0 && d.first_sample <= SAMPLES - SAMPLES / 4);
        assert_true(d.gain >= 0.9 && d.gain < 1.1);
        assert_int_equal(d.canvas_height, bands);
        assert_int_equal(d.canvas_width, (int64_t)(1.5 * (double)columns));
        assert_true(d.height >= (int64_t)(0.6 * (double)bands) && d.top + d.height <= d.canvas_height);
        assert_true(d.width >= (int64_t)(0.6 * (double)columns) && d.left + d.width <= d.canvas_width);
    }
}

/* Without augmentation a view is the clip itself, resized and normalised. */
static void a_bare_view_is_the_clip(void **state)
{
    xkd_viewer *viewer = NULL;
    (void)state;
    xkd_video_view_config *v = &data.video_view[XKD_GLOBAL_VIEW];
    *v = (xkd_video_view_config){.crop_scale = {1, 1}};
    memset(pixels, 100, sizeof pixels);
    memset(pixels + HEIGHT * WIDTH * 3, 200, HEIGHT * WIDTH * 3);
    assert_int_equal(xkd_viewer_new(cx, &data, &viewer), XKD_OK);
    assert_int_equal(xkd_view_video(viewer, &clip, (xkd_view_key){1, 2, 3}, 0, out), XKD_OK);
    static const float MEAN[3] = {0.485f, 0.456f, 0.406f}, STD[3] = {0.229f, 0.224f, 0.225f};
    for (int c = 0; c < 3; c++)
        for (int t = 0; t < FRAMES; t++)
            for (int i = 0; i < HEIGHT * HEIGHT; i++) {
                float expected = ((t == 1 ? 200 : 100) / 255.0f - MEAN[c]) / STD[c];
                assert_true(fabsf(out[(c * FRAMES + t) * HEIGHT * HEIGHT + i] - expected) < 1e-5f);
            }
    /* A clip of three frames is repeated from its start. */
    xkd_clip few = clip;
    few.count = 3;
    assert_int_equal(xkd_view_video(viewer, &few, (xkd_view_key){1, 2, 3}, 0, out), XKD_OK);
    for (int t = 0; t < FRAMES; t++)
        assert_true(fabsf(out[t * HEIGHT * HEIGHT] - ((t % 3 == 1 ? 200 : 100) / 255.0f - MEAN[0]) / STD[0]) < 1e-5f);
    xkd_viewer_free(viewer);
}

static void a_bare_audio_view_is_the_log_mel(void **state)
{
    xkd_viewer *viewer = NULL;
    xkd_mel *mel = NULL;
    static float wave[SAMPLES], spec[80 * 300];
    (void)state;
    data.audio_view[XKD_GLOBAL_VIEW] =
        (xkd_audio_view_config){.virtual_crop_scale = {1, 1}, .freq_scale = {1, 1}, .time_scale = {1, 1}};
    assert_int_equal(xkd_viewer_new(cx, &data, &viewer), XKD_OK);
    assert_int_equal(xkd_mel_new(cx, 16000, 1024, 143, 80, &mel), XKD_OK);
    xkd_clip cut = clip;
    cut.samples = 20000; /* the rest is silence */
    for (int i = 0; i < SAMPLES; i++) wave[i] = i < 20000 ? (float)sound[i] / 32767.0f : 0;
    xkd_mel_run(mel, wave, SAMPLES, spec);
    assert_int_equal(xkd_view_audio(viewer, &cut, (xkd_view_key){1, 2, 3}, 0, out), XKD_OK);
    for (int i = 0; i < 80 * (1 + SAMPLES / 143); i++)
        assert_true(fabsf(out[i] - (spec[i] + 5.3688107f) / 4.410007f) < 1e-6f);
    xkd_mel_free(mel);
    xkd_viewer_free(viewer);
}

static void views_depend_on_their_key_alone(void **state)
{
    xkd_viewer *a = NULL, *b = NULL;
    size_t size = (size_t)(3 * shapes.video[1].frames * shapes.video[1].height * shapes.video[1].width) * sizeof(float);
    (void)state;
    assert_int_equal(xkd_viewer_new(cx, &data, &a), XKD_OK);
    assert_int_equal(xkd_viewer_new(cx, &data, &b), XKD_OK);
    for (uint32_t sample = 0; sample < 20; sample++) {
        assert_int_equal(xkd_view_video(a, &clip, (xkd_view_key){9, 0, sample}, 1, out), XKD_OK);
        assert_int_equal(xkd_view_video(b, &clip, (xkd_view_key){9, 0, 77}, 2, again), XKD_OK); /* leaves traces in b */
        assert_int_equal(xkd_view_video(b, &clip, (xkd_view_key){9, 0, sample}, 1, again), XKD_OK);
        assert_memory_equal(out, again, size);
        assert_int_equal(xkd_view_video(b, &clip, (xkd_view_key){9, 1, sample}, 1, again), XKD_OK);
        assert_memory_not_equal(out, again, size);
    }
    xkd_viewer_free(a);
    xkd_viewer_free(b);
}

static void impossible_views_are_refused(void **state)
{
    xkd_view_shapes s;
    (void)state;
    data.video_temporal_ratio = 64;
    assert_int_equal(xkd_view_shapes_of(cx, &data, &s), XKD_ERR_CONFIG);
    data = small_data_config(NULL);
    data.audio_temporal_ratio = 1000;
    assert_int_equal(xkd_view_shapes_of(cx, &data, &s), XKD_ERR_CONFIG);
    data = small_data_config(NULL);
    data.video_local_views = XKD_MAX_VIEWS;
    assert_int_equal(xkd_view_shapes_of(cx, &data, &s), XKD_ERR_CONFIG);
    xkd_clear_error(cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(video_draws_stay_in_range, setup),
        cmocka_unit_test_setup(audio_draws_stay_in_range, setup),
        cmocka_unit_test_setup(a_bare_view_is_the_clip, setup),
        cmocka_unit_test_setup(a_bare_audio_view_is_the_log_mel, setup),
        cmocka_unit_test_setup(views_depend_on_their_key_alone, setup),
        cmocka_unit_test_setup(impossible_views_are_refused, setup),
    };
    cx = xkd_context_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_context_free(cx);
    return failed;
}
