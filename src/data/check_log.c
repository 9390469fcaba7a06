/* JSON lines: the rows of a manifest with what was found added. The first line names the settings. */
#include "data/check_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/identity.h"
#include "data/manifest_rows.h"

static const int64_t MOST_BYTES = (int64_t)4 << 30;

struct xkd_check_log {
    xkd_context *cx;
    char *path;
    int fd, lock;
};

/* Samples by path. */
typedef struct {
    const char *path;
    int64_t index;
} named;

static int by_path(const void *a, const void *b)
{
    return strcmp(((const named *)a)->path, ((const named *)b)->path);
}

/* Of the file as it lies there now: a hash in the manifest may be of another day. */
static xkd_status identity_of(xkd_context *cx, const xkd_manifest *m, int64_t i, char out[17])
{
    xkd_sample bare = m->samples[i];
    uint64_t identity;
    bare.hash[0] = 0;
    xkd_status status = xkd_sample_identity(cx, m, &bare, &identity);
    snprintf(out, 17, "%016" PRIx64, identity);
    return status;
}

/* One line of an earlier sitting. What it says is taken or not; a line that is torn says nothing. */
static xkd_status take_line(xkd_context *cx, const char *path, const json_t *row, const named *names, xkd_manifest *m,
                            xkd_finding *findings, bool *done, int64_t *found)
{
    xkd_status status = XKD_OK;
    xkd_manifest one = {0};
    const json_t *check = json_object_get(row, "check");
    const char *identity = json_string_value(json_object_get(check, "identity")),
               *message = json_string_value(json_object_get(check, "message"));
    char now[17];
    if (!identity || !message) return XKD_OK;
    status = xkd_manifest_add_json(cx, &one, path, 0, row);
    if (status == XKD_ERR_DATA) {
        xkd_clear_error(cx);
        status = XKD_OK;
        goto fail;
    }
    XKD_TRY(status);
    const named key = {.path = one.samples[0].path};
    const named *at = bsearch(&key, names, (size_t)m->count, sizeof *names, by_path);
    if (!at || done[at->index]) goto fail;
    int64_t i = at->index;
    XKD_TRY(identity_of(cx, m, i, now));
    if (strcmp(now, identity) != 0) goto fail;
    xkd_sample_take_facts(&m->samples[i], &one.samples[0]);
    findings[i] = (xkd_finding){.fault = (xkd_media_fault)json_integer_value(json_object_get(check, "fault")),
                                .seconds = json_number_value(json_object_get(check, "seconds"))};
    snprintf(findings[i].message, sizeof findings[i].message, "%s", message);
    const char *note = json_string_value(json_object_get(check, "note"));
    snprintf(findings[i].note, sizeof findings[i].note, "%s", note ? note : "");
    done[i] = true;
    ++*found;
fail:
    xkd_manifest_free(&one);
    return status;
}

/* All lines of these settings; *same is false where the first line names others, or there is none. */
static xkd_status read_lines(xkd_context *cx, const char *path, const char *settings, xkd_manifest *m,
                             xkd_finding *findings, bool *done, int64_t *found, bool *same)
{
    xkd_status status = XKD_OK;
    char *text = NULL;
    named *names = NULL;
    int64_t size;
    *same = false;
    XKD_TRY(xkd_read_file(cx, path, MOST_BYTES, XKD_ERR_DATA, &text, &size));
    XKD_TRY(xkd_alloc(cx, &names, m->count, sizeof *names));
    for (int64_t i = 0; i < m->count; i++) names[i] = (named){m->samples[i].path, i};
    qsort(names, (size_t)m->count, sizeof *names, by_path);
    for (char *line = text, *end = text + size; line < end;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) break; /* torn by the end of the sitting */
        json_t *row = json_loadb(line, (size_t)(stop - line), JSON_REJECT_DUPLICATES, NULL);
        const char *of = json_string_value(json_object_get(row, "xkd_check_log"));
        if (line == text) *same = of && strcmp(of, settings) == 0;
        if (*same && row && line != text) status = take_line(cx, path, row, names, m, findings, done, found);
        json_decref(row);
        XKD_TRY(status);
        if (!*same) break;
        line = stop + 1;
    }
fail:
    xkd_free(text);
    xkd_free(names);
    return status;
}

xkd_status xkd_check_log_open(xkd_context *cx, const char *path, uint64_t settings, xkd_manifest *m,
                              xkd_finding *findings, bool *done, int64_t *found, xkd_check_log **out)
{
    xkd_status status = XKD_OK;
    xkd_check_log *log = NULL;
    char text[17], head[64];
    bool same;
    *out = NULL;
    *found = 0;
    snprintf(text, sizeof text, "%016" PRIx64, settings);
    XKD_TRY(xkd_alloc(cx, &log, 1, sizeof *log));
    *log = (xkd_check_log){.cx = cx, .fd = -1, .lock = -1};
    XKD_TRY(xkd_copy_string(cx, &log->path, path));
    XKD_TRY(xkd_lock_file(cx, path, &log->lock));
    XKD_TRY(read_lines(cx, path, text, m, findings, done, found, &same));
    /* Findings of other settings are no use, and cost what they cost to find again. */
    if (!same && ftruncate(log->lock, 0) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot empty", path);
    XKD_TRY(xkd_append_open(cx, path, &log->fd));
    int length = snprintf(head, sizeof head, "%s{\"xkd_check_log\":\"%s\"}\n", same ? "\n" : "", text);
    /* A line end in front of what follows a torn line. */
    XKD_TRY(xkd_append(cx, log->fd, path, head, same ? 1 : length));
    *out = log;
    log = NULL;
fail:
    xkd_check_log_close(log, false);
    return status;
}

xkd_status xkd_check_log_add(xkd_check_log *log, xkd_context *cx, const xkd_manifest *m, int64_t i,
                             const xkd_finding *f)
{
    xkd_status status = XKD_OK;
    json_t *row = NULL;
    char identity[17], *text = NULL, *line = NULL;
    XKD_TRY(identity_of(cx, m, i, identity));
    XKD_TRY(xkd_sample_to_json(cx, &m->samples[i], &row));
    json_t *message = json_string(f->message);
    json_object_set_new(row, "check",
                        json_pack("{s:s,s:i,s:f,s:s,s:o}", "identity", identity, "fault", (int)f->fault, "seconds",
                                  f->seconds, "note", f->note, "message", message ? message : json_string("?")));
    text = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", log->path);
    XKD_TRY(xkd_format_string(cx, &line, "%s\n", text));
    XKD_TRY(xkd_append(cx, log->fd, log->path, line, (int64_t)strlen(line)));
fail:
    json_decref(row);
    free(text);
    xkd_free(line);
    return status;
}

void xkd_check_log_close(xkd_check_log *log, bool finished)
{
    if (!log) return;
    if (finished) unlink(log->path);
    if (log->fd >= 0) close(log->fd);
    if (log->lock >= 0) close(log->lock);
    xkd_free(log->path);
    xkd_free(log);
}
