/* One pass over a copy of the text: fields are cut out in place, and shrink where quotes are doubled. */
#include "data/csv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

/* Where the reader stands. */
typedef struct {
    xkd_context *cx;
    xkd_csv *csv;
    char *at, *end;
    int64_t line;
    char separator;
} reader;

void xkd_csv_free(xkd_csv *csv)
{
    xkd_free(csv->buffer);
    xkd_free(csv->fields);
    xkd_free(csv->records);
    *csv = (xkd_csv){0};
}

const xkd_csv_field *xkd_csv_at(const xkd_csv *csv, int64_t record, int64_t field)
{
    static char nothing[1];
    static const xkd_csv_field empty = {nothing, false};
    const xkd_csv_record *r = &csv->records[record];
    return field < r->count ? &csv->fields[r->first + field] : &empty;
}

int64_t xkd_csv_mark(const char *text, int64_t size)
{
    return size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (char)((0xFF00 >> (more + 1) & 0xFF) | c >> 6 * more);
    while (more--) *to++ = (char)(0x80 | (c >> 6 * more & 0x3F));
    return to;
}

/* A unit of two bytes becomes at most three, and two units for one character four. */
xkd_status xkd_csv_from_utf16(xkd_context *cx, const char *name, char **text, int64_t *size)
{
    xkd_status status = XKD_OK;
    const unsigned char *from = (const unsigned char *)*text;
    char *out = NULL, *to;
    if (*size < 2 || from[0] + from[1] != 0xFE + 0xFF || (from[0] != 0xFE && from[0] != 0xFF)) return XKD_OK;
    int low = from[0] == 0xFF ? 0 : 1; /* place of the low byte */
    XKD_TRY(xkd_alloc(cx, &out, *size / 2 * 3 + 1, 1));
    to = out;
    for (int64_t i = 2; i < *size; i += 2) {
        uint32_t c = i + 1 < *size ? (uint32_t)from[i + low] | (uint32_t)from[i + 1 - low] << 8 : 0xDC00;
        if (c >= 0xD800 && c < 0xDC00 && i + 3 < *size) {
            uint32_t second = (uint32_t)from[i + 2 + low] | (uint32_t)from[i + 3 - low] << 8;
            if (second >= 0xDC00 && second < 0xE000) c = 0x10000 + ((c - 0xD800) << 10) + (second - 0xDC00);
            i += 2;
        }
        if (c >= 0xD800 && c < 0xE000)
            XKD_FAIL(XKD_ERR_DATA, "%s: is UTF-16, and damaged at byte %" PRId64 " (save it as UTF-8)", name, i + 1);
        to = put_utf8(to, c);
    }
    *to = 0; /* as the file's own text ends */
    xkd_free(*text);
    *size = to - out;
    *text = out;
    out = NULL;
fail:
    xkd_free(out);
    return status;
}

/* The first fault is the one that is told. */
static void fault(reader *r, const char *what)
{
    if (r->csv->fault[0]) return;
    snprintf(r->csv->fault, sizeof r->csv->fault, "%s", what);
    r->csv->fault_line = r->line;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool at_line_end(const reader *r)
{
    return r->at == r->end || *r->at == '\n' || *r->at == '\r';
}

/* LF, CR LF, and the CR of old Macintosh programs. */
static void skip_line_end(reader *r)
{
    if (r->at < r->end && *r->at == '\r') r->at++;
    if (r->at < r->end && *r->at == '\n') r->at++;
    r->line++;
}

/* The separator's own blank is not skipped where it is one. */
static void skip_blanks(reader *r)
{
    while (r->at < r->end && is_blank(*r->at) && (*r->at != r->separator || r->separator == ' ')) r->at++;
}

/* Behind the opening quote; writes the value to its own start. A quote stands doubled, and lines may end inside. */
static char *read_quoted(reader *r)
{
    char *start = r->at, *to = r->at;
    while (r->at < r->end) {
        if (*r->at == '"') {
            r->at++;
            if (r->at == r->end || *r->at != '"') {
                *to = 0;
                return start;
            }
        } else if (*r->at == '\n') {
            r->line++;
        }
        *to++ = *r->at++;
    }
    fault(r, "a quote is opened and not closed");
    *to = 0; /* the buffer has a byte behind its end */
    return start;
}

/* Up to the separator or the line's end. `stop` is where its terminating 0 goes, once what stands there has been read. */
static char *read_plain(reader *r, char **stop)
{
    char *start = r->at;
    while (!at_line_end(r) && !(r->separator && (*r->at == r->separator || (r->separator == ' ' && *r->at == '\t'))))
        r->at++;
    *stop = r->at;
    while (*stop > start && is_blank((*stop)[-1])) --*stop;
    return start;
}

static xkd_status add_field(reader *r, char *text, bool quoted)
{
    xkd_csv *csv = r->csv;
    xkd_status status = xkd_reserve(r->cx, &csv->fields, csv->field_count, &csv->field_capacity, sizeof *csv->fields);
    if (status == XKD_OK) csv->fields[csv->field_count++] = (xkd_csv_field){text, quoted};
    return status;
}

/* One record, its line end included. */
static xkd_status read_record(reader *r)
{
    xkd_status status = XKD_OK;
    xkd_csv *csv = r->csv;
    xkd_csv_record record = {.line = r->line, .first = csv->field_count};
    for (bool more = true; more;) {
        char *stop = NULL, *text;
        skip_blanks(r);
        bool quoted = r->at < r->end && *r->at == '"' && r->separator;
        if (quoted) {
            r->at++;
            text = read_quoted(r);
            char *behind = r->at;
            skip_blanks(r);
            bool apart = r->separator == ' ' && r->at > behind;
            if (!at_line_end(r) && *r->at != r->separator && !apart)
                fault(r, "something stands behind a closing quote");
            more = r->at < r->end && *r->at == r->separator && r->separator != ' ';
            if (r->separator == ' ') more = apart && !at_line_end(r);
        } else {
            text = read_plain(r, &stop);
            if (r->separator == ' ') skip_blanks(r);
            more = !at_line_end(r);
        }
        if (more && r->separator != ' ') r->at++;
        /* The end of the line is read before the field's 0 may be written over it. */
        if (!more) skip_line_end(r);
        if (stop) *stop = 0;
        XKD_TRY(add_field(r, text, quoted));
        if (csv->fault[0]) break; /* what follows would be read in the wrong state */
    }
    record.count = csv->field_count - record.first;
    XKD_TRY(xkd_reserve(r->cx, &csv->records, csv->count, &csv->capacity, sizeof *csv->records));
    csv->records[csv->count++] = record;
fail:
    return status;
}

/* Up to the line's end. */
static bool is_comment(const reader *r, const xkd_csv_text *text)
{
    const char *end = r->at;
    if (*r->at != '#') return false;
    while (end < r->end && *end != '\n' && *end != '\r') end++;
    return !text->is_row || !text->is_row(text->data, r->at, end - r->at);
}

xkd_status xkd_csv_read(xkd_context *cx, const xkd_csv_text *text, char separator, xkd_csv *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_csv){0};
    XKD_TRY(xkd_alloc(cx, &out->buffer, text->size + 1, 1));
    memcpy(out->buffer, text->text, (size_t)text->size);
    reader r = {cx, out, out->buffer, out->buffer + text->size, 1, separator};
    while (r.at < r.end && !out->fault[0]) {
        r.at += xkd_csv_mark(r.at, r.end - r.at);
        skip_blanks(&r);
        if (at_line_end(&r)) {
            if (r.at < r.end) skip_line_end(&r);
        } else if (is_comment(&r, text)) {
            out->comments++;
            while (!at_line_end(&r)) r.at++;
            skip_line_end(&r);
        } else {
            XKD_TRY(read_record(&r));
        }
    }
fail:
    return status;
}
