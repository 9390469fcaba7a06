#include "data/shard.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"

static const char HEAD_MAGIC[8] = "XKDPACK\n", FOOT_MAGIC[8] = "XKDEND1\n";
/* Class names of the largest sets are a megabyte. */
static const int64_t MOST_TEXT = (int64_t)64 << 20;
enum { ORDER_MARK = 0x01020304 };

static const char DAMAGED_BEGINNING[] = "has a damaged beginning (remove it and give its `xkd data pack` again)";

typedef struct {
    char magic[8];
    uint32_t version, order; /* order: ORDER_MARK as the writer's machine has it */
    uint64_t sum;            /* of the text */
    int64_t text_bytes, records_at, first;
    uint64_t reserved[2];
} shard_head;

/* Last bytes of the file. The index before it: entries, then rows. */
typedef struct {
    char magic[8];
    uint64_t sum; /* of what follows here */
    int64_t index_at, count, row_bytes;
    uint64_t index_sum;
    uint64_t reserved[2];
} shard_foot;

_Static_assert(sizeof(shard_head) == 64 && sizeof(shard_foot) == 64 && sizeof(xkd_records_entry) == 40,
               "docs/pack-format.md has these sizes");

void xkd_records_free(xkd_records_index *index)
{
    xkd_free(index->entries);
    xkd_free(index->rows);
    *index = (xkd_records_index){0};
}

static int64_t aligned(int64_t size)
{
    return (size + XKD_RECORD_ALIGN - 1) / XKD_RECORD_ALIGN * XKD_RECORD_ALIGN;
}

xkd_status xkd_records_begin(xkd_context *cx, xkd_writer *to, const char *text, int64_t first)
{
    xkd_status status = XKD_OK;
    char *block = NULL;
    int64_t size = (int64_t)strlen(text), whole = aligned((int64_t)sizeof(shard_head) + size);
    shard_head h = {.version = XKD_RECORDS_VERSION,
                    .order = ORDER_MARK,
                    .sum = XXH3_64bits(text, (size_t)size),
                    .text_bytes = size,
                    .records_at = whole,
                    .first = first};
    memcpy(h.magic, HEAD_MAGIC, sizeof h.magic);
    XKD_TRY(xkd_alloc(cx, &block, whole, 1));
    memcpy(block, &h, sizeof h);
    memcpy(block + sizeof h, text, (size_t)size);
    XKD_TRY(xkd_writer_write(to, block, whole));
fail:
    xkd_free(block);
    return status;
}

static xkd_status add_row(xkd_context *cx, xkd_records_index *x, const char *row, int64_t size)
{
    xkd_status status = XKD_OK;
    if (x->row_bytes + size > x->row_capacity) {
        int64_t capacity = 2 * (x->row_bytes + size);
        XKD_TRY(xkd_resize(cx, &x->rows, x->row_capacity, capacity, 1));
        x->row_capacity = capacity;
    }
    if (size) memcpy(x->rows + x->row_bytes, row, (size_t)size);
    x->row_bytes += size;
fail:
    return status;
}

xkd_status xkd_records_note(xkd_context *cx, xkd_records_index *x, const xkd_record_head *h, int64_t offset,
                            const char *row)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_reserve(cx, &x->entries, x->count, &x->capacity, sizeof *x->entries));
    XKD_TRY(add_row(cx, x, row, h->row_bytes));
    x->entries[x->count++] = (xkd_records_entry){.number = h->number,
                                                 .offset = offset,
                                                 .bytes = h->bytes,
                                                 .row_bytes = (int32_t)h->row_bytes,
                                                 .fault = h->fault,
                                                 .row_sum = h->row_sum};
fail:
    return status;
}

static uint64_t sum_of_foot(const shard_foot *f)
{
    size_t from = offsetof(shard_foot, index_at);
    return XXH3_64bits((const char *)f + from, sizeof *f - from);
}

xkd_status xkd_records_finish(xkd_writer *to, const xkd_records_index *x)
{
    xkd_status status = XKD_OK;
    int64_t size = x->count * (int64_t)sizeof *x->entries;
    shard_foot f = {.index_at = xkd_writer_size(to), .count = x->count, .row_bytes = x->row_bytes};
    memcpy(f.magic, FOOT_MAGIC, sizeof f.magic);
    f.index_sum = XXH3_64bits(x->entries, (size_t)size) ^ XXH3_64bits(x->rows, (size_t)x->row_bytes);
    f.sum = sum_of_foot(&f);
    if (size) XKD_TRY(xkd_writer_write(to, x->entries, size));
    if (x->row_bytes) XKD_TRY(xkd_writer_write(to, x->rows, x->row_bytes));
    XKD_TRY(xkd_writer_write(to, &f, sizeof f));
fail:
    return status;
}

static bool all_zero(const char *bytes, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        if (bytes[i]) return false;
    return true;
}

/* What is wrong with a head; the rest of the file is read by it. */
static const char *fault_of_head(const shard_head *h, int64_t size)
{
    if (memcmp(h->magic, HEAD_MAGIC, sizeof HEAD_MAGIC)) return "is no shard of a pack (move it away)";
    if (h->order != ORDER_MARK) return "was written on a machine of another byte order (pack the files on this one)";
    if (h->version != XKD_RECORDS_VERSION) return "has a version that is not known here (written by a newer xkd?)";
    if (h->text_bytes < 0 || h->text_bytes > MOST_TEXT || h->first < 0 || h->first > INT64_MAX / 2 ||
        h->records_at != aligned((int64_t)sizeof *h + h->text_bytes) || h->records_at > size)
        return DAMAGED_BEGINNING;
    return NULL;
}

xkd_status xkd_records_open(xkd_context *cx, int fd, int64_t size, const char *name, char **text, int64_t *first,
                            int64_t *records_at)
{
    xkd_status status = XKD_OK;
    shard_head h;
    *text = NULL;
    if (size < (int64_t)sizeof h) XKD_FAIL(XKD_ERR_DATA, "%s: is no shard of a pack (move it away)", name);
    XKD_TRY(xkd_read_at(cx, fd, name, &h, sizeof h, 0));
    const char *what = fault_of_head(&h, size);
    if (what) XKD_FAIL(XKD_ERR_DATA, "%s: %s", name, what);
    /* With the zeros up to the first record. */
    int64_t block = h.records_at - (int64_t)sizeof h;
    XKD_TRY(xkd_alloc(cx, text, block + 1, 1));
    XKD_TRY(xkd_read_at(cx, fd, name, *text, block, sizeof h));
    if (XXH3_64bits(*text, (size_t)h.text_bytes) != h.sum || strnlen(*text, (size_t)block) != (size_t)h.text_bytes ||
        !all_zero(*text + h.text_bytes, block - h.text_bytes))
        XKD_FAIL(XKD_ERR_DATA, "%s: %s", name, DAMAGED_BEGINNING);
    *first = h.first;
    *records_at = h.records_at;
fail:
    if (status != XKD_OK) {
        xkd_free(*text);
        *text = NULL;
    }
    return status;
}

/* Whether entries are what a writer makes: one behind the other, numbered without gaps. */
static bool entries_are_sound(const xkd_records_index *x, int64_t first, int64_t records_at, int64_t end)
{
    int64_t at = records_at, rows = 0;
    for (int64_t i = 0; i < x->count; i++) {
        const xkd_records_entry *e = &x->entries[i];
        if (e->number != first + i || e->offset != at || e->bytes < (int64_t)sizeof(xkd_record_head) ||
            e->bytes % XKD_RECORD_ALIGN || e->bytes > end - at || e->row_bytes < 0 ||
            e->row_bytes > XKD_RECORD_MAX_ROW || e->fault < 0 || e->fault >= XKD_FAULT_COUNT)
            return false;
        at += e->bytes;
        rows += e->row_bytes;
    }
    return rows == x->row_bytes;
}

/* False where it is not there or not sound. *status: out of memory, or the disk. */
static bool read_index(xkd_context *cx, int fd, int64_t size, const char *name, int64_t first, int64_t records_at,
                       xkd_records_index *x, xkd_status *status)
{
    shard_foot f;
    int64_t foot = size - (int64_t)sizeof f, entry = (int64_t)sizeof *x->entries;
    if (foot < records_at) return false;
    *status = xkd_read_at(cx, fd, name, &f, sizeof f, foot);
    if (*status != XKD_OK || memcmp(f.magic, FOOT_MAGIC, sizeof f.magic) || f.sum != sum_of_foot(&f)) return false;
    if (f.index_at < records_at || f.index_at > foot || f.count < 0 || f.count > (foot - f.index_at) / entry ||
        f.row_bytes != foot - f.index_at - f.count * entry)
        return false;
    *status = xkd_alloc(cx, &x->entries, f.count, sizeof *x->entries);
    if (*status == XKD_OK) *status = xkd_alloc(cx, &x->rows, f.row_bytes, 1);
    x->capacity = x->count = f.count;
    x->row_capacity = x->row_bytes = f.row_bytes;
    if (*status == XKD_OK) *status = xkd_read_at(cx, fd, name, x->entries, f.count * entry, f.index_at);
    if (*status == XKD_OK) *status = xkd_read_at(cx, fd, name, x->rows, f.row_bytes, f.index_at + f.count * entry);
    if (*status != XKD_OK) return false;
    uint64_t sum = XXH3_64bits(x->entries, (size_t)(f.count * entry)) ^ XXH3_64bits(x->rows, (size_t)f.row_bytes);
    return sum == f.index_sum && entries_are_sound(x, first, records_at, f.index_at);
}

xkd_status xkd_records_read(xkd_context *cx, int fd, int64_t size, const char *name, int64_t first, int64_t records_at,
                            xkd_records_index *out, bool *rebuilt)
{
    xkd_status status = XKD_OK;
    int64_t end;
    *out = (xkd_records_index){0};
    *rebuilt = false;
    if (read_index(cx, fd, size, name, first, records_at, out, &status)) return XKD_OK;
    xkd_records_free(out);
    if (status != XKD_OK) return status;
    *rebuilt = true;
    return xkd_records_scan(cx, fd, size, first, records_at, false, out, &end);
}

/* The zeros behind the row. */
static xkd_status check_padding(xkd_context *cx, const xkd_record_head *h, const xkd_source *s, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    char zeros[XKD_RECORD_ALIGN];
    int64_t end = h->row_at + h->row_bytes, size = h->bytes - end;
    if (size < XKD_RECORD_ALIGN) XKD_TRY(xkd_read_at(cx, s->fd, "the record", zeros, size, s->offset + end));
    if (size < XKD_RECORD_ALIGN && all_zero(zeros, size)) return XKD_OK;
    *fault = XKD_FAULT_BROKEN;
    XKD_FAIL(XKD_ERR_DATA, "the end of the record is damaged");
fail:
    return status;
}

/* Reads all that the tables name. */
static xkd_status read_deep(xkd_record_reader *r, xkd_media_fault *fault)
{
    xkd_status status = XKD_OK;
    const uint8_t *data;
    int64_t size;
    int16_t sound[XKD_RECORD_CHUNK];
    const xkd_damage *damage;
    const xkd_record_head *h = xkd_record_about(r);
    XKD_TRY(xkd_record_damage(r, &damage, fault));
    for (int64_t i = 0; i < h->frames; i++) XKD_TRY(xkd_record_piece_of(r, i, &data, &size, fault));
    for (int64_t i = 0; i < h->samples; i += XKD_RECORD_CHUNK) {
        int64_t n = h->samples - i < XKD_RECORD_CHUNK ? h->samples - i : XKD_RECORD_CHUNK;
        XKD_TRY(xkd_record_sound(r, i, n, sound, fault));
    }
fail:
    return status;
}

/* True: a record is there and whole, and stands in the index now. */
static bool take_record(xkd_context *cx, xkd_record_reader *r, const xkd_source *source, int64_t number, bool deep,
                        xkd_records_index *out, xkd_status *status)
{
    xkd_media_fault fault = XKD_FAULT_NONE;
    const char *row;
    *status = xkd_record_open(r, source, &fault);
    const xkd_record_head *h = xkd_record_about(r);
    if (*status == XKD_OK && (h->number != number || h->bytes % XKD_RECORD_ALIGN)) return false;
    if (*status == XKD_OK) *status = xkd_record_row(r, &row, &fault);
    if (*status == XKD_OK && deep) *status = check_padding(cx, h, source, &fault);
    if (*status == XKD_OK && deep) *status = read_deep(r, &fault);
    if (*status == XKD_OK) *status = xkd_records_note(cx, out, h, source->offset, row);
    if (*status != XKD_ERR_DATA || fault == XKD_FAULT_UNREADABLE) return *status == XKD_OK;
    xkd_clear_error(cx);
    *status = XKD_OK;
    return false;
}

xkd_status xkd_records_scan(xkd_context *cx, int fd, int64_t size, int64_t first, int64_t records_at, bool deep,
                            xkd_records_index *out, int64_t *end)
{
    xkd_status status = XKD_OK;
    xkd_record_reader *r = NULL;
    int64_t at = records_at;
    *out = (xkd_records_index){0};
    XKD_TRY(xkd_record_reader_new(cx, &r));
    while (size - at >= (int64_t)sizeof(xkd_record_head)) {
        xkd_source source = {.fd = fd, .offset = at, .size = size - at, .record = true};
        if (!take_record(cx, r, &source, first + out->count, deep, out, &status)) break;
        at += out->entries[out->count - 1].bytes;
    }
    *end = at;
fail:
    xkd_record_reader_free(r);
    return status;
}
