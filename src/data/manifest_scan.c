/* Rows of text into values. Ten million rows through a general reader of JSON take two minutes, so the plain ones, as xkd and
 * most scripts write them, are taken apart here: known keys, no escapes, whole numbers of 63 bits, and others of at most 15
 * digits without an exponent. A row that is anything else goes to jansson, which also says what is wrong with it. */
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "data/manifest_row.h"

typedef struct {
    char *at, *end;
    bool plain;
} scan;

typedef struct {
    const char *name;
    size_t length;
} key_name;

#define NAME_OF(NAME) {#NAME, sizeof #NAME - 1},
static const key_name KEYS[] = {XKD_ROW_KEYS(NAME_OF)};

/* 10^k, all exact. */
static const double POWERS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

static void skip_blanks(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

/* Whether the next sign is this one, which is passed over. */
static bool take(scan *s, char sign)
{
    skip_blanks(s);
    if (s->at == s->end || *s->at != sign) return false;
    s->at++;
    return true;
}

/* Between quotes; bytes that need a closer look are none of a plain row. */
static bool take_text(scan *s, xkd_row_value *v)
{
    if (!take(s, '"')) return false;
    unsigned char all = 0, strange = 0;
    char *stop = memchr(s->at, '"', (size_t)(s->end - s->at));
    if (!stop) return false;
    const unsigned char *text = (const unsigned char *)s->at;
    int64_t length = stop - s->at;
    for (int64_t i = 0; i < length; i++) {
        all |= text[i];
        strange |= (unsigned char)(text[i] == '\\') | (unsigned char)(text[i] < ' ');
    }
    if (strange) return false;
    v->kind = XKD_ROW_TEXT;
    v->text = s->at;
    v->length = length;
    v->ascii = all < 128;
    s->at = stop + 1;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits from `at` on into *digits, at most `most` of them; returns what is behind. */
static const char *take_digits(const char *at, const char *end, int64_t most, uint64_t *digits)
{
    const char *last = end - at > most ? at + most : end;
    while (at < last && is_digit(*at)) *digits = 10 * *digits + (uint64_t)(*at++ - '0');
    return at;
}

/* A whole number, or one with a few decimals: both parts are exact in a double, and so their quotient is the nearest double
 * to what stands there. */
static bool take_number(scan *s, xkd_row_value *v)
{
    const char *at = s->at, *end = s->end;
    bool minus = *at == '-';
    const char *first = at += minus;
    uint64_t digits = 0;
    at = take_digits(at, end, 19, &digits);
    int64_t count = at - first, decimals = 0;
    if (count < 1 || digits > INT64_MAX || (count > 1 && *first == '0')) return false; /* 007 is no number */
    if (at < end && *at == '.') {
        if (count > 14) return false;
        first = ++at;
        at = take_digits(at, end, 15 - count, &digits);
        decimals = at - first;
        if (decimals < 1) return false;
    }
    if (at == end || is_digit(*at) || *at == 'e' || *at == 'E' || *at == '.') return false;
    s->at += at - s->at;
    double whole = (double)digits;
    v->kind = decimals ? XKD_ROW_REAL : XKD_ROW_WHOLE;
    v->whole = minus ? -(int64_t)digits : (int64_t)digits;
    v->real = decimals ? (minus ? -whole : whole) / POWERS[decimals] : (double)v->whole; /* -0 is 0, and -0.0 is not */
    return true;
}

static bool take_word(scan *s, xkd_row_value *v)
{
    static const struct {
        const char *text;
        size_t length;
        int kind;
    } WORDS[] = {{"true", 4, XKD_ROW_TRUE}, {"false", 5, XKD_ROW_FALSE}, {"null", 4, XKD_ROW_ABSENT}};
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        if ((size_t)(s->end - s->at) < WORDS[i].length || memcmp(s->at, WORDS[i].text, WORDS[i].length)) continue;
        s->at += WORDS[i].length;
        v->kind = WORDS[i].kind;
        return true;
    }
    return false;
}

static xkd_status push(xkd_context *cx, xkd_row *row, xkd_row_value *list, int64_t entry)
{
    xkd_status status = xkd_reserve(cx, &row->list, list->whole, &row->room, sizeof *row->list);
    if (status == XKD_OK) row->list[list->whole++] = entry;
    return status;
}

/* Of whole numbers. */
static xkd_status take_list(xkd_context *cx, xkd_row *row, scan *s, xkd_row_value *v)
{
    xkd_status status = XKD_OK;
    *v = (xkd_row_value){.kind = XKD_ROW_LIST};
    s->plain = take(s, '[');
    if (s->plain && take(s, ']')) return XKD_OK;
    while (s->plain) {
        xkd_row_value entry;
        skip_blanks(s);
        s->plain = s->at < s->end && take_number(s, &entry) && entry.kind == XKD_ROW_WHOLE;
        if (!s->plain) break;
        XKD_TRY(push(cx, row, v, entry.whole < 0 ? -1 : entry.whole));
        if (take(s, ']')) break;
        s->plain = take(s, ',');
    }
fail:
    return status;
}

static xkd_status take_value(xkd_context *cx, xkd_row *row, scan *s, xkd_row_key key)
{
    xkd_row_value *v = &row->value[key];
    skip_blanks(s);
    s->plain = s->at < s->end;
    if (!s->plain) return XKD_OK;
    if (*s->at == '"')
        s->plain = take_text(s, v);
    else if (*s->at == '-' || is_digit(*s->at))
        s->plain = take_number(s, v);
    else if (*s->at == '[' && key == XKD_ROW_labels)
        return take_list(cx, row, s, v);
    else
        s->plain = take_word(s, v);
    return XKD_OK;
}

/* A known key and the colon behind it. They mostly come in one order, so that the search begins behind the last one. */
static bool take_key(scan *s, int *key)
{
    if (!take(s, '"')) return false;
    for (int i = 0, k = *key; i < XKD_ROW_COUNT; i++) {
        k = k + 1 < XKD_ROW_COUNT ? k + 1 : 0;
        size_t length = KEYS[k].length;
        if ((size_t)(s->end - s->at) <= length || s->at[length] != '"' || memcmp(KEYS[k].name, s->at, length)) continue;
        s->at += length + 1;
        *key = k;
        return take(s, ':');
    }
    return false;
}

void xkd_row_restore(const xkd_row *row)
{
    for (const xkd_row_value *v = row->value; v < row->value + XKD_ROW_COUNT; v++)
        if (v->kind == XKD_ROW_TEXT) ((char *)(uintptr_t)v->text)[v->length] = '"';
}

/* All of the row; texts are ended with a 0 only once nothing more can be wrong with it. */
xkd_status xkd_row_scan(xkd_context *cx, xkd_row *row, char *line, int64_t length, bool *plain)
{
    xkd_status status = XKD_OK;
    scan s = {.at = line, .end = line + length};
    uint64_t seen = 0;
    int key = XKD_ROW_COUNT - 1;
    for (int k = 0; k < XKD_ROW_COUNT; k++) row->value[k].kind = XKD_ROW_ABSENT;
    *plain = false;
    if (!take(&s, '{')) return XKD_OK;
    do {
        /* An unknown key might stand there twice as well. */
        if (!take_key(&s, &key) || seen >> key & 1) return XKD_OK;
        seen |= (uint64_t)1 << key;
        XKD_TRY(take_value(cx, row, &s, (xkd_row_key)key));
        if (!s.plain) return XKD_OK;
    } while (take(&s, ','));
    if (!take(&s, '}')) return XKD_OK;
    skip_blanks(&s);
    if (s.at != s.end) return XKD_OK;
    for (int k = 0; k < XKD_ROW_COUNT; k++) {
        xkd_row_value *v = &row->value[k];
        if (v->kind != XKD_ROW_TEXT) continue;
        char *end = (char *)(uintptr_t)v->text + v->length;
        *end = 0;
        if (v->ascii || xkd_is_utf8(v->text)) continue;
        xkd_row_restore(row);
        return XKD_OK;
    }
    *plain = true;
fail:
    return status;
}

static xkd_status value_of_json(xkd_context *cx, xkd_row *row, xkd_row_key key, json_t *o)
{
    xkd_status status = XKD_OK;
    xkd_row_value *v = &row->value[key];
    json_t *entry;
    size_t i;
    *v = (xkd_row_value){.kind = XKD_ROW_OTHER};
    if (!o || json_is_null(o)) v->kind = XKD_ROW_ABSENT;
    if (json_is_boolean(o)) v->kind = json_is_true(o) ? XKD_ROW_TRUE : XKD_ROW_FALSE;
    if (json_is_number(o)) v->kind = json_is_integer(o) ? XKD_ROW_WHOLE : XKD_ROW_REAL;
    v->whole = json_integer_value(o);
    v->real = json_number_value(o);
    if (json_is_string(o)) {
        v->kind = XKD_ROW_TEXT;
        v->text = json_string_value(o);
        v->length = (int64_t)json_string_length(o);
    }
    if (key != XKD_ROW_labels || !json_is_array(o)) return XKD_OK;
    v->kind = XKD_ROW_LIST;
    json_array_foreach(o, i, entry)
    {
        bool whole = json_is_integer(entry) && json_integer_value(entry) >= 0;
        XKD_TRY(push(cx, row, v, whole ? json_integer_value(entry) : -1));
    }
fail:
    return status;
}

xkd_status xkd_row_of_json(xkd_context *cx, xkd_row *row, const json_t *object)
{
    xkd_status status = XKD_OK;
    for (int k = 0; k < XKD_ROW_COUNT; k++)
        XKD_TRY(value_of_json(cx, row, (xkd_row_key)k, json_object_get(object, KEYS[k].name)));
fail:
    return status;
}

void xkd_row_free(xkd_row *row)
{
    xkd_free(row->list);
    row->list = NULL;
}
