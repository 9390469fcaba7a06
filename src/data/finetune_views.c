/* Views of fine-tuning: RandAugment as timm has it (increasing set), crop, erasing and mixing, and SpecAugment's masks
 * for sound. All random numbers come from the caller's stream in a fixed order. */
#include "data/finetune_views.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* FILL: grey, timm's default for what a warp uncovers. */
enum { OPERATIONS = 15, CROP_TRIES = 10, ERASE_TRIES = 100, FILL = 128 };
static const double MOST_LEVEL = 10, APPLY = 0.5; /* timm's strength runs from 0 to 10 */

/* Other forms of the notation are refused rather than half understood. */
xkd_status xkd_rand_augment_parse(xkd_context *cx, const char *text, xkd_rand_augment *out)
{
    int end = 0;
    long long draws;
    /* %n says how far the text was read: nothing may follow. */
    if (sscanf(text, "rand-m%lf-n%lld-mstd%lf-inc1%n", &out->magnitude, &draws, &out->deviation, &end) == 3 && end &&
        !text[end] && draws >= 1 && draws <= 64 && out->magnitude >= 0 && out->magnitude <= MOST_LEVEL &&
        out->deviation >= 0) {
        out->draws = draws;
        return XKD_OK;
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "auto_augment '%.60s': want rand-mM-nN-mstdS-inc1", text);
}

/* Geometric operations share one resampling: the map from output to input. */
static void warp(const xkd_planes *p, const double m[6], uint8_t *scratch)
{
    xkd_image_affine(p, m, XKD_BILINEAR, FILL, scratch);
}

/* `l` is the level as a share of 10, `sign` + or - 1. The order is that of method.md. m maps output to input, [x' y']
 * = [m0 m1 m2; m3 m4 m5] [x y 1], as Pillow's Image.transform takes it. */
static void apply(const xkd_planes *p, int operation, double l, double sign, uint8_t *scratch)
{
    double factor = 1 + sign * 0.9 * l, shear = sign * 0.3 * l, shift = sign * 0.45 * l, m[6] = {1, 0, 0, 0, 1, 0};
    /* Strengths of timm's increasing set: the higher the level, the further from the original, whatever the
     * operation. */
    switch (operation) {
    case 0: xkd_image_autocontrast(p); break;
    case 1: xkd_image_equalize(p); break;
    case 2: xkd_image_invert(p); break;
    case 3:
        xkd_image_rotation(sign * 30 * l, p->width, p->height, m);
        warp(p, m, scratch);
        break;
    case 4: xkd_image_posterize(p, 4 - (int)(4 * l)); break;
    case 5: xkd_image_solarize(p, 256 - (int)(256 * l)); break;
    case 6: xkd_image_solarize_add(p, (int)(110 * l), 128); break;
    case 7: xkd_image_saturation(p, factor); break;
    case 8: xkd_image_contrast(p, factor); break;
    case 9: xkd_image_brightness(p, factor); break;
    case 10: xkd_image_sharpness(p, factor, scratch); break;
    case 11: warp(p, (double[]){1, shear, 0, 0, 1, 0}, scratch); break;
    case 12: warp(p, (double[]){1, 0, 0, shear, 1, 0}, scratch); break;
    case 13: warp(p, (double[]){1, 0, shift * (double)p->width, 0, 1, 0}, scratch); break;
    default: warp(p, (double[]){1, 0, 0, 0, 1, shift * (double)p->height}, scratch); break;
    }
}

/* The same operation for all frames of a clip, or the motion would be that of the augmentation. */
void xkd_rand_augment_run(const xkd_planes *planes, const xkd_rand_augment *policy, xkd_rng *rng, uint8_t *scratch)
{
    for (int64_t i = 0; i < policy->draws; i++) {
        int operation = (int)xkd_rng_below(rng, OPERATIONS);
        /* All four numbers are drawn whether the operation is applied or not: the stream does not shift. */
        bool applied = xkd_rng_uniform(rng) < APPLY;
        double level = policy->magnitude + policy->deviation * xkd_rng_normal(rng);
        double sign = xkd_rng_uniform(rng) < 0.5 ? -1 : 1;
        level = fmin(fmax(level, 0), MOST_LEVEL);
        if (applied) apply(planes, operation, level / MOST_LEVEL, sign, scratch);
    }
}

/* ---- crop and erasing ---- */

/* All tries are drawn even when the first fits: what follows in the stream must not depend on luck. */
xkd_crop_box xkd_draw_crop(xkd_rng *rng, const double area[2], const double ratio[2], int64_t height, int64_t width)
{
    xkd_crop_box box = {0};
    for (int i = 0; i < CROP_TRIES; i++) {
        /* The area is uniform, the ratio's logarithm too, so wide and tall boxes are equally likely (torchvision's
         * RandomResizedCrop). */
        double a = (double)(height * width) * xkd_rng_range(rng, area[0], area[1]);
        double r = exp(xkd_rng_range(rng, log(ratio[0]), log(ratio[1])));
        int64_t w = (int64_t)nearbyint(sqrt(a * r)), h = (int64_t)nearbyint(sqrt(a / r));
        if (box.width || w < 1 || h < 1 || w > width || h > height) continue;
        box.width = w;
        box.height = h;
    }
    double top = xkd_rng_uniform(rng), left = xkd_rng_uniform(rng);
    /* No try fitted: the largest box of a permitted ratio, in the middle. */
    if (!box.width) {
        double whole = (double)width / (double)height;
        box.width = whole > ratio[1] ? (int64_t)nearbyint((double)height * ratio[1]) : width;
        box.height = whole < ratio[0] ? (int64_t)nearbyint((double)width / ratio[0]) : height;
        top = left = 0.5;
    }
    box.top = (int64_t)(top * (double)(height - box.height + 1));
    box.left = (int64_t)(left * (double)(width - box.width + 1));
    return box;
}

/* Planes one by one through `scratch`, which holds one box: the resizer takes contiguous rows. */
void xkd_crop_resize(const float *frames, int64_t planes, int64_t height, int64_t width, const xkd_crop_box *box,
                     float *scratch, float *out, int64_t side)
{
    for (int64_t k = 0; k < planes; k++) {
        const float *frame = frames + k * height * width + box->top * width + box->left;
        for (int64_t y = 0; y < box->height; y++)
            memcpy(scratch + y * box->width, frame + y * width, (size_t)box->width * sizeof *scratch);
        xkd_tensor_bilinear(scratch, 1, box->height, box->width, out + k * side * side, side, side);
    }
}

/* Drawn after normalisation, hence standard normal pixels. */
void xkd_random_erase(xkd_rng *rng, double p, float *frames, int64_t C, int64_t T, int64_t H, int64_t W)
{
    static const double low = 0.02, high = 1.0 / 3, ratio = 0.3;
    if (!(xkd_rng_uniform(rng) < p)) return;
    for (int i = 0; i < ERASE_TRIES; i++) {
        double area = (double)(H * W) * xkd_rng_range(rng, low, high);
        double r = exp(xkd_rng_range(rng, log(ratio), -log(ratio)));
        int64_t h = (int64_t)nearbyint(sqrt(area * r)), w = (int64_t)nearbyint(sqrt(area / r));
        /* timm's RandomErasing: strictly smaller than the frame in both directions. */
        if (h < 1 || w < 1 || h >= H || w >= W) continue;
        int64_t top = xkd_rng_below(rng, H - h + 1), left = xkd_rng_below(rng, W - w + 1);
        /* One box for all frames and channels. */
        for (int64_t k = 0; k < C * T; k++)
            for (int64_t y = top; y < top + h; y++)
                for (int64_t x = left; x < left + w; x++) frames[(k * H + y) * W + x] = (float)xkd_rng_normal(rng);
        return;
    }
}

/* ---- spectrograms ---- */

/* Park et al., "SpecAugment" (2019): `count` bands of rows or columns, each of a width drawn from [width0, width1). */
void xkd_mask_spectrogram(xkd_rng *rng, float *spec, int64_t F, int64_t T, bool columns, int64_t count,
                          const int64_t width[2])
{
    int64_t w[64], most = 0, length = columns ? T : F;
    /* The mean before any mask of this call, so later masks fill with the same value. */
    double mean = 0;
    if (width[1] <= width[0]) return;
    for (int64_t i = 0; i < F * T; i++) mean += spec[i] / (double)(F * T);
    for (int64_t i = 0; i < count && i < 64; i++) {
        w[i] = width[0] + xkd_rng_below(rng, width[1] - width[0]);
        if (w[i] > most) most = w[i];
    }
    for (int64_t i = 0; i < count && i < 64; i++) {
        /* The largest width bounds all starts, as the release draws them. */
        int64_t first = xkd_rng_below(rng, length - most > 1 ? length - most : 1);
        for (int64_t k = first; k < first + w[i] && k < length; k++)
            for (int64_t o = 0; o < (columns ? F : T); o++) spec[columns ? o * T + k : k * T + o] = (float)mean;
    }
}

/* ---- batches ---- */

/* The true class keeps its share of the smoothing, as in timm: rows sum to 1. */
void xkd_smooth_targets(const int32_t *label, int64_t B, int64_t K, double smoothing, float *targets)
{
    double off = smoothing / (double)K, on = 1 - smoothing + off;
    for (int64_t i = 0; i < B * K; i++) targets[i] = (float)(i % K == label[i / K] ? on : off);
}

/* Gamma(a, 1): Marsaglia and Tsang's method, boosted below 1. Below 1: G(a) = G(a + 1) U^(1/a). */
static double draw_gamma(xkd_rng *rng, double a)
{
    double boost = a < 1 ? pow(1 - xkd_rng_uniform(rng), 1 / a) : 1;
    double d = (a < 1 ? a + 1 : a) - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        /* u in (0, 1], for its logarithm. */
        double x = xkd_rng_normal(rng), v = 1 + c * x, u = 1 - xkd_rng_uniform(rng);
        if (v <= 0) continue;
        v = v * v * v;
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v)) return boost * d * v;
    }
}

/* X / (X + Y) of two gammas; both may underflow to 0 for small a. */
double xkd_draw_beta(xkd_rng *rng, double a)
{
    double x = draw_gamma(rng, a), y = draw_gamma(rng, a);
    return x + y > 0 ? x / (x + y) : 0.5; /* 0 + 0 only where a is tiny */
}

/* Pairs are (b, B-1-b): both are mixed from their former values, and a middle one is its own partner. Once per pair,
 * the middle clip of an odd batch is left alone. */
static void mix_floats(float *data, int64_t B, int64_t size, double lambda)
{
    for (int64_t b = 0; b < B - 1 - b; b++) {
        float *x = data + b * size, *y = data + (B - 1 - b) * size;
        for (int64_t i = 0; i < size; i++) {
            double p = x[i], q = y[i];
            x[i] = (float)(lambda * p + (1 - lambda) * q);
            y[i] = (float)(lambda * q + (1 - lambda) * p);
        }
    }
}

/* Cutting a box out of each partner into the other is a swap. */
static void swap_box(float *clips, int64_t B, int64_t planes, int64_t H, int64_t W, const xkd_crop_box *box)
{
    int64_t size = planes * H * W;
    for (int64_t b = 0; b < B - 1 - b; b++)
        for (int64_t k = 0; k < planes; k++)
            for (int64_t y = box->top; y < box->top + box->height; y++)
                for (int64_t x = box->left; x < box->left + box->width; x++) {
                    int64_t at = (k * H + y) * W + x;
                    float *p = clips + b * size + at, *q = clips + (B - 1 - b) * size + at, held = *p;
                    *p = *q;
                    *q = held;
                }
}

/* Sides are sqrt(1 - lambda) of the clip's, around a uniform centre, cut at the border. */
static xkd_crop_box draw_mix_box(xkd_rng *rng, double lambda, int64_t H, int64_t W)
{
    double share = sqrt(1 - lambda);
    /* Truncated as in timm's rand_bbox. */
    int64_t h = (int64_t)((double)H * share), w = (int64_t)((double)W * share);
    int64_t cy = xkd_rng_below(rng, H), cx = xkd_rng_below(rng, W);
    int64_t top = cy - h / 2, left = cx - w / 2, bottom = top + h, right = left + w;
    top = top < 0 ? 0 : top;
    left = left < 0 ? 0 : left;
    bottom = bottom > H ? H : bottom;
    right = right > W ? W : right;
    return (xkd_crop_box){top, left, bottom - top, right - left};
}

/* Both numbers are drawn always, so that a switched-off mixing does not shift the stream. */
double xkd_mix_batch(xkd_rng *rng, const xkd_mix *mix, float *clips, int64_t B, int64_t planes, int64_t H, int64_t W,
                     float *targets, int64_t K)
{
    bool any = xkd_rng_uniform(rng) < mix->probability, second = xkd_rng_uniform(rng) < mix->switching;
    bool cut = mix->cutmix > 0 && (mix->mixup <= 0 || second);
    if (!any || (mix->mixup <= 0 && mix->cutmix <= 0)) return 1;
    double lambda = xkd_draw_beta(rng, cut ? mix->cutmix : mix->mixup);
    if (cut) {
        xkd_crop_box box = draw_mix_box(rng, lambda, H, W);
        swap_box(clips, B, planes, H, W, &box);
        /* What was cut at the border was not mixed. */
        lambda = 1 - (double)(box.height * box.width) / (double)(H * W);
    } else {
        mix_floats(clips, B, planes * H * W, lambda);
    }
    /* Targets [B,K] mix like clips, with the lambda of what was really mixed. */
    mix_floats(targets, B, K, lambda);
    return lambda;
}

/* timm has no three crops; they are those of the paper's test, with the middle rounded up as the release does. */
void xkd_three_crops(int64_t length, int64_t side, int64_t start[3])
{
    start[0] = 0;
    start[1] = (int64_t)ceil((double)(length - side) / 2);
    start[2] = length - side;
}
