/* Shared by the two sides of record.h only. */
#ifndef XKD_MEDIA_RECORD_PARTS_H
#define XKD_MEDIA_RECORD_PARTS_H

#include "media/record.h"

#define XKD_RECORD_MAGIC "XKDREC1\n"

_Static_assert(sizeof(xkd_record_head) == 256, "the head of a record is 256 bytes (docs/pack-format.md)");
_Static_assert(sizeof(xkd_record_piece) == 16, "an entry of its tables is 16 bytes");
_Static_assert(sizeof(xkd_record_stretch) == 24, "a damaged stretch is 24 bytes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little endian; nothing turns them here");

uint32_t xkd_record_sum(const void *data, int64_t size);

static inline int64_t xkd_record_chunks(int64_t samples)
{
    return samples / XKD_RECORD_CHUNK + (samples % XKD_RECORD_CHUNK != 0);
}

#endif
