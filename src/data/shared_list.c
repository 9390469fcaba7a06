#include "data/shared_list.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "data/shared_pack.h"

static const uint64_t MAGIC = 0x5453494C444B58; /* "XKDLIST" */

/* Far from where systems put heaps, libraries and stacks. The second one also fits address spaces of 39 bits. */
static const uint64_t PLACES[] = {0x200000000000, 0x4000000000};

/* Rows that are moved before their old memory is given back. */
enum { ROWS_AT_ONCE = 1 << 16, ALIGNMENT = 64 };

/* What a rank says of itself: what its list will be of, and where its process can be found. */
typedef struct {
    uint64_t key, space; /* space: of process numbers */
    int64_t pid;
} list_card;

/* Where a rank has put its list. */
typedef struct {
    int64_t fd, bytes; /* bytes 0: nowhere */
    uint64_t address, token;
} list_offer;

/* In front of the shared memory. Addresses are those that all ranks have it at. */
typedef struct {
    uint64_t magic, token;
    int64_t note, count, class_count;
    xkd_sample *samples;
    const char *root, *const *classes;
    void *pack; /* data/shared_pack.h; NULL: the samples are files */
    bool follow_links, named;
} list_head;

/* Where a block of what samples point to has gone. */
typedef struct {
    const char *from;
    int64_t bytes;
    char *to;
} moved_block;

typedef struct {
    moved_block *blocks; /* NULL: they are counted alone */
    int64_t count, bytes;
    const moved_block *last; /* that was looked up: neighbours mostly lie in one */
    char *next;              /* free place in the shared memory */
    const char *none;        /* "" there */
} movement;

static int64_t aligned(int64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- who shares ---- */

static uint64_t hash_file(const char *path, bool contents, uint64_t seed)
{
    struct stat s;
    if (stat(path, &s) != 0) return XXH3_64bits_withSeed("", 1, seed);
    const uint64_t facts[] = {s.st_dev, s.st_ino, contents ? (uint64_t)s.st_size : 0,
                              contents ? (uint64_t)xkd_modified(&s) : 0};
    return XXH3_64bits_withSeed(facts, sizeof facts, seed);
}

/* The same for ranks that would make the same list, with the same meaning of relative paths. */
static xkd_status key_of(xkd_context *cx, const xkd_list_source *source, uint64_t *key)
{
    xkd_status status = XKD_OK;
    char *inside = NULL;
    const char *path = source->path ? source->path : "";
    XKD_TRY(xkd_join_path(cx, &inside, path, "manifest.jsonl"));
    *key = XXH3_64bits_withSeed(path, strlen(path), source->settings);
    *key = hash_file(".", false, *key);
    *key = hash_file(path, true, *key);
    *key = hash_file(inside, true, *key);
fail:
    xkd_free(inside);
    return status;
}

/* The lowest rank that shares with this one, and how many do. */
static int leader_of(const xkd_dist *dist, const list_card *all, int *sharing)
{
    int rank = xkd_dist_rank(dist), first = rank;
    *sharing = 0;
    for (int r = xkd_dist_size(dist) - 1; r >= 0; r--) {
        if (all[r].key != all[rank].key || all[r].space != all[rank].space) continue;
        if (strcmp(xkd_dist_host(dist, r), xkd_dist_host(dist, rank)) != 0) continue;
        first = r;
        ++*sharing;
    }
    return first;
}

/* ---- moving a list ---- */

static void take_block(void *user, char *bytes, int64_t used)
{
    movement *v = user;
    if (used == 0) return;
    if (v->blocks) {
        v->blocks[v->count] = (moved_block){bytes, used, v->next};
        memcpy(v->next, bytes, (size_t)used);
        v->next += aligned(used);
        xkd_discard(bytes, used);
        xkd_tick();
    }
    v->count++;
    v->bytes += aligned(used);
}

static int by_address(const void *a, const void *b)
{
    const moved_block *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* Where something of the old blocks is now; NULL where it lies in none. */
static void *find(movement *v, const void *old)
{
    const char *at = old;
    const moved_block *b = v->last;
    if (!b || at < b->from || at >= b->from + b->bytes) {
        int64_t low = 0, high = v->count;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (v->blocks[middle].from <= at)
                low = middle + 1;
            else
                high = middle;
        }
        if (low == 0) return NULL;
        b = &v->blocks[low - 1];
        if (at >= b->from + b->bytes) return NULL;
        v->last = b;
    }
    return b->to + (at - b->from);
}

/* A split that lies in no block is the program's "", which stands elsewhere in every process. */
static void turn_pointers(movement *v, xkd_sample *s)
{
    const char *split = find(v, s->split);
    s->path = find(v, s->path);
    s->split = split ? split : v->none;
    if (!s->more) return;
    xkd_sample_more *more = find(v, s->more);
    if (more->labels) more->labels = find(v, more->labels);
    s->more = more;
}

static const char *put_text(movement *v, const char *text)
{
    size_t size = strlen(text) + 1;
    char *at = memcpy(v->next, text, size);
    v->next += size;
    return at;
}

static int64_t text_bytes(const xkd_manifest *m)
{
    int64_t bytes = 1 + (int64_t)strlen(m->root) + 1 + m->class_count * (int64_t)sizeof(char *);
    for (int64_t k = 0; k < m->class_count; k++) bytes += (int64_t)strlen(m->classes[k]) + 1;
    return aligned(bytes);
}

/* What is moved is given back piece by piece, so that there are never two copies. */
static void move_list(movement *v, const xkd_manifest *m, list_head *head)
{
    const char **classes = (const char **)v->next;
    v->next += m->class_count * (int64_t)sizeof *classes;
    for (int64_t k = 0; k < m->class_count; k++) classes[k] = put_text(v, m->classes[k]);
    head->classes = classes;
    head->root = put_text(v, m->root);
    v->none = put_text(v, "");
    v->next = (char *)head + aligned(sizeof *head) + text_bytes(m);
    v->count = v->bytes = 0;
    xkd_pieces_each(&m->pieces, take_block, v);
    qsort(v->blocks, (size_t)v->count, sizeof *v->blocks, by_address);
    head->samples = (xkd_sample *)v->next;
    head->count = m->count;
    for (int64_t i = 0; i < m->count; i += ROWS_AT_ONCE) {
        int64_t count = m->count - i < ROWS_AT_ONCE ? m->count - i : ROWS_AT_ONCE;
        memcpy(head->samples + i, m->samples + i, (size_t)count * sizeof *m->samples);
        for (int64_t k = i; k < i + count; k++) turn_pointers(v, &head->samples[k]);
        xkd_discard(m->samples + i, count * (int64_t)sizeof *m->samples);
        xkd_tick();
    }
}

/* ---- the memory ---- */

/* Exactly there; NULL where something lies there already. Kernels that do not know the flag take the address as a wish. */
static void *map_at(uint64_t address, int64_t bytes, int protection, int fd)
{
    void *wish = (void *)(uintptr_t)address;
    void *at = mmap(wish, (size_t)bytes, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (at == MAP_FAILED) return NULL;
    if (at == wish) return at;
    (void)munmap(at, (size_t)bytes);
    return NULL;
}

/* Beyond this limit a process would be ended by a signal. */
static bool may_have(int64_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= (rlim_t)bytes);
}

static void *make_room(int64_t bytes, int *fd)
{
    void *at = NULL;
    *fd = may_have(bytes) ? memfd_create("xkd-list", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
    if (*fd < 0) return NULL;
    if (ftruncate(*fd, (off_t)bytes) == 0)
        for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES && !at; i++)
            at = map_at(PLACES[i], bytes, PROT_READ | PROT_WRITE, *fd);
    if (at) return at;
    close(*fd);
    *fd = -1;
    return NULL;
}

static int open_of(int64_t pid, int64_t fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)pid, (long long)fd);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* From here on nobody can write it, or cut it off under the feet of a reader. Where the seal is not to be had, the mapping
 * alone is read-only. */
static void close_to_writers(void *at, int64_t bytes, int fd)
{
    int own = open_of(getpid(), fd);
    if (own < 0 || mmap(at, (size_t)bytes, PROT_READ, MAP_SHARED | MAP_FIXED, own, 0) == MAP_FAILED)
        (void)mprotect(at, (size_t)bytes, PROT_READ);
    if (own >= 0) close(own);
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

/* Moves the list into shared memory, which offer->fd keeps until all have mapped it. Where that is not to be had, the list stays as
 * it is and nothing is offered. */
static void publish(xkd_context *cx, xkd_manifest *m, int64_t note, list_offer *offer)
{
    movement v = {0};
    moved_block *blocks = NULL;
    int fd = -1;
    *offer = (list_offer){.fd = -1};
    xkd_pieces_each(&m->pieces, take_block, &v);
    int64_t samples = aligned(m->count * (int64_t)sizeof *m->samples);
    int64_t bytes = aligned(sizeof(list_head)) + text_bytes(m) + v.bytes + samples;
    if (m->pack) bytes += xkd_pack_shared_bytes(m->pack);
    if (xkd_alloc(cx, &blocks, v.count, sizeof *blocks) != XKD_OK) {
        xkd_clear_error(cx);
        return;
    }
    list_head *head = make_room(bytes, &fd);
    if (head) {
        offer->token = (uint64_t)(1e9 * xkd_wall_time()) ^ (uint64_t)getpid() << 40;
        *head = (list_head){.magic = MAGIC,
                            .token = offer->token,
                            .note = note,
                            .class_count = m->class_count,
                            .follow_links = m->follow_links,
                            .named = m->named};
        v.blocks = blocks;
        v.next = (char *)head + aligned(sizeof *head);
        move_list(&v, m, head);
        xkd_pieces_free(&m->pieces);
        memset(m->splits, 0, sizeof m->splits);
        xkd_free(m->samples);
        m->samples = head->samples;
        m->capacity = m->count;
        m->shared = head;
        m->shared_bytes = bytes;
        if (m->pack) xkd_pack_put(m->pack, head->pack = (char *)head->samples + samples, head, bytes);
        close_to_writers(head, bytes, fd);
        offer->fd = fd;
        offer->bytes = bytes;
        offer->address = (uint64_t)(uintptr_t)head;
    }
    xkd_free(blocks);
}

/* The list of another process; out->shared is NULL where it cannot be had. */
static xkd_status attach(xkd_context *cx, int64_t pid, const list_offer *offer, xkd_manifest *out, int64_t *note)
{
    xkd_status status = XKD_OK;
    struct stat s;
    *out = (xkd_manifest){0};
    int fd = offer->bytes ? open_of(pid, offer->fd) : -1;
    if (fd < 0) return XKD_OK;
    void *at = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size == offer->bytes
                   ? map_at(offer->address, offer->bytes, PROT_READ, fd)
                   : NULL;
    close(fd);
    if (!at) return XKD_OK;
    const list_head *head = at;
    bool right = head->magic == MAGIC && head->token == offer->token;
    if (right && head->pack) status = xkd_pack_attach(cx, head->pack, at, offer->bytes, &out->pack);
    if (!right || status != XKD_OK) {
        (void)munmap(at, (size_t)offer->bytes);
        return status;
    }
    out->shared = at;
    out->shared_bytes = offer->bytes;
    out->samples = head->samples;
    out->count = out->capacity = head->count;
    out->follow_links = head->follow_links;
    out->named = head->named;
    *note = head->note;
    XKD_TRY(xkd_copy_string(cx, &out->root, head->root));
    XKD_TRY(xkd_manifest_set_classes(cx, out, head->classes, head->class_count));
fail:
    return status;
}

/* ---- all together ---- */

static list_card card_of(uint64_t key)
{
    struct stat s;
    bool known = stat("/proc/self/ns/pid", &s) == 0;
    return (list_card){.key = key, .space = known ? (uint64_t)s.st_ino : 0, .pid = getpid()};
}

/* A list that is made by this rank, for others if there are any. */
static xkd_status make(xkd_context *cx, const xkd_list_source *source, bool offers, xkd_manifest *out, int64_t *note,
                       list_offer *offer)
{
    *offer = (list_offer){.fd = -1};
    *note = 0;
    xkd_status status = source->make(cx, source->user, out, note);
    if (status == XKD_OK && offers) publish(cx, out, *note, offer);
    return status;
}

xkd_status xkd_list_share(xkd_context *cx, xkd_dist *dist, const xkd_list_source *source, xkd_manifest *out,
                          int64_t *note)
{
    xkd_status status = XKD_OK;
    int size = xkd_dist_size(dist), rank = xkd_dist_rank(dist), sharing;
    list_card *cards = NULL, mine;
    list_offer *offers = NULL, offer = {.fd = -1};
    uint64_t key;
    int64_t all_here = 0;
    *out = (xkd_manifest){0};
    if (!dist) return make(cx, source, false, out, note, &offer);
    XKD_TRY(xkd_alloc(cx, &cards, size, sizeof *cards));
    XKD_TRY(xkd_alloc(cx, &offers, size, sizeof *offers));
    XKD_TRY(key_of(cx, source, &key));
    mine = card_of(key);
    XKD_TRY(xkd_dist_gather(dist, cards, &mine, sizeof mine));
    int leader = leader_of(dist, cards, &sharing);
    if (leader == rank) XKD_TRY(make(cx, source, sharing > 1, out, note, &offer));
    XKD_TRY(xkd_dist_gather(dist, offers, &offer, sizeof offer));
    if (leader != rank) XKD_TRY(attach(cx, cards[leader].pid, &offers[leader], out, note));
    /* The leader's descriptor is the way to the memory until all have come so far. */
    XKD_TRY(xkd_dist_largest(dist, &all_here, 1));
    if (out->shared)
        xkd_log(cx, XKD_LOG_DEBUG, "list of samples: %.3f GB, one copy for %d ranks of this host, made by rank %d",
                (double)out->shared_bytes / 1e9, sharing, leader);
    else
        xkd_log(cx, XKD_LOG_DEBUG, "list of samples: a copy of rank %d's own", rank);
    if (leader != rank && !out->shared) XKD_TRY(make(cx, source, false, out, note, &offer));
fail:
    if (offer.fd >= 0) close((int)offer.fd);
    xkd_free(cards);
    xkd_free(offers);
    return status;
}
