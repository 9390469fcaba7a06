/* A list of faults that becomes one message. */
#include "checkpoint/differences.h"

#include <inttypes.h>
#include <stdio.h>

/* More would scroll the beginning away. */
enum { LISTED = 20 };

xkd_differences xkd_differences_make(xkd_context *cx)
{
    return (xkd_differences){.text = xkd_text_make(cx)};
}

/* "[3,4]"; cut where it does not fit. */
static void shape_text(char *out, size_t size, const xkd_shape *shape)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < shape->ndim && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRId64, i ? "," : "", shape->dims[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

void xkd_differences_add(xkd_differences *d, const char *what, const char *name, const xkd_shape *theirs,
                         const xkd_shape *ours)
{
    char a[200] = "", b[200] = "";
    if (d->count++ >= LISTED) return;
    if (theirs) shape_text(a, sizeof a, theirs);
    if (ours) shape_text(b, sizeof b, ours);
    xkd_text_printf(&d->text, "\n  %.200s %s", name, what);
    if (theirs && ours) xkd_text_printf(&d->text, " %s in the file, %s in the model", a, b);
}

xkd_status xkd_differences_report(xkd_context *cx, xkd_differences *d, const char *path)
{
    if (d->count > LISTED) xkd_text_printf(&d->text, "\n  and %" PRId64 " more", d->count - LISTED);
    xkd_status status = d->text.status;
    if (status == XKD_OK && d->count > 0)
        status = xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: of another architecture: %" PRId64 " difference%s%s", path,
                          d->count, d->count == 1 ? "" : "s", d->text.data);
    xkd_differences_free(d);
    return status;
}

void xkd_differences_free(xkd_differences *d)
{
    xkd_text_free(&d->text);
}
