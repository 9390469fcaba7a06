/* Names of files and classes in JSON, which can hold UTF-8 alone: others stand as {"base64": "..."}. */
#ifndef XKD_DATA_JSON_NAME_H
#define XKD_DATA_JSON_NAME_H

#include <jansson.h>
#include <stdbool.h>

#include "base/text.h"

/* A string, or the object where it is no UTF-8. */
void xkd_text_json_name(xkd_text *text, const char *name);
xkd_status xkd_json_name(xkd_context *cx, const char *name, json_t **out);

/* The other way: *out is NULL where the value is neither; else the caller frees it. */
xkd_status xkd_json_name_value(xkd_context *cx, const json_t *value, char **out);

#endif
