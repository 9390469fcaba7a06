/* Media from strangers is decoded in worker processes. libxkd.so starts the xkd program that was installed with it, so a
 * program that links it has nothing to do. A program that links the static library, or that is shipped without xkd, is
 * started again itself and begins its main with
 *
 *     if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
 *
 * The environment variable XKD_WORKER names another program with this entry. */
#ifndef XKD_WORKER_H
#define XKD_WORKER_H

#include <stdbool.h>
#include <xkd/api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the process was started as a worker. */
XKD_API bool xkd_media_worker_requested(int argc, char **argv);

/* Serves decoding requests until the parent goes away; returns the exit status. */
XKD_API int xkd_media_worker_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
