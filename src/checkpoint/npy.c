/* numpy's npy (format 1.0 and 2.0) and npz (a zip of npy files). The header is a Python literal; only the exact form
 * that numpy writes is understood, so nothing needs to be evaluated. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "checkpoint/file_parts.h"

/* numpy pads the header so that data begin on a multiple of 64; a header is some 100 bytes. */
enum { MAGIC_SIZE = 6, HEADER_LIMIT = 10000, ALIGNMENT = 64 };
static const unsigned char magic[MAGIC_SIZE] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* numpy has no bfloat16.
 * NULL: not in the format. "<" is little endian, "|" says that order does not apply. */
static const char *const descriptions[XKD_DTYPE_COUNT] = {
    [XKD_F32] = "<f4", [XKD_F64] = "<f8", [XKD_F16] = "<f2", [XKD_I64] = "<i8", [XKD_I32] = "<i4", [XKD_I16] = "<i2",
    [XKD_I8] = "|i1",  [XKD_U64] = "<u8", [XKD_U32] = "<u4", [XKD_U16] = "<u2", [XKD_U8] = "|u1",  [XKD_BOOL] = "|b1",
};

/* Six bytes that begin no other format read here. */
bool xkd_npy_magic(const unsigned char *data, int64_t size)
{
    return size >= MAGIC_SIZE && memcmp(data, magic, MAGIC_SIZE) == 0;
}

/* Advances *at over `text` and the spaces behind it. False, and *at unchanged, where the text is another. */
static bool expect(const char **at, const char *text)
{
    size_t length = strlen(text);
    if (strncmp(*at, text, length) != 0) return false;
    *at += length;
    while (**at == ' ') (*at)++;
    return true;
}

/* The quotes are part of the comparison, so that '<f4' does not fit '<f40'. */
static bool read_description(const char **at, xkd_dtype *dtype)
{
    char quoted[8];
    /* bfloat16 has no entry, and no reader of numpy would know one. */
    for (int d = 0; d < XKD_DTYPE_COUNT; d++) {
        if (!descriptions[d]) continue;
        snprintf(quoted, sizeof quoted, "'%s'", descriptions[d]);
        if (!expect(at, quoted)) continue;
        *dtype = (xkd_dtype)d;
        return true;
    }
    return false;
}

/* A tuple: () for a number, (3,) for a vector. Sizes are decimal and must not overflow. */
static bool read_shape(const char **at, xkd_shape *shape)
{
    if (!expect(at, "(")) return false;
    shape->ndim = 0;
    /* Commas as Python prints them: (3,) has one, (3, 4) one between. */
    while (!expect(at, ")")) {
        int64_t value = 0;
        if (shape->ndim == XKD_MAX_DIMS || !isdigit((unsigned char)**at)) return false;
        for (; isdigit((unsigned char)**at); (*at)++)
            if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, **at - '0', &value))
                return false;
        shape->dims[shape->ndim++] = value;
        bool comma = expect(at, ",");
        if (!comma && (**at != ')' || shape->ndim == 1)) return false; /* (3,) but (3, 4) */
    }
    return true;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } and spaces to the newline
 * Keys in any other order than numpy's are refused. */
static xkd_status parse_header(xkd_context *cx, const char *path, const char *name, const char *header,
                               xkd_dtype *dtype, xkd_shape *shape, bool *fortran)
{
    xkd_status status = XKD_OK;
    const char *at = header;
    if (!expect(&at, "{") || !expect(&at, "'descr':"))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': unknown header", path, name);
    if (strncmp(at, "'|O'", 4) == 0)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': an array of Python objects is refused", path, name);
    if (!read_description(&at, dtype)) {
        char shown[40];
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': the element type %s is not read", path, name,
                 xkd_escape(shown, sizeof shown, at, strcspn(at, ","), ""));
    }
    bool good = expect(&at, ",") && expect(&at, "'fortran_order':");
    *fortran = good && expect(&at, "True");
    good = good && (*fortran || expect(&at, "False")) && expect(&at, ",") && expect(&at, "'shape':") &&
           read_shape(&at, shape);
    if (good) expect(&at, ",");
    good = good && expect(&at, "}") && strcmp(at, "\n") == 0;
    if (!good) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': damaged header", path, name);
fail:
    return status;
}

/* Column-major data, as numpy saves a transposed array, in row-major order. The first axis is the fastest one in
 * `from`; the index counts like an odometer. */
static void to_row_major(unsigned char *to, const unsigned char *from, const xkd_shape *shape, int64_t size)
{
    int64_t index[XKD_MAX_DIMS] = {0}, count = xkd_shape_count(shape);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0;
        for (int k = shape->ndim - 1; k >= 0; k--) at = at * shape->dims[k] + index[k];
        memcpy(to + i * size, from + at * size, (size_t)size);
        for (int k = shape->ndim - 1; k >= 0 && ++index[k] == shape->dims[k]; k--) index[k] = 0;
    }
}

/* The tensor points into the file's mapping where its order and alignment allow, into a copy elsewhere. All
 * sizes are compared exactly: bytes left over are as suspect as bytes missing. */
xkd_status xkd_npy_read(xkd_context *cx, xkd_tensor_file *file, const char *name, const unsigned char *data,
                        int64_t size)
{
    xkd_status status = XKD_OK;
    const char *path = file->path;
    char *header = NULL;
    xkd_dtype dtype = XKD_F32;
    xkd_shape shape = {0};
    bool fortran = false;
    if (!xkd_npy_magic(data, size) || size < 12) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s' is cut off", path, name);
    /* Version 2 differs in the length's four bytes; version 3 (UTF-8 names) occurs in structured arrays only, which
     * are refused anyway. The magic number and version are 8 bytes, the length 2 or 4. */
    int version = data[6], lead = version == 1 ? 10 : 12;
    if (version < 1 || version > 2 || data[7] != 0)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': unknown version %d.%d", path, name, data[6], data[7]);
    int64_t length = data[8] | data[9] << 8;
    if (version == 2) length |= (int64_t)data[10] << 16 | (int64_t)data[11] << 24;
    if (length > HEADER_LIMIT || length > size - lead)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': a header of %" PRId64 " bytes", path, name, length);
    XKD_TRY(xkd_alloc(cx, &header, length + 1, 1));
    memcpy(header, data + lead, (size_t)length);
    /* A zero byte in the header would end it early for the functions below. */
    if (strlen(header) != (size_t)length) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': damaged header", path, name);
    XKD_TRY(parse_header(cx, path, name, header, &dtype, &shape, &fortran));
    int64_t count = xkd_shape_count(&shape), bytes;
    if (count < 0 || __builtin_mul_overflow(count, xkd_dtype_size(dtype), &bytes) || bytes != size - lead - length)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: npy '%s': its data are not exactly what its shape wants", path, name);
    const unsigned char *payload = data + lead + length;
    bool turned = fortran && shape.ndim > 1;
    if (bytes > 0 && (turned || (uintptr_t)payload % (uintptr_t)xkd_dtype_size(dtype))) {
        void *copy = NULL;
        XKD_TRY(xkd_file_copy(cx, file, bytes, &copy));
        if (turned)
            to_row_major(copy, payload, &shape, xkd_dtype_size(dtype));
        else
            memcpy(copy, payload, (size_t)bytes);
        payload = copy;
    }
    XKD_TRY(xkd_file_add(cx, file, name, dtype, &shape, payload));
fail:
    xkd_free(header);
    return status;
}

/* Entries without ".npy" were excluded by whoever called this an npz. */
xkd_status xkd_npz_read(xkd_context *cx, xkd_tensor_file *file)
{
    xkd_status status = XKD_OK;
    char *name = NULL;
    file->kind = XKD_FILE_NPZ;
    for (int64_t i = 0; i < file->parts->zip.count; i++) {
        const xkd_zip_entry *e = &file->parts->zip.entries[i];
        XKD_TRY(xkd_copy_string(cx, &name, e->name));
        /* numpy appends the ending to the array's name. */
        name[strlen(name) - 4] = 0; /* without ".npy" */
        XKD_TRY(xkd_npy_read(cx, file, name, e->data, e->size));
        xkd_free(name);
        name = NULL;
    }
fail:
    xkd_free(name);
    return status;
}

/* The header of one array, padded so that the data behind it is aligned. The caller frees *out.
 * Version 1.0: the length has 16 bits, ample for eight sizes. */
static xkd_status make_header(xkd_context *cx, const char *path, const xkd_tensor_item *item, char **out, int64_t *size)
{
    xkd_status status = XKD_OK;
    char shape[XKD_MAX_DIMS * 24] = "";
    if (!descriptions[item->dtype])
        XKD_FAIL(XKD_ERR_CONFIG, "%s: '%s' is %s, which numpy does not have: convert to safetensors or .pth", path,
                 item->name, xkd_dtype_name(item->dtype));
    for (int i = 0; i < item->shape.ndim; i++) {
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, i + 1 < item->shape.ndim ? "%" PRId64 ", " : "%" PRId64,
                 item->shape.dims[i]);
    }
    XKD_TRY(xkd_alloc(cx, out, 512, 1));
    int length = snprintf(*out + 10, 500, "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }",
                          descriptions[item->dtype], shape, item->shape.ndim == 1 ? "," : "");
    /* The newline is part of the padded length. */
    int64_t total = (10 + length + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memset(*out + 10 + length, ' ', (size_t)(total - 10 - length));
    (*out)[total - 1] = '\n';
    memcpy(*out, magic, MAGIC_SIZE);
    (*out)[6] = 1;
    (*out)[7] = 0;
    (*out)[8] = (char)((total - 10) & 0xff);
    (*out)[9] = (char)((total - 10) >> 8);
    *size = total;
fail:
    return status;
}

/* Sizes were checked when the tensor was made. */
static int64_t item_bytes(const xkd_tensor_item *item)
{
    return xkd_shape_count(&item->shape) * xkd_dtype_size(item->dtype);
}

/* Published in one step. */
xkd_status xkd_npy_write(xkd_context *cx, const char *path, const xkd_tensor_item *item)
{
    xkd_status status = XKD_OK;
    xkd_writer *w = NULL;
    char *header = NULL;
    int64_t size = 0;
    XKD_TRY(make_header(cx, path, item, &header, &size));
    XKD_TRY(xkd_writer_open(cx, path, &w));
    XKD_TRY(xkd_writer_write(w, header, size));
    XKD_TRY(xkd_writer_write(w, item->data, item_bytes(item)));
    xkd_writer *done = w;
    w = NULL;
    XKD_TRY(xkd_writer_commit(done));
fail:
    xkd_writer_abort(w);
    xkd_free(header);
    return status;
}

/* Stored, not compressed, as numpy.savez does: weights do not compress. */
xkd_status xkd_npz_write(xkd_context *cx, const char *path, const xkd_tensor_item *items, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_zip_writer *w = NULL;
    char *header = NULL, *name = NULL;
    int64_t size = 0;
    XKD_TRY(xkd_zip_writer_open(cx, path, &w));
    for (int64_t i = 0; i < count; i++) {
        XKD_TRY(make_header(cx, path, &items[i], &header, &size));
        XKD_TRY(xkd_format_string(cx, &name, "%s.npy", items[i].name));
        xkd_zip_part parts[] = {{header, size}, {items[i].data, item_bytes(&items[i])}};
        XKD_TRY(xkd_zip_writer_add(w, name, parts, 2));
        xkd_free(header);
        xkd_free(name);
        header = name = NULL;
    }
    xkd_zip_writer *done = w;
    w = NULL;
    XKD_TRY(xkd_zip_writer_commit(done));
fail:
    xkd_zip_writer_abort(w);
    xkd_free(header);
    xkd_free(name);
    return status;
}
