/* Text and Markdown are two drawings of one table of strings; JSON has the numbers themselves. */
#include "eval_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* Rows: 16 folds, honest, best and 4 models of the paper. */
enum { CELLS = 3, CELL = 24, NOTE = 160, MOST_ROWS = 32 };

/* One line of the table; text and Markdown draw the same ones. Labels and cells are cut to these lengths, which no row
 * of the table reaches. */
struct row {
    char label[48], cell[CELLS][CELL], note[NOTE];
};

struct table {
    const char *head[CELLS];
    int columns, rows;
    struct row row[MOST_ROWS];
};

static int64_t folds_of(const xkd_benchmark *b) /* a set without folds is one */
{
    return b->folds ? b->folds : 1;
}

static bool fold_is_whole(const xkd_fold_result *f)
{
    return xkd_import_is_whole(&f->imported) && f->unreadable[0] == 0 && f->unreadable[1] == 0;
}

/* Complete: every fold, and every file of the official set in the figures. Those of a part are never shown without this
 * being said. */
bool eval_is_complete(const struct eval_report *r)
{
    bool complete = r->count == folds_of(r->benchmark);
    for (int64_t i = 0; i < r->count; i++) complete &= fold_is_whole(&r->folds[i]);
    return complete;
}

/* "66.67", "66.67 +- 1.20" over folds, "-" where there is no figure. snprintf cuts rather than overflows; no figure
 * has 24 characters. */
static void put_figure(char out[CELL], double mean, double deviation, int64_t folds)
{
    if (isnan(mean))
        snprintf(out, CELL, "-");
    else if (folds > 1)
        snprintf(out, CELL, "%.2f +- %.2f", mean, deviation);
    else
        snprintf(out, CELL, "%.2f", mean);
}

/* The figures of a kind of data set in the order of the head. */
static void put_figures(const xkd_benchmark *b, struct row *row, const xkd_figures *mean, const xkd_figures *deviation,
                        int64_t folds)
{
    if (b->multi) {
        put_figure(row->cell[0], mean->map, deviation->map, folds);
        return;
    }
    put_figure(row->cell[0], mean->top1, deviation->top1, folds);
    put_figure(row->cell[1], mean->top5, deviation->top5, folds);
    put_figure(row->cell[2], mean->clip_top1, deviation->clip_top1, folds);
}

/* A fold by itself has no deviation; the interval is over its test videos. */
static void add_fold(const struct eval_report *r, const xkd_fold_result *f, struct row *row)
{
    const xkd_figures none = {0};
    /* A whole set has no number. */
    if (f->fold)
        snprintf(row->label, sizeof row->label, "fold %" PRId64, f->fold);
    else
        snprintf(row->label, sizeof row->label, "whole set");
    put_figures(r->benchmark, row, &f->honest, &none, 1);
    /* `at` is what was chosen: a C, or an epoch. */
    int at = snprintf(row->note, NOTE, "%s %g", r->benchmark->task == XKD_BENCHMARK_SVM ? "C" : "epoch", f->honest.at);
    if (!isnan(f->interval[0]))
        at += snprintf(row->note + at, NOTE - (size_t)at, ", 95 %% interval %.2f to %.2f", f->interval[0],
                       f->interval[1]);
    if (f->unreadable[0] < 0)
        at += snprintf(row->note + at, NOTE - (size_t)at, ", ? + %" PRId64 " files unreadable", f->unreadable[1]);
    else if (f->unreadable[0] + f->unreadable[1])
        at += snprintf(row->note + at, NOTE - (size_t)at, ", %" PRId64 " + %" PRId64 " files unreadable",
                       f->unreadable[0], f->unreadable[1]);
    if (f->damaged[0] + f->damaged[1])
        snprintf(row->note + at, NOTE - (size_t)at, ", %" PRId64 " + %" PRId64 " clips damaged", f->damaged[0],
                 f->damaged[1]);
}

/* Fold by fold, then the row of the table beside what the release would report, then the paper's. */
static void make_table(const struct eval_report *r, struct table *t)
{
    const xkd_benchmark *b = r->benchmark;
    bool svm = b->task == XKD_BENCHMARK_SVM;
    /* Mean average precision has one column only. */
    *t = (struct table){.head = {b->multi ? "mAP" : "top-1", "top-5", "clip top-1"}, .columns = b->multi ? 1 : CELLS};
    for (int64_t i = 0; i < r->count; i++) add_fold(r, &r->folds[i], &t->row[t->rows++]);
    /* honest before best: it is the figure to compare with. */
    for (int best = 0; best < 2; best++) {
        struct row *row = &t->row[t->rows++];
        xkd_fold_mean m = xkd_fold_results_mean(r->folds, r->count, best);
        if (best)
            snprintf(row->label, sizeof row->label, "best, as released");
        else if (b->folds)
            snprintf(row->label, sizeof row->label, "honest, %" PRId64 " of %" PRId64 " folds", r->count, b->folds);
        else
            snprintf(row->label, sizeof row->label, "honest");
        put_figures(b, row, &m.mean, &m.deviation, r->count);
        snprintf(row->note, NOTE, "%s",
                 best  ? svm ? "C chosen on the test split" : "epoch chosen on the test split"
                 : svm ? "C by cross-validation on the training split"
                       : "last epoch");
    }
    for (int i = 0; i < XKD_PAPER_MODELS; i++) {
        if (b->paper[i] == 0) continue; /* not reported */
        struct row *row = &t->row[t->rows++];
        snprintf(row->label, sizeof row->label, "paper, %s", xkd_paper_model(i));
        snprintf(row->cell[0], CELL, "%.1f", b->paper[i]);
        /* Top-5 is known of the first model alone. */
        if (i == 0 && b->paper_top5 > 0) snprintf(row->cell[1], CELL, "%.1f", b->paper_top5);
    }
}

/* "fold 2: not the whole data set: 15 of 13320 files, 3 of 101 classes". */
static void say_part(xkd_text *out, const xkd_fold_result *f)
{
    const xkd_import_counts *c = &f->imported;
    const char *comma = "";
    const struct {
        int64_t part, whole;
        bool wrong;
        const char *what;
    } parts[] = {{c->files, c->official_files, c->files != c->official_files, "files"},
                 {c->tests, c->official_tests, c->tests != c->official_tests, "listed for testing"},
                 {c->classes, c->official_classes, c->classes != c->official_classes, "classes"},
                 {c->missing, c->listed, c->missing > 0, "listed files are absent"},
                 {f->unreadable[0], f->files[0], f->unreadable[0] > 0, "training files are unreadable"},
                 {f->unreadable[1], f->files[1], f->unreadable[1] > 0, "test files are unreadable"}};
    if (f->fold) xkd_text_printf(out, "fold %" PRId64 ": ", f->fold);
    xkd_text_puts(out, "not the whole data set: ");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        /* A whole of 0 is an official number that is not known. */
        if (!parts[i].whole || !parts[i].wrong) continue;
        xkd_text_printf(out, "%s%" PRId64 " of %" PRId64 " %s", comma, parts[i].part, parts[i].whole, parts[i].what);
        comma = ", ";
    }
    if (xkd_import_is_unlisted(c)) {
        xkd_text_printf(out, "%sno list: not known what is absent", comma);
        comma = ", ";
    }
    if (f->unreadable[0] < 0) xkd_text_printf(out, "%show many training files are unreadable is unknown", comma);
    xkd_text_puts(out, "\n");
}

/* What must not be overlooked: figures of a part are no figures of the whole. */
static void say_incomplete(xkd_text *out, const struct eval_report *r)
{
    if (r->count < folds_of(r->benchmark))
        xkd_text_printf(out, "not all folds: %" PRId64 " of %" PRId64 "\n", r->count, r->benchmark->folds);
    for (int64_t i = 0; i < r->count; i++)
        if (!fold_is_whole(&r->folds[i])) say_part(out, &r->folds[i]);
}

/* Cells are padded; what is empty at the end of a line is cut. */
static void end_line(xkd_text *out)
{
    while (out->status == XKD_OK && out->size && out->data[out->size - 1] == ' ') out->data[--out->size] = 0;
    xkd_text_puts(out, "\n");
}

/* Printed in one piece, or not at all. */
static xkd_status print_and_free(xkd_text *out)
{
    xkd_status status = out->status;
    if (status == XKD_OK) fputs(out->data, stdout);
    xkd_text_free(out);
    return status;
}

/* Numbers line up under their heads; the note has no limit on its width. */
xkd_status eval_print_text(struct cli *cli, const struct eval_report *r)
{
    xkd_text out = xkd_text_make(cli->cx);
    struct table t;
    make_table(r, &t);
    xkd_text_printf(&out, "%s: %s, %s, percent\n%-22s", r->benchmark->name, r->benchmark->set,
                    xkd_benchmark_task_text(r->benchmark->task), "");
    for (int c = 0; c < t.columns; c++) xkd_text_printf(&out, "  %-15s", t.head[c]);
    end_line(&out);
    for (int i = 0; i < t.rows; i++) {
        xkd_text_printf(&out, "%-22s", t.row[i].label);
        for (int c = 0; c < t.columns; c++) xkd_text_printf(&out, "  %-15s", t.row[i].cell[c]);
        xkd_text_printf(&out, "  %s", t.row[i].note);
        end_line(&out);
    }
    say_incomplete(&out, r);
    return print_and_free(&out);
}

/* For papers and issues: the same cells between bars. */
xkd_status eval_print_markdown(struct cli *cli, const struct eval_report *r)
{
    xkd_text out = xkd_text_make(cli->cx);
    struct table t;
    make_table(r, &t);
    xkd_text_printf(&out, "| %s |", r->benchmark->name);
    for (int c = 0; c < t.columns; c++) xkd_text_printf(&out, " %s |", t.head[c]);
    xkd_text_puts(&out, " |\n|---|");
    for (int c = 0; c < t.columns; c++) xkd_text_puts(&out, "---|");
    xkd_text_puts(&out, "---|\n");
    for (int i = 0; i < t.rows; i++) {
        xkd_text_printf(&out, "| %s |", t.row[i].label);
        for (int c = 0; c < t.columns; c++) xkd_text_printf(&out, " %s |", t.row[i].cell[c]);
        xkd_text_printf(&out, " %s |\n", t.row[i].note);
    }
    /* A paragraph of its own, or it would become part of the table. */
    if (!eval_is_complete(r)) xkd_text_puts(&out, "\n");
    say_incomplete(&out, r);
    return print_and_free(&out);
}

/* ---- JSON ---- */

/* Both moments of every figure; null where the task has none. */
static void mean_json(xkd_text *out, const struct eval_report *r, bool best)
{
    xkd_fold_mean m = xkd_fold_results_mean(r->folds, r->count, best);
    const struct {
        const char *key;
        double mean, deviation;
    } figures[] = {{"top1", m.mean.top1, m.deviation.top1},
                   {"top5", m.mean.top5, m.deviation.top5},
                   {"clip_top1", m.mean.clip_top1, m.deviation.clip_top1},
                   {"map", m.mean.map, m.deviation.map}};
    xkd_text_printf(out, ", \"%s\": {", best ? "best" : "honest");
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        xkd_text_printf(out, "%s\"%s\": {\"mean\": ", i ? ", " : "", figures[i].key);
        xkd_text_json_number(out, figures[i].mean);
        xkd_text_puts(out, ", \"std\": ");
        xkd_text_json_number(out, figures[i].deviation);
        xkd_text_puts(out, "}");
    }
    xkd_text_puts(out, "}");
}

xkd_status eval_print_json(struct cli *cli, const struct eval_report *r)
{
    xkd_text out = xkd_text_make(cli->cx);
    const xkd_benchmark *b = r->benchmark;
    xkd_text_printf(&out, "{\"evaluation\": \"%s\", \"set\": \"%s\", \"data\": ", b->name, b->set);
    xkd_text_json_string(&out, r->data);
    xkd_text_puts(&out, ", \"model\": ");
    xkd_text_json_string(&out, r->model);
    xkd_text_printf(&out, ", \"complete\": %s, \"folds_of_set\": %" PRId64, eval_is_complete(r) ? "true" : "false",
                    b->folds);
    mean_json(&out, r, false);
    mean_json(&out, r, true);
    xkd_text_puts(&out, ", \"paper\": {");
    for (int i = 0, n = 0; i < XKD_PAPER_MODELS; i++)
        if (b->paper[i] > 0) xkd_text_printf(&out, "%s\"%s\": %.1f", n++ ? ", " : "", xkd_paper_model(i), b->paper[i]);
    xkd_text_puts(&out, "}, \"folds\": [");
    /* Every fold by itself, in the form in which its result.json holds it. */
    for (int64_t i = 0; i < r->count; i++) {
        if (i) xkd_text_puts(&out, ", ");
        xkd_fold_result_json(&out, &r->folds[i]);
    }
    xkd_text_puts(&out, "]}\n");
    return print_and_free(&out);
}

/* The rows in the order of the table; the paper's figures are those of XKD on Kinetics400. */
void eval_print_list(void)
{
    printf("%-26s %-15s %-5s  %-40s %s\n", "evaluation", "data set", "folds", "task", "paper, XKD");
    for (int64_t i = 0; i < xkd_benchmark_count(); i++) {
        const xkd_benchmark *b = xkd_benchmark_at(i);
        printf("%-26s %-15s %5" PRId64 "  %-40s %.1f%s\n", b->name, b->set, folds_of(b),
               xkd_benchmark_task_text(b->task), b->paper[0], b->multi ? " mAP" : "");
    }
}
