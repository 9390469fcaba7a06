/* xkd version: what this program is. */
#include <stdio.h>
#include <xkd/version.h>

#include "cli.h"

/* JSON as well, so that scripts need no parser of their own. */
static int run(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_version, argc, argv, NULL, &rest);
    if (status == XKD_OK) status = cli_no_arguments(cli, &cmd_version, rest, argv);
    if (status != XKD_OK) return status;
    printf(cli->json ? "{\"version\": \"%s\"}\n" : "xkd %s\n", xkd_version());
    return XKD_OK;
}

const struct cli_command cmd_version = {
    .name = "version",
    .summary = "print the version",
    .usage = "[--json]",
    .example = "xkd version --json",
    .run = run,
};
