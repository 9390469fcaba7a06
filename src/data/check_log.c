/* JSON lines: the rows of a manifest with what was found added. The first line of a log names the settings. */
#include "data/check_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/lines.h"
#include "base/text.h"
#include "data/identity.h"
#include "data/json_name.h"
#include "data/manifest_rows.h"

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

/* What lines are read into. */
typedef struct {
    xkd_context *cx;
    const char *path; /* of the log, for messages */
    xkd_manifest *m;
    xkd_finding *findings;
    xkd_check_known *known;
    named *names; /* [m->count] sorted */
    int64_t found;
} reading;

static int by_path(const void *a, const void *b)
{
    return strcmp(((const named *)a)->path, ((const named *)b)->path);
}

static xkd_status sort_names(reading *r)
{
    xkd_status status = xkd_alloc(r->cx, &r->names, r->m->count, sizeof *r->names);
    if (status != XKD_OK) return status;
    for (int64_t i = 0; i < r->m->count; i++) r->names[i] = (named){r->m->samples[i].path, i};
    qsort(r->names, (size_t)r->m->count, sizeof *r->names, by_path);
    return XKD_OK;
}

xkd_status xkd_check_identity(xkd_context *cx, const xkd_manifest *m, int64_t i, uint64_t *out)
{
    xkd_sample bare = m->samples[i];
    bare.hashed = XKD_HASH_NONE;
    return xkd_sample_identity(cx, m, &bare, out);
}

static xkd_status keep_text(reading *r, const json_t *text, const char **out)
{
    char *said = NULL;
    *out = "";
    xkd_status status = xkd_json_name_value(r->cx, text, &said);
    if (status == XKD_OK && said && *said)
        status = xkd_pieces_copy(r->cx, &r->m->pieces, said, (int64_t)strlen(said), out);
    xkd_free(said);
    return status;
}

/* What a row says of the file of sample i. */
static xkd_status take_finding(reading *r, const json_t *check, const xkd_sample *facts, int64_t i)
{
    xkd_status status = XKD_OK;
    xkd_finding *f = &r->findings[i];
    int64_t fault = json_integer_value(json_object_get(check, "fault"));
    if (fault < 0 || fault >= XKD_FAULT_COUNT) return XKD_OK;
    XKD_TRY(xkd_sample_take_facts(r->cx, r->m, &r->m->samples[i], facts));
    f->fault = (xkd_media_fault)fault;
    f->seconds = json_number_value(json_object_get(check, "seconds"));
    XKD_TRY(keep_text(r, json_object_get(check, "message"), &f->message));
    XKD_TRY(keep_text(r, json_object_get(check, "note"), &f->note));
    r->known->done[i] = true;
    r->known->identity[i] = strtoull(json_string_value(json_object_get(check, "identity")), NULL, 16);
    r->found++;
fail:
    return status;
}

/* One line. What it says is taken or not; a line that is torn says nothing. */
static xkd_status take_line(reading *r, const json_t *row)
{
    xkd_status status = XKD_OK;
    xkd_manifest one = {0};
    const json_t *check = json_object_get(row, "check");
    xkd_tick(); /* millions of lines are no standstill */
    if (!json_is_string(json_object_get(check, "identity")) || !json_object_get(check, "message")) return XKD_OK;
    status = xkd_manifest_add_json(r->cx, &one, r->path, 0, row);
    if (status == XKD_ERR_DATA) {
        xkd_clear_error(r->cx);
        status = XKD_OK;
        goto fail;
    }
    XKD_TRY(status);
    const named key = {.path = one.samples[0].path};
    const named *at = bsearch(&key, r->names, (size_t)r->m->count, sizeof *r->names, by_path);
    if (at && !r->known->done[at->index]) XKD_TRY(take_finding(r, check, &one.samples[0], at->index));
fail:
    xkd_manifest_free(&one);
    return status;
}

/* All lines of these settings; *same is false where the first line names others, or there is none. */
static xkd_status read_log(reading *r, const char *path, const char *settings, bool *same)
{
    xkd_status status = XKD_OK;
    xkd_line_reader lines;
    char *line;
    int64_t length;
    *same = false;
    r->path = path;
    XKD_TRY(xkd_line_reader_open(r->cx, path, XKD_MANIFEST_MOST_BYTES, XKD_ERR_DATA, &lines));
    for (bool first = true;; first = false) {
        XKD_TRY(xkd_line_reader_next(r->cx, &lines, &line, &length));
        if (!line || lines.torn) break; /* torn by the end of the sitting */
        json_t *row = json_loadb(line, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
        const char *of = json_string_value(json_object_get(row, "xkd_check_log"));
        if (first) *same = of && strcmp(of, settings) == 0;
        if (*same && row && !first) status = take_line(r, row);
        json_decref(row);
        XKD_TRY(status);
        if (!*same) break;
    }
fail:
    xkd_line_reader_close(&lines);
    return status;
}

static xkd_status path_of(xkd_context *cx, const char *path, int rank, char **out)
{
    return rank ? xkd_format_string(cx, out, "%s-%d", path, rank) : xkd_copy_string(cx, out, path);
}

/* Those of the other ranks, of whatever number of ranks: each was begun when its rank began. */
static xkd_status read_others(reading *r, const char *path, int own, const char *settings)
{
    xkd_status status = XKD_OK;
    char *other = NULL;
    bool same, more = true;
    for (int rank = 0; more && rank < XKD_MOST_RANKS; rank++) {
        if (rank == own) continue;
        xkd_free(other);
        XKD_TRY(path_of(r->cx, path, rank, &other));
        more = xkd_path_exists(other) || rank == 0;
        if (xkd_path_exists(other)) status = read_log(r, other, settings, &same);
        /* Its rank empties it just now where it is of other settings; what else cannot be read is found again. */
        if (status == XKD_ERR_STORAGE) {
            xkd_clear_error(r->cx);
            status = XKD_OK;
        }
        XKD_TRY(status);
    }
fail:
    xkd_free(other);
    return status;
}

xkd_status xkd_check_log_open(xkd_context *cx, const char *path, int rank, uint64_t settings, xkd_manifest *m,
                              xkd_finding *findings, xkd_check_known *known, int64_t *found, xkd_check_log **out)
{
    xkd_status status = XKD_OK;
    xkd_check_log *log = NULL;
    reading r = {.cx = cx, .m = m, .findings = findings, .known = known};
    char text[17], head[64];
    bool same;
    *out = NULL;
    snprintf(text, sizeof text, "%016" PRIx64, settings);
    XKD_TRY(xkd_alloc(cx, &log, 1, sizeof *log));
    *log = (xkd_check_log){.cx = cx, .fd = -1, .lock = -1};
    XKD_TRY(path_of(cx, path, rank, &log->path));
    XKD_TRY(xkd_lock_file(cx, log->path, &log->lock));
    XKD_TRY(sort_names(&r));
    XKD_TRY(read_log(&r, log->path, text, &same));
    /* Findings of other settings are no use, and cost what they cost to find again. */
    if (!same && ftruncate(log->lock, 0) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot empty (remove it)", log->path);
    XKD_TRY(xkd_append_open(cx, log->path, &log->fd));
    int length = snprintf(head, sizeof head, "%s{\"xkd_check_log\":\"%s\"}\n", same ? "\n" : "", text);
    /* A line end in front of what follows a torn line. */
    XKD_TRY(xkd_append(cx, log->fd, log->path, head, same ? 1 : length));
    XKD_TRY(read_others(&r, path, rank, text));
    *found = r.found;
    *out = log;
    log = NULL;
fail:
    xkd_free(r.names);
    xkd_check_log_close(log);
    return status;
}

/* The line of sample i, with its end. The caller frees *out with free. */
static xkd_status line_of(xkd_context *cx, const xkd_manifest *m, int64_t i, const xkd_finding *f, uint64_t identity,
                          char **out, int64_t *length)
{
    xkd_status status = XKD_OK;
    json_t *row = NULL, *message = NULL;
    char hex[17];
    *out = NULL;
    *length = 0;
    snprintf(hex, sizeof hex, "%016" PRIx64, identity);
    XKD_TRY(xkd_sample_to_json(cx, &m->samples[i], &row));
    /* It names files, and may be cut within a character. */
    XKD_TRY(xkd_json_name(cx, f->message ? f->message : "", &message));
    json_object_set_new(row, "check",
                        json_pack("{s:s,s:i,s:f,s:s,s:o}", "identity", hex, "fault", (int)f->fault, "seconds",
                                  f->seconds, "note", f->note ? f->note : "", "message", message));
    *out = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!*out) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while noting what was found");
    *length = (int64_t)strlen(*out) + 1;
    (*out)[*length - 1] = '\n'; /* in place of the final 0 */
fail:
    json_decref(row);
    return status;
}

xkd_status xkd_check_log_add(xkd_check_log *log, xkd_context *cx, const xkd_manifest *m, int64_t i,
                             const xkd_finding *f, uint64_t identity)
{
    char *line;
    int64_t length;
    xkd_status status = line_of(cx, m, i, f, identity, &line, &length);
    if (status == XKD_OK) status = xkd_append(cx, log->fd, log->path, line, length);
    free(line);
    return status;
}

void xkd_check_log_close(xkd_check_log *log)
{
    if (!log) return;
    if (log->fd >= 0) close(log->fd);
    if (log->lock >= 0) close(log->lock);
    xkd_free(log->path);
    xkd_free(log);
}

/* The last first: what is left by a stop in between is found again. */
xkd_status xkd_check_log_remove(xkd_context *cx, const char *path)
{
    xkd_status status = XKD_OK;
    char *one = NULL;
    int ranks = 0;
    do {
        xkd_free(one);
        XKD_TRY(path_of(cx, path, ++ranks, &one));
    } while (ranks < XKD_MOST_RANKS && xkd_path_exists(one));
    while (ranks-- > 0) {
        xkd_free(one);
        XKD_TRY(path_of(cx, path, ranks, &one));
        XKD_TRY(xkd_remove_file(cx, one));
    }
fail:
    xkd_free(one);
    return status;
}

/* ---- ranks ---- */

/* Lines of all ranks that are in memory at once: 30 MB of usual ones. */
enum { ROUND = 1 << 16 };

/* This rank's lines of the samples [from, to), one behind the other. */
static xkd_status tell(xkd_context *cx, xkd_dist *dist, const reading *r, int64_t from, int64_t to, xkd_text *out)
{
    xkd_status status = XKD_OK;
    int64_t size = xkd_dist_size(dist), first = from + (xkd_dist_rank(dist) - from % size + size) % size;
    xkd_text_clear(out);
    for (int64_t i = first; i < to && status == XKD_OK; i += size) {
        char *line;
        int64_t length;
        xkd_tick();
        status = line_of(cx, r->m, i, &r->findings[i], 0, &line, &length);
        if (status == XKD_OK) xkd_text_add(out, line, length);
        free(line);
    }
    return status == XKD_OK ? out->status : status;
}

/* Takes the lines of one rank. */
static xkd_status hear(reading *r, char *text, int64_t size)
{
    xkd_status status = XKD_OK;
    for (char *line = text, *end = text + size; line < end;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) break;
        json_t *row = json_loadb(line, (size_t)(stop - line), JSON_REJECT_DUPLICATES, NULL);
        status = take_line(r, row);
        json_decref(row);
        XKD_TRY(status);
        line = stop + 1;
    }
fail:
    return status;
}

/* What all ranks have of the samples [from, to). */
static xkd_status share_some(reading *r, xkd_dist *dist, int64_t from, int64_t to, xkd_text *mine, int64_t *sizes)
{
    xkd_status status = XKD_OK;
    void *all = NULL;
    int64_t at = 0;
    XKD_TRY(tell(r->cx, dist, r, from, to, mine));
    XKD_TRY(xkd_dist_gather_sized(dist, &all, sizes, mine->data, mine->size));
    for (int k = 0; k < xkd_dist_size(dist); k++) {
        if (k != xkd_dist_rank(dist)) XKD_TRY(hear(r, (char *)all + at, sizes[k]));
        at += sizes[k];
    }
fail:
    xkd_free(all);
    return status;
}

/* Known anew: what this rank had from logs of the others is theirs to say by now. */
xkd_status xkd_check_share(xkd_context *cx, xkd_dist *dist, xkd_manifest *m, xkd_finding *findings)
{
    xkd_status status = XKD_OK;
    xkd_check_known known = {0};
    reading r = {.cx = cx, .path = "another rank", .m = m, .findings = findings, .known = &known};
    xkd_text mine = xkd_text_make(cx);
    int64_t *sizes = NULL;
    XKD_TRY(xkd_alloc(cx, &sizes, xkd_dist_size(dist), sizeof *sizes));
    XKD_TRY(xkd_alloc(cx, &known.done, m->count, sizeof *known.done));
    XKD_TRY(xkd_alloc(cx, &known.identity, m->count, sizeof *known.identity));
    XKD_TRY(sort_names(&r));
    for (int64_t from = 0; from < m->count; from += ROUND)
        XKD_TRY(share_some(&r, dist, from, from + ROUND < m->count ? from + ROUND : m->count, &mine, sizes));
    if (r.found != m->count - (m->count - xkd_dist_rank(dist) + xkd_dist_size(dist) - 1) / xkd_dist_size(dist))
        XKD_FAIL(XKD_ERR_INTERNAL, "of %lld files other ranks have told of %lld", (long long)m->count,
                 (long long)r.found);
fail:
    xkd_text_free(&mine);
    xkd_free(sizes);
    xkd_free(known.done);
    xkd_free(known.identity);
    xkd_free(r.names);
    return status;
}
