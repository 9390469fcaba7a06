/* Reading a pack: the indexes at the start, shards as they are needed. */
#include "data/pack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/manifest_rows.h"
#include "data/shard.h"

/* Shards kept open at a time: a quarter of the descriptors that a process may have by default. */
enum { MOST_OPEN = 256 };

typedef struct {
    char *name; /* in the folder */
    int64_t size;
    int fd;          /* -1: not open */
    uint64_t opened; /* when, by the pack's count */
} shard;

typedef struct {
    int64_t offset, bytes;
    uint64_t row_sum;
    int32_t shard;
    int32_t fault;
} entry;

struct xkd_pack {
    atomic_int users;
    char *folder;
    xkd_pack_settings settings;
    uint64_t identity; /* of the settings */
    shard *shards;
    int64_t shard_count, shard_capacity;
    entry *entries; /* [count] */
    char **faults;  /* [count] what was said of those that could not be packed; else NULL */
    int64_t count, entry_capacity, fault_capacity;
    pthread_mutex_t lock; /* guards what follows, and fd and opened of the shards */
    int64_t open;
    uint64_t clock;
};

static bool ends_with(const char *name, const char *ending)
{
    size_t a = strlen(name), b = strlen(ending);
    return a > b && !strcmp(name + a - b, ending);
}

/* The first shard says the same as the pack's own file. */
bool xkd_is_pack(const char *path)
{
    static const char *const NAMES[] = {XKD_PACK_FILE, XKD_FIRST_SHARD, XKD_FIRST_SHARD ".part"};
    char file[4200];
    bool found = false;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !found; i++) {
        snprintf(file, sizeof file, "%s/%s", path, NAMES[i]);
        found = xkd_path_exists(file);
    }
    return found && xkd_is_folder(path);
}

static void pack_free(xkd_pack *p)
{
    for (int64_t i = 0; i < p->shard_count; i++) {
        if (p->shards[i].fd >= 0) close(p->shards[i].fd);
        xkd_free(p->shards[i].name);
    }
    for (int64_t i = 0; p->faults && i < p->count; i++) xkd_free(p->faults[i]);
    pthread_mutex_destroy(&p->lock);
    xkd_free(p->shards);
    xkd_free(p->entries);
    xkd_free(p->faults);
    xkd_free(p->folder);
    xkd_free(p);
}

xkd_pack *xkd_pack_share(xkd_pack *p)
{
    if (p) atomic_fetch_add(&p->users, 1);
    return p;
}

void xkd_pack_release(xkd_pack *p)
{
    if (p && atomic_fetch_sub(&p->users, 1) == 1) pack_free(p);
}

const char *xkd_pack_folder(const xkd_pack *p)
{
    return p->folder;
}

const xkd_pack_settings *xkd_pack_about(const xkd_pack *p)
{
    return &p->settings;
}

/* ---- the indexes ---- */

/* What the row of a file that could not be packed says of it. */
static xkd_status keep_fault(xkd_context *cx, xkd_pack *p, int64_t i, const json_t *row)
{
    const char *said = json_string_value(json_object_get(row, "pack_fault"));
    if (p->entries[i].fault == XKD_FAULT_NONE) return XKD_OK;
    return xkd_copy_string(cx, &p->faults[i], said ? said : "could not be packed");
}

/* One record: its place in the pack and its sample in the manifest. */
static xkd_status add_record(xkd_context *cx, xkd_pack *p, const char *file, const xkd_records_entry *e,
                             const char *row, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    json_t *o = json_loadb(row, (size_t)e->row_bytes, JSON_REJECT_DUPLICATES, NULL);
    int64_t had = m->count;
    if (!json_is_object(o))
        XKD_FAIL(XKD_ERR_DATA, "%s: record %" PRId64 " has no row (remove the file and give its `xkd data pack` again)",
                 file, e->number);
    if (p->count >= INT32_MAX) XKD_FAIL(XKD_ERR_DATA, "%s: more than 2^31 records (divide the pack)", p->folder);
    XKD_TRY(xkd_manifest_add_packed(cx, m, file, e->number, o));
    m->samples[had].record = (int32_t)(p->count + 1);
    XKD_TRY(xkd_reserve(cx, &p->entries, p->count, &p->entry_capacity, sizeof *p->entries));
    XKD_TRY(xkd_reserve(cx, &p->faults, p->count, &p->fault_capacity, sizeof *p->faults));
    p->entries[p->count] = (entry){.offset = e->offset,
                                   .bytes = e->bytes,
                                   .row_sum = e->row_sum,
                                   .shard = (int32_t)(p->shard_count - 1),
                                   .fault = e->fault};
    p->faults[p->count] = NULL;
    XKD_TRY(keep_fault(cx, p, p->count, o));
    p->count++;
fail:
    json_decref(o);
    return status;
}

static xkd_status add_shard(xkd_context *cx, xkd_pack *p, const char *name, const char *text, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_records_index index = {0};
    char *path = NULL, *said = NULL;
    int64_t size, first, records_at, row = 0;
    int fd = -1;
    bool rebuilt;
    XKD_TRY(xkd_join_path(cx, &path, p->folder, name));
    XKD_TRY(xkd_open_read(cx, path, &fd, &size));
    XKD_TRY(xkd_records_open(cx, fd, size, path, &said, &first, &records_at));
    if (strcmp(said, text))
        XKD_FAIL(XKD_ERR_DATA, "%s: belongs to another pack than %s/" XKD_PACK_FILE " (move it away)", path, p->folder);
    if (first != p->count)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: begins with sample %" PRId64 " where %" PRId64
                 " should follow: a shard before it is missing (give its `xkd data pack` again)",
                 path, first, p->count);
    XKD_TRY(xkd_records_read(cx, fd, size, path, first, records_at, &index, &rebuilt));
    if (rebuilt)
        xkd_log(cx, XKD_LOG_WARN, "%s: its index is damaged; %" PRId64 " records were found without it", path,
                index.count);
    XKD_TRY(xkd_reserve(cx, &p->shards, p->shard_count, &p->shard_capacity, sizeof *p->shards));
    p->shards[p->shard_count] = (shard){.size = size, .fd = -1};
    XKD_TRY(xkd_copy_string(cx, &p->shards[p->shard_count].name, name));
    p->shard_count++;
    for (int64_t i = 0; i < index.count; row += index.entries[i++].row_bytes)
        XKD_TRY(add_record(cx, p, path, &index.entries[i], index.rows + row, m));
fail:
    if (fd >= 0) close(fd);
    xkd_records_free(&index);
    xkd_free(said);
    xkd_free(path);
    return status;
}

static xkd_status add_shards(xkd_context *cx, xkd_pack *p, const char *text, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_names names = {0};
    int64_t parts = 0;
    XKD_TRY(xkd_list_folder(cx, p->folder, &names));
    for (int64_t i = 0; i < names.count; i++) {
        parts += ends_with(names.items[i], XKD_SHARD_ENDING ".part");
        if (ends_with(names.items[i], XKD_SHARD_ENDING)) XKD_TRY(add_shard(cx, p, names.items[i], text, m));
    }
    if (p->count != p->settings.samples)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: holds %" PRId64 " of its %" PRId64 " samples%s (give its `xkd data pack` again: it goes on)",
                 p->folder, p->count, p->settings.samples, parts ? ", and shards that are not complete" : "");
fail:
    xkd_free_names(&names);
    return status;
}

/* The settings: the pack's own file, or what the first shard has of it. */
static xkd_status read_text(xkd_context *cx, const char *folder, const char *path, char **text)
{
    xkd_status status = XKD_OK;
    char *first = NULL;
    int64_t size, number, records_at;
    int fd = -1;
    if (xkd_path_exists(path)) return xkd_read_file(cx, path, (int64_t)64 << 20, XKD_ERR_DATA, text, &size);
    XKD_TRY(xkd_join_path(cx, &first, folder, XKD_FIRST_SHARD));
    XKD_TRY(xkd_open_read(cx, first, &fd, &size));
    XKD_TRY(xkd_records_open(cx, fd, size, first, text, &number, &records_at));
    xkd_log(cx, XKD_LOG_WARN, "%s: is missing; its first shard has the same text", path);
fail:
    if (fd >= 0) close(fd);
    xkd_free(first);
    return status;
}

xkd_status xkd_pack_read(xkd_context *cx, const char *folder, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    xkd_pack *p = NULL;
    char *path = NULL, *text = NULL;
    *out = (xkd_manifest){0};
    XKD_TRY(xkd_alloc(cx, &p, 1, sizeof *p));
    p->users = 1;
    pthread_mutex_init(&p->lock, NULL);
    out->pack = p;
    XKD_TRY(xkd_copy_string(cx, &p->folder, folder));
    XKD_TRY(xkd_copy_string(cx, &out->root, folder));
    XKD_TRY(xkd_join_path(cx, &path, folder, XKD_PACK_FILE));
    XKD_TRY(read_text(cx, folder, path, &text));
    XKD_TRY(xkd_pack_settings_read(cx, path, text, &p->settings, out));
    p->identity = XXH3_64bits(text, strlen(text));
    XKD_TRY(add_shards(cx, p, text, out));
fail:
    xkd_free(path);
    xkd_free(text);
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}

/* ---- records ---- */

const char *xkd_pack_shard(const xkd_pack *p, int64_t record)
{
    return p->shards[p->entries[record].shard].name;
}

uint64_t xkd_pack_identity(const xkd_pack *p, int64_t record)
{
    const entry *e = &p->entries[record];
    const uint64_t what[] = {p->identity, e->row_sum, (uint64_t)e->bytes};
    return XXH3_64bits(what, sizeof what);
}

/* The one that has been open for longest makes room. Called with the lock held. */
static void close_oldest(xkd_pack *p)
{
    shard *oldest = NULL;
    for (int64_t i = 0; i < p->shard_count; i++)
        if (p->shards[i].fd >= 0 && (!oldest || p->shards[i].opened < oldest->opened)) oldest = &p->shards[i];
    if (!oldest) return;
    close(oldest->fd);
    oldest->fd = -1;
    p->open--;
}

/* A descriptor of the caller's own for the shard. Opening waits for the disk, so it is done without the lock. */
static xkd_status open_shard(xkd_context *cx, xkd_pack *p, shard *s, int *fd, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    char *path = NULL;
    int64_t size;
    *fd = -1;
    pthread_mutex_lock(&p->lock);
    if (s->fd >= 0) *fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&p->lock);
    if (*fd >= 0) return XKD_OK;
    XKD_TRY(xkd_join_path(cx, &path, p->folder, s->name));
    *fault = xkd_path_exists(path) ? XKD_FAULT_UNREADABLE : XKD_FAULT_MISSING;
    XKD_TRY(xkd_open_read(cx, path, fd, &size));
    *fault = XKD_FAULT_NONE;
    pthread_mutex_lock(&p->lock);
    if (s->fd < 0) {
        if (p->open == MOST_OPEN) close_oldest(p);
        s->fd = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
        s->opened = p->clock++;
        p->open += s->fd >= 0;
    }
    pthread_mutex_unlock(&p->lock);
fail:
    xkd_free(path);
    return status;
}

xkd_status xkd_pack_open(xkd_context *cx, xkd_pack *p, int64_t record, xkd_source *out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const entry *e = &p->entries[record];
    *out = (xkd_source){.fd = -1, .offset = e->offset, .size = e->bytes, .record = true, .row = e->row_sum};
    *fault = (xkd_media_fault)e->fault;
    if (e->fault != XKD_FAULT_NONE)
        XKD_FAIL(XKD_ERR_DATA, "%s (when it was packed: mend the file and pack it anew)", p->faults[record]);
    XKD_TRY(open_shard(cx, p, &p->shards[e->shard], &out->fd, fault));
fail:
    return status;
}

/* Frames and sound of a clip lie together, and those of a fraction of the film at that fraction of the record. */
void xkd_pack_ahead(xkd_pack *p, int64_t record, double place)
{
    enum { MARGIN = 1 << 20 }; /* bytes: a clip and the table behind it */
    const entry *e = &p->entries[record];
    if (e->fault != XKD_FAULT_NONE) return;
    /* A descriptor of its own, for the call may wait for the disk, and the shard be closed meanwhile. */
    pthread_mutex_lock(&p->lock);
    int fd = p->shards[e->shard].fd < 0 ? -1 : fcntl(p->shards[e->shard].fd, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&p->lock);
    if (fd < 0) return;
    int64_t from = (int64_t)(place * (double)e->bytes) - MARGIN, span = (int64_t)4 * MARGIN;
    if (from < 0) from = 0;
    if (span > e->bytes - from) span = e->bytes - from;
    posix_fadvise(fd, e->offset + from, span, POSIX_FADV_WILLNEED);
    close(fd);
}

static xkd_status check_streams(xkd_context *cx, const xkd_pack *p, const xkd_media_request *q)
{
    xkd_status status = XKD_OK;
    const xkd_pack_settings *s = &p->settings;
    if (q->video && !s->streams[XKD_VIDEO])
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was packed without pictures (pack the files anew, or train on sound alone)",
                 p->folder);
    if (q->audio && !s->streams[XKD_AUDIO])
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was packed without sound (pack the files anew, or train on pictures alone)",
                 p->folder);
    if (q->audio && q->audio_rate != s->record.audio_rate)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: its sound has %" PRId64 " Hz, dataset.audio_fps asks for %" PRId64 " (set it so, or pack anew)",
                 p->folder, s->record.audio_rate, q->audio_rate);
    if (q->audio && q->audio_track != s->audio_track)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: was packed with data.audio_track=%" PRId64 " and not %" PRId64 " (set it so, or pack anew)",
                 p->folder, s->audio_track, q->audio_track);
    if (q->hold_last_frame != s->hold_last_frame)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was packed with data.hold_last_frame=%s (set it so, or pack anew)", p->folder,
                 s->hold_last_frame ? "true" : "false");
fail:
    return status;
}

xkd_status xkd_pack_fits(xkd_context *cx, const xkd_pack *p, const xkd_media_request *q)
{
    xkd_status status = XKD_OK;
    const xkd_pack_settings *s = &p->settings;
    int64_t side = q->short_side ? q->short_side : q->view_side;
    double step = s->record.grid_fps / q->fps;
    XKD_TRY(check_streams(cx, p, q));
    if (q->video && s->short_side && s->short_side < side)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: its frames have a short side of %" PRId64 ", and the views are made of %" PRId64
                 " (pack with --short-side %" PRId64 ", or 0 for the size of the files)",
                 p->folder, s->short_side, side, side);
    if (q->video && (step < 1 - 1e-9 || fabs(step - round(step)) > 1e-9))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: has %g frames a second, and dataset.video_fps=%g is no whole part of it (pack with "
                 "--fps %g)",
                 p->folder, s->record.grid_fps, q->fps, q->fps);
    if (q->video && q->stream_colour != s->stream_colour)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: was packed with data.colour=%s (set it so, or pack anew)", p->folder,
                 s->stream_colour ? "stream" : "default");
fail:
    return status;
}
