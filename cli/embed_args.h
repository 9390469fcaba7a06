/* What the commands that embed files share: a progress bar and signals. */
#ifndef XKD_CLI_EMBED_ARGS_H
#define XKD_CLI_EMBED_ARGS_H

#include "eval/encode/listener.h"
#include "model_args.h"

/* Shows lines and bars on stderr; ends the work after a signal. */
xkd_listener cli_listener(struct cli *cli);

#endif
