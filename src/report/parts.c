/* Tables of a report. Whatever comes out of files goes through xkd_page_text. */
#include "report/parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "config/options.h"
#include "report/page.h"
#include "report/progress.h"
#include "report/verdict.h"

enum { MOST_BAD_ROWS = 200 };

static void add_fact(xkd_text *out, const char *name, const char *value)
{
    xkd_text_puts(out, "<div><dt>");
    xkd_page_text(out, name, "");
    xkd_text_puts(out, "</dt><dd>");
    xkd_page_text(out, value, "");
    xkd_text_puts(out, "</dd></div>\n");
}

/* Sum of the finite values; 0 for no column. */
static double sum_of(const double *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; values && i < count; i++) sum += isfinite(values[i]) ? values[i] : 0;
    return sum;
}

static double last_of(const xkd_figures *f, const char *name)
{
    const double *values = xkd_figures_column(f, name);
    return values ? values[f->rows - 1] : NAN;
}

static void add_facts(xkd_text *out, const xkd_run_files *run)
{
    const xkd_figures *m = &run->metrics;
    char text[80];
    double time = sum_of(xkd_figures_column(m, "Time"), m->rows), data = sum_of(xkd_figures_column(m, "Data"), m->rows);
    xkd_text_puts(out, "<dl class=\"facts\">\n");
    if (run->total)
        snprintf(text, sizeof text, "%" PRId64 " of %" PRId64, run->steps, run->total);
    else
        snprintf(text, sizeof text, "%" PRId64, run->steps);
    add_fact(out, "steps", text);
    add_fact(out, "last loss", xkd_format_loss(text, sizeof text, last_of(m, "loss")));
    xkd_format_duration(text, sizeof text, time);
    add_fact(out, "time in steps", text);
    if (time > 0) {
        /* As xkd_config_finish has it, which a configuration that is only shown need not pass. */
        double batch = (double)run->config.train.num_node * (double)run->config.train.batch_size;
        snprintf(text, sizeof text, "%.2f", (double)m->rows * batch / time);
        if (run->config_known) add_fact(out, "samples/s", text);
        snprintf(text, sizeof text, "%.0f %% of the time", 100 * data / time);
        add_fact(out, "waiting for data", text);
    }
    snprintf(text, sizeof text, "%" PRId64, run->bad_count);
    add_fact(out, "unreadable files", text);
    if (*run->config.data.path) add_fact(out, "data", run->config.data.path);
    if (*run->config.run.init) add_fact(out, "started from", run->config.run.init);
    add_fact(out, "folder", run->folder);
    xkd_text_puts(out, "</dl>\n");
}

void xkd_parts_head(xkd_text *out, const xkd_run_files *run)
{
    xkd_verdict v;
    xkd_verdict_of(run, &v);
    xkd_text_printf(out, "<section class=\"verdict %s\"><strong>%s</strong><p>", v.mood, v.word);
    xkd_page_text(out, v.reason, "");
    xkd_text_puts(out, "</p><p class=\"soft\">");
    xkd_page_text(out, v.next, "");
    xkd_text_puts(out, "</p></section>\n");
    add_facts(out, run);
}

/* ---- figures ---- */

/* A figure for people, and whether more of it is better. */
struct figure {
    const char *column, *name;
    bool higher, of_tests;
};
static const struct figure figures[] = {
    {"loss", "loss", false, false},
    {"recon_loss", "reconstruction loss", false, false},
    {"cmkd_loss", "distillation loss", false, false},
    {"alignment_loss", "alignment loss", false, false},
    {"probe_video_knn", "probe: nearest neighbours, video (%)", true, false},
    {"probe_audio_knn", "probe: nearest neighbours, sound (%)", true, false},
    {"probe_video_recall1", "probe: sound of a video found first (%)", true, false},
    {"probe_video_recall5", "probe: sound of a video in the first five (%)", true, false},
    {"probe_audio_recall1", "probe: video of a sound found first (%)", true, false},
    {"probe_audio_recall5", "probe: video of a sound in the first five (%)", true, false},
    {"top1", "test: top-1 (%)", true, true},
    {"top5", "test: top-5 (%)", true, true},
    {"map", "test: mean average precision (%)", true, true},
};
enum { FIGURES = sizeof figures / sizeof *figures };

struct summary {
    double first, best, last;
    int64_t count;
};

static struct summary summarise(const xkd_run_files *run, const struct figure *figure)
{
    struct summary s = {NAN, NAN, NAN, 0};
    const xkd_figures *f = figure->of_tests ? &run->tests : &run->metrics;
    const double *values = xkd_figures_column(f, figure->column);
    for (int64_t i = 0; values && i < f->rows; i++) {
        double v = values[i];
        if (!isfinite(v)) continue;
        if (s.count++ == 0) s.first = s.best = v;
        if (figure->higher ? v > s.best : v < s.best) s.best = v;
        s.last = v;
    }
    return s;
}

static void add_number(xkd_text *out, double value)
{
    if (isfinite(value))
        xkd_text_printf(out, "<td class=\"number\">%.4g</td>", value);
    else
        xkd_text_puts(out, "<td class=\"number\">&ndash;</td>");
}

void xkd_parts_figures(xkd_text *out, const xkd_run_files *runs, int64_t count)
{
    xkd_text_puts(out, "<h2>Figures</h2>\n<div class=\"scroll\"><table><tr><th></th>");
    if (count == 1) xkd_text_puts(out, "<th>first</th><th>best</th><th>last</th>");
    for (int64_t r = 0; count > 1 && r < count; r++) {
        xkd_text_puts(out, "<th>");
        xkd_page_text(out, runs[r].folder, "");
        xkd_text_puts(out, "</th>");
    }
    xkd_text_puts(out, "</tr>\n");
    if (count > 1) {
        xkd_text_puts(out, "<tr><td>state</td>");
        for (int64_t r = 0; r < count; r++) {
            xkd_verdict v;
            xkd_verdict_of(&runs[r], &v);
            xkd_text_printf(out, "<td>%s</td>", v.word);
        }
        xkd_text_puts(out, "</tr>\n<tr><td>steps</td>");
        for (int64_t r = 0; r < count; r++)
            xkd_text_printf(out, "<td class=\"number\">%" PRId64 "</td>", runs[r].steps);
        xkd_text_puts(out, "</tr>\n");
    }
    for (int i = 0; i < FIGURES; i++) {
        int64_t known = 0;
        for (int64_t r = 0; r < count; r++) known += summarise(&runs[r], &figures[i]).count;
        if (!known) continue;
        xkd_text_printf(out, "<tr><td>%s</td>", figures[i].name);
        for (int64_t r = 0; r < count; r++) {
            struct summary s = summarise(&runs[r], &figures[i]);
            if (count == 1) add_number(out, s.first);
            if (count == 1) add_number(out, s.best);
            add_number(out, s.last);
        }
        xkd_text_puts(out, "</tr>\n");
    }
    xkd_text_puts(out, "</table></div>\n");
}

void xkd_parts_bad_files(xkd_text *out, const xkd_run_files *run)
{
    if (run->bad_count == 0) return;
    xkd_text_puts(out, "<h2>Unreadable files</h2>\n<p class=\"soft\">Other clips took their places. <code>xkd data "
                       "check</code> makes a list without them.</p>\n<div class=\"scroll\"><table><tr><th>file</th>"
                       "<th>times</th><th>reason</th><th>message</th></tr>\n");
    for (int64_t i = 0; i < run->bad_count && i < MOST_BAD_ROWS; i++) {
        const xkd_bad_file *bad = &run->bad[i];
        xkd_text_puts(out, "<tr><td>");
        xkd_page_text(out, bad->path, "");
        xkd_text_printf(out, "</td><td class=\"number\">%" PRId64 "</td><td>", bad->times);
        xkd_page_text(out, bad->reason, "");
        xkd_text_puts(out, "</td><td>");
        xkd_page_text(out, bad->message, "");
        xkd_text_puts(out, "</td></tr>\n");
    }
    xkd_text_puts(out, "</table></div>\n");
    if (run->bad_count > MOST_BAD_ROWS)
        xkd_text_printf(out, "<p class=\"soft\">and %" PRId64 " more in bad_clips.jsonl</p>\n",
                        run->bad_count - MOST_BAD_ROWS);
}

/* ---- configuration ---- */

/* The value of `key` in lines "key: value"; NULL where it is not there. *length: of the value. */
static const char *value_in(const char *lines, const char *key, size_t key_length, size_t *length)
{
    for (const char *line = lines; *line;) {
        size_t n = strcspn(line, "\n");
        if (n > key_length + 2 && strncmp(line, key, key_length) == 0 && strncmp(line + key_length, ": ", 2) == 0) {
            *length = n - key_length - 2;
            return line + key_length + 2;
        }
        line += n + (line[n] == '\n');
    }
    return NULL;
}

static void add_part(xkd_text *out, const char *text, size_t length)
{
    xkd_text part = xkd_text_make(out->cx);
    xkd_text_add(&part, text, (int64_t)length);
    if (part.status != XKD_OK) out->status = part.status;
    if (part.data) xkd_page_text(out, part.data, "");
    xkd_text_free(&part);
}

/* changed [count]: what each run has other than the defaults; back [count]: the defaults of the same keys. A key that all runs
 * have alike is no row where there are several. */
static void add_rows(xkd_text *out, char *const *changed, char *const *back, int64_t count)
{
    for (int i = 0; i < xkd_option_count(); i++) {
        const char *key = xkd_option_at(i)->key, *standard = NULL, *first = NULL;
        size_t key_length = strlen(key), length = 0, standard_length = 0, first_length = 0;
        bool differs = count == 1;
        for (int64_t r = 0; r < count && !standard; r++)
            standard = value_in(back[r], key, key_length, &standard_length);
        if (!standard) continue;
        for (int64_t r = 0; r < count; r++) {
            const char *value = value_in(changed[r], key, key_length, &length);
            if (!value) {
                value = standard;
                length = standard_length;
            }
            if (r == 0) {
                first = value;
                first_length = length;
            }
            differs |= length != first_length || strncmp(value, first, length) != 0;
        }
        if (!differs) continue;
        xkd_text_printf(out, "<tr><td>%s</td>", key);
        for (int64_t r = 0; r < count; r++) {
            const char *value = value_in(changed[r], key, key_length, &length);
            xkd_text_puts(out, value ? "<td><mark>" : "<td>");
            add_part(out, value ? value : standard, value ? length : standard_length);
            xkd_text_puts(out, value ? "</mark></td>" : "</td>");
        }
        xkd_text_puts(out, "<td class=\"soft\">");
        add_part(out, standard, standard_length);
        xkd_text_puts(out, "</td></tr>\n");
    }
}

/* The whole file, with the lines marked that the defaults do not have: both texts have a line a key in one order. */
static xkd_status add_whole(xkd_context *cx, xkd_text *out, const xkd_run_files *run, const xkd_config *defaults)
{
    xkd_status status = XKD_OK;
    char *standard = NULL, *own = NULL;
    XKD_TRY(xkd_config_write(cx, defaults, &standard));
    XKD_TRY(xkd_config_write(cx, &run->config, &own));
    const char *text = run->config_known ? own : run->config_text, *other = standard;
    xkd_text_puts(out, "<details><summary>whole configuration</summary><pre>");
    while (*text) {
        size_t n = strcspn(text, "\n"), m = strcspn(other, "\n");
        bool marked = run->config_known && (n != m || strncmp(text, other, n) != 0);
        xkd_text_puts(out, marked ? "<mark>" : "");
        add_part(out, text, n);
        xkd_text_puts(out, marked ? "</mark>\n" : "\n");
        text += n + (text[n] == '\n');
        other += m + (other[m] == '\n');
    }
    xkd_text_puts(out, "</pre></details>\n");
fail:
    xkd_free(standard);
    xkd_free(own);
    return status;
}

xkd_status xkd_parts_config(xkd_context *cx, xkd_text *out, const xkd_run_files *runs, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_config defaults = {0};
    char **changed = NULL, **back = NULL;
    XKD_TRY(xkd_config_init(cx, &defaults));
    XKD_TRY(xkd_alloc(cx, &changed, count, sizeof *changed));
    XKD_TRY(xkd_alloc(cx, &back, count, sizeof *back));
    for (int64_t r = 0; r < count; r++) {
        XKD_TRY(xkd_config_write_changed(cx, &runs[r].config, &defaults, &changed[r]));
        XKD_TRY(xkd_config_write_changed(cx, &defaults, &runs[r].config, &back[r]));
    }
    xkd_text_printf(out, "<h2>%s</h2>\n<div class=\"scroll\"><table><tr><th>key</th>",
                    count == 1 ? "Configuration" : "What the configurations differ in");
    for (int64_t r = 0; r < count; r++) {
        xkd_text_puts(out, "<th>");
        xkd_page_text(out, count == 1 ? "this run" : runs[r].folder, "");
        xkd_text_puts(out, "</th>");
    }
    xkd_text_puts(out, "<th>default</th></tr>\n");
    add_rows(out, changed, back, count);
    xkd_text_puts(out, "</table></div>\n");
    if (count > 1) xkd_text_puts(out, "<p class=\"soft\">Keys that are not listed are alike in all runs.</p>\n");
    for (int64_t r = 0; r < count; r++)
        if (!runs[r].config_known)
            xkd_text_puts(
                out, "<p class=\"soft\">A config.yaml is missing or of another version: it is not compared.</p>\n");
    if (count == 1) XKD_TRY(add_whole(cx, out, &runs[0], &defaults));
fail:
    for (int64_t r = 0; r < count; r++) {
        if (changed) xkd_free(changed[r]);
        if (back) xkd_free(back[r]);
    }
    xkd_free(changed);
    xkd_free(back);
    xkd_config_free(&defaults);
    return status;
}
