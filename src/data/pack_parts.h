/* What is known of a pack: pack_read.c fills it in, pack.c opens its records, shared_pack.c gives it to other processes. */
#ifndef XKD_DATA_PACK_PARTS_H
#define XKD_DATA_PACK_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "data/pack.h"

typedef struct {
    const char *name; /* in the folder */
    int64_t first;    /* number of its first record */
    int fd;           /* -1: not open */
    uint64_t opened;  /* when, by the pack's count */
} xkd_pack_shard_file;

/* Of a record; there may be ten millions. Place and size in its shard, in units of XKD_RECORD_ALIGN. */
typedef struct {
    uint64_t row_sum;
    uint32_t at, size;
} xkd_pack_entry;

/* One that could not be packed. */
typedef struct {
    const char *said;
    int64_t record;
    xkd_media_fault fault;
} xkd_pack_fault;

struct xkd_pack {
    atomic_int users;
    char *folder;
    xkd_pack_settings settings;
    uint64_t identity; /* of the settings */
    xkd_pack_shard_file *shards;
    xkd_pack_entry *entries; /* [count] */
    xkd_pack_fault *faults;  /* by record */
    int64_t shard_count, shard_capacity, count, entry_capacity, fault_count, fault_capacity;
    xkd_pieces texts; /* names and what is said of faults */
    void *shared; /* memory of all ranks of a host that entries, faults and texts lie in; NULL: they are the pack's */
    int64_t shared_bytes;
    pthread_mutex_t lock; /* guards what follows, and fd and opened of the shards */
    int64_t open;
    uint64_t clock;
};

/* An empty one of this folder, with one user. */
xkd_status xkd_pack_new(xkd_context *cx, const char *folder, xkd_pack **out);

#endif
