/* Status codes of the library. Each value is also the exit code of the `xkd` program. */
#ifndef XKD_STATUS_H
#define XKD_STATUS_H

#include <xkd/api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    XKD_OK = 0,
    XKD_ERR_INTERNAL = 1,     /* a fault of this library: please report it */
    XKD_ERR_CONFIG = 2,       /* usage, configuration or an existing run folder */
    XKD_ERR_DATA = 3,         /* media, manifests, data sets */
    XKD_ERR_CHECKPOINT = 4,   /* a checkpoint or tensor file was refused */
    XKD_ERR_STORAGE = 5,      /* reading or writing a file failed */
    XKD_ERR_NUMERIC = 6,      /* non-finite numbers past the budget */
    XKD_ERR_PEER = 7,         /* another rank was lost */
    XKD_ERR_MEMORY = 8,       /* out of memory */
    XKD_ERR_DEVICE = 9,       /* the device failed or is absent */
    XKD_ERR_PREEMPTED = 75,   /* stopped by SIGTERM, SIGUSR1, SIGUSR2 or SIGHUP; the run is saved */
    XKD_ERR_INTERRUPTED = 130 /* stopped by Ctrl-C; the run is saved */
} xkd_status;

/* Short name of a status, e.g. "data". Static string, never NULL. */
XKD_API const char *xkd_status_name(xkd_status status);

#ifdef __cplusplus
}
#endif
#endif
