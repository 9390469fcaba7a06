/* What stands in a row of a manifest, and how it is set: strings and rare facts lie in the manifest's block. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "data/manifest.h"
#include "data/manifest_rows.h"

enum { HASH_BYTES = 16, HASH_DIGITS = 32 };

/* ---- strings ---- */

/* Samples of one split share its name, as far as the few places remember it. */
xkd_status xkd_sample_set_split(xkd_context *cx, xkd_manifest *m, xkd_sample *s, const char *split)
{
    size_t length = strlen(split), places = sizeof m->splits / sizeof *m->splits;
    const char **place = &m->splits[XXH3_64bits(split, length) % places];
    if (!length) {
        s->split = "";
        return XKD_OK;
    }
    if (!*place || strcmp(*place, split) != 0) {
        xkd_status status = xkd_pieces_copy(cx, &m->pieces, split, (int64_t)length, place);
        if (status != XKD_OK) return status;
    }
    s->split = *place;
    return XKD_OK;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

xkd_status xkd_sample_place_path(xkd_context *cx, xkd_manifest *m, xkd_sample *s, const char *path, bool hash_room)
{
    int64_t before = hash_room ? HASH_BYTES : 0, length = (int64_t)strlen(path) + 1;
    char *piece;
    xkd_status status = xkd_pieces_take(cx, &m->pieces, before + length, 1, &piece);
    if (status != XKD_OK) return status;
    memcpy(piece + before, path, (size_t)length);
    s->path = piece + before;
    s->hash_room = hash_room;
    return XKD_OK;
}

/* Without room before the path, it is copied to where there is some. */
xkd_status xkd_sample_set_hash(xkd_context *cx, xkd_manifest *m, xkd_sample *s, const char *text, int of)
{
    xkd_status status = XKD_OK;
    s->hashed = XKD_HASH_NONE;
    if (!text[0] || of == XKD_HASH_NONE) return XKD_OK;
    if (!s->hash_room) XKD_TRY(xkd_sample_place_path(cx, m, s, s->path, true));
    uint8_t *room = (uint8_t *)(uintptr_t)s->path - HASH_BYTES;
    for (int i = 0; i < HASH_BYTES; i++) room[i] = (uint8_t)(digit_of(text[2 * i]) << 4 | digit_of(text[2 * i + 1]));
    s->hashed = (uint8_t)of;
fail:
    return status;
}

bool xkd_is_hash(const char *text)
{
    for (int i = 0; i < HASH_DIGITS; i++)
        if (digit_of(text[i]) < 0) return false;
    return !text[HASH_DIGITS];
}

const char *xkd_sample_hash(const xkd_sample *s, char out[33])
{
    static const char DIGITS[] = "0123456789abcdef";
    out[0] = 0;
    if (s->hashed == XKD_HASH_NONE) return out; /* a path may be NULL here */
    const uint8_t *hash = (const uint8_t *)s->path - HASH_BYTES;
    for (int i = 0; i < HASH_BYTES; i++) {
        out[2 * i] = DIGITS[hash[i] >> 4];
        out[2 * i + 1] = DIGITS[hash[i] & 15];
    }
    out[HASH_DIGITS] = 0;
    return out;
}

/* ---- rare facts ---- */

xkd_status xkd_sample_edit_more(xkd_context *cx, xkd_manifest *m, xkd_sample *s, xkd_sample_more **more)
{
    if (s->more) {
        *more = (xkd_sample_more *)(uintptr_t)s->more;
        return XKD_OK;
    }
    xkd_status status = xkd_pieces_take(cx, &m->pieces, sizeof **more, _Alignof(xkd_sample_more), more);
    if (status == XKD_OK) s->more = *more;
    return status;
}

xkd_status xkd_sample_set_labels(xkd_context *cx, xkd_manifest *m, xkd_sample *s, int64_t count, int32_t **labels)
{
    xkd_status status = XKD_OK;
    xkd_sample_more *more;
    XKD_TRY(xkd_sample_edit_more(cx, m, s, &more));
    XKD_TRY(xkd_pieces_take(cx, &m->pieces, count * (int64_t)sizeof **labels, _Alignof(int32_t), labels));
    more->labels = *labels;
    more->label_count = count;
fail:
    return status;
}

xkd_status xkd_sample_set_identity(xkd_context *cx, xkd_manifest *m, xkd_sample *s, uint64_t identity)
{
    xkd_sample_more *more;
    if (!s->more && !identity) return XKD_OK;
    xkd_status status = xkd_sample_edit_more(cx, m, s, &more);
    if (status == XKD_OK) more->identity = identity;
    return status;
}

uint64_t xkd_sample_identity_of(const xkd_sample *s)
{
    return s->more ? s->more->identity : 0;
}

int64_t xkd_sample_label_count(const xkd_sample *s)
{
    return s->more ? s->more->label_count : 0;
}

int32_t xkd_sample_archive_length(const xkd_sample *s)
{
    return s->more ? s->more->archive_length : 0;
}

int64_t xkd_sample_labels(const xkd_sample *s, const int32_t **list, int32_t *single)
{
    int64_t count = xkd_sample_label_count(s);
    *single = s->label;
    *list = count ? s->more->labels : single;
    return count ? count : s->label >= 0;
}

/* ---- lengths ---- */

/* Starts and lengths are kept to the microsecond, to which the packets are rounded as well. */
static int64_t microseconds(double seconds)
{
    return llround(seconds * 1e6);
}

double xkd_sample_video_last(const xkd_sample *s)
{
    if (s->video_tail == XKD_LONG_TAIL) return s->more ? s->more->video_last : 0;
    return (double)(microseconds(s->video_start + s->video_seconds) - s->video_tail) / 1e6;
}

/* Starts and lengths must be set. */
xkd_status xkd_sample_set_video_last(xkd_context *cx, xkd_manifest *m, xkd_sample *s, double seconds)
{
    xkd_sample_more *more;
    double tail = (s->video_start + s->video_seconds - seconds) * 1e6;
    s->video_tail = XKD_LONG_TAIL;
    if (fabs(tail) < INT32_MAX) {
        s->video_tail = (int32_t)llround(tail);
        return XKD_OK;
    }
    xkd_status status = xkd_sample_edit_more(cx, m, s, &more);
    if (status == XKD_OK) more->video_last = seconds;
    return status;
}

/* Most files have neither. */
xkd_status xkd_sample_set_step_and_track(xkd_context *cx, xkd_manifest *m, xkd_sample *s, double step, int64_t track)
{
    xkd_sample_more *more;
    if (!s->more && !(step > 0) && !track) return XKD_OK;
    xkd_status status = xkd_sample_edit_more(cx, m, s, &more);
    if (status != XKD_OK) return status;
    more->clock_step = step;
    more->audio_track = track;
    return XKD_OK;
}

/* Sizes are those after rotation, as they are shown. */
xkd_status xkd_sample_describe(xkd_context *cx, xkd_manifest *m, xkd_sample *s, const xkd_media_info *info,
                               const xkd_media_span *span)
{
    xkd_status status = XKD_OK;
    s->has_audio = (int8_t)info->has_audio;
    s->has_video = (int8_t)info->has_video;
    s->measured = span->known;
    XKD_TRY(xkd_sample_set_step_and_track(cx, m, s, span->clock_step, span->audio_track));
    if (info->has_video) {
        s->video_start = span->video_start;
        s->video_seconds = span->video_end - span->video_start;
        XKD_TRY(xkd_sample_set_video_last(cx, m, s, span->video_last));
        s->key_gap = (float)span->key_gap;
        s->fps = (float)info->fps;
        s->width = (uint16_t)info->width; /* at most XKD_MEDIA_MAX_SIDE, and XKD_MEDIA_MAX_CHANNELS below */
        s->height = (uint16_t)info->height;
    }
    if (info->has_audio) {
        s->audio_start = span->audio_start;
        s->audio_seconds = span->audio_end - span->audio_start;
        s->sample_rate = (int32_t)info->sample_rate;
        s->channels = (uint8_t)info->channels;
    }
fail:
    return status;
}

double xkd_sample_seconds(const xkd_sample *s, const bool left_out[2])
{
    if (!left_out[0] && s->has_video != 0) return s->video_seconds;
    return !left_out[1] && s->has_audio == 1 ? s->audio_seconds : 0;
}

int64_t xkd_modified(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

void xkd_file_stamp(int fd, int64_t *bytes, int64_t *modified)
{
    struct stat info;
    *bytes = *modified = -1;
    if (fstat(fd, &info) != 0) return;
    *bytes = (int64_t)info.st_size;
    *modified = xkd_modified(&info);
}

/* A manifest of before times were kept goes by the size alone. */
bool xkd_sample_has_stamp(const xkd_sample *s, int64_t bytes, int64_t modified)
{
    if (s->record) return false;
    /* The time is the archive's, the size was looked at when it was opened. */
    if (xkd_sample_archive_length(s)) return s->modified < 0 || s->modified == modified;
    return s->bytes >= 0 && s->bytes == bytes && (s->modified < 0 || s->modified == modified);
}

bool xkd_sample_is(const xkd_sample *s, int fd)
{
    int64_t bytes, modified;
    xkd_file_stamp(fd, &bytes, &modified);
    return xkd_sample_has_stamp(s, bytes, modified);
}

/* The same to the bit as that of the packets, but for key_gap, which is for people. */
xkd_media_span xkd_sample_span(const xkd_sample *s, int fd, int64_t audio_track)
{
    int64_t track = s->more ? s->more->audio_track : 0;
    if (!s->measured || track != audio_track || !xkd_sample_is(s, fd)) return (xkd_media_span){0};
    return (xkd_media_span){.known = true,
                            .no_video = !s->has_video,
                            .no_audio = !s->has_audio,
                            .video_start = s->video_start,
                            .video_end = s->video_start + s->video_seconds,
                            .audio_start = s->audio_start,
                            .audio_end = s->audio_start + s->audio_seconds,
                            .video_last = xkd_sample_video_last(s),
                            .clock_step = s->more ? s->more->clock_step : 0,
                            .key_gap = (double)s->key_gap,
                            .audio_track = track};
}

/* ---- from another sample ---- */

xkd_status xkd_sample_copy_labels(xkd_context *cx, xkd_manifest *m, xkd_sample *to, const xkd_sample *from)
{
    xkd_status status = XKD_OK;
    int32_t *labels;
    to->label = from->label;
    XKD_TRY(xkd_sample_set_split(cx, m, to, from->split));
    if (!from->more || !from->more->labels) return XKD_OK;
    XKD_TRY(xkd_sample_set_labels(cx, m, to, from->more->label_count, &labels));
    memcpy(labels, from->more->labels, (size_t)from->more->label_count * sizeof *labels);
fail:
    return status;
}

xkd_status xkd_sample_take_facts(xkd_context *cx, xkd_manifest *m, xkd_sample *to, const xkd_sample *from)
{
    xkd_status status = XKD_OK;
    const xkd_sample own = *to;
    char hash[33];
    *to = *from;
    to->path = own.path;
    to->hash_room = own.hash_room;
    to->hashed = XKD_HASH_NONE; /* another's would stand before this path, should what follows fail */
    to->record = own.record;
    to->label = own.label;
    to->split = own.split;
    to->more = own.more;
    XKD_TRY(xkd_sample_set_step_and_track(cx, m, to, from->more ? from->more->clock_step : 0,
                                          from->more ? from->more->audio_track : 0));
    if (from->video_tail == XKD_LONG_TAIL) XKD_TRY(xkd_sample_set_video_last(cx, m, to, xkd_sample_video_last(from)));
    XKD_TRY(xkd_sample_set_hash(cx, m, to, xkd_sample_hash(from, hash), from->hashed));
fail:
    return status;
}

xkd_status xkd_sample_take_all(xkd_context *cx, xkd_manifest *m, xkd_sample *to, const xkd_sample *from)
{
    xkd_status status = XKD_OK;
    xkd_sample_more *more;
    XKD_TRY(xkd_sample_take_facts(cx, m, to, from));
    XKD_TRY(xkd_sample_copy_labels(cx, m, to, from));
    if (!from->more) return XKD_OK;
    XKD_TRY(xkd_sample_edit_more(cx, m, to, &more));
    more->archive_length = from->more->archive_length;
    more->member_at = from->more->member_at;
    more->identity = from->more->identity;
fail:
    return status;
}
