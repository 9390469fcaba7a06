/* What a row may say: paths may not leave the root, numbers have ranges, and every message names file and line. */
#include "data/manifest_row.h"

#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "data/manifest_rows.h"

enum { MAX_LABEL = 1000000, MAX_SPLIT = 15 };

static xkd_status check_path(const xkd_row_place *p, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    if (!path[0] || path[0] == '/')
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path \"%s\" is %s (paths are relative to the root, see the first line)",
                 p->file, (long long)p->line, path, path[0] ? "absolute" : "empty");
    if (strlen(path) >= PATH_MAX)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: the path has more than %d bytes (move the file up, or name a root below)",
                 p->file, (long long)p->line, PATH_MAX - 1);
    if (!xkd_manifest_path_is_plain(path))
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%lld: path \"%s\" has a part \"..\", \".\" or an empty one: it must name a file below the root "
                 "directly",
                 p->file, (long long)p->line, path);
fail:
    return status;
}

/* A missing key or null leaves the value that stands for unknown. */
static xkd_status take_real(const xkd_row_place *p, const xkd_row_value *v, const char *key, double *out)
{
    if (v->kind == XKD_ROW_ABSENT) return XKD_OK;
    if (v->kind != XKD_ROW_WHOLE && v->kind != XKD_ROW_REAL)
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a number", p->file, (long long)p->line, key);
    *out = v->real;
    return XKD_OK;
}

/* Counts and sizes: not negative, and no fractions that would be cut off in silence. */
static xkd_status take_whole(const xkd_row_place *p, const xkd_row_value *v, const char *key, int64_t most,
                             int64_t *out)
{
    if (v->kind == XKD_ROW_ABSENT) return XKD_OK;
    if (v->kind != XKD_ROW_WHOLE || v->whole < 0 || v->whole > most)
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a whole number from 0 to %lld", p->file,
                        (long long)p->line, key, (long long)most);
    *out = v->whole;
    return XKD_OK;
}

/* Of at most `most` bytes; "" where it is absent. */
static xkd_status take_text(const xkd_row_place *p, const xkd_row_value *v, const char *key, int64_t most,
                            const char **out)
{
    *out = "";
    if (v->kind == XKD_ROW_ABSENT) return XKD_OK;
    if (v->kind != XKD_ROW_TEXT || v->length > most)
        return xkd_fail(p->cx, XKD_ERR_DATA, "%s:%lld: \"%s\" must be a string of at most %lld bytes", p->file,
                        (long long)p->line, key, (long long)most);
    *out = v->text;
    return XKD_OK;
}

/* With classes in the first line names must be among them; without, a new name becomes a class. */
static xkd_status take_label(xkd_row_place *p, xkd_manifest *m, const xkd_row_value *v, int32_t *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    int64_t label = v->whole;
    if (v->kind == XKD_ROW_ABSENT) return XKD_OK;
    if (v->kind == XKD_ROW_TEXT) {
        XKD_TRY(xkd_manifest_class_of(cx, m, v->text, !p->fixed_classes, &label));
        if (label < 0)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s:%lld: label \"%s\" is none of the %lld classes of the first line (correct one of them)",
                     p->file, (long long)p->line, v->text, (long long)m->class_count);
        *out = (int32_t)label;
        return XKD_OK;
    }
    if (v->kind != XKD_ROW_WHOLE)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"label\" must be a number or a class name", p->file, (long long)p->line);
    /* Without a list of classes any number below MAX_LABEL may be one; the limit keeps tables by class small. */
    int64_t limit = p->fixed_classes ? m->class_count : MAX_LABEL;
    /* Written by some tools for `no label`. */
    if (label == -1) return XKD_OK;
    if (!p->number) p->number = p->line;
    if (label < 0 || label >= limit)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: label %lld is out of range 0 .. %lld (correct it or the classes in line 1)",
                 p->file, (long long)p->line, (long long)label, (long long)limit - 1);
    *out = (int32_t)label;
fail:
    return status;
}

/* The classes of a sample that may have several. A list of none stays a sample of several labels, all of them absent. */
static xkd_status take_labels(const xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const xkd_row_value *v = &row->value[XKD_ROW_labels];
    int64_t limit = p->fixed_classes ? m->class_count : MAX_LABEL;
    int32_t *labels;
    if (v->kind == XKD_ROW_ABSENT) return XKD_OK;
    if (v->kind != XKD_ROW_LIST)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"labels\" must be a list of numbers", p->file, (long long)p->line);
    XKD_TRY(xkd_sample_set_labels(cx, m, s, v->whole, &labels));
    for (int64_t i = 0; i < v->whole; i++) {
        if (row->list[i] < 0 || row->list[i] >= limit)
            XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"labels\" must be numbers in 0 .. %lld", p->file, (long long)p->line,
                     (long long)limit - 1);
        labels[i] = (int32_t)row->list[i];
    }
fail:
    return status;
}

static xkd_status take_hash(const xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const char *hash, *of;
    XKD_TRY(take_text(p, &row->value[XKD_ROW_hash], "hash", 32, &hash));
    XKD_TRY(take_text(p, &row->value[XKD_ROW_hash_of], "hash_of", 32, &of));
    if (!*hash) return XKD_OK;
    if (!xkd_is_hash(hash) || (*of && strcmp(of, "head") && strcmp(of, "full")))
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%lld: \"hash\" must be 32 hexadecimal digits and \"hash_of\" head or full, as `xkd data index "
                 "--hash` writes them (or leave both out)",
                 p->file, (long long)p->line);
    XKD_TRY(xkd_sample_set_hash(cx, m, s, hash, strcmp(of, "head") ? XKD_HASH_FULL : XKD_HASH_HEAD));
fail:
    return status;
}

/* What the streams are. */
static xkd_status take_streams(const xkd_row_place *p, const xkd_row *row, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const xkd_row_value *v = row->value;
    double fps = 0;
    int64_t width = 0, height = 0, rate = 0, channels = 0;
    XKD_TRY(take_real(p, &v[XKD_ROW_video_start], "video_start", &s->video_start));
    XKD_TRY(take_real(p, &v[XKD_ROW_video_seconds], "video_seconds", &s->video_seconds));
    XKD_TRY(take_real(p, &v[XKD_ROW_audio_start], "audio_start", &s->audio_start));
    XKD_TRY(take_real(p, &v[XKD_ROW_audio_seconds], "audio_seconds", &s->audio_seconds));
    XKD_TRY(take_real(p, &v[XKD_ROW_fps], "fps", &fps));
    XKD_TRY(take_whole(p, &v[XKD_ROW_width], "width", UINT16_MAX, &width));
    XKD_TRY(take_whole(p, &v[XKD_ROW_height], "height", UINT16_MAX, &height));
    XKD_TRY(take_whole(p, &v[XKD_ROW_sample_rate], "sample_rate", INT32_MAX, &rate));
    XKD_TRY(take_whole(p, &v[XKD_ROW_channels], "channels", UINT8_MAX, &channels));
    s->fps = (float)fps;
    s->width = (uint16_t)width;
    s->height = (uint16_t)height;
    s->sample_rate = (int32_t)rate;
    s->channels = (uint8_t)channels;
    const xkd_row_value *sound = &v[XKD_ROW_has_audio], *picture = &v[XKD_ROW_has_video];
    if (sound->kind != XKD_ROW_ABSENT && sound->kind != XKD_ROW_TRUE && sound->kind != XKD_ROW_FALSE)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: \"has_audio\" must be true or false", p->file, (long long)p->line);
    if (sound->kind != XKD_ROW_ABSENT) s->has_audio = sound->kind == XKD_ROW_TRUE;
    if (picture->kind == XKD_ROW_TRUE || picture->kind == XKD_ROW_FALSE) s->has_video = picture->kind == XKD_ROW_TRUE;
fail:
    return status;
}

/* Values that no measurement writes would become draws outside of the file. */
static xkd_status take_measures(const xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    const xkd_row_value *v = row->value;
    double last = 0, step = 0, gap = 0;
    int64_t track = 0;
    bool measured = v[XKD_ROW_probed].kind == XKD_ROW_TRUE && s->has_video >= 0 && s->has_audio >= 0;
    XKD_TRY(take_whole(p, &v[XKD_ROW_audio_track], "audio_track", INT32_MAX, &track));
    XKD_TRY(take_real(p, &v[XKD_ROW_video_last], "video_last", &last));
    XKD_TRY(take_real(p, &v[XKD_ROW_clock_step], "clock_step", &step));
    XKD_TRY(take_real(p, &v[XKD_ROW_key_gap], "key_gap", &gap));
    const double times[] = {s->video_start, s->audio_start, last};
    const double lengths[] = {s->video_seconds, s->audio_seconds, step, gap};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) measured = measured && times[i] > -1e9 && times[i] < 1e9;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        measured = measured && lengths[i] >= 0 && lengths[i] <= XKD_MEDIA_MAX_SECONDS;
    s->measured = measured;
    if (!measured) return XKD_OK;
    s->key_gap = (float)gap;
    XKD_TRY(xkd_sample_set_step_and_track(p->cx, m, s, step, track));
    if (s->has_video == 1) XKD_TRY(xkd_sample_set_video_last(p->cx, m, s, last));
fail:
    return status;
}

/* A member of an archive: how much of the path is the archive's, and where its contents stand there. */
static xkd_status take_member(const xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_sample *s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    xkd_sample_more *more;
    int64_t length = 0, at = 0;
    if (row->value[XKD_ROW_tar].kind == XKD_ROW_ABSENT) return XKD_OK;
    XKD_TRY(take_whole(p, &row->value[XKD_ROW_tar], "tar", PATH_MAX, &length));
    XKD_TRY(take_whole(p, &row->value[XKD_ROW_tar_at], "tar_at", INT64_MAX, &at));
    if (length < 1 || length >= (int64_t)strlen(s->path) || s->path[length] != '/' || at < 512 || s->bytes < 0)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s:%lld: a member of an archive needs \"tar\", the bytes of the path that are the archive's, "
                 "\"tar_at\" and \"bytes\"",
                 p->file, (long long)p->line);
    XKD_TRY(xkd_sample_edit_more(cx, m, s, &more));
    more->archive_length = (int32_t)length;
    more->member_at = at;
fail:
    return status;
}

/* Exactly one of `path` and `path_base64`. Decoded first, then checked: base64 must not smuggle a path past the rules. */
static xkd_status add_sample(const xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_sample **s)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    const xkd_row_value *plain = &row->value[XKD_ROW_path], *coded = &row->value[XKD_ROW_path_base64];
    const char *fault = NULL, *path = plain->text;
    char *decoded = NULL;
    const xkd_row_value *one = plain->kind == XKD_ROW_ABSENT ? coded : plain;
    if ((plain->kind != XKD_ROW_ABSENT) + (coded->kind != XKD_ROW_ABSENT) != 1 || one->kind != XKD_ROW_TEXT)
        XKD_FAIL(XKD_ERR_DATA, "%s:%lld: needs one string \"path\" or \"path_base64\"", p->file, (long long)p->line);
    if (coded->kind == XKD_ROW_TEXT) {
        XKD_TRY(xkd_base64_decode(cx, coded->text, &decoded, &fault));
        path = decoded;
    }
    if (fault) XKD_FAIL(XKD_ERR_DATA, "%s:%lld: path_base64: %s", p->file, (long long)p->line, fault);
    XKD_TRY(check_path(p, path));
    bool hashed = row->value[XKD_ROW_hash].kind == XKD_ROW_TEXT && row->value[XKD_ROW_hash].length > 0;
    XKD_TRY((hashed ? xkd_manifest_add_hashed : xkd_manifest_add)(cx, m, path, s));
fail:
    xkd_free(decoded);
    return status;
}

xkd_status xkd_row_take(xkd_row_place *p, xkd_manifest *m, const xkd_row *row)
{
    xkd_status status = XKD_OK;
    const xkd_row_value *v = row->value;
    const char *split;
    xkd_sample *s = NULL;
    XKD_TRY(add_sample(p, m, row, &s));
    XKD_TRY(take_label(p, m, &v[XKD_ROW_label], &s->label));
    XKD_TRY(take_labels(p, m, row, s));
    XKD_TRY(take_text(p, &v[XKD_ROW_split], "split", MAX_SPLIT, &split));
    XKD_TRY(xkd_sample_set_split(p->cx, m, s, split));
    XKD_TRY(take_hash(p, m, row, s));
    XKD_TRY(take_streams(p, row, s));
    XKD_TRY(take_whole(p, &v[XKD_ROW_bytes], "bytes", INT64_MAX, &s->bytes));
    XKD_TRY(take_whole(p, &v[XKD_ROW_modified], "modified", INT64_MAX, &s->modified));
    XKD_TRY(take_measures(p, m, row, s));
    XKD_TRY(take_member(p, m, row, s));
fail:
    return status;
}

xkd_status xkd_manifest_add_json(xkd_context *cx, xkd_manifest *m, const char *file, int64_t line, const json_t *object)
{
    xkd_row_place p = {.cx = cx, .file = file, .line = line};
    xkd_row row = {.room = 0};
    xkd_status status = xkd_row_of_json(cx, &row, object);
    if (status == XKD_OK) status = xkd_row_take(&p, m, &row);
    xkd_row_free(&row);
    return status;
}

/* Appends the row of record `number`, and copies what it says of a fault. */
static xkd_status take_packed(xkd_row_place *p, xkd_manifest *m, const xkd_row *row, xkd_pieces *texts,
                              const char **said)
{
    xkd_status status = XKD_OK;
    const xkd_row_value *fault = &row->value[XKD_ROW_pack_fault];
    XKD_TRY(xkd_row_take(p, m, row));
    if (fault->kind == XKD_ROW_TEXT) XKD_TRY(xkd_pieces_copy(p->cx, texts, fault->text, fault->length, said));
fail:
    return status;
}

xkd_status xkd_manifest_add_packed(xkd_context *cx, xkd_manifest *m, const char *file, int64_t number, char *text,
                                   int64_t size, xkd_pieces *texts, const char **said)
{
    xkd_status status = XKD_OK;
    xkd_row_place p = {.cx = cx, .file = file, .line = number, .fixed_classes = m->class_count > 0};
    xkd_row row = {.room = 0};
    json_t *o = NULL;
    bool plain;
    *said = NULL;
    XKD_TRY(xkd_row_scan(cx, &row, text, size, &plain));
    if (!plain) {
        o = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o))
            XKD_FAIL(XKD_ERR_DATA, "%s: record %lld has no row (remove the file and give its `xkd data pack` again)",
                     file, (long long)number);
        XKD_TRY(xkd_row_of_json(cx, &row, o));
    }
    status = take_packed(&p, m, &row, texts, said);
    if (plain) xkd_row_restore(&row);
fail:
    json_decref(o);
    xkd_row_free(&row);
    return status;
}
