/* Views of a batch, clip by clip, by what makes them on the host (media/augment.h). */
#include "backend/ref/ref.h"

void xkd_ref_video_view(xkd_backend *be, float *clip, const xkd_video_view_args *a)
{
    xkd_status status = XKD_OK;
    xkd_augmenter augmenter = {0};
    const int64_t size[] = {a->T, a->H, a->W};
    XKD_TRY(xkd_augmenter_for_video(be->cx, &augmenter, a->T, a->H, a->W));
    for (int64_t b = 0; b < a->B; b++) {
        const xkd_video_change *c = &a->change[b];
        const xkd_boxes frames = {.rgb = (const uint8_t *)a->from + c->at,
                                  .count = a->T,
                                  .frame_bytes = (int64_t)3 * c->height * c->width,
                                  .row_bytes = (int64_t)3 * c->width};
        XKD_TRY(xkd_augment_video(be->cx, &augmenter, c, &frames, size, clip + b * 3 * a->T * a->H * a->W));
    }
fail:
    xkd_augmenter_free(&augmenter);
    if (status != XKD_OK && be->status == XKD_OK) be->status = status;
}

void xkd_ref_audio_view(xkd_backend *be, float *spec, const xkd_audio_view_args *a)
{
    xkd_status status = XKD_OK;
    xkd_augmenter augmenter = {0};
    xkd_mel *mel = NULL;
    const xkd_spec_shape *s = &a->shape;
    XKD_TRY(xkd_mel_borrow(be->cx, a->tables, &mel));
    XKD_TRY(xkd_augmenter_for_sound(be->cx, &augmenter, mel, s->samples,
                                    xkd_augment_canvas(a->canvas_height, a->canvas_width, s->bands)));
    for (int64_t b = 0; b < a->B; b++, spec += s->bands * s->columns) {
        const xkd_audio_change *c = &a->change[b];
        const xkd_wave sound = {(const int16_t *)(const void *)((const uint8_t *)a->from + c->at), s->samples};
        xkd_augment_spectrogram(&augmenter, c, &sound, s, spec);
        xkd_augment_box(&augmenter, c, s, spec);
    }
fail:
    xkd_augmenter_free(&augmenter);
    xkd_mel_free(mel);
    if (status != XKD_OK && be->status == XKD_OK) be->status = status;
}
