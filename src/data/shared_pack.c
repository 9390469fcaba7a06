#include "data/shared_pack.h"

#include <string.h>

#include "base/alloc.h"
#include "data/pack_parts.h"

/* Addresses are those that all ranks have it at. Behind it: entries, faults, shards, texts. */
typedef struct {
    xkd_pack_settings settings;
    uint64_t identity;
    int64_t shard_count, count, fault_count;
    const char *folder;
    xkd_pack_entry *entries;
    xkd_pack_fault *faults;
    xkd_pack_shard_file *shards; /* none of them open: each process copies them */
} pack_head;

_Static_assert(sizeof(pack_head) % 8 == 0 && sizeof(xkd_pack_entry) % 8 == 0 && sizeof(xkd_pack_fault) % 8 == 0 &&
                   sizeof(xkd_pack_shard_file) % 8 == 0,
               "what follows is aligned");

static int64_t text_bytes(const xkd_pack *p)
{
    size_t bytes = strlen(p->folder) + 1;
    for (int64_t i = 0; i < p->fault_count; i++) bytes += strlen(p->faults[i].said) + 1;
    for (int64_t i = 0; i < p->shard_count; i++) bytes += strlen(p->shards[i].name) + 1;
    return (int64_t)bytes;
}

int64_t xkd_pack_shared_bytes(const xkd_pack *p)
{
    return (int64_t)sizeof(pack_head) + p->count * (int64_t)sizeof *p->entries +
           p->fault_count * (int64_t)sizeof *p->faults + p->shard_count * (int64_t)sizeof *p->shards + text_bytes(p);
}

static void *put(char **next, const void *from, int64_t bytes)
{
    void *at = *next;
    if (bytes) memcpy(at, from, (size_t)bytes);
    *next += bytes;
    return at;
}

static const char *put_text(char **next, const char *text)
{
    return put(next, text, (int64_t)strlen(text) + 1);
}

void xkd_pack_put(xkd_pack *p, void *at, void *memory, int64_t bytes)
{
    pack_head *head = at;
    char *next = (char *)at + sizeof *head;
    *head = (pack_head){.settings = p->settings,
                        .identity = p->identity,
                        .shard_count = p->shard_count,
                        .count = p->count,
                        .fault_count = p->fault_count};
    head->entries = put(&next, p->entries, p->count * (int64_t)sizeof *p->entries);
    head->faults = put(&next, p->faults, p->fault_count * (int64_t)sizeof *p->faults);
    head->shards = put(&next, p->shards, p->shard_count * (int64_t)sizeof *p->shards);
    head->folder = put_text(&next, p->folder);
    for (int64_t i = 0; i < p->fault_count; i++) head->faults[i].said = put_text(&next, p->faults[i].said);
    for (int64_t i = 0; i < p->shard_count; i++) {
        head->shards[i].fd = -1;
        head->shards[i].name = p->shards[i].name = put_text(&next, p->shards[i].name);
    }
    xkd_free(p->entries);
    xkd_free(p->faults);
    xkd_pieces_free(&p->texts);
    p->entries = head->entries;
    p->faults = head->faults;
    p->shared = memory;
    p->shared_bytes = bytes;
}

xkd_status xkd_pack_attach(xkd_context *cx, void *at, void *memory, int64_t bytes, xkd_pack **out)
{
    xkd_status status = XKD_OK;
    const pack_head *head = at;
    xkd_pack *p = NULL;
    XKD_TRY(xkd_pack_new(cx, head->folder, &p));
    XKD_TRY(xkd_alloc(cx, &p->shards, head->shard_count, sizeof *p->shards));
    memcpy(p->shards, head->shards, (size_t)head->shard_count * sizeof *p->shards);
    p->settings = head->settings;
    p->identity = head->identity;
    p->shard_count = p->shard_capacity = head->shard_count;
    p->count = p->entry_capacity = head->count;
    p->fault_count = p->fault_capacity = head->fault_count;
    p->entries = head->entries;
    p->faults = head->faults;
    p->shared = memory;
    p->shared_bytes = bytes;
    *out = p;
    return XKD_OK;
fail:
    xkd_pack_release(p);
    return status;
}
