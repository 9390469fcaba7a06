/* A backend for what a configuration says. */
#ifndef XKD_BACKEND_OPEN_H
#define XKD_BACKEND_OPEN_H

#include "backend/backend.h"
#include "config/config.h"

/* As xkd_backend_new, in the precision of `config` on the device `name`. XKD_ERR_CONFIG where the device lacks it. */
xkd_status xkd_backend_open(xkd_context *cx, xkd_backend **out, const char *name, const xkd_config *config,
                            int threads);

#endif
