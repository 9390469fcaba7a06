/* Clips that could not be read: bad_clips.jsonl, counts, and the end of a run that has too many. */
#include "data/loader_parts.h"

#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "data/check.h"
#include "data/json_name.h"

static const int64_t MOST_LOG_BYTES = (int64_t)1 << 30; /* of bad_clips.jsonl */

/* Keeps the lines of bad_clips.jsonl in front of a place: what lies behind it will be met again. A torn last line goes as
 * well. The file is replaced in one step. */
xkd_status xkd_loader_cut_log(xkd_loader *l, uint32_t epoch, int64_t step)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    xkd_text kept = xkd_text_make(cx);
    char *text = NULL;
    int64_t size;
    if (l->log_fd < 0) return XKD_OK;
    status = xkd_read_file(cx, l->log_path, MOST_LOG_BYTES, XKD_ERR_DATA, &text, &size);
    if (status == XKD_ERR_DATA || status == XKD_ERR_STORAGE) {
        /* A log is no reason not to go on. */
        xkd_log(cx, XKD_LOG_WARN, "bad_clips.jsonl is not cut back: %s", xkd_last_error(cx));
        xkd_clear_error(cx);
        status = XKD_OK;
        goto fail;
    }
    XKD_TRY(status);
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const json_t *e = json_object_get(o, "epoch"), *s = json_object_get(o, "step");
        bool before =
            json_is_integer(e) && json_is_integer(s) &&
            (json_integer_value(e) < epoch || (json_integer_value(e) == epoch && json_integer_value(s) < step));
        json_decref(o);
        if (before) xkd_text_add(&kept, line, end + 1 - line);
    }
    XKD_TRY(kept.status);
    if (kept.size == size) goto fail;
    close(l->log_fd);
    l->log_fd = -1;
    XKD_TRY(xkd_write_file(cx, l->log_path, kept.data, kept.size));
    XKD_TRY(xkd_append_open(cx, l->log_path, &l->log_fd));
fail:
    xkd_text_free(&kept);
    xkd_free(text);
    return status;
}

/* One line of bad_clips.jsonl.
 * JSON Lines, one write a line, so that a killed run leaves whole lines. */
static xkd_status write_failure(xkd_loader *l, const xkd_loader_news *n)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    if (l->log_fd < 0) return XKD_OK;
    const xkd_loader_failure *f = &n->failure;
    json_t *line =
        json_pack("{s:I,s:I,s:I,s:I,s:s}", "epoch", (json_int_t)n->epoch, "step", (json_int_t)n->step, "sample",
                  (json_int_t)n->sample, "file", (json_int_t)f->sample, "reason", xkd_media_fault_name(f->fault));
    json_t *path = NULL, *message = json_string(f->message);
    status = xkd_json_name(cx, l->manifest.samples[f->sample].path, &path);
    if (path) json_object_set_new(line, "path", path);
    if (message) json_object_set_new(line, "message", message);
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    XKD_TRY(status);
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while writing bad_clips.jsonl");
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the final 0: one write per line */
    status = xkd_append(cx, l->log_fd, l->log_path, text, (int64_t)length + 1);
fail:
    free(text);
    return status;
}

/* From the log and not from this call's statistics: a run that is resumed does not read earlier epochs again. */
xkd_status xkd_loader_bad_files(xkd_loader *l, int64_t *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    char *text = NULL;
    uint8_t *seen = NULL;
    int64_t size;
    *out = 0;
    if (!l->log_path || !xkd_path_exists(l->log_path)) return XKD_OK;
    XKD_TRY(xkd_read_file(cx, l->log_path, MOST_LOG_BYTES, XKD_ERR_DATA, &text, &size));
    XKD_TRY(xkd_alloc(cx, &seen, l->manifest.count, 1));
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const json_t *number = json_object_get(o, "file");
        int64_t file = json_is_integer(number) ? json_integer_value(number) : -1;
        json_decref(o);
        /* Lines that a crash tore say nothing. */
        if (file < 0 || file >= l->manifest.count) continue;
        *out += !seen[file];
        seen[file] = 1;
    }
fail:
    xkd_free(seen);
    xkd_free(text);
    return status;
}

/* Only the first fault of a file is told in the log; all are in bad_clips.jsonl. The limit counts
 * files, not clips, so it does not depend on the length of the run. */
static xkd_status report_failure(xkd_loader *l, const xkd_loader_news *n)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    const xkd_loader_failure *f = &n->failure;
    const char *path = l->manifest.samples[f->sample].path;
    if (f->dropped) {
        l->stats.dropped_files += !l->dropped[f->sample];
        l->dropped[f->sample] = 1;
        return XKD_OK;
    }
    /* Once a file, or a long run would fill the log. */
    if (!l->bad[f->sample]) xkd_log(cx, XKD_LOG_WARN, "%s: %s: %s", path, xkd_media_fault_name(f->fault), f->message);
    l->stats.bad_clips++;
    l->stats.bad_files += !l->bad[f->sample];
    l->bad[f->sample] = 1;
    XKD_TRY(write_failure(l, n));
    if (l->stats.bad_files > xkd_most_broken(l->data->max_bad_fraction, l->manifest.count))
        XKD_FAIL(XKD_ERR_DATA,
                 "%lld of %lld files cannot be read, more than data.max_bad_fraction allows; the last one is %s: %s "
                 "(run `xkd data check`)",
                 (long long)l->stats.bad_files, (long long)l->manifest.count, path, f->message);
fail:
    return status;
}

/* In order of places and tries, which makes log and statistics reproducible. Of several ranks all report all, once they
 * have told each other: the end of a run is decided by all alike. */
xkd_status xkd_loader_report(xkd_loader *l, const xkd_loader_slot *s)
{
    xkd_status status = XKD_OK;
    const xkd_batch *b = &s->batch;
    for (int64_t i = 0; i < b->count; i++) {
        l->stats.silent_clips += s->silent[i];
        for (int64_t k = 0; k < s->tries[i]; k++) {
            const xkd_loader_news n = {.epoch = b->epoch,
                                       .step = b->step,
                                       .sample = b->sample[i],
                                       .failure = s->failures[i * XKD_LOADER_TRIES + k]};
            if (l->sampler.world == 1) {
                XKD_TRY(report_failure(l, &n));
                continue;
            }
            XKD_TRY(xkd_reserve(l->cx, &l->news, l->news_count, &l->news_capacity, sizeof *l->news));
            l->news[l->news_count++] = n;
        }
    }
    l->stats.clips += b->count;
fail:
    return status;
}

xkd_status xkd_loader_share(xkd_loader *l, xkd_dist *dist)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = l->cx;
    int64_t *sizes = NULL, bytes = 0;
    xkd_loader_news *all = NULL;
    if (!dist) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &sizes, xkd_dist_size(dist), sizeof *sizes));
    XKD_TRY(xkd_dist_gather_sized(dist, (void **)&all, sizes, l->news, l->news_count * (int64_t)sizeof *l->news));
    l->news_count = 0;
    for (int r = 0; r < xkd_dist_size(dist); r++) bytes += sizes[r];
    for (int64_t i = 0; i < bytes / (int64_t)sizeof *all; i++) {
        if (all[i].failure.sample < 0 || all[i].failure.sample >= l->manifest.count)
            XKD_FAIL(XKD_ERR_INTERNAL, "a rank reports file %lld of %lld", (long long)all[i].failure.sample,
                     (long long)l->manifest.count);
        XKD_TRY(report_failure(l, &all[i]));
    }
fail:
    xkd_free(all);
    xkd_free(sizes);
    return status;
}
