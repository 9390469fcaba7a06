/* YAML as configuration files need it: maps, lists and scalars, read through libyaml's events into a small tree.
 * Anchors, aliases, tags and several documents are refused; size, depth and number of nodes are limited. */
#ifndef XKD_CONFIG_YAML_H
#define XKD_CONFIG_YAML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef enum { XKD_YAML_SCALAR, XKD_YAML_LIST, XKD_YAML_MAP } xkd_yaml_kind;

typedef struct xkd_yaml_node {
    xkd_yaml_kind kind;
    bool plain; /* scalar without quotes: only such a one can be a number, a boolean or null */
    int line;   /* of the value, from 1 */
    char *text; /* of a scalar */
    char *key;  /* under which its map holds it; NULL in lists and at the top */
    int64_t count;
    struct xkd_yaml_node *child, *next; /* first child of a list or map; next sibling */
} xkd_yaml_node;

/* Parses `text`; `name` stands in messages ("name:line: ..."). A key given twice counts with its last value and a
 * warning; with `strict` it is an error. An empty document gives an empty map. Errors: XKD_ERR_CONFIG. Free *out with
 * xkd_yaml_free. */
xkd_status xkd_yaml_parse(xkd_context *cx, const char *name, const char *text, int64_t size, bool strict,
                          xkd_yaml_node **out);
void xkd_yaml_free(xkd_yaml_node *node); /* the node, its children and its later siblings; NULL is allowed */

const xkd_yaml_node *xkd_yaml_get(const xkd_yaml_node *map, const char *key); /* NULL if absent */

/* PyYAML's reading of a plain scalar (YAML 1.1), false if it is none of that type. A number may also be written as
 * 1e-6, which YAML 1.1 takes for a string; an integer may be written with a fraction of zero, as in `16000.`. */
bool xkd_yaml_is_null(const xkd_yaml_node *node);
bool xkd_yaml_bool(const xkd_yaml_node *node, bool *out);
bool xkd_yaml_int(const xkd_yaml_node *node, int64_t *out);
bool xkd_yaml_real(const xkd_yaml_node *node, double *out);

#endif
