#include "config_args.h"

#include <string.h>

#include "base/alloc.h"

xkd_status override(xkd_context *cx, xkd_config *config, const char *key, const char *value)
{
    char *assignment;
    xkd_status status = xkd_format_string(cx, &assignment, "%s=%s", key, value);
    if (status == XKD_OK) status = xkd_config_override(cx, config, assignment);
    xkd_free(assignment);
    return status;
}

bool is_override(const char *argument)
{
    return argument[strcspn(argument, "=/")] == '=';
}

int stop_signal(void *user)
{
    (void)user;
    return cli_signal();
}

void progress(void *user, const char *line)
{
    cli_progress(user, line);
}
