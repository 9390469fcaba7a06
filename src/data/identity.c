/* Names are no contents: results that are kept beside names alone would be taken for those of other files. */
#include "data/identity.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/pack.h"

xkd_status xkd_sample_identity(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, uint64_t *out)
{
    char *path = NULL, text[80] = "";
    struct stat info;
    *out = 0;
    if (s->record) {
        *out = xkd_pack_identity(m->pack, s->record - 1);
        return XKD_OK;
    }
    xkd_status status = xkd_join_path(cx, &path, m->root, s->path);
    if (status != XKD_OK) return status;
    if (s->archive_length) path[strlen(path) - strlen(s->path) + (size_t)s->archive_length] = 0;
    bool there = stat(path, &info) == 0;
    /* A machine that does a shard of the work need not have the files of the others. */
    if (s->hash[0] && (!there || s->bytes < 0 || s->archive_length || s->bytes == (int64_t)info.st_size))
        snprintf(text, sizeof text, "%s", s->hash);
    else if (there)
        snprintf(text, sizeof text, "%lld %lld.%09ld", (long long)info.st_size, (long long)info.st_mtim.tv_sec,
                 info.st_mtim.tv_nsec);
    /* Members of one archive have its size and time in common. */
    size_t used = strlen(text);
    if (used && s->archive_length) snprintf(text + used, sizeof text - used, " %lld", (long long)s->member_at);
    if (text[0]) *out = XXH3_64bits(text, strlen(text));
    xkd_free(path);
    return XKD_OK;
}
