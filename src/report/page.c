/* Frame of the HTML pages. Nothing of a page is fetched, and nothing in it can be made to run but our own script. */
#include "report/page.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "report/web.h"

void xkd_page_begin(xkd_text *out, const char *title)
{
    xkd_text_puts(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                       "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
                       "'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action "
                       "'none'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                       "<link rel=\"icon\" href=\"data:,\">\n<title>");
    xkd_page_text(out, title, "");
    xkd_text_puts(out, "</title>\n<style>\n");
    xkd_text_puts(out, xkd_web_page_css);
    xkd_text_puts(out, "</style></head>\n<body>\n<h1>");
    xkd_page_text(out, title, "");
    xkd_text_puts(out, "</h1>\n");
}

void xkd_page_text(xkd_text *out, const char *text, const char *keep)
{
    char *plain;
    size_t length = strlen(text), size = 4 * length + 1; /* \xNN is the longest form of a byte */
    if (out->status != XKD_OK) return;
    out->status = xkd_alloc(out->cx, &plain, (int64_t)size, 1);
    if (out->status != XKD_OK) return;
    xkd_text_xml(out, xkd_escape(plain, size, text, length, keep));
    xkd_free(plain);
}

/* A "<" can begin a comment or end the script, whatever string it stands in. */
void xkd_page_json(xkd_text *out, const char *text)
{
    xkd_text plain = xkd_text_make(out->cx);
    xkd_text_json_string(&plain, text);
    if (plain.status != XKD_OK) out->status = plain.status;
    for (const char *c = plain.status == XKD_OK ? plain.data : ""; *c; c++)
        if (*c == '<' || *c == '>' || *c == '&')
            xkd_text_printf(out, "\\u%04x", *c);
        else
            xkd_text_add(out, c, 1);
    xkd_text_free(&plain);
}

void xkd_page_number(xkd_text *out, double value)
{
    if (isfinite(value))
        xkd_text_printf(out, "%.5g", value);
    else
        xkd_text_puts(out, "null");
}

/* A fourth digit for every three bytes, padded at the end. */
void xkd_page_picture(xkd_text *out, const uint8_t *png, int64_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    xkd_text_puts(out, "data:image/png;base64,");
    for (int64_t i = 0; i < size; i += 3) {
        unsigned have = size - i < 3 ? (unsigned)(size - i) : 3;
        unsigned word =
            (unsigned)png[i] << 16 | (have > 1 ? (unsigned)png[i + 1] << 8 : 0) | (have > 2 ? png[i + 2] : 0);
        char four[4] = {digits[word >> 18], digits[word >> 12 & 63], have > 1 ? digits[word >> 6 & 63] : '=',
                        have > 2 ? digits[word & 63] : '='};
        xkd_text_add(out, four, 4);
    }
}

void xkd_page_end(xkd_text *out, const char *json, const char *script)
{
    xkd_text_puts(out, "<script type=\"application/json\" id=\"data\">");
    xkd_text_puts(out, json);
    xkd_text_puts(out, "</script>\n<script>\n");
    xkd_text_puts(out, script);
    xkd_text_puts(out, "</script>\n</body></html>\n");
}
