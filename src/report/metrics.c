/* What a run writes while it lasts: JSON lines and CSV for every step, JSON lines for every epoch, a
 * log for people, TensorBoard events and pictures. Every line is one append, so another process may
 * follow the files and a kill costs one line at most. */
#include "report/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "report/png.h"
#include "report/tensorboard.h"

/* The log alone is never cut: it tells what happened, also in steps that were done again. */
enum { JSONL, CSV, EPOCHS, LOG, FILES };
static const char *const file_names[FILES] = {"metrics.jsonl", "metrics.csv", "epochs.jsonl", "train.log"};

struct xkd_metrics {
    xkd_context *cx;
    char *folder, *pictures;
    const char *const *columns; /* names in order of the values, the caller's */
    int64_t count;
    char *path[FILES];      /* owned */
    int fd[FILES];          /* -1: not open */
    xkd_tensorboard *board; /* NULL: not wanted */
    xkd_text line;          /* built here, reused from line to line */
};

/* Step number at the start of a line of our JSONL or CSV, -1 for other lines (the CSV's header).
 * Both formats begin with the step, so a line need not be parsed. */
static int64_t line_step(const char *line)
{
    static const char json[] = "{\"step\": ";
    if (strncmp(line, json, sizeof json - 1) == 0) line += sizeof json - 1;
    char *end;
    long long step = strtoll(line, &end, 10);
    return end > line ? step : -1;
}

/* Keeps the lines up to `step`; a last line that was cut off by a crash goes as well.
 * The file is replaced in one step. */
static xkd_status truncate_to_step(xkd_context *cx, const char *path, int64_t step)
{
    xkd_status status = XKD_OK;
    xkd_map map = {0};
    xkd_text kept = xkd_text_make(cx);
    if (!xkd_path_exists(path)) return XKD_OK;
    XKD_TRY(xkd_map_file(cx, path, &map));
    for (int64_t at = 0; at < map.size;) {
        const char *line = (const char *)map.base + at;
        const char *end = memchr(line, '\n', (size_t)(map.size - at));
        if (!end) break;
        /* Long enough for both beginnings and a step of 20 digits. */
        char start[64] = {0}; /* the map has no terminating 0 */
        int64_t length = end + 1 - line;
        memcpy(start, line, (size_t)(length < 63 ? length : 63));
        if (line_step(start) <= step) xkd_text_add(&kept, line, length);
        at += length;
    }
    XKD_TRY(kept.status);
    if (kept.size != map.size) XKD_TRY(xkd_write_file(cx, path, kept.data, kept.size));
fail:
    xkd_text_free(&kept);
    xkd_unmap(&map);
    return status;
}

/* Opens the four files, cut back or emptied, and writes the CSV's heading where it has none.
 * A resumed run goes on in the same files. */
static xkd_status open_files(xkd_metrics *m, int64_t resume_step)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = m->cx;
    for (int f = 0; f < FILES; f++) {
        XKD_TRY(xkd_join_path(cx, &m->path[f], m->folder, file_names[f]));
        /* A new run empties what a former one with --force left. */
        if (resume_step < 0) XKD_TRY(xkd_write_file(cx, m->path[f], NULL, 0));
        /* Steps behind the checkpoint will be done and written again. */
        if (resume_step >= 0 && f != LOG) XKD_TRY(truncate_to_step(cx, m->path[f], resume_step));
        XKD_TRY(xkd_append_open(cx, m->path[f], &m->fd[f]));
        /* A resumed run's CSV has its heading. */
        if (f != CSV || lseek(m->fd[f], 0, SEEK_END) > 0) continue;
        xkd_text_puts(&m->line, "step,epoch");
        for (int64_t i = 0; i < m->count; i++) xkd_text_printf(&m->line, ",%s", m->columns[i]);
        xkd_text_puts(&m->line, "\n");
        XKD_TRY(m->line.status);
        XKD_TRY(xkd_append(cx, m->fd[f], m->path[f], m->line.data, m->line.size));
    }
fail:
    return status;
}

/* resume_step -1: a new run. columns must outlive the metrics. */
xkd_status xkd_metrics_open(xkd_context *cx, const char *folder, const char *const *columns, int64_t count,
                            int64_t resume_step, int64_t epochs, bool tensorboard, xkd_metrics **out)
{
    xkd_status status = XKD_OK;
    xkd_metrics *m = NULL;
    char *events = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &m, 1, sizeof *m));
    *m = (xkd_metrics){.cx = cx, .columns = columns, .count = count, .fd = {-1, -1, -1, -1}, .line = xkd_text_make(cx)};
    XKD_TRY(xkd_copy_string(cx, &m->folder, folder));
    XKD_TRY(xkd_join_path(cx, &m->pictures, folder, "pictures"));
    XKD_TRY(xkd_make_folder(cx, m->pictures));
    XKD_TRY(open_files(m, resume_step));
    if (tensorboard) {
        XKD_TRY(xkd_join_path(cx, &events, folder, "tensorboard"));
        XKD_TRY(xkd_make_folder(cx, events));
        XKD_TRY(xkd_tensorboard_open(cx, events, resume_step >= 0 ? resume_step + 1 : 0, epochs, &m->board));
    }
    *out = m;
    m = NULL;
fail:
    xkd_free(events);
    xkd_metrics_close(m);
    return status;
}

/* NULL does nothing; everything is on disk already. */
void xkd_metrics_close(xkd_metrics *m)
{
    if (!m) return;
    for (int f = 0; f < FILES; f++) {
        if (m->fd[f] >= 0) close(m->fd[f]);
        xkd_free(m->path[f]);
    }
    xkd_tensorboard_close(m->board);
    xkd_text_free(&m->line);
    xkd_free(m->pictures);
    xkd_free(m->folder);
    xkd_free(m);
}

/* A whole line in one write: a crash tears at most the last one, and resume drops that. */
static xkd_status write_line(xkd_metrics *m, int file)
{
    if (m->line.status != XKD_OK) return m->line.status;
    return xkd_append(m->cx, m->fd[file], m->path[file], m->line.data, m->line.size);
}

/* JSON has no NaN: text helpers write null there, and nan in the CSV. TensorBoard gets the same
 * columns. */
xkd_status xkd_metrics_step(xkd_metrics *m, int64_t step, int64_t epoch, const double *values)
{
    if (!m) return XKD_OK;
    xkd_status status = XKD_OK;
    xkd_text *line = &m->line;
    xkd_text_clear(line);
    xkd_text_printf(line, "{\"step\": %lld, \"epoch\": %lld", (long long)step, (long long)epoch);
    for (int64_t i = 0; i < m->count; i++) {
        xkd_text_printf(line, ", \"%s\": ", m->columns[i]);
        xkd_text_json_number(line, values[i]);
    }
    xkd_text_puts(line, "}\n");
    XKD_TRY(write_line(m, JSONL));
    xkd_text_clear(line);
    xkd_text_printf(line, "%lld,%lld", (long long)step, (long long)epoch);
    for (int64_t i = 0; i < m->count; i++) {
        char number[32];
        xkd_format_double(number, sizeof number, values[i]);
        xkd_text_printf(line, ",%s", number);
    }
    xkd_text_puts(line, "\n");
    XKD_TRY(write_line(m, CSV));
    if (m->board) XKD_TRY(xkd_tensorboard_scalars(m->board, step, "pretext-iter", m->columns, values, m->count));
fail:
    return status;
}

/* step is that of the epoch's end, by which a resume cuts the file. */
xkd_status xkd_metrics_epoch(xkd_metrics *m, int64_t step, int64_t epoch, double seconds, double data_seconds,
                             double loss)
{
    if (!m) return XKD_OK;
    static const char *const names[] = {"Epochs", "Time", "Data", "Loss"};
    const double values[] = {(double)epoch, seconds, data_seconds, loss};
    xkd_status status = XKD_OK;
    xkd_text_clear(&m->line);
    xkd_text_printf(&m->line, "{\"step\": %lld", (long long)step);
    for (int i = 0; i < 4; i++) {
        xkd_text_printf(&m->line, ", \"%s\": ", names[i]);
        xkd_text_json_number(&m->line, values[i]);
    }
    xkd_text_puts(&m->line, "}\n");
    XKD_TRY(write_line(m, EPOCHS));
    if (m->board) XKD_TRY(xkd_tensorboard_scalars(m->board, epoch, "pretext-epoch", names, values, 4));
fail:
    return status;
}

xkd_status xkd_metrics_scalars(xkd_metrics *m, int64_t step, const char *prefix, const char *const *names,
                               const double *values, int64_t count)
{
    if (!m) return XKD_OK;
    return m->board ? xkd_tensorboard_scalars(m->board, step, prefix, names, values, count) : XKD_OK;
}

/* Cut at 1000 bytes. Also goes to the context's log, so it is seen without looking into the folder. */
xkd_status xkd_metrics_line(xkd_metrics *m, const char *format, ...)
{
    if (!m) return XKD_OK;
    char stamp[32], message[1000];
    time_t now = (time_t)xkd_wall_time();
    struct tm parts;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &parts));
    xkd_text_clear(&m->line);
    xkd_text_printf(&m->line, "%s %s\n", stamp, message);
    xkd_log(m->cx, XKD_LOG_INFO, "%s", message);
    return write_line(m, LOG);
}

/* NAME-STEP.png, with a step of fixed width. */
xkd_status xkd_metrics_picture(xkd_metrics *m, int64_t step, const char *name, const uint8_t *rgb, int64_t width,
                               int64_t height)
{
    if (!m) return XKD_OK;
    xkd_status status = XKD_OK;
    uint8_t *png = NULL;
    char *path = NULL;
    int64_t size = 0;
    XKD_TRY(xkd_png_encode(m->cx, rgb, width, height, &png, &size));
    XKD_TRY(xkd_format_string(m->cx, &path, "%s/%s-%08lld.png", m->pictures, name, (long long)step));
    XKD_TRY(xkd_write_file(m->cx, path, png, size));
    if (m->board) XKD_TRY(xkd_tensorboard_image(m->board, step, name, png, size, width, height));
fail:
    xkd_free(path);
    xkd_free(png);
    return status;
}
