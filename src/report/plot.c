/* Line charts in SVG, by hand: a few lines of text instead of a library. Long curves are averaged in
 * buckets, so a chart's size does not grow with the run. */
#include "report/plot.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

/* Pixels of the picture and its margins; a curve has at most 500 points. */
enum { MOST_TICKS = 100 }; /* many more than nice_step gives */
enum { WIDTH = 640, HEIGHT = 300, LEFT = 64, RIGHT = 12, TOP = 34, BOTTOM = 30, BUCKETS = 500, COLOURS = 10 };

/* Okabe-Ito first: distinguishable with any colour vision. */
static const char *const colours[COLOURS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                             "#56b4e9", "#7f7f7f", "#000000", "#8c564b", "#bcbd22"};

/* What the axes span. */
typedef struct {
    double x0, x1, y0, y1;
} range;

/* Of the values, and of all charts: below these a span is none. */
static const double LEAST_SPAN = 1e-9, LEAST_HEIGHT = 1e-300;

/* Values that are not finite are passed over. An empty chart spans 0 to 1; a constant one gets some
 * height. */
static range range_of(const xkd_curve *curves, int64_t count)
{
    range r = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int64_t c = 0; c < count; c++)
        for (int64_t i = 0; i < curves[c].count; i++) {
            if (!isfinite(curves[c].y[i])) continue;
            r.x0 = fmin(r.x0, curves[c].x[i]);
            r.x1 = fmax(r.x1, curves[c].x[i]);
            r.y0 = fmin(r.y0, curves[c].y[i]);
            r.y1 = fmax(r.y1, curves[c].y[i]);
        }
    if (r.x0 > r.x1) return (range){0, 1, 0, 1};
    if (r.x0 == r.x1) r.x1 = r.x0 + 1;
    /* Values that differ in their last digits alone are constant to the eye, and no tick fits between them. */
    double size = fmax(fabs(r.y0), fabs(r.y1)), span = r.y1 - r.y0;
    if (!isfinite(span)) return (range){r.x0, r.x1, r.y0, r.y1};
    double margin = span > LEAST_SPAN * size && span > LEAST_HEIGHT ? 0.04 * span : fmax(size * 0.1, 1e-6);
    return (range){r.x0, r.x1, r.y0 - margin, r.y1 + margin};
}

/* Pixels from the left edge. */
static double place_x(const range *r, double x)
{
    return LEFT + (x - r->x0) / (r->x1 - r->x0) * (WIDTH - LEFT - RIGHT);
}

/* Upwards, while SVG counts downwards. */
static double place_y(const range *r, double y)
{
    return HEIGHT - BOTTOM - (y - r->y0) / (r->y1 - r->y0) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten that gives about `ticks` steps.
 * log10 of a positive span: range_of never gives an empty one. */
static double nice_step(double span, int ticks)
{
    double raw = span / ticks, power = pow(10, floor(log10(raw))), rest = raw / power;
    return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

/* Ticks are counted and not stepped to, since a step may vanish in the rounding of what it is added to. */
static int64_t tick_count(double from, double to, double step, double *first)
{
    *first = ceil(from / step);
    double count = floor(to / step) - *first + 1;
    return count > 0 && count <= MOST_TICKS ? (int64_t)count : 0; /* not where it is NaN */
}

/* A tick within rounding of 0 is written as 0. */
static void axes(xkd_text *out, const range *r)
{
    double step = nice_step(r->y1 - r->y0, 5), first;
    int64_t ticks = tick_count(r->y0, r->y1, step, &first);
    for (int64_t i = 0; i < ticks; i++) {
        double y = (first + (double)i) * step;
        xkd_text_printf(out,
                        "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
                        "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
                        LEFT, WIDTH - RIGHT, place_y(r, y), place_y(r, y), LEFT - 6, place_y(r, y) + 4,
                        fabs(y) < step / 1e6 ? 0 : y);
    }
    step = nice_step(r->x1 - r->x0, 6);
    ticks = tick_count(r->x0, r->x1, step, &first);
    for (int64_t i = 0; i < ticks; i++) {
        double x = (first + (double)i) * step;
        xkd_text_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>\n", place_x(r, x),
                        HEIGHT - BOTTOM + 18, x);
    }
    xkd_text_printf(out, "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
                    WIDTH - RIGHT);
}

/* Figures that come now and then, such as those of a probe: most points are missing, and the line joins the others. */
static bool is_sparse(const xkd_curve *curve)
{
    int64_t finite = 0;
    for (int64_t i = 0; i < curve->count; i++) finite += isfinite(curve->y[i]) != 0;
    return 2 * finite < curve->count;
}

/* The mean of each bucket; a bucket without a finite value interrupts the line. Buckets of equal numbers of steps;
 * fewer points than buckets are drawn as they are. A point without neighbours is a dot: round ends of a line of no
 * length. */
static void line(xkd_text *out, const range *r, const xkd_curve *curve, const char *colour)
{
    int64_t stride = (curve->count + BUCKETS - 1) / BUCKETS;
    bool pen_down = false, sparse = is_sparse(curve);
    xkd_text_printf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-linecap=\"round\" d=\"", colour,
                    sparse ? "2" : "1.5");
    for (int64_t start = 0; start < curve->count; start += stride) {
        double x = 0, y = 0, n = 0;
        for (int64_t i = start; i < start + stride && i < curve->count; i++) {
            if (!isfinite(curve->y[i])) continue;
            x += curve->x[i];
            y += curve->y[i];
            n++;
        }
        if (n > 0)
            xkd_text_printf(out, "%s%.1f %.1f%s", pen_down ? "L" : "M", place_x(r, x / n), place_y(r, y / n),
                            pen_down ? "" : "h0");
        /* A gap lifts the pen: the next point starts a new piece. */
        pen_down = n > 0 || (sparse && pen_down);
    }
    xkd_text_puts(out, "\"/>\n");
}

/* Names are escaped. The legend runs along the top, in the curves' colours. */
void xkd_plot_svg(xkd_text *out, const char *title, const xkd_curve *curves, int64_t count)
{
    range r = range_of(curves, count);
    double legend = LEFT;
    xkd_text_printf(out,
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
                    "font-family=\"sans-serif\" font-size=\"11\">\n<text x=\"%d\" y=\"13\" font-weight=\"bold\">",
                    WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
    xkd_text_xml(out, title);
    xkd_text_puts(out, "</text>\n");
    axes(out, &r);
    for (int64_t c = 0; c < count; c++) {
        line(out, &r, &curves[c], colours[c % COLOURS]);
        xkd_text_printf(out, "<text x=\"%.0f\" y=\"27\" fill=\"%s\">", legend, colours[c % COLOURS]);
        xkd_text_xml(out, curves[c].name);
        xkd_text_puts(out, "</text>\n");
        int length = snprintf(NULL, 0, "%s", curves[c].name);
        legend += 6.2 * length + 14; /* the width of a character of this size, on average */
    }
    xkd_text_puts(out, "</svg>\n");
}
