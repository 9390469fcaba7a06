/* The option table at work: YAML into the struct, the struct into YAML, and what must hold between values. A value is
 * checked before it is written. Unknown keys, wrong types and values out of range are errors with file and line; the
 * defaults go through the same code, so a wrong row in the table shows at the first start. Three parts: setting one
 * option from a node, walking a tree of nodes, and writing everything back. */
#include "config/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/base64.h"
#include "base/file.h"
#include "base/text.h"
#include "config/options.h"
#include "config/yaml.h"

/* Released files have 6 kB; keys are some 60 characters long. */
enum { FILE_LIMIT = 1 << 20, KEY_LENGTH = 256 };

/* Where a value comes from, for messages: "file.yaml:12: key". */
typedef struct {
    xkd_context *cx;
    xkd_config *config;
    const char *name;
    bool again;       /* they were named before */
    xkd_text ignored; /* keys without effect, for one note at the end */
} reader;

xkd_dtype xkd_config_dtype(const xkd_config *config)
{
    return config->precision == XKD_PRECISION_BFLOAT16 ? XKD_BF16 : XKD_F32;
}

/* Where the option's value is. One function for readers and writers, hence the lost const. */
static void *field_of(const xkd_option *option, const xkd_config *config)
{
    return (char *)(uintptr_t)config + option->offset;
}

/* "file:line: key: wants X, not Y", for every kind of wrong value. */
static xkd_status refuse(reader *r, const xkd_yaml_node *node, const char *key, const char *wanted)
{
    const char *given = node->kind == XKD_YAML_SCALAR ? node->text : node->kind == XKD_YAML_LIST ? "a list" : "a map";
    return xkd_fail(r->cx, XKD_ERR_CONFIG, "%s:%d: %s: wants %s, not %s%.60s%s", r->name, node->line, key, wanted,
                    node->kind == XKD_YAML_SCALAR ? "'" : "", given, node->kind == XKD_YAML_SCALAR ? "'" : "");
}

/* The wanted form comes from the table, as in the help. */
static xkd_status refuse_type(reader *r, const xkd_yaml_node *node, const xkd_option *option)
{
    char wanted[200];
    xkd_option_type_text(option, wanted, sizeof wanted);
    return refuse(r, node, option->key, wanted);
}

/* Infinities and NaN fit no option. */
static bool in_range(const xkd_option *o, double value)
{
    if (!isfinite(value)) return false;
    return value >= o->low && (o->below_high ? value < o->high : value <= o->high);
}

/* "off", "auto" or null, where the option says that such a word means 0. */
static bool is_zero_word(const xkd_option *o, const xkd_yaml_node *node)
{
    return o->zero_word && (xkd_yaml_is_null(node) || (node->text && strcmp(node->text, o->zero_word) == 0));
}

/* Element `index` of a number or list of numbers.
 * Both kinds of number are arrays in the struct, of length 1 for most. */
static xkd_status set_number(reader *r, const xkd_option *o, const xkd_yaml_node *node, int index)
{
    int64_t whole = 0;
    double real = 0;
    void *field = field_of(o, r->config);
    bool zero = node->kind == XKD_YAML_SCALAR && is_zero_word(o, node);
    if (o->kind == XKD_OPTION_INT) {
        if (!zero && (!xkd_yaml_int(node, &whole) || !in_range(o, (double)whole))) return refuse_type(r, node, o);
        ((int64_t *)field)[index] = whole;
    } else {
        if (!zero && (!xkd_yaml_real(node, &real) || !in_range(o, real))) return refuse_type(r, node, o);
        ((double *)field)[index] = real;
    }
    return XKD_OK;
}

/* A single number, or a list of exactly as many as the field holds.
 * A list of another length would leave entries at their defaults unnoticed. */
static xkd_status set_numbers(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    if (o->count == 1) return set_number(r, o, node, 0);
    if (node->kind != XKD_YAML_LIST || node->count != o->count) return refuse_type(r, node, o);
    int index = 0;
    for (const xkd_yaml_node *item = node->child; item; item = item->next) {
        xkd_status status = set_number(r, o, item, index++);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* The list is made whole before it is stored: a bad entry leaves the old one. */
static xkd_status set_list(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    xkd_number_list list = {0};
    if (node->kind != XKD_YAML_LIST || node->count > XKD_LIST_LIMIT) return refuse_type(r, node, o);
    for (const xkd_yaml_node *item = node->child; item; item = item->next)
        if (!xkd_yaml_real(item, &list.value[list.count]) || !in_range(o, list.value[list.count++]))
            return refuse_type(r, item, o);
    *(xkd_number_list *)field_of(o, r->config) = list;
    return XKD_OK;
}

/* `min_area: 0.08` of the release means [0.08, 1]. */
static xkd_status set_area(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    double *area = field_of(o, r->config), lowest;
    if (node->kind != XKD_YAML_SCALAR) return set_numbers(r, o, node);
    if (!xkd_yaml_real(node, &lowest) || !in_range(o, lowest)) return refuse_type(r, node, o);
    area[0] = lowest;
    area[1] = 1;
    return XKD_OK;
}

/* A constant is a schedule whose three values are one. */
static xkd_status set_constant(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    double value;
    if (!xkd_yaml_real(node, &value) || !in_range(o, value)) return refuse_type(r, node, o);
    *(xkd_schedule_config *)field_of(o, r->config) =
        (xkd_schedule_config){.warmup = value, .base = value, .final = value};
    return XKD_OK;
}

/* Index of a word in "a|b|c", -1 if it is none. Case and the kind of dash do not matter: XKD-MAS is xkd_mas. */
static int choice_index(const char *choices, const char *word)
{
    size_t wanted = strlen(word);
    int index = 0;
    for (const char *at = choices; *at; index++) {
        size_t length = strcspn(at, "|");
        bool same = length == wanted;
        for (size_t i = 0; same && i < length; i++) {
            char c = word[i] == '-' ? '_' : word[i];
            same = strncasecmp(&at[i], &c, 1) == 0;
        }
        if (same) return index;
        at += length + (at[length] == '|');
    }
    return -1;
}

/* Booleans, choices and fixed words: all are one of a few words. */
static xkd_status set_word(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    void *field = field_of(o, r->config);
    bool truth = false;
    if (node->kind != XKD_YAML_SCALAR) return refuse_type(r, node, o);
    if (o->kind == XKD_OPTION_BOOL && !o->choices) {
        if (!xkd_yaml_bool(node, &truth)) return refuse_type(r, node, o);
        *(bool *)field = truth;
        return XKD_OK;
    }
    int index = choice_index(o->choices, node->text);
    /* `yes` is as good as `true`. */
    if (index < 0 && xkd_yaml_bool(node, &truth)) index = choice_index(o->choices, truth ? "true" : "false");
    if (index < 0) return refuse_type(r, node, o);
    if (o->kind == XKD_OPTION_BOOL) *(bool *)field = index == 1;
    if (o->kind == XKD_OPTION_CHOICE) *(int *)field = index;
    return XKD_OK;
}

/* The old text is kept if the copy fails. */
static xkd_status replace_text(xkd_context *cx, char **field, const char *text)
{
    char *copy;
    xkd_status status = xkd_copy_string(cx, &copy, text);
    if (status != XKD_OK) return status;
    xkd_free(*field);
    *field = copy;
    return XKD_OK;
}

/* Which text means what for data.cache: words that switch other things on and off do so here, and are no folders. */
static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (!strcasecmp(text, *words)) return true;
    return false;
}

/* Sets the cache, whose one key stands for two fields. */
static xkd_status set_cache(reader *r, const xkd_option *o, const xkd_yaml_node *node, const char *text)
{
    static const char *const off[] = {"", "none", "off", "no", "false", NULL}, *const on[] = {"on", "yes", "true",
                                                                                              NULL};
    xkd_data_config *data = &r->config->data;
    if (is_one_of(text, on)) return refuse(r, node, o->key, "none, ram, or a folder (./on for one that is called so)");
    data->cache = is_one_of(text, off) ? XKD_CACHE_NONE : strcmp(text, "ram") == 0 ? XKD_CACHE_RAM : XKD_CACHE_FOLDER;
    return replace_text(r->cx, &data->cache_folder, data->cache == XKD_CACHE_FOLDER ? text : "");
}

/* null is the empty text. */
static xkd_status set_text(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    if (node->kind != XKD_YAML_SCALAR) return refuse_type(r, node, o);
    const char *text = xkd_yaml_is_null(node) ? "" : node->text;
    if (o->kind == XKD_OPTION_TEXT) return replace_text(r->cx, field_of(o, r->config), text);
    return set_cache(r, o, node, text);
}

/* method.md section 4.
 * Width, depth, heads. */
static const struct {
    const char *name;
    xkd_vit_size size;
} encoders[] = {{"tiny", {192, 12, 3}},
                {"tiny_h6", {192, 12, 6}},
                {"small", {384, 12, 6}},
                {"small_h12", {384, 12, 12}},
                {"base", {768, 12, 12}},
                {"large", {1024, 24, 16}},
                {NULL}},
  decoders[] = {{"large", {512, 8, 16}},   {"base", {384, 4, 12}}, {"base_d1", {384, 1, 12}}, {"small", {192, 4, 6}},
                {"small_d1", {192, 1, 6}}, {"tiny", {96, 4, 3}},   {"tiny_d1", {96, 1, 3}},   {NULL}};

/* Both "base" and "base_encoder" name a preset; "base_decoder_d1" and "base_d1_decoder" are one. */
static void plain_preset_name(const char *text, const char *word, char *out, size_t size)
{
    const char *at = strstr(text, word);
    int before = at ? (int)(at - text) : (int)strlen(text);
    snprintf(out, size, "%.*s%s", before, text, at ? at + strlen(word) : "");
}

/* The name of a preset; a map does not come here, its keys are options of their own. */
static xkd_status set_vit(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    char name[64] = "";
    bool encoder = o->kind == XKD_OPTION_ENCODER;
    if (node->kind == XKD_YAML_SCALAR)
        plain_preset_name(node->text, encoder ? "_encoder" : "_decoder", name, sizeof name);
    for (int i = 0; encoder ? encoders[i].name != NULL : decoders[i].name != NULL; i++) {
        if (strcmp(encoder ? encoders[i].name : decoders[i].name, name) != 0) continue;
        *(xkd_vit_size *)field_of(o, r->config) = encoder ? encoders[i].size : decoders[i].size;
        return XKD_OK;
    }
    return refuse(r, node, o->key, o->help);
}

/* The release's notation: hidden-activation-layers-bottleneck-outputs-norm. Only its one form is known to work.
 * Nine digits at most, so that no number overflows; %n makes sure that nothing follows. */
static xkd_status set_head(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    long long hidden, bottleneck, outputs;
    int end = 0;
    if (node->kind != XKD_YAML_SCALAR ||
        sscanf(node->text, "%9lld-gelu-3-%9lld-%9lld-norm3%n", &hidden, &bottleneck, &outputs, &end) != 3 || !end ||
        node->text[end] || hidden < 1 || bottleneck < 1 || outputs < 2)
        return refuse(r, node, o->key, o->help);
    *(xkd_head_size *)field_of(o, r->config) = (xkd_head_size){hidden, bottleneck, outputs};
    return XKD_OK;
}

/* One function per kind of value; the switch has no default, so the compiler tells when a kind is
 * missing. */
static xkd_status set_option(reader *r, const xkd_option *o, const xkd_yaml_node *node)
{
    switch (o->kind) {
    case XKD_OPTION_INT:
    case XKD_OPTION_REAL: return set_numbers(r, o, node);
    case XKD_OPTION_BOOL:
    case XKD_OPTION_CHOICE:
    case XKD_OPTION_FIXED: return set_word(r, o, node);
    case XKD_OPTION_TEXT:
    case XKD_OPTION_CACHE: return set_text(r, o, node);
    case XKD_OPTION_ENCODER:
    case XKD_OPTION_DECODER: return set_vit(r, o, node);
    case XKD_OPTION_HEAD: return set_head(r, o, node);
    case XKD_OPTION_LIST: return set_list(r, o, node);
    case XKD_OPTION_AREA: return set_area(r, o, node);
    case XKD_OPTION_CONSTANT: return set_constant(r, o, node);
    case XKD_OPTION_IGNORED: xkd_text_printf(&r->ignored, "%s%s", r->ignored.size ? ", " : "", o->key); break;
    case XKD_OPTION_ALIAS: break; /* xkd_option_find has followed it */
    }
    return XKD_OK;
}

/* Whether the key stands for a map of further keys.
 * A key may be both, as teacher_cfg is: a preset, or a map of sizes. */
static bool is_prefix(const char *key)
{
    size_t length = strlen(key);
    for (int i = 0; i < xkd_option_count(); i++) {
        const char *other = xkd_option_at(i)->key;
        if (strncmp(other, key, length) == 0 && other[length] == '.') return true;
    }
    return false;
}

/* Never ignored: a typing error in a key would silently train something else. */
static xkd_status unknown_key(reader *r, int line, const char *key)
{
    const char *suggestion = xkd_option_suggest(key);
    return xkd_fail(r->cx, XKD_ERR_CONFIG, "%s:%d: unknown key '%s'%s%s%s", r->name, line, key,
                    suggestion ? "; did you mean '" : " ('xkd help options' lists all)", suggestion ? suggestion : "",
                    suggestion ? "'?" : "");
}

/* Walks down a map; `key` is the path to it, "" at the top.
 * An empty map (null) is accepted and changes nothing, since a file may have all its keys commented
 * out. */
static xkd_status read_map(reader *r, const xkd_yaml_node *map, const char *key)
{
    char path[KEY_LENGTH];
    for (const xkd_yaml_node *child = map->child; child; child = child->next) {
        xkd_status status = XKD_OK;
        /* A path that does not fit is no key of this program. A YAML map of the file and a dotted key of the command
         * line lead to the same path. */
        int length = snprintf(path, sizeof path, "%s%s%s", key, *key ? "." : "", child->key);
        if (length >= KEY_LENGTH) return unknown_key(r, child->line, path);
        const xkd_option *option = xkd_option_find(path);
        bool inner = is_prefix(path);
        /* A map where a preset's name may stand as well opens the map. */
        if (inner && child->kind == XKD_YAML_MAP)
            status = read_map(r, child, path);
        else if (option)
            status = set_option(r, option, child);
        /* A value where a map belongs. */
        else if (inner && !xkd_yaml_is_null(child))
            status = refuse(r, child, path, "a map");
        else if (!inner)
            status = unknown_key(r, child->line, path);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* One line for all keys without effect. */
static xkd_status name_ignored(const reader *r)
{
    if (r->ignored.status == XKD_OK && r->ignored.size && !r->again)
        xkd_log(r->cx, XKD_LOG_INFO, "%s: without effect here: %s", r->name, r->ignored.data);
    return r->ignored.status;
}

/* On an error the configuration may have taken some of the text's values; the caller gives it up
 * then. */
static xkd_status parse(reader *r, const char *text, int64_t size, bool strict)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    xkd_yaml_node *root = NULL;
    r->ignored = xkd_text_make(cx);
    XKD_TRY(xkd_yaml_parse(cx, r->name, text, size, strict, &root));
    if (root->kind != XKD_YAML_MAP && !xkd_yaml_is_null(root))
        XKD_FAIL(XKD_ERR_CONFIG, "%s:%d: a configuration is a map of keys", r->name, root->line);
    XKD_TRY(read_map(r, root, ""));
    XKD_TRY(name_ignored(r));
fail:
    xkd_text_free(&r->ignored);
    xkd_yaml_free(root);
    return status;
}

xkd_status xkd_config_parse(xkd_context *cx, xkd_config *config, const char *name, const char *text, int64_t size,
                            bool strict)
{
    reader r = {.cx = cx, .config = config, .name = name};
    return parse(&r, text, size, strict);
}

static xkd_status load(reader *r, bool strict)
{
    char *text = NULL;
    int64_t size;
    xkd_status status = xkd_read_file(r->cx, r->name, FILE_LIMIT, XKD_ERR_CONFIG, &text, &size);
    /* A configuration that is not there is a mistake of the command line, not of the disk. */
    if (status == XKD_ERR_STORAGE) status = XKD_ERR_CONFIG;
    if (status == XKD_OK) status = parse(r, text, size, strict);
    xkd_free(text);
    return status;
}

xkd_status xkd_config_load(xkd_context *cx, xkd_config *config, const char *path, bool strict)
{
    reader r = {.cx = cx, .config = config, .name = path};
    return load(&r, strict);
}

xkd_status xkd_config_load_again(xkd_context *cx, xkd_config *config, const char *path)
{
    reader r = {.cx = cx, .config = config, .name = path, .again = true};
    return load(&r, false);
}

/* Text is taken as it stands, so that paths need no YAML quotes on the command line. */
static xkd_status override_text(reader *r, const xkd_option *option, const char *value)
{
    xkd_yaml_node node = {.kind = XKD_YAML_SCALAR, .line = 1, .text = (char *)(uintptr_t)value};
    return set_text(r, option, &node);
}

/* The value is YAML, so lists and maps work as in a file; text options take everything behind the
 * first `=`. */
xkd_status xkd_config_override(xkd_context *cx, xkd_config *config, const char *assignment)
{
    xkd_status status = XKD_OK;
    xkd_yaml_node *root = NULL;
    reader r = {.cx = cx, .config = config, .name = "command line", .ignored = xkd_text_make(cx)};
    char key[KEY_LENGTH];
    const char *equals = strchr(assignment, '=');
    /* The first '=' ends the key; the value may hold more of them. */
    if (!equals || equals == assignment || equals - assignment >= KEY_LENGTH)
        XKD_FAIL(XKD_ERR_CONFIG, "'%.100s' is not of the form key.sub=value", assignment);
    snprintf(key, sizeof key, "%.*s", (int)(equals - assignment), assignment);
    const xkd_option *option = xkd_option_find(key);
    /* Paths with colons or brackets would not survive YAML. */
    if (option && (option->kind == XKD_OPTION_TEXT || option->kind == XKD_OPTION_CACHE)) {
        status = override_text(&r, option, equals + 1);
        goto fail;
    }
    /* Strict: a key given twice on one command line's value is a slip. */
    XKD_TRY(xkd_yaml_parse(cx, assignment, equals + 1, (int64_t)strlen(equals + 1), true, &root));
    if (root->kind == XKD_YAML_MAP && is_prefix(key))
        XKD_TRY(read_map(&r, root, key));
    else if (option)
        XKD_TRY(set_option(&r, option, root));
    else if (is_prefix(key))
        XKD_TRY(refuse(&r, root, key, "a map"));
    else
        XKD_TRY(unknown_key(&r, 1, key));
    XKD_TRY(name_ignored(&r));
    /* Who asks for another number of micro-batches does not mean the one that a resumed run has on record. */
    if (strcmp(key, "train.accumulate") == 0) config->train.parts = 0;
fail:
    xkd_text_free(&r.ignored);
    xkd_yaml_free(root);
    return status;
}

/* Every option with a default is set as if it had been written in a file. On failure the caller frees
 * the configuration. */
xkd_status xkd_config_init(xkd_context *cx, xkd_config *config)
{
    *config = (xkd_config){0};
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        if (!o->initial || o->kind == XKD_OPTION_ALIAS) continue;
        xkd_status status = XKD_OK;
        reader r = {.cx = cx, .config = config, .name = "defaults"};
        /* A fresh reader for each, as nothing of one default matters to the next. */
        xkd_yaml_node *node = NULL;
        status = xkd_yaml_parse(cx, o->key, o->initial, (int64_t)strlen(o->initial), true, &node);
        if (status == XKD_OK && *o->initial) status = set_option(&r, o, node);
        /* The empty text, which YAML would read as null.
         * Texts are never NULL in a configuration. */
        if (status == XKD_OK && !*o->initial) status = replace_text(cx, field_of(o, config), "");
        xkd_yaml_free(node);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* Only texts are allocated; the table knows where they are. */
void xkd_config_free(xkd_config *config)
{
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        if (o->kind == XKD_OPTION_TEXT) xkd_free(*(char **)field_of(o, config));
    }
    xkd_free(config->data.cache_folder);
    *config = (xkd_config){0};
}

/* ---- writing ---- */

/* In a form that reads back to the same bits.
 * Zero is written as the word where there is one, because the range need not hold 0. */
static void write_number(xkd_text *out, const xkd_option *o, const xkd_config *config, int index)
{
    char buffer[32];
    bool whole = o->kind == XKD_OPTION_INT;
    int64_t i = whole ? ((int64_t *)field_of(o, config))[index] : 0;
    /* Whole numbers keep all 64 bits; a double would lose the last of a large seed. */
    double x = whole ? (double)i : ((double *)field_of(o, config))[index];
    if (x == 0 && o->zero_word) {
        xkd_text_puts(out, o->zero_word);
    } else if (whole) {
        xkd_text_printf(out, "%lld", (long long)i);
    } else {
        xkd_format_double(buffer, sizeof buffer, x);
        xkd_text_puts(out, buffer);
    }
}

/* The caller's index is within the list. */
static void write_choice(xkd_text *out, const char *choices, int index)
{
    while (index-- > 0) choices += strcspn(choices, "|") + 1;
    xkd_text_add(out, choices, (int64_t)strcspn(choices, "|"));
}

/* In a form that reads back to the same bits, like single numbers. */
static void write_list(xkd_text *out, const xkd_number_list *list)
{
    char buffer[32];
    xkd_text_puts(out, "[");
    for (int64_t i = 0; i < list->count; i++) {
        xkd_format_double(buffer, sizeof buffer, list->value[i]);
        xkd_text_printf(out, "%s%s", i ? ", " : "", buffer);
    }
    xkd_text_puts(out, "]");
}

/* A path may be of any bytes; YAML has a tag for what is no text. */
static void write_text(xkd_text *out, const char *text)
{
    char *coded = NULL;
    if (xkd_is_utf8(text)) {
        xkd_text_json_string(out, text);
    } else if (xkd_base64_encode(out->cx, text, &coded) == XKD_OK) {
        xkd_text_printf(out, "!!binary \"%s\"", coded);
    } else {
        out->status = XKD_ERR_MEMORY;
    }
    xkd_free(coded);
}

/* Arrays as flow lists: one line a key. */
static void write_value(xkd_text *out, const xkd_option *o, const xkd_config *config)
{
    static const char *const caches[] = {"none", "ram"};
    void *field = field_of(o, config);
    switch (o->kind) {
    case XKD_OPTION_INT:
    case XKD_OPTION_REAL:
        for (int i = 0; i < o->count; i++) {
            if (o->count > 1) xkd_text_puts(out, i ? ", " : "[");
            write_number(out, o, config, i);
        }
        if (o->count > 1) xkd_text_puts(out, "]");
        break;
    case XKD_OPTION_LIST: write_list(out, field); break;
    case XKD_OPTION_BOOL: write_choice(out, o->choices ? o->choices : "false|true", *(bool *)field); break;
    case XKD_OPTION_CHOICE: write_choice(out, o->choices, *(int *)field); break;
    /* A JSON string is a double-quoted YAML string. */
    case XKD_OPTION_TEXT: write_text(out, *(char **)field); break;
    /* What is left is the cache, whose two fields are one word. */
    default:
        xkd_text_json_string(out, config->data.cache == XKD_CACHE_FOLDER ? config->data.cache_folder
                                                                         : caches[config->data.cache]);
    }
}

/* Opens the maps of `key` that the row before (`last`) did not have open and returns the depth of the value. Keys of
 * one map stand together in the table, so no map is opened twice. Where the two keys last agreed at a dot: maps up to
 * there are open. */
static int open_maps(xkd_text *out, const char *key, const char *last)
{
    size_t common = 0, start = 0;
    int depth = 0;
    for (size_t i = 0; key[i] && key[i] == last[i]; i++)
        if (key[i] == '.') common = i + 1;
    for (const char *dot; (dot = strchr(key + start, '.')); start = (size_t)(dot - key) + 1, depth++)
        if (start >= common)
            xkd_text_printf(out, "%*s%.*s:\n", 2 * depth, "", (int)(dot - key - (int64_t)start), key + start);
    return depth;
}

/* Presets are written as the sizes they stand for; aliases, fixed and ignored keys say nothing of their own. */
static bool is_written(const xkd_option *o)
{
    return o->kind <= XKD_OPTION_CHOICE || o->kind == XKD_OPTION_CACHE || o->kind == XKD_OPTION_LIST;
}

/* Everything is written, defaults included: the file of a run does not depend on later defaults.
 * Reading it gives back the same configuration. */
xkd_status xkd_config_write(xkd_context *cx, const xkd_config *config, char **text)
{
    xkd_text out = xkd_text_make(cx);
    const char *last = "";
    for (int i = 0; i < xkd_option_count(); i++) {
        /* In the table's order, which is that of the file. */
        const xkd_option *o = xkd_option_at(i);
        if (!is_written(o)) continue;
        int depth = open_maps(&out, o->key, last);
        const char *dot = strrchr(o->key, '.');
        xkd_text_printf(&out, "%*s%s: ", 2 * depth, "", dot ? dot + 1 : o->key);
        write_value(&out, o, config);
        xkd_text_puts(&out, "\n");
        last = o->key;
    }
    return xkd_text_take(&out, text);
}

/* Compared as texts, which are equal where the values are: numbers are written with all their digits. */
xkd_status xkd_config_write_changed(xkd_context *cx, const xkd_config *config, const xkd_config *base, char **text)
{
    xkd_status status = XKD_OK;
    xkd_text out = xkd_text_make(cx), now = xkd_text_make(cx), before = xkd_text_make(cx);
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        if (!is_written(o)) continue;
        xkd_text_clear(&now);
        xkd_text_clear(&before);
        write_value(&now, o, config);
        write_value(&before, o, base);
        XKD_TRY(now.status);
        XKD_TRY(before.status);
        if (strcmp(now.data, before.data) != 0) xkd_text_printf(&out, "%s: %s\n", o->key, now.data);
    }
    status = xkd_text_take(&out, text);
fail:
    xkd_text_free(&out);
    xkd_text_free(&now);
    xkd_text_free(&before);
    return status;
}
