/* Zip archives as PyTorch and numpy write them: stored, not compressed. The reader takes only
 * archives without anything unusual, because the same bytes may mean different things to different
 * unzip programs; the writer aligns data to 64 bytes, so that tensors can be used where they lie. */
#include "checkpoint/zip.h"

#include <ctype.h>
#include <libdeflate.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

/* Record sizes without their variable parts, magic numbers and flags, from the format's specification
 * (APPNOTE.TXT). */
enum {
    LOCAL_SIZE = 30,
    CENTRAL_SIZE = 46,
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR64_SIZE = 20,
    LOCAL_MAGIC = 0x04034b50,
    CENTRAL_MAGIC = 0x02014b50,
    END_MAGIC = 0x06054b50,
    END64_MAGIC = 0x06064b50,
    LOCATOR64_MAGIC = 0x07064b50,
    DESCRIPTOR_MAGIC = 0x08074b50,
    FLAG_DESCRIPTOR = 0x0008,
    FLAG_UTF8 = 0x0800,
    EXTRA_ZIP64 = 0x0001,
    EXTRA_UNICODE_PATH = 0x7075,
    MODE_KIND = 0170000, /* of a Unix file mode, in the upper half of the external attributes */
    MODE_REGULAR = 0100000
};
/* A state dict has some thousands of storages; a million entries of 76 bytes would be a file made to hurt. */
static const int64_t MOST_ENTRIES = 1 << 20;
/* Of a written entry's name: what the readers of tensor names take, and an ending. */
enum { MOST_NAME = 1024 + 16 };

/* Bytes need not be aligned. */
static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

/* Where the central directory lies. Offsets in the file, checked to lie within it. */
typedef struct {
    int64_t start, size, entries, end_record;
} directory;

/* A number of the plain end record: that of the zip64 record, or all ones for "see there". */
static bool agrees(uint64_t plain, uint64_t wide, int bytes)
{
    return plain == wide || plain == (UINT64_C(1) << 8 * bytes) - 1;
}

/* The zip64 end record, where the plain one, whose numbers are in *d, says "see there".
 * The record must stand right in front of its locator, and the locator in front of the end record. */
static xkd_status read_end64(xkd_context *cx, const char *path, const xkd_map *map, directory *d)
{
    xkd_status status = XKD_OK;
    /* The locator's place is fixed: nothing is searched for. */
    int64_t locator = d->end_record - LOCATOR64_SIZE;
    if (locator < 0 || little(map->base + locator, 4) != LOCATOR64_MAGIC)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: sizes point to a zip64 record that is not there", path);
    uint64_t at = little(map->base + locator + 8, 8);
    if (locator < END64_SIZE || at != (uint64_t)(locator - END64_SIZE) || little(map->base + at, 4) != END64_MAGIC ||
        little(map->base + at + 4, 8) != END64_SIZE - 12)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the zip64 end record is damaged", path);
    const unsigned char *p = map->base + at;
    uint64_t entries = little(p + 32, 8), size = little(p + 40, 8), start = little(p + 48, 8);
    if (little(p + 16, 4) || little(p + 20, 4) || little(p + 24, 8) != entries || little(map->base + locator + 4, 4) ||
        little(map->base + locator + 16, 4) > 1)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: archives on several disks are refused", path);
    /* Or one program would read one directory and another program another. */
    if (!agrees((uint64_t)d->entries, entries, 2) || !agrees((uint64_t)d->size, size, 4) ||
        !agrees((uint64_t)d->start, start, 4))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: its two end records differ", path);
    d->entries = (int64_t)entries;
    d->size = (int64_t)size;
    d->start = (int64_t)start;
    d->end_record = (int64_t)at;
fail:
    return status;
}

/* The end record must be the last thing in the file: searching backwards for one is what lets a file
 * have two. */
static xkd_status read_end(xkd_context *cx, const char *path, const xkd_map *map, directory *d)
{
    xkd_status status = XKD_OK;
    d->end_record = map->size - END_SIZE;
    if (d->end_record < 0 || little(map->base + d->end_record, 4) != END_MAGIC)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: no end record at the end: truncated, or with trailing data or a comment",
                 path);
    const unsigned char *p = map->base + d->end_record;
    /* A comment could hold another end record. */
    if (little(p + 20, 2)) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: comments are refused", path);
    if (little(p + 4, 2) || little(p + 6, 2) || little(p + 8, 2) != little(p + 10, 2))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: archives on several disks are refused", path);
    d->entries = (int64_t)little(p + 10, 2);
    d->size = (int64_t)little(p + 12, 4);
    d->start = (int64_t)little(p + 16, 4);
    int64_t locator = d->end_record - LOCATOR64_SIZE;
    bool has64 = locator >= 0 && little(map->base + locator, 4) == LOCATOR64_MAGIC;
    if (has64 || d->entries == 0xffff || d->size == 0xffffffff || d->start == 0xffffffff)
        XKD_TRY(read_end64(cx, path, map, d));
    if (d->start < 0 || d->size < 0 || d->start > d->end_record || d->size != d->end_record - d->start)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the directory does not end where its end record stands", path);
    if (d->entries < 0 || d->entries > MOST_ENTRIES || d->entries > d->size / CENTRAL_SIZE)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: %lld entries do not fit the directory", path, (long long)d->entries);
fail:
    return status;
}

/* Names that would leave the folder they are unpacked to. Refused rather than cleaned: a cleaned name could be that of
 * another entry. */
static bool traverses(const char *name)
{
    if (name[0] == '/' || strchr(name, '\\') || (isalpha((unsigned char)name[0]) && name[1] == ':')) return true;
    for (const char *part = name; part; part = strchr(part, '/')) {
        if (*part == '/') part++;
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return true;
    }
    return false;
}

/* On failure the name is freed with the entry. Names are kept as strings with a final 0, so they must have no other. */
static xkd_status read_name(xkd_context *cx, const char *path, const unsigned char *bytes, int64_t length,
                            xkd_zip_entry *e)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_alloc(cx, &e->name, length + 1, 1));
    memcpy(e->name, bytes, (size_t)length);
    if (length == 0 || (int64_t)strlen(e->name) != length || !xkd_is_printable(e->name))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: an entry's name is empty or not printable UTF-8", path);
    if (traverses(e->name)) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the name '%s' is refused", path, e->name);
fail:
    return status;
}

/* The 64-bit numbers that replace those that are all ones, in the order size, packed size, offset.
 * numbers[i] is NULL where the header has no such number. Other extra fields are skipped, but for one with another name,
 * which some programs would follow. */
static xkd_status read_extra(xkd_context *cx, const char *path, const char *name, const unsigned char *extra,
                             int64_t length, uint64_t *numbers[3])
{
    bool needed = false;
    for (int i = 0; i < 3; i++) needed |= numbers[i] && *numbers[i] == 0xffffffff;
    while (length >= 4) {
        int64_t size = (int64_t)little(extra + 2, 2), used = 4;
        if (size > length - 4) break;
        if (little(extra, 2) == EXTRA_UNICODE_PATH)
            return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: zip: '%s' has a second name in an extra field", path, name);
        for (int i = 0; needed && little(extra, 2) == EXTRA_ZIP64 && i < 3; i++) {
            if (!numbers[i] || *numbers[i] != 0xffffffff) continue;
            if (used + 8 > size + 4)
                return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: zip: '%s': short zip64 field", path, name);
            *numbers[i] = little(extra + used, 8);
            used += 8;
        }
        if (little(extra, 2) == EXTRA_ZIP64) needed = false;
        extra += 4 + size;
        length -= 4 + size;
    }
    if (length != 0) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: zip: '%s': damaged extra field", path, name);
    if (needed) return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: zip: '%s': its zip64 field is missing", path, name);
    return XKD_OK;
}

/* The data descriptor behind data whose sizes the local header left open: with or without signature, 32 or 64 bit. -1
 * if neither form fits. Of an empty entry both may, so what follows decides: another entry, or the directory. Sums stand
 * behind the data where a writer did not know them before: PyTorch does so. */
static int64_t descriptor_size(const unsigned char *p, int64_t left, const xkd_zip_entry *e)
{
    int64_t skip = left >= 4 && little(p, 4) == DESCRIPTOR_MAGIC ? 4 : 0;
    for (int bytes = 4; bytes <= 8; bytes += 4) {
        int64_t size = skip + 4 + 2 * bytes;
        if (left >= size && little(p + skip, 4) == e->crc && little(p + skip + 4, bytes) == (uint64_t)e->size &&
            little(p + skip + 4 + bytes, bytes) == (uint64_t)e->size &&
            (left == size || (left - size >= 4 && little(p + size, 4) == LOCAL_MAGIC)))
            return size;
    }
    return -1;
}

/* Compares the local header at e->start with the central entry and finds the data.
 * Disagreement between the two headers is the classic way of showing two contents, so all of it is
 * refused. */
static xkd_status read_local(xkd_context *cx, const char *path, const xkd_map *map, int64_t limit, xkd_zip_entry *e)
{
    xkd_status status = XKD_OK;
    if (e->start < 0 || e->start > limit - LOCAL_SIZE || little(map->base + e->start, 4) != LOCAL_MAGIC)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' has no local header where the directory says", path, e->name);
    const unsigned char *p = map->base + e->start;
    int64_t name = (int64_t)little(p + 26, 2), extra = (int64_t)little(p + 28, 2);
    if (limit - e->start - LOCAL_SIZE < name + extra)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s': local header is cut off", path, e->name);
    if (name != (int64_t)strlen(e->name) || memcmp(p + LOCAL_SIZE, e->name, (size_t)name) != 0)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' has another name in its local header", path, e->name);
    if (little(p + 8, 2) != 0 || little(p + 6, 2) != e->flags)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s': method or flags differ in its local header", path, e->name);
    uint64_t size = little(p + 22, 4), packed = little(p + 18, 4);
    XKD_TRY(read_extra(cx, path, e->name, p + LOCAL_SIZE + name, extra, (uint64_t *[3]){&size, &packed, NULL}));
    bool open = e->flags & FLAG_DESCRIPTOR;
    bool same = size == (uint64_t)e->size && packed == (uint64_t)e->size && little(p + 14, 4) == e->crc;
    bool empty = open && size == 0 && packed == 0 && little(p + 14, 4) == 0;
    if (!same && !empty)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s': sizes or CRC differ in its local header", path, e->name);
    int64_t data = e->start + LOCAL_SIZE + name + extra;
    if (e->size > limit - data) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' is cut off", path, e->name);
    e->data = map->base + data;
    e->end = data + e->size;
    if (open) {
        int64_t descriptor = descriptor_size(map->base + e->end, limit - e->end, e);
        if (descriptor < 0) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s': its data descriptor differs", path, e->name);
        e->end += descriptor;
    }
fail:
    return status;
}

/* One entry of the central directory at *at, and what belongs to it.
 * Moves *at on to the next entry. */
static xkd_status read_entry(xkd_context *cx, const char *path, const xkd_map *map, const directory *d, int64_t *at,
                             xkd_zip_entry *e)
{
    xkd_status status = XKD_OK;
    int64_t left = d->start + d->size - *at;
    const unsigned char *p = map->base + *at;
    if (left < CENTRAL_SIZE || little(p, 4) != CENTRAL_MAGIC)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the directory is damaged", path);
    int64_t name = (int64_t)little(p + 28, 2), extra = (int64_t)little(p + 30, 2), comment = (int64_t)little(p + 32, 2);
    if (left - CENTRAL_SIZE < name + extra + comment)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: the directory is cut off", path);
    if (comment) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: comments are refused", path);
    XKD_TRY(read_name(cx, path, p + CENTRAL_SIZE, name, e));
    uint64_t size = little(p + 24, 4), packed = little(p + 20, 4), start = little(p + 42, 4);
    XKD_TRY(read_extra(cx, path, e->name, p + CENTRAL_SIZE + name, extra, (uint64_t *[3]){&size, &packed, &start}));
    e->flags = (uint16_t)little(p + 8, 2);
    /* Only flags whose meaning is handled below. */
    if (e->flags & ~(FLAG_DESCRIPTOR | FLAG_UTF8))
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s': flags 0x%04x (encryption or the like) are refused", path, e->name,
                 e->flags);
    if (little(p + 10, 2) != 0 || size != packed)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' is compressed: only stored entries are read%s", path, e->name,
                 strstr(e->name, "/code/__torch__") ? " (TorchScript: save model.state_dict() with torch.save)"
                 : strstr(e->name, ".npy")          ? " (numpy.savez stores them)"
                                                    : "");
    int kind = (int)little(p + 40, 2) & MODE_KIND;
    if (kind && kind != MODE_REGULAR)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' is a link or something else that is no file", path, e->name);
    if (little(p + 34, 2) || size > (uint64_t)map->size || start > (uint64_t)d->start)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' lies outside the file", path, e->name);
    e->size = (int64_t)size;
    e->start = (int64_t)start;
    e->crc = (uint32_t)little(p + 16, 4);
    XKD_TRY(read_local(cx, path, map, d->start, e));
    *at += CENTRAL_SIZE + name + extra;
fail:
    return status;
}

/* Entries may be listed in any order. */
static int by_start(const void *a, const void *b)
{
    const xkd_zip_entry *x = *(const xkd_zip_entry *const *)a, *y = *(const xkd_zip_entry *const *)b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Case is folded (of ASCII letters), because such names would collide on some file systems. A slash comes before all else:
 * what lies in a folder stands right behind an entry of the folder's name. */
static int by_folded_name(const void *a, const void *b)
{
    const char *x = (*(const xkd_zip_entry *const *)a)->name, *y = (*(const xkd_zip_entry *const *)b)->name;
    while (*x && tolower((unsigned char)*x) == tolower((unsigned char)*y)) x++, y++;
    int p = *x == '/' ? 1 : tolower((unsigned char)*x), q = *y == '/' ? 1 : tolower((unsigned char)*y);
    return p - q;
}

/* Whether `y`, which is sorted behind `x`, is the same name or would lie within it. */
static bool collides(const char *x, const char *y)
{
    size_t length = strlen(x);
    return strncasecmp(x, y, length) == 0 && (y[length] == 0 || y[length] == '/');
}

/* Sorts `order`. A collision is `fault`. */
static xkd_status check_names(xkd_context *cx, xkd_status fault, const char *path, const xkd_zip_entry **order,
                              int64_t count)
{
    qsort(order, (size_t)count, sizeof *order, by_folded_name);
    for (int64_t i = 1; i < count; i++)
        if (collides(order[i - 1]->name, order[i]->name))
            return xkd_fail(cx, fault,
                            "%s: zip: '%s' and '%s' are one name where case does not count, or a file and its folder",
                            path, order[i - 1]->name, order[i]->name);
    return XKD_OK;
}

/* Entries must lie one behind the other from the first byte to the directory: no overlap, nothing hidden between. */
static xkd_status check_entries(xkd_context *cx, const char *path, const xkd_zip *zip, int64_t directory_start)
{
    xkd_status status = XKD_OK;
    const xkd_zip_entry **order = NULL;
    int64_t at = 0;
    XKD_TRY(xkd_alloc(cx, &order, zip->count, sizeof *order));
    for (int64_t i = 0; i < zip->count; i++) order[i] = &zip->entries[i];
    qsort(order, (size_t)zip->count, sizeof *order, by_start);
    for (int64_t i = 0; i < zip->count; i++) {
        if (order[i]->start != at)
            XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: '%s' %s", path, order[i]->name,
                     order[i]->start < at ? "overlaps another entry" : "has unknown bytes in front of it");
        at = order[i]->end;
    }
    /* Nothing may stand between the last entry and the directory. */
    if (at != directory_start) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: unknown bytes in front of the directory", path);
    XKD_TRY(check_names(cx, XKD_ERR_CHECKPOINT, path, order, zip->count));
fail:
    xkd_free(order);
    return status;
}

/* Nothing is unpacked: entries point into the mapping. */
xkd_status xkd_zip_open(xkd_context *cx, const char *path, const xkd_map *map, xkd_zip *out)
{
    xkd_status status = XKD_OK;
    directory d = {0};
    *out = (xkd_zip){0};
    XKD_TRY(read_end(cx, path, map, &d));
    XKD_TRY(xkd_alloc(cx, &out->entries, d.entries, sizeof *out->entries));
    int64_t at = d.start;
    for (; out->count < d.entries; out->count++) XKD_TRY(read_entry(cx, path, map, &d, &at, &out->entries[out->count]));
    if (at != d.start + d.size) XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: zip: unknown bytes in the directory", path);
    XKD_TRY(check_entries(cx, path, out, d.start));
fail:
    if (status != XKD_OK) {
        if (out->entries && out->count < d.entries) out->count++; /* the entry that failed may own its name */
        xkd_zip_free(out);
    }
    return status;
}

/* Data belong to the mapping. */
void xkd_zip_free(xkd_zip *zip)
{
    for (int64_t i = 0; i < zip->count; i++) xkd_free(zip->entries[i].name);
    xkd_free(zip->entries);
    *zip = (xkd_zip){0};
}

/* Reads the whole entry once. */
xkd_status xkd_zip_verify(xkd_context *cx, const char *path, const xkd_zip_entry *entry)
{
    if (libdeflate_crc32(0, entry->data, (size_t)entry->size) == entry->crc) return XKD_OK;
    return xkd_fail(cx, XKD_ERR_CHECKPOINT, "%s: zip: '%s' is damaged: its CRC differs", path, entry->name);
}

/* A linear search; names are unique. */
const xkd_zip_entry *xkd_zip_find(const xkd_zip *zip, const char *name)
{
    for (int64_t i = 0; i < zip->count; i++)
        if (strcmp(zip->entries[i].name, name) == 0) return &zip->entries[i];
    return NULL;
}

struct xkd_zip_writer {
    xkd_context *cx;
    xkd_writer *file;
    char *path;
    int64_t offset;     /* bytes written so far */
    xkd_text directory; /* central directory, written at the end */
    xkd_zip written;    /* names of the entries so far */
    int64_t capacity;
};

/* Publishes nothing until commit. */
xkd_status xkd_zip_writer_open(xkd_context *cx, const char *path, xkd_zip_writer **out)
{
    xkd_status status = XKD_OK;
    xkd_zip_writer *w = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &w, 1, sizeof *w));
    w->cx = cx;
    w->directory = xkd_text_make(cx);
    XKD_TRY(xkd_copy_string(cx, &w->path, path));
    XKD_TRY(xkd_writer_open(cx, path, &w->file));
    *out = w;
    w = NULL;
fail:
    xkd_zip_writer_abort(w);
    return status;
}

/* NULL does nothing; an unfinished archive vanishes. */
void xkd_zip_writer_abort(xkd_zip_writer *w)
{
    if (!w) return;
    xkd_writer_abort(w->file);
    xkd_zip_free(&w->written);
    xkd_free(w->path);
    xkd_text_free(&w->directory);
    xkd_free(w);
}

/* Little endian, moving *p on. */
static void put(unsigned char **p, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) *(*p)++ = (unsigned char)(value >> (8 * i));
}

/* Fields that a local and a central header share: version to CRC, sizes cut to 32 bits. */
static void put_common(unsigned char **p, uint32_t crc, int64_t size, size_t name, int64_t extra)
{
    uint64_t cut = size >= 0xffffffff ? 0xffffffff : (uint64_t)size;
    put(p, size >= 0xffffffff ? 45 : 20, 2);
    put(p, FLAG_UTF8, 2);
    put(p, 0, 2);          /* stored */
    put(p, 0x00210000, 4); /* 1980-01-01: files of equal content are equal */
    put(p, crc, 4);
    put(p, cut, 4);
    put(p, cut, 4);
    put(p, name, 2);
    put(p, (uint64_t)extra, 2);
}

/* Extra field of the local header: zip64 sizes if needed, then padding that puts the data on a multiple of 64. */
static int64_t put_local_extra(unsigned char **p, int64_t size, int64_t data_without_extra)
{
    unsigned char *start = *p;
    if (size >= 0xffffffff) {
        put(p, EXTRA_ZIP64, 2);
        put(p, 16, 2);
        put(p, (uint64_t)size, 8);
        put(p, (uint64_t)size, 8);
    }
    int64_t pad = 64 - (data_without_extra + (*p - start) + 4) % 64;
    put(p, 0x4246, 2); /* "FB", the field PyTorch pads with */
    put(p, (uint64_t)pad, 2);
    for (int64_t i = 0; i < pad; i++) *(*p)++ = 'Z';
    return *p - start;
}

/* The directory is collected in memory: 50 bytes or so an entry. */
static void add_to_directory(xkd_zip_writer *w, const char *name, uint32_t crc, int64_t size)
{
    unsigned char header[CENTRAL_SIZE + 32], *p = header;
    /* All ones in a 32-bit field mean: see the 64-bit one. */
    bool large = size >= 0xffffffff, far = large || w->offset >= 0xffffffff;
    int64_t field = large ? 24 : 8; /* zip64: only the numbers that are all ones in the header */
    put(&p, CENTRAL_MAGIC, 4);
    put(&p, 0x031e, 2);
    put_common(&p, crc, size, strlen(name), far ? 4 + field : 0);
    put(&p, 0, 6); /* comment, disk, internal attributes */
    put(&p, 0, 4); /* external attributes */
    put(&p, far ? 0xffffffff : (uint64_t)w->offset, 4);
    xkd_text_add(&w->directory, header, p - header);
    xkd_text_puts(&w->directory, name);
    if (!far) return;
    p = header;
    put(&p, EXTRA_ZIP64, 2);
    put(&p, (uint64_t)field, 2);
    if (large) {
        put(&p, (uint64_t)size, 8);
        put(&p, (uint64_t)size, 8);
    }
    put(&p, (uint64_t)w->offset, 8);
    xkd_text_add(&w->directory, header, p - header);
}

/* What the reader would refuse is not written. */
static xkd_status add_name(xkd_zip_writer *w, const char *name)
{
    xkd_context *cx = w->cx;
    xkd_status status = XKD_OK;
    xkd_zip *z = &w->written;
    if (!*name || strlen(name) > MOST_NAME || !xkd_is_printable(name) || traverses(name))
        XKD_FAIL(XKD_ERR_CONFIG, "%s: zip: no entry can have the name '%.100s'", w->path, name);
    if (z->count == MOST_ENTRIES) XKD_FAIL(XKD_ERR_CONFIG, "%s: zip: too many entries", w->path);
    XKD_TRY(xkd_reserve(cx, &z->entries, z->count, &w->capacity, sizeof *z->entries));
    z->entries[z->count] = (xkd_zip_entry){0};
    XKD_TRY(xkd_copy_string(cx, &z->entries[z->count].name, name));
    z->count++;
fail:
    return status;
}

/* The parts are written one behind the other as a single entry. The CRC is taken before anything is
 * written, so no descriptor is needed. */
xkd_status xkd_zip_writer_add(xkd_zip_writer *w, const char *name, const xkd_zip_part *parts, int count)
{
    xkd_status status = XKD_OK;
    unsigned char header[LOCAL_SIZE], extra[160], *p = header, *q = extra;
    int64_t size = 0;
    uint32_t crc = 0;
    XKD_TRY(add_name(w, name));
    for (int i = 0; i < count; i++) {
        crc = libdeflate_crc32(crc, parts[i].data, (size_t)parts[i].size);
        size += parts[i].size;
    }
    int64_t extra_size = put_local_extra(&q, size, w->offset + LOCAL_SIZE + (int64_t)strlen(name));
    put(&p, LOCAL_MAGIC, 4);
    put_common(&p, crc, size, strlen(name), extra_size);
    add_to_directory(w, name, crc, size);
    XKD_TRY(xkd_writer_write(w->file, header, LOCAL_SIZE));
    XKD_TRY(xkd_writer_write(w->file, name, (int64_t)strlen(name)));
    XKD_TRY(xkd_writer_write(w->file, extra, extra_size));
    for (int i = 0; i < count; i++) XKD_TRY(xkd_writer_write(w->file, parts[i].data, parts[i].size));
    w->offset += LOCAL_SIZE + (int64_t)strlen(name) + extra_size + size;
fail:
    return status;
}

/* The zip64 records are written only where a number does not fit. */
static int64_t end_records(const xkd_zip_writer *w, unsigned char *out)
{
    unsigned char *p = out;
    int64_t size = w->directory.size, end64 = w->offset + size, entries = w->written.count;
    bool large = entries >= 0xffff || size >= 0xffffffff || w->offset >= 0xffffffff;
    if (large) {
        put(&p, END64_MAGIC, 4);
        put(&p, END64_SIZE - 12, 8);
        put(&p, 0x031e, 2);
        put(&p, 45, 2);
        put(&p, 0, 8);
        put(&p, (uint64_t)entries, 8);
        put(&p, (uint64_t)entries, 8);
        put(&p, (uint64_t)size, 8);
        put(&p, (uint64_t)w->offset, 8);
        put(&p, LOCATOR64_MAGIC, 4);
        put(&p, 0, 4);
        put(&p, (uint64_t)end64, 8);
        put(&p, 1, 4);
    }
    put(&p, END_MAGIC, 4);
    put(&p, 0, 4);
    put(&p, large ? 0xffff : (uint64_t)entries, 2);
    put(&p, large ? 0xffff : (uint64_t)entries, 2);
    put(&p, large ? 0xffffffff : (uint64_t)size, 4);
    put(&p, large ? 0xffffffff : (uint64_t)w->offset, 4);
    put(&p, 0, 2);
    return p - out;
}

/* Frees the writer whether or not it succeeds. */
xkd_status xkd_zip_writer_commit(xkd_zip_writer *w)
{
    xkd_status status = XKD_OK;
    unsigned char end[END64_SIZE + LOCATOR64_SIZE + END_SIZE];
    const xkd_zip_entry **order = NULL;
    XKD_TRY(w->directory.status);
    XKD_TRY(xkd_alloc(w->cx, &order, w->written.count, sizeof *order));
    for (int64_t i = 0; i < w->written.count; i++) order[i] = &w->written.entries[i];
    XKD_TRY(check_names(w->cx, XKD_ERR_CONFIG, w->path, order, w->written.count));
    XKD_TRY(xkd_writer_write(w->file, w->directory.data, w->directory.size));
    XKD_TRY(xkd_writer_write(w->file, end, end_records(w, end)));
    xkd_writer *file = w->file;
    w->file = NULL;
    XKD_TRY(xkd_writer_commit(file));
fail:
    xkd_free(order);
    xkd_zip_writer_abort(w);
    return status;
}
