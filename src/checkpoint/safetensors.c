/* Hugging Face's safetensors: a length, a JSON header, and the data without gaps. Reading maps the
 * file and checks everything before a tensor is handed out; writing adds a checksum of the whole file
 * to the metadata, which other readers ignore. */
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"

/* A header may have one value for so many of the bytes that it may have: 2^20 by default. */
enum { BYTES_OF_VALUE = 16, LENGTH_BYTES = 8, DIGITS = 32 };
/* First in the metadata, where the writer finds its place again. */
static const char CHECKSUM_KEY[] = "xkd.xxh3_128";
static const char METADATA_KEY[] = "__metadata__";

struct xkd_safetensors {
    xkd_map map; /* the whole file, while open */
    char *path;
    json_t *header;     /* owned; tensor names point into it */
    int64_t data_start; /* byte offset of the data section */
    int64_t count;
    xkd_stored_tensor *tensors; /* [count] in data order */
    int64_t *by_name;           /* [count] indices in order of names */
    void **copies;              /* [count] aligned copies of tensors that are not aligned in the file */
};

static const struct {
    const char *name;
    xkd_dtype dtype;
} dtypes[] = {{"F32", XKD_F32}, {"F64", XKD_F64}, {"F16", XKD_F16},  {"BF16", XKD_BF16}, {"I64", XKD_I64},
              {"I32", XKD_I32}, {"I16", XKD_I16}, {"I8", XKD_I8},    {"U64", XKD_U64},   {"U32", XKD_U32},
              {"U16", XKD_U16}, {"U8", XKD_U8},   {"BOOL", XKD_BOOL}};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

/* The length in front of the header, little endian. */
static uint64_t load_u64(const unsigned char *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

/* An exact, non-negative JSON integer: 3.0 and 1e2 are reals and refused. */
static int read_size(const json_t *value, int64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return 0;
    *out = json_integer_value(value);
    return 1;
}

/* Eight dimensions at most. */
static xkd_status read_shape(xkd_context *cx, const char *path, const char *name, const json_t *list, xkd_shape *shape)
{
    if (!json_is_array(list) || json_array_size(list) > XKD_MAX_DIMS)
        return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: tensor '%s': shape is not a list of at most %d sizes", path, name,
                        XKD_MAX_DIMS);
    shape->ndim = (int)json_array_size(list);
    for (int i = 0; i < shape->ndim; i++)
        if (!read_size(json_array_get(list, (size_t)i), &shape->dims[i]))
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: tensor '%s': size %d is not an unsigned integer", path, name,
                            i);
    return XKD_OK;
}

/* Types that this program has no use for, such as 8-bit floats, are unknown. */
static xkd_status read_dtype(xkd_context *cx, const char *path, const char *name, const json_t *value, xkd_dtype *out)
{
    const char *text = json_string_value(value);
    for (int i = 0; text && i < DTYPES; i++)
        if (strcmp(dtypes[i].name, text) == 0) {
            *out = dtypes[i].dtype;
            return XKD_OK;
        }
    char shown[40];
    return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: tensor '%s': unknown dtype '%s'", path, name,
                    text ? xkd_escape(shown, sizeof shown, text, strlen(text), "") : "(none)");
}

/* The range must hold exactly what dtype and shape want. */
static xkd_status read_entry(xkd_context *cx, xkd_safetensors *file, const char *name, const json_t *entry,
                             xkd_stored_tensor *tensor)
{
    xkd_status status = XKD_OK;
    const char *path = file->path;
    int64_t available = file->map.size - file->data_start, begin, end, wanted;
    /* Names are printed in messages and become labels. */
    if (!xkd_is_printable(name)) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: a tensor's name holds control characters", path);
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: tensor '%s': not an object of dtype, shape and data_offsets", path, name);
    tensor->name = name;
    XKD_TRY(read_dtype(cx, path, name, json_object_get(entry, "dtype"), &tensor->dtype));
    XKD_TRY(read_shape(cx, path, name, json_object_get(entry, "shape"), &tensor->shape));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &begin) ||
        !read_size(json_array_get(offsets, 1), &end) || begin > end || end > available)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: tensor '%s': data_offsets are not a range within the file", path, name);
    wanted = xkd_shape_count(&tensor->shape);
    if (wanted < 0 || __builtin_mul_overflow(wanted, xkd_dtype_size(tensor->dtype), &wanted) || wanted != end - begin)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: tensor '%s': %" PRId64 " bytes do not hold its shape", path, name,
                 end - begin);
    tensor->data = file->map.base + file->data_start + begin;
    tensor->bytes = wanted;
fail:
    return status;
}

/* A total order, so that the result does not depend on the sort. */
static int by_place(const void *a, const void *b)
{
    const xkd_stored_tensor *x = a, *y = b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors before the one that starts here */
    return strcmp(x->name, y->name);
}

/* For binary search. */
static int by_name(const void *a, const void *b, void *tensors)
{
    const xkd_stored_tensor *list = tensors;
    return strcmp(list[*(const int64_t *)a].name, list[*(const int64_t *)b].name);
}

/* Ranges must follow one another from 0 to the end: neither holes that could hide data nor overlaps. */
static xkd_status check_contiguous(xkd_context *cx, const xkd_safetensors *file)
{
    const unsigned char *at = file->map.base + file->data_start;
    for (int64_t i = 0; i < file->count; i++) {
        const xkd_stored_tensor *t = &file->tensors[i];
        if (t->data != at)
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: tensor '%s' overlaps another one or follows a gap", file->path,
                            t->name);
        at += t->bytes;
    }
    if (at != file->map.base + file->map.size)
        return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: %td bytes behind the last tensor", file->path,
                        file->map.base + file->map.size - at);
    return XKD_OK;
}

/* The format allows strings only. */
static xkd_status check_metadata(xkd_context *cx, const char *path, const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!metadata) return XKD_OK;
    if (!json_is_object(metadata)) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: __metadata__ is not an object", path);
    char shown[200];
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) if (!json_is_string(value)) return xkd_fail(
        cx, XKD_ERR_CHECKPOINT, "%s: __metadata__ '%s' is not a string", path,
        xkd_escape(shown, sizeof shown, key, strlen(key), ""));
    return XKD_OK;
}

/* Before jansson reads it, which takes up to 400 bytes for a value of three, and "-0" for 0: the format's numbers have no
 * sign. */
static xkd_status scan_header(xkd_context *cx, const char *path, const char *text, int64_t length, int64_t limit)
{
    bool quoted = false;
    int64_t values = 0, most = limit / BYTES_OF_VALUE;
    for (int64_t i = 0; i < length; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++; /* also an escaped quote is no end */
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && c == '-')
            return xkd_fail(cx, XKD_ERR_CHECKPOINT,
                            "%s: header: a sign at byte %" PRId64 ": sizes are unsigned integers", path, i);
        /* Every value but a list's or object's first follows one of these. */
        else if (!quoted && (c == ',' || c == '{' || c == '[') && ++values > most)
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: header: more than %" PRId64 " values", path, most);
    }
    return XKD_OK;
}

/* A key given twice would hide one tensor behind another, so it is refused. */
static xkd_status read_header(xkd_context *cx, xkd_safetensors *file, int64_t limit)
{
    xkd_status status = XKD_OK;
    json_error_t error;
    const char *path = file->path;
    if (file->map.size < LENGTH_BYTES) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: too short for a safetensors file", path);
    /* Unsigned and compared first: a length near 2^64 must not wrap when it is added. */
    uint64_t length = load_u64(file->map.base);
    if (length > (uint64_t)limit)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: header of %" PRIu64 " bytes, more than %" PRId64 ": no safetensors file?",
                 path, length, limit);
    if ((int64_t)length > file->map.size - LENGTH_BYTES)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: cut off within its header", path);
    const char *text = (const char *)file->map.base + LENGTH_BYTES;
    /* The format allows no blanks in front. */
    if (length == 0 || *text != '{') XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: header is not a JSON object", path);
    XKD_TRY(scan_header(cx, path, text, (int64_t)length, limit));
    /* By length, as the header has no terminating 0. */
    file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: header: %s", path, error.text);
    file->data_start = LENGTH_BYTES + (int64_t)length;
    XKD_TRY(check_metadata(cx, path, json_object_get(file->header, METADATA_KEY)));
fail:
    return status;
}

/* The header's length need not be a multiple of the element size in files of other writers. */
static xkd_status align_data(xkd_context *cx, xkd_safetensors *file)
{
    for (int64_t i = 0; i < file->count; i++) {
        xkd_stored_tensor *t = &file->tensors[i];
        if ((uintptr_t)t->data % (uintptr_t)xkd_dtype_size(t->dtype) == 0 || t->bytes == 0) continue;
        xkd_status status = xkd_alloc(cx, &file->copies[i], t->bytes, 1);
        if (status != XKD_OK) return status;
        memcpy(file->copies[i], t->data, (size_t)t->bytes);
        t->data = file->copies[i];
    }
    return XKD_OK;
}

/* jansson keeps the header's order, but the data's order is the one that counts. */
static xkd_status read_tensors(xkd_context *cx, xkd_safetensors *file)
{
    xkd_status status = XKD_OK;
    const char *name;
    json_t *entry;
    int64_t entries = (int64_t)json_object_size(file->header), count = 0;
    XKD_TRY(xkd_alloc(cx, &file->tensors, entries, sizeof *file->tensors));
    XKD_TRY(xkd_alloc(cx, &file->by_name, entries, sizeof *file->by_name));
    XKD_TRY(xkd_alloc(cx, &file->copies, entries, sizeof *file->copies));
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, METADATA_KEY) == 0) continue;
        XKD_TRY(read_entry(cx, file, name, entry, &file->tensors[count]));
        count++;
    }
    file->count = count;
    qsort(file->tensors, (size_t)count, sizeof *file->tensors, by_place);
    XKD_TRY(check_contiguous(cx, file));
    for (int64_t i = 0; i < count; i++) file->by_name[i] = i;
    qsort_r(file->by_name, (size_t)count, sizeof *file->by_name, by_name, file->tensors);
    XKD_TRY(align_data(cx, file));
fail:
    return status;
}

xkd_status xkd_safetensors_open(xkd_context *cx, const char *path, xkd_safetensors **out)
{
    return xkd_safetensors_open_limited(cx, path, XKD_SAFETENSORS_HEADER, out);
}

/* The file stays mapped until it is closed; tensors point into it. */
xkd_status xkd_safetensors_open_limited(xkd_context *cx, const char *path, int64_t limit, xkd_safetensors **out)
{
    xkd_status status = XKD_OK;
    xkd_safetensors *file = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &file, 1, sizeof *file));
    XKD_TRY(xkd_copy_string(cx, &file->path, path));
    XKD_TRY(xkd_map_file(cx, path, &file->map));
    XKD_TRY(read_header(cx, file, limit));
    XKD_TRY(read_tensors(cx, file));
    *out = file;
    file = NULL;
fail:
    xkd_safetensors_close(file);
    return status;
}

/* NULL does nothing. */
void xkd_safetensors_close(xkd_safetensors *file)
{
    if (!file) return;
    for (int64_t i = 0; i < file->count && file->copies; i++) xkd_free(file->copies[i]);
    xkd_free(file->copies);
    xkd_free(file->by_name);
    xkd_free(file->tensors);
    json_decref(file->header);
    xkd_unmap(&file->map);
    xkd_free(file->path);
    xkd_free(file);
}

int64_t xkd_safetensors_count(const xkd_safetensors *file)
{
    return file->count;
}

const xkd_stored_tensor *xkd_safetensors_at(const xkd_safetensors *file, int64_t i)
{
    return &file->tensors[i];
}

const xkd_stored_tensor *xkd_safetensors_find(const xkd_safetensors *file, const char *name)
{
    int64_t low = 0, high = file->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const xkd_stored_tensor *t = &file->tensors[file->by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* NULL if there is no such key. */
const char *xkd_safetensors_metadata(const xkd_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, METADATA_KEY), key));
}

/* The high half first. */
static void format_digest(XXH128_hash_t hash, char digits[DIGITS + 1])
{
    snprintf(digits, DIGITS + 1, "%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
}

/* Files of other writers have no checksum: *present is 0 then and the status OK. */
xkd_status xkd_safetensors_verify(xkd_context *cx, const xkd_safetensors *file, int *present)
{
    xkd_status status = XKD_OK;
    XXH3_state_t *state = NULL;
    char zeros[DIGITS], digits[DIGITS + 1];
    const char *stored = xkd_safetensors_metadata(file, CHECKSUM_KEY);
    if (present) *present = stored != NULL;
    if (!stored) return XKD_OK;
    const unsigned char *base = file->map.base;
    const unsigned char *place =
        strlen(stored) == DIGITS ? memmem(base, (size_t)file->data_start, stored, DIGITS) : NULL;
    if (!place) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: its checksum is malformed", file->path);
    if (!(state = XXH3_createState())) XKD_FAIL(XKD_ERR_MEMORY, "out of memory: checksum state");
    /* The sum covers the whole file with zeros in the place of its own digits. */
    memset(zeros, '0', DIGITS);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, base, (size_t)(place - base));
    XXH3_128bits_update(state, zeros, DIGITS);
    XXH3_128bits_update(state, place + DIGITS, (size_t)(base + file->map.size - place - DIGITS));
    format_digest(XXH3_128bits_digest(state), digits);
    if (strcmp(digits, stored) != 0)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: damaged: its checksum does not match", file->path);
fail:
    XXH3_freeState(state);
    return status;
}

/* ---- writing: what any safetensors library reads ---- */

static const char *dtype_code(xkd_dtype dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype) return dtypes[i].name;
    return NULL;
}

static int64_t item_bytes(const xkd_tensor_item *item)
{
    return xkd_shape_count(&item->shape) * xkd_dtype_size(item->dtype);
}

/* Sets object[key] = value, taking over `value`, which may be NULL when out of memory. */
static xkd_status put(xkd_context *cx, json_t *object, const char *key, json_t *value)
{
    if (json_object_get(object, key)) {
        json_decref(value);
        return xkd_fail(cx, XKD_ERR_CONFIG, "cannot write '%.100s': the name is taken", key);
    }
    /* Fails, and frees the value, where the key is not UTF-8, the value is NULL or memory is short. */
    if (json_object_set_new(object, key, value) == 0) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CONFIG, "cannot write '%.100s': not UTF-8, or out of memory", key);
}

/* Moves *offset on by the item. */
static xkd_status put_item(xkd_context *cx, json_t *header, const xkd_tensor_item *item, int64_t *offset)
{
    if (!xkd_is_printable(item->name))
        return xkd_fail(cx, XKD_ERR_CONFIG, "cannot write '%.100s': control characters in a tensor's name", item->name);
    json_t *shape = json_array();
    for (int i = 0; i < item->shape.ndim; i++) json_array_append_new(shape, json_integer(item->shape.dims[i]));
    int64_t end = *offset + item_bytes(item);
    xkd_status status = put(cx, header, item->name,
                            json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype_code(item->dtype), "shape", shape,
                                      "data_offsets", (json_int_t)*offset, (json_int_t)end));
    /* Ranges follow one another without gaps, which readers insist on. */
    *offset = end;
    return status;
}

/* Header text with zeros for the checksum, padded with spaces to a multiple of 8. The caller frees *text with free(),
 * as it is jansson's. */
static xkd_status make_header(xkd_context *cx, const xkd_tensor_item *items, const int64_t *order, int64_t count,
                              const xkd_metadata_item *metadata, int64_t metadata_count, char **text)
{
    xkd_status status = XKD_OK;
    int64_t offset = 0;
    json_t *header = json_object(), *strings = json_object();
    char zeros[DIGITS + 1] = {0};
    *text = NULL;
    memset(zeros, '0', DIGITS);
    if (!header || !strings) XKD_FAIL(XKD_ERR_MEMORY, "out of memory: tensor file header");
    XKD_TRY(put(cx, strings, CHECKSUM_KEY, json_string(zeros)));
    for (int64_t i = 0; i < metadata_count; i++)
        XKD_TRY(put(cx, strings, metadata[i].key, json_string(metadata[i].value)));
    XKD_TRY(put(cx, header, METADATA_KEY, json_incref(strings)));
    for (int64_t i = 0; i < count; i++) XKD_TRY(put_item(cx, header, &items[order[i]], &offset));
    if (!(*text = json_dumps(header, JSON_COMPACT))) XKD_FAIL(XKD_ERR_MEMORY, "out of memory: tensor file header");
fail:
    json_decref(strings);
    json_decref(header);
    return status;
}

/* A file and the checksum of what has been put into it. */
typedef struct {
    xkd_writer *writer;
    XXH3_state_t *state;
} summed_file;

/* In pieces that the processor's cache holds: what was summed is copied to the file without reading memory again. */
static xkd_status put_summed(void *arg, const void *data, int64_t size)
{
    summed_file *file = arg;
    enum { PIECE = 1 << 20 };
    for (int64_t done = 0; done < size; done += PIECE) {
        const char *from = (const char *)data + done;
        int64_t piece = size - done < PIECE ? size - done : PIECE;
        XXH3_128bits_update(file->state, from, (size_t)piece);
        xkd_status status = xkd_writer_write(file->writer, from, piece);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}

/* The sum covers the file with zeros in its own place, so it can be written there last. It is of what memory holds: a
 * disk that changes bytes is found out when the file is read. */
static xkd_status write_parts(xkd_context *cx, const char *path, const char *header, const xkd_tensor_item *items,
                              const int64_t *order, int64_t count)
{
    xkd_status status = XKD_OK;
    summed_file file = {.state = XXH3_createState()};
    char digits[DIGITS + 1], length[LENGTH_BYTES];
    uint64_t size = strlen(header), padding = -size % 8;
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (char)((size + padding) >> (8 * i));
    if (!file.state) XKD_FAIL(XKD_ERR_MEMORY, "out of memory: checksum state");
    XXH3_128bits_reset(file.state);
    XKD_TRY(xkd_writer_open(cx, path, &file.writer));
    XKD_TRY(put_summed(&file, length, LENGTH_BYTES));
    XKD_TRY(put_summed(&file, header, (int64_t)size));
    XKD_TRY(put_summed(&file, "       ", (int64_t)padding));
    for (int64_t i = 0; i < count; i++) {
        const xkd_tensor_item *item = &items[order[i]];
        XKD_TRY(xkd_memory_read(item->memory, item->data, item_bytes(item), put_summed, &file));
    }
    format_digest(XXH3_128bits_digest(file.state), digits);
    /* The checksum is the first string of the header, so this is its place whatever the names are. */
    const char *place = strstr(header, CHECKSUM_KEY) + sizeof CHECKSUM_KEY - 1 + 3;
    XKD_TRY(xkd_writer_patch(file.writer, LENGTH_BYTES + (place - header), digits, DIGITS));
    xkd_writer *finished = file.writer;
    file.writer = NULL;
    XKD_TRY(xkd_writer_commit(finished));
fail:
    xkd_writer_abort(file.writer);
    XXH3_freeState(file.state);
    return status;
}

/* Larger element types first: with a header padded to 8 every tensor is then aligned. */
xkd_status xkd_safetensors_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count,
                                 const xkd_metadata_item *metadata, int64_t metadata_count)
{
    xkd_status status = XKD_OK;
    int64_t *order = NULL, placed = 0;
    char *header = NULL;
    XKD_TRY(xkd_alloc(cx, &order, count, sizeof *order));
    /* Within one size the caller's order is kept. */
    for (int64_t size = 8; size >= 1; size /= 2)
        for (int64_t i = 0; i < count; i++)
            if (xkd_dtype_size(items[i].dtype) == size) order[placed++] = i;
    XKD_TRY(make_header(cx, items, order, count, metadata, metadata_count, &header));
    /* What the reader would refuse is not written. */
    if (strlen(header) > XKD_SAFETENSORS_HEADER - 8)
        XKD_FAIL(XKD_ERR_CONFIG, "%s: names and metadata take more than %d bytes", path, XKD_SAFETENSORS_HEADER);
    XKD_TRY(scan_header(cx, path, header, (int64_t)strlen(header), XKD_SAFETENSORS_HEADER));
    XKD_TRY(write_parts(cx, path, header, items, order, count));
fail:
    free(header);
    xkd_free(order);
    return status;
}

/* The checksum is one of them. */
bool xkd_safetensors_next_note(const xkd_safetensors *file, void **at, const char **key, const char **value)
{
    json_t *notes = json_object_get(file->header, METADATA_KEY);
    *at = *at ? json_object_iter_next(notes, *at) : json_object_iter(notes);
    if (!*at) return false;
    *key = json_object_iter_key(*at);
    *value = json_string_value(json_object_iter_value(*at));
    return true;
}
