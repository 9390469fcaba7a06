/* Processor levels: the kernels are compiled once for each from one source, and one level is chosen for the whole
 * process at the first use. Nothing outside the kernels needs more than the architecture's baseline. */
#ifndef XKD_BACKEND_CPU_LEVELS_H
#define XKD_BACKEND_CPU_LEVELS_H

#include <stdbool.h>

#include "backend/backend.h"

/* Loops in double that are no operation on tensors: those of the linear SVM. n is a multiple of 8. Sums run in 16
 * interleaved lanes, in a fixed order on every level. */
typedef struct {
    double (*dot)(const double *a, const double *b, int64_t n);
    void (*add_scaled)(double *w, double scale, const double *x, int64_t n); /* w += scale * x */
} xkd_double_loops;

typedef struct {
    const char *name;                            /* "v2", "v3", "v4", "amx"; "neon" */
    const char *needs;                           /* instructions, for messages */
    bool present;                                /* this processor has them and the operating system enables them */
    void (*fill)(xkd_ops *ops, xkd_dtype dtype); /* overrides what the level does better in a run of this stored type */
    const xkd_double_loops *loops;
    bool tiles; /* products of bfloat16 have instructions of their own, and an order of sums of their own */
} xkd_cpu_level;

/* All levels of this build, the lowest first; *count of them. */
const xkd_cpu_level *xkd_cpu_levels(int *count);

/* The level of this process: the highest that is present, or the one that the environment variable XKD_CPU names.
 * XKD_ERR_CONFIG where that is unknown or not present, XKD_ERR_DEVICE where the processor has none. The answer never
 * changes afterwards, and the environment is only read. */
xkd_status xkd_cpu_level_choose(xkd_context *cx, const xkd_cpu_level **out);

/* Name of the level in use, "" where there is none: what checkpoints and features record. Static. */
const char *xkd_cpu_level_name(void);

/* Says in the log that `what` was made at level `before` and meets level `now`, and whether bits may differ. Nothing
 * where they are one, or where one is "" (made before levels were recorded). */
void xkd_cpu_level_note(xkd_context *cx, const char *what, const char *before, const char *now);

#endif
