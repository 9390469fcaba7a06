/* JPEG both ways, and pictures of strangers: what is no baseline picture of the size that was announced is an error in words,
 * and the tool works on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <jpeglib.h>
#include <stdlib.h>
#include <string.h>

#include "media/jpeg.h"

enum { W = 48, H = 32 };

static xkd_context *cx;
static xkd_jpeg *tool;
static uint8_t picture[3 * W * H], out[3 * W * H];

/* A picture of another kind, by the library itself. */
static unsigned long make(unsigned char **data, int width, int height, int components, bool progressive,
                          bool arithmetic)
{
    static uint8_t line[3 * 4096];
    struct jpeg_compress_struct e;
    struct jpeg_error_mgr errors;
    unsigned long size = 0;
    *data = NULL;
    e.err = jpeg_std_error(&errors);
    jpeg_create_compress(&e);
    jpeg_mem_dest(&e, data, &size);
    e.image_width = (JDIMENSION)width;
    e.image_height = (JDIMENSION)height;
    e.input_components = components;
    e.in_color_space = components == 3 ? JCS_RGB : components == 1 ? JCS_GRAYSCALE : JCS_CMYK;
    jpeg_set_defaults(&e);
    if (progressive) jpeg_simple_progression(&e);
    e.arith_code = arithmetic;
    jpeg_start_compress(&e, TRUE);
    while (e.next_scanline < e.image_height) {
        JSAMPROW row = line;
        jpeg_write_scanlines(&e, &row, 1);
    }
    jpeg_finish_compress(&e);
    jpeg_destroy_compress(&e);
    return size;
}

static void works(void)
{
    const uint8_t *data;
    int64_t size;
    int most = 0;
    assert_int_equal(xkd_jpeg_encode(tool, picture, W, H, 95, true, &data, &size), XKD_OK);
    assert_int_equal(xkd_jpeg_decode(tool, data, size, W, H, out), XKD_OK);
    for (int i = 0; i < 3 * W * H; i++)
        if (abs(out[i] - picture[i]) > most) most = abs(out[i] - picture[i]);
    assert_in_range(most, 1, 20);
}

static void refused(const unsigned char *data, unsigned long size, const char *words)
{
    xkd_clear_error(cx);
    assert_int_equal(xkd_jpeg_decode(tool, data, (int64_t)size, W, H, out), XKD_ERR_DATA);
    if (!strstr(xkd_last_error(cx), words)) fail_msg("%s", xkd_last_error(cx));
    xkd_clear_error(cx);
    works();
}

static void other_kinds_are_refused(void **state)
{
    static const struct {
        int width, height, components;
        bool progressive, arithmetic;
        const char *words;
    } KINDS[] = {{W + 1, H, 3, false, false, "of another size"},
                 {W, H - 1, 3, false, false, "of another size"},
                 {4000, 4000, 3, false, false, "of another size"},
                 {W, H, 1, false, false, "three colours"},
                 {W, H, 4, false, false, "three colours"},
                 {W, H, 3, true, false, "no baseline"},
                 {W, H, 3, false, true, "no baseline"}};
    (void)state;
    works();
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        unsigned char *data;
        unsigned long size = make(&data, KINDS[i].width, KINDS[i].height, KINDS[i].components, KINDS[i].progressive,
                                  KINDS[i].arithmetic);
        refused(data, size, KINDS[i].words);
        free(data);
    }
}

/* One step for luma and colour, from the quality as libjpeg scales it. */
static void steps_are_equal(void **state)
{
    static const struct {
        int64_t quality;
        int step;
    } CASES[] = {{1, 255}, {25, 116}, {50, 58}, {90, 12}, {95, 6}, {96, 5}, {100, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct jpeg_decompress_struct d;
        struct jpeg_error_mgr errors;
        const uint8_t *data;
        int64_t size;
        assert_int_equal(xkd_jpeg_encode(tool, picture, W, H, CASES[i].quality, true, &data, &size), XKD_OK);
        d.err = jpeg_std_error(&errors);
        jpeg_create_decompress(&d);
        jpeg_mem_src(&d, data, (unsigned long)size);
        jpeg_read_header(&d, TRUE);
        for (int c = 0; c < 3; c++)
            for (int k = 0; k < DCTSIZE2; k++)
                assert_int_equal(d.quant_tbl_ptrs[d.comp_info[c].quant_tbl_no]->quantval[k], CASES[i].step);
        jpeg_destroy_decompress(&d);
    }
}

/* Cut anywhere, or with bytes turned: a status, never the end of the process, and nothing written outside. */
static void damage_is_an_error(void **state)
{
    const uint8_t *data;
    uint8_t copy[1 << 16];
    int64_t size;
    (void)state;
    assert_int_equal(xkd_jpeg_encode(tool, picture, W, H, 90, false, &data, &size), XKD_OK);
    assert_true(size < (int64_t)sizeof copy);
    memcpy(copy, data, (size_t)size);
    for (int64_t n = 0; n < size - 2; n += 7) refused(copy, (unsigned long)n, "JPEG: ");
    refused((const unsigned char *)"no picture", 10, "JPEG: ");
    for (int64_t i = 0; i < size; i++) {
        uint8_t before = copy[i];
        copy[i] ^= 0x5a;
        xkd_status status = xkd_jpeg_decode(tool, copy, size, W, H, out);
        assert_true(status == XKD_OK || status == XKD_ERR_DATA);
        xkd_clear_error(cx);
        copy[i] = before;
    }
    works();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps_are_equal), cmocka_unit_test(other_kinds_are_refused),
                                       cmocka_unit_test(damage_is_an_error)};
    cx = xkd_context_new();
    for (int y = 0; y < H; y++)
        for (int x = 0; x < 3 * W; x++) picture[3 * W * y + x] = (uint8_t)(x * 3 / 2 + y * 4 * (x % 3));
    if (xkd_jpeg_new(cx, &tool) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    xkd_jpeg_free(tool);
    xkd_context_free(cx);
    return failed;
}
