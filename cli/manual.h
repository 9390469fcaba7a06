/* Manual pages out of the tables of commands and options. */
#ifndef XKD_CLI_MANUAL_H
#define XKD_CLI_MANUAL_H

#include "cli.h"

/* Everything as one page on stdout. */
xkd_status manual_print(struct cli *cli);

/* A page each into `folder`: xkd.1, xkd-COMMAND.1 and xkd-GROUP-COMMAND.1, and xkd-config.5 with the configuration's keys. */
xkd_status manual_write(struct cli *cli, const char *folder);

#endif
