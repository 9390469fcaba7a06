/* A view of a clip on the host: the operations of image.c, resize.c and mel.c in their order. */
#include "media/augment.h"

#include "base/alloc.h"
#include "media/resize.h"

xkd_status xkd_augmenter_for_video(xkd_context *cx, xkd_augmenter *a, int64_t T, int64_t H, int64_t W)
{
    xkd_status status = XKD_OK;
    for (int c = 0; c < 3; c++) XKD_TRY(xkd_alloc(cx, &a->planes.plane[c], T * H * W, 1));
    XKD_TRY(xkd_alloc(cx, &a->rgb, 3 * H * W, 1));
    XKD_TRY(xkd_alloc(cx, &a->blur, H * W + 3 * (W + W / 10 + 64), sizeof(float)));
fail:
    return status;
}

xkd_status xkd_augmenter_for_sound(xkd_context *cx, xkd_augmenter *a, xkd_mel *mel, int64_t samples, int64_t canvas)
{
    xkd_status status = XKD_OK;
    a->mel = mel;
    XKD_TRY(xkd_alloc(cx, &a->wave, samples, sizeof(float)));
    XKD_TRY(xkd_alloc(cx, &a->canvas, canvas, sizeof(float)));
fail:
    return status;
}

void xkd_augmenter_free(xkd_augmenter *a)
{
    for (int c = 0; c < 3; c++) xkd_free(a->planes.plane[c]);
    xkd_free(a->rgb);
    xkd_free(a->blur);
    xkd_free(a->wave);
    xkd_free(a->canvas);
    *a = (xkd_augmenter){0};
}

int64_t xkd_augment_canvas(int64_t canvas_height, int64_t canvas_width, int64_t bands)
{
    return (canvas_height + bands) * canvas_width;
}

static void change_colour(const xkd_planes *planes, int32_t colour, double factor)
{
    if (colour == XKD_BRIGHTNESS) xkd_image_brightness(planes, factor);
    if (colour == XKD_CONTRAST) xkd_image_contrast(planes, factor);
    if (colour == XKD_SATURATION) xkd_image_saturation(planes, factor);
    if (colour == XKD_HUE) xkd_image_hue(planes, factor);
}

/* Only the box is resized, straight from the decoded frame. */
xkd_status xkd_augment_video(xkd_context *cx, xkd_augmenter *a, const xkd_video_change *c, const xkd_boxes *frames,
                             const int64_t size[3], float *out)
{
    xkd_status status = XKD_OK;
    xkd_resizer *resizer = NULL;
    xkd_planes planes = a->planes;
    planes.frames = size[0];
    planes.height = size[1];
    planes.width = size[2];
    XKD_TRY(xkd_resizer_new(cx, c->width, c->height, planes.width, planes.height, &resizer));
    for (int64_t t = 0; t < planes.frames; t++) {
        const uint8_t *frame = frames->rgb + (frames->first + t) % frames->count * frames->frame_bytes;
        xkd_resizer_run(resizer, frame, frames->row_bytes, a->rgb);
        xkd_planes_put(&planes, t, a->rgb, c->flip);
    }
    for (int32_t i = 0; i < c->colours; i++) change_colour(&planes, c->colour[i], c->factor[i]);
    if (c->grey) xkd_image_grey(&planes);
    if (c->taps) xkd_image_blur(&planes, c->taps, c->along_x, c->along_y, a->blur);
    xkd_image_normalise(&planes, out);
fail:
    xkd_resizer_free(resizer);
    return status;
}

/* Normalisation comes before warp and box, whose canvas is 0, the mean. */
void xkd_augment_spectrogram(xkd_augmenter *a, const xkd_audio_change *c, const xkd_wave *sound,
                             const xkd_spec_shape *s, float *out)
{
    int64_t heard = sound->count < s->samples ? sound->count : s->samples;
    for (int64_t i = 0; i < s->samples; i++)
        a->wave[i] = i < heard ? (float)sound->sample[i] / XKD_SOUND_SCALE * c->gain : 0.0f;
    xkd_mel_run(a->mel, a->wave, s->samples, out);
    for (int64_t i = 0; i < s->bands * s->columns; i++) out[i] = (out[i] - s->mean) / s->std;
    if (c->warp) xkd_spec_time_warp(out, s->bands, s->columns, c->warp_centre, c->warp_to, a->canvas);
}

void xkd_augment_box(xkd_augmenter *a, const xkd_audio_change *c, const xkd_spec_shape *s, float *spec)
{
    if (!c->crop) return;
    xkd_spec_box box = {c->canvas_height, c->canvas_width, c->top, c->left, c->height, c->width};
    xkd_spec_resize_crop(spec, s->bands, s->columns, &box, a->canvas);
}
