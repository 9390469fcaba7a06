/* Commands that run as several processes: those that --ranks starts on this machine, and those that torchrun or another
 * launcher has started, here or elsewhere. */
#ifndef XKD_CLI_RANKS_H
#define XKD_CLI_RANKS_H

#include "cli.h"
#include "dist/dist.h"

/* The option of a command, for its table. */
#define RANKS_OPTION(VALUES, FIELD)                                                                                 \
    {                                                                                                               \
        0, "ranks", CLI_INT, offsetof(VALUES, FIELD), "N", "start N processes on this machine, which work together" \
    }

/* Who this process is, by its environment and --ranks (0: not given). *launch: it is the one that has to start the others,
 * with cli_launch_ranks, and does no more. */
xkd_status cli_ranks(struct cli *cli, int64_t ranks, xkd_dist_place *place, bool *launch);

/* Starts `ranks` processes of this same command line, passes signals on to them, and waits until all have ended. Returns
 * their common status, or that of the first that ended for a reason of its own. */
int cli_launch_ranks(struct cli *cli, int64_t ranks);

/* run.peer_timeout of the file (NULL: none) and of KEY=VALUE [count], for commands that meet before they have a configuration. */
xkd_status cli_peer_timeout(struct cli *cli, const char *file, char *const *overrides, int count, double *out);

/* Meets the other ranks, and shares the processors with those of this machine. From here on all but rank 0 are silent up to errors. */
xkd_status cli_join_ranks(struct cli *cli, xkd_dist_place *place, double timeout, xkd_dist **out);

/* The end of a command that ended with `status`; agreed: on all ranks alike. Returns the status to end with, and leaves its
 * message in the context. */
xkd_status cli_leave_ranks(struct cli *cli, xkd_dist *dist, xkd_status status, bool agreed);

#endif
