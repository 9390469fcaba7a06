/* Pieces of arenas on the devices of tests: operations that are asked to go one element too far, and the layout that shows it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "absent_device.h"
#include "backend/backend.h"
#include "base/arena.h"

enum { N = 100 };

static const char *device;
static xkd_context *cx;
static xkd_backend *be;
static xkd_arena arena;
static float *x, *y; /* [N] one behind the other in the arena */

/* A fault stays on a device: each case has one of its own. */
static void open_device(bool whole)
{
    cx = xkd_context_new();
    if (xkd_backend_new(cx, &be, device, XKD_F32, 1) != XKD_OK) {
        if (!may_be_absent(device)) fail_msg("%s", xkd_last_error(cx));
        xkd_context_free(cx);
        skip();
    }
    arena = (xkd_arena){.of = be->memory, .whole = whole};
    for (int round = 0; round < 2; round++) {
        x = xkd_arena_take(&arena, N * (int64_t)sizeof *x);
        y = xkd_arena_take(&arena, N * (int64_t)sizeof *y);
        if (round == 0) assert_int_equal(xkd_arena_commit(cx, &arena), XKD_OK);
    }
    assert_int_equal(xkd_backend_status(be), XKD_OK);
}

static void close_device(void)
{
    xkd_arena_free(&arena);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static void what_stays_in_its_piece(void)
{
    float host[N] = {3};
    be->ops->fill(be, x, 1, N);
    be->ops->fill(be, y, 2, N);
    be->ops->axpby(be, x, y, 1, 1, N);
    xkd_memory_copy(be->memory, y, x, N * (int64_t)sizeof *x);
    xkd_memory_zero(be->memory, x, N * (int64_t)sizeof *x);
    xkd_memory_upload(be->memory, x, host, (int64_t)sizeof host);
    xkd_memory_download(be->memory, host, y, (int64_t)sizeof host);
    assert_true(host[0] == 3 && host[N - 1] == 3);
}

/* Bytes between pieces are no room for anybody. */
static void write_too_far(void)
{
    be->ops->fill(be, x, 1, N + 1);
}

static void copy_too_far(void)
{
    float host[N + 1] = {0};
    xkd_memory_upload(be->memory, x, host, (int64_t)sizeof host);
}

static void zero_too_far(void)
{
    xkd_memory_zero(be->memory, x, (N + 1) * (int64_t)sizeof *x);
}

/* y would be right all the same. */
static void read_too_far(void)
{
    be->ops->mse_forward(be, (double *)(void *)y, x, x, N + 1);
}

/* A weight of one row more than there is. */
static void multiply_too_far(void)
{
    be->ops->linear_forward(be, y, y + 16, x, NULL, 1, N / 10 + 1, 10);
}

static xkd_status status_behind(void (*ask)(void))
{
    open_device(false);
    ask();
    xkd_status status = xkd_backend_status(be);
    if (status != XKD_OK && !strstr(xkd_last_error(cx), "behind")) status = XKD_ERR_INTERRUPTED;
    close_device();
    return status;
}

static void the_simulation_sees_all(void **state)
{
    void (*const wrong[])(void) = {write_too_far, copy_too_far, zero_too_far, read_too_far, multiply_too_far};
    (void)state;
    device = "cuda-sim";
    assert_int_equal(status_behind(what_stays_in_its_piece), XKD_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_int_equal(status_behind(wrong[i]), XKD_ERR_DEVICE);
}

/* Whether a process of its own ends with the status that is wanted; the address sanitizer ends it earlier, with its report. */
static bool ends_with(void (*ask)(void), xkd_status wanted)
{
    int how;
    pid_t child = fork();
    if (child == 0) _exit(status_behind(ask) == wanted ? 0 : 1);
    assert_int_equal(waitpid(child, &how, 0), child);
#ifdef __SANITIZE_ADDRESS__
    if (wanted != XKD_OK) return how != 0;
#endif
    return how == 0;
}

static void the_guard_sees_writes(void **state)
{
    void (*const wrong[])(void) = {write_too_far, copy_too_far, zero_too_far};
    (void)state;
    device = "guard";
    assert_true(ends_with(what_stays_in_its_piece, XKD_OK));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_true(ends_with(wrong[i], XKD_ERR_INTERNAL));
#ifdef __SANITIZE_ADDRESS__
    assert_true(ends_with(read_too_far, XKD_ERR_INTERNAL));
#endif
}

/* As gradients are. */
static void pieces_of_one_vector_have_no_zones(void **state)
{
    (void)state;
    device = "guard";
    open_device(true);
    assert_int_equal((char *)y - (char *)x, 448); /* N floats, up to 64 bytes */
    be->ops->fill(be, x, 1, arena.used / (int64_t)sizeof *x);
    assert_int_equal(xkd_backend_status(be), XKD_OK);
    close_device();
}

/* A zone that somebody else's piece lay over would be none. */
static void nothing_shares_its_place(void **state)
{
    (void)state;
    device = "guard";
    open_device(false);
    xkd_arena a = {.of = be->memory}, b = {.of = be->memory};
    char *first = NULL, *second = NULL;
    for (int round = 0; round < 2; round++) {
        int64_t mark = a.used;
        first = xkd_arena_take(&a, 10);
        xkd_arena_rewind(&a, mark);
        second = xkd_arena_take(&a, 10);
        if (round == 0) assert_int_equal(xkd_arena_commit(cx, &a), XKD_OK);
    }
    assert_int_equal(second - first, 64 + be->memory->red_zone);
    assert_int_equal(xkd_arena_check(cx, &a), XKD_OK);
    xkd_arena_take(&b, 100);
    assert_int_equal(xkd_arena_borrow(cx, &b, &a), XKD_OK);
    assert_true(b.memory != a.memory && !b.borrowed);
    xkd_arena_free(&b);
    xkd_arena_take(&b, 10000);
    assert_int_equal(xkd_arena_borrow(cx, &b, &a), XKD_ERR_INTERNAL);
    xkd_arena_free(&a);
    close_device();
}

/* What a plan says holds on them, so a GPU has none either: device.cu, which only a GPU can run, says 0. */
static void the_host_has_none(void **state)
{
    (void)state;
    assert_int_equal(xkd_host_memory()->red_zone, 0);
    device = "cuda-sim:count";
    open_device(false);
    assert_int_equal(be->memory->red_zone, 0);
    assert_int_equal((char *)y - (char *)x, 448);
    close_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_simulation_sees_all),
        cmocka_unit_test(the_guard_sees_writes),
        cmocka_unit_test(pieces_of_one_vector_have_no_zones),
        cmocka_unit_test(nothing_shares_its_place),
        cmocka_unit_test(the_host_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
