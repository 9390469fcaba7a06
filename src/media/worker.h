/* Decoding in another process: a file that crashes or stalls the decoder costs one clip, not the run.
 *
 * A worker is this program (or any with the entry below) started by exec with "--media-worker". It gets a socket, a piece
 * of shared memory with two slots, and nothing else; per request it is handed one open descriptor. Results come back slot
 * by slot in constant memory. It limits its own memory and processor time and dies with its parent. */
#ifndef XKD_MEDIA_WORKER_H
#define XKD_MEDIA_WORKER_H

#include <xkd/worker.h>

#include "base/status.h"
#include "media/media.h"

typedef struct xkd_worker xkd_worker;

/* How one request ended. */
typedef struct {
    xkd_media_fault fault; /* XKD_FAULT_NONE: all well */
    char message[512];     /* what was wrong, without the file's name */
    xkd_media_info info;   /* when the file could be opened */
    xkd_media_span span;   /* the same: .known, whether it was given or found */
    xkd_media_tally tally;
} xkd_media_result;

/* `command`: the program to start; NULL: found as media/worker_path.h says. `seconds`: time limit of one clip (a whole file
 * gets as much for every four seconds it lasts). The process starts with the first request and is used by one thread at a
 * time. It dies with the thread that started it; a request from another thread starts a fresh one. Free with xkd_worker_free. */
xkd_status xkd_worker_new(xkd_context *cx, const char *command, double seconds, xkd_worker **out);
void xkd_worker_free(xkd_worker *worker); /* NULL is allowed */

/* Decodes from the source, whose descriptor the caller keeps. What is wrong with the file stands in *result, with XKD_OK; the status
 * is only for our own troubles: the worker cannot be started (XKD_ERR_INTERNAL), or a callback's status. A request of NULL
 * only opens the file, both streams, and fills result->info and span; so does XKD_CLIP_NONE for the streams it wants. After a crash or time-out the next request starts a fresh process. */
xkd_status xkd_worker_decode(xkd_worker *worker, const xkd_source *source, const xkd_media_request *request,
                             const xkd_media_sink *sink, xkd_media_result *result);

/* Process number, 0 while none runs; lets tests do to it what a bad file would. */
int xkd_worker_process(const xkd_worker *worker);

/* Processes that had to be replaced so far. */
int64_t xkd_worker_restarts(const xkd_worker *worker);

#endif
