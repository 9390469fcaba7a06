/* The parameter table in tensor files: every row under its public name, shared blocks under both. */
#ifndef XKD_CHECKPOINT_PARAMS_FILE_H
#define XKD_CHECKPOINT_PARAMS_FILE_H

#include "checkpoint/differences.h"
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

/* Copies every row from a file's tensors [count], converting between floating-point types. Refused with
 * XKD_ERR_CHECKPOINT, with a list: a row without tensor, a tensor that belongs to no row, another shape, two names of one
 * row that differ. */
xkd_status xkd_params_load(xkd_context *cx, xkd_params *params, const xkd_stored_tensor *tensors, int64_t count,
                           const char *path);

/* Starts from a file of any kind: a whole model fills every row, a backbone that of its modality's student and teacher,
 * both strictly. Optimiser state is not taken over (the release keys it by number); the log says what was loaded. */
xkd_status xkd_params_start_from(xkd_context *cx, xkd_params *params, const char *path);

/* One row from its tensor; NULL or another shape is noted in `d`. XKD_ERR_CHECKPOINT if it holds integers. */
xkd_status xkd_load_row(xkd_context *cx, const xkd_params *params, xkd_param *row, const xkd_stored_tensor *tensor,
                        const char *path, xkd_differences *d);

#endif
