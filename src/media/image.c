/* Pillow's 8-bit image operations on planes (method.md section 2), bit for bit: the same order of
 * operations, the same precision at each step, the same truncation. Planes instead of interleaved
 * pixels let the compiler vectorise. One call does all frames of a view, as a view has one set of
 * parameters. */
#include "media/image.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"

static const float MEAN[3] = XKD_IMAGE_MEAN, STD[3] = XKD_IMAGE_STD;

/* Frames included: all but contrast treat a view as one long row of pixels. */
static int64_t pixels(const xkd_planes *p)
{
    return p->frames * p->height * p->width;
}

/* Interleaved to planar, mirrored on the way where the view is flipped. */
void xkd_planes_put(const xkd_planes *p, int64_t t, const uint8_t *rgb, bool flip)
{
    int64_t w = p->width;
    for (int64_t y = 0; y < p->height; y++, rgb += 3 * w) {
        int64_t row = (t * p->height + y) * w;
        uint8_t *restrict r = p->plane[0] + row, *restrict g = p->plane[1] + row, *restrict b = p->plane[2] + row;
        for (int64_t x = 0; x < w; x++) {
            const uint8_t *from = rgb + 3 * (flip ? w - 1 - x : x);
            r[x] = from[0];
            g[x] = from[1];
            b[x] = from[2];
        }
    }
}

/* The way back, for tests and pictures. */
void xkd_planes_get(const xkd_planes *p, int64_t t, uint8_t *rgb)
{
    int64_t count = p->height * p->width;
    for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) rgb[3 * i + c] = p->plane[c][t * count + i];
}

/* ImagingBlend(base, x): float arithmetic, cut to an integer; clamped where the factor extrapolates. */
static inline uint8_t blend(int base, int x, float factor)
{
    float value = (float)base + factor * (float)(x - base);
    value = value < 0.0f ? 0.0f : value;
    value = value > 255.0f ? 255.0f : value;
    return (uint8_t)(int)value;
}

/* Pillow's L conversion in 16-bit fixed point; weights sum to 65536. */
static inline int luma(int r, int g, int b)
{
    return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

/* Blends with black. */
XKD_CLONES void xkd_image_brightness(const xkd_planes *p, double factor)
{
    int64_t n = pixels(p);
    float f = (float)factor;
    for (int c = 0; c < 3; c++) {
        uint8_t *restrict x = p->plane[c];
        for (int64_t i = 0; i < n; i++) x[i] = blend(0, x[i], f);
    }
}

/* Blends with the mean grey of each frame, rounded to an integer; frames differ in it, so it is taken
 * frame by frame. */
XKD_CLONES void xkd_image_contrast(const xkd_planes *p, double factor)
{
    int64_t n = p->height * p->width;
    float f = (float)factor;
    for (int64_t t = 0; t < p->frames; t++) {
        uint8_t *restrict r = p->plane[0] + t * n, *restrict g = p->plane[1] + t * n, *restrict b = p->plane[2] + t * n;
        int64_t sum = 0;
        for (int64_t y = 0; y < p->height; y++) {
            int32_t row = 0;
            for (int64_t i = y * p->width; i < (y + 1) * p->width; i++) row += luma(r[i], g[i], b[i]);
            sum += row;
        }
        int mean = (int)((double)sum / (double)n + 0.5);
        for (int64_t i = 0; i < n; i++) r[i] = blend(mean, r[i], f);
        for (int64_t i = 0; i < n; i++) g[i] = blend(mean, g[i], f);
        for (int64_t i = 0; i < n; i++) b[i] = blend(mean, b[i], f);
    }
}

/* Blends each pixel with its own grey. */
XKD_CLONES void xkd_image_saturation(const xkd_planes *p, double factor)
{
    int64_t n = pixels(p);
    float f = (float)factor;
    uint8_t *restrict r = p->plane[0], *restrict g = p->plane[1], *restrict b = p->plane[2];
    for (int64_t i = 0; i < n; i++) {
        int grey = luma(r[i], g[i], b[i]);
        r[i] = blend(grey, r[i], f);
        g[i] = blend(grey, g[i], f);
        b[i] = blend(grey, b[i], f);
    }
}

/* All channels get the grey value; the number of channels stays 3. */
XKD_CLONES void xkd_image_grey(const xkd_planes *p)
{
    int64_t n = pixels(p);
    uint8_t *restrict r = p->plane[0], *restrict g = p->plane[1], *restrict b = p->plane[2];
    for (int64_t i = 0; i < n; i++) r[i] = g[i] = b[i] = (uint8_t)luma(r[i], g[i], b[i]);
}

/* Pixels per pass of the hue loops: their intermediate arrays stay in the first-level cache. */
enum { HUE_BLOCK = 256 };

/* Pillow's rgb2hsv_row. Where two channels are equal to the maximum, red goes before green before blue; all of it is
 * selection instead of branches so that it vectorises. Grey pixels get s = 0 and any h: hsv2rgb ignores it. */
XKD_CLONES static void to_hsv(const uint8_t *restrict r, const uint8_t *restrict g, const uint8_t *restrict b,
                              uint8_t *restrict h, uint8_t *restrict s, uint8_t *restrict v)
{
    for (int i = 0; i < HUE_BLOCK; i++) {
        int high = r[i] > g[i] ? r[i] : g[i], low = r[i] < g[i] ? r[i] : g[i];
        high = high > b[i] ? high : b[i];
        low = low < b[i] ? low : b[i];
        float range = (float)(high - low), safe = range > 0.0f ? range : 1.0f, top = high > 0 ? (float)high : 1.0f;
        float rc = (float)(high - r[i]) / safe, gc = (float)(high - g[i]) / safe, bc = (float)(high - b[i]) / safe;
        int is_red = r[i] == high, is_green = g[i] == high;
        double base = is_red ? 0.0 : is_green ? 2.0 : 4.0;
        float plus = is_red ? bc : is_green ? rc : gc, minus = is_red ? gc : is_green ? bc : rc;
        /* For red Pillow subtracts in float: the operands are multiples of 1/range below 2, and one of them is 0 or 1,
         * so the double result rounds to the same float. */
        float hue = (float)((base + (double)plus) - (double)minus);
        double turn = (double)hue / 6.0 + 1.0;
        turn = turn >= 1.0 ? turn - 1.0 : turn; /* fmod(turn, 1) for turn in [0.8, 2) */
        hue = (float)turn;
        float saturation = range / top;
        h[i] = (uint8_t)(int)((double)hue * 255.0);
        s[i] = (uint8_t)(int)((double)saturation * 255.0);
        v[i] = (uint8_t)high;
    }
}

/* Pillow's hsv2rgb; `sector` and `fraction` are those of the hue byte. */
XKD_CLONES static void to_rgb(const uint8_t *restrict h, const uint8_t *restrict s, const uint8_t *restrict v,
                              uint8_t *restrict r, uint8_t *restrict g, uint8_t *restrict b)
{
    /* the angle is in [0, 6]; byte 255 falls on 6, which is red again. */
    for (int i = 0; i < HUE_BLOCK; i++) {
        double angle = (double)h[i] * 6.0 / 255.0;
        int sector = (int)angle;
        float fraction = (float)(angle - (double)sector);
        float fs = (float)((double)s[i] / 255.0);
        double value = (double)v[i];
        int p = (int)(value * (1.0 - (double)fs) + 0.5);
        int q = (int)(value * (1.0 - (double)(fs * fraction)) + 0.5);
        int t = (int)(value * (1.0 - (double)fs * (1.0 - (double)fraction)) + 0.5);
        int top = v[i];
        sector = sector == 6 ? 0 : sector;
        r[i] = (uint8_t)(sector == 0 || sector == 5 ? top : sector == 1 ? q : sector == 4 ? t : p);
        g[i] = (uint8_t)(sector == 1 || sector == 2 ? top : sector == 0 ? t : sector == 3 ? q : p);
        b[i] = (uint8_t)(sector == 3 || sector == 4 ? top : sector == 2 ? t : sector == 5 ? q : p);
    }
}

/* The factor is in turns, and the byte wraps around. Blocks are padded with what the last one left;
 * the surplus is not copied back. */
void xkd_image_hue(const xkd_planes *p, double factor)
{
    uint8_t in[3][HUE_BLOCK] = {{0}}, hsv[3][HUE_BLOCK], out[3][HUE_BLOCK];
    int64_t n = pixels(p);
    uint8_t shift = (uint8_t)(int)(factor * 255);
    for (int64_t at = 0; at < n; at += HUE_BLOCK) {
        size_t count = (size_t)(n - at < HUE_BLOCK ? n - at : HUE_BLOCK);
        for (int c = 0; c < 3; c++) memcpy(in[c], p->plane[c] + at, count);
        to_hsv(in[0], in[1], in[2], hsv[0], hsv[1], hsv[2]);
        for (int i = 0; i < HUE_BLOCK; i++) hsv[0][i] = (uint8_t)(hsv[0][i] + shift);
        to_rgb(hsv[0], hsv[1], hsv[2], out[0], out[1], out[2]);
        for (int c = 0; c < 3; c++) memcpy(p->plane[c] + at, out[c], count);
    }
}

/* A Gaussian, normalised in double and rounded once. */
void xkd_image_blur_weights(int64_t taps, double sigma, float *weights)
{
    double sum = 0, w[XKD_BLUR_TAPS];
    for (int64_t i = 0; i < taps; i++) {
        double x = ((double)i - (double)(taps / 2)) / sigma;
        w[i] = exp(-0.5 * x * x);
        sum += w[i];
    }
    for (int64_t i = 0; i < taps; i++) weights[i] = (float)(w[i] / sum);
}

/* Index into [0, n) of a place outside, mirrored at the edge pixel's centre. */
static inline int64_t mirror(int64_t i, int64_t n)
{
    if (i < 0) i = -i;
    return i >= n ? 2 * n - 2 - i : i;
}

/* Rows of `in` are blurred along y into `middle`, then along x into `in` again.
 * Separable: height x width of floats and one row are the scratch. Borders are mirrored without
 * repeating the edge. */
XKD_CLONES static void blur_plane(uint8_t *in, int64_t height, int64_t width, const float *wx, const float *wy,
                                  int64_t kernel, float *restrict middle)
{
    int64_t half = kernel / 2;
    float *restrict line = middle + height * width; /* one row with its mirrored borders */
    for (int64_t y = 0; y < height; y++) {
        float *restrict to = middle + y * width;
        memset(to, 0, (size_t)width * sizeof *to);
        for (int64_t k = 0; k < kernel; k++) {
            const uint8_t *restrict from = in + mirror(y + k - half, height) * width;
            float w = wy[k];
            for (int64_t x = 0; x < width; x++) to[x] += w * (float)from[x];
        }
    }
    for (int64_t y = 0; y < height; y++) {
        const float *from = middle + y * width;
        uint8_t *restrict to = in + y * width;
        float *restrict sum = line + width + kernel;
        for (int64_t x = -half; x < width + half; x++) line[x + half] = from[mirror(x, width)];
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t k = 0; k < kernel; k++)
            for (int64_t x = 0; x < width; x++) sum[x] += wx[k] * line[x + k];
        for (int64_t x = 0; x < width; x++) {
            /* Halves to even, as torch.round does before the cast to bytes. */
            float value = rintf(sum[x]);
            to[x] = (uint8_t)(int)(value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value);
        }
    }
}

/* A kernel wider than the picture could not be mirrored; it is cut to what fits. */
int64_t xkd_image_blur_taps(int64_t wanted, int64_t height, int64_t width)
{
    int64_t shorter = height < width ? height : width;
    if (wanted > XKD_BLUR_TAPS) wanted = XKD_BLUR_TAPS;
    return wanted / 2 >= shorter ? 2 * (shorter - 1) + 1 : wanted;
}

void xkd_image_blur(const xkd_planes *p, int64_t taps, const float *along_x, const float *along_y, float *scratch)
{
    int64_t n = p->height * p->width;
    for (int c = 0; c < 3; c++)
        for (int64_t t = 0; t < p->frames; t++)
            blur_plane(p->plane[c] + t * n, p->height, p->width, along_x, along_y, taps, scratch);
}

/* Out in [3,T,H,W], ready for the network. */
XKD_CLONES void xkd_image_normalise(const xkd_planes *p, float *out)
{
    int64_t n = pixels(p);
    for (int c = 0; c < 3; c++, out += n) {
        const uint8_t *restrict x = p->plane[c];
        float *restrict to = out;
        for (int64_t i = 0; i < n; i++) to[i] = ((float)x[i] / 255.0f - MEAN[c]) / STD[c];
    }
}

/* For pictures to look at: frame t of a normalised view, clamped to bytes. */
void xkd_image_denormalise(const float *in, int64_t frames, int64_t height, int64_t width, int64_t t, uint8_t *rgb)
{
    int64_t n = height * width;
    for (int c = 0; c < 3; c++) {
        const float *from = in + (c * frames + t) * n;
        for (int64_t i = 0; i < n; i++) {
            float value = rintf((from[i] * STD[c] + MEAN[c]) * 255.0f);
            rgb[3 * i + c] = (uint8_t)(value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value);
        }
    }
}

/* The two neighbours of output i and the weight of the second.
 * PyTorch's align_corners = false, in float as there; the coordinate is clamped at 0. */
static void bilinear_tap(int64_t i, int64_t in, int64_t out, int64_t *low, int64_t *high, float *weight)
{
    float scale = (float)in / (float)out, x = scale * ((float)i + 0.5f) - 0.5f;
    if (x < 0.0f) x = 0.0f;
    *low = (int64_t)x;
    if (*low > in - 1) *low = in - 1;
    *high = *low + (*low < in - 1);
    *weight = x - (float)*low;
}

/* No antialiasing: PyTorch's interpolate, not Pillow's resize. */
void xkd_tensor_bilinear(const float *in, int64_t channels, int64_t in_height, int64_t in_width, float *out,
                         int64_t out_height, int64_t out_width)
{
    for (int64_t c = 0; c < channels; c++) {
        const float *plane = in + c * in_height * in_width;
        for (int64_t y = 0; y < out_height; y++) {
            int64_t y0, y1, x0, x1;
            float wy, wx;
            bilinear_tap(y, in_height, out_height, &y0, &y1, &wy);
            const float *top = plane + y0 * in_width, *bottom = plane + y1 * in_width;
            for (int64_t x = 0; x < out_width; x++) {
                bilinear_tap(x, in_width, out_width, &x0, &x1, &wx);
                float a = (1 - wx) * top[x0] + wx * top[x1], b = (1 - wx) * bottom[x0] + wx * bottom[x1];
                *out++ = (1 - wy) * a + wy * b;
            }
        }
    }
}
