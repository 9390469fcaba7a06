/* What inspect, convert, diff and verify have in common. */
#ifndef XKD_CLI_TENSOR_ARGS_H
#define XKD_CLI_TENSOR_ARGS_H

#include "checkpoint/tensor_file.h"
#include "cli.h"

/* A row of their option tables; `field` is an int64_t of `struct values`. */
#define HEADER_LIMIT_OPTION(field)                                                      \
    {                                                                                   \
        0, "header-limit", CLI_INT, offsetof(struct values, field), "MIB",              \
            "largest header of a safetensors file that is read, 1 to 1024 (default 16)" \
    }

/* Opens a tensor file with the option's value; 0 is the default. Of a run folder it is the newest checkpoint. XKD_ERR_CONFIG:
 * a folder without one, a value out of range. */
xkd_status tensor_args_open(xkd_context *cx, int64_t header_limit, const char *path, xkd_tensor_file *out);

#endif
