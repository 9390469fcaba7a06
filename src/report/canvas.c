/* Pictures of views and reconstructions in 8-bit RGB. Small inputs are enlarged by whole pixels,
 * without smoothing: what is shown are the network's numbers. */
#include "report/canvas.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* Frames are shown as the camera saw them; method.md section 2 has the same numbers. */
static const double MEAN[3] = {0.485, 0.456, 0.406}, DEVIATION[3] = {0.229, 0.224, 0.225};
/* Pixels and grey levels; at most 8 frames a row, views below 112 pixels are enlarged. */
enum { GAP = 4, BACKGROUND = 40, HIDDEN = 128, MOST_FRAMES = 8, LEAST_SIDE = 112 };

/* The caller frees it with xkd_canvas_free. */
xkd_status xkd_canvas_new(xkd_context *cx, xkd_canvas *out, int64_t width, int64_t height, uint8_t grey)
{
    *out = (xkd_canvas){.width = width, .height = height};
    xkd_status status = xkd_alloc(cx, &out->rgb, width * height, 3);
    if (status == XKD_OK) memset(out->rgb, grey, (size_t)(width * height * 3));
    return status;
}

void xkd_canvas_free(xkd_canvas *picture)
{
    xkd_free(picture->rgb);
    *picture = (xkd_canvas){0};
}

/* Linear between stops; red stands for NaN, which no stop is near. */
void xkd_colour_map(double value, uint8_t rgb[3])
{
    /* Nine stops of matplotlib's viridis, which is in the public domain (CC0). */
    static const uint8_t stops[9][3] = {{68, 1, 84},    {71, 44, 122}, {59, 81, 139},  {44, 113, 142}, {33, 144, 141},
                                        {39, 173, 129}, {92, 200, 99}, {170, 220, 50}, {253, 231, 37}};
    static const uint8_t bad[3] = {255, 0, 0};
    if (isnan(value)) {
        memcpy(rgb, bad, 3);
        return;
    }
    double place = fmin(fmax(value, 0), 1) * 8;
    int stop = place >= 8 ? 7 : (int)place;
    for (int c = 0; c < 3; c++)
        rgb[c] = (uint8_t)lrint(stops[stop][c] + (place - stop) * (stops[stop + 1][c] - stops[stop][c]));
}

/* One enlarged pixel, cut at the edges of the picture. */
static void draw_block(xkd_canvas *p, int64_t x, int64_t y, int64_t zoom, const uint8_t rgb[3])
{
    for (int64_t j = y < 0 ? 0 : y; j < y + zoom && j < p->height; j++)
        for (int64_t i = x < 0 ? 0 : x; i < x + zoom && i < p->width; i++)
            memcpy(p->rgb + (j * p->width + i) * 3, rgb, 3);
}

/* frames [3,T,H,W], normalised; NaN pixels, the hidden ones, are grey. Back from the network's normalisation to 0 ..
 * 1. */
void xkd_canvas_frame(xkd_canvas *picture, int64_t x, int64_t y, const float *frames, const int64_t size[3], int64_t t,
                      int64_t zoom)
{
    int64_t T = size[0], H = size[1], W = size[2];
    for (int64_t j = 0; j < H; j++)
        for (int64_t i = 0; i < W; i++) {
            uint8_t rgb[3];
            for (int64_t c = 0; c < 3; c++) {
                double value = frames[((c * T + t) * H + j) * W + i] * DEVIATION[c] + MEAN[c];
                rgb[c] = isnan(value) ? HIDDEN : (uint8_t)lrint(255 * fmin(fmax(value, 0), 1));
            }
            draw_block(picture, x + i * zoom, y + j * zoom, zoom, rgb);
        }
}

/* spec [F,T]; low frequencies are drawn at the bottom. */
void xkd_canvas_spectrogram(xkd_canvas *picture, int64_t x, int64_t y, const float *spec, int64_t bands,
                            int64_t columns, double low, double high, int64_t zoom)
{
    static const uint8_t grey[3] = {HIDDEN, HIDDEN, HIDDEN};
    double range = high > low ? high - low : 1;
    for (int64_t f = 0; f < bands; f++)
        for (int64_t t = 0; t < columns; t++) {
            double value = spec[f * columns + t];
            uint8_t rgb[3];
            xkd_colour_map((value - low) / range, rgb);
            draw_block(picture, x + t * zoom, y + (bands - 1 - f) * zoom, zoom, isnan(value) ? grey : rgb);
        }
}

/* Offset within the clip of element e of patch n.
 * Patches are stored (t, h, w, c) with c fastest, clips (c, t, h, w); method.md section 3. */
static int64_t clip_offset(const xkd_patch_grid *g, int64_t n, int64_t e)
{
    int64_t grid_w = g->W / g->pw, grid_h = g->H / g->ph;
    int64_t c = e % g->C, w = e / g->C % g->pw, h = e / (g->C * g->pw) % g->ph, t = e / (g->C * g->pw * g->ph);
    int64_t W = n % grid_w * g->pw + w, H = n / grid_w % grid_h * g->ph + h, T = n / (grid_w * grid_h) * g->pt + t;
    return ((c * g->T + T) * g->H + H) * g->W + W;
}

/* The inverse of the loss's normalisation: mean and unbiased deviation of the true patch; method.md section 4. */
static void patch_statistics(const xkd_patch_grid *g, const float *clip, int64_t n, int64_t length, double out[2])
{
    double sum = 0, squares = 0;
    for (int64_t e = 0; e < length; e++) sum += clip[clip_offset(g, n, e)];
    double mean = sum / (double)length;
    for (int64_t e = 0; e < length; e++) squares += pow(clip[clip_offset(g, n, e)] - mean, 2);
    out[0] = mean;
    out[1] = sqrt(squares / (double)(length > 1 ? length - 1 : 1) + 1e-6);
}

/* masked, predicted and filled are clips like the view; what has nothing to show is NaN. */
void xkd_show_patches(const xkd_patch_grid *g, const float *clip, const uint8_t *hidden, const float *prediction,
                      int normalised, float *masked, float *predicted, float *filled)
{
    int64_t patches = (g->T / g->pt) * (g->H / g->ph) * (g->W / g->pw), length = g->pt * g->ph * g->pw * g->C;
    for (int64_t n = 0; n < patches; n++) {
        double scale[2] = {0, 1};
        if (normalised && hidden[n]) patch_statistics(g, clip, n, length, scale);
        for (int64_t e = 0; e < length; e++) {
            int64_t at = clip_offset(g, n, e);
            /* A normalised prediction is scaled back with the true patch's figures, which the model
             * never saw: the picture shows form, not level. */
            float guess = hidden[n] ? (float)(prediction[n * length + e] * scale[1] + scale[0]) : NAN;
            masked[at] = hidden[n] ? NAN : clip[at];
            predicted[at] = guess;
            filled[at] = hidden[n] ? guess : clip[at];
        }
    }
}

/* Small inputs are enlarged so that people can see them. */
static int64_t zoom_for(int64_t side)
{
    return side >= LEAST_SIDE ? 1 : (LEAST_SIDE + side - 1) / side;
}

/* Frames at even distances over the clip. */
xkd_status xkd_canvas_clips(xkd_context *cx, const float *const *rows, int64_t count, const int64_t size[3],
                            xkd_canvas *out)
{
    int64_t T = size[0], zoom = zoom_for(size[1]), shown = T < MOST_FRAMES ? T : MOST_FRAMES;
    int64_t width = size[2] * zoom + GAP, height = size[1] * zoom + GAP;
    xkd_status status = xkd_canvas_new(cx, out, GAP + shown * width, GAP + count * height, BACKGROUND);
    for (int64_t r = 0; status == XKD_OK && r < count; r++)
        for (int64_t k = 0; k < shown; k++)
            xkd_canvas_frame(out, GAP + k * width, GAP + r * height, rows[r], size, k * T / shown, zoom);
    return status;
}

xkd_status xkd_canvas_spectrograms(xkd_context *cx, const float *const *rows, int64_t count, int64_t bands,
                                   int64_t columns, xkd_canvas *out)
{
    int64_t zoom = zoom_for(bands), height = bands * zoom + GAP;
    double low = INFINITY, high = -INFINITY;
    /* One range for all rows, or colours of a prediction would not mean what they mean in the view. */
    for (int64_t i = 0; i < bands * columns; i++) {
        low = fmin(low, rows[0][i]);
        high = fmax(high, rows[0][i]);
    }
    xkd_status status = xkd_canvas_new(cx, out, 2 * GAP + columns * zoom, GAP + count * height, BACKGROUND);
    for (int64_t r = 0; status == XKD_OK && r < count; r++)
        xkd_canvas_spectrogram(out, GAP, GAP + r * height, rows[r], bands, columns, low, high, zoom);
    return status;
}
