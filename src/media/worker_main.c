/* The worker process.
 * Single-threaded loop: receive a file, decode it, send what comes out in slots of shared memory. It
 * trusts the parent and distrusts the file. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "media/record.h"
#include "media/worker.h"
#include "media/worker_protocol.h"

/* Address space: an 8K film with 16 reference frames needs 1 GB; libraries and the shared slots 0.5 GB. */
static const rlim_t MEMORY_LIMIT = (rlim_t)4 << 30;

typedef struct {
    xkd_context *cx;
    uint8_t *memory;                            /* [WORKER_SLOTS][WORKER_SLOT_BYTES] */
    bool busy[WORKER_SLOTS];                    /* handed over and not yet acknowledged */
    int slot;                                   /* the one being filled */
    int64_t frames, width, height, first_index; /* frames in it */
    int64_t samples;                            /* in `sound` */
    int16_t sound[WORKER_SOUND];
    worker_reply reply;         /* the message being filled in */
    xkd_record_reader *records; /* made with the first record of a pack */
} worker_state;

/* The hidden first argument; a program must look for it before it does anything else. */
bool xkd_media_worker_requested(int argc, char **argv)
{
    return argc >= 2 && !strcmp(argv[1], "--media-worker");
}

/* A worker that cannot talk to its parent has nothing left to do. */
static void send_reply(worker_state *w, worker_reply_kind kind)
{
    w->reply.kind = kind;
    while (send(WORKER_SOCKET, &w->reply, sizeof w->reply, MSG_NOSIGNAL) < 0)
        if (errno != EINTR) _exit(1);
}

/* Waits until the current slot has been read by the parent. */
static uint8_t *claim_slot(worker_state *w)
{
    while (w->busy[w->slot]) {
        worker_ack ack;
        ssize_t got = recv(WORKER_SOCKET, &ack, sizeof ack, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got != sizeof ack || ack.slot < 0 || ack.slot >= WORKER_SLOTS) _exit(1);
        w->busy[ack.slot] = false;
    }
    return w->memory + (size_t)w->slot * WORKER_SLOT_BYTES;
}

/* Slots are used in turn. The next one is only waited for when it is needed, so decoding runs ahead
 * of the parent by the number of slots. */
static void hand_over(worker_state *w, worker_reply_kind kind, int64_t count)
{
    w->reply.slot = w->slot;
    w->reply.count = count;
    w->busy[w->slot] = true;
    send_reply(w, kind);
    w->slot = (w->slot + 1) % WORKER_SLOTS;
}

/* Frames of one slot have one size; a change of size is impossible within a clip (convert.c). */
static void flush_frames(worker_state *w)
{
    if (!w->frames) return;
    w->reply.width = w->width;
    w->reply.height = w->height;
    w->reply.index = w->first_index;
    hand_over(w, REPLY_FRAMES, w->frames);
    w->frames = 0;
}

/* Frames first, because both use the same current slot. */
static void flush_sound(worker_state *w)
{
    if (!w->samples) return;
    flush_frames(w);
    memcpy(claim_slot(w), w->sound, (size_t)w->samples * sizeof *w->sound);
    hand_over(w, REPLY_SOUND, w->samples);
    w->samples = 0;
}

/* The parent learns length and sizes before the first frame. */
static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    worker_state *w = user;
    /* Where it comes again, what waits for its slot is void. */
    w->frames = w->samples = 0;
    w->reply.info = *info;
    w->reply.start = start;
    send_reply(w, REPLY_BEGIN);
    return XKD_OK;
}

/* Handed over early once WORKER_FLUSH_BYTES are there, so that the parent can work meanwhile. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    worker_state *w = user;
    int64_t bytes = 3 * width * height;
    if (bytes > WORKER_SLOT_BYTES) return xkd_fail(w->cx, XKD_ERR_DATA, "a frame is larger than a slot");
    if ((w->frames + 1) * bytes > WORKER_SLOT_BYTES) flush_frames(w);
    uint8_t *slot = claim_slot(w);
    if (!w->frames) w->first_index = index;
    memcpy(slot + w->frames * bytes, rgb, (size_t)bytes);
    w->width = width;
    w->height = height;
    w->frames++;
    if (w->frames * bytes >= WORKER_FLUSH_BYTES) flush_frames(w);
    return XKD_OK;
}

/* Sound is collected apart, as it comes in small pieces between the frames. */
static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    worker_state *w = user;
    while (count > 0) {
        int64_t room = WORKER_SOUND - w->samples, take = count < room ? count : room;
        memcpy(w->sound + w->samples, samples, (size_t)take * sizeof *samples);
        w->samples += take;
        samples += take;
        count -= take;
        if (w->samples == WORKER_SOUND) flush_sound(w);
    }
    return XKD_OK;
}

/* At once, and so before what is still gathered. */
static xkd_status on_damage(void *user, const xkd_media_stretch *stretch)
{
    worker_state *w = user;
    w->reply.stretch = *stretch;
    send_reply(w, REPLY_DAMAGE);
    return XKD_OK;
}

/* The soft limit is raised from request to request; reaching it kills the process, which the parent sees.
 * RLIMIT_CPU counts the whole life of the process, hence the time used so far is added. */
static void limit_processor_time(double seconds)
{
    struct rusage used;
    struct rlimit limit;
    if (getrusage(RUSAGE_SELF, &used) != 0 || getrlimit(RLIMIT_CPU, &limit) != 0) return;
    limit.rlim_cur = (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec + 2) + (rlim_t)seconds;
    /* At the hard limit itself the kernel would not say why it kills. */
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_cur >= limit.rlim_max)
        limit.rlim_cur = limit.rlim_max > 1 ? limit.rlim_max - 1 : limit.rlim_max;
    setrlimit(RLIMIT_CPU, &limit);
}

/* A media file. The descriptor goes with the media. */
static xkd_status serve_file(worker_state *w, const worker_request *q, const xkd_media_sink *sink,
                             xkd_media_tally *tally, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    xkd_media *media = NULL;
    xkd_media_options options = {.video = q->request.video,
                                 .audio = q->request.audio,
                                 .hold_last_frame = q->request.hold_last_frame,
                                 .audio_track = q->request.audio_track,
                                 .span = q->request.span};
    XKD_TRY(xkd_media_open_source(w->cx, &q->source, "", &options, &media, fault));
    w->reply.info = *xkd_media_about(media);
    w->reply.span = *xkd_media_spans(media);
    if (q->request.mode != XKD_CLIP_NONE) status = xkd_media_decode(media, &q->request, sink, tally, fault);
fail:
    xkd_media_free(media);
    return status;
}

/* A record of a pack. */
static xkd_status serve_record(worker_state *w, const worker_request *q, const xkd_media_sink *sink,
                               xkd_media_tally *tally, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    if (!w->records) XKD_TRY(xkd_record_reader_new(w->cx, &w->records));
    XKD_TRY(xkd_record_open(w->records, &q->source, fault));
    status = xkd_record_decode(w->records, &q->request, sink, &w->reply.info, tally, fault);
fail:
    close(q->source.fd);
    return status;
}

/* One request. Failures go back as text and a fault; the loop goes on with the next file. */
static void serve(worker_state *w, const worker_request *q)
{
    xkd_media_fault fault = XKD_FAULT_NONE;
    xkd_media_sink sink = {.user = w, .begin = on_begin, .frame = on_frame, .sound = on_sound, .damage = on_damage};
    xkd_media_tally tally = {0};
    limit_processor_time(q->cpu_seconds);
    memset(&w->reply, 0, sizeof w->reply);
    xkd_clear_error(w->cx);
    xkd_status status = (q->source.record ? serve_record : serve_file)(w, q, &sink, &tally, &fault);
    flush_frames(w);
    flush_sound(w);
    for (w->slot = 0; w->slot < WORKER_SLOTS; w->slot++) claim_slot(w); /* so that no late ack meets a new request */
    w->slot = 0;
    const char *text = xkd_last_error(w->cx);
    if (!strncmp(text, ": ", 2)) text += 2; /* the file's name is the parent's to know */
    if (status != XKD_OK && fault == XKD_FAULT_NONE) fault = XKD_FAULT_BROKEN;
    w->reply.status = status;
    w->reply.fault = (int32_t)fault;
    w->reply.tally = tally;
    snprintf(w->reply.message, sizeof w->reply.message, "%s", status == XKD_OK ? "" : text);
    send_reply(w, REPLY_END);
}

/* One request with its descriptor; false: the parent is gone.
 * The descriptor is ours from here on and closed with the media. */
static bool receive(worker_request *q)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = q, .iov_len = sizeof *q};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    do got = recvmsg(WORKER_SOCKET, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (got != sizeof *q || !header || header->cmsg_type != SCM_RIGHTS) return false;
    memcpy(&q->source.fd, CMSG_DATA(header), sizeof q->source.fd);
    return true;
}

/* What a taken-over decoder should not be able to do: outlive its parent, gain rights, write files or
 * core dumps, or take all memory. */
static void confine(void)
{
    struct rlimit none = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* Schedulers signal every process of a job; only the parent decides what that means. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &none);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they reserve terabytes of addresses */
    struct rlimit memory = {MEMORY_LIMIT, MEMORY_LIMIT};
    setrlimit(RLIMIT_AS, &memory);
#else
    (void)MEMORY_LIMIT;
#endif
}

/* Ends when the parent closes the socket. Return values are exit codes. */
int xkd_media_worker_main(int argc, char **argv)
{
    worker_state *w = NULL;
    worker_request request;
    (void)argc, (void)argv;
    confine();
    xkd_context *cx = xkd_context_new();
    if (!cx || xkd_alloc(cx, &w, 1, sizeof *w) != XKD_OK) return XKD_ERR_MEMORY;
    w->cx = cx;
    w->memory =
        mmap(NULL, (size_t)WORKER_SLOTS * WORKER_SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, WORKER_MEMORY, 0);
    if (w->memory == MAP_FAILED) return XKD_ERR_MEMORY;
    w->reply.count = WORKER_VERSION;
    send_reply(w, REPLY_HELLO);
    while (receive(&request)) serve(w, &request);
    xkd_record_reader_free(w->records);
    xkd_free(w);
    xkd_context_free(cx);
    return 0;
}
