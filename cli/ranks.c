/* Starting, meeting and ending of ranks. The process that --ranks is given to is no rank: it starts all of them as its
 * children, so that none is special to the terminal, and one that dies takes no other with it. */
#include "ranks.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "base/status.h"
#include "config/config.h"
#include "dist/socket.h"

extern char **environ;

xkd_status cli_ranks(struct cli *cli, int64_t ranks, xkd_dist_place *place, bool *launch)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    *launch = false;
    XKD_TRY(xkd_dist_place_read(cx, place));
    if (ranks < 0 || ranks > XKD_MOST_RANKS)
        XKD_FAIL(XKD_ERR_CONFIG, "--ranks wants a number from 1 to %d", XKD_MOST_RANKS);
    if (ranks && place->size > 1 && ranks != place->size)
        XKD_FAIL(XKD_ERR_CONFIG, "--ranks %" PRId64 " in a job of WORLD_SIZE=%d: the job's launcher starts the ranks",
                 ranks, place->size);
    *launch = ranks > 1 && place->size == 1;
fail:
    return status;
}

static void set_number(const char *name, const char *format, unsigned long long value)
{
    char text[32];
    snprintf(text, sizeof text, format, value);
    setenv(name, text, 1);
}

/* The environment of all ranks; that of one is set before it is started. */
static void set_environment(int64_t ranks, int port, uint64_t token)
{
    set_number("WORLD_SIZE", "%llu", (unsigned long long)ranks);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    set_number("XKD_STARTER", "%llu", (unsigned long long)getpid());
    set_number("MASTER_PORT", "%llu", (unsigned long long)port);
    set_number("XKD_TOKEN", "%llx", token);
}

/* Children have a process group of their own: a signal of the terminal reaches them once, through this process. Rank 0
 * inherits the socket that the others will call, which nobody can take from it in between. */
static xkd_status start(struct cli *cli, int64_t rank, int listener, pid_t *out)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    set_number("RANK", "%llu", (unsigned long long)rank);
    set_number("LOCAL_RANK", "%llu", (unsigned long long)rank);
    if (rank == 0)
        set_number("XKD_LISTENER", "%llu", (unsigned long long)listener);
    else
        unsetenv("XKD_LISTENER");
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    if (rank == 0) posix_spawn_file_actions_adddup2(&actions, listener, listener);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    int fault = posix_spawn(out, "/proc/self/exe", &actions, &attributes, cli->argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (fault == 0) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_MEMORY, "cannot start rank %" PRId64 ": %s", rank, strerror(fault));
}

/* A process that a signal killed has no code of its own: to the others it is a lost rank. */
static int code_of(int wait_status)
{
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : XKD_ERR_PEER;
}

/* Lost ranks are the consequence of another end, if there is one. */
static int worse(int code, int other)
{
    if (code == XKD_OK || (code == XKD_ERR_PEER && other != XKD_OK)) return other;
    return code;
}

static int wait_for_all(const pid_t *ranks, int64_t count)
{
    int code = XKD_OK, passed = 0;
    for (int64_t left = count; left > 0;) {
        int wait_status, signal = cli_signal();
        pid_t ended = waitpid(-1, &wait_status, WNOHANG);
        if (signal && !passed)
            for (int64_t r = 0; r < count; r++) kill(ranks[r], signal);
        passed = signal;
        if (ended > 0) {
            code = worse(code, code_of(wait_status));
            left--;
        } else {
            usleep(20000);
        }
    }
    return code;
}

int cli_launch_ranks(struct cli *cli, int64_t count)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    pid_t *ranks = NULL;
    uint64_t token = 0;
    int listener = -1, port, code;
    int64_t started = 0;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    xkd_address at = {.length = sizeof here};
    memcpy(&at.address, &here, sizeof here);
    XKD_TRY(xkd_alloc(cx, &ranks, count, sizeof *ranks));
    if (getrandom(&token, sizeof token, 0) != (ssize_t)sizeof token) XKD_FAIL(XKD_ERR_INTERNAL, "no random numbers");
    XKD_TRY(xkd_listen(cx, &at, &listener, &port));
    set_environment(count, port, token);
    cli_catch_signals();
    for (; started < count; started++) XKD_TRY(start(cli, started, listener, &ranks[started]));
    close(listener);
    listener = -1;
    code = wait_for_all(ranks, count);
    xkd_free(ranks);
    return code;
fail:
    for (int64_t r = 0; r < started; r++) kill(ranks[r], SIGKILL);
    for (int64_t r = 0; r < started; r++) waitpid(ranks[r], NULL, 0);
    if (listener >= 0) close(listener);
    xkd_free(ranks);
    return status;
}

/* In the thread of the heartbeats: the main thread has not come back, so there is nobody to clean up. */
static void give_up(void *user, const char *why)
{
    const xkd_dist_place *place = user;
    fprintf(stderr, "xkd: error: rank %d: %s; this rank does not come to an end and is ended\n", place->rank, why);
    _exit(XKD_ERR_PEER);
}

/* Children of --ranks end with the process that started them, saved like by any scheduler; also where it has ended before
 * they could ask to be told. */
static void end_with_starter(void)
{
    const char *starter = getenv("XKD_STARTER");
    if (!starter) return;
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != (pid_t)strtol(starter, NULL, 10)) kill(getpid(), SIGTERM);
}

xkd_status cli_join_ranks(struct cli *cli, xkd_dist_place *place, double timeout, xkd_dist **out)
{
    *out = NULL;
    if (place->size == 1) return XKD_OK;
    end_with_starter();
    if (place->rank > 0) {
        cli->level = XKD_LOG_ERROR;
        xkd_context_set_log(cli->cx, cli_log, NULL, cli->level);
    }
    place->timeout = timeout;
    place->give_up = give_up;
    place->user = place;
    xkd_status status = xkd_dist_join(cli->cx, place, out);
    int processors;
    if (status == XKD_OK) status = xkd_dist_processors(*out, &processors);
    if (status == XKD_OK) xkd_limit_processors(processors);
    if (status == XKD_OK) status = xkd_dist_tell(*out);
    return status;
}

/* What the file says otherwise is told when the command loads it. */
xkd_status cli_peer_timeout(struct cli *cli, const char *file, char *const *overrides, int count, double *out)
{
    xkd_status status = XKD_OK;
    xkd_config config = {0};
    XKD_TRY(xkd_config_init(cli->cx, &config));
    if (file) XKD_TRY(xkd_config_load_again(cli->cx, &config, file));
    for (int i = 0; i < count; i++)
        if (strncmp(overrides[i], "run.peer_timeout=", 17) == 0)
            XKD_TRY(xkd_config_override(cli->cx, &config, overrides[i]));
    *out = config.run.peer_timeout;
fail:
    xkd_config_free(&config);
    return status;
}

xkd_status cli_leave_ranks(struct cli *cli, xkd_dist *dist, xkd_status status, bool agreed)
{
    xkd_context *cx = cli->cx;
    char message[1024];
    int rank = xkd_dist_rank(dist);
    if (!dist) return status;
    snprintf(message, sizeof message, "%s", xkd_last_error(cx));
    if (agreed) xkd_clear_error(cx);
    xkd_status left = xkd_dist_leave(dist, agreed ? XKD_OK : status, message);
    if (agreed && left == XKD_OK && status != XKD_OK) (void)xkd_fail(cx, status, "%s", message);
    if (agreed && left != XKD_OK) status = left;
    /* What all would say alike is said by rank 0. */
    if (rank > 0 && agreed && left == XKD_OK) xkd_clear_error(cx);
    if (rank > 0 && *xkd_last_error(cx)) xkd_error_prefix(cx, "rank %d", rank);
    return status;
}
