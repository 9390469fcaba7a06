/* The parent's side of a worker process.
 * A worker decodes files for us in a process of its own: it has limits of memory and time, and if it
 * crashes or hangs it is replaced and the file gets the blame. Pixels come through shared memory,
 * words through a socket of whole messages (worker_protocol.h). */
#include "media/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "media/worker_path.h"
#include "media/worker_protocol.h"

/* Starting a process with FFmpeg's libraries takes 0.1 s, on a loaded machine with cold disks much longer. */
static const double START_SECONDS = 60;

/* Seconds of media that may take the time limit of one clip when a whole file is decoded. */
static const double SECONDS_PER_LIMIT = 4;

/* A file whose spans are not known is read through before its first clip: so many bytes a second are expected of the
 * slowest disk, beside the limit of the clip itself. */
static const double SLOWEST_READ = 10e6;

/* The parent looks at its clock this often. A look that comes more than the grace later means that the parent itself stood
 * still (Ctrl-Z, a suspended job, a frozen container): that time is not the worker's. */
static const double LOOK_SECONDS = 0.1, LOOK_GRACE = 0.4;

/* How far the decoders may deliver past what they told of a whole file, for rounding and gaps. */
static const double PAST_END_SECONDS = 10, PAST_END_SHARE = 0.05;

/* A clip begins anew where an index was wrong, a few times at most (decode.c). */
enum { MOST_BEGINS = 16 };

/* Descriptors are moved up here first, so that giving the child its fixed numbers cannot overwrite one of them. */
enum { SAFE_DESCRIPTOR = 32 };

struct xkd_worker {
    xkd_context *cx;
    char *command;   /* path of the program to run */
    double seconds;  /* time limit of one clip */
    pid_t pid;       /* 0: not running */
    pid_t thread;    /* that started it, with which it dies */
    int socket;      /* -1: not running */
    uint8_t *memory; /* [WORKER_SLOTS][WORKER_SLOT_BYTES], MAP_FAILED: not yet */
    int memory_fd;
    int64_t restarts; /* workers lost so far */
};

extern char **environ;

/* The process is started by the first request, so that a worker never asked costs nothing. */
xkd_status xkd_worker_new(xkd_context *cx, const char *command, double seconds, xkd_worker **out)
{
    xkd_status status = XKD_OK;
    xkd_worker *w = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &w, 1, sizeof *w));
    *w = (xkd_worker){.cx = cx, .seconds = seconds, .socket = -1, .memory_fd = -1, .memory = MAP_FAILED};
    XKD_TRY(xkd_worker_path(cx, command, &w->command));
    *out = w;
    w = NULL;
fail:
    xkd_worker_free(w);
    return status;
}

/* Kills and reaps the process; returns how it ended (waitpid's status), 0 if there was none.
 * Ten looks of 0.5 ms before the kill, in which a crash becomes visible as such. */
static int stop(xkd_worker *w)
{
    int how = 0;
    if (w->socket >= 0) close(w->socket);
    w->socket = -1;
    if (w->pid > 0) {
        /* A process that died by itself keeps its own status: give it a moment to be a corpse. */
        for (int i = 0; i < 20; i++) {
            if (waitpid(w->pid, &how, WNOHANG) == w->pid) {
                w->pid = 0;
                return how;
            }
            if (i >= 10) kill(w->pid, SIGKILL);
            usleep(500);
        }
        kill(w->pid, SIGKILL);
        while (waitpid(w->pid, &how, 0) < 0 && errno == EINTR) continue;
    }
    w->pid = 0;
    return how;
}

/* The process goes first, while its memory is still mapped here. */
void xkd_worker_free(xkd_worker *w)
{
    if (!w) return;
    stop(w);
    if (w->memory != MAP_FAILED) munmap(w->memory, (size_t)WORKER_SLOTS * WORKER_SLOT_BYTES);
    if (w->memory_fd >= 0) close(w->memory_fd);
    xkd_free(w->command);
    xkd_free(w);
}

/* Under a hard limit of processor time (ulimit -t) the kernel kills a process that has used it up, and a healthy file would take
 * the blame. A fresh process has all of it again, and is made while there is enough left for a large file. */
static bool is_spent(const xkd_worker *w)
{
    struct rlimit limit;
    struct timespec used;
    clockid_t clock;
    if (w->pid <= 0 || getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_max == RLIM_INFINITY) return false;
    if (clock_getcpuclockid(w->pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return false;
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9 > (double)limit.rlim_max / 4;
}

int64_t xkd_worker_restarts(const xkd_worker *w)
{
    return w->restarts;
}

int xkd_worker_process(const xkd_worker *w)
{
    return (int)w->pid;
}

/* Made once and kept over restarts: the next worker gets the same memory. */
static xkd_status make_memory(xkd_worker *w)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    size_t size = (size_t)WORKER_SLOTS * WORKER_SLOT_BYTES;
    if (w->memory != MAP_FAILED) return XKD_OK;
    int fd = memfd_create("xkd-media", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) XKD_FAIL(XKD_ERR_MEMORY, "cannot make shared memory for a media worker: %s", strerror(errno));
    w->memory_fd = fcntl(fd, F_DUPFD_CLOEXEC, SAFE_DESCRIPTOR);
    close(fd);
    /* Sealed: a worker gone wrong cannot shrink it under our feet. */
    if (w->memory_fd < 0 || ftruncate(w->memory_fd, (off_t)size) != 0 ||
        fcntl(w->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        XKD_FAIL(XKD_ERR_MEMORY, "cannot make shared memory for a media worker: %s", strerror(errno));
    w->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, w->memory_fd, 0);
    if (w->memory == MAP_FAILED)
        XKD_FAIL(XKD_ERR_MEMORY, "cannot map shared memory for a media worker: %s", strerror(errno));
fail:
    return status;
}

/* The environment with a mark that its owner is a worker already. The caller frees the array, not the strings. */
static xkd_status mark_environment(xkd_context *cx, char ***out)
{
    static char mark[] = "XKD_IS_WORKER=1";
    int64_t count = 0;
    while (environ[count]) count++;
    xkd_status status = xkd_alloc(cx, out, count + 2, sizeof **out);
    if (status != XKD_OK) return status;
    memcpy(*out, environ, (size_t)count * sizeof **out);
    (*out)[count] = mark;
    return XKD_OK;
}

/* The child has /dev/null, stderr (for crash messages), its socket and the memory, and no other
 * descriptor. */
static int spawn(xkd_worker *w, int child_socket, char **environment)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    char *const argv[] = {w->command, "--media-worker", NULL};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, child_socket, WORKER_SOCKET);
    posix_spawn_file_actions_adddup2(&actions, w->memory_fd, WORKER_MEMORY);
    posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_MEMORY + 1);
    posix_spawnattr_init(&attributes);
    /* A group of its own: Ctrl-C on the terminal is for the parent. Signals as in a fresh process: with SIGXCPU blocked
     * the limit of processor time would do nothing. */
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    /* posix_spawn instead of fork: the parent has threads, locks and gigabytes of memory. */
    int code = posix_spawn(&w->pid, w->command, &actions, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) w->pid = 0;
    return code;
}

/* The next reply: 1 received, 0 the process is gone, -1 too late.
 * A reply of the wrong size counts as a dead process. A reply that waits is read whatever the time is. *waited sums up the
 * seconds spent here, of each look no more than it should have taken: what the caller does between two replies and time
 * in which the whole process stood still do not count. */
static int next_reply(xkd_worker *w, worker_reply *reply, double *waited, double limit)
{
    for (;;) {
        double begun = xkd_now();
        struct pollfd wait = {.fd = w->socket, .events = POLLIN};
        int ready = poll(&wait, 1, *waited < limit ? (int)(LOOK_SECONDS * 1000) : 0);
        if (ready < 0 && errno != EINTR) return 0;
        if (ready > 0) {
            ssize_t got = recv(w->socket, reply, sizeof *reply, MSG_DONTWAIT);
            if (got != sizeof *reply && !(got < 0 && (errno == EINTR || errno == EAGAIN))) return 0;
            *waited += fmin(xkd_now() - begun, LOOK_SECONDS + LOOK_GRACE);
            if (got == sizeof *reply) return 1;
            continue;
        }
        if (*waited >= limit) return -1;
        *waited += fmin(xkd_now() - begun, LOOK_SECONDS + LOOK_GRACE);
    }
}

/* The greeting carries the protocol's version, for the program named in XKD_WORKER may be an older
 * one. */
static xkd_status start(xkd_worker *w)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = w->cx;
    int pair[2] = {-1, -1}, child = -1;
    char **environment = NULL;
    worker_reply reply;
    double waited = 0;
    /* Another thread's worker may be dying with it this moment, and the file would get the blame. */
    if (w->pid > 0 && w->thread != gettid()) stop(w);
    if (w->pid > 0) return XKD_OK;
    w->thread = gettid();
    /* A program without the hidden entry would run itself again and again.
     * Set by mark_environment in every worker. */
    if (getenv("XKD_IS_WORKER"))
        XKD_FAIL(XKD_ERR_INTERNAL, "%s: was started as a media worker but has no such entry", w->command);
    XKD_TRY(mark_environment(cx, &environment));
    XKD_TRY(make_memory(w));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        XKD_FAIL(XKD_ERR_INTERNAL, "cannot make a socket for a media worker: %s", strerror(errno));
    w->socket = pair[0];
    child = fcntl(pair[1], F_DUPFD_CLOEXEC, SAFE_DESCRIPTOR);
    close(pair[1]);
    int code = child < 0 ? errno : spawn(w, child, environment);
    if (child >= 0) close(child);
    if (code != 0)
        XKD_FAIL(XKD_ERR_INTERNAL, "%s: cannot start a media worker: %s (set XKD_WORKER to the xkd program)",
                 w->command, strerror(code));
    if (next_reply(w, &reply, &waited, START_SECONDS) != 1 || reply.kind != REPLY_HELLO ||
        reply.count != WORKER_VERSION)
        XKD_FAIL(XKD_ERR_INTERNAL, "%s: is no media worker of this version (set XKD_WORKER to the xkd program)",
                 w->command);
fail:
    xkd_free(environment);
    if (status != XKD_OK) stop(w);
    return status;
}

/* The descriptor goes along, so the worker needs no access to paths. */
static bool send_request(xkd_worker *w, const worker_request *q, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {.iov_base = (void *)(uintptr_t)q, .iov_len = sizeof *q};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    ssize_t sent;
    /* Without waiting: a worker that does not read what it is sent is no worker any more. */
    do sent = sendmsg(w->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent == sizeof *q;
}

/* Nothing a worker says is believed unchecked: it may have been taken over by a file. */
static bool plausible(const worker_reply *r)
{
    if (r->slot < 0 || r->slot >= WORKER_SLOTS || r->count < 1) return false;
    if (r->kind == REPLY_SOUND) return r->count <= WORKER_SOUND;
    if (r->width < 1 || r->height < 1 || r->width > XKD_MEDIA_MAX_PIXELS || r->height > XKD_MEDIA_MAX_PIXELS)
        return false;
    int64_t frame = r->width * r->height * 3;
    return frame <= WORKER_SLOT_BYTES && r->count <= WORKER_SLOT_BYTES / frame && r->index >= 0;
}

static bool is_length(double x)
{
    return x >= 0 && x <= 1e12; /* false for NAN too */
}

static bool is_time(double x)
{
    return fabs(x) <= 1e12;
}

/* The same for what it says of the file: these values end up in manifests, sizes of buffers and output. */
static bool plausible_info(worker_reply *r)
{
    xkd_media_info *i = &r->info;
    i->format[sizeof i->format - 1] = i->video_codec[sizeof i->video_codec - 1] = 0;
    i->audio_codec[sizeof i->audio_codec - 1] = 0;
    char *const names[] = {i->format, i->video_codec, i->audio_codec};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (char *c = names[k]; *c; c++)
            if (*c <= ' ' || *c == 127) *c = '?';
    const double times[] = {i->video_start,
                            i->video_end,
                            i->audio_start,
                            i->audio_end,
                            i->start,
                            i->end,
                            i->video_last,
                            r->start,
                            r->span.video_start,
                            r->span.video_end,
                            r->span.audio_start,
                            r->span.audio_end,
                            r->span.video_last,
                            r->span.read_end,
                            r->tally.video_seen,
                            r->tally.audio_seen};
    const double lengths[] = {i->fps,
                              i->clock_step,
                              i->key_gap,
                              i->cut_at,
                              i->cut_of,
                              r->span.clock_step,
                              r->span.key_gap,
                              r->tally.video_damage,
                              r->tally.audio_damage,
                              r->tally.hole_seconds};
    const int64_t counts[] = {i->width,        i->height,        i->quarter_turns, i->sample_rate,
                              i->channels,     i->audio_track,   i->audio_tracks,  r->span.audio_track,
                              r->tally.frames, r->tally.samples, r->tally.errors,  r->tally.holes};
    for (size_t k = 0; k < sizeof times / sizeof *times; k++)
        if (!is_time(times[k])) return false;
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
        if (!is_length(lengths[k])) return false;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        if (counts[k] < 0) return false;
    return i->width <= XKD_MEDIA_MAX_PIXELS && i->height <= XKD_MEDIA_MAX_PIXELS && i->quarter_turns < 4 &&
           i->sample_rate <= XKD_MEDIA_MAX_RATE && i->channels <= INT32_MAX &&
           i->end - i->start <= XKD_MEDIA_MAX_SECONDS;
}

/* How much may still come. The sinks keep what they get, so a worker must not be able to send without end. */
typedef struct {
    int64_t frames, samples, stretches;
    int begins;
} allowance;

static void allow(allowance *a, const xkd_media_request *q, const xkd_media_info *info)
{
    double length = q->duration;
    if (q->mode == XKD_CLIP_WHOLE) length = (info->end - info->start) * (1 + PAST_END_SHARE) + PAST_END_SECONDS;
    /* The longer stream is decoded to its end where whole files are wanted. */
    if (q->mode == XKD_CLIP_WHOLE)
        length = fmin(fmax(length, (fmax(info->video_end, info->audio_end) - info->start) * (1 + PAST_END_SHARE) +
                                       PAST_END_SECONDS),
                      2.0 * XKD_MEDIA_MAX_SECONDS);
    a->frames = llround(length * q->fps);
    a->samples = llround(length * (double)q->audio_rate);
    a->stretches = XKD_MEDIA_MAX_STRETCHES;
    a->begins++;
}

/* The slot is given back by the acknowledgement, after the sink has copied from it; until then the
 * worker may not write there. A worker that does not read its acknowledgements finds out at the next reply that it waits
 * for one. */
static xkd_status take_slot(xkd_worker *w, const worker_reply *r, const xkd_media_sink *sink)
{
    xkd_status status = XKD_OK;
    const uint8_t *slot = w->memory + (size_t)r->slot * WORKER_SLOT_BYTES;
    if (r->kind == REPLY_SOUND) {
        status = sink->sound(sink->user, (const int16_t *)(const void *)slot, r->count);
    } else {
        for (int64_t i = 0; i < r->count && status == XKD_OK; i++)
            status = sink->frame(sink->user, slot + i * r->width * r->height * 3, r->width, r->height, r->index + i);
    }
    worker_ack ack = {.slot = r->slot};
    while (send(w->socket, &ack, sizeof ack, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR) continue;
    return status;
}

/* how < 0: the deadline passed. SIGXCPU is the limit of processor time, which is a time-out as well. */
static void blame(xkd_worker *w, xkd_media_result *result, int how, double limit)
{
    bool late = how < 0;
    int ended = stop(w);
    w->restarts++;
    if (WIFSIGNALED(ended) && WTERMSIG(ended) == SIGXCPU) late = true;
    result->fault = late ? XKD_FAULT_TIMEOUT : XKD_FAULT_CRASH;
    if (late)
        snprintf(result->message, sizeof result->message, "decoding took longer than %g s", limit);
    else if (WIFSIGNALED(ended))
        snprintf(result->message, sizeof result->message, "the decoder crashed (signal %d)", WTERMSIG(ended));
    else
        snprintf(result->message, sizeof result->message, "the decoder gave up (exit %d)", WEXITSTATUS(ended));
}

/* The text comes from a process that may be under a file's control: it is ended, and control
 * characters are made harmless for terminals and logs. */
static void finish(const worker_reply *r, xkd_media_result *result)
{
    result->fault = r->fault >= 0 && r->fault < XKD_FAULT_COUNT ? (xkd_media_fault)r->fault : XKD_FAULT_BROKEN;
    result->tally = r->tally;
    result->info = r->info;
    result->span = r->span;
    /* The fault's name stands before the message wherever both are told. */
    const char *text = r->message, refused[] = "refused: ";
    if (result->fault == XKD_FAULT_REFUSED && !strncmp(text, refused, sizeof refused - 1)) text += sizeof refused - 1;
    snprintf(result->message, sizeof result->message, "%.*s",
             (int)(sizeof r->message - 1 - (size_t)(text - r->message)), text);
    for (char *c = result->message; *c; c++)
        if ((unsigned char)*c < ' ') *c = '?'; /* a stream's name may hold anything */
}

/* False where the worker says what cannot be. */
static bool take_stretch(const worker_reply *r, const xkd_media_sink *sink, allowance *left, xkd_status *status)
{
    const xkd_media_stretch *s = &r->stretch;
    if (!left->begins || left->stretches-- == 0 || !is_length(s->from) || !is_length(s->to) || !(s->to > s->from))
        return false;
    if (sink->damage) *status = sink->damage(sink->user, s);
    return true;
}

/* What one reply does. Returns 1 to go on, 0 where the worker cannot be trusted, 2 at the end. */
static int take_reply(xkd_worker *w, worker_reply *r, const xkd_media_request *q, const xkd_media_sink *sink,
                      allowance *left, double *limit, xkd_media_result *result, xkd_status *status)
{
    bool decoding = q->mode != XKD_CLIP_NONE, whole = q->mode == XKD_CLIP_WHOLE;
    switch (r->kind) {
    case REPLY_END:
        if (!plausible_info(r)) return 0;
        finish(r, result);
        return 2;
    case REPLY_BEGIN:
        if (!decoding || !plausible_info(r) || left->begins == (whole ? 1 : MOST_BEGINS)) return 0;
        allow(left, q, &r->info);
        /* A whole file may take the limit once for every 4 s of it. */
        if (whole) *limit += w->seconds * fmax(r->info.end - r->info.start, 0) / SECONDS_PER_LIMIT;
        result->info = r->info;
        *status = sink->begin(sink->user, &r->info, r->start);
        return 1;
    case REPLY_DAMAGE: return decoding && take_stretch(r, sink, left, status);
    case REPLY_FRAMES:
    case REPLY_SOUND:
        if (!decoding || !left->begins || !plausible(r)) return 0;
        int64_t *room = r->kind == REPLY_SOUND ? &left->samples : &left->frames;
        if (r->count > *room) return 0;
        *room -= r->count;
        *status = take_slot(w, r, sink);
        return 1;
    default: return 0;
    }
}

/* A fault of the file is a result, not a status: status is for our own failures and for those of the
 * sink. NULL `request` asks for the description only. */
xkd_status xkd_worker_decode(xkd_worker *w, const xkd_source *source, const xkd_media_request *request,
                             const xkd_media_sink *sink, xkd_media_result *result)
{
    static const xkd_media_request DESCRIBE = {.mode = XKD_CLIP_NONE, .video = true, .audio = true};
    xkd_status status = XKD_OK;
    worker_request q = {.source = *source, .request = request ? *request : DESCRIBE};
    worker_reply r;
    allowance left = {0};
    double limit = w->seconds, waited = 0;
    *result = (xkd_media_result){0};
    if (!q.request.span.known && !source->record) limit += (double)source->size / SLOWEST_READ;
    /* Processor time is limited a little above the wall clock, against a parent that is stopped. Of a whole file the
     * parent's clock decides, once it knows how long it is: twelve days are no limit. */
    q.cpu_seconds = q.request.mode == XKD_CLIP_WHOLE ? 1e6 : limit + 1;
    if (is_spent(w)) stop(w);
    XKD_TRY(start(w));
    int how = send_request(w, &q, source->fd) ? 1 : 0;
    while (how == 1) {
        /* The limit may have grown with the file's length meanwhile. */
        how = next_reply(w, &r, &waited, limit);
        if (how == 1) how = take_reply(w, &r, &q.request, sink, &left, &limit, result, &status);
        if (how == 2) return XKD_OK;
        if (status != XKD_OK) {
            stop(w); /* it would go on decoding for nobody */
            goto fail;
        }
    }
    blame(w, result, how, limit);
fail:
    return status;
}
