/* xkd help and xkd completion: everything said here is read from the tables of commands and options. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli.h"

static int run_help(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_help, argc, argv, NULL, &rest);
    if (status != XKD_OK) return status;
    if (rest == 0) {
        cli_print_overview();
        return XKD_OK;
    }
    char path[128] = "xkd";
    const struct cli_command *const *commands = cli_commands;
    const struct cli_command *command = NULL;
    for (int i = 1; i <= rest; i++) {
        command = cli_find(commands, argv[i]);
        if (!command) return xkd_fail(cli->cx, XKD_ERR_CONFIG, "'%s' is not a command of %s", argv[i], path);
        size_t length = strlen(path);
        snprintf(path + length, sizeof path - length, " %s", argv[i]);
        commands = command->subcommands;
    }
    cli_print_help(path, command);
    return XKD_OK;
}

const struct cli_command cmd_help = {
    .name = "help",
    .summary = "explain a command or the configuration keys",
    .usage = "[COMMAND ...]",
    .example = "xkd help pretrain",
    .run = run_help,
};
