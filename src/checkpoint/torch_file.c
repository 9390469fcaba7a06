/* PyTorch files: the zip form (since 1.6) and the older one, and the writer of the zip form. A state dict is a tree;
 * tensors get the names of the keys on the way, joined by dots. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "checkpoint/file_parts.h"

/* A pickle may refer to one value a thousand times, and each of those to another: visits multiply. */
enum {
    MOST_VISITS = 1 << 18, /* values met on the way through the tree: shared values count each time */
    MOST_NAME = 1024,
    MOST_NAMES = 16 << 20 /* bytes of all names together, as much as safetensors have for theirs */
};

/* A storage by its key, with its bytes once they are found. Storages of one key must agree. `key` points into the
 * pickle. */
typedef struct {
    const char *key;
    int64_t key_size;
    xkd_pickle_storage storage;
    const unsigned char *data;
} stored;

/* The key as messages show it. */
typedef struct {
    char text[120];
} shown_key;

typedef struct {
    xkd_context *cx;
    xkd_tensor_file *file;
    stored *storages; /* [count], sorted by key */
    int64_t count;
    int64_t visits, name_bytes; /* of the walk so far */
    bool passed_over[256];      /* kinds of opaque values that were told, by their number */
} reader;

/* Keys are bytes with a length, not terminated strings. An order among keys, so that equal ones stand together and can
 * be looked up. */
static int by_key(const void *a, const void *b)
{
    const stored *x = a, *y = b;
    int64_t shorter = x->key_size < y->key_size ? x->key_size : y->key_size;
    int order = memcmp(x->key, y->key, (size_t)shorter);
    return order ? order : (x->key_size > y->key_size) - (x->key_size < y->key_size);
}

static shown_key show_key(const stored *s)
{
    shown_key shown;
    xkd_escape(shown.text, sizeof shown.text, s->key, (size_t)s->key_size, "");
    return shown;
}

/* NULL if the pickle names no such storage. */
static stored *find_storage(const reader *r, const char *key, int64_t size)
{
    stored wanted = {.key = key, .key_size = size};
    return r->count ? bsearch(&wanted, r->storages, (size_t)r->count, sizeof wanted, by_key) : NULL;
}

/* The node of the key is a text by construction. */
static stored stored_of(const xkd_pickle *p, const xkd_pickle_storage *s)
{
    const xkd_pickle_node *key = &p->nodes[s->key];
    return (stored){.key = key->as.text.data, .key_size = key->as.text.size, .storage = *s};
}

/* All storages of the pickle, each key once. */
static xkd_status collect_storages(reader *r)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_pickle *p = &r->file->parts->pickle;
    int64_t all = 0;
    for (int64_t i = 0; i < p->count; i++) all += p->nodes[i].kind == XKD_PICKLE_STORAGE;
    XKD_TRY(xkd_alloc(cx, &r->storages, all, sizeof *r->storages));
    for (int64_t i = 0, k = 0; i < p->count; i++) /* Nodes of other kinds are the tree around them. */
        if (p->nodes[i].kind == XKD_PICKLE_STORAGE) r->storages[k++] = stored_of(p, &p->nodes[i].as.storage);
    qsort(r->storages, (size_t)all, sizeof *r->storages, by_key);
    /* Equal keys stand together now; they are one storage that several tensors share. */
    for (int64_t i = 0; i < all; i++) {
        const stored *last = r->count ? &r->storages[r->count - 1] : NULL;
        if (!last || by_key(last, &r->storages[i]) != 0)
            r->storages[r->count++] = r->storages[i];
        else if (last->storage.dtype != r->storages[i].storage.dtype ||
                 last->storage.count != r->storages[i].storage.count)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: storage '%s' is declared with two types or sizes", r->file->path,
                     show_key(last).text);
    }
fail:
    return status;
}

/* False where the product overflows. A size that does not fit 64 bits is no storage of any file. */
static bool storage_bytes(const xkd_pickle_storage *s, int64_t *bytes)
{
    return !__builtin_mul_overflow(s->count, xkd_dtype_size(s->dtype), bytes);
}

/* Copies a strided view element by element into contiguous memory.
 * Element by element is slow, but transposed tensors are rare in state dicts. The index counts like
 * an odometer. */
static void copy_view(unsigned char *to, const unsigned char *from, const xkd_pickle_tensor *t, int64_t size)
{
    int64_t index[XKD_MAX_DIMS] = {0}, count = xkd_shape_count(&t->shape);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = t->offset;
        for (int k = 0; k < t->shape.ndim; k++) at += index[k] * t->stride[k];
        /* The offset is in elements, and the pickle reader has checked it against the storage. */
        memcpy(to + i * size, from + at * size, (size_t)size);
        for (int k = t->shape.ndim - 1; k >= 0 && ++index[k] == t->shape.dims[k]; k--) index[k] = 0;
    }
}

/* Strides of dimensions of size 1 do not matter. */
static bool is_contiguous(const xkd_pickle_tensor *t)
{
    int64_t expected = 1;
    for (int k = t->shape.ndim - 1; k >= 0; k--) {
        if (t->shape.dims[k] != 1 && t->stride[k] != expected) return false;
        expected *= t->shape.dims[k];
    }
    return true;
}

/* Copied only if the view is not contiguous or not aligned. */
static xkd_status add_tensor(reader *r, const char *name, const xkd_pickle_tensor *t)
{
    xkd_status status = XKD_OK;
    const xkd_pickle *p = &r->file->parts->pickle;
    const xkd_pickle_storage *s = &p->nodes[t->storage].as.storage;
    const xkd_pickle_node *key = &p->nodes[s->key];
    const stored *found = find_storage(r, key->as.text.data, key->as.text.size);
    int64_t size = xkd_dtype_size(s->dtype), count = xkd_shape_count(&t->shape);
    const unsigned char *data = found->data + t->offset * size;
    /* Aligned data are used where they lie in the mapped file. */
    if (count > 0 && (!is_contiguous(t) || (uintptr_t)data % (uintptr_t)size)) {
        void *copy = NULL;
        int64_t bytes;
        /* An overflow becomes a size that xkd_file_copy refuses. */
        if (__builtin_mul_overflow(count, size, &bytes)) bytes = INT64_MAX;
        XKD_TRY(xkd_file_copy(r->cx, r->file, bytes, &copy));
        copy_view(copy, found->data, t, size);
        data = copy;
    }
    XKD_TRY(xkd_file_add(r->cx, r->file, name, s->dtype, &t->shape, data));
fail:
    return status;
}

/* Named, so that nobody looks for it; each kind once in the log. */
static xkd_status pass_over(reader *r, const char *name, const xkd_pickle_node *n)
{
    char what[160], text[200];
    xkd_pickle_opaque_name(n, what, sizeof what);
    snprintf(text, sizeof text, "passed over (%s)", what);
    int at = n->as.global;
    if (at < (int)sizeof r->passed_over && !r->passed_over[at])
        xkd_log(r->cx, XKD_LOG_INFO, "%s: '%s' is passed over: %s", r->file->path, name, what);
    if (at < (int)sizeof r->passed_over) r->passed_over[at] = true;
    return xkd_file_add_note(r->cx, r->file, name, text);
}

/* The items of a dict whose keys are no text. */
static xkd_status tell_dropped(reader *r, const char *name)
{
    static const char WHAT[] = "items whose keys are neither text nor integers";
    char text[100];
    snprintf(text, sizeof text, "passed over (%s)", WHAT);
    xkd_log(r->cx, XKD_LOG_INFO, "%s: '%s': %s are passed over", r->file->path, name, WHAT);
    return xkd_file_add_note(r->cx, r->file, *name ? name : "(all)", text);
}

/* A number or text of the tree as a note.
 * Long texts are cut: notes are for looking at. */
static xkd_status add_value(reader *r, const char *name, const xkd_pickle_node *n)
{
    char text[80];
    switch (n->kind) {
    case XKD_PICKLE_BOOL: snprintf(text, sizeof text, "%s", n->as.truth ? "true" : "false"); break;
    case XKD_PICKLE_INT: snprintf(text, sizeof text, "%" PRId64, n->as.integer); break;
    case XKD_PICKLE_FLOAT: xkd_format_double(text, sizeof text, n->as.real); break;
    case XKD_PICKLE_TEXT: xkd_escape(text, sizeof text, n->as.text.data, (size_t)n->as.text.size, ""); break;
    case XKD_PICKLE_NONE: snprintf(text, sizeof text, "none"); break;
    case XKD_PICKLE_OPAQUE: return pass_over(r, name, n);
    default: return XKD_OK; /* a dtype or storage on its own says nothing */
    }
    return xkd_file_add_note(r->cx, r->file, name, text);
}

/* Appends a key to the name of its parent; `length` is the parent's.
 * Integer keys, as optimiser states have, become decimal text. */
static xkd_status join_name(reader *r, char *name, size_t length, const xkd_pickle_node *key, int64_t index)
{
    char number[24];
    const char *text = number;
    int64_t size;
    if (key && key->kind == XKD_PICKLE_TEXT) {
        text = key->as.text.data;
        size = key->as.text.size;
    } else {
        size = snprintf(number, sizeof number, "%" PRId64, key ? key->as.integer : index);
    }
    bool dot = length > 0;
    if (size <= 0 || length + (size_t)size + dot >= MOST_NAME)
        return xkd_fail(r->cx, XKD_ERR_CHECKPOINT, "%s: a key is empty or its name longer than %d bytes", r->file->path,
                        MOST_NAME);
    if (dot) name[length] = '.';
    memcpy(name + length + dot, text, (size_t)size);
    name[length + dot + (size_t)size] = 0;
    /* Names are printed in messages and lists. */
    if ((int64_t)strlen(name + length + dot) != size || !xkd_is_printable(name + length + dot))
        return xkd_fail(r->cx, XKD_ERR_CHECKPOINT, "%s: a key is not UTF-8 or has control characters", r->file->path);
    return XKD_OK;
}

/* Depth is bounded by the pickle reader, so recursion is. */
static xkd_status visit(reader *r, int64_t number, char *name)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_pickle_node *n = &r->file->parts->pickle.nodes[number];
    size_t length = strlen(name);
    /* Counted on the way, since shared nodes are visited once for each reference. */
    if (++r->visits > MOST_VISITS)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: more than %d values in its tree", r->file->path, MOST_VISITS);
    if ((r->name_bytes += (int64_t)length) > MOST_NAMES)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: the names of its tree take more than %d bytes", r->file->path, MOST_NAMES);
    /* A file may be a single tensor, which has no name. */
    if (n->kind == XKD_PICKLE_TENSOR)
        return add_tensor(r, length ? name : "tensor", &r->file->parts->pickle.tensors[n->as.tensor]);
    bool dict = n->kind == XKD_PICKLE_DICT;
    if (!dict && n->kind != XKD_PICKLE_LIST && n->kind != XKD_PICKLE_TUPLE) return add_value(r, name, n);
    if (n->dropped) XKD_TRY(tell_dropped(r, name));
    for (int64_t i = 0; i < n->as.list.count; i += dict ? 2 : 1) {
        const xkd_pickle_node *key = dict ? &r->file->parts->pickle.nodes[n->as.list.items[i]] : NULL;
        XKD_TRY(join_name(r, name, length, key, i));
        /* The name is cut back below, so one buffer serves the whole walk. */
        XKD_TRY(visit(r, n->as.list.items[dict ? i + 1 : i], name));
        name[length] = 0;
    }
fail:
    return status;
}

/* The buffer is shared by all levels, each of which cuts its own part off again. */
static xkd_status flatten(reader *r)
{
    char name[MOST_NAME] = "";
    return visit(r, r->file->parts->pickle.root, name);
}

/* The folder that holds data.pkl, with its slash.
 * Every entry must lie in that folder; anything beside it is not PyTorch's. */
static xkd_status find_prefix(xkd_context *cx, const xkd_tensor_file *file, char **prefix, const xkd_zip_entry **pickle)
{
    xkd_status status = XKD_OK;
    const xkd_zip *zip = &file->parts->zip;
    *pickle = NULL;
    for (int64_t i = 0; i < zip->count; i++) {
        const char *slash = strchr(zip->entries[i].name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
        /* The archive's own folder has a name that the writer chose, so it is found by what it holds. */
        if (*pickle) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: two entries are called data.pkl", file->path);
        *pickle = &zip->entries[i];
    }
    if (!*pickle) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: neither a PyTorch file (no data.pkl) nor npz", file->path);
    XKD_TRY(xkd_copy_string(cx, prefix, (*pickle)->name));
    strchr(*prefix, '/')[1] = 0;
    for (int64_t i = 0; i < zip->count; i++) {
        const char *name = zip->entries[i].name;
        if (strncmp(name, *prefix, strlen(*prefix)) != 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' lies outside of '%s'", file->path, name, *prefix);
        name += strlen(*prefix);
        if (strncmp(name, "code/", 5) == 0 || strcmp(name, "constants.pkl") == 0)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: a TorchScript program, not a state dict: it is refused", file->path);
    }
fail:
    return status;
}

/* Files without the entry are older and little endian. */
static xkd_status check_byte_order(xkd_context *cx, const xkd_tensor_file *file, const char *prefix)
{
    xkd_status status = XKD_OK;
    char *name = NULL;
    XKD_TRY(xkd_format_string(cx, &name, "%sbyteorder", prefix));
    const xkd_zip_entry *e = xkd_zip_find(&file->parts->zip, name);
    if (e && (e->size != 6 || memcmp(e->data, "little", 6) != 0))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: only little-endian files are read", file->path);
fail:
    xkd_free(name);
    return status;
}

/* Entries "<prefix>data/<key>", one a storage, of exactly its size.
 * A storage without data, or data of another size, is refused; data without a storage are ignored. */
static xkd_status find_zip_data(reader *r, const char *prefix)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_zip *zip = &r->file->parts->zip;
    size_t length = strlen(prefix);
    for (int64_t i = 0; i < zip->count; i++) {
        const char *name = zip->entries[i].name + length;
        if (strncmp(name, "data/", 5) != 0) continue;
        stored *s = find_storage(r, name + 5, (int64_t)strlen(name + 5));
        /* The first entry with this key; the zip reader refuses two of one name. */
        if (s) s->data = zip->entries[i].data;
        int64_t bytes;
        if (s && (!storage_bytes(&s->storage, &bytes) || bytes != zip->entries[i].size))
            XKD_FAIL(XKD_ERR_CHECKPOINT,
                     "%s: storage '%s' has %" PRId64 " bytes, not the %" PRId64 " elements of %s it "
                     "declares",
                     r->file->path, name + 5, zip->entries[i].size, s->storage.count, xkd_dtype_name(s->storage.dtype));
    }
    for (int64_t i = 0; i < r->count; i++)
        if (!r->storages[i].data)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the data of storage '%s' is missing", r->file->path,
                     show_key(&r->storages[i]).text);
fail:
    return status;
}

/* data.pkl first, for it says which storages there are. */
xkd_status xkd_torch_zip_read(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    reader r = {.cx = cx, .file = file};
    char *prefix = NULL;
    const xkd_zip_entry *pickle;
    file->kind = XKD_FILE_TORCH;
    XKD_TRY(find_prefix(cx, file, &prefix, &pickle));
    XKD_TRY(check_byte_order(cx, file, prefix));
    XKD_TRY(xkd_pickle_read(cx, file->path, pickle->data, pickle->size, NULL, &file->parts->pickle));
    XKD_TRY(collect_storages(&r));
    XKD_TRY(find_zip_data(&r, prefix));
    XKD_TRY(flatten(&r));
fail:
    xkd_free(prefix);
    xkd_free(r.storages);
    return status;
}

/* PROTO 2, LONG1 of ten bytes 0x1950a86a20f9469cfc6c, STOP: the magic number of torch.save before 1.6. */
static const unsigned char legacy_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                             0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

/* Both forms of the file are told by their first bytes. */
bool xkd_torch_legacy_magic(const xkd_map *map)
{
    return map->size >= (int64_t)sizeof legacy_magic && memcmp(map->base, legacy_magic, sizeof legacy_magic) == 0;
}

/* The pickles in front of the data: protocol version and system; both are checked and dropped.
 * Each pickle says where it ends, and the next begins there. */
static xkd_status read_legacy_preamble(xkd_context *cx, const xkd_tensor_file *file, int64_t *at)
{
    xkd_status status = XKD_OK;
    const xkd_map *map = &file->parts->map;
    xkd_pickle version = {0}, system = {0};
    int64_t used = 0;
    XKD_TRY(xkd_pickle_read(cx, file->path, map->base + *at, map->size - *at, &used, &version));
    *at += used;
    const xkd_pickle_node *v = &version.nodes[version.root];
    if (v->kind != XKD_PICKLE_INT || v->as.integer != 1001)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: unknown version of the older PyTorch format", file->path);
    XKD_TRY(xkd_pickle_read(cx, file->path, map->base + *at, map->size - *at, &used, &system));
    *at += used;
    int64_t little = xkd_pickle_get(&system, system.root, "little_endian");
    if (little < 0 || system.nodes[little].kind != XKD_PICKLE_BOOL || !system.nodes[little].as.truth)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: only little-endian files are read", file->path);
fail:
    xkd_pickle_free(&version);
    xkd_pickle_free(&system);
    return status;
}

/* Behind the tree: a list of keys, then for each its number of elements and its bytes.
 * Data are not aligned in this format; add_tensor copies where that matters. */
static xkd_status read_legacy_data(reader *r, int64_t at)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    const xkd_map *map = &r->file->parts->map;
    xkd_pickle keys = {0};
    int64_t used = 0, found = 0;
    XKD_TRY(xkd_pickle_read(cx, r->file->path, map->base + at, map->size - at, &used, &keys));
    at += used;
    const xkd_pickle_node *list = &keys.nodes[keys.root];
    if (list->kind != XKD_PICKLE_LIST) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: its list of storages is none", r->file->path);
    /* In the order of the list, which is that of the bytes. */
    for (int64_t i = 0; i < list->as.list.count; i++) {
        const xkd_pickle_node *key = &keys.nodes[list->as.list.items[i]];
        stored *s = key->kind == XKD_PICKLE_TEXT ? find_storage(r, key->as.text.data, key->as.text.size) : NULL;
        int64_t bytes, count;
        /* A key given twice would leave open which bytes are meant. */
        if (!s || s->data || map->size - at < 8)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: storage %" PRId64 " of its list is unknown, repeated or cut off",
                     r->file->path, i);
        memcpy(&count, map->base + at, 8);
        at += 8;
        if (count != s->storage.count || !storage_bytes(&s->storage, &bytes) || bytes > map->size - at)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: storage %" PRId64 " has another size than declared, or is cut off",
                     r->file->path, i);
        s->data = map->base + at;
        at += bytes;
        found++;
    }
    /* A storage that the list does not name would have no data. */
    if (found != r->count) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: the data of a storage is missing", r->file->path);
    if (at != map->size)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: %" PRId64 " bytes behind its end", r->file->path, map->size - at);
fail:
    xkd_pickle_free(&keys);
    return status;
}

/* Like the zip form, with everything in one stream. */
xkd_status xkd_torch_legacy_read(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    reader r = {.cx = cx, .file = file};
    /* The magic number was compared before. */
    int64_t at = sizeof legacy_magic, used = 0;
    const xkd_map *map = &file->parts->map;
    file->kind = XKD_FILE_TORCH_LEGACY;
    XKD_TRY(read_legacy_preamble(cx, file, &at));
    XKD_TRY(xkd_pickle_read(cx, file->path, map->base + at, map->size - at, &used, &file->parts->pickle));
    XKD_TRY(collect_storages(&r));
    XKD_TRY(read_legacy_data(&r, at + used));
    XKD_TRY(flatten(&r));
fail:
    xkd_free(r.storages);
    return status;
}

/* PyTorch's wider unsigned integers have no storages of their own, and old versions do not know them. */
static const char *const storage_names[XKD_DTYPE_COUNT] = {
    [XKD_F32] = "FloatStorage", [XKD_F64] = "DoubleStorage", [XKD_F16] = "HalfStorage",  [XKD_BF16] = "BFloat16Storage",
    [XKD_I64] = "LongStorage",  [XKD_I32] = "IntStorage",    [XKD_I16] = "ShortStorage", [XKD_I8] = "CharStorage",
    [XKD_U8] = "ByteStorage",   [XKD_BOOL] = "BoolStorage",
};

/* BINUNICODE: its length has four bytes. */
static void put_text(xkd_text *out, const char *text)
{
    uint32_t size = (uint32_t)strlen(text);
    xkd_text_add(out, "X", 1);
    xkd_text_add(out, &size, 4); /* little-endian, as this machine */
    xkd_text_add(out, text, size);
}

/* BININT where it fits, else LONG1 of eight bytes. Values are sizes and never negative. Written as PyTorch itself
 * would, so that old versions read it. */
static void put_integer(xkd_text *out, int64_t value)
{
    bool wide = value > INT32_MAX;
    unsigned char size = 8;
    int32_t narrow = (int32_t)value;
    xkd_text_add(out, wide ? "\x8a" : "J", 1);
    if (wide) xkd_text_add(out, &size, 1);
    xkd_text_add(out, wide ? (const void *)&value : (const void *)&narrow, wide ? 8 : 4);
}

/* One key and its tensor, in the opcodes that PyTorch itself uses.
 * The memo is not used: files are a little longer and simpler to check. */
static void put_tensor(xkd_text *out, const xkd_tensor_item *item, int64_t number)
{
    char key[24];
    int64_t stride[XKD_MAX_DIMS], step = 1;
    snprintf(key, sizeof key, "%" PRId64, number);
    put_text(out, item->name);
    xkd_text_puts(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(out, "storage");
    xkd_text_printf(out, "ctorch\n%s\n", storage_names[item->dtype]);
    put_text(out, key);
    put_text(out, "cpu");
    put_integer(out, xkd_shape_count(&item->shape));
    xkd_text_puts(out, "tQ");
    put_integer(out, 0);
    xkd_text_puts(out, "(");
    for (int i = 0; i < item->shape.ndim; i++) put_integer(out, item->shape.dims[i]);
    xkd_text_puts(out, "t(");
    for (int i = item->shape.ndim - 1; i >= 0; i--) {
        stride[i] = step;
        step *= item->shape.dims[i] > 0 ? item->shape.dims[i] : 1;
    }
    for (int i = 0; i < item->shape.ndim; i++) put_integer(out, stride[i]);
    xkd_text_puts(out, "t\x89"
                       "ccollections\nOrderedDict\n)RtR");
}

/* What the reader would refuse is not written. */
static xkd_status check_items(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count)
{
    int64_t values = 0, names = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t length = strlen(items[i].name);
        if (length == 0 || length >= MOST_NAME || !xkd_is_printable(items[i].name))
            return xkd_fail(cx, XKD_ERR_CONFIG, "%s: no tensor of this form can have the name '%.100s'", path,
                            items[i].name);
        if (!storage_names[items[i].dtype])
            return xkd_fail(cx, XKD_ERR_CONFIG, "%s: '%s' is %s, which this form does not have: write .safetensors",
                            path, items[i].name, xkd_dtype_name(items[i].dtype));
        names += (int64_t)length;
        values += 18 + 2 * items[i].shape.ndim; /* the values that put_tensor makes */
    }
    if (names > MOST_NAMES || values >= XKD_PICKLE_MOST_VALUES)
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s: %" PRId64 " tensors are too many for this form: write .safetensors",
                        path, count);
    return XKD_OK;
}

/* Loads in PyTorch with weights_only as well, since only its own globals are named. */
xkd_status xkd_torch_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_zip_writer *w = NULL;
    xkd_text pickle = xkd_text_make(cx);
    char name[64];
    XKD_TRY(check_items(cx, path, items, count));
    /* PROTO 2, an empty dict, and a mark in front of all pairs. */
    xkd_text_add(&pickle, "\x80\x02}(", 4);
    /* Keys of storages are 0, 1, ..., in the order of the tensors. */
    for (int64_t i = 0; i < count; i++) put_tensor(&pickle, &items[i], i);
    xkd_text_puts(&pickle, "u.");
    XKD_TRY(pickle.status);
    XKD_TRY(xkd_zip_writer_open(cx, path, &w));
    XKD_TRY(xkd_zip_writer_add(w, "archive/data.pkl", &(xkd_zip_part){pickle.data, pickle.size}, 1));
    XKD_TRY(xkd_zip_writer_add(w, "archive/byteorder", &(xkd_zip_part){"little", 6}, 1));
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes = xkd_shape_count(&items[i].shape) * xkd_dtype_size(items[i].dtype);
        snprintf(name, sizeof name, "archive/data/%" PRId64, i);
        XKD_TRY(xkd_zip_writer_add(w, name, &(xkd_zip_part){items[i].data, bytes}, 1));
    }
    XKD_TRY(xkd_zip_writer_add(w, "archive/version", &(xkd_zip_part){"3\n", 2}, 1));
    /* The pointer is given up first: commit frees the writer in any case. */
    xkd_zip_writer *done = w;
    w = NULL;
    XKD_TRY(xkd_zip_writer_commit(done));
fail:
    xkd_zip_writer_abort(w);
    xkd_text_free(&pickle);
    return status;
}
