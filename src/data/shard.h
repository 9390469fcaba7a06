/* A file of records (media/record.h) with what is common to them in front and an index behind, which can be made again from
 * the records: docs/pack-format.md. A pack is a folder of them; an entry of a folder cache is one with one record. */
#ifndef XKD_DATA_SHARD_H
#define XKD_DATA_SHARD_H

#include "media/record.h"

enum { XKD_RECORDS_VERSION = 1 };

/* Of a record in the index. */
typedef struct {
    int64_t number, offset, bytes;
    int32_t row_bytes;
    int32_t fault;    /* xkd_media_fault */
    uint64_t row_sum; /* as in the record's head */
} xkd_records_entry;

typedef struct {
    xkd_records_entry *entries; /* [count], of consecutive numbers */
    int64_t count, capacity;
    char *rows; /* their lines, one behind the other without ends */
    int64_t row_bytes, row_capacity;
} xkd_records_index;

/* Writes the beginning; `first` is the number of the first record. */
xkd_status xkd_records_begin(xkd_context *cx, xkd_writer *to, const char *text, int64_t first);
/* Takes a record that was written at `offset` into the index. */
xkd_status xkd_records_note(xkd_context *cx, xkd_records_index *index, const xkd_record_head *head, int64_t offset,
                            const char *row);
/* Writes the index. */
xkd_status xkd_records_finish(xkd_writer *to, const xkd_records_index *index);
void xkd_records_free(xkd_records_index *index);

/* Reads the beginning: *text is what stands there, to be freed with xkd_free; records begin at *records_at. XKD_ERR_DATA for
 * what is no shard, of another version, or damaged. */
xkd_status xkd_records_open(xkd_context *cx, int fd, int64_t size, const char *name, char **text, int64_t *first,
                            int64_t *records_at);

/* Reads the index, or makes it again from the records where it is damaged or missing: *rebuilt. */
xkd_status xkd_records_read(xkd_context *cx, int fd, int64_t size, const char *name, int64_t first, int64_t records_at,
                            xkd_records_index *out, bool *rebuilt);

/* Goes through the records up to the first that is not whole, at *end. `deep`: frames and sound are read as well. */
xkd_status xkd_records_scan(xkd_context *cx, int fd, int64_t size, int64_t first, int64_t records_at, bool deep,
                            xkd_records_index *out, int64_t *end);

#endif
