/* The parameter table in tensor files: every row under its public name, shared blocks under both. */
#ifndef XKD_CHECKPOINT_PARAMS_FILE_H
#define XKD_CHECKPOINT_PARAMS_FILE_H

#include "checkpoint/safetensors.h"
#include "tensor/params.h"

/* What of a row a list of tensors shows. */
typedef enum { XKD_PARAM_VALUE, XKD_PARAM_GRAD, XKD_PARAM_MOMENT1, XKD_PARAM_MOMENT2 } xkd_param_part;

/* A growing list of tensors to write; names and data belong to the table. Release items with xkd_free. */
typedef struct {
    xkd_tensor_item *items;
    int64_t count, capacity;
} xkd_tensor_list;

/* Appends the part of every row that has it; of values also the second names of shared blocks. */
xkd_status xkd_params_list(xkd_context *cx, const xkd_params *params, xkd_param_part part, xkd_tensor_list *list);

/* Copies every row from the file, converting between float32 and float64. Refused with XKD_ERR_CHECKPOINT, with the
 * first names and how many: a row without tensor, a tensor that belongs to no row (names that begin with `ignore`
 * excepted; NULL: none), another shape, two names of one row that differ. */
xkd_status xkd_params_load(xkd_context *cx, xkd_params *params, const xkd_safetensors *file, const char *path,
                           const char *ignore);

/* Float32 or float64 file data into `count` elements of a row's dtype. */
xkd_status xkd_copy_elements(xkd_context *cx, xkd_dtype to, void *data, const xkd_stored_tensor *from,
                             const char *path);

#endif
