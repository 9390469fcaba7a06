/* xkd viz: what a model sees in one clip. */
#include "cli.h"

static const struct cli_command *const subcommands[] = {&cmd_viz_recon, &cmd_viz_attention, NULL};

const struct cli_command cmd_viz = {
    .name = "viz",
    .summary = "show what a model makes of one clip, as pictures and films",
    .subcommands = subcommands,
};
