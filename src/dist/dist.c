/* The operations of dist.h on top of one: exchange. */
#include "dist/dist.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "base/text.h"
#include "dist/dist_parts.h"
#include "dist/mpi.h"

/* Bytes of a bucket of xkd_dist_sum: long enough for the link's rate, short enough to stay in a processor's cache while it
 * is added up. A rank's share has some floats at least, however many ranks there are. */
static const int64_t BUCKET = (int64_t)8 << 20, LEAST_SHARE = 4096;

int xkd_dist_rank(const xkd_dist *d)
{
    return d ? d->rank : 0;
}

int xkd_dist_size(const xkd_dist *d)
{
    return d ? d->size : 1;
}

const char *xkd_dist_host(const xkd_dist *d, int rank)
{
    return d ? d->hosts[rank] : "";
}

/* *value = a number of the environment within its bounds; it stays as it is where there is none. */
static xkd_status number_of(xkd_context *cx, const char *name, int64_t least, int64_t most, int64_t *value)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text) return XKD_OK;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || *end || n < least || n > most)
        return xkd_fail(cx, XKD_ERR_CONFIG, "%s=%s: want a number from %lld to %lld", name, text, (long long)least,
                        (long long)most);
    *value = n;
    return XKD_OK;
}

/* The first name of a list such as "node[007-012,020],gpu3". */
static void first_host(const char *list, char *host, size_t size)
{
    int length = (int)strcspn(list, "[,");
    const char *number = list[length] == '[' ? list + length + 1 : "";
    snprintf(host, size, "%.*s%.*s", length, list, (int)strcspn(number, "-,]"), number);
}

/* What srun sets without MPI. All ranks of a job know its first machine and its number: the port follows from that. */
static xkd_status place_of_slurm(xkd_context *cx, xkd_dist_place *out)
{
    static char host[256];
    xkd_status status = XKD_OK;
    const char *nodes = getenv("SLURM_STEP_NODELIST");
    int64_t size = 1, rank = -1, job = 0, step = 0;
    if (!getenv("SLURM_PROCID") || !nodes) return XKD_OK;
    XKD_TRY(number_of(cx, "SLURM_STEP_NUM_TASKS", 1, XKD_MOST_RANKS, &size));
    XKD_TRY(number_of(cx, "SLURM_PROCID", 0, size - 1, &rank));
    XKD_TRY(number_of(cx, "SLURM_JOB_ID", 0, INT64_MAX, &job));
    XKD_TRY(number_of(cx, "SLURM_STEP_ID", 0, INT64_MAX, &step));
    if (size == 1) goto fail;
    first_host(nodes, host, sizeof host);
    out->rank = (int)rank;
    out->size = (int)size;
    out->address = host;
    out->port = 20000 + (int)((job * 17 + step) % 20000);
    out->token = (uint64_t)job << 16 ^ (uint64_t)step;
fail:
    return status;
}

/* torchrun listens on MASTER_PORT itself; the next port is ours. The run's name keeps two jobs apart. */
static void leave_torchrun_its_port(xkd_dist_place *place)
{
    const char *agent = getenv("TORCHELASTIC_USE_AGENT_STORE"), *name = getenv("TORCHELASTIC_RUN_ID");
    if (agent && strcmp(agent, "True") == 0) place->port += place->port < 65535 ? 1 : -1;
    if (name) place->token ^= XXH3_64bits(name, strlen(name));
}

xkd_status xkd_dist_place_read(xkd_context *cx, xkd_dist_place *out)
{
    xkd_status status = XKD_OK;
    const char *token = getenv("XKD_TOKEN"), *address = getenv("MASTER_ADDR");
    int64_t size = 1, rank = -1, port = 0, listener = -1;
    *out = (xkd_dist_place){.size = 1, .listener = -1};
    if (!getenv("WORLD_SIZE")) return xkd_mpi_started() ? xkd_mpi_place(cx, out) : place_of_slurm(cx, out);
    XKD_TRY(number_of(cx, "WORLD_SIZE", 1, XKD_MOST_RANKS, &size));
    if (size == 1) goto fail;
    XKD_TRY(number_of(cx, "RANK", 0, size - 1, &rank));
    XKD_TRY(number_of(cx, "MASTER_PORT", 1, 65535, &port));
    XKD_TRY(number_of(cx, "XKD_LISTENER", 0, 1 << 20, &listener));
    if (rank < 0 || port == 0 || !address || !*address)
        XKD_FAIL(XKD_ERR_CONFIG,
                 "WORLD_SIZE=%lld, but RANK, MASTER_ADDR and MASTER_PORT are not all set: start the ranks "
                 "with --ranks, torchrun or mpirun, or unset WORLD_SIZE",
                 (long long)size);
    *out = (xkd_dist_place){.rank = (int)rank, .size = (int)size, .address = address, .port = (int)port};
    out->listener = rank == 0 ? (int)listener : -1;
    out->token = token ? strtoull(token, NULL, 16) : 0;
    leave_torchrun_its_port(out);
fail:
    return status;
}

void xkd_dist_note_lost(xkd_dist *d, const char *format, ...)
{
    va_list args;
    pthread_mutex_lock(&d->lock);
    if (!d->lost) {
        va_start(args, format);
        vsnprintf(d->lost_text, sizeof d->lost_text, format, args);
        va_end(args);
        d->lost = true;
        (void)!write(d->wake[1], "", 1); /* never read: it stays readable */
    }
    pthread_mutex_unlock(&d->lock);
}

xkd_status xkd_dist_look(xkd_dist *d)
{
    return d->lost ? xkd_fail(d->cx, XKD_ERR_PEER, "%s", d->lost_text) : XKD_OK;
}

static void free_dist(xkd_dist *d)
{
    for (int r = 0; d->sockets && r < d->size; r++)
        if (d->sockets[r] >= 0) close(d->sockets[r]);
    for (int k = 0; k < 2; k++)
        if (d->wake[k] >= 0) close(d->wake[k]);
    pthread_mutex_destroy(&d->lock);
    xkd_free(d->hosts);
    xkd_free(d->sockets);
    xkd_free(d->out);
    xkd_free(d->in);
    xkd_free(d->out_bytes);
    xkd_free(d->in_bytes);
    xkd_free(d->sending);
    xkd_free(d->receiving);
    xkd_free(d->polled);
    xkd_free(d->numbers);
    xkd_free(d->room);
    xkd_free(d->packed);
    xkd_free(d);
}

int64_t xkd_dist_share(int64_t size)
{
    int64_t share = BUCKET / (int64_t)sizeof(float) / size;
    return share > LEAST_SHARE ? share : LEAST_SHARE;
}

/* With the host each share has its float32, and in bfloat16 what is sent and what comes besides. */
int64_t xkd_dist_host_buckets(int64_t size, bool halved)
{
    int64_t floats = xkd_dist_share(size) * size;
    return size > 1 ? floats * (int64_t)(sizeof(float) + (halved ? 2 * sizeof(uint16_t) : 0)) : 0;
}

/* Both halves of bfloat16 find room where the float32 would. */
int64_t xkd_dist_device_buckets(int64_t size)
{
    return size > 1 ? xkd_dist_share(size) * size * (int64_t)sizeof(float) : 0;
}

/* Lists, and a bucket's room: for each rank this rank's share. */
static xkd_status allocate(xkd_context *cx, xkd_dist *d)
{
    xkd_status status = XKD_OK;
    d->share = xkd_dist_share(d->size);
    XKD_TRY(xkd_alloc(cx, &d->hosts, d->size, sizeof *d->hosts));
    XKD_TRY(xkd_alloc(cx, &d->sockets, d->size, sizeof *d->sockets));
    for (int r = 0; r < d->size; r++) d->sockets[r] = -1;
    XKD_TRY(xkd_alloc(cx, &d->out, d->size, sizeof *d->out));
    XKD_TRY(xkd_alloc(cx, &d->in, d->size, sizeof *d->in));
    XKD_TRY(xkd_alloc(cx, &d->out_bytes, d->size, sizeof *d->out_bytes));
    XKD_TRY(xkd_alloc(cx, &d->in_bytes, d->size, sizeof *d->in_bytes));
    XKD_TRY(xkd_alloc(cx, &d->sending, d->size, sizeof *d->sending));
    XKD_TRY(xkd_alloc(cx, &d->receiving, d->size, sizeof *d->receiving));
    XKD_TRY(xkd_alloc(cx, &d->polled, 2 * (d->size + 1), sizeof *d->polled));
    XKD_TRY(xkd_alloc(cx, &d->numbers, d->size * XKD_MOST_NUMBERS, sizeof *d->numbers));
    XKD_TRY(xkd_alloc(cx, &d->room, d->size * d->share, sizeof *d->room));
fail:
    return status;
}

xkd_status xkd_dist_join(xkd_context *cx, const xkd_dist_place *place, xkd_dist **out)
{
    xkd_status status = XKD_OK;
    xkd_dist *d = NULL;
    int *hearts = NULL;
    *out = NULL;
    if (place->size == 1) return XKD_OK;
    XKD_TRY(xkd_alloc(cx, &d, 1, sizeof *d));
    d->cx = cx;
    d->rank = place->rank;
    d->size = place->size;
    d->mpi = place->mpi;
    d->timeout = place->timeout;
    d->wake[0] = d->wake[1] = -1;
    pthread_mutex_init(&d->lock, NULL);
    XKD_TRY(allocate(cx, d));
    XKD_TRY(xkd_alloc(cx, &hearts, d->size, sizeof *hearts));
    for (int r = 0; r < d->size; r++) hearts[r] = -1;
    if (pipe2(d->wake, O_CLOEXEC) != 0) XKD_FAIL(XKD_ERR_MEMORY, "no pipe for this rank: %s", strerror(errno));
    XKD_TRY(xkd_dist_meet(d, place, hearts));
    XKD_TRY(xkd_heart_start(d, place, hearts));
    int before = 0;
    for (int r = 0; r < d->rank; r++) before += strcmp(d->hosts[r], d->hosts[d->rank]) == 0;
    xkd_context_set_place(cx, before);
    *out = d;
    d = NULL;
fail:
    for (int r = 0; status != XKD_OK && hearts && r < place->size; r++)
        if (hearts[r] >= 0) close(hearts[r]);
    xkd_free(hearts);
    if (d) free_dist(d);
    return status;
}

/* The last exchange is a meeting: a rank that leaves earlier than another would be taken for lost. */
xkd_status xkd_dist_leave(xkd_dist *d, xkd_status status, const char *why)
{
    int64_t here = 0;
    if (!d) return status;
    if (status == XKD_OK) status = xkd_dist_largest(d, &here, 1);
    (void)xkd_dist_wait(d); /* what was under way when this rank gave up ends with the loss of another, or well */
    xkd_courier_free(d->courier);
    xkd_heart_stop(d->heart, status, why);
    if (d->mpi && status == XKD_OK) xkd_mpi_end(); /* it would wait for a rank that is lost */
    free_dist(d);
    return status;
}

xkd_status xkd_dist_tell(xkd_dist *dist)
{
    int size = xkd_dist_size(dist);
    if (!dist || dist->rank != 0) return XKD_OK;
    xkd_text line = xkd_text_make(dist->cx);
    xkd_text_printf(&line, "%d ranks:", size);
    for (int r = 0, last; r < size; r = last + 1) {
        for (last = r; last + 1 < size && strcmp(xkd_dist_host(dist, last + 1), xkd_dist_host(dist, r)) == 0;) last++;
        if (last > r)
            xkd_text_printf(&line, "%s %d-%d on %s", r ? "," : "", r, last, xkd_dist_host(dist, r));
        else
            xkd_text_printf(&line, "%s %d on %s", r ? "," : "", r, xkd_dist_host(dist, r));
    }
    if (line.status == XKD_OK) xkd_log(dist->cx, XKD_LOG_INFO, "%s", line.data);
    xkd_status status = line.status;
    xkd_text_free(&line);
    return status;
}

/* A launcher may have given each rank processors of its own, or all of them to all. */
xkd_status xkd_dist_processors(xkd_dist *dist, int *out)
{
    xkd_status status = XKD_OK;
    int rank = xkd_dist_rank(dist), sharing = 0;
    cpu_set_t mine, *all = NULL;
    *out = xkd_processor_count();
    if (!dist) return XKD_OK;
    CPU_ZERO(&mine);
    (void)sched_getaffinity(0, sizeof mine, &mine);
    XKD_TRY(xkd_alloc(dist->cx, &all, xkd_dist_size(dist), sizeof *all));
    XKD_TRY(xkd_dist_gather(dist, all, &mine, sizeof mine));
    for (int r = 0; r < xkd_dist_size(dist); r++)
        sharing += CPU_EQUAL(&all[r], &mine) && strcmp(xkd_dist_host(dist, r), xkd_dist_host(dist, rank)) == 0;
    *out = *out / sharing > 1 ? *out / sharing : 1;
fail:
    xkd_free(all);
    return status;
}

/* Sets the entries of all ranks. */
static void set_lists(xkd_dist *d, const void *out, int64_t out_bytes, char *in, int64_t in_bytes)
{
    for (int r = 0; r < d->size; r++) {
        d->out[r] = out;
        d->out_bytes[r] = out_bytes;
        d->in[r] = in ? in + r * in_bytes : NULL;
        d->in_bytes[r] = in_bytes;
    }
}

static xkd_status exchange(xkd_dist *d)
{
    const xkd_exchange e = {d->out, d->out_bytes, d->in, d->in_bytes};
    xkd_status status = xkd_dist_look(d);
    if (status != XKD_OK) return status;
    return d->mpi ? xkd_mpi_exchange_all(d, &e) : xkd_dist_exchange(d, &e);
}

xkd_status xkd_dist_gather(xkd_dist *d, void *all, const void *mine, int64_t bytes)
{
    char *place = (char *)all + xkd_dist_rank(d) * bytes;
    if (place != mine && bytes) memcpy(place, mine, (size_t)bytes);
    if (!d || bytes == 0) return XKD_OK;
    set_lists(d, mine, bytes, all, bytes);
    return exchange(d);
}

xkd_status xkd_dist_gather_sized(xkd_dist *d, void **all, int64_t *sizes, const void *mine, int64_t bytes)
{
    xkd_status status = XKD_OK;
    int64_t sum = 0, size = d->size, at = 0;
    char *joined = NULL;
    *all = NULL;
    XKD_TRY(xkd_dist_gather(d, sizes, &bytes, sizeof bytes));
    for (int64_t r = 0; r < size; r++) {
        if (sizes[r] < 0 || sizes[r] > ((int64_t)1 << 40))
            return xkd_fail(d->cx, XKD_ERR_INTERNAL, "rank %lld announces %lld bytes", (long long)r,
                            (long long)sizes[r]);
        sum += sizes[r];
    }
    XKD_TRY(xkd_alloc(d->cx, &joined, sum, 1));
    *all = joined;
    set_lists(d, mine, bytes, NULL, 0);
    for (int64_t r = 0; r < size; at += sizes[r++]) {
        if (r == d->rank) {
            if (bytes) memcpy(joined + at, mine, (size_t)bytes);
        } else {
            d->in[r] = joined + at;
            d->in_bytes[r] = sizes[r];
        }
    }
    XKD_TRY(exchange(d));
fail:
    return status;
}

xkd_status xkd_dist_broadcast(xkd_dist *d, void *data, int64_t bytes)
{
    if (!d || bytes == 0) return XKD_OK;
    set_lists(d, data, d->rank == 0 ? bytes : 0, NULL, 0);
    if (d->rank != 0) {
        d->in[0] = data;
        d->in_bytes[0] = bytes;
    }
    return exchange(d);
}

xkd_status xkd_dist_compare(xkd_context *cx, xkd_dist *d, uint64_t mine, const char *what)
{
    uint64_t first = mine;
    xkd_status status = xkd_dist_broadcast(d, &first, sizeof first);
    if (status != XKD_OK || first == mine) return status;
    return xkd_fail(cx, XKD_ERR_CONFIG, "rank %d (%s) has %s than rank 0: all must see the same", xkd_dist_rank(d),
                    xkd_dist_host(d, xkd_dist_rank(d)), what);
}

xkd_status xkd_dist_largest(xkd_dist *d, int64_t *values, int count)
{
    xkd_status status = XKD_OK;
    if (!d) return XKD_OK;
    XKD_TRY(xkd_dist_gather(d, d->numbers, values, count * (int64_t)sizeof *values));
    for (int64_t i = 0; i < (int64_t)d->size * count; i++)
        if (d->numbers[i] > values[i % count]) values[i % count] = d->numbers[i];
fail:
    return status;
}

/* bfloat16: the upper half of a float, rounded to nearest even; what is not a number stays so. */
static uint16_t pack(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float unpack(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Elements of rank r's share of a bucket of n. */
static int64_t share_of(const xkd_dist *d, int64_t n, int r, int64_t *first)
{
    int64_t each = (n + d->size - 1) / d->size;
    *first = r * each < n ? r * each : n;
    return n - *first < each ? n - *first : each;
}

/* In place at the beginning of `room`: row r of [size,n] is what rank r has. */
static void add_up(const xkd_dist *d, int64_t n)
{
    for (int step = 1; step < d->size; step *= 2)
        for (int r = 0; r + step < d->size; r += 2 * step) {
            float *to = d->room + r * n;
            const float *from = d->room + (r + step) * n;
            for (int64_t i = 0; i < n; i++) to[i] += from[i];
        }
}

/* The exchanges of a bucket of n elements of `size` bytes. First each rank gets its share from all, into rows of `in`... */
static void address_shares(xkd_dist *d, int64_t n, int64_t size, const void *out, void *in)
{
    int64_t first, mine = share_of(d, n, d->rank, &first), at;
    for (int r = 0; r < d->size; r++) {
        d->out_bytes[r] = share_of(d, n, r, &at) * size;
        d->out[r] = (const char *)out + at * size;
        d->in[r] = (char *)in + r * mine * size;
        d->in_bytes[r] = mine * size;
    }
}

/* ... and then all get its sum of it, each at its place in `all`. */
static void address_sums(xkd_dist *d, int64_t n, int64_t size, void *all)
{
    int64_t first, mine = share_of(d, n, d->rank, &first), at;
    for (int r = 0; r < d->size; r++) {
        d->out[r] = (char *)all + first * size;
        d->out_bytes[r] = mine * size;
        d->in_bytes[r] = share_of(d, n, r, &at) * size;
        d->in[r] = (char *)all + at * size;
    }
}

/* One bucket: the shares go to the ranks that add them up, and the sums to all. */
static xkd_status sum_bucket(xkd_dist *d, float *x, int64_t n)
{
    xkd_status status = XKD_OK;
    int64_t first, mine = share_of(d, n, d->rank, &first);
    const int64_t size = (int64_t)sizeof *x;
    memcpy(d->room + d->rank * mine, x + first, (size_t)(mine * size));
    address_shares(d, n, size, x, d->room);
    XKD_TRY(exchange(d));
    add_up(d, mine);
    memcpy(x + first, d->room, (size_t)(mine * size));
    address_sums(d, n, size, x);
    XKD_TRY(exchange(d));
fail:
    return status;
}

/* The same in bfloat16: a rank's own numbers enter its share as they are, and all take the sums as they were sent. */
static xkd_status sum_bucket_packed(xkd_dist *d, float *x, int64_t n)
{
    xkd_status status = XKD_OK;
    int64_t first, mine = share_of(d, n, d->rank, &first);
    uint16_t *sent = d->packed, *received = d->packed + d->size * d->share;
    for (int64_t i = 0; i < n; i++) sent[i] = pack(x[i]);
    address_shares(d, n, (int64_t)sizeof *sent, sent, received);
    XKD_TRY(exchange(d));
    for (int64_t i = 0; i < d->size * mine; i++) d->room[i] = unpack(received[i]);
    memcpy(d->room + d->rank * mine, x + first, (size_t)mine * sizeof *x);
    add_up(d, mine);
    for (int64_t i = 0; i < mine; i++) sent[first + i] = pack(d->room[i]);
    address_sums(d, n, (int64_t)sizeof *sent, sent);
    XKD_TRY(exchange(d));
    for (int64_t i = 0; i < n; i++) x[i] = unpack(sent[i]);
fail:
    return status;
}

xkd_status xkd_dist_halve(xkd_dist *d)
{
    return d && !d->packed ? xkd_alloc(d->cx, &d->packed, 2 * d->size * d->share, sizeof *d->packed) : XKD_OK;
}

xkd_status xkd_dist_sum(xkd_dist *d, float *x, int64_t n)
{
    int64_t bucket = d ? d->share * d->size : n;
    for (int64_t at = 0; d && at < n; at += bucket) {
        int64_t count = n - at < bucket ? n - at : bucket;
        xkd_status status = d->packed ? sum_bucket_packed(d, x + at, count) : sum_bucket(d, x + at, count);
        if (status != XKD_OK) return status;
    }
    return XKD_OK;
}
