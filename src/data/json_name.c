/* One form for all files of ours that hold names. */
#include "data/json_name.h"

#include <string.h>

#include "base/alloc.h"

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char KEY[] = "base64";

xkd_status xkd_base64_encode(xkd_context *cx, const char *text, char **out)
{
    const unsigned char *in = (const unsigned char *)text;
    size_t n = strlen(text), at = 0;
    /* Four characters for three bytes, and the final 0. */
    xkd_status status = xkd_alloc(cx, out, (int64_t)(n + 2) / 3 * 4 + 1, 1);
    if (status != XKD_OK) return status;
    for (size_t i = 0; i < n; i += 3) {
        unsigned a = in[i], b = i + 1 < n ? in[i + 1] : 0, c = i + 2 < n ? in[i + 2] : 0;
        (*out)[at++] = DIGITS[a >> 2];
        (*out)[at++] = DIGITS[(a & 3) << 4 | b >> 4];
        (*out)[at++] = i + 1 < n ? DIGITS[(b & 15) << 2 | c >> 6] : '=';
        (*out)[at++] = i + 2 < n ? DIGITS[c & 63] : '=';
    }
    return XKD_OK;
}

/* A zero byte would end the name early and name another file. */
xkd_status xkd_base64_decode(xkd_context *cx, const char *text, char **out, const char **fault)
{
    xkd_status status = XKD_OK;
    size_t n = strlen(text), at = 0;
    unsigned bits = 0, value = 0;
    *fault = NULL;
    XKD_TRY(xkd_alloc(cx, out, (int64_t)n + 1, 1));
    while (n && text[n - 1] == '=') n--; /* '=' carries no bits */
    for (size_t i = 0; i < n && !*fault; i++) {
        const char *digit = strchr(DIGITS, text[i]);
        if (!digit) {
            *fault = "not base64";
            break;
        }
        value = value << 6 | (unsigned)(digit - DIGITS);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            (*out)[at++] = (char)(value >> bits & 255);
        }
    }
    if (!*fault && strlen(*out) != at) *fault = "holds a zero byte";
fail:
    return status;
}

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
