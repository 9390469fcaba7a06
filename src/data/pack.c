/* The records of a pack: shards are opened as they are needed. */
#include "data/pack.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/pack_parts.h"

/* Shards kept open at a time: a quarter of the descriptors that a process may have by default. */
enum { MOST_OPEN = 256 };

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

xkd_status xkd_pack_new(xkd_context *cx, const char *folder, xkd_pack **out)
{
    xkd_status status = xkd_alloc(cx, out, 1, sizeof **out);
    if (status != XKD_OK) return status;
    (*out)->users = 1;
    pthread_mutex_init(&(*out)->lock, NULL);
    status = xkd_copy_string(cx, &(*out)->folder, folder);
    if (status == XKD_OK) return XKD_OK;
    xkd_pack_release(*out);
    *out = NULL;
    return status;
}

static void pack_free(xkd_pack *p)
{
    for (int64_t i = 0; i < p->shard_count; i++)
        if (p->shards[i].fd >= 0) close(p->shards[i].fd);
    pthread_mutex_destroy(&p->lock);
    if (!p->shared) xkd_free(p->entries);
    if (!p->shared) xkd_free(p->faults);
    if (p->shared) (void)munmap(p->shared, (size_t)p->shared_bytes);
    xkd_free(p->shards);
    xkd_pieces_free(&p->texts);
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

/* The last one that begins at or before the record. */
static xkd_pack_shard_file *shard_of(const xkd_pack *p, int64_t record)
{
    int64_t low = 0, high = p->shard_count;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (p->shards[middle].first <= record)
            low = middle;
        else
            high = middle;
    }
    return &p->shards[low];
}

/* NULL where the record is one of a file that could be packed. */
static const xkd_pack_fault *fault_of(const xkd_pack *p, int64_t record)
{
    int64_t low = 0, high = p->fault_count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (p->faults[middle].record == record) return &p->faults[middle];
        if (p->faults[middle].record < record)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int64_t bytes_of(const xkd_pack *p, int64_t record)
{
    return (int64_t)p->entries[record].size * XKD_RECORD_ALIGN;
}

const char *xkd_pack_shard(const xkd_pack *p, int64_t record)
{
    return shard_of(p, record)->name;
}

uint64_t xkd_pack_identity(const xkd_pack *p, int64_t record)
{
    const uint64_t what[] = {p->identity, p->entries[record].row_sum, (uint64_t)bytes_of(p, record)};
    return XXH3_64bits(what, sizeof what);
}

/* The one that has been open for longest makes room. Called with the lock held. */
static void close_oldest(xkd_pack *p)
{
    xkd_pack_shard_file *oldest = NULL;
    for (int64_t i = 0; i < p->shard_count; i++)
        if (p->shards[i].fd >= 0 && (!oldest || p->shards[i].opened < oldest->opened)) oldest = &p->shards[i];
    if (!oldest) return;
    close(oldest->fd);
    oldest->fd = -1;
    p->open--;
}

/* A descriptor of the caller's own for the shard. Opening waits for the disk, so it is done without the lock. */
static xkd_status open_shard(xkd_context *cx, xkd_pack *p, xkd_pack_shard_file *s, int *fd, xkd_media_fault *fault)
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
    const xkd_pack_entry *e = &p->entries[record];
    const xkd_pack_fault *known = fault_of(p, record);
    *out = (xkd_source){.fd = -1,
                        .offset = (int64_t)e->at * XKD_RECORD_ALIGN,
                        .size = bytes_of(p, record),
                        .record = true,
                        .row = e->row_sum};
    *fault = known ? known->fault : XKD_FAULT_NONE;
    if (known) XKD_FAIL(XKD_ERR_DATA, "%s (when it was packed: mend the file and pack it anew)", known->said);
    XKD_TRY(open_shard(cx, p, shard_of(p, record), &out->fd, fault));
fail:
    return status;
}

/* Frames and sound of a clip lie together, and those of a fraction of the film at that fraction of the record. */
void xkd_pack_ahead(xkd_pack *p, int64_t record, double place)
{
    enum { MARGIN = 1 << 20 }; /* bytes: a clip and the table behind it */
    const xkd_pack_shard_file *shard = shard_of(p, record);
    if (fault_of(p, record)) return;
    /* A descriptor of its own, for the call may wait for the disk, and the shard be closed meanwhile. */
    pthread_mutex_lock(&p->lock);
    int fd = shard->fd < 0 ? -1 : fcntl(shard->fd, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&p->lock);
    if (fd < 0) return;
    int64_t bytes = bytes_of(p, record), span = (int64_t)4 * MARGIN;
    int64_t from = (int64_t)(place * (double)bytes) - MARGIN;
    if (from < 0) from = 0;
    if (span > bytes - from) span = bytes - from;
    posix_fadvise(fd, (int64_t)p->entries[record].at * XKD_RECORD_ALIGN + from, span, POSIX_FADV_WILLNEED);
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
