/* Pictures that need not be decoded: nothing refers to them, and no grid time is theirs. In a film of 30 pictures a second
 * with B-pictures that is half of them. All others are decoded as ever, so what is delivered stays the same to the bit. */
#ifndef XKD_MEDIA_SKIP_H
#define XKD_MEDIA_SKIP_H

#include <stdbool.h>

#include "media/internal.h"

enum {
    XKD_SKIP_AHEAD = 2, /* packets that wait for what follows them: the next B-picture ends the time of this one */
    XKD_SKIP_SEEN = 64  /* time stamps that are remembered; pictures are reordered over 16 at most */
};

/* Packets of the video stream on their way to the decoder. */
typedef struct {
    const xkd_media *media;
    AVPacket *waiting[XKD_SKIP_AHEAD + 1];
    int count;
    int64_t seen[XKD_SKIP_SEEN]; /* time stamps of the last packets, a ring */
    int64_t seen_count;
    int64_t spared; /* pictures left out so far */
    int64_t first;  /* time stamp of the first packet since the seek */
    bool on;        /* pictures may be left out; off for good where time stamps are irregular */
} xkd_skipper;

/* Whether pictures of this stream can be left out: H.264 of whole frames, with B-pictures that say so. */
void xkd_skipper_begin(xkd_skipper *skipper, const xkd_media *media);
void xkd_skipper_clear(xkd_skipper *skipper); /* after a seek, and at the end: gives the packets back */

/* Takes the packet, whose memory moves here. XKD_ERR_MEMORY. */
xkd_status xkd_skipper_push(xkd_skipper *skipper, AVPacket *packet);

/* The oldest packet, if enough have come behind it or `all` must go; its time ends where *until says, or later pictures end
 * it before. The caller frees it. NULL: none. */
AVPacket *xkd_skipper_pop(xkd_skipper *skipper, bool all, int64_t *until);

/* Whether the packet may be left out as far as other pictures are concerned. */
bool xkd_skipper_spares(const xkd_skipper *skipper, const AVPacket *packet);

#endif
