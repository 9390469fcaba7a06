/* Ranks of a test, which are processes of this machine. */
#ifndef XKD_TESTS_JOIN_RANKS_H
#define XKD_TESTS_JOIN_RANKS_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "dist/dist.h"
#include "dist/socket.h"

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

/* What a rank does; 0 where all is well. */
typedef int (*rank_work)(xkd_context *cx, xkd_dist *dist, const void *user);

/* Forks `size` ranks and waits for them. codes[r]: what the work of rank r came to, 99 where it met nobody, 200 + the signal that ended
 * it. */
static inline void fork_ranks(xkd_context *cx, int size, rank_work work, const void *user, int *codes)
{
    int listener, port;
    if (xkd_listen_everywhere(cx, 0, &listener, &port) != XKD_OK) listener = -1; /* they meet nobody */
    fflush(NULL);
    for (int r = 0; r < size; r++) {
        codes[r] = fork();
        if (codes[r]) continue;
        xkd_context *own = xkd_context_new();
        xkd_dist *dist = NULL;
        if (listener < 0 || join_ranks(own, r, size, listener, port, 20, &dist) != XKD_OK) _exit(99);
        int code = work(own, dist, user);
        if (code) fprintf(stderr, "# rank %d: %s\n", r, xkd_last_error(own));
        (void)xkd_dist_leave(dist, code ? XKD_ERR_PEER : XKD_OK, "the case failed");
        _exit(code);
    }
    if (listener >= 0) close(listener);
    for (int r = 0; r < size; r++) {
        int how;
        waitpid(codes[r], &how, 0);
        codes[r] = WIFEXITED(how) ? WEXITSTATUS(how) : 200 + WTERMSIG(how);
    }
}

#endif
