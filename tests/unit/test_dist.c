/* Exchanges between real processes: what each operation delivers on every rank, in which order sums are added, and what
 * strangers and lost ranks lead to. Each case forks its ranks; a child reports by its exit code. */
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "absent_device.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/rng.h"
#include "dist/dist_parts.h"
#include "dist/socket.h"
#include "join_ranks.h"
#include "optim/parts.h"

enum { MOST = 8, ABSENT = 50 };

/* A case: what each rank does. Returns 0 where all is well. */
typedef int (*rank_fn)(xkd_context *cx, xkd_dist *dist);

typedef struct {
    int size, port, listener;
    double timeout;
} job;

static job job_of(int size, double timeout)
{
    job j = {.size = size, .timeout = timeout};
    xkd_context *cx = xkd_context_new();
    assert_int_equal(xkd_listen_everywhere(cx, 0, &j.listener, &j.port), XKD_OK);
    xkd_context_free(cx);
    return j;
}

static int be_rank(const job *j, int rank, rank_fn fn)
{
    xkd_context *cx = xkd_context_new();
    xkd_dist *dist = NULL;
    xkd_status status = join_ranks(cx, rank, j->size, j->listener, j->port, j->timeout, &dist);
    if (status != XKD_OK) {
        fprintf(stderr, "# rank %d: %s\n", rank, xkd_last_error(cx));
        return 100 + (int)status;
    }
    int result = fn(cx, dist);
    status = xkd_dist_leave(dist, result ? XKD_ERR_INTERNAL : XKD_OK, "the case failed");
    xkd_context_free(cx);
    return result ? result : (int)status;
}

/* Exit codes of all ranks. */
static void run_job(const job *j, rank_fn fn, int codes[MOST])
{
    pid_t pid[MOST];
    fflush(NULL);
    for (int r = 0; r < j->size; r++) {
        pid[r] = fork();
        if (pid[r] == 0) _exit(be_rank(j, r, fn));
    }
    close(j->listener);
    for (int r = 0; r < j->size; r++) {
        int status;
        waitpid(pid[r], &status, 0);
        codes[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
    }
}

static void all_well(int size, rank_fn fn)
{
    int codes[MOST];
    job j = job_of(size, 20);
    run_job(&j, fn, codes);
    for (int r = 0; r < size; r++) assert_int_equal(codes[r], 0);
}

static int gather_and_agree(xkd_context *cx, xkd_dist *d)
{
    int rank = xkd_dist_rank(d), size = xkd_dist_size(d);
    int64_t all[MOST], mine = 100 + rank, largest[2] = {rank, -rank}, sizes[MOST];
    (void)cx;
    if (xkd_dist_gather(d, all, &mine, sizeof mine) != XKD_OK) return 1;
    for (int r = 0; r < size; r++)
        if (all[r] != 100 + r) return 2;
    if (xkd_dist_largest(d, largest, 2) != XKD_OK || largest[0] != size - 1 || largest[1] != 0) return 3;
    /* Rank r sends r bytes. */
    char text[MOST], *joined;
    memset(text, 'a' + rank, sizeof text);
    if (xkd_dist_gather_sized(d, (void **)&joined, sizes, text, rank) != XKD_OK) return 4;
    const char *at = joined;
    for (int r = 0; r < size; r++) {
        if (sizes[r] != r) return 5;
        for (int k = 0; k < r; k++)
            if (*at++ != 'a' + r) return 6;
    }
    xkd_free(joined);
    char word[4] = {0};
    if (rank == 0) memcpy(word, "yes", 4);
    if (xkd_dist_broadcast(d, word, sizeof word) != XKD_OK || strcmp(word, "yes") != 0) return 7;
    return strlen(xkd_dist_host(d, size - 1)) > 0 ? 0 : 8;
}

/* Number i of rank r: of very different sizes, so that the order of a sum shows in its bits. */
static float number(int r, int64_t i)
{
    xkd_rng rng = xkd_rng_make(3, 0, (uint32_t)i, (uint32_t)r, XKD_RNG_TEST);
    return (float)(xkd_rng_normal(&rng) * (i % 3 ? 1 : 1e6));
}

static float tree(int first, int count, int64_t i)
{
    if (count == 1) return number(first, i);
    int half = 1;
    while (2 * half < count) half *= 2;
    return tree(first, half, i) + tree(first + half, count - half, i);
}

/* Several buckets and a rest, and less than a number a rank. */
static int sum_in_a_tree(xkd_context *cx, xkd_dist *d)
{
    static const int64_t counts[] = {1, 5, 4096, 3000001};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        int64_t n = counts[k], stride = n > 100000 ? 97 : 1;
        float *x;
        if (xkd_alloc(cx, &x, n, sizeof *x) != XKD_OK) return 1;
        for (int64_t i = 0; i < n; i += stride) x[i] = number(xkd_dist_rank(d), i);
        if (xkd_dist_sum(d, x, n) != XKD_OK) return 2;
        for (int64_t i = 0; i < n; i += stride)
            if (x[i] != tree(0, xkd_dist_size(d), i)) return 3;
        xkd_free(x);
    }
    return 0;
}

/* Element i of part p. */
static float part_number(int64_t p, int64_t i)
{
    return number((int)p, i);
}

static float part_tree(int64_t first, int64_t count, int64_t i)
{
    if (count == 1) return part_number(first, i);
    int64_t half = 1;
    while (2 * half < count) half *= 2;
    return part_tree(first, half, i) + part_tree(first + half, count - half, i);
}

/* Two vectors over `accumulate` parts a rank; pieces of the first become complete from the back, but for its ends and a hole in
 * its middle, and two that touch travel together. */
static int parts_of_ranks(xkd_context *cx, xkd_dist *d, int64_t accumulate)
{
    enum { N = 1000, M = 7 };
    float x[N], y[M];
    xkd_parts p;
    xkd_backend *be;
    const xkd_part_vector vectors[] = {{x, N}, {y, M}};
    int64_t first = xkd_dist_rank(d) * accumulate, all = xkd_dist_size(d) * accumulate;
    if (xkd_backend_new(cx, &be, "cpu", XKD_F32, 1) != XKD_OK) return 1;
    if (xkd_parts_new(cx, &p, be, vectors, 2, accumulate) != XKD_OK) return 2;
    p.piece = 150;
    for (int step = 0; step < 2; step++) {
        xkd_parts_begin(be, &p);
        for (int64_t k = 0; k < accumulate; k++) {
            for (int64_t i = 0; i < N; i++) x[i] += part_number(first + k, i);
            for (int64_t i = 0; i < M; i++) y[i] += part_number(first + k, i);
            xkd_parts_ready(be, &p, d, 800, 100);
            xkd_parts_ready(be, &p, d, 700, 100);
            xkd_parts_ready(be, &p, d, 300, 160);
            xkd_parts_ready(be, &p, d, 20, 20);
            xkd_parts_add(be, &p);
        }
        if (p.sent_count != 2) return 3;
        if (xkd_parts_join(be, &p, d) != XKD_OK) return 4;
        for (int64_t i = 0; i < N; i++)
            if (x[i] != part_tree(0, all, i)) return 5;
        for (int64_t i = 0; i < M; i++)
            if (y[i] != part_tree(0, all, i)) return 6;
    }
    xkd_parts_free(&p);
    xkd_backend_free(be);
    return 0;
}

static int one_part(xkd_context *cx, xkd_dist *d)
{
    return parts_of_ranks(cx, d, 1);
}

static int four_parts(xkd_context *cx, xkd_dist *d)
{
    return parts_of_ranks(cx, d, 4);
}

static void test_parts(void **state)
{
    (void)state;
    all_well(2, one_part);
    all_well(4, one_part);
    all_well(2, four_parts);
}

/* In bfloat16: all ranks have the same bits, each sum is near the true one, and no number stays none. */
static int sum_in_half(xkd_context *cx, xkd_dist *d)
{
    enum { N = 5000 };
    float x[N], all[4 * N];
    (void)cx;
    if (xkd_dist_halve(d) != XKD_OK) return 1;
    for (int64_t i = 0; i < N; i++) x[i] = number(xkd_dist_rank(d), i);
    x[3] = xkd_dist_rank(d) == 1 ? NAN : 1;
    x[4] = xkd_dist_rank(d) == 1 ? INFINITY : 1;
    if (xkd_dist_sum(d, x, N) != XKD_OK) return 2;
    if (!isnan(x[3]) || !isinf(x[4])) return 3;
    if (xkd_dist_gather(d, all, x, sizeof x) != XKD_OK) return 4;
    for (int64_t i = 5; i < N; i++) {
        double sum = 0, size = 0;
        for (int r = 0; r < xkd_dist_size(d); r++) {
            sum += (double)number(r, i);
            size += fabs((double)number(r, i));
            if (memcmp(&all[r * N + i], &x[i], sizeof x[i]) != 0) return 5;
        }
        /* 8 bits of mantissa: each of the numbers and their sum is rounded once. */
        if (fabs((double)x[i] - sum) > (size + fabs(sum)) / 256) return 6;
    }
    return 0;
}

static void test_half(void **state)
{
    (void)state;
    all_well(2, sum_in_half);
    all_well(3, sum_in_half);
}

static void test_operations(void **state)
{
    (void)state;
    for (int size = 2; size <= MOST; size += size < 4 ? 1 : 3) all_well(size, gather_and_agree);
}

static void test_sums(void **state)
{
    (void)state;
    all_well(2, sum_in_a_tree);
    all_well(3, sum_in_a_tree);
    all_well(4, sum_in_a_tree);
}

/* Of one process nothing is asked. */
static void test_alone(void **state)
{
    (void)state;
    int64_t one = 5, all = 0;
    float x = 2;
    assert_int_equal(xkd_dist_gather(NULL, &all, &one, sizeof one), XKD_OK);
    assert_int_equal(all, 5);
    assert_int_equal(xkd_dist_largest(NULL, &one, 1), XKD_OK);
    assert_int_equal(xkd_dist_sum(NULL, &x, 1), XKD_OK);
    assert_true(x == 2 && xkd_dist_rank(NULL) == 0 && xkd_dist_size(NULL) == 1);
    assert_int_equal(xkd_dist_leave(NULL, XKD_ERR_DATA, "why"), XKD_ERR_DATA);
}

/* Rank 1 behaves as told, all others wait for it; they must learn that it is rank 1. */
static int (*misbehave)(void);
static double patience;

static int others_learn(xkd_context *cx, xkd_dist *d)
{
    float x[1000] = {0};
    /* Rank 1 may be lost before others have come through this one. */
    xkd_status first = xkd_dist_sum(d, x, 1000);
    if (first != XKD_OK && (first != XKD_ERR_PEER || xkd_dist_rank(d) == 1)) return 1;
    if (xkd_dist_rank(d) == 1) return misbehave();
    double begin = xkd_now();
    if (xkd_dist_sum(d, x, 1000) != XKD_ERR_PEER) return 2;
    if (xkd_now() - begin > patience) return 3;
    fprintf(stderr, "# rank %d: %s\n", xkd_dist_rank(d), xkd_last_error(cx));
    if (!strstr(xkd_last_error(cx), "rank 1 (")) return 4;
    /* It stays so. */
    return xkd_dist_sum(d, x, 1000) == XKD_ERR_PEER ? 50 : 5;
}

static int die(void)
{
    raise(SIGKILL);
    return 0;
}

static int freeze(void)
{
    raise(SIGSTOP);
    _exit(60);
}

/* Lives, but gets nowhere. */
static int stand_still(void)
{
    sleep(6);
    _exit(61);
}

/* Ends with an error of its own, which reaches the others as such. */
static int fail_alone(void)
{
    return 42;
}

static void lost(int (*how)(void), double timeout, double most, int size, int code_of_1)
{
    int codes[MOST];
    job j = job_of(size, timeout);
    pid_t pid[MOST];
    misbehave = how;
    patience = most;
    fflush(NULL);
    for (int r = 0; r < size; r++) {
        pid[r] = fork();
        if (pid[r] == 0) _exit(be_rank(&j, r, others_learn));
    }
    close(j.listener);
    for (int k = 0; k < size; k++) {
        int r = k < size - 1 ? (k == 0 ? 0 : k + 1) : 1, status; /* rank 1 last: it may have to be woken */
        if (r == 1 && how == freeze) kill(pid[1], SIGCONT);
        waitpid(pid[r], &status, 0);
        codes[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
    }
    for (int r = 0; r < size; r++) assert_int_equal(codes[r], r == 1 ? code_of_1 : 50);
}

static void test_losses(void **state)
{
    (void)state;
    lost(die, 20, 5, 2, 200 + SIGKILL);
    lost(die, 20, 5, 4, 200 + SIGKILL);
    lost(fail_alone, 20, 5, 3, 42);
    lost(freeze, 2, 5, 3, 60);
    lost(stand_still, 2, 5, 3, 61);
}

/* A rank that never comes is named in time. */
static void test_absent(void **state)
{
    (void)state;
    job j = job_of(3, 1);
    int status;
    fflush(NULL);
    pid_t zero = fork();
    if (zero == 0) _exit(be_rank(&j, 0, gather_and_agree));
    pid_t two = fork();
    if (two == 0) _exit(be_rank(&j, 2, gather_and_agree));
    close(j.listener);
    waitpid(zero, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 100 + XKD_ERR_PEER);
    waitpid(two, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 100 + XKD_ERR_PEER);
}

/* Strangers at the door: nothing, noise, a greeting that breaks off. The ranks meet all the same. */
static void test_strangers(void **state)
{
    (void)state;
    int codes[MOST], sockets[3];
    static const char noise[400] = "GET / HTTP/1.1\r\n\r\n";
    job j = job_of(3, 20);
    xkd_context *cx = xkd_context_new();
    for (int k = 0; k < 3; k++) {
        assert_int_equal(xkd_connect(cx, "127.0.0.1", j.port, xkd_now() + 5, &sockets[k]), XKD_OK);
        assert_true(sockets[k] >= 0);
    }
    assert_true(xkd_send_all(sockets[1], noise, sizeof noise, xkd_now() + 5));
    assert_true(xkd_send_all(sockets[2], noise, 3, xkd_now() + 5));
    close(sockets[2]);
    close(sockets[0]);
    run_job(&j, gather_and_agree, codes);
    for (int r = 0; r < 3; r++) assert_int_equal(codes[r], 0);
    close(sockets[1]);
    xkd_context_free(cx);
}

static xkd_status place_of(xkd_context *cx, const char *size, const char *rank, const char *address, const char *port)
{
    xkd_dist_place place;
    const char *const names[] = {"WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"};
    const char *const values[] = {size, rank, address, port};
    for (int i = 0; i < 4; i++) {
        if (values[i])
            setenv(names[i], values[i], 1);
        else
            unsetenv(names[i]);
    }
    xkd_clear_error(cx);
    xkd_status status = xkd_dist_place_read(cx, &place);
    for (int i = 0; i < 4; i++) unsetenv(names[i]);
    if (status == XKD_OK && size && atoi(size) > 1) assert_true(place.size == atoi(size) && place.rank == atoi(rank));
    return status;
}

static void test_environment(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    assert_int_equal(place_of(cx, NULL, NULL, NULL, NULL), XKD_OK);
    assert_int_equal(place_of(cx, "1", "0", NULL, NULL), XKD_OK);
    assert_int_equal(place_of(cx, "4", "3", "node0", "29500"), XKD_OK);
    assert_int_equal(place_of(cx, "4", NULL, "node0", "29500"), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "RANK, MASTER_ADDR and MASTER_PORT are not all set"));
    assert_int_equal(place_of(cx, "4", "4", "node0", "29500"), XKD_ERR_CONFIG);
    assert_int_equal(place_of(cx, "4x", "0", "node0", "29500"), XKD_ERR_CONFIG);
    assert_non_null(strstr(xkd_last_error(cx), "WORLD_SIZE=4x"));
    assert_int_equal(place_of(cx, "4", "0", "node0", "70000"), XKD_ERR_CONFIG);
    xkd_context_free(cx);
}

/* What the plan counts (xkd_dist_*_buckets) is what ranks take: of the host, in float32 and bfloat16, ... */
static int take_what_the_plan_says(xkd_context *cx, xkd_dist *d)
{
    int64_t size = xkd_dist_size(d), page = 4096;
    int64_t taken = (int64_t)malloc_usable_size(d->room);
    int64_t more = taken - xkd_dist_host_buckets(size, false);
    (void)cx;
    if (more < 0 || more > page) return 1;
    if (xkd_dist_halve(d) != XKD_OK) return 2;
    taken += (int64_t)malloc_usable_size(d->packed);
    more = taken - xkd_dist_host_buckets(size, true);
    return more < 0 || more > 2 * page ? 3 : 0;
}

/* ... and of a GPU. */
static int take_of_a_device(xkd_context *cx, xkd_dist *d)
{
    xkd_backend *be;
    int64_t before;
    if (xkd_backend_new(cx, &be, "cuda-sim", XKD_F32, 1) != XKD_OK) return ABSENT;
    before = xkd_backend_held(be);
    if (xkd_dist_meet_devices(d, be) != XKD_OK || !xkd_dist_on_devices(d)) return 1;
    if (xkd_backend_held(be) - before != xkd_dist_device_buckets(xkd_dist_size(d))) return 2;
    if (xkd_backend_held(be) - before < 8 << 20) return 3;
    xkd_dist_part_devices(d);
    if (xkd_backend_held(be) != before) return 4;
    xkd_backend_free(be);
    return 0;
}

static void test_buckets(void **state)
{
    int codes[MOST];
    (void)state;
    assert_int_equal(xkd_dist_host_buckets(1, true) + xkd_dist_device_buckets(1), 0);
    /* However many there are, a rank's share is not nothing. */
    assert_int_equal(xkd_dist_device_buckets(4096), 4096 * 4096 * 4);
    all_well(3, take_what_the_plan_says);
    job j = job_of(2, 20);
    run_job(&j, take_of_a_device, codes);
    if (codes[0] == ABSENT && may_be_absent("cuda-sim")) skip();
    for (int r = 0; r < 2; r++) assert_int_equal(codes[r], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations),  cmocka_unit_test(test_sums),
                                       cmocka_unit_test(test_parts),       cmocka_unit_test(test_half),
                                       cmocka_unit_test(test_alone),       cmocka_unit_test(test_losses),
                                       cmocka_unit_test(test_absent),      cmocka_unit_test(test_strangers),
                                       cmocka_unit_test(test_environment), cmocka_unit_test(test_buckets)};
    return cmocka_run_group_tests_name("dist", tests, NULL, NULL);
}
