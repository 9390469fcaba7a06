/* A manifest of records: a choice of a pack's samples, with labels and splits of its own. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/manifest_rows.h"
#include "data/pack.h"

static int by_path(const void *a, const void *b)
{
    return strcmp((*(const xkd_sample *const *)a)->path, (*(const xkd_sample *const *)b)->path);
}

xkd_status xkd_manifest_attach(xkd_context *cx, xkd_manifest *m, const char *file, const char *pack)
{
    xkd_status status = XKD_OK;
    xkd_manifest packed = {0};
    const xkd_sample **sorted = NULL;
    if (!xkd_is_pack(pack)) XKD_FAIL(XKD_ERR_DATA, "%s: \"pack\": %s is no pack (correct the first line)", file, pack);
    XKD_TRY(xkd_pack_read(cx, pack, &packed));
    XKD_TRY(xkd_alloc(cx, &sorted, packed.count, sizeof *sorted));
    for (int64_t i = 0; i < packed.count; i++) sorted[i] = &packed.samples[i];
    if (packed.count) qsort(sorted, (size_t)packed.count, sizeof *sorted, by_path);
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *key = &m->samples[i];
        const xkd_sample **found =
            packed.count ? bsearch(&key, sorted, (size_t)packed.count, sizeof *sorted, by_path) : NULL;
        if (!found)
            XKD_FAIL(XKD_ERR_DATA, "%s: %s is not in the pack %s (take its line out, or pack it)", file, key->path,
                     pack);
        XKD_TRY(xkd_sample_take_facts(cx, m, &m->samples[i], *found));
        m->samples[i].record = (*found)->record;
    }
    m->pack = xkd_pack_share(packed.pack);
    xkd_free(m->root);
    m->root = NULL;
    XKD_TRY(xkd_copy_string(cx, &m->root, pack));
fail:
    xkd_free(sorted);
    xkd_manifest_free(&packed);
    return status;
}
