/* Names of classes as people write them: with blanks around, in upper and lower case, with accents in one character or in two
 * (file systems of Apple take letters apart, others do not). Blanks are cut off. Names that look alike otherwise may still be
 * two classes: they are told and never joined. */
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/text.h"
#include "data/accents.h"
#include "data/manifest.h"

/* Pairs that a warning names; the others are counted. */
enum { NAMED = 3 };

/* Bytes of a blank at the end or, `front`, at the beginning of text[0 .. length); 0: none. The wide ones come of typesetting
 * and of East Asian keyboards. */
static size_t blank(const char *text, size_t length, bool front)
{
    static const char *const BLANKS[] = {" ", "\t", "\r", "\n", "\v", "\f", "\xC2\xA0", "\xE3\x80\x80"};
    for (size_t i = 0; i < sizeof BLANKS / sizeof *BLANKS; i++) {
        size_t n = strlen(BLANKS[i]);
        if (n <= length && !memcmp(front ? text : text + length - n, BLANKS[i], n)) return n;
    }
    return 0;
}

const char *xkd_class_trim(const char *name, size_t *length)
{
    size_t n;
    *length = strlen(name);
    const char *at = name;
    while (*length && (n = blank(at, *length, true)) != 0) {
        at += n;
        *length -= n;
    }
    while (*length && (n = blank(at, *length, false)) != 0) *length -= n;
    return at;
}

xkd_status xkd_manifest_class_of(xkd_context *cx, xkd_manifest *m, const char *name, bool add, int64_t *label)
{
    xkd_status status = XKD_OK;
    size_t length;
    const char *start = xkd_class_trim(name, &length);
    char *cut = NULL;
    if (!length || length == strlen(name)) return xkd_manifest_class(cx, m, name, add, label);
    XKD_TRY(xkd_format_string(cx, &cut, "%.*s", (int)length, start));
    m->trimmed = true;
    XKD_TRY(xkd_manifest_class(cx, m, cut, add, label));
fail:
    xkd_free(cut);
    return status;
}

/* ---- names that look alike ---- */

/* A class and its name in small letters, with all that is taken apart. */
typedef struct {
    const char *name;
    wchar_t *letters; /* ends with 0 */
} folded;

/* Takes one character from *at; a byte that is no part of UTF-8 stands for itself, beyond all characters. */
static wchar_t next_letter(const unsigned char **at)
{
    const unsigned char *s = *at;
    int more = s[0] >= 0xF0 ? 3 : s[0] >= 0xE0 ? 2 : s[0] >= 0xC2 ? 1 : 0;
    wchar_t c = more ? s[0] & (0x3F >> more) : s[0];
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) more = 0, c = s[0];
        if (more) c = c << 6 | (s[i] & 0x3F);
    }
    *at += 1 + more;
    return more || c < 0x80 ? c : 0x110000 + c;
}

/* The C library knows small letters of all scripts; without its UTF-8 those of ASCII alone. */
static xkd_status fold(xkd_context *cx, const char *name, locale_t locale, folded *out)
{
    *out = (folded){.name = name};
    xkd_status status = xkd_alloc(cx, &out->letters, 3 * (int64_t)strlen(name) + 1, sizeof *out->letters);
    if (status != XKD_OK) return status;
    wchar_t *to = out->letters;
    for (const unsigned char *at = (const unsigned char *)name; *at;) {
        wchar_t c = next_letter(&at);
        if (c < 0x80 && c >= 'A' && c <= 'Z') c += 'a' - 'A';
        bool dotted = c == 0x130; /* the only capital letter whose small one lacks a mark */
        if (c >= 0x80 && c < 0x110000 && locale) c = (wchar_t)towlower_l((wint_t)c, locale);
        to = xkd_take_apart(to, c);
        if (dotted && c == 'i') *to++ = 0x307;
    }
    *to = 0;
    xkd_order_marks(out->letters);
    return XKD_OK;
}

static int compare_folded(const void *a, const void *b)
{
    const folded *x = a, *y = b;
    int order = wcscmp(x->letters, y->letters);
    return order ? order : strcmp(x->name, y->name);
}

/* "caf\u00E9": two spellings of one word look the same on a screen. Only what is not ASCII needs it. */
static void put_name(xkd_text *t, const char *name)
{
    char shown[200];
    bool ascii = true;
    for (const char *at = name; *at; at++) ascii &= (unsigned char)*at < 0x80;
    xkd_text_printf(t, "\"%s\"", xkd_escape(shown, sizeof shown, name, strlen(name), ""));
    if (ascii) return;
    xkd_text_puts(t, " (");
    for (const unsigned char *at = (const unsigned char *)name; *at;) {
        wchar_t c = next_letter(&at);
        if (c >= ' ' && c < 0x7F)
            xkd_text_printf(t, "%c", (int)c);
        else if (c < 0x110000)
            xkd_text_printf(t, "\\u%04X", (unsigned)c);
        else
            xkd_text_printf(t, "\\x%02X", (unsigned)c - 0x110000);
    }
    xkd_text_puts(t, ")");
}

/* One warning for all of them. */
static xkd_status warn_of_alike(xkd_context *cx, const char *where, const folded *names, int64_t count)
{
    xkd_text t = xkd_text_make(cx);
    char *text = NULL;
    int64_t pairs = 0;
    for (int64_t i = 1; i < count; i++) {
        if (wcscmp(names[i - 1].letters, names[i].letters) != 0 || pairs++ >= NAMED) continue;
        xkd_text_puts(&t, pairs > 1 ? "; " : "");
        put_name(&t, names[i - 1].name);
        xkd_text_puts(&t, " and ");
        put_name(&t, names[i].name);
    }
    if (pairs > NAMED) xkd_text_printf(&t, "; and %" PRId64 " more pairs", pairs - NAMED);
    xkd_status status = xkd_text_take(&t, &text);
    if (status == XKD_OK && pairs)
        xkd_log(cx, XKD_LOG_WARN,
                "%s: names of classes differ only in upper and lower case or in how their accents are stored, and stay "
                "two classes: %s (if they mean the same, give both one name and index again)",
                where, text);
    xkd_free(text);
    return status;
}

xkd_status xkd_manifest_look_at_names(xkd_context *cx, const xkd_manifest *m, const char *where)
{
    xkd_status status = XKD_OK;
    folded *names = NULL;
    locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (m->trimmed) xkd_log(cx, XKD_LOG_WARN, "%s: blanks around names of classes are cut off", where);
    XKD_TRY(xkd_alloc(cx, &names, m->class_count, sizeof *names));
    for (int64_t k = 0; k < m->class_count; k++) XKD_TRY(fold(cx, m->classes[k], locale, &names[k]));
    if (m->class_count) qsort(names, (size_t)m->class_count, sizeof *names, compare_folded);
    XKD_TRY(warn_of_alike(cx, where, names, m->class_count));
fail:
    for (int64_t k = 0; names && k < m->class_count; k++) xkd_free(names[k].letters);
    xkd_free(names);
    if (locale) freelocale(locale);
    return status;
}
