/* A growing string. Errors stick: append as often as you like and look at `status` (or xkd_text_take) at the end. */
#ifndef XKD_BASE_TEXT_H
#define XKD_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
    xkd_context *cx;
    char *data; /* `size` bytes and a 0 behind; NULL while empty */
    int64_t size, capacity;
    xkd_status status;
} xkd_text;

xkd_text xkd_text_make(xkd_context *cx);
void xkd_text_add(xkd_text *text, const void *bytes, int64_t size);
void xkd_text_puts(xkd_text *text, const char *string);
void xkd_text_printf(xkd_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void xkd_text_json_string(xkd_text *text, const char *string);
/* The shortest decimal that reads back as the same double; non-finite numbers as "null", for JSON. */
void xkd_text_json_number(xkd_text *text, double value);
/* Characters that mean something in XML are escaped. */
void xkd_text_xml(xkd_text *text, const char *string);
/* Forgets the content but keeps the memory. */
void xkd_text_clear(xkd_text *text);
void xkd_text_free(xkd_text *text);

/* Whether it is UTF-8 without control characters (C0, DEL, C1, ends of lines, direction marks): a terminal shows it as it
 * is. */
bool xkd_is_printable(const char *string);

bool xkd_is_utf8(const char *string);

/* Writes text[0 .. length) into buffer as a terminal may see it: what is no part of printable UTF-8 becomes \xNN, but for
 * the characters of `keep` ("\n", or ""). Cut behind a whole character where `size` ends. Returns buffer. For texts out of
 * files of others: they could move the cursor, change the title, or look like lines of ours. */
char *xkd_escape(char *buffer, size_t size, const char *text, size_t length, const char *keep);

/* Hands the string (never NULL on success) to the caller, who frees it with xkd_free, or reports what went wrong. */
xkd_status xkd_text_take(xkd_text *text, char **out);

/* Writes the shortest decimal that reads back as the same double into buffer (32 bytes suffice). */
void xkd_format_double(char *buffer, size_t size, double value);

#endif
