/* Names of classes as people write them: with blanks around, in upper and lower case, with accents in one character or in two
 * (file systems of Apple take letters apart, others do not). Blanks are cut off. Names that look alike otherwise may still be
 * two classes: they are told and never joined. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <uninorm.h>
#include <unistr.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/text.h"
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

/* A class, and its name in small letters with all accents taken apart (Unicode's case folding and form D). */
typedef struct {
    const char *name;
    char *letters;
} folded;

/* A name that is no UTF-8 is compared as it is. */
static xkd_status fold(xkd_context *cx, const char *name, folded *out)
{
    const uint8_t *text = (const uint8_t *)name;
    size_t length, size = strlen(name) + 1; /* with the 0 behind it, which becomes that of the result */
    uint8_t *letters = NULL;
    *out = (folded){.name = name};
    if (!u8_check(text, size)) {
        letters = u8_casefold(text, size, NULL, UNINORM_NFD, NULL, &length);
        if (!letters) return xkd_fail(cx, XKD_ERR_MEMORY, "out of memory while comparing names of classes");
    }
    xkd_status status = xkd_copy_string(cx, &out->letters, letters ? (const char *)letters : name);
    free(letters);
    return status;
}

static int compare_folded(const void *a, const void *b)
{
    const folded *x = a, *y = b;
    int order = strcmp(x->letters, y->letters);
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
    const uint8_t *at = (const uint8_t *)name;
    for (size_t left = strlen(name), used; left; at += used, left -= used) {
        ucs4_t c;
        int bytes = u8_mbtoucr(&c, at, left);
        used = bytes > 0 ? (size_t)bytes : 1;
        if (bytes < 0)
            xkd_text_printf(t, "\\x%02X", (unsigned)*at);
        else if (c >= ' ' && c < 0x7F)
            xkd_text_printf(t, "%c", (int)c);
        else
            xkd_text_printf(t, "\\u%04X", (unsigned)c);
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
        if (strcmp(names[i - 1].letters, names[i].letters) != 0 || pairs++ >= NAMED) continue;
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
    if (m->trimmed) xkd_log(cx, XKD_LOG_WARN, "%s: blanks around names of classes are cut off", where);
    XKD_TRY(xkd_alloc(cx, &names, m->class_count, sizeof *names));
    for (int64_t k = 0; k < m->class_count; k++) XKD_TRY(fold(cx, m->classes[k], &names[k]));
    if (m->class_count) qsort(names, (size_t)m->class_count, sizeof *names, compare_folded);
    XKD_TRY(warn_of_alike(cx, where, names, m->class_count));
fail:
    for (int64_t k = 0; names && k < m->class_count; k++) xkd_free(names[k].letters);
    xkd_free(names);
    return status;
}
