/* Every single allocation of a configuration's life may fail: the status says so and nothing leaks or crashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/context.h"
#include "config/config.h"

static xkd_status use_config(xkd_context *cx)
{
    xkd_config c;
    char *text = NULL;
    xkd_status status = xkd_config_init(cx, &c);
    if (status == XKD_OK) status = xkd_config_load(cx, &c, "tests/data/release_keys.yaml", false);
    if (status == XKD_OK) status = xkd_config_override(cx, &c, "model.fwd_kwargs={clip_grad: off}");
    if (status == XKD_OK) status = xkd_config_override(cx, &c, "data.cache=folder");
    if (status == XKD_OK) status = xkd_config_finish(cx, &c);
    if (status == XKD_OK) status = xkd_config_write(cx, &c, &text);
    xkd_free(text);
    xkd_config_free(&c);
    return status;
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (int64_t n = 0;; n++) {
        xkd_context *cx = xkd_context_new();
        assert_non_null(cx);
        xkd_context_account(cx)->fail_at = n;
        xkd_status status = use_config(cx);
        int64_t made = xkd_context_account(cx)->count;
        xkd_context_free(cx);
        if (made <= n) {
            assert_int_equal(status, XKD_OK);
            assert_true(n > 100); /* or the loop has tested nothing */
            return;
        }
        assert_int_equal(status, XKD_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation_fails)};
    return cmocka_run_group_tests_name("config_memory", tests, NULL, NULL);
}
