/* Media from strangers is decoded in worker processes, which are this program started again with special arguments. A
 * program that pre-trains therefore begins its main with
 *
 *     if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
 *
 * or sets the environment variable XKD_WORKER to the path of the xkd program. */
#ifndef XKD_WORKER_H
#define XKD_WORKER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the process was started as a worker. */
bool xkd_media_worker_requested(int argc, char **argv);

/* Serves decoding requests until the parent goes away; returns the exit status. */
int xkd_media_worker_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
