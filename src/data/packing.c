/* Making a pack: each run of samples is one thread's, from file to shard. */
#include "data/packing_parts.h"

#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/pool.h"
#include "data/check.h"
#include "data/manifest_rows.h"
#include "data/shard.h"
#include "media/worker.h"

/* A shard is closed where it would grow past its size by this factor: lengths are not always known before. */
enum { MOST_OVER = 2 };

/* One thread's tools and the file at hand. */
typedef struct {
    xkd_context *cx;
    xkd_worker *worker;
    xkd_record_writer *record;
    xkd_writer *to;
    int64_t begin; /* of the record */
} packer;

typedef struct {
    xkd_context *cx;
    const xkd_manifest *manifest;
    const xkd_data_config *data;
    const xkd_packing_options *options;
    char *text; /* of the settings */
    xkd_packing_stretch *runs;
    int64_t run_count;
    packer *packers; /* one a thread */
    int64_t total;   /* samples of this process */
    pthread_mutex_t lock;
    xkd_status status; /* of the first failure of our own */
    int64_t done;
    xkd_packing_result result;
} job;

/* ---- one file ---- */

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    packer *p = user;
    (void)index;
    return xkd_record_add_frame(p->record, rgb, width, height);
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    return xkd_record_add_sound(((packer *)user)->record, samples, count);
}

static xkd_status on_damage(void *user, const xkd_media_stretch *stretch)
{
    return xkd_record_add_damage(((packer *)user)->record, stretch);
}

/* The sample's line, with the fault where it has one. The caller frees *out with free(). */
static xkd_status row_of(xkd_context *cx, const xkd_sample *s, const xkd_media_result *r, char **out)
{
    xkd_status status = XKD_OK;
    json_t *row = NULL;
    char said[600];
    *out = NULL;
    XKD_TRY(xkd_sample_to_json(cx, s, &row));
    if (r->fault != XKD_FAULT_NONE) {
        snprintf(said, sizeof said, "%s", r->message);
        json_t *text = json_string(said);
        json_object_set_new(row, "pack_fault", text ? text : json_string(xkd_media_fault_name(r->fault)));
    }
    *out = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(12));
    if (!*out) XKD_FAIL(XKD_ERR_MEMORY, "out of memory");
    if (strlen(*out) > XKD_RECORD_MAX_ROW)
        XKD_FAIL(XKD_ERR_DATA, "%s: its line of the manifest has more than %d bytes (give it fewer labels)", s->path,
                 XKD_RECORD_MAX_ROW);
fail:
    json_decref(row);
    return status;
}

/* Decodes the whole file into the record at hand. What is wrong with it stands in *r. */
static xkd_status decode(job *j, packer *p, const xkd_sample *s, bool all_pictures, xkd_media_result *r)
{
    xkd_status status = XKD_OK;
    const xkd_pack_settings *o = &j->options->settings;
    xkd_source source;
    const xkd_media_sink sink = {
        .user = p, .begin = on_begin, .frame = on_frame, .sound = on_sound, .damage = on_damage};
    *r = (xkd_media_result){0};
    status = xkd_manifest_open(p->cx, j->manifest, s, j->data->follow_links, &source, &r->fault);
    if (status != XKD_OK && r->fault != XKD_FAULT_NONE) {
        snprintf(r->message, sizeof r->message, "%.500s", xkd_last_error(p->cx));
        xkd_clear_error(p->cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    const xkd_media_request request = {.mode = XKD_CLIP_WHOLE,
                                       .fps = o->record.grid_fps,
                                       .short_side = o->short_side,
                                       .audio_rate = o->record.audio_rate,
                                       .video = o->streams[XKD_VIDEO],
                                       .audio = o->streams[XKD_AUDIO],
                                       .stream_colour = o->stream_colour,
                                       .hold_last_frame = o->hold_last_frame,
                                       .all_pictures = all_pictures,
                                       .audio_track = o->audio_track,
                                       .span = xkd_sample_span(s, source.fd, o->audio_track)};
    if (s->record) XKD_TRY(xkd_pack_fits(p->cx, j->manifest->pack, &request));
    XKD_TRY(xkd_worker_decode(p->worker, &source, &request, &sink, r));
    /* Where pictures are wanted, sound alone is no sample; the other way a policy decides when it is read. */
    if (r->fault == XKD_FAULT_NONE && o->streams[XKD_VIDEO] && !r->info.has_video) {
        r->fault = XKD_FAULT_NO_VIDEO;
        snprintf(r->message, sizeof r->message, "no video stream");
    }
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

/* One sample to the end of the shard. Where it fails, nothing of it stays there. */
static xkd_status pack_one(job *j, packer *p, int64_t i, xkd_records_index *index, xkd_media_result *r)
{
    xkd_status status = XKD_OK;
    const xkd_sample *s = &j->manifest->samples[i];
    xkd_record_head head;
    char *row = NULL;
    p->begin = xkd_writer_size(p->to);
    XKD_TRY(xkd_record_begin(p->record, p->to, i));
    XKD_TRY(decode(j, p, s, false, r));
    /* Damage is mended with pictures that were left out: again with all of them. */
    if (r->fault == XKD_FAULT_NONE && r->tally.errors) {
        XKD_TRY(xkd_writer_cut(p->to, p->begin));
        XKD_TRY(xkd_record_begin(p->record, p->to, i));
        XKD_TRY(decode(j, p, s, true, r));
    }
    if (r->fault != XKD_FAULT_NONE) {
        XKD_TRY(xkd_writer_cut(p->to, p->begin));
        XKD_TRY(xkd_record_begin(p->record, p->to, i));
    }
    XKD_TRY(row_of(p->cx, s, r, &row));
    bool good = r->fault == XKD_FAULT_NONE;
    XKD_TRY(xkd_record_end(p->record, good ? &r->info : NULL, &r->tally, r->fault, row, &head));
    XKD_TRY(xkd_records_note(p->cx, index, &head, p->begin, row));
fail:
    /* The message of a full disk stays; that nothing half-written does is seen to as well as can be. */
    if (status != XKD_OK) xkd_writer_cut(p->to, p->begin);
    free(row);
    return status;
}

/* ---- shards ---- */

/* Counts a sample that is done, and says so where it is at fault. */
static xkd_status account(job *j, packer *p, int64_t i, const xkd_media_result *r)
{
    xkd_status status = XKD_OK;
    const char *path = j->manifest->samples[i].path;
    pthread_mutex_lock(&j->lock);
    j->done++;
    if (r->fault == XKD_FAULT_NONE) {
        j->result.packed++;
        j->result.damaged += r->tally.errors > 0 || r->tally.video_damage > 0 || r->tally.audio_damage > 0;
    } else {
        j->result.unreadable++;
        xkd_log(j->cx, XKD_LOG_WARN, "%s: %s: %s", path, xkd_media_fault_name(r->fault), r->message);
    }
    int64_t most = xkd_most_broken(j->data->max_bad_fraction, j->manifest->count);
    if (j->result.unreadable > most)
        status = xkd_fail(p->cx, XKD_ERR_DATA,
                          "%" PRId64 " of %" PRId64
                          " files cannot be read, more than data.max_bad_fraction allows; the last one is %s: %s (run "
                          "`xkd data check`, and pack what is in order)",
                          j->result.unreadable, j->manifest->count, path, r->message);
    if (j->options->progress) j->options->progress(j->options->user, j->done, j->total);
    pthread_mutex_unlock(&j->lock);
    return status;
}

/* The first failure ends the work of all threads. */
static xkd_status ask_to_go_on(job *j, packer *p)
{
    xkd_status status = XKD_OK;
    pthread_mutex_lock(&j->lock);
    if (j->status != XKD_OK || (j->options->stop && j->options->stop(j->options->user)))
        status = xkd_fail(p->cx, XKD_ERR_INTERRUPTED, "stopped");
    pthread_mutex_unlock(&j->lock);
    return status;
}

/* Faults of the moment, of the disk or the network, are tried again in a shard that is not complete. */
static bool is_passing(int fault)
{
    return fault == XKD_FAULT_MISSING || fault == XKD_FAULT_UNREADABLE || fault == XKD_FAULT_TIMEOUT ||
           fault == XKD_FAULT_CRASH;
}

/* What an earlier sitting left of a shard: whole records, each looked at to its last byte, as a power cut may have taken
 * any of them. */
static xkd_status take_up(job *j, packer *p, int fd, int64_t size, const char *path, int64_t first,
                          xkd_records_index *index)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char *text = NULL;
    int64_t number, records_at, end = 0;
    if (size == 0) return xkd_records_begin(cx, p->to, j->text, first);
    status = xkd_records_open(cx, fd, size, path, &text, &number, &records_at);
    if (status == XKD_ERR_DATA || (status == XKD_OK && (strcmp(text, j->text) || number != first))) {
        /* Not even its beginning was written whole; pack.json has vouched for the rest of the folder. */
        xkd_clear_error(cx);
        XKD_TRY(xkd_writer_cut(p->to, 0));
        XKD_TRY(xkd_records_begin(cx, p->to, j->text, first));
        goto fail;
    }
    XKD_TRY(status);
    XKD_TRY(xkd_records_scan(cx, fd, size, first, records_at, true, index, &end));
    for (int64_t i = 0; i < index->count; i++)
        if (is_passing(index->entries[i].fault)) {
            end = index->entries[i].offset;
            while (index->count > i) index->row_bytes -= index->entries[--index->count].row_bytes;
        }
    XKD_TRY(xkd_writer_cut(p->to, end));
fail:
    xkd_free(text);
    return status;
}

static void count_kept(job *j, const xkd_records_index *index)
{
    pthread_mutex_lock(&j->lock);
    for (int64_t i = 0; i < index->count; i++) {
        bool good = index->entries[i].fault == XKD_FAULT_NONE;
        j->result.packed += good;
        j->result.unreadable += !good;
    }
    j->result.kept += index->count;
    j->done += index->count;
    pthread_mutex_unlock(&j->lock);
}

static void count_shard(job *j, int64_t bytes)
{
    pthread_mutex_lock(&j->lock);
    j->result.shards++;
    j->result.bytes += bytes;
    pthread_mutex_unlock(&j->lock);
}

/* A shard that is there already: how many samples it has. */
static xkd_status pass_shard(job *j, packer *p, const char *path, int64_t first, int64_t *count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    xkd_records_index index = {0};
    char *text = NULL;
    int64_t size, number, records_at;
    int fd = -1;
    bool rebuilt;
    XKD_TRY(xkd_open_read(cx, path, &fd, &size));
    XKD_TRY(xkd_records_open(cx, fd, size, path, &text, &number, &records_at));
    if (strcmp(text, j->text) || number != first)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: belongs to another pack (choose another --out, or remove it)", path);
    XKD_TRY(xkd_records_read(cx, fd, size, path, first, records_at, &index, &rebuilt));
    if (index.count == 0) XKD_FAIL(XKD_ERR_DATA, "%s: has no record (remove it: it is packed again)", path);
    count_kept(j, &index);
    count_shard(j, size);
    *count = index.count;
fail:
    if (fd >= 0) close(fd);
    xkd_records_free(&index);
    xkd_free(text);
    return status;
}

/* Samples from `first` on until the run or the shard is full. */
static xkd_status fill_shard(job *j, packer *p, int64_t first, int64_t end, xkd_records_index *index)
{
    xkd_status status = XKD_OK;
    xkd_media_result r;
    int64_t most = MOST_OVER * j->options->settings.shard_bytes;
    for (int64_t i = first + index->count; i < end; i++) {
        if (index->count && xkd_writer_size(p->to) >= most) break;
        XKD_TRY(ask_to_go_on(j, p));
        XKD_TRY(pack_one(j, p, i, index, &r));
        XKD_TRY(account(j, p, i, &r));
    }
fail:
    return status;
}

/* Makes the shard that begins with `first`; *count: how many samples it has. */
static xkd_status make_shard(job *j, packer *p, const char *path, int64_t first, int64_t end, int64_t *count)
{
    xkd_status status = XKD_OK;
    xkd_records_index index = {0};
    int64_t size;
    int fd;
    XKD_TRY(xkd_writer_resume(p->cx, path, &p->to, &fd, &size));
    XKD_TRY(take_up(j, p, fd, size, path, first, &index));
    count_kept(j, &index);
    XKD_TRY(fill_shard(j, p, first, end, &index));
    XKD_TRY(xkd_records_finish(p->to, &index));
    *count = index.count;
    size = xkd_writer_size(p->to);
    xkd_writer *complete = p->to;
    p->to = NULL;
    XKD_TRY(xkd_writer_commit(complete));
    count_shard(j, size);
fail:
    /* What is whole stays for the next sitting. */
    if (p->to) xkd_writer_leave(p->to);
    p->to = NULL;
    xkd_records_free(&index);
    return status;
}

static xkd_status pack_run(job *j, packer *p, const xkd_packing_stretch *run)
{
    xkd_status status = XKD_OK;
    char name[64], *path = NULL;
    int64_t count = 0, end = run->first + run->count;
    for (int64_t at = run->first; at < end; at += count) {
        snprintf(name, sizeof name, "%012" PRId64 XKD_SHARD_ENDING, at);
        xkd_free(path);
        path = NULL;
        XKD_TRY(xkd_join_path(p->cx, &path, j->options->out, name));
        if (xkd_path_exists(path))
            XKD_TRY(pass_shard(j, p, path, at, &count));
        else
            XKD_TRY(make_shard(j, p, path, at, end, &count));
    }
fail:
    xkd_free(path);
    return status;
}

/* ---- all of it ---- */

static void run_one(void *arg, int64_t index, int thread)
{
    job *j = arg;
    packer *p = &j->packers[thread];
    pthread_mutex_lock(&j->lock);
    xkd_status before = j->status;
    pthread_mutex_unlock(&j->lock);
    if (before != XKD_OK) return;
    xkd_status status = pack_run(j, p, &j->runs[index]);
    pthread_mutex_lock(&j->lock);
    /* The caller's context has the message; the thread's own is freed at the end. */
    if (status != XKD_OK && j->status == XKD_OK) j->status = xkd_fail(j->cx, status, "%s", xkd_last_error(p->cx));
    pthread_mutex_unlock(&j->lock);
}

/* The folder is this pack's, or becomes it. Several processes may begin at once: all write the same, and where one writes
 * something else it stands in the folder by the end of the others' work. */
static xkd_status claim_folder(job *j)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = j->cx;
    char *path = NULL, *text = NULL;
    int64_t size;
    XKD_TRY(xkd_make_folder(cx, j->options->out));
    XKD_TRY(xkd_join_path(cx, &path, j->options->out, XKD_PACK_FILE));
    if (!xkd_path_exists(path)) XKD_TRY(xkd_write_file(cx, path, j->text, (int64_t)strlen(j->text)));
    XKD_TRY(xkd_read_file(cx, path, (int64_t)64 << 20, XKD_ERR_DATA, &text, &size));
    if (strcmp(text, j->text))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "%s: holds a pack of other data or with other settings (%s says which): choose another --out, or "
                 "remove it",
                 j->options->out, path);
fail:
    xkd_free(path);
    xkd_free(text);
    return status;
}

static xkd_status make_packers(job *j)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = j->cx;
    XKD_TRY(xkd_alloc(cx, &j->packers, j->options->threads, sizeof *j->packers));
    for (int t = 0; t < j->options->threads; t++) {
        packer *p = &j->packers[t];
        /* A context of its own: one file's message must not hide another's. */
        p->cx = xkd_context_new();
        if (!p->cx) XKD_FAIL(XKD_ERR_MEMORY, "out of memory");
        XKD_TRY(xkd_worker_new(p->cx, NULL, j->data->decode_seconds, &p->worker));
        XKD_TRY(xkd_record_writer_new(p->cx, &j->options->settings.record, &p->record));
    }
fail:
    return status;
}

xkd_status xkd_packing_run(xkd_context *cx, const xkd_manifest *manifest, const xkd_data_config *data,
                           const xkd_packing_options *options, xkd_packing_result *out)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    xkd_packing_forecast forecast = {0};
    job j = {.cx = cx, .manifest = manifest, .data = data, .options = options};
    pthread_mutex_init(&j.lock, NULL);
    XKD_TRY(xkd_pack_settings_write(cx, &options->settings, manifest, &j.text));
    XKD_TRY(claim_folder(&j));
    XKD_TRY(xkd_alloc(cx, &j.runs, manifest->count, sizeof *j.runs));
    j.run_count = xkd_packing_cut(manifest, options, j.runs, &forecast);
    j.total = forecast.samples;
    XKD_TRY(make_packers(&j));
    XKD_TRY(xkd_pool_new(cx, &pool, options->threads));
    xkd_parallel_for(pool, j.run_count, run_one, &j);
    XKD_TRY(j.status);
    XKD_TRY(claim_folder(&j)); /* and it still is */
fail:
    *out = j.result;
    for (int t = 0; j.packers && t < options->threads; t++) {
        xkd_worker_free(j.packers[t].worker);
        xkd_record_writer_free(j.packers[t].record);
        xkd_context_free(j.packers[t].cx);
    }
    xkd_pool_free(pool);
    xkd_free(j.packers);
    xkd_free(j.runs);
    xkd_free(j.text);
    pthread_mutex_destroy(&j.lock);
    return status;
}
