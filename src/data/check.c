/* Finding what is wrong with the files of a data set before a run meets it: each is decoded as a
 * whole and judged by how it decodes, how long it is, and whether there is anything to hear. */
#include "data/check.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/pool.h"
#include "data/check_log.h"
#include "data/identity.h"
#include "data/links.h"
#include "data/manifest_rows.h"
#include "data/pack.h"
#include "media/worker.h"

static const double SYNC_SECONDS = 0.25; /* later starts than this are noticed by people and models */
/* The last packets may give a little less than they claim: less than this missing is no damage. */
static const double MISSING_SECONDS = 0.5, MISSING_SHARE = 0.02;
/* Decoding 30 s on the way to a clip takes about a second of a processor for small pictures, ten for large ones. */
static const double SLOW_KEY_SECONDS = 30;
enum { SILENCE_PEAK = 32 }; /* of 32767; below it a 16-bit file holds dither only */

/* Frames are only counted: the smallest size saves time. */
enum { CHECK_SIDE = 16 };

typedef struct {
    xkd_context *cx;
    xkd_worker *worker;   /* NULL where no file is opened */
    xkd_link_guard guard; /* only then */
    int peak;             /* of the file's sound */
} checker;

/* What is found of a file before it is noted. */
typedef struct {
    xkd_media_fault fault;
    char message[200], note[200];
    double seconds;
    bool looked;             /* it was opened: the next three say what it is */
    int64_t bytes, modified; /* not of a member or record */
    xkd_media_info info;
    xkd_media_span span;
    char hash[33];
    uint64_t identity; /* for the log */
} verdict;

typedef struct {
    xkd_context *cx;
    xkd_manifest *manifest; /* samples get sizes, lengths and hashes filled in */
    const xkd_data_config *data;
    const xkd_check_options *options;
    xkd_finding *findings; /* [samples], by sample number */
    checker *checkers;     /* one a thread */
    xkd_check_log *log;    /* NULL: none */
    xkd_check_known known; /* found by an earlier sitting */
    pthread_mutex_t lock;
    xkd_status status;   /* of the first failure of our own; files at fault are findings */
    int64_t done, share; /* of the samples that this rank looks at */
} job;

/* Files that cannot be used at all; the others are usable with a policy for short or silent clips. */
bool xkd_fault_is_broken(xkd_media_fault fault)
{
    return fault != XKD_FAULT_NONE && fault != XKD_FAULT_SHORT && fault != XKD_FAULT_NO_AUDIO &&
           fault != XKD_FAULT_OUT_OF_SYNC;
}

int64_t xkd_most_broken(double fraction, int64_t files)
{
    int64_t most = (int64_t)(fraction * (double)files);
    return most < 10 ? 10 : most;
}

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)info, (void)start;
    ((checker *)user)->peak = 0;
    xkd_tick(); /* a long film is no standstill */
    return XKD_OK;
}

/* Frames are of no interest beyond their number, which the tally has. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    xkd_tick();
    return XKD_OK;
}

/* -(-32768) fits an int, though not an int16_t. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    checker *c = user;
    for (int64_t i = 0; i < count; i++) {
        int level = samples[i] < 0 ? -samples[i] : samples[i];
        if (level > c->peak) c->peak = level;
    }
    return XKD_OK;
}

/* `format` describes the first thing that is wrong; later ones are dropped. */
__attribute__((format(printf, 3, 4))) static void find(verdict *f, xkd_media_fault fault, const char *format, ...)
{
    va_list args;
    if (f->fault != XKD_FAULT_NONE) return; /* the worst comes first */
    f->fault = fault;
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
}

/* The larger of a fixed time and a share: long films may be off by more. */
static bool ends_early(double seen, double end, double start)
{
    return end - seen > fmax(MISSING_SECONDS, MISSING_SHARE * (end - start));
}

static void find_step(verdict *f, const xkd_media_info *info)
{
    char words[200];
    xkd_media_step_words(info, words);
    find(f, XKD_FAULT_CLOCK, "%s", words);
}

/* A pause in a recording and lost sound look the same: silence in the clips. So where little is missing the file stays; clips
 * that have too much of it are replaced. */
static void find_damage(const job *j, const checker *c, const xkd_media_result *r, const xkd_sample *s, verdict *f)
{
    const xkd_media_tally *t = &r->tally;
    double length = r->info.audio_end - r->info.audio_start;
    char holes[100] = "";
    if (t->holes)
        snprintf(holes, sizeof holes, "%.2f of %.2f s of sound are missing in %lld place%s", t->hole_seconds, length,
                 (long long)t->holes, t->holes == 1 ? "" : "s");
    if (t->errors)
        find(f, XKD_FAULT_BROKEN, "%lld damaged packets%s%s", (long long)t->errors, t->holes ? ", and " : "", holes);
    else if (t->hole_seconds > j->data->max_clip_damage * length)
        find(f, XKD_FAULT_BROKEN, "%s (data.max_clip_damage=%g)", holes, j->data->max_clip_damage);
    else if (t->holes && f->fault == XKD_FAULT_NONE)
        xkd_log(c->cx, XKD_LOG_WARN, "%s: %s: clips are silent there", s->path, holes);
}

/* The default track may be the empty one, as of a microphone that was off. */
static void find_silence(verdict *f, const xkd_media_info *info)
{
    if (info->audio_tracks > 1)
        find(f, XKD_FAULT_NO_AUDIO,
             "nothing to hear in its sound (track %lld of %lld: data.audio_track=N takes another)",
             (long long)info->audio_track, (long long)info->audio_tracks);
    else
        find(f, XKD_FAULT_NO_AUDIO, "nothing to hear in its sound (data.audio_policy=silence takes it)");
}

/* Told of files in order: a clip is decoded from the key frame before it, so each takes as long as the way from there. */
static void note_keys(const xkd_media_info *info, verdict *f)
{
    if (f->fault == XKD_FAULT_NONE && info->has_video && info->key_gap > SLOW_KEY_SECONDS)
        snprintf(
            f->note, sizeof f->note,
            "key frames up to %.0f s apart: each clip is decoded from the one before it (ffmpeg -i FILE -c:a copy -g "
            "100 NEW.mp4 makes it fast)",
            info->key_gap);
}

/* What is wrong with a file that could be opened.
 * Order of the questions: no picture, damage, truncation, length, sound, start of streams. The first
 * one that applies is the finding. */
static void judge(const job *j, const checker *c, const xkd_media_result *r, const xkd_sample *s, verdict *f)
{
    const xkd_media_info *info = &r->info;
    const xkd_media_tally *t = &r->tally;
    const bool wanted[] = {!j->data->left_out[XKD_VIDEO], !j->data->left_out[XKD_AUDIO]};
    bool video = wanted[XKD_VIDEO] && info->has_video, audio = wanted[XKD_AUDIO] && info->has_audio;
    double clip = j->data->clip_duration, length = fmax(info->end - info->start, 0);
    /* A sound file in a set of videos; judged first, as all else would follow from it. */
    if (wanted[XKD_VIDEO] && !info->has_video) find(f, XKD_FAULT_NO_VIDEO, "no video stream");
    /* Known without decoding, and as wrong for `index` as for `check`. */
    if (info->clock_step > 0) find_step(f, info);
    if (info->cut_at > 0) find(f, XKD_FAULT_BROKEN, "cut off: it ends at %.2f s of %.2f s", info->cut_at, info->cut_of);
    if (j->options->decode) {
        find_damage(j, c, r, s, f);
        if (video && ends_early(t->video_seen, info->video_end, info->video_start))
            find(f, XKD_FAULT_BROKEN, "cut off: pictures end at %.2f s of %.2f s", t->video_seen - info->video_start,
                 info->video_end - info->video_start);
        if (audio && ends_early(t->audio_seen, info->audio_end, info->audio_start))
            find(f, XKD_FAULT_BROKEN, "cut off: sound ends at %.2f s of %.2f s", t->audio_seen - info->audio_start,
                 info->audio_end - info->audio_start);
        /* All wanted streams are needed for a clip: what ends first counts. */
        double seen = video && audio ? fmin(t->video_seen, t->audio_seen) : video ? t->video_seen : t->audio_seen;
        f->seconds = fmax(seen - info->start, 0);
    }
    /* One frame less than a clip is allowed: rounding of the stream's end. */
    bool placed = r->span.known || s->record; /* records have no span */
    if (placed && length < clip - 1 / j->data->video_fps) {
        bool still = video && audio && info->audio_end - info->start >= clip && info->video_end < info->audio_end;
        find(f, XKD_FAULT_SHORT, "%.2f s, shorter than a clip of %g s%s", length, clip,
             still ? " (pictures end before the sound: data.hold_last_frame=true keeps the last one)" : "");
    }
    if (wanted[XKD_AUDIO] && !info->has_audio && info->audio_tracks)
        find(f, XKD_FAULT_NO_AUDIO, "no sound track %lld, only %lld (set data.audio_track to one of them)",
             (long long)j->data->audio_track, (long long)info->audio_tracks);
    else if (wanted[XKD_AUDIO] && !info->has_audio)
        find(f, XKD_FAULT_NO_AUDIO, "no sound stream (data.audio_policy=silence takes it)");
    else if (audio && j->options->decode && c->peak < SILENCE_PEAK)
        find_silence(f, info);
    if (placed && video && audio && fabs(info->video_start - info->audio_start) > SYNC_SECONDS)
        find(f, XKD_FAULT_OUT_OF_SYNC, "sound starts %.2f s %s the picture",
             fabs(info->audio_start - info->video_start), info->audio_start > info->video_start ? "after" : "before");
}

/* By the file system alone. What is no file or lies elsewhere is told now, before it would be refused one by one. */
static xkd_status look_at_name(job *j, checker *c, const xkd_sample *s, verdict *f)
{
    xkd_status status = XKD_OK;
    struct stat info;
    bool out;
    XKD_TRY(xkd_link_guard_look(c->cx, &c->guard, j->manifest, s, &info, &out));
    if (!info.st_mode)
        find(f, XKD_FAULT_MISSING, "No such file");
    else if (out && !j->data->follow_links && !j->manifest->named)
        find(f, XKD_FAULT_REFUSED, "a link that leads out of the data folder (allow it with --follow-links)");
    else if (!S_ISREG(info.st_mode))
        find(f, XKD_FAULT_UNREADABLE, "not a regular file");
    f->bytes = info.st_mode ? (int64_t)info.st_size : -1;
    f->modified = info.st_mode ? xkd_modified(&info) : -1;
    if (info.st_mode) f->identity = xkd_stamp_identity(s, f->bytes, f->modified);
fail:
    return status;
}

static xkd_media_request request_of(const job *j)
{
    return (xkd_media_request){.mode = j->options->decode ? XKD_CLIP_WHOLE : XKD_CLIP_NONE,
                               .fps = j->data->video_fps,
                               .short_side = CHECK_SIDE,
                               .audio_rate = j->data->audio_rate,
                               .video = !j->data->left_out[XKD_VIDEO],
                               .audio = !j->data->left_out[XKD_AUDIO],
                               .stream_colour = j->data->stream_colour,
                               .hold_last_frame = j->data->hold_last_frame,
                               .all_pictures = true,
                               .audio_track = j->data->audio_track};
}

/* Only a failure of our own, such as memory, is a status. What the file did wrong is written into its
 * finding and the check goes on. */
static xkd_status look_inside(job *j, checker *c, const xkd_sample *s, verdict *f)
{
    xkd_status status = XKD_OK;
    xkd_media_result result = {0};
    xkd_media_fault fault;
    xkd_source source;
    xkd_media_request request = request_of(j);
    xkd_media_sink sink = {.user = c, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    status = xkd_manifest_open(c->cx, j->manifest, s, j->data->follow_links, &source, &fault);
    if (status != XKD_OK && fault != XKD_FAULT_NONE) {
        find(f, fault, "%.190s", xkd_last_error(c->cx));
        xkd_clear_error(c->cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    xkd_file_stamp(source.fd, &f->bytes, &f->modified);
    c->peak = 0; /* the worker may fail before on_begin */
    if (s->record) XKD_TRY(xkd_pack_fits(c->cx, j->manifest->pack, &request));
    XKD_TRY(xkd_worker_decode(c->worker, &source, &request, &sink, &result));
    f->looked = true;
    f->info = result.info;
    f->span = result.span;
    if (result.fault != XKD_FAULT_NONE) xkd_manifest_blame(j->manifest, s, result.message, sizeof result.message);
    /* A sound file is broken to the decoder, which misses frames; here it is one without video, which
     * `judge` says better. */
    if (result.fault != XKD_FAULT_NONE &&
        !(result.fault == XKD_FAULT_BROKEN && result.info.has_audio && !result.info.has_video))
        find(f, result.fault, "%.190s", result.message);
    if (f->fault == XKD_FAULT_NONE) judge(j, c, &result, s, f);
    if (!j->data->left_out[XKD_VIDEO]) note_keys(&result.info, f);
    /* A file that decodes but cannot be read to its end is told as unreadable, unless something worse was found. */
    if (j->options->hash && !s->record && xkd_hash_file(c->cx, &source, j->options->hash, f->hash) != XKD_OK) {
        find(f, XKD_FAULT_UNREADABLE, "%.190s", xkd_last_error(c->cx));
        xkd_clear_error(c->cx);
    }
fail:
    if (source.fd >= 0) close(source.fd);
    return status;
}

/* Sizes and lengths go into the manifest even where the file turns out bad. A pack's row has what was measured of the file
 * itself. */
static xkd_status describe(const job *j, xkd_context *cx, xkd_sample *s, const verdict *f)
{
    xkd_status status = XKD_OK;
    if (s->record) return XKD_OK;
    if (!xkd_sample_archive_length(s)) {
        s->bytes = f->bytes;
        s->modified = f->modified;
    }
    if (f->looked && (f->info.has_video || f->info.has_audio))
        XKD_TRY(xkd_sample_describe(cx, j->manifest, s, &f->info, &f->span));
    /* Also where there is none: one of another day would stand beside the size and time of today. */
    XKD_TRY(xkd_sample_set_hash(cx, j->manifest, s, f->hash, j->options->hash));
fail:
    return status;
}

static xkd_status keep_text(job *j, xkd_context *cx, const char *text, const char **out)
{
    *out = "";
    return text[0] ? xkd_pieces_copy(cx, &j->manifest->pieces, text, (int64_t)strlen(text), out) : XKD_OK;
}

/* Under the lock: the manifest's memory is for one thread at a time. */
static xkd_status settle(job *j, checker *c, int64_t i, const verdict *f)
{
    xkd_status status = XKD_OK;
    xkd_finding *out = &j->findings[i];
    XKD_TRY(describe(j, c->cx, &j->manifest->samples[i], f));
    out->fault = f->fault;
    out->seconds = f->seconds;
    XKD_TRY(keep_text(j, c->cx, f->message, &out->message));
    XKD_TRY(keep_text(j, c->cx, f->note, &out->note));
    if (j->log) XKD_TRY(xkd_check_log_add(j->log, c->cx, j->manifest, i, out, f->identity));
fail:
    return status;
}

static xkd_status check_one(job *j, checker *c, int64_t i)
{
    xkd_status status = XKD_OK;
    const xkd_sample *s = &j->manifest->samples[i];
    verdict f = {.bytes = -1, .modified = -1};
    if (j->options->names_only && !s->record)
        XKD_TRY(look_at_name(j, c, s, &f));
    else
        XKD_TRY(look_inside(j, c, s, &f));
    if (j->log && !f.identity) XKD_TRY(xkd_check_identity(c->cx, j->manifest, i, &f.identity));
    pthread_mutex_lock(&j->lock);
    status = settle(j, c, i, &f);
    pthread_mutex_unlock(&j->lock);
fail:
    return status;
}

/* What an earlier sitting found counts where the file is the same; what it says of another one must not stay. */
static xkd_status check_again(job *j, checker *c, int64_t i)
{
    xkd_status status = XKD_OK;
    const xkd_sample unknown = {.has_audio = -1, .has_video = -1, .bytes = -1, .modified = -1};
    xkd_sample *s = &j->manifest->samples[i];
    uint64_t now;
    XKD_TRY(xkd_check_identity(c->cx, j->manifest, i, &now));
    if (now == j->known.identity[i]) return XKD_OK;
    pthread_mutex_lock(&j->lock);
    if (!s->record && !xkd_sample_archive_length(s)) status = xkd_sample_take_facts(c->cx, j->manifest, s, &unknown);
    pthread_mutex_unlock(&j->lock);
    XKD_TRY(status);
    XKD_TRY(check_one(j, c, i));
fail:
    return status;
}

/* After the first failure of our own the rest is passed over. Findings are written by sample number,
 * so the result does not depend on the threads. */
static void run_one(void *arg, int64_t turn, int thread)
{
    job *j = arg;
    checker *c = &j->checkers[thread];
    int64_t index = turn * xkd_dist_size(j->options->dist) + xkd_dist_rank(j->options->dist);
    pthread_mutex_lock(&j->lock);
    if (j->status == XKD_OK && j->options->stop && j->options->stop(j->options->user))
        j->status = xkd_fail(j->cx, XKD_ERR_INTERRUPTED, "stopped");
    xkd_status before = j->status;
    pthread_mutex_unlock(&j->lock);
    if (before != XKD_OK) return;
    xkd_tick();
    xkd_status status = j->known.done[index] ? check_again(j, c, index) : check_one(j, c, index);
    pthread_mutex_lock(&j->lock);
    if (status != XKD_OK && j->status == XKD_OK) {
        /* The caller's context has the message; the thread's own is freed at the end. */
        j->status = xkd_fail(j->cx, status, "%s", xkd_last_error(c->cx));
    }
    j->done++;
    /* Under the lock: the callback is never called by two threads at once. */
    if (j->options->progress) j->options->progress(j->options->user, j->done, j->share);
    pthread_mutex_unlock(&j->lock);
}

/* A worker process and a context of its own: one bad file's message must not hide another's. */
static xkd_status open_checker(job *j, checker *c)
{
    xkd_context *cx = j->cx;
    xkd_status status = XKD_OK;
    c->cx = xkd_context_new();
    if (!c->cx) XKD_FAIL(XKD_ERR_MEMORY, "out of memory");
    if (j->options->names_only)
        XKD_TRY(xkd_link_guard_begin(cx, j->manifest, &c->guard));
    else
        XKD_TRY(xkd_worker_new(c->cx, NULL, j->data->decode_seconds, &c->worker));
fail:
    return status;
}

/* One checker a thread, made before the loop, so that none is started per file. */
static xkd_status run_all(job *j)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = j->cx;
    xkd_pool *pool = NULL;
    int threads = j->options->threads;
    if (threads < 1) XKD_FAIL(XKD_ERR_CONFIG, "--workers %d: give at least 1", threads);
    XKD_TRY(xkd_alloc(cx, &j->checkers, threads, sizeof *j->checkers));
    for (int t = 0; t < threads; t++) XKD_TRY(open_checker(j, &j->checkers[t]));
    XKD_TRY(xkd_pool_new(cx, &pool, threads));
    xkd_parallel_for(pool, j->share, run_one, j);
    status = j->status;
fail:
    for (int t = 0; j->checkers && t < threads; t++) {
        xkd_worker_free(j->checkers[t].worker);
        xkd_link_guard_end(&j->checkers[t].guard);
        xkd_context_free(j->checkers[t].cx);
    }
    xkd_pool_free(pool);
    xkd_free(j->checkers);
    return status;
}

static uint64_t hash_of_work(const xkd_manifest *m, const xkd_check_options *o)
{
    XXH64_hash_t hash = o->settings;
    for (int64_t i = 0; i < m->count; i++)
        hash = XXH3_64bits_withSeed(m->samples[i].path, strlen(m->samples[i].path) + 1, hash);
    return hash;
}

xkd_status xkd_check(xkd_context *cx, xkd_manifest *manifest, const xkd_data_config *data,
                     const xkd_check_options *options, xkd_finding *findings)
{
    xkd_status status = XKD_OK;
    job j = {.cx = cx, .manifest = manifest, .data = data, .options = options, .findings = findings};
    int64_t size = xkd_dist_size(options->dist), rank = xkd_dist_rank(options->dist), found = 0;
    pthread_mutex_init(&j.lock, NULL);
    j.share = (manifest->count - rank + size - 1) / size;
    XKD_TRY(xkd_alloc(cx, &j.known.done, manifest->count, sizeof *j.known.done));
    XKD_TRY(xkd_alloc(cx, &j.known.identity, manifest->count, sizeof *j.known.identity));
    XKD_TRY(xkd_dist_compare(cx, options->dist, hash_of_work(manifest, options), "other files or other options"));
    if (options->log)
        XKD_TRY(xkd_check_log_open(cx, options->log, (int)rank, options->settings, manifest, findings, &j.known, &found,
                                   &j.log));
    if (found && options->resumed) options->resumed(options->user, found, manifest->count);
    XKD_TRY(run_all(&j));
    if (options->dist) XKD_TRY(xkd_check_share(cx, options->dist, manifest, findings));
fail:
    /* Kept until the caller has written what it makes of the findings. */
    xkd_check_log_close(j.log);
    xkd_free(j.known.done);
    xkd_free(j.known.identity);
    pthread_mutex_destroy(&j.lock);
    return status;
}
