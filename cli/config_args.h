/* What the commands that train share: texts into the configuration, and how a run reaches the terminal. */
#ifndef XKD_CLI_CONFIG_ARGS_H
#define XKD_CLI_CONFIG_ARGS_H

#include "cli.h"
#include "config/config.h"

/* Applies KEY=VALUE with a value that is text whatever characters are in it. */
xkd_status override(xkd_context *cx, xkd_config *config, const char *key, const char *value);

/* KEY=VALUE, and no path: what stands before the first '=' has no '/'. */
bool is_override(const char *argument);

/* Warns where a plan of fine-tuning or a linear classifier needs more bytes than are free. */
void say_memory(struct cli *cli, double bytes, double available);

/* Callbacks of a run; the user pointer is the cli. */
int stop_signal(void *user);
void progress(void *user, const char *line);

#endif
