/* Opening a pack: the indexes of all its shards, several at a time, for on a network each waits for its server. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/context.h"
#include "base/file.h"
#include "base/pool.h"
#include "data/manifest_rows.h"
#include "data/pack_parts.h"
#include "data/shard.h"

/* Threads; they mostly wait for a disk. A few shards are not worth them. */
enum { MOST_PARTS = 16, FEW_SHARDS = 8 };

/* A shard as one thread has read it. */
typedef struct {
    xkd_context *cx;
    const char *name;
    int64_t first; /* number of its first record */
    xkd_records_index index;
    xkd_manifest m;         /* its samples; classes are those of the whole, strings go to the whole at the end */
    xkd_pack_fault *faults; /* by place in the index */
    int64_t fault_count, fault_capacity;
    xkd_pieces texts; /* of faults; they go to the pack at the end */
    bool rebuilt;
    xkd_status status;
} part;

typedef struct {
    xkd_context *cx;
    xkd_pack *pack;
    const char *text; /* that all shards have */
    xkd_manifest *m;
    part parts[MOST_PARTS];
    int count;
} reading;

static bool ends_with(const char *name, const char *ending)
{
    size_t a = strlen(name), b = strlen(ending);
    return a > b && !strcmp(name + a - b, ending);
}

static xkd_status keep_fault(part *p, int64_t i, const char *said)
{
    xkd_status status = xkd_reserve(p->cx, &p->faults, p->fault_count, &p->fault_capacity, sizeof *p->faults);
    if (status != XKD_OK) return status;
    p->faults[p->fault_count++] = (xkd_pack_fault){
        .said = said ? said : "could not be packed", .record = i, .fault = (xkd_media_fault)p->index.entries[i].fault};
    return XKD_OK;
}

/* The samples of an index. */
static xkd_status read_rows(const reading *r, part *p, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char *row = p->index.rows;
    const char *said;
    bool listed = r->m->class_count > 0;
    p->m.count = p->fault_count = 0;
    if (!listed) xkd_manifest_free_classes(&p->m); /* of a reading that failed */
    for (int64_t i = 0; i < p->index.count; row += p->index.entries[i++].row_bytes) {
        const xkd_records_entry *e = &p->index.entries[i];
        if (e->offset / XKD_RECORD_ALIGN > UINT32_MAX || e->bytes / XKD_RECORD_ALIGN > UINT32_MAX)
            XKD_FAIL(XKD_ERR_DATA, "%s: is larger than 16 TiB (pack the files anew)", path);
        XKD_TRY(xkd_manifest_add_packed(cx, &p->m, path, e->number, row, e->row_bytes, &p->texts, &said));
        if (e->fault != XKD_FAULT_NONE) XKD_TRY(keep_fault(p, i, said));
        if (!listed && p->m.class_count)
            XKD_FAIL(XKD_ERR_DATA,
                     "%s: record %" PRId64 " has a class that " XKD_PACK_FILE " does not list (pack the files anew)",
                     path, e->number);
    }
fail:
    return status;
}

static xkd_status read_shard(const reading *r, part *p)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = p->cx;
    char *path = NULL, *said = NULL;
    int64_t size, records_at;
    int fd = -1;
    XKD_TRY(xkd_join_path(cx, &path, r->pack->folder, p->name));
    XKD_TRY(xkd_open_read(cx, path, &fd, &size));
    XKD_TRY(xkd_records_open(cx, fd, size, path, &said, &p->first, &records_at));
    if (strcmp(said, r->text))
        XKD_FAIL(XKD_ERR_DATA, "%s: belongs to another pack than %s/" XKD_PACK_FILE " (move it away)", path,
                 r->pack->folder);
    XKD_TRY(xkd_records_read(cx, fd, size, path, p->first, records_at, &p->index, &p->rebuilt));
    XKD_TRY(read_rows(r, p, path));
fail:
    if (fd >= 0) close(fd);
    xkd_free(said);
    xkd_free(path);
    return status;
}

static void read_one(void *arg, int64_t index, int thread)
{
    reading *r = arg;
    (void)thread;
    r->parts[index].status = read_shard(r, &r->parts[index]);
}

/* As xkd_manifest_reserve. */
static xkd_status reserve_entries(xkd_context *cx, xkd_pack *p, int64_t more)
{
    xkd_status status = XKD_OK;
    if (p->count + more <= p->entry_capacity) return XKD_OK;
    int64_t capacity = p->count + more + p->count / 4;
    XKD_TRY(xkd_grow(cx, &p->entries, p->entry_capacity, capacity, sizeof *p->entries));
    p->entry_capacity = capacity;
fail:
    return status;
}

/* Records of a part behind those of the pack. */
static xkd_status add_records(xkd_context *cx, xkd_pack *p, part *from, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    int64_t first = p->count, count = from->m.count;
    if (first + count > INT32_MAX) XKD_FAIL(XKD_ERR_DATA, "%s: more than 2^31 records (divide the pack)", p->folder);
    XKD_TRY(xkd_manifest_reserve(cx, m, count));
    XKD_TRY(reserve_entries(cx, p, count));
    for (int64_t i = 0; i < count; i++) {
        const xkd_records_entry *e = &from->index.entries[i];
        p->entries[p->count++] = (xkd_pack_entry){.row_sum = e->row_sum,
                                                  .at = (uint32_t)(e->offset / XKD_RECORD_ALIGN),
                                                  .size = (uint32_t)(e->bytes / XKD_RECORD_ALIGN)};
        m->samples[m->count] = from->m.samples[i];
        m->samples[m->count++].record = (int32_t)p->count;
    }
    for (int64_t k = 0; k < from->fault_count; k++) {
        XKD_TRY(xkd_reserve(cx, &p->faults, p->fault_count, &p->fault_capacity, sizeof *p->faults));
        p->faults[p->fault_count] = from->faults[k];
        p->faults[p->fault_count++].record += first;
    }
fail:
    return status;
}

/* A shard behind those before it. What failed is read again, so that its message is the caller's. */
static xkd_status take_part(reading *r, part *from)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = r->cx;
    xkd_pack *p = r->pack;
    if (from->status != XKD_OK) {
        xkd_context *own = from->cx;
        xkd_records_free(&from->index);
        from->cx = cx;
        status = read_shard(r, from);
        from->cx = own;
        XKD_TRY(status);
    }
    if (from->first != p->count)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s/%s: begins with sample %" PRId64 " where %" PRId64
                 " should follow: a shard before it is missing (give its `xkd data pack` again)",
                 p->folder, from->name, from->first, p->count);
    if (from->rebuilt)
        xkd_log(cx, XKD_LOG_WARN, "%s/%s: its index is damaged; %" PRId64 " records were found without it", p->folder,
                from->name, from->index.count);
    XKD_TRY(xkd_reserve(cx, &p->shards, p->shard_count, &p->shard_capacity, sizeof *p->shards));
    p->shards[p->shard_count] = (xkd_pack_shard_file){.first = p->count, .fd = -1};
    XKD_TRY(xkd_pieces_copy(cx, &p->texts, from->name, (int64_t)strlen(from->name), &p->shards[p->shard_count].name));
    p->shard_count++;
    XKD_TRY(add_records(cx, p, from, r->m));
fail:
    xkd_records_free(&from->index);
    return status;
}

static xkd_status begin_parts(reading *r, int64_t shards)
{
    xkd_status status = XKD_OK;
    r->count = shards < FEW_SHARDS ? 1 : MOST_PARTS;
    for (int i = 0; i < r->count; i++) {
        part *p = &r->parts[i];
        p->cx = xkd_context_branch(r->cx);
        if (!p->cx) return xkd_fail(r->cx, XKD_ERR_MEMORY, "%s: out of memory", r->pack->folder);
        XKD_TRY(xkd_manifest_lend_classes(r->cx, r->m, &p->m));
    }
fail:
    return status;
}

static void end_parts(reading *r)
{
    for (int i = 0; i < r->count; i++) {
        part *p = &r->parts[i];
        xkd_pieces_join(&r->m->pieces, &p->m.pieces);
        xkd_pieces_join(&r->pack->texts, &p->texts);
        if (!r->m->class_count) xkd_manifest_free_classes(&p->m); /* else they are the whole's */
        xkd_free(p->m.samples);
        xkd_free(p->faults);
        xkd_records_free(&p->index);
        xkd_context_free(p->cx);
    }
}

static xkd_status read_shards(reading *r, char **names, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    XKD_TRY(begin_parts(r, count));
    XKD_TRY(xkd_pool_new(r->cx, &pool, r->count));
    for (int64_t done = 0; done < count;) {
        int64_t n = count - done < r->count ? count - done : r->count;
        for (int64_t i = 0; i < n; i++) r->parts[i].name = names[done + i];
        xkd_parallel_for(pool, n, read_one, r);
        for (int64_t i = 0; i < n; i++) XKD_TRY(take_part(r, &r->parts[i]));
        done += n;
        xkd_tick();
    }
fail:
    xkd_pool_free(pool);
    end_parts(r);
    return status;
}

static xkd_status add_shards(xkd_context *cx, xkd_pack *p, const char *text, xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    reading r = {.cx = cx, .pack = p, .text = text, .m = m};
    xkd_names names = {0};
    char **shards = NULL;
    int64_t parts = 0, count = 0;
    XKD_TRY(xkd_list_folder(cx, p->folder, &names));
    XKD_TRY(xkd_alloc(cx, &shards, names.count, sizeof *shards));
    for (int64_t i = 0; i < names.count; i++) {
        parts += ends_with(names.items[i], XKD_SHARD_ENDING ".part");
        if (ends_with(names.items[i], XKD_SHARD_ENDING)) shards[count++] = names.items[i];
    }
    XKD_TRY(read_shards(&r, shards, count));
    if (p->count != p->settings.samples)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: holds %" PRId64 " of its %" PRId64 " samples%s (give its `xkd data pack` again: it goes on)",
                 p->folder, p->count, p->settings.samples, parts ? ", and shards that are not complete" : "");
fail:
    xkd_free(shards);
    xkd_free_names(&names);
    return status;
}

/* The settings: the pack's own file, or what the first shard has of it. */
static xkd_status read_text(xkd_context *cx, const char *folder, const char *path, char **text)
{
    xkd_status status = XKD_OK;
    char *first = NULL;
    int64_t size, number, records_at;
    int fd = -1;
    if (xkd_path_exists(path)) return xkd_read_file(cx, path, (int64_t)64 << 20, XKD_ERR_DATA, text, &size);
    XKD_TRY(xkd_join_path(cx, &first, folder, XKD_FIRST_SHARD));
    XKD_TRY(xkd_open_read(cx, first, &fd, &size));
    XKD_TRY(xkd_records_open(cx, fd, size, first, text, &number, &records_at));
    xkd_log(cx, XKD_LOG_WARN, "%s: is missing; its first shard has the same text", path);
fail:
    if (fd >= 0) close(fd);
    xkd_free(first);
    return status;
}

xkd_status xkd_pack_read(xkd_context *cx, const char *folder, xkd_manifest *out)
{
    xkd_status status = XKD_OK;
    char *path = NULL, *text = NULL;
    *out = (xkd_manifest){0};
    XKD_TRY(xkd_pack_new(cx, folder, &out->pack));
    XKD_TRY(xkd_copy_string(cx, &out->root, folder));
    XKD_TRY(xkd_join_path(cx, &path, folder, XKD_PACK_FILE));
    XKD_TRY(read_text(cx, folder, path, &text));
    XKD_TRY(xkd_pack_settings_read(cx, path, text, &out->pack->settings, out));
    out->pack->identity = XXH3_64bits(text, strlen(text));
    XKD_TRY(add_shards(cx, out->pack, text, out));
fail:
    xkd_free(path);
    xkd_free(text);
    if (status != XKD_OK) xkd_manifest_free(out);
    return status;
}
