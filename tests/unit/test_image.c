/* Pillow 9.4's results, and the hue loops against a literal transcription of Pillow's formulas over all inputs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "media/image.h"
#include "data/image_ops.h"
#include "golden_file.h"
#include "media/resize.h"

static const char GOLDEN[] = "tests/golden/image/image.safetensors";

enum { HEIGHT = 73, WIDTH = 98, PIXELS = HEIGHT * WIDTH };

static uint8_t *input;
static uint8_t planar[3][PIXELS];
static xkd_planes planes = {1, HEIGHT, WIDTH, {planar[0], planar[1], planar[2]}};
static xkd_context *cx;

static void expect(const char *name, const uint8_t *rgb, int tolerance)
{
    int64_t shape[4], bytes = 0, wrong = 0;
    uint8_t *golden = golden_tensor(GOLDEN, name, shape, &bytes);
    assert_non_null(golden);
    for (int64_t i = 0; i < bytes; i++) wrong += abs(rgb[i] - golden[i]) > tolerance;
    if (wrong) print_message("# %s: %lld of %lld values differ\n", name, (long long)wrong, (long long)bytes);
    free(golden);
    assert_int_equal(wrong, 0);
}

static void expect_planes(const char *name, int tolerance)
{
    static uint8_t rgb[3 * PIXELS];
    xkd_planes_get(&planes, 0, rgb);
    expect(name, rgb, tolerance);
}

static int load(void **state)
{
    (void)state;
    xkd_planes_put(&planes, 0, input, false);
    return 0;
}

static void resized(const char *name, int64_t top, int64_t left, int64_t h, int64_t w, int64_t oh, int64_t ow)
{
    xkd_resizer *plan = NULL;
    uint8_t *out = malloc((size_t)(3 * oh * ow));
    assert_int_equal(xkd_resizer_new(cx, w, h, ow, oh, &plan), XKD_OK);
    xkd_resizer_run(plan, input + 3 * (top * WIDTH + left), 3 * WIDTH, out);
    expect(name, out, 0);
    xkd_resizer_free(plan);
    free(out);
}

static void resize_is_pillow(void **state)
{
    int64_t w, h;
    (void)state;
    xkd_short_side_size(WIDTH, HEIGHT, 48, &w, &h);
    resized("resize_short_48", 0, 0, HEIGHT, WIDTH, h, w);
    xkd_short_side_size(WIDTH, HEIGHT, 120, &w, &h);
    resized("resize_short_120", 0, 0, HEIGHT, WIDTH, h, w);
    resized("resized_crop", 9, 13, 44, 57, 32, 32);
}

/* Rows are made side by side where there are enough: each must be what it is alone. Buffers end where the picture does. */
static void a_row_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    for (int k = 0; k < 300; k++) {
        int64_t w = 1 + k * 7 % 61, h = 1 + k % 14, to = 1 + k * 13 % 83;
        uint8_t *in = malloc((size_t)(3 * w * h)), *out = malloc((size_t)(3 * to * h)), *row = malloc((size_t)(3 * to));
        xkd_resizer *all = NULL, *one = NULL;
        for (int64_t i = 0; i < 3 * w * h; i++) in[i] = (uint8_t)(i * i * 31 + k * 7 + i / 5);
        assert_int_equal(xkd_resizer_new(cx, w, h, to, h, &all), XKD_OK);
        assert_int_equal(xkd_resizer_new(cx, w, 1, to, 1, &one), XKD_OK);
        xkd_resizer_run(all, in, 3 * w, out);
        for (int64_t y = 0; y < h; y++) {
            xkd_resizer_run(one, in + 3 * w * y, 3 * w, row);
            assert_memory_equal(out + 3 * to * y, row, (size_t)(3 * to));
        }
        xkd_resizer_free(all);
        xkd_resizer_free(one);
        free(in);
        free(out);
        free(row);
    }
}

static void colours_are_pillow(void **state)
{
    float scratch[2 * PIXELS + 4 * 200];
    xkd_planes_put(&planes, 0, input, true);
    expect_planes("flip", 0);
    load(state);
    xkd_image_grey(&planes);
    expect_planes("grey", 0);
    load(state);
    xkd_image_brightness(&planes, 1.31);
    expect_planes("brightness", 0);
    load(state);
    xkd_image_contrast(&planes, 0.67);
    expect_planes("contrast", 0);
    load(state);
    xkd_image_saturation(&planes, 1.38);
    expect_planes("saturation", 0);
    load(state);
    xkd_image_hue(&planes, -0.13);
    expect_planes("hue", 0);
    load(state);
    float weights[XKD_BLUR_TAPS];
    xkd_image_blur_weights(11, 0.8, weights);
    xkd_image_blur(&planes, xkd_image_blur_taps(11, planes.height, planes.width), weights, weights, scratch);
    expect_planes("blur", 1);
}

static void normalised_and_float_resize(void **state)
{
    static float out[3 * PIXELS], small[3 * 40 * 52];
    static uint8_t back[3 * PIXELS];
    int64_t shape[4], bytes = 0;
    (void)state;
    float *golden = golden_tensor(GOLDEN, "normalized", shape, &bytes);
    xkd_image_normalise(&planes, out);
    for (int i = 0; i < 3 * PIXELS; i++) assert_true(fabsf(out[i] - golden[i]) < 1e-6f);
    xkd_image_denormalise(out, 1, HEIGHT, WIDTH, 0, back);
    assert_memory_equal(back, input, 3 * PIXELS);
    free(golden);
    golden = golden_tensor(GOLDEN, "tensor_bilinear_40x52", shape, &bytes);
    xkd_tensor_bilinear(out, 3, HEIGHT, WIDTH, small, 40, 52);
    /* A coordinate up to 98 is rounded to 4e-6, twice, and neighbours differ by up to 4. */
    for (int i = 0; i < 3 * 40 * 52; i++) assert_true(fabsf(small[i] - golden[i]) < 3e-5f);
    free(golden);
}

/* Pillow's formulas, one pixel at a time. */
static void slow_hue(const uint8_t in[3], int shift, uint8_t out[3])
{
    uint8_t r = in[0], g = in[1], b = in[2], high = r > g ? r : g, low = r < g ? r : g, uh = 0, us = 0;
    if (b > high) high = b;
    if (b < low) low = b;
    if (high != low) {
        float cr = (float)(high - low), s = cr / (float)high, h;
        float rc = (float)(high - r) / cr, gc = (float)(high - g) / cr, bc = (float)(high - b) / cr;
        if (r == high)
            h = bc - gc;
        else if (g == high)
            h = (float)(2.0 + (double)rc - (double)bc);
        else
            h = (float)(4.0 + (double)gc - (double)rc);
        h = (float)fmod((double)h / 6.0 + 1.0, 1.0);
        uh = (uint8_t)(int)((double)h * 255.0);
        us = (uint8_t)(int)((double)s * 255.0);
    }
    uh = (uint8_t)(uh + shift);
    if (us == 0) {
        out[0] = out[1] = out[2] = high;
        return;
    }
    int i = (int)floor((double)(float)uh * 6.0 / 255.0);
    float f = (float)((double)(float)uh * 6.0 / 255.0 - (double)(float)i), fs = (float)((double)(float)us / 255.0);
    uint8_t p = (uint8_t)round((double)high * (1.0 - (double)fs));
    uint8_t q = (uint8_t)round((double)high * (1.0 - (double)(fs * f)));
    uint8_t t = (uint8_t)round((double)high * (1.0 - (double)fs * (1.0 - (double)f)));
    const uint8_t table[6][3] = {{high, t, p}, {q, high, p}, {p, high, t}, {p, q, high}, {t, p, high}, {high, p, q}};
    memcpy(out, table[i % 6], 3);
}

static void hue_of_every_colour(void **state)
{
    enum { ROW = 256 * 256 };
    uint8_t *colours = malloc(3 * ROW);
    xkd_planes row = {1, 256, 256, {colours, colours + ROW, colours + 2 * ROW}};
    int64_t wrong = 0;
    (void)state;
    for (int r = 0; r < 256; r += 3) { /* a third of all colours, a different shift each: 0.2 s */
        double factor = (r % 100 - 50) / 100.0;
        for (int i = 0; i < ROW; i++) {
            colours[i] = (uint8_t)r;
            colours[ROW + i] = (uint8_t)(i >> 8);
            colours[2 * ROW + i] = (uint8_t)i;
        }
        xkd_image_hue(&row, factor);
        for (int i = 0; i < ROW; i++) {
            uint8_t in[3] = {(uint8_t)r, (uint8_t)(i >> 8), (uint8_t)i}, out[3];
            slow_hue(in, (int)(factor * 255), out);
            wrong += colours[i] != out[0] || colours[ROW + i] != out[1] || colours[2 * ROW + i] != out[2];
        }
    }
    free(colours);
    assert_int_equal(wrong, 0);
}

/* RandAugment's operations. Tables are exact; where Pillow works in float, a value may round the other way. */
static void tables_are_pillow(void **state)
{
    (void)state;
    load(NULL);
    xkd_image_autocontrast(&planes);
    expect_planes("autocontrast", 0);
    load(NULL);
    xkd_image_equalize(&planes);
    expect_planes("equalize", 0);
    load(NULL);
    xkd_image_invert(&planes);
    expect_planes("invert", 0);
    load(NULL);
    xkd_image_solarize(&planes, 100);
    expect_planes("solarize", 0);
    load(NULL);
    xkd_image_posterize(&planes, 3);
    expect_planes("posterize", 0);
    load(NULL);
    xkd_image_solarize_add(&planes, 60, 128);
    expect_planes("solarize_add", 0);
}

static void sharpness_is_pillow(void **state)
{
    static uint8_t scratch[PIXELS];
    (void)state;
    load(NULL);
    xkd_image_sharpness(&planes, 1.7, scratch);
    expect_planes("sharpness", 0);
}

static void affine_maps_are_pillow(void **state)
{
    static const struct {
        const char *name;
        double m[6];
    } maps[] = {{"shear_x", {1, 0.21, 0, 0, 1, 0}},
                {"shear_y", {1, 0, 0, -0.17, 1, 0}},
                {"translate_x", {1, 0, 19.6, 0, 1, 0}},
                {"translate_y", {1, 0, 0, 0, 1, -21.9}},
                {"rotate", {0}}};
    static uint8_t scratch[PIXELS];
    (void)state;
    for (int k = 0; k < 5; k++)
        for (xkd_interpolation how = XKD_BILINEAR; how <= XKD_BICUBIC; how++) {
            char name[40];
            double m[6];
            memcpy(m, maps[k].m, sizeof m);
            if (k == 4) xkd_image_rotation(17, WIDTH, HEIGHT, m);
            snprintf(name, sizeof name, "%s_%s", maps[k].name, how == XKD_BILINEAR ? "bilinear" : "bicubic");
            load(NULL);
            xkd_image_affine(&planes, m, how, 128, scratch);
            expect_planes(name, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(resize_is_pillow),
                                       cmocka_unit_test(a_row_does_not_depend_on_its_neighbours),
                                       cmocka_unit_test_setup(colours_are_pillow, load),
                                       cmocka_unit_test_setup(normalised_and_float_resize, load),
                                       cmocka_unit_test(hue_of_every_colour),
                                       cmocka_unit_test(tables_are_pillow),
                                       cmocka_unit_test(sharpness_is_pillow),
                                       cmocka_unit_test(affine_maps_are_pillow)};
    int64_t shape[4], bytes = 0;
    cx = xkd_context_new();
    input = golden_tensor(GOLDEN, "input", shape, &bytes);
    if (!input) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(input);
    xkd_context_free(cx);
    return failed;
}
