/* Tensor files in the safetensors format: 8 bytes header length, a JSON header, raw little-endian data.
 * The reader treats a file as hostile: every number is checked before memory is touched, nothing in it is code. */
#ifndef XKD_CHECKPOINT_SAFETENSORS_H
#define XKD_CHECKPOINT_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/dtype.h"

/* One tensor of an open file; name and data belong to the file. Data is aligned to its element size. */
typedef struct {
    const char *name;
    xkd_dtype dtype;
    xkd_shape shape;
    const void *data; /* [shape] */
    int64_t bytes;
} xkd_stored_tensor;

typedef struct xkd_safetensors xkd_safetensors;

/* A header of 16 MiB names some 100 000 tensors; more is an attack on memory, not a model. */
enum { XKD_SAFETENSORS_HEADER = 16 << 20 };

/* Maps and checks the file. Refused with XKD_ERR_CHECKPOINT, naming file and tensor: a header over 16 MiB or not JSON,
 * duplicate names, numbers that are not exact unsigned integers, unknown dtypes, ranges that are not shape * size or
 * leave gaps, overlap or exceed the file. Unreadable: XKD_ERR_STORAGE. Free with xkd_safetensors_close. */
xkd_status xkd_safetensors_open(xkd_context *cx, const char *path, xkd_safetensors **out);
/* With a header of up to `limit` bytes instead, and as many values for each. */
xkd_status xkd_safetensors_open_limited(xkd_context *cx, const char *path, int64_t limit, xkd_safetensors **out);
void xkd_safetensors_close(xkd_safetensors *file); /* NULL is allowed */

int64_t xkd_safetensors_count(const xkd_safetensors *file);
/* Tensor 0 <= i < count, in the order of the data. */
const xkd_stored_tensor *xkd_safetensors_at(const xkd_safetensors *file, int64_t i);
/* By name; NULL if absent. */
const xkd_stored_tensor *xkd_safetensors_find(const xkd_safetensors *file, const char *name);
/* A string of __metadata__, owned by the file; NULL if absent. */
const char *xkd_safetensors_metadata(const xkd_safetensors *file, const char *key);

/* Strings of __metadata__ one after the other, in the file's order: *at begins as NULL; false behind the last. */
bool xkd_safetensors_next_note(const xkd_safetensors *file, void **at, const char **key, const char **value);

/* Compares the checksum that xkd_safetensors_write left in the metadata with the bytes of the file. A file of another
 * program has none, which is XKD_OK and *present 0. A mismatch is XKD_ERR_CHECKPOINT. present may be NULL. */
xkd_status xkd_safetensors_verify(xkd_context *cx, const xkd_safetensors *file, int *present);

typedef struct {
    const char *name;
    xkd_dtype dtype;
    xkd_shape shape;
    const void *data;   /* [shape] */
    xkd_memory *memory; /* where they lie; NULL: with the host */
} xkd_tensor_item;

typedef struct {
    const char *key, *value;
} xkd_metadata_item;

/* Writes tensors and metadata atomically (see base/file.h), with an XXH3-128 over the whole file in the metadata.
 * Large element types come first so that all data stays aligned. Names must be unique, printable and not
 * "__metadata__", keys and values UTF-8, else XKD_ERR_CONFIG. */
xkd_status xkd_safetensors_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count,
                                 const xkd_metadata_item *metadata, int64_t metadata_count);

#endif
