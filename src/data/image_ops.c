#include "data/image_ops.h"

#include <math.h>
#include <string.h>

enum { LEVELS = 256 };

/* ---- tables of 256 ---- */

static void apply_table(uint8_t *plane, int64_t n, const uint8_t table[LEVELS])
{
    for (int64_t i = 0; i < n; i++) plane[i] = table[plane[i]];
}

static void apply_everywhere(const xkd_planes *p, const uint8_t table[LEVELS])
{
    for (int c = 0; c < 3; c++) apply_table(p->plane[c], p->frames * p->height * p->width, table);
}

static uint8_t clip8(int64_t value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Of one channel of one frame. */
static void histogram(const uint8_t *plane, int64_t n, int64_t count[LEVELS])
{
    memset(count, 0, LEVELS * sizeof *count);
    for (int64_t i = 0; i < n; i++) count[plane[i]]++;
}

/* False where the picture is left as it is. */
static bool autocontrast_table(const int64_t count[LEVELS], uint8_t table[LEVELS])
{
    int low = 0, high = LEVELS - 1;
    while (low < high && !count[low]) low++;
    while (high > low && !count[high]) high--;
    if (high <= low) return false;
    double scale = 255.0 / (high - low), offset = -low * scale;
    for (int v = 0; v < LEVELS; v++) table[v] = clip8((int64_t)(v * scale + offset));
    return true;
}

/* Pillow leaves the last occupied level out of the step, so that it maps to 255. */
static bool equalize_table(const int64_t count[LEVELS], uint8_t table[LEVELS])
{
    int64_t total = 0, last = 0, used = 0;
    for (int v = 0; v < LEVELS; v++) {
        total += count[v];
        used += count[v] > 0;
        if (count[v]) last = count[v];
    }
    int64_t step = (total - last) / 255, n = step / 2;
    if (used <= 1 || step == 0) return false;
    for (int v = 0; v < LEVELS; v++) {
        table[v] = clip8(n / step);
        n += count[v];
    }
    return true;
}

/* Each frame by its own histogram, as Pillow would see it. */
static void by_histogram(const xkd_planes *p, bool (*make)(const int64_t[LEVELS], uint8_t[LEVELS]))
{
    int64_t n = p->height * p->width, count[LEVELS];
    uint8_t table[LEVELS];
    for (int c = 0; c < 3; c++)
        for (int64_t t = 0; t < p->frames; t++) {
            histogram(p->plane[c] + t * n, n, count);
            if (make(count, table)) apply_table(p->plane[c] + t * n, n, table);
        }
}

void xkd_image_autocontrast(const xkd_planes *planes)
{
    by_histogram(planes, autocontrast_table);
}

void xkd_image_equalize(const xkd_planes *planes)
{
    by_histogram(planes, equalize_table);
}

void xkd_image_invert(const xkd_planes *planes)
{
    xkd_image_solarize(planes, 0);
}

void xkd_image_solarize(const xkd_planes *planes, int threshold)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++) table[v] = (uint8_t)(v < threshold ? v : 255 - v);
    apply_everywhere(planes, table);
}

void xkd_image_posterize(const xkd_planes *planes, int bits)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++) table[v] = (uint8_t)(v & ~((1 << (8 - bits)) - 1));
    apply_everywhere(planes, table);
}

void xkd_image_solarize_add(const xkd_planes *planes, int add, int threshold)
{
    uint8_t table[LEVELS];
    for (int v = 0; v < LEVELS; v++) table[v] = v < threshold ? clip8(v + add) : (uint8_t)v;
    apply_everywhere(planes, table);
}

/* ---- sharpness ---- */

/* Pillow's Image.blend: truncated inside [0,1], clipped first outside of it. */
static uint8_t blend(int a, int b, float factor)
{
    float mixed = (float)a + factor * (float)(b - a);
    return (uint8_t)(mixed <= 0.0f ? 0 : mixed >= 255.0f ? 255 : (int)mixed);
}

void xkd_image_sharpness(const xkd_planes *p, double factor, uint8_t *scratch)
{
    const float side = 1.0f / 13.0f, middle = 5.0f / 13.0f;
    int64_t H = p->height, W = p->width;
    for (int64_t k = 0; k < 3 * p->frames; k++) {
        uint8_t *plane = p->plane[k / p->frames] + k % p->frames * H * W;
        memcpy(scratch, plane, (size_t)(H * W));
        /* The outermost pixels are not smoothed, and so blend with themselves. */
        for (int64_t y = 1; y < H - 1; y++)
            for (int64_t x = 1; x < W - 1; x++) {
                const uint8_t *s = scratch + y * W + x;
                float sum = 0.5f;
                sum += s[W - 1] * side + s[W] * side + s[W + 1] * side;
                sum += s[-1] * side + s[0] * middle + s[1] * side;
                sum += s[-W - 1] * side + s[-W] * side + s[-W + 1] * side;
                plane[y * W + x] = blend(clip8((int64_t)sum), s[0], (float)factor);
            }
    }
}

/* ---- affine ---- */

/* Pixels beyond the border repeat it. */
static int64_t inside(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* Pillow's cubic with a = -1. */
static double cubic(double v1, double v2, double v3, double v4, double d)
{
    double p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return v2 + d * (p2 + d * (p3 + d * p4));
}

/* One row at column x + dx of the four around it; `x` is the one left of the point. */
static double across(const uint8_t *row, int64_t W, int64_t x, double dx, xkd_interpolation how)
{
    double a = row[inside(x, W)], b = row[inside(x + 1, W)];
    if (how == XKD_BILINEAR) return a + (b - a) * dx;
    return cubic(row[inside(x - 1, W)], a, b, row[inside(x + 2, W)], dx);
}

/* Beyond the bottom Pillow goes on with the value of the row before; above the top it repeats the first row. */
static double sample(const uint8_t *plane, int64_t W, int64_t H, double x_in, double y_in, xkd_interpolation how)
{
    double fx = floor(x_in - 0.5), fy = floor(y_in - 0.5), dx = x_in - 0.5 - fx, dy = y_in - 0.5 - fy;
    int64_t x = (int64_t)fx, y = (int64_t)fy, first = how == XKD_BILINEAR ? y : y - 1;
    int rows = how == XKD_BILINEAR ? 2 : 4;
    double v[4] = {0};
    for (int k = 0; k < rows; k++) {
        int64_t at = first + k;
        v[k] = k == 0 || (at >= 0 && at < H) ? across(plane + inside(at, H) * W, W, x, dx, how) : v[k - 1];
    }
    return how == XKD_BILINEAR ? v[0] + (v[1] - v[0]) * dy : cubic(v[0], v[1], v[2], v[3], dy);
}

void xkd_image_affine(const xkd_planes *p, const double m[6], xkd_interpolation how, uint8_t fill, uint8_t *scratch)
{
    int64_t H = p->height, W = p->width;
    for (int64_t k = 0; k < 3 * p->frames; k++) {
        uint8_t *plane = p->plane[k / p->frames] + k % p->frames * H * W;
        memcpy(scratch, plane, (size_t)(H * W));
        for (int64_t y = 0; y < H; y++)
            for (int64_t x = 0; x < W; x++) {
                double cx = (double)x + 0.5, cy = (double)y + 0.5;
                double x_in = m[0] * cx + m[1] * cy + m[2], y_in = m[3] * cx + m[4] * cy + m[5];
                bool out = x_in < 0 || x_in >= (double)W || y_in < 0 || y_in >= (double)H;
                double value = out ? fill : sample(scratch, W, H, x_in, y_in, how);
                plane[y * W + x] = (uint8_t)(value <= 0 ? 0 : value >= 255 ? 255 : (int)value);
            }
    }
}

/* Python's round(x, 15), as Image.rotate does to have exact zeros and ones at right angles. */
static double round15(double x)
{
    return nearbyint(x * 1e15) / 1e15;
}

void xkd_image_rotation(double degrees, int64_t width, int64_t height, double m[6])
{
    double angle = -fmod(fmod(degrees, 360) + 360, 360) * M_PI / 180, x = (double)width / 2, y = (double)height / 2;
    m[0] = m[4] = round15(cos(angle));
    m[1] = round15(sin(angle));
    m[3] = round15(-sin(angle));
    m[2] = m[0] * -x + m[1] * -y + x;
    m[5] = m[3] * -x + m[4] * -y + y;
}
