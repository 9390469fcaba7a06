/* The one table of options. YAML, overrides, --help, the manual, shell completion and the resolved configuration of a
 * run are all made from it. */
#ifndef XKD_CONFIG_OPTIONS_H
#define XKD_CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    XKD_OPTION_INT,      /* int64_t [count] */
    XKD_OPTION_REAL,     /* double [count] */
    XKD_OPTION_BOOL,     /* bool; with `choices` "a|b" the words a and b stand for false and true */
    XKD_OPTION_TEXT,     /* char * */
    XKD_OPTION_CHOICE,   /* an enum whose values are the words of `choices` in order */
    XKD_OPTION_ENCODER,  /* xkd_vit_size: the name of a preset, or a map whose keys are options of their own */
    XKD_OPTION_DECODER,  /* likewise */
    XKD_OPTION_HEAD,     /* xkd_head_size: "2048-gelu-3-256-8192-norm3", or a map */
    XKD_OPTION_CACHE,    /* xkd_cache_mode with its folder: none, ram or a path */
    XKD_OPTION_LIST,     /* xkd_number_list */
    XKD_OPTION_AREA,     /* double [2]: two numbers, or one, where the other is 1 */
    XKD_OPTION_CONSTANT, /* xkd_schedule_config: one number at all times; written as the schedule it stands for */
    XKD_OPTION_ALIAS,    /* another name of the key in `initial` */
    XKD_OPTION_FIXED,    /* only the words of `choices` make sense here */
    XKD_OPTION_IGNORED   /* known from the released files, without effect; `help` says why */
} xkd_option_kind;

typedef struct {
    const char *key; /* path in the authors' schema, e.g. "model.kwargs.frame_size" */
    xkd_option_kind kind;
    size_t offset; /* of the field in xkd_config */
    int count;
    double low, high;      /* of numbers, inclusive; both 0: any */
    bool below_high;       /* `high` itself is out of range */
    const char *zero_word; /* a word that stands for 0, e.g. "off"; null then means 0 as well */
    const char *choices;   /* "a|b|c" */
    const char *initial;   /* default, as YAML text */
    const char *help;
} xkd_option;

int xkd_option_count(void);
const xkd_option *xkd_option_at(int i);
/* By key, following aliases; NULL if there is none. */
const xkd_option *xkd_option_find(const char *key);
/* The known key that looks most like this one, NULL if none does. */
const char *xkd_option_suggest(const char *key);
/* "integer >= 1", "real 0..1", "global | local", ...: what the value may be, for people. */
void xkd_option_type_text(const xkd_option *option, char *out, size_t size);

#endif
