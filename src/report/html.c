/* The report of a run, and of several. Tables and pictures are HTML (parts.c, strips.c); curves are data, which the page's
 * script draws; the same curves as SVG files are for other documents. */
#include "report/html.h"

#include <math.h>

#include "base/alloc.h"
#include "base/file.h"
#include "report/page.h"
#include "report/parts.h"
#include "report/plot.h"
#include "report/web.h"

/* Points of a curve in the page: as many as a wide chart has pixels. */
enum { POINTS = 500, MOST_COLUMNS = 8, MOST_RUNS = 32 };

/* Columns drawn together; a chart none of whose columns has a value is left out. */
struct chart {
    const char *title;
    bool of_tests;
    const char *columns[MOST_COLUMNS];
};
static const struct chart charts[] = {
    {"test-by-epoch", true, {"top1", "top5", "clip_top1", "clip_top5", "map"}},
    {"loss", false, {"loss", "recon_loss", "cmkd_loss", "alignment_loss"}},
    {"probe-nearest-neighbours", false, {"probe_video_knn", "probe_audio_knn"}},
    {"probe-retrieval",
     false,
     {"probe_video_recall1", "probe_video_recall5", "probe_audio_recall1", "probe_audio_recall5"}},
    {"reconstruction", false, {"vid_recon_loss", "aud_recon_loss"}},
    {"distillation", false, {"vt2as_kd_loss", "at2vs_kd_loss"}},
    {"alignment", false, {"as2vs_align_loss", "vt2at_align_loss"}},
    {"teacher-entropy", false, {"video_teacher_entropy", "audio_teacher_entropy"}},
    {"collapse-watch",
     false,
     {"video_centre_norm", "audio_centre_norm", "video_feature_spread", "audio_feature_spread"}},
    {"learning-rate", false, {"lr"}},
    {"gradient-norm", false, {"grad_norm"}},
    {"speed", false, {"samples_per_second"}},
};
enum { CHARTS = sizeof charts / sizeof *charts };

static int64_t finite_count(const double *values, int64_t count)
{
    int64_t finite = 0;
    for (int64_t i = 0; values && i < count; i++) finite += isfinite(values[i]) != 0;
    return finite;
}

/* The curves of a chart that have a value. Names are the columns'. */
static int64_t curves_of(const xkd_run_files *run, const struct chart *chart, xkd_curve curves[MOST_COLUMNS])
{
    const xkd_figures *f = chart->of_tests ? &run->tests : &run->metrics;
    const double *x = xkd_figures_column(f, chart->of_tests ? "epoch" : "step");
    int64_t count = 0;
    for (int c = 0; x && c < MOST_COLUMNS && chart->columns[c]; c++) {
        const double *y = xkd_figures_column(f, chart->columns[c]);
        if (finite_count(y, f->rows)) curves[count++] = (xkd_curve){chart->columns[c], x, y, f->rows};
    }
    return count;
}

static xkd_status write_svgs(xkd_context *cx, const xkd_run_files *run)
{
    xkd_status status = XKD_OK;
    char *folder = NULL, *path = NULL;
    xkd_text svg = xkd_text_make(cx);
    XKD_TRY(xkd_join_path(cx, &folder, run->folder, "curves"));
    XKD_TRY(xkd_make_folder(cx, folder));
    for (int i = 0; i < CHARTS; i++) {
        xkd_curve curves[MOST_COLUMNS];
        int64_t count = curves_of(run, &charts[i], curves);
        if (count == 0) continue;
        xkd_text_clear(&svg);
        xkd_plot_svg(&svg, charts[i].title, curves, count);
        XKD_TRY(svg.status);
        xkd_free(path);
        path = NULL;
        XKD_TRY(xkd_format_string(cx, &path, "%s/%s.svg", folder, charts[i].title));
        XKD_TRY(xkd_write_file(cx, path, svg.data, svg.size));
    }
fail:
    xkd_text_free(&svg);
    xkd_free(folder);
    xkd_free(path);
    return status;
}

/* Means of equal numbers of steps; what comes now and then is given point by point. A bucket without a finite value is a gap. */
static void add_series(xkd_text *json, const xkd_curve *curve, const char *name, int64_t run)
{
    bool sparse = 2 * finite_count(curve->y, curve->count) < curve->count || curve->count < 12;
    int64_t finite = finite_count(curve->y, curve->count), step = sparse ? (finite + POINTS - 1) / POINTS : 0;
    int64_t stride = sparse ? 1 : (curve->count + POINTS - 1) / POINTS, seen = 0;
    xkd_text y = xkd_text_make(json->cx);
    const char *comma = "";
    xkd_text_puts(json, "{\"name\":");
    xkd_page_json(json, name);
    xkd_text_printf(json, ",\"run\":%d,\"sparse\":%s,\"x\":[", (int)run, sparse ? "true" : "false");
    for (int64_t from = 0; from < curve->count; from += stride) {
        double sum = 0, count = 0;
        int64_t to = from + stride < curve->count ? from + stride : curve->count;
        for (int64_t i = from; i < to; i++)
            if (isfinite(curve->y[i])) {
                sum += curve->y[i];
                count++;
            }
        if (sparse && (count == 0 || seen++ % step != 0)) continue;
        xkd_text_puts(json, comma);
        xkd_text_puts(&y, comma);
        xkd_text_printf(json, "%.10g", isfinite(curve->x[to - 1]) ? curve->x[to - 1] : 0.0);
        xkd_page_number(&y, count > 0 ? sum / count : NAN);
        comma = ",";
    }
    xkd_text_puts(json, "],\"y\":[");
    if (y.status != XKD_OK) json->status = y.status;
    if (y.data) xkd_text_puts(json, y.data);
    xkd_text_puts(json, "]}");
    xkd_text_free(&y);
}

static void begin_chart(xkd_text *json, const char *title, bool of_tests, bool first)
{
    xkd_text_printf(json, "%s{\"title\":\"%s\",\"x\":\"%s\",\"series\":[", first ? "" : ",", title,
                    of_tests ? "epoch" : "step");
}

/* One run: charts as they are. */
static void add_charts(xkd_text *json, const xkd_run_files *run)
{
    bool first = true;
    for (int i = 0; i < CHARTS; i++) {
        xkd_curve curves[MOST_COLUMNS];
        int64_t count = curves_of(run, &charts[i], curves);
        if (count == 0) continue;
        begin_chart(json, charts[i].title, charts[i].of_tests, first);
        for (int64_t c = 0; c < count; c++) {
            xkd_text_puts(json, c ? "," : "");
            add_series(json, &curves[c], curves[c].name, 0);
        }
        xkd_text_puts(json, "]}");
        first = false;
    }
}

/* Several runs: a chart a column, a curve a run. */
static void add_compared(xkd_text *json, const xkd_run_files *runs, int64_t count)
{
    bool first = true;
    for (int i = 0; i < CHARTS; i++)
        for (int c = 0; c < MOST_COLUMNS && charts[i].columns[c]; c++) {
            const struct chart one = {charts[i].columns[c], charts[i].of_tests, {charts[i].columns[c]}};
            bool begun = false;
            for (int64_t r = 0; r < count; r++) {
                xkd_curve curve[MOST_COLUMNS];
                if (curves_of(&runs[r], &one, curve) == 0) continue;
                if (!begun) begin_chart(json, one.title, one.of_tests, first);
                xkd_text_puts(json, begun ? "," : "");
                add_series(json, curve, runs[r].folder, r);
                begun = true;
                first = false;
            }
            if (begun) xkd_text_puts(json, "]}");
        }
}

static xkd_status write_page(xkd_context *cx, xkd_text *out, const xkd_run_files *runs, int64_t count, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_text json = xkd_text_make(cx);
    xkd_text_puts(&json, "{\"charts\":[");
    if (count == 1)
        add_charts(&json, &runs[0]);
    else
        add_compared(&json, runs, count);
    xkd_text_puts(&json, "]}");
    XKD_TRY(json.status);
    xkd_page_end(out, json.data, xkd_web_page_js);
    XKD_TRY(out->status);
    XKD_TRY(xkd_write_file(cx, path, out->data, out->size));
fail:
    xkd_text_free(&json);
    return status;
}

static void add_curves_place(xkd_text *out)
{
    xkd_text_puts(out, "<h2>Curves</h2>\n<noscript><p>Curves need scripts; the run's folder has them as "
                       "curves/*.svg.</p></noscript>\n<div class=\"grid\" id=\"charts\"></div>\n");
}

/* Any part that cannot be read fails the report, not the run's data. */
xkd_status xkd_report_write(xkd_context *cx, const char *folder, int64_t total_steps, const char *file)
{
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cx);
    xkd_run_files run = {0};
    char *path = NULL;
    XKD_TRY(xkd_run_files_read(cx, folder, total_steps, &run));
    XKD_TRY(file ? xkd_copy_string(cx, &path, file) : xkd_join_path(cx, &path, folder, "report.html"));
    xkd_page_begin(&out, run.config.name);
    xkd_parts_head(&out, &run);
    add_curves_place(&out);
    xkd_parts_figures(&out, &run, 1);
    XKD_TRY(xkd_parts_pictures(cx, &out, &run));
    xkd_parts_bad_files(&out, &run);
    XKD_TRY(xkd_parts_config(cx, &out, &run, 1));
    XKD_TRY(write_page(cx, &out, &run, 1, path));
    if (!file) XKD_TRY(write_svgs(cx, &run));
fail:
    xkd_run_files_free(&run);
    xkd_free(path);
    xkd_text_free(&out);
    return status;
}

xkd_status xkd_report_compare(xkd_context *cx, char *const *folders, int64_t count, const char *file)
{
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cx);
    xkd_run_files *runs = NULL;
    if (count > MOST_RUNS) XKD_FAIL(XKD_ERR_CONFIG, "%d runs at most can be told apart in a comparison", MOST_RUNS);
    XKD_TRY(xkd_alloc(cx, &runs, count, sizeof *runs));
    for (int64_t r = 0; r < count; r++) XKD_TRY(xkd_run_files_read(cx, folders[r], 0, &runs[r]));
    xkd_page_begin(&out, "Comparison of runs");
    XKD_TRY(xkd_parts_config(cx, &out, runs, count));
    xkd_parts_figures(&out, runs, count);
    add_curves_place(&out);
    XKD_TRY(write_page(cx, &out, runs, count, file));
fail:
    for (int64_t r = 0; runs && r < count; r++) xkd_run_files_free(&runs[r]);
    xkd_free(runs);
    xkd_text_free(&out);
    return status;
}
