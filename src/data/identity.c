/* Names are no contents: results that are kept beside names alone would be taken for those of other files. */
#include "data/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "data/pack.h"

/* Of `size` bytes at `at`; less where the file has shrunk meanwhile. */
static xkd_status hash_piece(xkd_context *cx, XXH3_state_t *state, const xkd_source *file, int64_t at, int64_t size)
{
    enum { PIECE = 1 << 18 }; /* 256 KiB: large enough that calls do not matter */
    xkd_status status = XKD_OK;
    uint8_t *buffer = NULL;
    XKD_TRY(xkd_alloc(cx, &buffer, PIECE, 1));
    for (int64_t end = at + size; at < end;) {
        /* pread leaves the position alone: the worker gets the same descriptor. */
        ssize_t got = pread(file->fd, buffer, end - at < PIECE ? (size_t)(end - at) : PIECE, file->offset + at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            XKD_FAIL(XKD_ERR_STORAGE, "cannot read: %s (copy the file again, or take it out)", strerror(errno));
        if (got == 0) break;
        XXH3_128bits_update(state, buffer, (size_t)got);
        at += got;
        xkd_tick(); /* a large file is no standstill */
    }
fail:
    xkd_free(buffer);
    return status;
}

/* Names and dates of files do not matter. */
xkd_status xkd_hash_file(xkd_context *cx, const xkd_source *file, int of, char out[33])
{
    enum { END = 64 << 10 };
    xkd_status status = XKD_OK;
    XXH3_state_t *state = XXH3_createState();
    if (!state) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while hashing a file");
    XXH3_128bits_reset(state);
    if (of == XKD_HASH_HEAD) XXH3_128bits_update(state, &file->size, sizeof file->size);
    if (of == XKD_HASH_HEAD && file->size > 2 * END) {
        XKD_TRY(hash_piece(cx, state, file, 0, END));
        XKD_TRY(hash_piece(cx, state, file, file->size - END, END));
    } else {
        XKD_TRY(hash_piece(cx, state, file, 0, file->size));
    }
    /* 32 hexadecimal digits, the high half first. */
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
fail:
    XXH3_freeState(state);
    return status;
}

/* Members of one archive have its size and time in common. */
static uint64_t identity_of_text(const xkd_sample *s, char *text, size_t size)
{
    size_t used = strlen(text);
    if (xkd_sample_archive_length(s)) snprintf(text + used, size - used, " %lld", (long long)s->more->member_at);
    return XXH3_64bits(text, strlen(text));
}

uint64_t xkd_stamp_identity(const xkd_sample *s, int64_t bytes, int64_t modified)
{
    char text[80];
    int64_t second = 1000000000;
    snprintf(text, sizeof text, "%lld %lld.%09lld", (long long)bytes, (long long)(modified / second),
             (long long)(modified % second));
    return identity_of_text(s, text, sizeof text);
}

xkd_status xkd_sample_identity(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, uint64_t *out)
{
    char *path = NULL, text[80], hash[33];
    struct stat info;
    *out = 0;
    if (s->record) {
        *out = xkd_pack_identity(m->pack, s->record - 1);
        return XKD_OK;
    }
    xkd_status status = xkd_sample_file(cx, m, s, &path);
    if (status != XKD_OK) return status;
    bool there = stat(path, &info) == 0;
    xkd_free(path);
    int64_t bytes = there ? (int64_t)info.st_size : -1, modified = there ? xkd_modified(&info) : -1;
    /* A machine that does a shard of the work need not have the files of the others. */
    if (s->hashed && (!there || s->bytes < 0 || xkd_sample_has_stamp(s, bytes, modified))) {
        snprintf(text, sizeof text, "%s%s", s->hashed == XKD_HASH_HEAD ? "head " : "", xkd_sample_hash(s, hash));
        *out = identity_of_text(s, text, sizeof text);
    } else if (there) {
        *out = xkd_stamp_identity(s, bytes, modified);
    }
    return XKD_OK;
}
