/* What is wrong with the tensors of a file for a model: collected before anything is refused, since the first fault
 * rarely tells what was changed. */
#ifndef XKD_CHECKPOINT_DIFFERENCES_H
#define XKD_CHECKPOINT_DIFFERENCES_H

#include "base/text.h"
#include "tensor/dtype.h"

typedef struct {
    xkd_text text; /* the first of them, a line each */
    int64_t count;
} xkd_differences;

xkd_differences xkd_differences_make(xkd_context *cx);

/* Notes "NAME WHAT" and, where both shapes are given, those of the file and of the model. */
void xkd_differences_add(xkd_differences *d, const char *what, const char *name, const xkd_shape *theirs,
                         const xkd_shape *ours);

/* XKD_OK if nothing was noted, else XKD_ERR_CHECKPOINT with the count and the first 20. Frees the list in any case. */
xkd_status xkd_differences_report(xkd_context *cx, xkd_differences *d, const char *path);
void xkd_differences_free(xkd_differences *d);

#endif
