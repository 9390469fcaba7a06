/* Panels as strip and film. A panel is drawn as the plain clip; its weights are laid over what is there. */
#include "report/panels.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "media/encode.h"
#include "report/letters.h"

/* Pixels; sides up to which panels are enlarged: few of them are shown large. */
enum {
    GAP = 6,
    BACKGROUND = 40,
    MOST_FRAMES = 8,
    STRIP_SIDE = 112,
    FEW = 6,
    LARGE_SIDE = 224,
    TITLE = XKD_LETTER_HEIGHT + 4
};
/* Share of the colour in a tinted pixel: the picture below stays readable. */
static const double TINT = 0.6;

/* How all panels of one picture are drawn. */
typedef struct {
    const xkd_panels *p;
    int64_t zoom;
    double low, high; /* of spectrograms */
} brush;

static int64_t zoom_for(int64_t side, int64_t least)
{
    return side >= least ? 1 : (least + side - 1) / side;
}

static brush make_brush(const xkd_panels *p, int64_t least_side)
{
    brush b = {.p = p, .zoom = zoom_for(p->grid.H, least_side), .low = INFINITY, .high = -INFINITY};
    const float *first = p->panels[0].clip;
    for (int64_t i = 0; p->grid.C == 1 && i < p->grid.H * p->grid.W; i++) {
        b.low = fmin(b.low, first[i]);
        b.high = fmax(b.high, first[i]);
    }
    return b;
}

/* Mixes a colour into what is drawn, whose own colours become grey. */
static void tint(xkd_canvas *c, int64_t x, int64_t y, int64_t width, int64_t height, const uint8_t colour[3])
{
    for (int64_t j = y; j < y + height && j < c->height; j++)
        for (int64_t i = x; i < x + width && i < c->width; i++) {
            uint8_t *rgb = c->rgb + (j * c->width + i) * 3;
            double grey = (rgb[0] + rgb[1] + rgb[2]) / 3.0;
            for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)lrint((1 - TINT) * grey + TINT * colour[k]);
        }
}

/* Weights of the patches that frame t is a part of. Low frequencies are at the bottom, so a spectrogram's rows count from there. */
static void draw_weights(const brush *b, const double *weights, int64_t t, xkd_canvas *c, int64_t x, int64_t y)
{
    const xkd_patch_grid *g = &b->p->grid;
    int64_t rows = g->H / g->ph, columns = g->W / g->pw, height = g->ph * b->zoom, width = g->pw * b->zoom;
    double most = 0;
    for (int64_t i = 0; i < g->T / g->pt * rows * columns; i++) most = fmax(most, weights[i]);
    weights += t / g->pt * rows * columns;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < columns; k++) {
            uint8_t colour[3];
            int64_t from_top = g->C == 1 ? rows - 1 - r : r;
            xkd_colour_map(most > 0 ? weights[r * columns + k] / most : 0, colour);
            tint(c, x + k * width, y + from_top * height, width, height, colour);
        }
}

/* Frame t of one panel, its upper left corner at (x, y). */
static void draw_panel(const brush *b, const xkd_panel *panel, int64_t t, xkd_canvas *c, int64_t x, int64_t y)
{
    const xkd_patch_grid *g = &b->p->grid;
    const int64_t size[3] = {g->T, g->H, g->W};
    if (g->C == 1)
        xkd_canvas_spectrogram(c, x, y, panel->clip, g->H, g->W, b->low, b->high, b->zoom);
    else
        xkd_canvas_frame(c, x, y, panel->clip, size, t, b->zoom);
    if (panel->weights) draw_weights(b, panel->weights, t, c, x, y);
}

xkd_status xkd_panels_strip(xkd_context *cx, const xkd_panels *p, xkd_canvas *out)
{
    const xkd_patch_grid *g = &p->grid;
    brush b = make_brush(p, STRIP_SIDE);
    int64_t shown = g->T < MOST_FRAMES ? g->T : MOST_FRAMES;
    int64_t width = g->W * b.zoom + GAP, height = g->H * b.zoom + GAP + TITLE;
    xkd_status status = xkd_canvas_new(cx, out, GAP + shown * width, GAP + p->count * height, BACKGROUND);
    for (int64_t r = 0; status == XKD_OK && r < p->count; r++) {
        int64_t y = GAP + r * height;
        xkd_canvas_text(out, GAP, y, p->panels[r].title);
        for (int64_t k = 0; k < shown; k++)
            draw_panel(&b, &p->panels[r], k * g->T / shown, out, GAP + k * width, y + TITLE);
    }
    return status;
}

/* ---- film ---- */

typedef struct {
    brush brush;
    int64_t columns, frames, width, height; /* of one panel with its gap and title */
    const xkd_film_sound *sound;
    xkd_canvas canvas;
    xkd_encoder *encoder;
} film;

/* Frames are shown as nearly square as whole panels allow, spectrograms in one column or two. */
static int64_t columns_for(const xkd_panels *p)
{
    int64_t columns = p->count <= 4 ? p->count : (int64_t)ceil(sqrt((double)p->count));
    return p->grid.C == 1 ? p->count <= 4 ? 1 : 2 : columns;
}

static int64_t make_even(int64_t n)
{
    return n + n % 2;
}

/* Where the sound is now. */
static void draw_cursor(film *f, int64_t frame, int64_t x, int64_t y)
{
    static const uint8_t white[3] = {255, 255, 255};
    const xkd_patch_grid *g = &f->brush.p->grid;
    double place = (double)frame / f->sound->fps / f->sound->seconds;
    int64_t column = (int64_t)(fmin(place, 1) * (double)(g->W * f->brush.zoom - 2));
    for (int64_t j = y; j < y + g->H * f->brush.zoom && j < f->canvas.height; j++)
        for (int64_t i = x + column; i < x + column + 2 && i < f->canvas.width; i++)
            memcpy(f->canvas.rgb + (j * f->canvas.width + i) * 3, white, 3);
}

static void draw_film_frame(film *f, int64_t frame)
{
    const xkd_panels *p = f->brush.p;
    memset(f->canvas.rgb, BACKGROUND, (size_t)(f->canvas.width * f->canvas.height * 3));
    for (int64_t k = 0; k < p->count; k++) {
        int64_t x = GAP + k % f->columns * f->width, y = GAP + k / f->columns * f->height;
        xkd_canvas_text(&f->canvas, x, y, p->panels[k].title);
        draw_panel(&f->brush, &p->panels[k], p->grid.C == 1 ? 0 : frame, &f->canvas, x, y + TITLE);
        if (p->grid.C == 1) draw_cursor(f, frame, x, y + TITLE);
    }
}

/* Sound up to the end of this frame's second, so that players find both in turns. */
static xkd_status put_sound(film *f, int64_t frame, int64_t *given)
{
    const xkd_film_sound *s = f->sound;
    int64_t until = llround((floor((double)frame / s->fps) + 1) * (double)s->rate);
    if (frame + 1 == f->frames || until > s->count) until = s->count;
    if (!s->samples || until <= *given) return XKD_OK;
    xkd_status status = xkd_encoder_sound(f->encoder, s->samples + *given, until - *given);
    *given = until;
    return status;
}

static xkd_status open_film(xkd_context *cx, film *f, const char *path)
{
    xkd_status status = XKD_OK;
    const xkd_film_sound *s = f->sound;
    const xkd_panels *p = f->brush.p;
    f->columns = columns_for(p);
    f->frames = p->grid.C == 1 ? (int64_t)ceil(s->seconds * s->fps) : p->grid.T;
    f->width = p->grid.W * f->brush.zoom + GAP;
    f->height = p->grid.H * f->brush.zoom + GAP + TITLE;
    int64_t rows = (p->count + f->columns - 1) / f->columns;
    XKD_TRY(xkd_canvas_new(cx, &f->canvas, make_even(GAP + f->columns * f->width), make_even(GAP + rows * f->height),
                           BACKGROUND));
    const xkd_encode_options options = {.width = f->canvas.width,
                                        .height = f->canvas.height,
                                        .fps = (int64_t)fmin(fmax(ceil(s->fps), 1), 120),
                                        .sample_rate = s->samples ? s->rate : 0,
                                        .channels = 1};
    XKD_TRY(xkd_encoder_new(cx, path, &options, &f->encoder));
fail:
    return status;
}

xkd_status xkd_panels_film(xkd_context *cx, const xkd_panels *p, const xkd_film_sound *sound, const char *path)
{
    xkd_status status = XKD_OK;
    film f = {.brush = make_brush(p, p->count <= FEW ? LARGE_SIDE : STRIP_SIDE), .sound = sound};
    int64_t given = 0;
    XKD_TRY(open_film(cx, &f, path));
    for (int64_t i = 0; i < f.frames; i++) {
        draw_film_frame(&f, i);
        XKD_TRY(put_sound(&f, i, &given));
        XKD_TRY(xkd_encoder_frame(f.encoder, f.canvas.rgb, (double)i / sound->fps));
    }
    status = xkd_encoder_commit(f.encoder);
    f.encoder = NULL;
fail:
    xkd_encoder_abort(f.encoder);
    xkd_canvas_free(&f.canvas);
    return status;
}
