/* The settings of a pack as JSON. The text is compared as a whole, so its keys have one order and its numbers one form. */
#include <jansson.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/json_name.h"
#include "data/pack.h"

xkd_status xkd_pack_settings_write(xkd_context *cx, const xkd_pack_settings *s, const xkd_manifest *classes, char **out)
{
    xkd_text t = xkd_text_make(cx);
    xkd_text_printf(
        &t, "{\"xkd_pack\": 1, \"samples\": %" PRId64 ", \"rows\": \"%016" PRIx64 "\", \"fps\": ", s->samples, s->rows);
    xkd_text_json_number(&t, s->record.grid_fps);
    xkd_text_printf(&t, ", \"short_side\": %" PRId64 ", \"codec\": \"%s\"", s->short_side,
                    xkd_record_codec_name(s->record.codec));
    if (s->record.codec == XKD_CODEC_JPEG)
        xkd_text_printf(&t, ", \"quality\": %" PRId64 ", \"chroma\": \"%s\"", s->record.quality,
                        s->record.full_colour ? "full" : "half");
    xkd_text_printf(&t, ", \"audio_rate\": %" PRId64 ", \"video\": %s, \"audio\": %s, \"stream_colour\": %s",
                    s->record.audio_rate, s->streams[XKD_VIDEO] ? "true" : "false",
                    s->streams[XKD_AUDIO] ? "true" : "false", s->stream_colour ? "true" : "false");
    xkd_text_printf(&t, ", \"hold_last_frame\": %s, \"audio_track\": %" PRId64 ", \"shard_bytes\": %" PRId64,
                    s->hold_last_frame ? "true" : "false", s->audio_track, s->shard_bytes);
    xkd_text_puts(&t, ", \"classes\": [");
    for (int64_t k = 0; k < classes->class_count; k++) {
        if (k) xkd_text_puts(&t, ", ");
        xkd_text_json_name(&t, classes->classes[k]);
    }
    xkd_text_puts(&t, "]}\n");
    return xkd_text_take(&t, out);
}

static int64_t integer(const json_t *o, const char *key, bool *sound)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0) *sound = false;
    return json_integer_value(v);
}

static bool truth(const json_t *o, const char *key, bool *sound)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_boolean(v)) *sound = false;
    return json_is_true(v);
}

static const char *word(const json_t *o, const char *key, bool *sound)
{
    const char *text = json_string_value(json_object_get(o, key));
    if (!text) *sound = false;
    return text ? text : "";
}

static bool read_settings(const json_t *o, xkd_pack_settings *s)
{
    bool sound = true;
    *s = (xkd_pack_settings){0};
    s->samples = integer(o, "samples", &sound);
    s->rows = strtoull(word(o, "rows", &sound), NULL, 16);
    s->short_side = integer(o, "short_side", &sound);
    s->record.codec = xkd_record_codec_of(word(o, "codec", &sound));
    s->record.grid_fps = json_number_value(json_object_get(o, "fps"));
    if (s->record.codec == XKD_CODEC_JPEG) {
        s->record.quality = integer(o, "quality", &sound);
        s->record.full_colour = !strcmp(word(o, "chroma", &sound), "full");
    }
    s->record.audio_rate = integer(o, "audio_rate", &sound);
    s->streams[XKD_VIDEO] = truth(o, "video", &sound);
    s->streams[XKD_AUDIO] = truth(o, "audio", &sound);
    s->stream_colour = truth(o, "stream_colour", &sound);
    s->hold_last_frame = truth(o, "hold_last_frame", &sound);
    s->audio_track = integer(o, "audio_track", &sound);
    s->shard_bytes = integer(o, "shard_bytes", &sound);
    return sound && s->record.codec >= 0 && s->record.grid_fps > 0 && s->record.grid_fps <= 1000;
}

static xkd_status read_classes(xkd_context *cx, const char *file, const json_t *list, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    const json_t *entry;
    char *name = NULL;
    int64_t label;
    size_t i;
    if (!json_is_array(list)) XKD_FAIL(XKD_ERR_DATA, "%s: \"classes\" is no list (give `xkd data pack` again)", file);
    json_array_foreach((json_t *)(uintptr_t)list, i, entry)
    {
        xkd_free(name);
        XKD_TRY(xkd_json_name_value(cx, entry, &name));
        if (!name) XKD_FAIL(XKD_ERR_DATA, "%s: \"classes\" is no list of names (give `xkd data pack` again)", file);
        XKD_TRY(xkd_manifest_class(cx, m, name, true, &label));
        if (label != (int64_t)i)
            XKD_FAIL(XKD_ERR_DATA, "%s: class \"%s\" is listed twice (give `xkd data pack` again)", file, name);
    }
fail:
    xkd_free(name);
    return status;
}

xkd_status xkd_pack_settings_read(xkd_context *cx, const char *file, const char *text, xkd_pack_settings *out,
                                  xkd_manifest *classes)
{
    xkd_status status = XKD_OK;
    json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_integer(json_object_get(o, "xkd_pack")))
        XKD_FAIL(XKD_ERR_DATA, "%s: says nothing of a pack (give `xkd data pack` again)", file);
    if (json_integer_value(json_object_get(o, "xkd_pack")) != 1)
        XKD_FAIL(XKD_ERR_DATA, "%s: is of a version that is not known here (written by a newer xkd?)", file);
    if (!read_settings(o, out))
        XKD_FAIL(XKD_ERR_DATA, "%s: has settings that are not known here (written by a newer xkd?)", file);
    XKD_TRY(read_classes(cx, file, json_object_get(o, "classes"), classes));
fail:
    json_decref(o);
    return status;
}
