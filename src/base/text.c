/* Text that grows. The first failure is kept and later calls do nothing, so a caller may look once,
 * at the end. */
#include "base/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* Allocates nothing yet. */
xkd_text xkd_text_make(xkd_context *cx)
{
    return (xkd_text){.cx = cx};
}

/* Room for `more` bytes and the 0 behind; false once anything has failed. */
static int reserve(xkd_text *text, int64_t more)
{
    if (text->status != XKD_OK) return 0;
    int64_t needed = text->size + more + 1, capacity = text->capacity ? text->capacity : 256;
    if (needed <= text->capacity) return 1;
    while (capacity < needed) capacity *= 2;
    text->status = xkd_resize(text->cx, &text->data, text->capacity, capacity, 1);
    if (text->status == XKD_OK) text->capacity = capacity;
    return text->status == XKD_OK;
}

/* A 0 always follows, so data is a string at any time. */
void xkd_text_add(xkd_text *text, const void *bytes, int64_t size)
{
    if (!reserve(text, size)) return;
    if (size > 0) memcpy(text->data + text->size, bytes, (size_t)size);
    text->size += size;
    text->data[text->size] = 0;
}

void xkd_text_puts(xkd_text *text, const char *string)
{
    xkd_text_add(text, string, (int64_t)strlen(string));
}

/* Measured first, as the length is not known. */
void xkd_text_printf(xkd_text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length >= 0 && reserve(text, length)) {
        vsnprintf(text->data + text->size, (size_t)length + 1, format, again);
        text->size += length;
    }
    va_end(again);
}

/* Length of the valid UTF-8 sequence at p, 0 if there is none.
 * Overlong forms and surrogates are refused, as JSON parsers do. */
static int sequence_length(const unsigned char *p)
{
    static const unsigned smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    int length = *p < 0x80 ? 1 : (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : (*p & 0xf8) == 0xf0 ? 4 : 0;
    if (length <= 1) return length;
    unsigned code = *p & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0; /* also stops at the terminating 0 */
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    return length;
}

/* The code point of a valid sequence. */
static unsigned code_at(const unsigned char *p, int length)
{
    unsigned code = length == 1 ? *p : *p & (0x7fu >> length);
    for (int i = 1; i < length; i++) code = code << 6 | (p[i] & 0x3f);
    return code;
}

/* Characters that a terminal obeys instead of showing: C0, DEL, C1, the ends of lines of Unicode, and the marks that turn the
 * direction of writing, by which a name can be made to look like another. */
static bool is_control(unsigned code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/* Bytes of the printable character at p; 0 where there is none. */
static int printable_length(const unsigned char *p)
{
    int length = sequence_length(p);
    return length && is_control(code_at(p, length)) ? 0 : length;
}

bool xkd_is_printable(const char *string)
{
    const unsigned char *p = (const unsigned char *)string;
    for (int length; *p; p += length)
        if (!(length = printable_length(p))) return false;
    return true;
}

bool xkd_is_utf8(const char *string)
{
    const unsigned char *p = (const unsigned char *)string;
    for (int length; *p; p += length)
        if (!(length = sequence_length(p))) return false;
    return true;
}

char *xkd_escape(char *buffer, size_t size, const char *text, size_t length, const char *keep)
{
    size_t used = 0;
    for (size_t i = 0; i < length && text[i];) {
        char piece[5] = {0};
        /* A copy, since the text may end within a character. */
        memcpy(piece, text + i, length - i < 4 ? length - i : 4);
        int good = strchr(keep, piece[0]) ? 1 : printable_length((const unsigned char *)piece);
        if (good)
            piece[good] = 0;
        else
            snprintf(piece, sizeof piece, "\\x%02x", (unsigned char)text[i]);
        size_t more = strlen(piece);
        if (used + more >= size) break;
        memcpy(buffer + used, piece, more);
        used += more;
        i += good ? (size_t)good : 1;
    }
    buffer[used] = 0;
    return buffer;
}

/* Invalid UTF-8 is replaced, so the output is always JSON. Paths may hold any bytes. */
void xkd_text_json_string(xkd_text *text, const char *string)
{
    xkd_text_puts(text, "\"");
    for (const unsigned char *p = (const unsigned char *)string; *p;) {
        int length = sequence_length(p);
        if (length == 0) {
            xkd_text_puts(text, "\\ufffd");
            p++;
        } else if (*p == '"' || *p == '\\')
            xkd_text_printf(text, "\\%c", *p++);
        else if (!printable_length(p)) {
            xkd_text_printf(text, "\\u%04x", code_at(p, length)); /* all of them lie below U+10000 */
            p += length;
        } else {
            xkd_text_add(text, p, length);
            p += length;
        }
    }
    xkd_text_puts(text, "\"");
}

/* Most numbers people write need few digits; 17 always suffice.
 * The shortest of the tried forms that reads back to the same double. */
void xkd_format_double(char *buffer, size_t size, double value)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buffer, size, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) return;
    }
}

void xkd_text_json_number(xkd_text *text, double value)
{
    char buffer[32] = "null";
    if (isfinite(value)) xkd_format_double(buffer, sizeof buffer, value);
    xkd_text_puts(text, buffer);
}

/* Also safe within attributes in quotes of either kind. */
void xkd_text_xml(xkd_text *text, const char *string)
{
    for (; *string; string++) {
        const char *escape = *string == '<'    ? "&lt;"
                             : *string == '>'  ? "&gt;"
                             : *string == '&'  ? "&amp;"
                             : *string == '"'  ? "&quot;"
                             : *string == '\'' ? "&#39;"
                                               : NULL;
        if (escape)
            xkd_text_puts(text, escape);
        else
            xkd_text_add(text, string, 1);
    }
}

/* Keeps the memory and a failure. */
void xkd_text_clear(xkd_text *text)
{
    text->size = 0;
    if (text->data) text->data[0] = 0;
}

/* The text may be used again. */
void xkd_text_free(xkd_text *text)
{
    xkd_free(text->data);
    *text = (xkd_text){.cx = text->cx};
}

/* The caller owns *out; the text is empty afterwards. Nothing written gives an empty string, not
 * NULL. */
xkd_status xkd_text_take(xkd_text *text, char **out)
{
    xkd_status status = text->status;
    *out = NULL;
    if (status == XKD_OK && !text->data) status = xkd_copy_string(text->cx, out, "");
    if (status == XKD_OK && text->data) {
        *out = text->data;
        text->data = NULL;
    }
    xkd_text_free(text);
    return status;
}
