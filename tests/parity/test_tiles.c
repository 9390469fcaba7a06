/* Products of level amx, on any processor with v3: the same source over tiles in plain C (tiles/tiles.h). Everything else is v3's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend/cpu/levels.h"
#include "parity.h"

#if defined(__x86_64__)
void xkd_cpu_linear_ops_tiles(xkd_ops *ops);
void __real_xkd_cpu_fill_v3(xkd_ops *ops, xkd_dtype dtype);
void __wrap_xkd_cpu_fill_v3(xkd_ops *ops, xkd_dtype dtype);

static int filled;

void __wrap_xkd_cpu_fill_v3(xkd_ops *ops, xkd_dtype dtype)
{
    __real_xkd_cpu_fill_v3(ops, dtype);
    if (dtype != XKD_BF16) return;
    xkd_cpu_linear_ops_tiles(ops);
    filled++;
}

static void tiles_were_used(void **state)
{
    (void)state;
    assert_true(filled > 0);
}

static bool has_v3(void)
{
    int count;
    const xkd_cpu_level *levels = xkd_cpu_levels(&count);
    for (int i = 0; i < count; i++)
        if (!strcmp(levels[i].name, "v3")) return levels[i].present;
    return false;
}

int main(int argc, char **argv)
{
    static place cpu = {"cpu", XKD_BF16};
    const struct CMUnitTest tests[] = {
        {"tiles: parity", parity_of_backend, NULL, NULL, &cpu},
        {"tiles: thread counts", parity_of_thread_counts, NULL, NULL, &cpu},
        {"tiles: special values", parity_of_special_values, NULL, NULL, &cpu},
        {"tiles: rows stand alone", parity_of_rows, NULL, NULL, &cpu},
        cmocka_unit_test(tiles_were_used),
    };
    setenv("XKD_CPU", "v3", 1);
    if (!has_v3()) {
        puts("ok tiles # SKIP this processor is below v3");
        return 0;
    }
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    puts("ok tiles # SKIP they are x86-64's");
    return 0;
}
#endif
