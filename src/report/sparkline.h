/* The course of a number in one word of a terminal's line: eight heights of blocks, "▇▅▃▂▁". */
#ifndef XKD_REPORT_SPARKLINE_H
#define XKD_REPORT_SPARKLINE_H

#include <stddef.h>
#include <stdint.h>

/* When all cells are full, neighbours become one: the line always spans everything since its beginning. */
enum { XKD_SPARK_CELLS = 16 };

/* Starts as {0}. */
typedef struct {
    double sum[XKD_SPARK_CELLS];
    int64_t count[XKD_SPARK_CELLS];
    int64_t used, width; /* cells begun; numbers a cell, 0: 1 */
} xkd_sparkline;

/* One more number; those that are not finite are passed over. */
void xkd_sparkline_add(xkd_sparkline *s, double value);

/* UTF-8, a block a cell: the lowest mean is the lowest block. "" before the second cell. */
void xkd_sparkline_draw(const xkd_sparkline *s, char *out, size_t size);

#endif
