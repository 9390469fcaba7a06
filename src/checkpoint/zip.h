/* Zip archives of stored entries, as PyTorch and numpy write them: strict reader over a memory map, streaming writer.
 * Format: PKWARE APPNOTE 6.3.10. */
#ifndef XKD_CHECKPOINT_ZIP_H
#define XKD_CHECKPOINT_ZIP_H

#include <stdint.h>

#include "base/file.h"

typedef struct {
    char *name;                /* UTF-8 without 0 bytes */
    const unsigned char *data; /* [size] inside the map */
    int64_t size;
    int64_t start, end; /* span of the whole entry in the file: local header to data descriptor */
    uint32_t crc;
    uint16_t flags;
} xkd_zip_entry;

typedef struct {
    xkd_zip_entry *entries; /* [count], in the order of the central directory */
    int64_t count;
} xkd_zip;

/* Reads the directory of a whole archive and checks it against the local headers. Sizes come from the central directory.
 * Refused with XKD_ERR_CHECKPOINT, naming the entry: anything but stored data, encryption, several disks, comments,
 * trailing bytes or gaps, overlap, links, names that repeat (also but for case), are a file's and a folder's, leave the
 * folder or are not printable UTF-8, end records, local headers or data descriptors that say something
 * else. Contents are checked by xkd_zip_verify. The map must outlive the
 * archive; free with xkd_zip_free. */
xkd_status xkd_zip_open(xkd_context *cx, const char *path, const xkd_map *map, xkd_zip *out);
void xkd_zip_free(xkd_zip *zip);

/* Compares the CRC-32 of an entry's data. */
xkd_status xkd_zip_verify(xkd_context *cx, const char *path, const xkd_zip_entry *entry);

const xkd_zip_entry *xkd_zip_find(const xkd_zip *zip, const char *name);

/* Writer: entries one after the other, data aligned to 64 bytes as PyTorch does, zip64 records where sizes need them. */
typedef struct xkd_zip_writer xkd_zip_writer;

xkd_status xkd_zip_writer_open(xkd_context *cx, const char *path, xkd_zip_writer **out);
/* The data of one entry in up to `parts` pieces that are written one behind the other. */
typedef struct {
    const void *data;
    int64_t size;
} xkd_zip_part;
/* A name that the reader would refuse is XKD_ERR_CONFIG, here or (names that collide) at commit. */
xkd_status xkd_zip_writer_add(xkd_zip_writer *w, const char *name, const xkd_zip_part *parts, int count);
/* Writes the directory, publishes the file and frees the writer, in any case. */
xkd_status xkd_zip_writer_commit(xkd_zip_writer *w);
void xkd_zip_writer_abort(xkd_zip_writer *w); /* NULL is allowed */

#endif
