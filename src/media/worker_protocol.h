/* What travels between xkd_worker and its process. Both ends are the same build, so plain structs do. */
#ifndef XKD_MEDIA_WORKER_PROTOCOL_H
#define XKD_MEDIA_WORKER_PROTOCOL_H

#include "media/media.h"

enum {
    WORKER_VERSION = 5,
    WORKER_SOCKET = 3, /* descriptors in the worker */
    WORKER_MEMORY = 4,
    WORKER_SLOTS = 2,
    /* The largest frame must fit. Untouched pages of a memfd cost nothing. */
    WORKER_SLOT_BYTES = 3 * XKD_MEDIA_MAX_PIXELS + 4096,
    /* A slot is handed over when it holds this much: few wake-ups, and still in the second-level cache. */
    WORKER_FLUSH_BYTES = 1 << 20,
    WORKER_SOUND = 1 << 16, /* samples gathered before they take a slot */
    WORKER_MESSAGE = 512
};

typedef struct {
    xkd_source source; /* fd: travels beside it */
    double cpu_seconds;
    xkd_media_request request;
} worker_request;

typedef enum { REPLY_HELLO, REPLY_BEGIN, REPLY_FRAMES, REPLY_SOUND, REPLY_DAMAGE, REPLY_END } worker_reply_kind;

typedef struct {
    int32_t kind; /* worker_reply_kind */
    int32_t slot; /* of FRAMES and SOUND */
    int64_t count, width, height, index;
    double start;
    xkd_media_stretch stretch; /* DAMAGE */
    xkd_media_info info;       /* BEGIN, END */
    xkd_media_span span;       /* END */
    xkd_media_tally tally;     /* END */
    int32_t fault, status;     /* END */
    char message[WORKER_MESSAGE];
} worker_reply;

/* Parent to worker while a request runs: the slot is free again. */
typedef struct {
    int32_t slot;
} worker_ack;

#endif
