/* Any tensor file behind one door: safetensors, PyTorch (zip and the older form), npy, npz, and a folder in Hugging Face
 * style, whose model may be in parts. The kind is told by content, never by name. Every rule of the format is checked while opening; what is not
 * exactly right is refused with XKD_ERR_CHECKPOINT. */
#ifndef XKD_CHECKPOINT_TENSOR_FILE_H
#define XKD_CHECKPOINT_TENSOR_FILE_H

#include <stdbool.h>

#include "checkpoint/safetensors.h"

typedef enum {
    XKD_FILE_SAFETENSORS,
    XKD_FILE_TORCH,
    XKD_FILE_TORCH_LEGACY,
    XKD_FILE_NPY,
    XKD_FILE_NPZ,
    XKD_FILE_SHARDS, /* an index and the files that it names, of any of the above */
    XKD_FILE_KINDS
} xkd_file_kind;

/* "safetensors", "PyTorch zip", ... */
const char *xkd_file_kind_name(xkd_file_kind kind);

/* What a file says besides tensors: metadata of safetensors, numbers and texts of a PyTorch tree. */
typedef struct {
    char *name, *value;
} xkd_file_note;

typedef struct xkd_tensor_file {
    xkd_file_kind kind;
    char *path;
    xkd_stored_tensor *tensors; /* [count], contiguous data, names with '.' between the levels of a tree */
    int64_t count;
    xkd_file_note *notes; /* [note_count] */
    int64_t note_count;
    bool checksummed;                    /* the format carried checksums, and they were compared */
    struct xkd_tensor_file_parts *parts; /* what the pointers above point into */
} xkd_tensor_file;

/* Opens and checks. Data stays in the memory map where it is contiguous and aligned. Free with xkd_tensor_file_close,
 * also after an error. */
xkd_status xkd_tensor_file_open(xkd_context *cx, const char *path, xkd_tensor_file *out);
/* With another bound on the header of safetensors than XKD_SAFETENSORS_HEADER, in bytes. */
xkd_status xkd_tensor_file_open_limited(xkd_context *cx, const char *path, int64_t header_limit, xkd_tensor_file *out);
void xkd_tensor_file_close(xkd_tensor_file *file);

/* The file of a Hugging Face style folder that holds its model, or the index of one in parts; *out is NULL where there is none,
 * or, with `must`, a name that is not there. The caller frees *out. */
xkd_status xkd_find_model_in(xkd_context *cx, const char *folder, bool must, char **out);

const xkd_stored_tensor *xkd_tensor_file_find(const xkd_tensor_file *file, const char *name);

/* Pointers to tensors in the order of their names, for xkd_tensors_find; the caller frees *out. */
xkd_status xkd_tensors_by_name(xkd_context *cx, const xkd_stored_tensor *tensors, int64_t count,
                               const xkd_stored_tensor ***out);
/* NULL if there is none. */
const xkd_stored_tensor *xkd_tensors_find(const xkd_stored_tensor *const *order, int64_t count, const char *name);

/* Writes tensors as `kind` (not TORCH_LEGACY; NPY takes exactly one tensor), atomically. Notes become metadata where the
 * format has a place for them (safetensors). bfloat16 cannot be npy: XKD_ERR_CONFIG. */
xkd_status xkd_tensor_file_write(xkd_context *cx, const char *path, xkd_file_kind kind, const xkd_tensor_item *items,
                                 int64_t count, const xkd_metadata_item *metadata, int64_t metadata_count);

#endif
