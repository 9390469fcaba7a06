/* The manifest as a file: JSON Lines, a header with root and classes and then one object a sample. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "data/json_name.h"
#include "data/manifest.h"
#include "data/manifest_rows.h"

/* Failures are passed on by pointer, because the object is finished and freed by the caller in any
 * case. */
static void set_path(json_t *object, xkd_context *cx, const char *path, xkd_status *status)
{
    json_t *value = json_string(path); /* NULL where it is no UTF-8 */
    if (value) {
        json_object_set_new(object, "path", value);
        return;
    }
    char *coded = NULL;
    *status = xkd_base64_encode(cx, path, &coded);
    if (*status == XKD_OK) json_object_set_new(object, "path_base64", json_string(coded));
    xkd_free(coded);
}

/* Six decimals are a microsecond, more than containers keep. */
static json_t *rounded(double x)
{
    double scaled = x * 1e6;
    return json_real((double)(int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5)) / 1e6);
}

/* Rates and gaps are kept in 24 bits, of which these are the decimals. */
static json_t *short_real(float x)
{
    return json_real((double)(int64_t)((double)x * 1e4 + 0.5) / 1e4);
}

/* Facts that are not known are left out. */
static void set_facts(json_t *o, const xkd_sample *s)
{
    char hash[33];
    if (s->label >= 0) json_object_set_new(o, "label", json_integer(s->label));
    if (s->more && s->more->labels) { /* an empty list too: a sample of several labels, none of which it has */
        json_t *list = json_array();
        for (int64_t i = 0; i < s->more->label_count; i++)
            json_array_append_new(list, json_integer(s->more->labels[i]));
        json_object_set_new(o, "labels", list);
    }
    if (s->split[0]) json_object_set_new(o, "split", json_string(s->split));
    if (s->video_seconds > 0 || (s->measured && s->has_video == 1)) {
        json_object_set_new(o, "video_start", rounded(s->video_start));
        json_object_set_new(o, "video_seconds", rounded(s->video_seconds));
        json_object_set_new(o, "fps", short_real(s->fps));
        json_object_set_new(o, "width", json_integer(s->width));
        json_object_set_new(o, "height", json_integer(s->height));
    }
    if (s->has_video >= 0) json_object_set_new(o, "has_video", json_boolean(s->has_video));
    if (s->has_audio >= 0) json_object_set_new(o, "has_audio", json_boolean(s->has_audio));
    if (s->measured) {
        json_object_set_new(o, "probed", json_true());
        if (s->has_video == 1) {
            json_object_set_new(o, "video_last", rounded(xkd_sample_video_last(s)));
            json_object_set_new(o, "key_gap", short_real(s->key_gap));
        }
        if (s->more && s->more->clock_step > 0) json_object_set_new(o, "clock_step", rounded(s->more->clock_step));
        if (s->more && s->more->audio_track) json_object_set_new(o, "audio_track", json_integer(s->more->audio_track));
    }
    if (s->has_audio == 1) {
        if (s->audio_seconds > 0) {
            json_object_set_new(o, "audio_start", rounded(s->audio_start));
            json_object_set_new(o, "audio_seconds", rounded(s->audio_seconds));
        }
        json_object_set_new(o, "sample_rate", json_integer(s->sample_rate));
        json_object_set_new(o, "channels", json_integer(s->channels));
    }
    if (xkd_sample_archive_length(s)) {
        json_object_set_new(o, "tar", json_integer(s->more->archive_length));
        json_object_set_new(o, "tar_at", json_integer(s->more->member_at));
    }
    if (s->bytes >= 0) json_object_set_new(o, "bytes", json_integer(s->bytes));
    if (s->modified >= 0) json_object_set_new(o, "modified", json_integer(s->modified));
    if (s->hashed) json_object_set_new(o, "hash", json_string(xkd_sample_hash(s, hash)));
    if (s->hashed == XKD_HASH_HEAD) json_object_set_new(o, "hash_of", json_string("head"));
}

xkd_status xkd_sample_to_json(xkd_context *cx, const xkd_sample *s, json_t **out)
{
    xkd_status status = XKD_OK;
    *out = json_object();
    if (!*out) return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory while writing a manifest");
    set_path(*out, cx, s->path, &status);
    set_facts(*out, s);
    return status;
}

/* 12 digits keep the microsecond of a film of 10^6 s. Consumes the object. */
static xkd_status write_line(xkd_writer *writer, xkd_context *cx, json_t *object)
{
    xkd_status status = XKD_OK;
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(object);
    if (!text) XKD_FAIL(XKD_ERR_MEMORY, "out of memory while writing a manifest");
    XKD_TRY(xkd_writer_write(writer, text, (int64_t)strlen(text)));
    XKD_TRY(xkd_writer_write(writer, "\n", 1));
fail:
    free(text);
    return status;
}

/* The first line. */
static xkd_status write_header(xkd_writer *writer, xkd_context *cx, const xkd_manifest *m, const char *path,
                               const char *root_text)
{
    xkd_status status = XKD_OK;
    json_t *root = NULL, *header = NULL;
    status = xkd_json_name(cx, root_text ? root_text : ".", &root);
    if (status != XKD_OK) return status;
    header = json_pack("{s:i,s:o}", "xkd_manifest", 1, m->pack ? "pack" : "root", root);
    if (!header) return xkd_fail(cx, XKD_ERR_MEMORY, "%s: out of memory", path);
    if (m->class_count) {
        json_t *classes = json_array(), *name = NULL;
        for (int64_t i = 0; i < m->class_count && status == XKD_OK; i++) {
            status = xkd_json_name(cx, m->classes[i], &name);
            if (name) json_array_append_new(classes, name);
        }
        json_object_set_new(header, "classes", classes);
    }
    if (m->follow_links) json_object_set_new(header, "follow_links", json_true());
    xkd_status headed = write_line(writer, cx, header); /* frees it, whatever went before */
    return status == XKD_OK ? headed : status;
}

/* What no reader takes is not written either. */
xkd_status xkd_manifest_write_within(xkd_context *cx, const xkd_manifest *m, const char *path, const char *root_text,
                                     int64_t most)
{
    xkd_status status = XKD_OK;
    xkd_writer *writer = NULL;
    XKD_TRY(xkd_writer_open(cx, path, &writer));
    XKD_TRY(write_header(writer, cx, m, path, root_text));
    for (int64_t i = 0; i < m->count; i++) {
        json_t *object = json_object();
        xkd_tick(); /* other ranks may wait for the last of millions of rows */
        set_path(object, cx, m->samples[i].path, &status);
        set_facts(object, &m->samples[i]);
        xkd_status written = write_line(writer, cx, object);
        /* Both statuses: the object must be freed by write_line before the first can be reported. */
        XKD_TRY(status);
        XKD_TRY(written);
        if (xkd_writer_size(writer) > most)
            XKD_FAIL(XKD_ERR_DATA, "%s: would have more than the %.1f GB that a manifest may have (divide the set)",
                     path, (double)most / 1e9);
    }
    xkd_writer *published = writer;
    writer = NULL;
    XKD_TRY(xkd_writer_commit(published));
fail:
    xkd_writer_abort(writer);
    return status;
}

/* Published in one step: an old manifest stays until the new one is whole. */
xkd_status xkd_manifest_write(xkd_context *cx, const xkd_manifest *m, const char *path, const char *root_text)
{
    return xkd_manifest_write_within(cx, m, path, root_text, XKD_MANIFEST_MOST_BYTES);
}
