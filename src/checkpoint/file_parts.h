/* Internal to the readers behind tensor_file.h: a file that is being filled. */
#ifndef XKD_CHECKPOINT_FILE_PARTS_H
#define XKD_CHECKPOINT_FILE_PARTS_H

#include "base/file.h"
#include "checkpoint/pickle.h"
#include "checkpoint/tensor_file.h"
#include "checkpoint/zip.h"

struct xkd_tensor_file_parts {
    xkd_map map;
    xkd_zip zip;
    xkd_pickle pickle;
    xkd_safetensors *safetensors;
    int64_t header_limit; /* of safetensors */
    int64_t tensor_capacity, note_capacity;
    char **texts; /* names that were put together here */
    int64_t text_count, text_capacity;
    void **copies; /* data that was not contiguous or not aligned in the file */
    int64_t copy_count, copy_capacity;
    int64_t tensor_bytes;           /* of all tensors added so far */
    struct xkd_tensor_file *shards; /* [shard_count] open files of a model in parts */
    int64_t shard_count;
    bool shard;    /* is one itself, and may have none: an index that names itself would be read for ever */
    int64_t bytes; /* of the file, or of all its parts: what bounds the tensors */
};

/* Adds a tensor; the name is copied. All tensors together may hold at most 4 times the file's size and 64 KiB: many
 * that share a small storage must not fill the disk or the machine. */
xkd_status xkd_file_add(xkd_context *cx, xkd_tensor_file *file, const char *name, xkd_dtype dtype,
                        const xkd_shape *shape, const void *data);
xkd_status xkd_file_add_note(xkd_context *cx, xkd_tensor_file *file, const char *name, const char *value);

/* Memory for the data of the tensor that is added next, within the same bound. It lives as long as the file. */
xkd_status xkd_file_copy(xkd_context *cx, xkd_tensor_file *file, int64_t bytes, void **out);

/* A model in parts, by its index ("weight_map": {tensor: file beside the index}). */
xkd_status xkd_shards_read(xkd_context *cx, xkd_tensor_file *file);
xkd_status xkd_shard_open(xkd_context *cx, const char *path, int64_t header_limit, xkd_tensor_file *out);

xkd_status xkd_torch_zip_read(xkd_context *cx, xkd_tensor_file *file);
xkd_status xkd_torch_legacy_read(xkd_context *cx, xkd_tensor_file *file);
bool xkd_torch_legacy_magic(const xkd_map *map);
xkd_status xkd_torch_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count);

/* One npy array at data[0 .. size); `name` is its tensor's name. */
xkd_status xkd_npy_read(xkd_context *cx, xkd_tensor_file *file, const char *name, const unsigned char *data,
                        int64_t size);
xkd_status xkd_npz_read(xkd_context *cx, xkd_tensor_file *file);
bool xkd_npy_magic(const unsigned char *data, int64_t size);
xkd_status xkd_npy_write(xkd_context *cx, const char *path, const xkd_tensor_item *item);
xkd_status xkd_npz_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count);

#endif
