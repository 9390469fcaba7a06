/* The log of an unfinished embedding: a head that names the work, then one record a file, appended as files finish.
 * After a crash everything up to the first record that is not whole is used and the rest cut off. Numbers are as in
 * memory: a log is read by the machine that wrote it. */
#include "eval/encode/embed_log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"

/* Read as a little-endian number, so that the file begins with these letters. "xkdlog1" was of settings that left out a
 * part of the views, "xkdlog2" of files without their contents, "xkdlog3" of clips without their damage. */
static const uint64_t MAGIC = 0x34676f6c646b78; /* "xkdlog4" */
static const uint64_t OLD_MAGICS[] = {0x31676f6c646b78, 0x32676f6c646b78, 0x33676f6c646b78};

/* Every record begins with this; `hash` is over the payload. */
typedef struct {
    uint64_t hash;
    int64_t bytes, number, fault; /* of the payload; the input's number; xkd_media_fault */
    uint64_t identity;            /* of the input's contents */
    int64_t count[XKD_MODALITIES];
} record_head;

typedef struct {
    uint64_t magic;
    xkd_embed_log_head head;
} file_head;

struct xkd_embed_log {
    xkd_context *cx;
    char *path;
    xkd_embed_log_head head;
    int fd;
    int64_t at, end; /* of reading; of the whole records */
    char *buffer;    /* one record's payload, or head and payload when writing */
    int64_t capacity;
};

/* False at the end of the file or on an error, which for a log is the same: what follows is lost. */
static bool read_at(int fd, void *out, int64_t size, int64_t at)
{
    for (int64_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)out + done, (size_t)(size - done), at + done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        done += got;
    }
    return true;
}

/* Twice what is needed: records of a set are of similar size. */
static xkd_status grow(xkd_embed_log *log, int64_t bytes)
{
    if (bytes <= log->capacity) return XKD_OK;
    xkd_status status = xkd_resize(log->cx, &log->buffer, log->capacity, 2 * bytes, 1);
    if (status == XKD_OK) log->capacity = 2 * bytes;
    return status;
}

static int64_t payload_bytes(const xkd_embed_log *log, const record_head *h)
{
    int64_t bytes = 0;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        /* Counts of a torn record may be anything. Counts are limited before they are multiplied: 2^24 clips are two
         * years of video. */
        if (h->count[m] < 0 || h->count[m] > 1 << 24) return -1;
        bytes += h->count[m] * (2 * (int64_t)sizeof(double) + log->head.size[m] * (int64_t)sizeof(float));
    }
    return bytes;
}

/* Reads the record at log->at; *whole is false where there is none. */
static xkd_status read_record(xkd_embed_log *log, xkd_embed_record *r, bool *whole)
{
    xkd_status status = XKD_OK;
    record_head h;
    *whole = false;
    /* The size follows from the counts. A head in which they disagree was torn or belongs to no record. */
    if (!read_at(log->fd, &h, sizeof h, log->at)) return XKD_OK;
    /* Below 0 in both is no agreement: bad counts give -1, and so do bytes of 0xFF as an unwritten page may hold. */
    if (h.bytes < 0 || h.bytes != payload_bytes(log, &h)) return XKD_OK;
    XKD_TRY(grow(log, h.bytes));
    if (!read_at(log->fd, log->buffer, h.bytes, log->at + (int64_t)sizeof h)) return XKD_OK;
    /* The pages of a file can reach the disk out of order, so the length alone does not show that a payload is
     * there. */
    if (XXH3_64bits(log->buffer, (size_t)h.bytes) != h.hash) return XKD_OK;
    *r = (xkd_embed_record){
        .at = log->at, .number = h.number, .identity = h.identity, .fault = (xkd_media_fault)h.fault};
    /* Pointers into the buffer, valid until the next record is read: all doubles first, which keeps them
     * aligned. */
    const char *at = log->buffer;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        r->count[m] = h.count[m];
        r->seconds[m] = (const double *)at;
        r->damage[m] = r->seconds[m] + h.count[m];
        at += 2 * h.count[m] * (int64_t)sizeof(double);
    }
    for (int m = 0; m < XKD_MODALITIES; m++) {
        r->feature[m] = (const float *)at;
        at += h.count[m] * log->head.size[m] * (int64_t)sizeof(float);
    }
    log->at += (int64_t)sizeof h + h.bytes;
    *whole = true;
fail:
    return status;
}

/* Finds the end of the whole records and cuts off what is behind. */
static xkd_status recover(xkd_embed_log *log)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = log->cx;
    xkd_embed_record r;
    bool whole = true;
    /* All payloads are read once, to prove each by its hash. */
    for (log->at = sizeof(file_head); whole;) XKD_TRY(read_record(log, &r, &whole));
    log->end = log->at;
    if (ftruncate(log->fd, log->end) != 0)
        XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot cut off its torn end: %s", log->path, strerror(errno));
fail:
    return status;
}

/* The lock keeps two runs with the same --out from mixing their records. It is the descriptor's and ends with it, also
 * after a crash. */
xkd_status xkd_embed_log_open(xkd_context *cx, const char *path, const xkd_embed_log_head *head, bool anew,
                              xkd_embed_log **out)
{
    xkd_status status = XKD_OK;
    xkd_embed_log *log = NULL;
    file_head want = {MAGIC, *head}, have;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &log, 1, sizeof *log));
    log->cx = cx;
    log->head = *head;
    log->fd = -1;
    XKD_TRY(xkd_copy_string(cx, &log->path, path));
    XKD_TRY(xkd_lock_file(cx, path, &log->fd));
    /* Emptied under the lock: a second --force must not take the log away from a run that is at work. */
    if (anew && ftruncate(log->fd, 0) != 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot empty: %s", path, strerror(errno));
    /* A shorter file is one whose head was torn, or a new one. */
    if (read_at(log->fd, &have, sizeof have, 0)) {
        /* It may hold days of work, which the version that began it can finish. */
        for (size_t i = 0; i < sizeof OLD_MAGICS / sizeof *OLD_MAGICS; i++)
            if (have.magic == OLD_MAGICS[i])
                XKD_FAIL(XKD_ERR_CONFIG,
                         "%s: was begun by an earlier version, which did not note all that counts: finish it with that "
                         "one, or "
                         "remove it to start anew",
                         path);
        if (memcmp(&have, &want, sizeof want) != 0)
            XKD_FAIL(XKD_ERR_CONFIG,
                     "%s: was begun with another model, other inputs or other options: remove it to start anew", path);
    } else if (pwrite(log->fd, &want, sizeof want, 0) != (ssize_t)sizeof want) {
        XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot write: %s", path, xkd_reason(errno));
    }
    XKD_TRY(recover(log));
    *out = log;
    log = NULL;
fail:
    xkd_embed_log_close(log);
    return status;
}

void xkd_embed_log_close(xkd_embed_log *log)
{
    if (!log) return;
    if (log->fd >= 0) close(log->fd);
    xkd_free(log->buffer);
    xkd_free(log->path);
    xkd_free(log);
}

/* One buffer and one write: a crash leaves at most one torn record, at the end. No fsync: a lost record costs one
 * file. */
xkd_status xkd_embed_log_add(xkd_embed_log *log, int64_t number, uint64_t identity, const xkd_embedded *f,
                             int64_t *place)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = log->cx;
    record_head h = {
        .number = number, .identity = identity, .fault = f->result.fault, .count = {f->count[0], f->count[1]}};
    h.bytes = payload_bytes(log, &h);
    int64_t whole = h.bytes + (int64_t)sizeof h;
    XKD_TRY(grow(log, whole));
    char *at = log->buffer + sizeof h;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        int64_t bytes = f->count[m] * (int64_t)sizeof(double);
        if (bytes) memcpy(at, f->seconds[m], (size_t)bytes);
        if (bytes) memcpy(at + bytes, f->damage[m], (size_t)bytes);
        at += 2 * bytes;
    }
    for (int m = 0; m < XKD_MODALITIES; m++) {
        int64_t bytes = f->count[m] * log->head.size[m] * (int64_t)sizeof(float);
        if (bytes) memcpy(at, f->feature[m], (size_t)bytes);
        at += bytes;
    }
    h.hash = XXH3_64bits(log->buffer + sizeof h, (size_t)h.bytes);
    memcpy(log->buffer, &h, sizeof h);
    /* A short write is no error by itself: a full disk shows in the next one, which writes nothing. */
    for (int64_t done = 0; done < whole;) {
        ssize_t put = pwrite(log->fd, log->buffer + done, (size_t)(whole - done), log->end + done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) XKD_FAIL(XKD_ERR_STORAGE, "%s: cannot write: %s", log->path, xkd_reason(errno));
        done += put;
    }
    if (place) *place = log->end;
    log->end += whole;
fail:
    return status;
}

/* *found is false at the end. Records before log->end were proved whole by `recover` or written by this process. */
xkd_status xkd_embed_log_next(xkd_embed_log *log, bool rewind, xkd_embed_record *record, bool *found)
{
    if (rewind) log->at = sizeof(file_head);
    *found = false;
    return log->at < log->end ? read_record(log, record, found) : XKD_OK;
}

/* Whole when it was written or recovered; a disk may have lost it since. */
xkd_status xkd_embed_log_read(xkd_embed_log *log, int64_t at, xkd_embed_record *record)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = log->cx;
    bool whole;
    log->at = at;
    XKD_TRY(read_record(log, record, &whole));
    if (!whole) XKD_FAIL(XKD_ERR_STORAGE, "%s: the record at byte %lld cannot be read again", log->path, (long long)at);
fail:
    return status;
}
