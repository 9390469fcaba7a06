/* YAML into a small tree, on libyaml's events. The subset that configurations use: maps, lists and
 * scalars, without tags, anchors or aliases, which would let a small file become a large tree.
 * Scalars stay text until an option says what it wants; then YAML 1.1's forms are understood, as the
 * released files were written for it. */
#include "config/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "base/alloc.h"
#include "base/base64.h"

/* The released files have some 130 nodes, 6 deep, in 6 kB: these limits leave room and stop bombs. */
enum { SIZE_LIMIT = 1 << 20, DEPTH_LIMIT = 64, NODE_LIMIT = 20000 };

/* A map or list that is being filled. `tail` points at the place of the next child, so that children are appended
 * without walking the list. */
typedef struct {
    xkd_yaml_node *node;
    xkd_yaml_node **tail; /* where its next child goes */
    char *key;            /* of a map: the key whose value comes next */
    int key_line;
} level;

typedef struct {
    xkd_context *cx;
    const char *name;
    bool strict;
    xkd_yaml_node *root;
    level levels[DEPTH_LIMIT];
    int depth, nodes, documents; /* levels in use; nodes so far; documents seen */
} builder;

/* Recursion is as deep as the tree, which DEPTH_LIMIT bounds; neighbours are freed in a loop. */
void xkd_yaml_free(xkd_yaml_node *node)
{
    while (node) {
        xkd_yaml_node *next = node->next;
        xkd_yaml_free(node->child);
        xkd_free(node->text);
        xkd_free(node->key);
        xkd_free(node);
        node = next;
    }
}

/* Linear; maps have a few dozen keys. */
const xkd_yaml_node *xkd_yaml_get(const xkd_yaml_node *map, const char *key)
{
    if (!map || map->kind != XKD_YAML_MAP) return NULL;
    for (const xkd_yaml_node *child = map->child; child; child = child->next)
        if (strcmp(child->key, key) == 0) return child;
    return NULL;
}

/* Takes an earlier value of the same key out of the map: the last one counts.
 * YAML forbids duplicates, but parsers take them, and one released file has one. */
static xkd_status drop_duplicate(builder *b, level *top)
{
    for (xkd_yaml_node **at = &top->node->child; *at; at = &(*at)->next) {
        xkd_yaml_node *old = *at;
        if (strcmp(old->key, top->key) != 0) continue;
        if (b->strict)
            return xkd_fail(b->cx, XKD_ERR_CONFIG, "%s:%d: key '%s' was given before, at line %d", b->name,
                            top->key_line, top->key, old->line);
        xkd_log(b->cx, XKD_LOG_WARN, "%s:%d: key '%s' was given before, at line %d: this value counts", b->name,
                top->key_line, top->key, old->line);
        *at = old->next;
        /* The tail may have pointed into the node that goes. */
        if (top->tail == &old->next) top->tail = at;
        old->next = NULL;
        xkd_yaml_free(old);
        top->node->count--;
        break;
    }
    return XKD_OK;
}

/* Hangs a new node into the tree; takes it over in any case.
 * The key passes from the level to the node. */
static xkd_status attach(builder *b, xkd_yaml_node *node)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cx;
    /* Counted before it is attached: a bomb stops at the limit, not after it. */
    if (++b->nodes > NODE_LIMIT)
        XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: more than %d values", b->name, node->line, NODE_LIMIT);
    if (b->depth == 0) {
        b->root = node;
        return XKD_OK;
    }
    level *top = &b->levels[b->depth - 1];
    if (top->node->kind == XKD_YAML_MAP) {
        XKD_TRY(drop_duplicate(b, top));
        node->key = top->key;
        top->key = NULL;
    }
    /* From here on the tree owns the node. */
    *top->tail = node;
    top->tail = &node->next;
    top->node->count++;
    return XKD_OK;
fail:
    xkd_yaml_free(node);
    return status;
}

/* In a map keys and values alternate. */
static bool wants_key(const builder *b)
{
    if (b->depth == 0) return false;
    const level *top = &b->levels[b->depth - 1];
    return top->node->kind == XKD_YAML_MAP && !top->key;
}

/* A 0 byte would cut the text short for all that follows. */
static xkd_status on_scalar(builder *b, const yaml_event_t *event, int line)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = b->cx;
    xkd_yaml_node *node = NULL;
    const char *text = (const char *)event->data.scalar.value;
    const char *tag = (const char *)event->data.scalar.tag, *fault = NULL;
    bool binary = tag && strcmp(tag, "tag:yaml.org,2002:binary") == 0;
    if (tag && (!binary || wants_key(b))) XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: tags are not supported", b->name, line);
    if (strlen(text) != event->data.scalar.length)
        XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: a value holds a 0 byte", b->name, line);
    if (wants_key(b)) {
        level *top = &b->levels[b->depth - 1];
        top->key_line = line;
        return xkd_copy_string(cx, &top->key, text);
    }
    XKD_TRY(xkd_alloc(cx, &node, 1, sizeof *node));
    *node = (xkd_yaml_node){.kind = XKD_YAML_SCALAR, .line = line};
    /* Quoted scalars are text, whatever they look like. */
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (binary) {
        node->plain = false;
        XKD_TRY(xkd_base64_decode(cx, text, &node->text, &fault));
        if (fault) XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: !!binary: %s", b->name, line, fault);
    } else {
        XKD_TRY(xkd_copy_string(cx, &node->text, text));
    }
    xkd_yaml_node *attached = node;
    node = NULL;
    XKD_TRY(attach(b, attached));
fail:
    xkd_yaml_free(node);
    return status;
}

/* The node is attached before it is filled: its parent then frees it whatever happens. */
static xkd_status on_start(builder *b, xkd_yaml_kind kind, bool tagged, int line)
{
    xkd_status status = XKD_OK;
    /* No node is made for the level when anything below fails. */
    xkd_context *cx = b->cx;
    xkd_yaml_node *node = NULL;
    if (tagged) XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: tags are not supported", b->name, line);
    if (wants_key(b)) XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: a key must be a word", b->name, line);
    /* Before anything is allocated for the level. */
    if (b->depth == DEPTH_LIMIT) XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: nested deeper than %d", b->name, line, DEPTH_LIMIT);
    XKD_TRY(xkd_alloc(cx, &node, 1, sizeof *node));
    *node = (xkd_yaml_node){.kind = kind, .line = line};
    XKD_TRY(attach(b, node));
    b->levels[b->depth++] = (level){.node = node, .tail = &node->child};
fail:
    return status;
}

/* Line numbers are counted from 1 for people, by libyaml from 0. */
static xkd_status on_event(builder *b, const yaml_event_t *event)
{
    int line = (int)event->start_mark.line + 1;
    switch (event->type) {
    /* Several documents in one file would leave open which one is meant. */
    case YAML_DOCUMENT_START_EVENT:
        if (b->documents++) return xkd_fail(b->cx, XKD_ERR_CONFIG, "%s:%d: a second document", b->name, line);
        return XKD_OK;
    case YAML_ALIAS_EVENT: return xkd_fail(b->cx, XKD_ERR_CONFIG, "%s:%d: aliases are not supported", b->name, line);
    case YAML_SCALAR_EVENT:
        /* An anchor is refused even if nothing refers to it. */
        if (event->data.scalar.anchor) break;
        return on_scalar(b, event, line);
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.anchor) break;
        return on_start(b, XKD_YAML_LIST, event->data.sequence_start.tag != NULL, line);
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.anchor) break;
        return on_start(b, XKD_YAML_MAP, event->data.mapping_start.tag != NULL, line);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: b->depth--; return XKD_OK;
    default: return XKD_OK;
    }
    return xkd_fail(b->cx, XKD_ERR_CONFIG, "%s:%d: anchors are not supported", b->name, line);
}

/* libyaml's message says what, its mark where; some faults have a mark of the context only. Events are freed one by
 * one, also after a failure. */
static xkd_status run_parser(builder *b, yaml_parser_t *parser)
{
    for (bool done = false; !done;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            if (parser->error == YAML_MEMORY_ERROR) return xkd_fail(b->cx, XKD_ERR_MEMORY, "out of memory: YAML");
            /* The mark of the problem is more exact where there is one. */
            int line = (int)(parser->problem_mark.line ? parser->problem_mark.line : parser->context_mark.line) + 1;
            return xkd_fail(b->cx, XKD_ERR_CONFIG, "%s:%d: not YAML: %s", b->name, line,
                            parser->problem ? parser->problem : "unreadable");
        }
        xkd_status status = on_event(b, &event);
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* An empty document is an empty map. */
xkd_status xkd_yaml_parse(xkd_context *cx, const char *name, const char *text, int64_t size, bool strict,
                          xkd_yaml_node **out)
{
    xkd_status status = XKD_OK;
    yaml_parser_t parser;
    builder b = {.cx = cx, .name = name, .strict = strict};
    bool open = false;
    /* The text need not end with a 0. */
    *out = NULL;
    if (size > SIZE_LIMIT)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: larger than the %d bytes of a configuration", name, SIZE_LIMIT);
    open = yaml_parser_initialize(&parser);
    if (!open) XKD_FAIL(XKD_ERR_MEMORY, "out of memory: YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, (size_t)size);
    XKD_TRY(run_parser(&b, &parser));
    if (!b.root) {
        XKD_TRY(xkd_alloc(cx, &b.root, 1, sizeof *b.root));
        *b.root = (xkd_yaml_node){.kind = XKD_YAML_MAP, .line = 1};
    }
    *out = b.root;
    b.root = NULL;
fail:
    /* Keys of levels that were left open. */
    for (int i = 0; i < DEPTH_LIMIT; i++) xkd_free(b.levels[i].key);
    xkd_yaml_free(b.root);
    if (open) yaml_parser_delete(&parser);
    return status;
}

/* ---- scalars ---- */

/* The list ends with NULL. */
static bool one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

/* A quoted "null" is a word. */
bool xkd_yaml_is_null(const xkd_yaml_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    return node->kind == XKD_YAML_SCALAR && node->plain && one_of(node->text, words);
}

/* All spellings of YAML 1.1, so that files written for it mean the same. */
bool xkd_yaml_bool(const xkd_yaml_node *node, bool *out)
{
    static const char *const yes[] = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", NULL};
    static const char *const no[] = {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", NULL};
    if (node->kind != XKD_YAML_SCALAR || !node->plain) return false;
    *out = one_of(node->text, yes);
    return *out || one_of(node->text, no);
}

/* No number needs more digits; longer ones are no numbers. */
enum { NUMBER_LENGTH = 63 };

/* The number without its underscores (YAML 1.1 allows them between digits); false if it is no plain scalar or long. An
 * underscore in front makes it a word. */
static bool number_text(const xkd_yaml_node *node, char out[NUMBER_LENGTH + 1])
{
    if (node->kind != XKD_YAML_SCALAR || !node->plain || !*node->text || *node->text == '_') return false;
    size_t length = 0;
    for (const char *p = node->text; *p; p++) {
        if (*p == '_') continue;
        if (length == NUMBER_LENGTH || isspace((unsigned char)*p)) return false;
        out[length++] = *p;
    }
    out[length] = 0;
    return length > 0;
}

/* 190:20:30 is 190 * 3600 + 20 * 60 + 30 in YAML 1.1. */
static bool sexagesimal(const char *digits, int64_t *out)
{
    char *end;
    /* The digits of a first part may be any number; later parts are below 60. */
    int64_t value = strtoll(digits, &end, 10);
    while (*end == ':') {
        if (!isdigit((unsigned char)end[1])) return false;
        long part = strtol(end + 1, &end, 10);
        if (part > 59 || __builtin_mul_overflow(value, 60, &value) || __builtin_add_overflow(value, part, &value))
            return false;
    }
    *out = value;
    /* A leading 0 would make it octal, which has no such form. */
    return *end == 0 && digits[0] != '0';
}

/* Decimal, octal (leading 0), hexadecimal and binary, as in YAML 1.1. */
static bool whole_number(const char *text, int64_t *out)
{
    bool negative = *text == '-';
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    if (!isdigit((unsigned char)*digits)) return false;
    errno = 0;
    if (strchr(digits, ':')) {
        if (!sexagesimal(digits, out)) return false;
        /* strtoll has not been used: nothing is left behind the number. */
        end = (char *)"";
    } else if (digits[0] == '0' && digits[1] == 'b')
        *out = strtoll(digits + 2, &end, 2);
    else if (digits[0] == '0' && digits[1] == 'x')
        *out = strtoll(digits + 2, &end, 16);
    else
        *out = strtoll(digits, &end, digits[0] == '0' ? 8 : 10);
    if (*end || errno) return false;
    if (negative) *out = -*out;
    return true;
}

/* What is left after whole numbers; "1e-4" is a number here, though YAML 1.1 asks for a dot. */
static bool fraction(const char *text, double *out)
{
    static const char *const infinite[] = {".inf", ".Inf", ".INF", NULL}, *const nan_words[] = {".nan", ".NaN", ".NAN",
                                                                                                NULL};
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    if (one_of(digits, infinite) || one_of(text, nan_words)) {
        *out = one_of(text, nan_words) ? NAN : *text == '-' ? -INFINITY : INFINITY;
        return true;
    }
    /* strtod would also take hexadecimal numbers and the words "inf" and "nan". */
    if (digits[strspn(digits, "0123456789.eE+-")] || !*digits || !strpbrk(digits, "0123456789")) return false;
    *out = strtod(text, &end);
    return *end == 0;
}

/* A real without fraction is accepted where an integer is wanted (1e6), within the range in which
 * doubles are exact. */
bool xkd_yaml_int(const xkd_yaml_node *node, int64_t *out)
{
    char text[NUMBER_LENGTH + 1];
    double real;
    if (!number_text(node, text)) return false;
    if (whole_number(text, out)) return true;
    /* NaN fails the comparison as well. 2^53: beyond it doubles have gaps, and 1e17 might not be the number that was
     * meant. */
    if (!fraction(text, &real) || real != floor(real) || fabs(real) > 9007199254740992.0) return false;
    *out = (int64_t)real;
    return true;
}

/* Octal and the like hold for reals too. */
bool xkd_yaml_real(const xkd_yaml_node *node, double *out)
{
    char text[NUMBER_LENGTH + 1];
    int64_t whole;
    if (!number_text(node, text)) return false;
    if (whole_number(text, &whole)) {
        *out = (double)whole;
        return true;
    }
    return fraction(text, out);
}
