/* xkd bench: measurements of this machine. */
#include "cli.h"

static const struct cli_command *const subcommands[] = {&cmd_bench_gemm,      &cmd_bench_kernels, &cmd_bench_step,
                                                        &cmd_bench_optimizer, &cmd_bench_dist,    &cmd_bench_svm,
                                                        &cmd_bench_embed,     &cmd_bench_data,    NULL};

const struct cli_command cmd_bench = {
    .name = "bench",
    .summary = "measure this machine",
    .usage = "WHAT [options]",
    .example = "xkd bench step",
    .subcommands = subcommands,
};
