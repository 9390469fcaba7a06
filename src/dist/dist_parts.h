/* What the parts of this folder share. */
#ifndef XKD_DIST_DIST_PARTS_H
#define XKD_DIST_DIST_PARTS_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "dist/dist.h"

enum { XKD_HOST_NAME = 64, XKD_LOST_TEXT = 512 };

/* Moves bytes between ranks: out[r] [out_bytes[r]] to rank r, in[r] [in_bytes[r]] from it; a rank's own entries are not
 * looked at. Both ends know all sizes. */
typedef struct {
    const void *const *out;
    const int64_t *out_bytes;
    void *const *in;
    const int64_t *in_bytes;
} xkd_exchange;

/* What goes in front of a message: which exchange it belongs to. */
typedef struct {
    uint32_t magic, round;
    int64_t bytes;
} xkd_message_head;

/* One direction of one connection in an exchange. */
typedef struct {
    xkd_message_head head;
    char *data;
    int64_t bytes, moved; /* moved: of head and data together */
} xkd_stream;

typedef struct xkd_heart xkd_heart;
typedef struct xkd_courier xkd_courier;

struct xkd_dist {
    xkd_context *cx;
    int rank, size;
    bool mpi; /* messages go through MPI and not the sockets */
    double timeout;
    char (*hosts)[XKD_HOST_NAME]; /* [size] */
    int *sockets;                 /* [size] to the other ranks, -1 for this one */
    uint32_t round;               /* exchanges so far: the two ends of one must agree on it */
    xkd_heart *heart;
    xkd_courier *courier; /* NULL until something is to be added up later */

    xkd_backend *device; /* of a rank whose device has met the others'; the caller's */
    bool asked;          /* of it to add up, since the last wait */
    double patience;     /* by xkd_now: until when the devices may take to meet */

    /* Set once, by whoever finds that a rank is lost. */
    _Atomic bool lost;
    char lost_text[XKD_LOST_TEXT]; /* valid behind `lost` */
    pthread_mutex_t lock;          /* of writing it */
    int wake[2];                   /* pipe: readable once a rank is lost */

    /* An exchange allocates nothing: its lists, [size] each, its streams, what is waited for, and the room for sums. */
    const void **out;
    void **in;
    int64_t *out_bytes, *in_bytes;
    xkd_stream *sending, *receiving;
    struct pollfd *polled; /* [2,size+1]: of exchanges, behind the ranks the pipe of losses; and of the heart */
    int64_t *numbers;      /* [size,XKD_MOST_NUMBERS] */
    float *room;           /* [size,share] */
    int64_t share;         /* floats of a rank's share of a bucket */
    uint16_t *packed;      /* [2,size,share] of sums in bfloat16, as sent and as received; NULL: float32 */
};

/* Floats of a rank's share of a bucket. */
int64_t xkd_dist_share(int64_t size);

/* Moves it; XKD_ERR_PEER where a rank is lost. */
xkd_status xkd_dist_exchange(xkd_dist *d, const xkd_exchange *e);

/* Notes that a rank is lost, and wakes whoever waits for it. The first text stays. */
void xkd_dist_note_lost(xkd_dist *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* XKD_ERR_PEER with the text of the loss, if there is one. */
xkd_status xkd_dist_look(xkd_dist *d);

/* Fills hosts, sockets, and hearts [size]: the sockets of heartbeats, -1 where there is none. */
xkd_status xkd_dist_meet(xkd_dist *d, const xkd_dist_place *place, int *hearts);

/* Sums on devices that have met: one more, and waiting for all of them. */
xkd_status xkd_devices_sum(xkd_dist *d, float *x, int64_t n);
xkd_status xkd_devices_wait(xkd_dist *d);

/* Ends the thread that adds up beside the caller; NULL is allowed. */
void xkd_courier_free(xkd_courier *courier);

/* Starts the thread that watches over the ranks; takes over hearts [size]. */
xkd_status xkd_heart_start(xkd_dist *d, const xkd_dist_place *place, const int *hearts);
/* Says goodbye, or with a status other than XKD_OK why this rank ends, and stops the thread. NULL is allowed. */
void xkd_heart_stop(xkd_heart *heart, xkd_status status, const char *why);

#endif
