/* What evaluations say, shown on stderr, and signals that end them, for `embed`, `svm`, `knn` and `eval`. */
#include "embed_args.h"

#include "data_args.h"

static void say(void *user, const char *line)
{
    cli_say(user, "%s", line);
}

static void progress(void *user, const char *title, double start, int64_t done, int64_t total)
{
    struct data_progress bar = {user, title, start};
    if (title)
        data_show_progress(&bar, done, total);
    else
        cli_progress(user, NULL);
}

/* Commands that catch no signals never see one here. */
static int stop(void *user)
{
    (void)user;
    return cli_signal();
}

xkd_listener cli_listener(struct cli *cli)
{
    return (xkd_listener){cli, say, progress, stop};
}
