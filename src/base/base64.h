/* Bytes as text of 64 characters: RFC 4648, section 4. */
#ifndef XKD_BASE_BASE64_H
#define XKD_BASE_BASE64_H

#include "base/status.h"

/* Of a string, with padding. The caller frees *out. */
xkd_status xkd_base64_encode(xkd_context *cx, const char *text, char **out);

/* Padding may be missing. *fault says why it is none ("not base64", "holds a zero byte"), NULL: it is. The caller frees *out
 * in any case. */
xkd_status xkd_base64_decode(xkd_context *cx, const char *text, char **out, const char **fault);

#endif
