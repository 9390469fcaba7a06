/* What all HTML pages share: a head with a content policy, and the only ways by which data gets into a page. */
#ifndef XKD_REPORT_PAGE_H
#define XKD_REPORT_PAGE_H

#include "base/text.h"

/* Doctype to the title's heading. The policy admits nothing but the page's own style, scripts and inlined pictures. */
void xkd_page_begin(xkd_text *out, const char *title);

/* Names, labels and configuration as text or as an attribute in double quotes: what means something in HTML is escaped, and
 * what is no printable UTF-8 shows as \xNN, but for the characters of `keep`. */
void xkd_page_text(xkd_text *out, const char *text, const char *keep);

/* A JSON string that may stand within a <script>. */
void xkd_page_json(xkd_text *out, const char *text);

/* Five digits, which is more than a screen shows; "null" for what is not finite. */
void xkd_page_number(xkd_text *out, double value);

/* "data:image/png;base64,..." of PNG bytes [size]. */
void xkd_page_picture(xkd_text *out, const uint8_t *png, int64_t size);

/* Ends the page with the data that `script` reads: `json` must have been made with the functions above. */
void xkd_page_end(xkd_text *out, const char *json, const char *script);

#endif
