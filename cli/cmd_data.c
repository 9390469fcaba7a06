/* xkd data: from files to what the trainer reads. */
#include "data_args.h"

static const struct cli_command *const subcommands[] = {&cmd_data_import, &cmd_data_index, &cmd_data_check,
                                                        &cmd_data_stats,  &cmd_data_show,  &cmd_data_pack,
                                                        &cmd_data_unpack, &cmd_data_synth, NULL};

const struct cli_command cmd_data = {
    .name = "data",
    .summary = "import, index, check, measure, show, pack and make data sets",
    .usage = "WHAT [options]",
    .example = "xkd data index videos/",
    .subcommands = subcommands,
};
