/* A list of files and what is known of each; manifest_file.c reads and writes it. */
#include "data/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/links.h"
#include "data/manifest_rows.h"
#include "data/pack.h"
#include "data/tar.h"

/* Strings of fixed size are part of the sample; only the path is allocated. */
void xkd_sample_free(xkd_sample *sample)
{
    xkd_free(sample->path);
    xkd_free(sample->labels);
}

void xkd_manifest_free(xkd_manifest *m)
{
    for (int64_t i = 0; i < m->count; i++) xkd_sample_free(&m->samples[i]);
    xkd_manifest_free_classes(m);
    xkd_free(m->samples);
    xkd_free(m->root);
    xkd_pack_release(m->pack);
    *m = (xkd_manifest){0};
}

/* *sample is valid until the next call, which may move the array. Unknown facts are -1 or 0. */
xkd_status xkd_manifest_add(xkd_context *cx, xkd_manifest *m, const char *path, xkd_sample **sample)
{
    xkd_status status = XKD_OK;
    if (m->count == m->capacity) {
        int64_t capacity = m->capacity ? 2 * m->capacity : 256;
        XKD_TRY(xkd_resize(cx, &m->samples, m->capacity, capacity, sizeof *m->samples));
        m->capacity = capacity;
    }
    xkd_sample fresh = {.label = -1, .has_audio = -1, .has_video = -1, .bytes = -1, .modified = -1};
    XKD_TRY(xkd_copy_string(cx, &fresh.path, path));
    m->samples[m->count] = fresh;
    *sample = &m->samples[m->count++];
fail:
    return status;
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

/* A sample without a split belongs to every split. In place: kept samples move to the front. */
void xkd_manifest_keep_split(xkd_manifest *m, const char *split)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < m->count; i++) {
        xkd_sample *s = &m->samples[i];
        if (!split[0] || !s->split[0] || !strcmp(s->split, split))
            m->samples[kept++] = *s;
        else
            xkd_sample_free(s);
    }
    m->count = kept;
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

/* From the archive to its member. */
static xkd_status enter_archive(xkd_context *cx, const xkd_sample *s, const char *path, xkd_source *out,
                                xkd_media_fault *fault)
{
    xkd_status status = xkd_tar_check(cx, out->fd, out->size, path, s->member_at, s->bytes);
    if (status == XKD_OK) {
        out->offset = s->member_at;
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
    XKD_TRY(xkd_join_path(cx, &path, m->root, s->path));
    /* The rest is a member's name, and no part of a path. */
    if (s->archive_length) path[strlen(path) - strlen(s->path) + (size_t)s->archive_length] = 0;
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
    if (status == XKD_OK && s->archive_length) status = enter_archive(cx, s, path, out, fault);
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

/* Sizes are those after rotation, as they are shown. */
void xkd_sample_describe(xkd_sample *s, const xkd_media_info *info, const xkd_media_span *span)
{
    s->has_audio = info->has_audio;
    s->has_video = info->has_video;
    s->measured = span->known;
    s->clock_step = span->clock_step;
    s->audio_track = span->audio_track;
    if (info->has_video) {
        s->video_start = span->video_start;
        s->video_seconds = span->video_end - span->video_start;
        s->video_last = span->video_last;
        s->key_gap = span->key_gap;
        s->fps = info->fps;
        s->width = info->width;
        s->height = info->height;
    }
    if (info->has_audio) {
        s->audio_start = span->audio_start;
        s->audio_seconds = span->audio_end - span->audio_start;
        s->sample_rate = info->sample_rate;
        s->channels = info->channels;
    }
}

double xkd_sample_seconds(const xkd_sample *s, const bool left_out[2])
{
    if (!left_out[0] && s->has_video != 0) return s->video_seconds;
    return !left_out[1] && s->has_audio == 1 ? s->audio_seconds : 0;
}

void xkd_file_stamp(int fd, int64_t *bytes, int64_t *modified)
{
    struct stat info;
    *bytes = *modified = -1;
    if (fstat(fd, &info) != 0) return;
    *bytes = (int64_t)info.st_size;
    *modified = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
}

/* A manifest of before times were kept goes by the size alone. */
bool xkd_sample_is(const xkd_sample *s, int fd)
{
    int64_t bytes, modified;
    if (s->record) return false;
    xkd_file_stamp(fd, &bytes, &modified);
    /* The time is the archive's, the size was looked at when it was opened. */
    if (s->archive_length) return s->modified < 0 || s->modified == modified;
    return s->bytes >= 0 && s->bytes == bytes && (s->modified < 0 || s->modified == modified);
}

/* Starts and lengths are kept to the microsecond, to which the packets are rounded as well: the span is the same to the bit. */
xkd_media_span xkd_sample_span(const xkd_sample *s, int fd, int64_t audio_track)
{
    if (!s->measured || s->audio_track != audio_track || !xkd_sample_is(s, fd)) return (xkd_media_span){0};
    return (xkd_media_span){.known = true,
                            .no_video = !s->has_video,
                            .no_audio = !s->has_audio,
                            .video_start = s->video_start,
                            .video_end = s->video_start + s->video_seconds,
                            .audio_start = s->audio_start,
                            .audio_end = s->audio_start + s->audio_seconds,
                            .video_last = s->video_last,
                            .clock_step = s->clock_step,
                            .key_gap = s->key_gap,
                            .audio_track = s->audio_track};
}

/* Facts of the file stay behind: only what the user said of it is copied. */
xkd_status xkd_sample_copy_labels(xkd_context *cx, xkd_sample *to, const xkd_sample *from)
{
    xkd_status status = XKD_OK;
    to->label = from->label;
    memcpy(to->split, from->split, sizeof to->split);
    if (!from->labels) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &to->labels, from->label_count, sizeof *to->labels));
    if (from->label_count) memcpy(to->labels, from->labels, (size_t)from->label_count * sizeof *to->labels);
    to->label_count = from->label_count;
fail:
    return status;
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
        const xkd_sample *x = &from->samples[i];
        xkd_sample *s;
        XKD_TRY(xkd_manifest_add(cx, out, x->path, &s));
        char *path = s->path;
        *s = *x;
        s->path = path;
        /* Not those of the other, which a failure below would free twice. */
        s->labels = NULL;
        s->label_count = 0;
        XKD_TRY(xkd_sample_copy_labels(cx, s, x));
    }
fail:
    return status;
}

int64_t xkd_sample_labels(const xkd_sample *s, const int32_t **list, int32_t *single)
{
    *single = (int32_t)s->label;
    *list = s->label_count ? s->labels : single;
    return s->label_count ? s->label_count : s->label >= 0;
}

void xkd_sample_take_facts(xkd_sample *to, const xkd_sample *from)
{
    const xkd_sample own = *to;
    *to = *from;
    to->path = own.path;
    to->record = own.record;
    to->archive_length = own.archive_length;
    to->member_at = own.member_at;
    to->label = own.label;
    to->labels = own.labels;
    to->label_count = own.label_count;
    memcpy(to->split, own.split, sizeof to->split);
}
