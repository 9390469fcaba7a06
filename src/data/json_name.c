/* One form for all files of ours that hold names. */
#include "data/json_name.h"

#include <string.h>

#include "base/alloc.h"
#include "base/base64.h"

static const char KEY[] = "base64";

/* jansson's string is NULL where the bytes are no UTF-8. */
xkd_status xkd_json_name(xkd_context *cx, const char *name, json_t **out)
{
    char *coded = NULL;
    *out = json_string(name);
    if (*out) return XKD_OK;
    xkd_status status = xkd_base64_encode(cx, name, &coded);
    if (status == XKD_OK) *out = json_pack("{s:s}", KEY, coded);
    xkd_free(coded);
    if (status == XKD_OK && !*out) status = xkd_fail(cx, XKD_ERR_MEMORY, "out of memory while writing a name");
    return status;
}

void xkd_text_json_name(xkd_text *text, const char *name)
{
    char *coded = NULL;
    json_t *plain = json_string(name);
    if (plain) {
        xkd_text_json_string(text, name);
    } else if (xkd_base64_encode(text->cx, name, &coded) == XKD_OK) {
        xkd_text_printf(text, "{\"%s\":\"%s\"}", KEY, coded);
    } else {
        text->status = XKD_ERR_MEMORY;
    }
    json_decref(plain);
    xkd_free(coded);
}

xkd_status xkd_json_name_value(xkd_context *cx, const json_t *value, char **out)
{
    const char *fault, *coded = json_string_value(json_object_get(value, KEY));
    *out = NULL;
    if (json_is_string(value)) {
        /* A zero byte inside is no name either. */
        if (strlen(json_string_value(value)) != json_string_length(value)) return XKD_OK;
        return xkd_copy_string(cx, out, json_string_value(value));
    }
    if (!coded) return XKD_OK;
    xkd_status status = xkd_base64_decode(cx, coded, out, &fault);
    if (status == XKD_OK && !fault) return XKD_OK;
    xkd_free(*out);
    *out = NULL;
    return status;
}
