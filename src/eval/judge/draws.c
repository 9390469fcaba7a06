#include "eval/judge/draws.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

static int by_path(const void *a, const void *b)
{
    return strcmp(((const xkd_clip_draw *)a)->path, ((const xkd_clip_draw *)b)->path);
}

int64_t xkd_clip_draws_of(const xkd_clip_draws *d, const char *path)
{
    const xkd_clip_draw key = {.path = (char *)(uintptr_t)path};
    const xkd_clip_draw *found = d->count ? bsearch(&key, d->file, (size_t)d->count, sizeof key, by_path) : NULL;
    return found ? found->number : -1;
}

xkd_status xkd_clip_draws_add(xkd_context *cx, xkd_clip_draws *d, const xkd_manifest *m, const char *split)
{
    xkd_status status = XKD_OK;
    int64_t number = 0, known = d->count;
    XKD_TRY(xkd_resize(cx, &d->file, d->count, d->count + m->count, sizeof *d->file));
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        if (s->split[0] && strcmp(s->split, split) != 0) continue;
        /* Sorted is only what was there before; within a fold no path occurs twice. */
        const xkd_clip_draws before = {.file = d->file, .count = known};
        if (xkd_clip_draws_of(&before, s->path) < 0) {
            XKD_TRY(xkd_copy_string(cx, &d->file[d->count].path, s->path));
            d->file[d->count++].number = number;
        }
        number++;
    }
    if (d->count) qsort(d->file, (size_t)d->count, sizeof *d->file, by_path);
fail:
    return status;
}

void xkd_clip_draws_free(xkd_clip_draws *d)
{
    for (int64_t i = 0; i < d->count; i++) xkd_free(d->file[i].path);
    xkd_free(d->file);
}
