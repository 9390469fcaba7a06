/* Tensor files of any kind, told apart by their first bytes and never by name. All formats end in one
 * flat list of named tensors that point into the mapped file, and notes for whatever was not a
 * tensor. */
#include "checkpoint/tensor_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "checkpoint/file_parts.h"

/* By xkd_file_kind. */
static const char *const kind_names[XKD_FILE_KINDS] = {"safetensors", "PyTorch zip", "PyTorch (before 1.6)",
                                                       "npy",         "npz",         "index of parts"};
/* Tensors may share a storage, so together they may exceed the file, but not without bound: what follows, such as
 * writing another file, takes as much as they say. Some more is granted to small files. */
enum { SHARE_FACTOR = 4, SHARE_MORE = 64 << 10 };

/* A constant text. */
const char *xkd_file_kind_name(xkd_file_kind kind)
{
    return kind_names[kind];
}

/* Names live as long as the file. A mapped file is never written to, so names and values are copies. */
static xkd_status keep_text(xkd_context *cx, xkd_tensor_file *file, const char *text, char **out)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    XKD_TRY(xkd_reserve(cx, &p->texts, p->text_count, &p->text_capacity, sizeof *p->texts));
    XKD_TRY(xkd_copy_string(cx, out, text));
    p->texts[p->text_count++] = *out;
fail:
    return status;
}

/* Written as a difference, so that no sum can overflow. */
static xkd_status check_total(xkd_context *cx, const xkd_tensor_file *file, int64_t more)
{
    const struct xkd_tensor_file_parts *p = file->parts;
    if (more <= SHARE_FACTOR * p->bytes + SHARE_MORE - p->tensor_bytes) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: its tensors hold more than %d times the file's size", file->path,
                    SHARE_FACTOR);
}

/* data must live as long as the file: it is part of the mapping or a copy made by xkd_file_copy. */
xkd_status xkd_file_add(xkd_context *cx, xkd_tensor_file *file, const char *name, xkd_dtype dtype,
                        const xkd_shape *shape, const void *data)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    char *kept = NULL;
    int64_t bytes = xkd_shape_count(shape) * xkd_dtype_size(dtype);
    XKD_TRY(check_total(cx, file, bytes));
    /* The list grows first: a failure of the copy leaves it as it was. */
    XKD_TRY(xkd_reserve(cx, &file->tensors, file->count, &p->tensor_capacity, sizeof *file->tensors));
    XKD_TRY(keep_text(cx, file, name, &kept));
    file->tensors[file->count++] = (xkd_stored_tensor){kept, dtype, *shape, data, bytes};
    p->tensor_bytes += bytes;
fail:
    return status;
}

/* Numbers and texts beside the tensors, for `xkd inspect`. */
xkd_status xkd_file_add_note(xkd_context *cx, xkd_tensor_file *file, const char *name, const char *value)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    xkd_file_note note = {0};
    XKD_TRY(xkd_reserve(cx, &file->notes, file->note_count, &p->note_capacity, sizeof *file->notes));
    XKD_TRY(keep_text(cx, file, name, &note.name));
    XKD_TRY(keep_text(cx, file, value, &note.value));
    file->notes[file->note_count++] = note;
fail:
    return status;
}

/* Freed with the file. The bytes count when the tensor is added. */
xkd_status xkd_file_copy(xkd_context *cx, xkd_tensor_file *file, int64_t bytes, void **out)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    XKD_TRY(check_total(cx, file, bytes));
    XKD_TRY(xkd_reserve(cx, &p->copies, p->copy_count, &p->copy_capacity, sizeof *p->copies));
    XKD_TRY(xkd_alloc(cx, out, bytes, 1));
    p->copies[p->copy_count++] = *out;
fail:
    return status;
}

/* Mapped a second time by its own reader; the pages are cached by then. */
static xkd_status read_safetensors(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    int present = 0;
    file->kind = XKD_FILE_SAFETENSORS;
    XKD_TRY(xkd_safetensors_open_limited(cx, file->path, p->header_limit, &p->safetensors));
    XKD_TRY(xkd_safetensors_verify(cx, p->safetensors, &present));
    file->checksummed = present;
    for (int64_t i = 0; i < xkd_safetensors_count(p->safetensors); i++) {
        const xkd_stored_tensor *t = xkd_safetensors_at(p->safetensors, i);
        XKD_TRY(xkd_file_add(cx, file, t->name, t->dtype, &t->shape, t->data));
    }
    const char *key, *value;
    for (void *at = NULL; xkd_safetensors_next_note(p->safetensors, &at, &key, &value);)
        XKD_TRY(xkd_file_add_note(cx, file, key, value));
fail:
    return status;
}

/* Every entry's CRC is checked, so both zip formats count as checksummed. An archive of nothing but
 * .npy files is numpy's. */
static xkd_status read_zip(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    const xkd_zip *zip = &file->parts->zip;
    XKD_TRY(xkd_zip_open(cx, file->path, &file->parts->map, &file->parts->zip));
    /* All sums before anything is interpreted. */
    for (int64_t i = 0; i < zip->count; i++) XKD_TRY(xkd_zip_verify(cx, file->path, &zip->entries[i]));
    file->checksummed = true;
    /* One entry that is no .npy makes it PyTorch's, or nobody's. */
    bool arrays = zip->count > 0;
    for (int64_t i = 0; i < zip->count; i++) {
        size_t length = strlen(zip->entries[i].name);
        arrays &= length > 4 && strcmp(zip->entries[i].name + length - 4, ".npy") == 0;
    }
    XKD_TRY(arrays ? xkd_npz_read(cx, file) : xkd_torch_zip_read(cx, file));
fail:
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const xkd_stored_tensor *const *)a)->name, (*(const xkd_stored_tensor *const *)b)->name);
}

/* The tensors themselves keep the file's order. */
xkd_status xkd_tensors_by_name(xkd_context *cx, const xkd_stored_tensor *tensors, int64_t count,
                               const xkd_stored_tensor ***out)
{
    xkd_status status = xkd_alloc(cx, out, count, sizeof **out);
    if (status != XKD_OK) return status;
    for (int64_t i = 0; i < count; i++) (*out)[i] = &tensors[i];
    qsort(*out, (size_t)count, sizeof **out, by_name);
    return XKD_OK;
}

const xkd_stored_tensor *xkd_tensors_find(const xkd_stored_tensor *const *order, int64_t count, const char *name)
{
    const xkd_stored_tensor wanted = {.name = name}, *key = &wanted;
    const xkd_stored_tensor *const *found = bsearch(&key, order, (size_t)count, sizeof *order, by_name);
    return found ? *found : NULL;
}

/* Two ways through a tree can end in one name ("a.b" and "a" -> "b"): which tensor would it be? Names are sorted, not
 * compared in pairs, since the list may be long. */
static xkd_status check_names(xkd_context *cx, const xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    const xkd_stored_tensor **order = NULL;
    XKD_TRY(xkd_tensors_by_name(cx, file->tensors, file->count, &order));
    for (int64_t i = 1; i < file->count; i++)
        if (by_name(&order[i - 1], &order[i]) == 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: two tensors are called '%s'", file->path, order[i]->name);
fail:
    xkd_free(order);
    return status;
}

#define PLAIN_PICKLE "a plain pickle: load it in Python and write its tensors with torch.save or as safetensors"

/* What stands in people's folders under the name of a tensor file, by its first bytes. */
static const char *known_stranger(const xkd_map *map)
{
    static const struct {
        int at, length;
        const char *bytes, *what;
    } kinds[] = {
        {0, 19, "version https://git", "a pointer of Git LFS and not the file itself: 'git lfs pull' fetches that"},
        {0, 1, "<", "a web page or XML: the download did not give the file"},
        {0, 2, "\x1f\x8b", "compressed by gzip: unpack it first"},
        {0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "compressed by xz: unpack it first"},
        {0, 3, "BZh", "compressed by bzip2: unpack it first"},
        {257, 5, "ustar", "a tar archive: unpack it first"},
        {0, 4, "\x89HDF", "HDF5, as Keras writes it: convert it to safetensors first"},
        {0, 4, "GGUF", "GGUF, of language models"},
        {0, 2, "\x80\x02", PLAIN_PICKLE},
        {0, 2, "\x80\x03", PLAIN_PICKLE},
        {0, 2, "\x80\x04", PLAIN_PICKLE},
        {0, 2, "\x80\x05", PLAIN_PICKLE}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (map->size >= kinds[i].at + kinds[i].length &&
            memcmp(map->base + kinds[i].at, kinds[i].bytes, (size_t)kinds[i].length) == 0)
            return kinds[i].what;
    return map->size ? NULL : "empty";
}

/* Safetensors come last, as their sign, a brace behind the length, is the weakest. */
static xkd_status read_by_content(xkd_context *cx, xkd_tensor_file *file)
{
    const xkd_map *map = &file->parts->map;
    if (map->size >= 4 && memcmp(map->base, "PK\3\4", 4) == 0) return read_zip(cx, file);
    if (map->size >= 4 && memcmp(map->base, "PK\5\6", 4) == 0) return read_zip(cx, file);
    /* Its pickle begins like none of the others. */
    if (xkd_torch_legacy_magic(map)) return xkd_torch_legacy_read(cx, file);
    if (xkd_npy_magic(map->base, map->size)) {
        file->kind = XKD_FILE_NPY;
        return xkd_npy_read(cx, file, "array", map->base, map->size);
    }
    if (map->size > 8 && map->base[8] == '{') return read_safetensors(cx, file);
    if (map->size > 1 && map->base[0] == '{') return xkd_shards_read(cx, file);
    const char *stranger = known_stranger(map);
    if (stranger) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: not a tensor file but %s", file->path, stranger);
    return xkd_fail(cx, XKD_ERR_CHECKPOINT,
                    "%s: not a tensor file: it begins like none of safetensors, PyTorch, npy and npz", file->path);
}

xkd_status xkd_tensor_file_open(xkd_context *cx, const char *path, xkd_tensor_file *out)
{
    return xkd_tensor_file_open_limited(cx, path, XKD_SAFETENSORS_HEADER, out);
}

/* Names that the libraries of model hubs give a model's file, the newer ones first. */
xkd_status xkd_find_model_in(xkd_context *cx, const char *folder, bool must, char **out)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                        "pytorch_model.bin.index.json"};
    xkd_status status = XKD_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        XKD_TRY(xkd_join_path(cx, out, folder, names[i]));
        if (xkd_path_exists(*out)) return XKD_OK;
        xkd_free(*out);
        *out = NULL;
    }
    if (must) XKD_TRY(xkd_join_path(cx, out, folder, names[0])); /* for the message of who opens it */
fail:
    return status;
}

static xkd_status open_file(xkd_context *cx, const char *path, int64_t header_limit, bool shard, xkd_tensor_file *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_tensor_file){0};
    XKD_TRY(xkd_alloc(cx, &out->parts, 1, sizeof *out->parts));
    out->parts->header_limit = header_limit;
    out->parts->shard = shard;
    if (!shard && xkd_is_folder(path))
        XKD_TRY(xkd_find_model_in(cx, path, true, &out->path));
    else
        XKD_TRY(xkd_copy_string(cx, &out->path, path));
    XKD_TRY(xkd_map_file(cx, out->path, &out->parts->map));
    out->parts->bytes = out->parts->map.size;
    XKD_TRY(read_by_content(cx, out));
    XKD_TRY(check_names(cx, out));
fail:
    return status;
}

/* On failure the caller closes `out`, which is safe at any stage. */
xkd_status xkd_tensor_file_open_limited(xkd_context *cx, const char *path, int64_t header_limit, xkd_tensor_file *out)
{
    return open_file(cx, path, header_limit, false, out);
}

xkd_status xkd_shard_open(xkd_context *cx, const char *path, int64_t header_limit, xkd_tensor_file *out)
{
    return open_file(cx, path, header_limit, true, out);
}

/* The tensors are invalid afterwards. */
void xkd_tensor_file_close(xkd_tensor_file *file)
{
    struct xkd_tensor_file_parts *p = file->parts;
    if (p) {
        for (int64_t i = 0; i < p->text_count; i++) xkd_free(p->texts[i]);
        for (int64_t i = 0; i < p->copy_count; i++) xkd_free(p->copies[i]);
        xkd_free(p->texts);
        xkd_free(p->copies);
        for (int64_t i = 0; i < p->shard_count; i++) xkd_tensor_file_close(&p->shards[i]);
        xkd_free(p->shards);
        xkd_safetensors_close(p->safetensors);
        xkd_pickle_free(&p->pickle);
        xkd_zip_free(&p->zip);
        xkd_unmap(&p->map);
        xkd_free(p);
    }
    xkd_free(file->path);
    xkd_free(file->tensors);
    xkd_free(file->notes);
    *file = (xkd_tensor_file){0};
}

/* A linear search, for callers that want a few names. */
const xkd_stored_tensor *xkd_tensor_file_find(const xkd_tensor_file *file, const char *name)
{
    for (int64_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

/* Metadata are written by safetensors only; the other formats have no place for them. */
xkd_status xkd_tensor_file_write(xkd_context *cx, const char *path, xkd_file_kind kind, const xkd_tensor_item *items,
                                 int64_t count, const xkd_metadata_item *metadata, int64_t metadata_count)
{
    switch (kind) {
    case XKD_FILE_SAFETENSORS: return xkd_safetensors_write(cx, path, items, count, metadata, metadata_count);
    case XKD_FILE_TORCH: return xkd_torch_write(cx, path, items, count);
    case XKD_FILE_NPZ: return xkd_npz_write(cx, path, items, count);
    case XKD_FILE_NPY:
        if (count == 1) return xkd_npy_write(cx, path, items);
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s: npy holds one tensor, not %lld: write .npz", path, (long long)count);
    default: break;
    }
    return xkd_fail(cx, XKD_ERR_CONFIG, "%s: files of the kind '%s' are read, not written", path,
                    xkd_file_kind_name(kind));
}
