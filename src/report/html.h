/* One HTML file that tells a run: summary, curves, pictures, configuration. Nothing in it is fetched from elsewhere. */
#ifndef XKD_REPORT_HTML_H
#define XKD_REPORT_HTML_H

#include <stdint.h>

#include "base/status.h"
#include "report/plot.h"

typedef struct {
    const char *name, *value;
} xkd_report_fact;

/* A chart and the metrics.csv columns in it; ends with NULL. */
typedef struct {
    const char *title;
    const char *columns[8];
} xkd_report_chart;

/* A chart of figures that metrics.csv does not hold. */
typedef struct {
    const char *title;
    const xkd_curve *curves; /* [count] */
    int64_t count;
} xkd_report_plot;

typedef struct {
    const char *title;
    const xkd_report_fact *facts; /* [fact_count] */
    int64_t fact_count;
    const xkd_report_chart *charts; /* [chart_count] */
    int64_t chart_count;
    const xkd_report_plot *plots; /* [plot_count], above the charts; those without curves are left out */
    int64_t plot_count;
    const char *config; /* YAML text, "" for none */
} xkd_report;

/* Reads folder/metrics.csv and the newest pictures of folder/pictures and writes folder/report.html, and each chart and
 * plot as folder/curves/TITLE.svg. Missing metrics give a report without their charts. */
xkd_status xkd_report_write(xkd_context *cx, const char *folder, const xkd_report *report);

#endif
