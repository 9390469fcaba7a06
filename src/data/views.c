/* From a decoded clip to the views of one sample (method.md section 2). First all random numbers of a
 * view are drawn, in a fixed order and whether they are used or not, then they are applied: settings
 * that switch an operation off leave all other draws as they were. */
#include "data/views.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "data/finetune_views.h"

/* Starts of local sound are multiples of this many samples, as in the release.
 * Ten tries for a crop, as torchvision. */
enum { SOUND_STEP = 100, CROP_TRIES = 10 };

/* Width over height of a crop. */
static const double RATIO_LOW = 3.0 / 4.0, RATIO_HIGH = 4.0 / 3.0;

struct xkd_viewer {
    xkd_context *cx;
    const xkd_data_config *data; /* the caller's */
    xkd_view_shapes shapes;
    xkd_mel *mel;
    xkd_augmenter augmenter;
};

/* Of a global view. */
static int64_t clip_samples(const xkd_data_config *data)
{
    return llround(data->clip_duration * (double)data->audio_rate);
}

/* Python's round(): halves to even, which is the default rounding mode. */
static int64_t round_even(double x)
{
    return (int64_t)nearbyint(x);
}

/* Ranges keep products of sizes within memory and out of overflow; the configuration names are the
 * messages' subject. */
static xkd_status check_sizes(xkd_context *cx, const xkd_data_config *d)
{
    xkd_status status = XKD_OK;
    if (d->video_temporal_ratio < 1 || d->audio_temporal_ratio < 1 || !(d->video_spatial_ratio >= 1))
        XKD_FAIL(XKD_ERR_CONFIG, "dataset: temporal_ratio and spatial_ratio must be at least 1");
    if (!(d->clip_duration > 0 && d->clip_duration <= 600) || !(d->video_fps > 0 && d->video_fps <= 240) ||
        d->crop_size < 8 || d->crop_size > 2048)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "dataset: clip_duration=%g, video_fps=%g, crop_size=%lld: set above 0 and at most 600, above 0 and at "
                 "most 240, "
                 "8 to 2048",
                 d->clip_duration, d->video_fps, (long long)d->crop_size);
    if (d->hop_length < 1 || d->audio_rate < 1000 || d->n_mels < 1)
        XKD_FAIL(XKD_ERR_CONFIG, "dataset: hop_length=%lld, audio_fps=%lld, n_mels=%lld: set at least 1, 1000 and 1",
                 (long long)d->hop_length, (long long)d->audio_rate, (long long)d->n_mels);
    if (d->global_views < 1 || d->video_local_views < 0 || d->audio_local_views < 0 ||
        d->global_views > XKD_MAX_VIEWS || d->video_local_views > XKD_MAX_VIEWS - d->global_views ||
        d->audio_local_views > XKD_MAX_VIEWS - d->global_views)
        XKD_FAIL(XKD_ERR_CONFIG, "dataset: set 1 to %d views of a modality, one of them global", XKD_MAX_VIEWS);
fail:
    return status;
}

/* Shapes follow from settings alone. Global views first, then local ones, per modality. */
xkd_status xkd_view_shapes_of(xkd_context *cx, const xkd_data_config *d, xkd_view_shapes *s)
{
    xkd_status status = XKD_OK;
    XKD_TRY(check_sizes(cx, d));
    *s = (xkd_view_shapes){.video_views = d->global_views + d->video_local_views,
                           .audio_views = d->global_views + d->audio_local_views};
    int64_t frames = llround(d->clip_duration * d->video_fps), samples = clip_samples(d);
    for (int64_t v = 0; v < s->video_views; v++) {
        bool local = v >= d->global_views;
        int64_t side = local ? round_even(floor((double)d->crop_size / d->video_spatial_ratio)) : d->crop_size;
        s->video[v].frames = local ? frames / d->video_temporal_ratio : frames;
        s->video[v].height = s->video[v].width = side;
        if (s->video[v].frames < 1 || side < 1)
            XKD_FAIL(XKD_ERR_CONFIG,
                     "dataset: video view %lld would have no frames or pixels (raise clip_duration or crop_size, or "
                     "lower the "
                     "ratios of local views)",
                     (long long)v);
    }
    for (int64_t v = 0; v < s->audio_views; v++) {
        int64_t count = v >= d->global_views ? samples / d->audio_temporal_ratio : samples;
        /* The mirror at the ends of the wave needs that many samples. */
        if (count <= d->n_fft / 2)
            XKD_FAIL(XKD_ERR_CONFIG,
                     "dataset: audio view %lld: %lld samples are too few for n_fft=%lld (raise clip_duration, or lower "
                     "n_fft)",
                     (long long)v, (long long)count, (long long)d->n_fft);
        s->audio[v].bands = d->n_mels;
        s->audio[v].columns = xkd_mel_columns(count, d->hop_length);
    }
fail:
    return status;
}

/* RandomResizedCrop's box in pictures of height x width.
 * All ten tries are drawn even after one fits, so that what follows sees the same numbers. */
static void draw_crop(xkd_rng *rng, const double scale[2], int64_t height, int64_t width, xkd_video_draw *draw)
{
    bool found = false;
    for (int i = 0; i < CROP_TRIES; i++) {
        double area = (double)(height * width) * xkd_rng_range(rng, scale[0], scale[1]);
        double ratio = exp(xkd_rng_range(rng, log(RATIO_LOW), log(RATIO_HIGH)));
        int64_t w = round_even(sqrt(area * ratio)), h = round_even(sqrt(area / ratio));
        if (found || w < 1 || h < 1 || w > width || h > height) continue;
        draw->width = w;
        draw->height = h;
        found = true;
    }
    double top = xkd_rng_uniform(rng), left = xkd_rng_uniform(rng);
    if (found) {
        draw->top = (int64_t)(top * (double)(height - draw->height + 1));
        draw->left = (int64_t)(left * (double)(width - draw->width + 1));
        return;
    }
    /* No try fitted: the largest centred box of an allowed ratio. */
    double ratio = (double)width / (double)height;
    draw->width = ratio > RATIO_HIGH ? round_even((double)height * RATIO_HIGH) : width;
    draw->height = ratio < RATIO_LOW ? round_even((double)width / RATIO_LOW) : height;
    draw->top = (height - draw->height) / 2;
    draw->left = (width - draw->width) / 2;
}

/* height and width are those of the decoded frames. Factor 3 is the hue's, in turns. */
xkd_video_draw xkd_draw_video(const xkd_data_config *data, const xkd_view_shapes *shapes, xkd_view_key key,
                              int64_t view, int64_t height, int64_t width)
{
    bool local = view >= data->global_views;
    const xkd_video_view_config *v = &data->video_view[local ? XKD_LOCAL_VIEW : XKD_GLOBAL_VIEW];
    xkd_rng rng = xkd_rng_make(key.seed, key.epoch, key.sample, (uint32_t)view, XKD_RNG_VIDEO_VIEW);
    xkd_video_draw draw = {.order = {0, 1, 2, 3}};
    if (local) draw.first_frame = xkd_rng_below(&rng, shapes->video[0].frames - shapes->video[view].frames + 1);
    draw_crop(&rng, v->crop_scale, height, width, &draw);
    draw.flip = xkd_rng_uniform(&rng) < v->p_flip;
    xkd_rng_shuffle(&rng, draw.order, 4);
    for (int i = 0; i < 3; i++) draw.factor[i] = xkd_rng_range(&rng, fmax(0, 1 - v->color[i]), 1 + v->color[i]);
    /* Hue is shifted, not scaled. */
    draw.factor[3] = xkd_rng_range(&rng, -v->color[3], v->color[3]);
    draw.grey = xkd_rng_uniform(&rng) < v->p_gray;
    draw.blur = xkd_rng_uniform(&rng) < v->p_blur;
    draw.sigma_x = draw.sigma_y = xkd_rng_range(&rng, 0.1, 2.0);
    if (data->release_blur) {
        draw.sigma_x = 0.1;
        draw.sigma_y = 2.0;
    }
    return draw;
}

/* A side of the box: uniform share of the spectrogram's, cut to the canvas.
 * Cut to an integer, at least 1. */
static int64_t box_side(xkd_rng *rng, const double scale[2], int64_t side, int64_t canvas)
{
    int64_t drawn = (int64_t)(xkd_rng_range(rng, scale[0], scale[1]) * (double)side);
    return drawn < 1 ? 1 : drawn > canvas ? canvas : drawn;
}

/* Draws for warp and crop are made in any case; `draw` says which apply. */
xkd_audio_draw xkd_draw_audio(const xkd_data_config *data, const xkd_view_shapes *shapes, xkd_view_key key,
                              int64_t view)
{
    bool local = view >= data->global_views;
    const xkd_audio_view_config *v = &data->audio_view[local ? XKD_LOCAL_VIEW : XKD_GLOBAL_VIEW];
    xkd_rng rng = xkd_rng_make(key.seed, key.epoch, key.sample, (uint32_t)view, XKD_RNG_AUDIO_VIEW);
    int64_t bands = shapes->audio[view].bands, columns = shapes->audio[view].columns, window = v->warp_window;
    int64_t total = clip_samples(data);
    xkd_audio_draw draw = {0};
    if (local)
        draw.first_sample =
            SOUND_STEP * xkd_rng_below(&rng, (total - total / data->audio_temporal_ratio) / SOUND_STEP + 1);
    draw.gain = xkd_rng_range(&rng, 1 - v->volume, 1 + v->volume);
    if (!v->volume_jitter) draw.gain = 1;
    /* centre in [W, T-W), target in [centre-W, centre+W) plus 1 (method.md section 10). */
    double centre = xkd_rng_uniform(&rng), target = xkd_rng_uniform(&rng);
    draw.warp = v->time_warp && window > 0 && columns - window > window;
    if (draw.warp) {
        draw.warp_centre = window + (int64_t)(centre * (double)(columns - 2 * window));
        draw.warp_to = draw.warp_centre - window + (int64_t)(target * (double)(2 * window)) + 1;
        if (draw.warp_to >= columns) draw.warp_to = columns - 1;
    }
    draw.crop = v->rand_crop;
    draw.canvas_height = (int64_t)fmax((double)bands, (double)bands * v->virtual_crop_scale[0]);
    draw.canvas_width = (int64_t)fmax((double)columns, (double)columns * v->virtual_crop_scale[1]);
    draw.height = box_side(&rng, v->freq_scale, bands, draw.canvas_height);
    draw.width = box_side(&rng, v->time_scale, columns, draw.canvas_width);
    draw.top = xkd_rng_below(&rng, draw.canvas_height - draw.height + 1);
    draw.left = xkd_rng_below(&rng, draw.canvas_width - draw.width + 1);
    return draw;
}

/* Canvas and the rows of its first pass, for the largest view. */
static int64_t canvas_floats(const xkd_data_config *data, const xkd_view_shapes *shapes)
{
    int64_t most = 0;
    for (int64_t v = 0; v < shapes->audio_views; v++) {
        const xkd_audio_view_config *a = &data->audio_view[v >= data->global_views ? XKD_LOCAL_VIEW : XKD_GLOBAL_VIEW];
        int64_t f = shapes->audio[v].bands, t = shapes->audio[v].columns;
        int64_t height = (int64_t)fmax((double)f, (double)f * a->virtual_crop_scale[0]);
        int64_t width = (int64_t)fmax((double)t, (double)t * a->virtual_crop_scale[1]);
        int64_t need = xkd_augment_canvas(height, width, f);
        if (need > most) most = need;
    }
    return most;
}

/* All memory a thread needs for any view; making a view allocates only a resize plan. */
xkd_status xkd_viewer_new(xkd_context *cx, const xkd_data_config *data, xkd_viewer **out)
{
    xkd_status status = XKD_OK;
    xkd_viewer *viewer = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &viewer, 1, sizeof *viewer));
    viewer->cx = cx;
    viewer->data = data;
    XKD_TRY(xkd_view_shapes_of(cx, data, &viewer->shapes));
    /* Local views are never larger than global ones, of which the first has the same size as all others. */
    int64_t side = viewer->shapes.video[0].height, frames = viewer->shapes.video[0].frames;
    XKD_TRY(xkd_augmenter_for_video(cx, &viewer->augmenter, frames, side, side));
    XKD_TRY(xkd_mel_new(cx, data->audio_rate, data->n_fft, data->hop_length, data->n_mels, &viewer->mel));
    XKD_TRY(xkd_augmenter_for_sound(cx, &viewer->augmenter, viewer->mel, clip_samples(data),
                                    canvas_floats(data, &viewer->shapes)));
    *out = viewer;
    viewer = NULL;
fail:
    xkd_viewer_free(viewer);
    return status;
}

void xkd_viewer_free(xkd_viewer *viewer)
{
    if (!viewer) return;
    xkd_augmenter_free(&viewer->augmenter);
    xkd_mel_free(viewer->mel);
    xkd_free(viewer);
}

/* Order and factors are drawn; an operation of strength 0 is passed over, as a factor of 1 could still round. */
xkd_video_change xkd_video_change_of(const xkd_data_config *data, const xkd_view_shapes *shapes, int64_t view,
                                     const xkd_video_draw *draw)
{
    const xkd_video_view_config *v = &data->video_view[view >= data->global_views ? XKD_LOCAL_VIEW : XKD_GLOBAL_VIEW];
    int64_t height = shapes->video[view].height, width = shapes->video[view].width;
    xkd_video_change c = {
        .height = (int32_t)draw->height, .width = (int32_t)draw->width, .flip = draw->flip, .grey = draw->grey};
    for (int i = 0; i < XKD_COLOURS; i++) {
        int64_t operation = draw->order[i];
        if (!(v->color[operation] > 0)) continue;
        c.factor[c.colours] = draw->factor[operation];
        c.colour[c.colours++] = (int32_t)operation;
    }
    if (!draw->blur) return c;
    c.taps = (int32_t)xkd_image_blur_taps(width / 20 * 2 + 1, height, width);
    xkd_image_blur_weights(c.taps, draw->sigma_x, c.along_x);
    xkd_image_blur_weights(c.taps, draw->sigma_y, c.along_y);
    return c;
}

xkd_audio_change xkd_audio_change_of(const xkd_audio_draw *draw)
{
    return (xkd_audio_change){.gain = (float)draw->gain,
                              .warp = draw->warp,
                              .warp_centre = (int32_t)draw->warp_centre,
                              .warp_to = (int32_t)draw->warp_to,
                              .crop = draw->crop,
                              .canvas_height = (int32_t)draw->canvas_height,
                              .canvas_width = (int32_t)draw->canvas_width,
                              .top = (int32_t)draw->top,
                              .left = (int32_t)draw->left,
                              .height = (int32_t)draw->height,
                              .width = (int32_t)draw->width};
}

/* Missing frames are padded by repeating from the start (method.md section 2). */
xkd_boxes xkd_clip_box(const xkd_clip *clip, const xkd_video_draw *draw)
{
    return (xkd_boxes){.rgb = clip->frames + 3 * (draw->top * clip->width + draw->left),
                       .first = draw->first_frame,
                       .count = clip->count,
                       .frame_bytes = 3 * clip->height * clip->width,
                       .row_bytes = 3 * clip->width};
}

/* out [3,T,H,W]. */
xkd_status xkd_view_video(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view, float *out)
{
    const xkd_view_shapes *s = &viewer->shapes;
    if (clip->count < 1) return xkd_fail(viewer->cx, XKD_ERR_INTERNAL, "a clip without frames reached the views");
    xkd_video_draw draw = xkd_draw_video(viewer->data, s, key, view, clip->height, clip->width);
    xkd_video_change change = xkd_video_change_of(viewer->data, s, view, &draw);
    xkd_boxes frames = xkd_clip_box(clip, &draw);
    const int64_t size[] = {s->video[view].frames, s->video[view].height, s->video[view].width};
    return xkd_augment_video(viewer->cx, &viewer->augmenter, &change, &frames, size, out);
}

xkd_wave xkd_clip_sound(const xkd_clip *clip, int64_t first)
{
    int64_t left = clip->samples - first;
    return (xkd_wave){left > 0 ? clip->sound + first : NULL, left > 0 ? left : 0};
}

int64_t xkd_view_samples(const xkd_data_config *data, int64_t view)
{
    return view >= data->global_views ? clip_samples(data) / data->audio_temporal_ratio : clip_samples(data);
}

/* out [1,F,T]. Missing sound is silence: zero padding at the end, after the local view's start is drawn. */
xkd_status xkd_view_masked_audio(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view,
                                 const xkd_spec_masks *masks, float *out)
{
    const xkd_data_config *data = viewer->data;
    xkd_audio_draw draw = xkd_draw_audio(data, &viewer->shapes, key, view);
    xkd_audio_change change = xkd_audio_change_of(&draw);
    xkd_wave sound = xkd_clip_sound(clip, draw.first_sample);
    const xkd_spec_shape shape = {.samples = xkd_view_samples(data, view),
                                  .bands = viewer->shapes.audio[view].bands,
                                  .columns = viewer->shapes.audio[view].columns,
                                  .mean = (float)data->mel_mean,
                                  .std = (float)data->mel_std};
    xkd_augment_spectrogram(&viewer->augmenter, &change, &sound, &shape, out);
    if (masks) {
        xkd_rng rng = xkd_rng_make(key.seed, key.epoch, key.sample, XKD_STREAM_MASKS, XKD_RNG_EVAL);
        xkd_mask_spectrogram(&rng, out, shape.bands, shape.columns, false, masks->bands, masks->band_width);
        xkd_mask_spectrogram(&rng, out, shape.bands, shape.columns, true, masks->columns, masks->column_width);
    }
    xkd_augment_box(&viewer->augmenter, &change, &shape, out);
    return XKD_OK;
}

xkd_status xkd_view_audio(xkd_viewer *viewer, const xkd_clip *clip, xkd_view_key key, int64_t view, float *out)
{
    return xkd_view_masked_audio(viewer, clip, key, view, NULL, out);
}
