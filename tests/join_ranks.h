/* Ranks of a test, which are processes of this machine. */
#ifndef XKD_TESTS_JOIN_RANKS_H
#define XKD_TESTS_JOIN_RANKS_H

#include <unistd.h>

#include "dist/dist.h"

/* Rank `rank` of `size` meets the others at `port`, where rank 0 listens already; the others close its listener. */
static inline xkd_status join_ranks(xkd_context *cx, int rank, int size, int listener, int port, double timeout,
                                    xkd_dist **out)
{
    const xkd_dist_place place = {.rank = rank,
                                  .size = size,
                                  .address = "127.0.0.1",
                                  .port = port,
                                  .listener = rank == 0 ? listener : -1,
                                  .token = 7,
                                  .timeout = timeout};
    if (rank != 0) close(listener);
    return xkd_dist_join(cx, &place, out);
}

#endif
