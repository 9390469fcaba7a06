/* A list of files and what is known of each; manifest_read.c and manifest_write.c read and write it. */
#include "data/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/links.h"
#include "data/manifest_rows.h"
#include "data/shared_pack.h"
#include "data/tar.h"

void xkd_manifest_free(xkd_manifest *m)
{
    xkd_pieces_free(&m->pieces);
    xkd_manifest_free_classes(m);
    if (!m->shared) xkd_free(m->samples);
    if (m->shared && !m->pack) (void)munmap(m->shared, (size_t)m->shared_bytes);
    xkd_free(m->root);
    xkd_pack_release(m->pack); /* with memory that it shares */
    *m = (xkd_manifest){0};
}

int64_t xkd_manifest_bytes(const xkd_manifest *m)
{
    if (m->shared) return m->shared_bytes;
    int64_t records = m->pack ? xkd_pack_shared_bytes(m->pack) : 0;
    return m->count * (int64_t)sizeof *m->samples + m->pieces.bytes + records;
}

/* It grows by a quarter: what is not used takes no memory, but counts where memory is limited. */
xkd_status xkd_manifest_reserve(xkd_context *cx, xkd_manifest *m, int64_t more)
{
    xkd_status status = XKD_OK;
    if (m->count + more <= m->capacity) return XKD_OK;
    int64_t capacity = m->capacity < 256 ? m->capacity + 64 : m->capacity + m->capacity / 4;
    if (capacity < m->count + more) capacity = m->count + more;
    XKD_TRY(xkd_grow(cx, &m->samples, m->capacity, capacity, sizeof *m->samples));
    m->capacity = capacity;
fail:
    return status;
}

/* *sample is valid until the next call, which may move the array. Unknown facts are -1 or 0. */
static xkd_status add(xkd_context *cx, xkd_manifest *m, const char *path, bool room, xkd_sample **sample)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_manifest_reserve(cx, m, 1));
    xkd_sample fresh = {.label = -1, .has_audio = -1, .has_video = -1, .bytes = -1, .modified = -1, .split = ""};
    XKD_TRY(xkd_sample_place_path(cx, m, &fresh, path, room));
    m->samples[m->count] = fresh;
    *sample = &m->samples[m->count++];
fail:
    return status;
}

xkd_status xkd_manifest_add(xkd_context *cx, xkd_manifest *m, const char *path, xkd_sample **sample)
{
    return add(cx, m, path, false, sample);
}

xkd_status xkd_manifest_add_hashed(xkd_context *cx, xkd_manifest *m, const char *path, xkd_sample **sample)
{
    return add(cx, m, path, true, sample);
}

/* A manifest of one file, for commands that take a file; its folder becomes the root. */
xkd_status xkd_manifest_of_file(xkd_context *cx, const char *path, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    xkd_sample *sample;
    const char *slash = strrchr(path, '/');
    *out = (xkd_manifest){0};
    /* "/" for a file in the root folder, "." for a bare name. */
    XKD_TRY(xkd_format_string(cx, &out->root, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1,
                              slash ? path : "."));
    XKD_TRY(xkd_manifest_add(cx, out, slash ? slash + 1 : path, &sample));
    out->named = true;
fail:
    return status;
}

/* In place: kept samples move to the front. */
int64_t xkd_manifest_keep(xkd_manifest *m, bool (*keep)(const void *user, const xkd_sample *sample, int64_t i),
                          const void *user)
{
    int64_t kept = 0, all = m->count;
    for (int64_t i = 0; i < all; i++)
        if (keep(user, &m->samples[i], i)) m->samples[kept++] = m->samples[i];
    m->count = kept;
    return all - kept;
}

/* A sample without a split belongs to every split. */
static bool is_of_split(const void *user, const xkd_sample *s, int64_t i)
{
    (void)i;
    return !s->split[0] || strcmp(s->split, user) == 0;
}

void xkd_manifest_keep_split(xkd_manifest *m, const char *split)
{
    if (split[0]) xkd_manifest_keep(m, is_of_split, split);
}

bool xkd_manifest_path_is_plain(const char *path)
{
    for (const char *part = path; part;) {
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part = part[length] ? part + length + 1 : NULL;
    }
    return true;
}

/* What follows an archive's name is a member's, and no part of a path. */
xkd_status xkd_sample_file(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, char **out)
{
    int32_t length = xkd_sample_archive_length(s);
    xkd_status status = xkd_join_path(cx, out, m->root, s->path);
    if (status == XKD_OK && length) (*out)[strlen(*out) - strlen(s->path) + (size_t)length] = 0;
    return status;
}

/* From the archive to its member. */
static xkd_status enter_archive(xkd_context *cx, const xkd_sample *s, const char *path, xkd_source *out,
                                xkd_media_fault *fault)
{
    xkd_status status = xkd_tar_check(cx, out->fd, out->size, path, s->more->member_at, s->bytes);
    if (status == XKD_OK) {
        out->offset = s->more->member_at;
        out->size = s->bytes;
        return XKD_OK;
    }
    *fault = status == XKD_ERR_STORAGE ? XKD_FAULT_UNREADABLE : XKD_FAULT_BROKEN;
    close(out->fd);
    out->fd = -1;
    return status;
}

/* The real path must lie under the real root: links that lead outside are refused unless the user
 * allows them, for a downloaded data set may hold any. */
static xkd_status open_file(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, bool follow_links,
                            xkd_source *out, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *real = NULL, *root = NULL;
    *out = (xkd_source){.fd = -1};
    *fault = XKD_FAULT_NONE;
    XKD_TRY(xkd_sample_file(cx, m, s, &path));
    /* Resolves every link on the way, not only the last one. */
    real = realpath(path, NULL);
    if (!real) {
        *fault = errno == ENOENT || errno == ENOTDIR ? XKD_FAULT_MISSING : XKD_FAULT_UNREADABLE;
        XKD_FAIL(XKD_ERR_DATA, "%s: %s", path, strerror(errno));
    }
    root = realpath(m->root, NULL);
    bool inside = root && xkd_lies_below(real, root);
    if (!inside && !follow_links && !m->named) {
        *fault = XKD_FAULT_REFUSED;
        XKD_FAIL(XKD_ERR_DATA, "%s: a link that leads out of the data folder (allow it with --follow-links)", path);
    }
    /* The resolved path is opened, so that a link cannot be exchanged in between for one that leads elsewhere. */
    status = xkd_open_read(cx, real, &out->fd, &out->size);
    if (status != XKD_OK) *fault = XKD_FAULT_UNREADABLE;
    if (status == XKD_OK && xkd_sample_archive_length(s)) status = enter_archive(cx, s, path, out, fault);
fail:
    free(real);
    free(root);
    xkd_free(path);
    return status;
}

xkd_status xkd_manifest_open(xkd_context *cx, const xkd_manifest *m, const xkd_sample *s, bool follow_links,
                             xkd_source *out, xkd_media_fault *fault)
{
    if (s->record) return xkd_pack_open(cx, m->pack, s->record - 1, out, fault);
    return open_file(cx, m, s, follow_links, out, fault);
}

void xkd_manifest_blame(const xkd_manifest *m, const xkd_sample *s, char *message, size_t size)
{
    char text[512];
    if (!s->record) return;
    snprintf(text, sizeof text, "%s", message);
    snprintf(message, size, "%.60s: %.400s", xkd_pack_shard(m->pack, s->record - 1), text);
}

xkd_status xkd_manifest_copy(xkd_context *cx, const xkd_manifest *from, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    int64_t label;
    *out = (xkd_manifest){0};
    out->follow_links = from->follow_links;
    out->pack = xkd_pack_share(from->pack);
    XKD_TRY(xkd_copy_string(cx, &out->root, from->root));
    for (int64_t k = 0; k < from->class_count; k++)
        XKD_TRY(xkd_manifest_class(cx, out, from->classes[k], true, &label));
    for (int64_t i = 0; i < from->count; i++) {
        xkd_sample *s;
        XKD_TRY(xkd_manifest_add(cx, out, from->samples[i].path, &s));
        s->record = from->samples[i].record;
        XKD_TRY(xkd_sample_take_all(cx, out, s, &from->samples[i]));
    }
fail:
    return status;
}
