/* The configuration from the command line, and the two callbacks of a run, for `pretrain`, `finetune` and `eval`. */
#include "config_args.h"

#include <string.h>

#include "base/alloc.h"

/* As if KEY=VALUE had been given: the value passes the option table's checks. */
xkd_status override(xkd_context *cx, xkd_config *config, const char *key, const char *value)
{
    char *assignment;
    xkd_status status = xkd_format_string(cx, &assignment, "%s=%s", key, value);
    if (status == XKD_OK) status = xkd_config_override(cx, config, assignment);
    xkd_free(assignment);
    return status;
}

/* '=' before any '/': "a=b" is a setting, "./a=b" and "dir/a=b" are files. */
bool is_override(const char *argument)
{
    return argument[strcspn(argument, "=/")] == '=';
}

void say_memory(struct cli *cli, double bytes, double available)
{
    if (bytes <= available) return;
    xkd_log(cli->cx, XKD_LOG_WARN,
            "the training would take %.1f GB and %.1f GB are free: lower dataset.batch_size, or raise train.accumulate",
            bytes / 1e9, available / 1e9);
}

/* xkd_run_options.stop_signal: the library knows nothing of signals. */
int stop_signal(void *user)
{
    (void)user;
    return cli_signal();
}

/* xkd_run_options.progress; `user` is the struct cli. */
void progress(void *user, const char *line)
{
    cli_progress(user, line);
}
