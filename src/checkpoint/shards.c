/* A model that a hub keeps in parts: an index says which file each tensor is in. The files are opened like any others, and lie
 * in memory beside one another. */
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "checkpoint/file_parts.h"

/* More parts than that is no model; each is a map of its own. */
enum { MOST_SHARDS = 1000 };
static const int64_t MOST_INDEX = (int64_t)64 << 20;

/* A file beside the index and nowhere else. */
static bool is_plain(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Index of the shard of this name, opened when it is met for the first time. */
static xkd_status find_shard(xkd_context *cx, xkd_tensor_file *file, const char *folder, json_t *seen, const char *name,
                             int64_t *out)
{
    xkd_status status = XKD_OK;
    struct xkd_tensor_file_parts *p = file->parts;
    char *path = NULL;
    const json_t *known = json_object_get(seen, name);
    if (known) {
        *out = json_integer_value(known);
        return XKD_OK;
    }
    if (!is_plain(name))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: names the part '%s': only files beside the index are read", file->path, name);
    if (p->shard_count == MOST_SHARDS) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: more than %d parts", file->path, MOST_SHARDS);
    XKD_TRY(xkd_join_path(cx, &path, folder, name));
    XKD_TRY(xkd_resize(cx, &p->shards, p->shard_count, p->shard_count + 1, sizeof *p->shards));
    xkd_tensor_file *shard = &p->shards[p->shard_count++];
    XKD_TRY(xkd_shard_open(cx, path, p->header_limit, shard));
    p->bytes += shard->parts->bytes;
    *out = p->shard_count - 1;
    if (json_object_set_new(seen, name, json_integer(*out)) != 0)
        XKD_FAIL(XKD_ERR_MEMORY, "%s: out of memory", file->path);
fail:
    xkd_free(path);
    return status;
}

/* Every tensor of the index must be in its part. */
static xkd_status check_map(xkd_context *cx, const xkd_tensor_file *file, const json_t *map, const json_t *seen)
{
    xkd_status status = XKD_OK;
    const struct xkd_tensor_file_parts *p = file->parts;
    const xkd_stored_tensor ***order = NULL;
    const char *name;
    json_t *part;
    XKD_TRY(xkd_alloc(cx, &order, p->shard_count, sizeof *order));
    for (int64_t i = 0; i < p->shard_count; i++)
        XKD_TRY(xkd_tensors_by_name(cx, p->shards[i].tensors, p->shards[i].count, &order[i]));
    json_object_foreach((json_t *)(uintptr_t)map, name, part)
    {
        int64_t i = json_integer_value(json_object_get(seen, json_string_value(part)));
        if (!xkd_tensors_find(order[i], p->shards[i].count, name))
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: '%s' is not in %s, where the index says it is", file->path, name,
                     p->shards[i].path);
    }
fail:
    for (int64_t i = 0; order && i < p->shard_count; i++) xkd_free(order[i]);
    xkd_free(order);
    return status;
}

/* All tensors of all parts, which point into the parts' maps; one that stands in two parts is refused with the names. */
static xkd_status take_tensors(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    const struct xkd_tensor_file_parts *p = file->parts;
    file->checksummed = p->shard_count > 0;
    for (int64_t i = 0; i < p->shard_count; i++) {
        const xkd_tensor_file *shard = &p->shards[i];
        file->checksummed = file->checksummed && shard->checksummed;
        for (int64_t k = 0; k < shard->count; k++) {
            const xkd_stored_tensor *t = &shard->tensors[k];
            XKD_TRY(xkd_file_add(cx, file, t->name, t->dtype, &t->shape, t->data));
        }
        /* What the first part says of itself, the others say too. */
        for (int64_t k = 0; i == 0 && k < shard->note_count; k++)
            if (strcmp(shard->notes[k].name, "xkd.xxh3_128") != 0)
                XKD_TRY(xkd_file_add_note(cx, file, shard->notes[k].name, shard->notes[k].value));
    }
fail:
    return status;
}

static xkd_status folder_of(xkd_context *cx, const char *path, char **out)
{
    const char *slash = strrchr(path, '/');
    return xkd_format_string(cx, out, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
}

xkd_status xkd_shards_read(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    const xkd_map *map = &file->parts->map;
    char *folder = NULL;
    const char *name;
    json_t *part, *seen = json_object(), *root = NULL;
    json_error_t error;
    file->kind = XKD_FILE_SHARDS;
    if (file->parts->shard) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: is a part of a model and an index itself", file->path);
    if (map->size <= MOST_INDEX)
        root = json_loadb((const char *)map->base, (size_t)map->size, JSON_REJECT_DUPLICATES, &error);
    json_t *weights = json_object_get(root, "weight_map");
    if (!json_is_object(weights) || json_object_size(weights) == 0 || !seen)
        XKD_FAIL(XKD_ERR_CHECKPOINT,
                 "%s: not a tensor file: JSON without the \"weight_map\" of a model in parts (name the folder or the "
                 "file of "
                 "the weights)",
                 file->path);
    XKD_TRY(folder_of(cx, file->path, &folder));
    json_object_foreach(weights, name, part)
    {
        int64_t at;
        if (!json_is_string(part)) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: the part of '%s' is no name", file->path, name);
        XKD_TRY(find_shard(cx, file, folder, seen, json_string_value(part), &at));
    }
    XKD_TRY(check_map(cx, file, weights, seen));
    XKD_TRY(take_tensors(cx, file));
fail:
    json_decref(root);
    json_decref(seen);
    xkd_free(folder);
    return status;
}
