/* Which program a media worker is. */
#ifndef XKD_MEDIA_WORKER_PATH_H
#define XKD_MEDIA_WORKER_PATH_H

#include "base/status.h"

/* The path of the program to start, owned by the caller. In this order: `given`; the environment's XKD_WORKER; where this code
 * lies in a shared library, the xkd program beside that library (build folder), in the bin folder of its prefix, or where
 * `make install` was told to put it; else the running program, which then has the entry of <xkd/worker.h>. */
xkd_status xkd_worker_path(xkd_context *cx, const char *given, char **out);

#endif
