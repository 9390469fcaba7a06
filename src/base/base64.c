/* For strings that a text format cannot hold as they are. */
#include "base/base64.h"

#include <string.h>

#include "base/alloc.h"

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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
