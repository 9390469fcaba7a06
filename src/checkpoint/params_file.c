/* Parameters to and from tensor files, by public name. Loading demands exactly the model's tensors: a
 * checkpoint that fits in part is one of another model. */
#include "checkpoint/params_file.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "checkpoint/content.h"

/* The name is not copied; it belongs to the table of parameters. */
static xkd_status append(xkd_context *cx, xkd_tensor_list *list, const char *name, const xkd_params *params,
                         const xkd_param *row, const void *data)
{
    xkd_status status = XKD_OK;
    /* Named in the order of the table, which is that of the networks. */
    XKD_TRY(xkd_reserve(cx, &list->items, list->count, &list->capacity, sizeof *list->items));
    list->items[list->count++] = (xkd_tensor_item){name, params->dtype, row->shape, data, params->memory};
fail:
    return status;
}

/* NULL where a row has no such part: teachers have no gradient. */
static const void *part_of(const xkd_param *row, xkd_param_part part)
{
    switch (part) {
    case XKD_PARAM_VALUE: return row->master;
    case XKD_PARAM_GRAD: return row->grad;
    case XKD_PARAM_MOMENT1: return row->moment1;
    case XKD_PARAM_MOMENT2: return row->moment2;
    }
    return NULL;
}

/* Shared blocks appear under both names, as in the release. Aliases inside one network (the head's second LN) do not,
 * and come after all rows. Items point into the parameters, which must outlive the list. */
xkd_status xkd_params_list(xkd_context *cx, const xkd_params *params, xkd_param_part part, xkd_tensor_list *list)
{
    xkd_status status = XKD_OK;
    for (int64_t i = 0; i < params->count; i++) {
        const xkd_param *row = params->rows[i];
        /* A row without this part, such as a teacher's gradient, is left out. */
        if (part_of(row, part)) XKD_TRY(append(cx, list, row->name, params, row, part_of(row, part)));
    }
    for (int64_t i = 0; part == XKD_PARAM_VALUE && i < params->alias_count; i++) {
        const xkd_param_alias *alias = &params->aliases[i];
        if (alias->shared) XKD_TRY(append(cx, list, alias->name, params, alias->row, alias->row->master));
    }
fail:
    return status;
}

/* Floating-point types convert into each other, by element unless they are equal: a backbone kept in half precision, a
 * float64 recording into a float32 model. A run is resumed from its own type alone (state.c). Rows that are only declared
 * are compared and no more: a plan finds out whether a file would do. */
static xkd_status copy_elements(xkd_context *cx, const xkd_params *params, const xkd_param *row,
                                const xkd_stored_tensor *from, const char *path)
{
    if (xkd_dtype_is_integer(from->dtype))
        return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: %s is %s: a floating-point type is needed here", path, from->name,
                        xkd_dtype_name(from->dtype));
    if (!row->master) return XKD_OK;
    xkd_tensor_write(params->memory, params->dtype, row->master, from->dtype, from->data, row->count);
    xkd_param_refresh(params, row);
    return XKD_OK;
}

xkd_status xkd_load_row(xkd_context *cx, const xkd_params *params, xkd_param *row, const xkd_stored_tensor *tensor,
                        const char *path, xkd_differences *d)
{
    if (tensor && xkd_shape_equal(&tensor->shape, &row->shape)) return copy_elements(cx, params, row, tensor, path);
    if (tensor)
        xkd_differences_add(d, "is", row->name, &tensor->shape, &row->shape);
    else
        xkd_differences_add(d, "is missing in the file", row->name, NULL, NULL);
    return XKD_OK;
}

/* A linear search: n tensors cost n^2 comparisons, a few million for the largest models. */
static const xkd_stored_tensor *find(const xkd_stored_tensor *tensors, int64_t count, const char *name)
{
    for (int64_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
    return NULL;
}

/* A second name must hold the same numbers as the first.
 * The release writes both names; a file edited by hand may have let them drift apart. */
static xkd_status check_aliases(xkd_context *cx, const xkd_params *params, const xkd_stored_tensor *tensors,
                                int64_t count, const char *path)
{
    for (int64_t i = 0; i < params->alias_count; i++) {
        const xkd_param_alias *alias = &params->aliases[i];
        const xkd_stored_tensor *second = find(tensors, count, alias->name);
        const xkd_stored_tensor *first = find(tensors, count, alias->row->name);
        /* Missing names are reported elsewhere, or were optional. */
        if (!second || !first) continue;
        if (second->bytes != first->bytes || memcmp(second->data, first->data, (size_t)first->bytes) != 0)
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: %s and %s are one tensor in this model but differ in the file",
                            path, first->name, second->name);
    }
    return XKD_OK;
}

/* Values may be partly replaced if a later tensor fails: the caller gives the model up then. */
xkd_status xkd_params_load(xkd_context *cx, xkd_params *params, const xkd_stored_tensor *tensors, int64_t count,
                           const char *path)
{
    xkd_status status = XKD_OK;
    xkd_differences d = xkd_differences_make(cx);
    for (int64_t i = 0; i < params->count; i++)
        XKD_TRY(xkd_load_row(cx, params, params->rows[i], find(tensors, count, params->rows[i]->name), path, &d));
    for (int64_t i = 0; i < count; i++) /* Names of aliases are found as well, so a second name is not unknown. */
        if (!xkd_params_find(params, tensors[i].name))
            xkd_differences_add(&d, "is not in the model", tensors[i].name, NULL, NULL);
    XKD_TRY(xkd_differences_report(cx, &d, path));
    XKD_TRY(check_aliases(cx, params, tensors, count, path));
fail:
    xkd_differences_free(&d);
    return status;
}

/* One backbone into the rows that begin with `prefix`, under their names behind it. */
static xkd_status load_backbone(xkd_context *cx, xkd_params *params, const xkd_content *content, const char *prefix,
                                const char *path)
{
    xkd_status status = XKD_OK;
    xkd_differences d = xkd_differences_make(cx);
    char name[2 * XKD_PARAM_NAME];
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        if (strncmp(row->name, prefix, strlen(prefix)) != 0) continue;
        XKD_TRY(xkd_load_row(cx, params, row, xkd_content_find(content, row->name + strlen(prefix)), path, &d));
    }
    for (int64_t i = 0; i < content->count; i++) {
        /* A name longer than any row's fits no row, cut or not. */
        snprintf(name, sizeof name, "%s%.*s", prefix, XKD_PARAM_NAME, content->tensors[i].name);
        if (!xkd_params_find(params, name))
            xkd_differences_add(&d, "is not in the model", content->tensors[i].name, NULL, NULL);
    }
    XKD_TRY(xkd_differences_report(cx, &d, path));
fail:
    xkd_differences_free(&d);
    return status;
}

/* The file stays open until its tensors are copied. A backbone goes into student and teacher alike, since a teacher
 * starts as its student's copy (method.md section 7); heads and decoders keep their random values. */
xkd_status xkd_params_start_from(xkd_context *cx, xkd_params *params, const char *path)
{
    static const char *const prefixes[][2] = {{"vid_student.backbone.", "vid_teacher.backbone."},
                                              {"aud_student.backbone.", "aud_teacher.backbone."}};
    xkd_status status = XKD_OK;
    xkd_tensor_file file = {0};
    xkd_content content = {0};
    char *described = NULL;
    XKD_TRY(xkd_tensor_file_open(cx, path, &file));
    XKD_TRY(xkd_content_identify(cx, &file, &content));
    XKD_TRY(xkd_content_describe(cx, &content, &described));
    xkd_log(cx, XKD_LOG_INFO, "%s: %s; weights are taken over, optimiser state is not", path, described);
    if (content.kind == XKD_CONTENT_OTHER) XKD_TRY(xkd_content_refuse(cx, &content, path));
    /* One of the two, so the other loop does nothing. */
    if (content.kind == XKD_CONTENT_MODEL) XKD_TRY(xkd_params_load(cx, params, content.tensors, content.count, path));
    for (int i = 0; content.kind == XKD_CONTENT_BACKBONE && i < 2; i++)
        XKD_TRY(load_backbone(cx, params, &content, prefixes[content.modality][i], path));
fail:
    xkd_free(described);
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    return status;
}
