/* Line charts as SVG text: no fonts, scripts or files needed to look at them. */
#ifndef XKD_REPORT_PLOT_H
#define XKD_REPORT_PLOT_H

#include <stdint.h>

#include "base/text.h"

/* One curve; points that are not finite leave a gap, unless most are not: what comes now and then is joined. */
typedef struct {
    const char *name;
    const double *x, *y; /* [count], x ascending */
    int64_t count;
} xkd_curve;

/* Appends an <svg> element with the curves, axes and a legend. Long curves are averaged down to what a screen shows. */
void xkd_plot_svg(xkd_text *out, const char *title, const xkd_curve *curves, int64_t count);

#endif
