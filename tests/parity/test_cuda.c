/* Parity of the GPU backend: on the simulation that is built with the tests (tests/cudasim), and on a GPU where there is one. An
 * argument: the tests of this name alone, with * for any letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "parity.h"

int main(int argc, char **argv)
{
    static place sim = {"cuda-sim", XKD_F32}, sim_half = {"cuda-sim", XKD_BF16};
    static place gpu = {"cuda", XKD_F32}, gpu_half = {"cuda", XKD_BF16};
    const struct CMUnitTest tests[] = {
        {"simulation in float32", parity_of_backend, NULL, NULL, &sim},
        {"simulation in bfloat16", parity_of_backend, NULL, NULL, &sim_half},
        {"special values on a simulation in float32", parity_of_special_values, NULL, NULL, &sim},
        {"special values on a simulation in bfloat16", parity_of_special_values, NULL, NULL, &sim_half},
        {"GPU in float32", parity_of_backend, NULL, NULL, &gpu},
        {"GPU in bfloat16", parity_of_backend, NULL, NULL, &gpu_half},
        {"special values on a GPU in float32", parity_of_special_values, NULL, NULL, &gpu},
        {"special values on a GPU in bfloat16", parity_of_special_values, NULL, NULL, &gpu_half},
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
