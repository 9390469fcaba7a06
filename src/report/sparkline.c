#include "report/sparkline.h"

#include <math.h>
#include <string.h>

/* Pairs of cells become one. */
static void halve(xkd_sparkline *s)
{
    for (int i = 0; i < XKD_SPARK_CELLS / 2; i++) {
        s->sum[i] = s->sum[2 * i] + s->sum[2 * i + 1];
        s->count[i] = s->count[2 * i] + s->count[2 * i + 1];
    }
    s->used = XKD_SPARK_CELLS / 2;
    s->width *= 2;
}

void xkd_sparkline_add(xkd_sparkline *s, double value)
{
    if (!isfinite(value)) return;
    if (s->width == 0) s->width = 1;
    if (s->used == 0 || s->count[s->used - 1] == s->width) {
        if (s->used == XKD_SPARK_CELLS) halve(s);
        s->sum[s->used] = 0;
        s->count[s->used++] = 0;
    }
    s->sum[s->used - 1] += value;
    s->count[s->used - 1]++;
}

void xkd_sparkline_draw(const xkd_sparkline *s, char *out, size_t size)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    enum { HEIGHTS = sizeof blocks / sizeof *blocks };
    double low = INFINITY, high = -INFINITY;
    size_t length = 0;
    *out = 0;
    for (int64_t i = 0; i < s->used; i++) {
        low = fmin(low, s->sum[i] / (double)s->count[i]);
        high = fmax(high, s->sum[i] / (double)s->count[i]);
    }
    for (int64_t i = 0; s->used > 1 && i < s->used; i++) {
        double place = high > low ? (s->sum[i] / (double)s->count[i] - low) / (high - low) : 0;
        const char *block = blocks[(int)fmin(place * HEIGHTS, HEIGHTS - 1)];
        if (length + strlen(block) >= size) return;
        memcpy(out + length, block, strlen(block) + 1);
        length += strlen(block);
    }
}
