/* PNG through libpng. */
#include "report/png.h"

#include <png.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

/* The caller frees *out. The bound on the sides is far above any picture here and keeps sizes within
 * 32 bits. */
xkd_status xkd_png_encode(xkd_context *cx, const uint8_t *rgb, int64_t width, int64_t height, uint8_t **out,
                          int64_t *size)
{
    xkd_status status = XKD_OK;
    uint8_t *bytes = NULL;
    /* libpng's "simplified" interface reports errors by return value instead of longjmp. */
    png_image image = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB};
    *out = NULL;
    if (width < 1 || height < 1 || width > 65535 || height > 65535)
        XKD_FAIL(XKD_ERR_INTERNAL, "picture of %lld x %lld pixels", (long long)width, (long long)height);
    image.width = (png_uint_32)width;
    image.height = (png_uint_32)height;
    /* The largest size that can come out, so that one call is enough. */
    png_alloc_size_t capacity = PNG_IMAGE_PNG_SIZE_MAX(image);
    XKD_TRY(xkd_alloc(cx, &bytes, (int64_t)capacity, 1));
    if (!png_image_write_to_memory(&image, bytes, &capacity, 0, rgb, 0, NULL))
        XKD_FAIL(XKD_ERR_INTERNAL, "cannot compress a picture: %s", image.message);
    *out = bytes;
    *size = (int64_t)capacity;
    bytes = NULL;
fail:
    png_image_free(&image);
    xkd_free(bytes);
    return status;
}

xkd_status xkd_png_write(xkd_context *cx, const char *path, const uint8_t *rgb, int64_t width, int64_t height)
{
    xkd_status status = XKD_OK;
    uint8_t *bytes = NULL;
    int64_t size = 0;
    XKD_TRY(xkd_png_encode(cx, rgb, width, height, &bytes, &size));
    XKD_TRY(xkd_write_file(cx, path, bytes, size));
fail:
    xkd_free(bytes);
    return status;
}

xkd_status xkd_png_read(xkd_context *cx, const char *path, uint8_t **rgb, int64_t *width, int64_t *height)
{
    enum { MOST_BYTES = 64 << 20, MOST_SIDE = 8192 };
    xkd_status status = XKD_OK;
    png_image image = {.version = PNG_IMAGE_VERSION};
    char *bytes = NULL;
    int64_t size;
    *rgb = NULL;
    XKD_TRY(xkd_read_file(cx, path, MOST_BYTES, XKD_ERR_DATA, &bytes, &size));
    if (!png_image_begin_read_from_memory(&image, bytes, (size_t)size))
        XKD_FAIL(XKD_ERR_DATA, "%s: is no picture: %s", path, image.message);
    if (image.width > MOST_SIDE || image.height > MOST_SIDE)
        XKD_FAIL(XKD_ERR_DATA, "%s: a picture of %u x %u pixels; %d a side are the limit", path, image.width,
                 image.height, MOST_SIDE);
    image.format = PNG_FORMAT_RGB;
    *width = image.width;
    *height = image.height;
    XKD_TRY(xkd_alloc(cx, rgb, *width * *height, 3));
    const png_color black = {0, 0, 0}; /* behind what is transparent, which ours are not */
    if (!png_image_finish_read(&image, &black, *rgb, 0, NULL))
        XKD_FAIL(XKD_ERR_DATA, "%s: is damaged: %s", path, image.message);
fail:
    png_image_free(&image);
    xkd_free(bytes);
    if (status != XKD_OK) {
        xkd_free(*rgb);
        *rgb = NULL;
    }
    return status;
}
