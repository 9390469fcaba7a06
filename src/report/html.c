/* The report of a run as one HTML file without scripts or references, made from what is on disk:
 * metrics.csv, the newest pictures and the configuration. */
#include "report/html.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "report/plot.h"

/* 4 GB of CSV are some 10 million steps; a picture is well below 16 MB. */
static const int64_t CSV_LIMIT = (int64_t)4 << 30, PICTURE_LIMIT = 16 << 20;
/* Per report; all of them stay in the folder. */
enum { MOST_PICTURES = 6 };

/* The columns of a metrics.csv, as numbers. */
typedef struct {
    char *text, **names; /* names point into text */
    double *values;      /* [columns,rows] */
    int64_t columns, rows;
} table;

/* Takes a table that was never filled. */
static void table_free(table *t)
{
    xkd_free(t->text);
    xkd_free(t->names);
    xkd_free(t->values);
}

/* Up to `end`; 0 for the whole text. */
static int64_t count_char(const char *text, char c, char end)
{
    int64_t n = 0;
    for (; *text && *text != end; text++) n += *text == c;
    return n;
}

/* Our own CSV: no quotes, no empty cells, "nan" for what was not measured.
 * A value that is no number ends up as 0 and the next cell is tried from the same place; our own
 * files have none. */
static xkd_status table_read(xkd_context *cx, const char *path, table *t)
{
    xkd_status status = XKD_OK;
    int64_t size;
    XKD_TRY(xkd_read_file(cx, path, CSV_LIMIT, XKD_ERR_DATA, &t->text, &size));
    t->columns = 1 + count_char(t->text, ',', '\n');
    /* The heading is the first line, so it is no row. */
    t->rows = count_char(t->text, '\n', 0) - 1;
    if (t->rows < 1) goto fail;
    XKD_TRY(xkd_alloc(cx, &t->names, t->columns, sizeof *t->names));
    XKD_TRY(xkd_alloc(cx, &t->values, t->columns * t->rows, sizeof *t->values));
    char *at = t->text;
    for (int64_t c = 0; c < t->columns; c++) {
        t->names[c] = at;
        at += strcspn(at, ",\n");
        *at++ = 0;
    }
    /* Stored by column, as a chart wants one column whole. */
    for (int64_t row = 0; row < t->rows; row++)
        for (int64_t c = 0; c < t->columns; c++) {
            char *end;
            t->values[c * t->rows + row] = strtod(at, &end);
            at = end + (*end == ',' || *end == '\n');
        }
fail:
    return status;
}

/* NULL for a column that this run did not write. */
static const double *table_column(const table *t, const char *name)
{
    for (int64_t c = 0; c < t->columns && t->rows > 0; c++)
        if (strcmp(t->names[c], name) == 0) return t->values + c * t->rows;
    return NULL;
}

/* Figures of what a run did not do, such as a probe, stand in its table as no numbers. */
static bool has_value(const double *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (isfinite(values[i])) return true;
    return false;
}

/* A chart goes into the report and into a file of its own. */
static xkd_status add_plot(xkd_context *cx, xkd_text *out, const char *folder, const xkd_report_plot *plot)
{
    xkd_status status = XKD_OK;
    xkd_text svg = xkd_text_make(cx);
    char *path = NULL;
    if (plot->count == 0) return XKD_OK;
    xkd_plot_svg(&svg, plot->title, plot->curves, plot->count);
    XKD_TRY(svg.status);
    XKD_TRY(xkd_format_string(cx, &path, "%s/%s.svg", folder, plot->title));
    XKD_TRY(xkd_write_file(cx, path, svg.data, svg.size));
    xkd_text_add(out, svg.data, svg.size);
fail:
    xkd_free(path);
    xkd_text_free(&svg);
    return status;
}

/* The caller's own figures first, then those of metrics.csv. */
static xkd_status add_charts(xkd_context *cx, xkd_text *out, const char *folder, const xkd_report *report,
                             const table *t)
{
    xkd_status status = XKD_OK;
    char *curves_folder = NULL;
    const double *steps = table_column(t, "step");
    XKD_TRY(xkd_join_path(cx, &curves_folder, folder, "curves"));
    XKD_TRY(xkd_make_folder(cx, curves_folder));
    for (int64_t i = 0; i < report->plot_count; i++) XKD_TRY(add_plot(cx, out, curves_folder, &report->plots[i]));
    for (int64_t i = 0; steps && i < report->chart_count; i++) {
        const xkd_report_chart *chart = &report->charts[i];
        xkd_curve curves[8];
        int64_t count = 0;
        /* Eight columns a chart at most; the list ends with NULL. */
        for (int c = 0; c < 8 && chart->columns[c]; c++) {
            const double *values = table_column(t, chart->columns[c]);
            if (values && has_value(values, t->rows))
                curves[count++] = (xkd_curve){chart->columns[c], steps, values, t->rows};
        }
        const xkd_report_plot plot = {chart->title, curves, count};
        XKD_TRY(add_plot(cx, out, curves_folder, &plot));
    }
fail:
    xkd_free(curves_folder);
    return status;
}

/* Pictures are inlined so that the report can be mailed as one file.
 * A fourth digit for every three bytes, padded at the end. */
static void add_base64(xkd_text *out, const char *bytes, int64_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)bytes;
    for (int64_t i = 0; i < size; i += 3) {
        unsigned have = size - i < 3 ? (unsigned)(size - i) : 3;
        unsigned word = (unsigned)p[i] << 16 | (have > 1 ? (unsigned)p[i + 1] << 8 : 0) | (have > 2 ? p[i + 2] : 0);
        char four[4] = {digits[word >> 18], digits[word >> 12 & 63], have > 1 ? digits[word >> 6 & 63] : '=',
                        have > 2 ? digits[word & 63] : '='};
        xkd_text_add(out, four, 4);
    }
}

/* Names are escaped, though they are our own. */
static xkd_status add_picture(xkd_context *cx, xkd_text *out, const char *folder, const char *name)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *bytes = NULL;
    int64_t size;
    XKD_TRY(xkd_join_path(cx, &path, folder, name));
    XKD_TRY(xkd_read_file(cx, path, PICTURE_LIMIT, XKD_ERR_DATA, &bytes, &size));
    xkd_text_puts(out, "<figure><img alt=\"\" src=\"data:image/png;base64,");
    add_base64(out, bytes, size);
    xkd_text_puts(out, "\"><figcaption>");
    xkd_text_xml(out, name);
    xkd_text_puts(out, "</figcaption></figure>\n");
fail:
    xkd_free(bytes);
    xkd_free(path);
    return status;
}

/* Steps have a fixed width, so text order is their order. */
static int newest_first(const void *a, const void *b)
{
    /* NAME-STEP.png with a step of fixed width: compare the steps, then the names. */
    const char *x = *(char *const *)a, *y = *(char *const *)b, *step_x = strrchr(x, '-'), *step_y = strrchr(y, '-');
    int order = step_x && step_y ? strcmp(step_y, step_x) : 0;
    return order ? order : strcmp(x, y);
}

/* Temporary files of a killed run have other endings. */
static bool is_png(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".png") == 0;
}

/* The newest few: a long run has hundreds. */
static xkd_status add_pictures(xkd_context *cx, xkd_text *out, const char *folder)
{
    xkd_status status = XKD_OK;
    char *pictures = NULL;
    xkd_names names = {0};
    int shown = 0;
    XKD_TRY(xkd_join_path(cx, &pictures, folder, "pictures"));
    if (!xkd_is_folder(pictures)) goto fail; /* a run without pictures */
    XKD_TRY(xkd_list_folder(cx, pictures, &names));
    if (names.count > 1) qsort(names.items, (size_t)names.count, sizeof *names.items, newest_first);
    for (int64_t i = 0; i < names.count && shown < MOST_PICTURES; i++) {
        if (!is_png(names.items[i])) continue;
        if (shown++ == 0)
            xkd_text_puts(out,
                          "<h2>Reconstructions</h2><p>From top to bottom: the view, what the student saw of it, what "
                          "the decoder made of the hidden patches, both together.</p>\n");
        XKD_TRY(add_picture(cx, out, pictures, names.items[i]));
    }
fail:
    xkd_free_names(&names);
    xkd_free(pictures);
    return status;
}

/* Title, style and facts. Everything that comes from people is escaped. */
static void add_head(xkd_text *out, const xkd_report *report)
{
    xkd_text_puts(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    xkd_text_xml(out, report->title);
    xkd_text_puts(out, "</title><style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:1320px;padding:0 1em}"
                       "td{padding:.1em 1.2em .1em 0}img{max-width:100%;image-rendering:pixelated}figure{margin:1em 0}"
                       "pre{background:#f4f4f4;padding:1em;overflow:auto}</style></head><body>\n<h1>");
    xkd_text_xml(out, report->title);
    xkd_text_puts(out, "</h1>\n<table>\n");
    for (int64_t i = 0; i < report->fact_count; i++) {
        xkd_text_puts(out, "<tr><td>");
        xkd_text_xml(out, report->facts[i].name);
        xkd_text_puts(out, "</td><td>");
        xkd_text_xml(out, report->facts[i].value);
        xkd_text_puts(out, "</td></tr>\n");
    }
    xkd_text_puts(out, "</table>\n<h2>Curves</h2>\n");
}

/* A run without metrics has a report without curves. Any part that cannot be read fails the report,
 * not the run's data. */
xkd_status xkd_report_write(xkd_context *cx, const char *folder, const xkd_report *report)
{
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cx);
    table metrics = {0};
    char *csv = NULL, *path = NULL;
    XKD_TRY(xkd_join_path(cx, &csv, folder, "metrics.csv"));
    XKD_TRY(xkd_join_path(cx, &path, folder, "report.html"));
    if (xkd_path_exists(csv)) XKD_TRY(table_read(cx, csv, &metrics));
    add_head(&out, report);
    XKD_TRY(add_charts(cx, &out, folder, report, &metrics));
    XKD_TRY(add_pictures(cx, &out, folder));
    xkd_text_puts(&out, "<h2>Configuration</h2><details><summary>config.yaml</summary><pre>");
    xkd_text_xml(&out, report->config);
    xkd_text_puts(&out, "</pre></details>\n</body></html>\n");
    XKD_TRY(out.status);
    XKD_TRY(xkd_write_file(cx, path, out.data, out.size));
fail:
    table_free(&metrics);
    xkd_free(csv);
    xkd_free(path);
    xkd_text_free(&out);
    return status;
}
