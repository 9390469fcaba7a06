/* The device guard: what it must catch, and that the rest passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <xkd/context.h>

#include "backend/backend.h"
#include "tensor/tensor.h"

static xkd_context *cx;
static xkd_backend *be;

static int open_guard(void **state)
{
    cx = xkd_context_new();
    return xkd_backend_new(cx, &be, *state ? *state : "guard", XKD_F32, 2) != XKD_OK;
}

static int close_guard(void **state)
{
    (void)state;
    xkd_backend_free(be);
    xkd_context_free(cx);
    return 0;
}

static float *take(int64_t count)
{
    void *block;
    assert_int_equal(xkd_memory_take(cx, be->memory, &block, count * 4), XKD_OK);
    return block;
}

static void tensors_go_through_copies(void **state)
{
    float *x = take(1000), *y = take(1000), read[1000];
    (void)state;
    be->ops->fill(be, x, 3, 1000);
    be->ops->axpby(be, y, x, 2, 1, 1000);
    xkd_memory_copy(be->memory, x, y, 500 * 4);
    xkd_tensor_read_floats(be->memory, XKD_F32, read, x, 1000);
    for (int i = 0; i < 1000; i++) assert_true(read[i] == (i < 500 ? 6 : 3));
    xkd_memory_zero(be->memory, y, 4000);
    xkd_memory_download(be->memory, read, y, 4000);
    assert_true(read[0] == 0 && read[999] == 0);
    xkd_memory_give(be->memory, x);
    xkd_memory_give(be->memory, y);
    assert_int_equal(xkd_backend_status(be), XKD_OK);
}

/* In a child, which the fault ends. */
static int signal_of(void (*fn)(float *), float *x)
{
    int how;
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would end with a code of its own */
        fn(x);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFSIGNALED(how) ? WTERMSIG(how) : 0;
}

static void read_it(float *x)
{
    volatile float read = x[3];
    (void)read;
}

static void write_it(float *x)
{
    *(volatile float *)x = 1;
}

static void the_host_cannot_touch_them(void **state)
{
    float *x = take(16);
    (void)state;
    assert_int_equal(signal_of(read_it, x), SIGSEGV);
    assert_int_equal(signal_of(write_it, x), SIGSEGV);
    be->ops->fill(be, x, 1, 16);
    assert_int_equal(signal_of(read_it, x), SIGSEGV);
    xkd_memory_give(be->memory, x);
}

static void addresses_of_the_host_are_refused(void **state)
{
    float mine[8] = {5}, *x = take(8);
    (void)state;
    be->ops->fill(be, mine, 1, 8);
    assert_int_equal(xkd_backend_status(be), XKD_ERR_INTERNAL);
    assert_non_null(strstr(xkd_last_error(cx), "guard: fill was given an address"));
    assert_true(mine[0] == 5);
    be->ops->axpby(be, x, mine, 1, 0, 8);
    assert_int_equal(xkd_backend_status(be), XKD_ERR_INTERNAL);
    xkd_memory_copy(be->memory, x, mine, 32);
    assert_int_equal(xkd_backend_status(be), XKD_ERR_INTERNAL);
    xkd_memory_download(be->memory, mine, mine, 32);
    assert_int_equal(xkd_backend_status(be), XKD_ERR_INTERNAL);
    be->ops->fill(be, x, 1, 8); /* told once */
    assert_int_equal(xkd_backend_status(be), XKD_OK);
    xkd_memory_give(be->memory, x);
}

static void it_fails_where_it_is_told_to(void **state)
{
    float *x = take(4), read[4];
    (void)state;
    for (int i = 0; i < 3; i++) be->ops->fill(be, x, i + 1, 4);
    xkd_memory_download(be->memory, read, x, 16);
    assert_true(read[0] == 2); /* operation 2 was the third */
    assert_int_equal(xkd_backend_status(be), XKD_ERR_DEVICE);
    assert_non_null(strstr(xkd_last_error(cx), "guard: fill was made to fail"));
    be->ops->fill(be, x, 9, 4);
    assert_int_equal(xkd_backend_status(be), XKD_ERR_DEVICE);
    xkd_memory_give(be->memory, x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tensors_go_through_copies, open_guard, close_guard),
        cmocka_unit_test_setup_teardown(the_host_cannot_touch_them, open_guard, close_guard),
        cmocka_unit_test_setup_teardown(addresses_of_the_host_are_refused, open_guard, close_guard),
        cmocka_unit_test_prestate_setup_teardown(it_fails_where_it_is_told_to, open_guard, close_guard, "guard:2"),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
