/* What can happen to one of two ranks, at every point of a run: it is killed, stopped, cut off from the network, or its disk
 * is full. The other one names it and ends in time, and the run goes on from its last checkpoint to the bits of a run that
 * nothing happened to. The points lie in functions that the linker puts ours in front of (tests/CMakeLists.txt). */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "dist/socket.h"
#include "fake_loader.h"
#include "loop_config.h"
#include "train/loop.h"
#include "train/position.h"
#include "train/probe.h"
#include "train/ranks.h"
#include "train/step.h"

static const char *const kinds[] = {"killed", "stopped", "cut off", "disk full"};
enum { KILLED, STOPPED, CUT, FULL, KINDS };
static const char *const points[] = {"start", "first step", "backward", "reduction", "saving", "end of epoch", "probe"};
enum { START, FIRST_STEP, BACKWARD, REDUCTION, SAVING, EPOCH_END, PROBE, POINTS };

static const double TIMEOUT = 1; /* run.peer_timeout */

/* One case. It lies in memory that its processes share. */
typedef struct {
    int kind, point, victim;
    pid_t rank[2], proxy;
    volatile int done;    /* it has happened */
    volatile double when; /* then */
    double ended[2];      /* when the ranks ended */
    int code[2];          /* exit code, 200 + signal */
    char said[2][300];    /* their last error */
    char folder[100];
    char fault[400]; /* what is wrong; "" if nothing is */
} faulty;

static faulty *the_case; /* of this process; NULL: nothing happens */
static int my_rank, visits[POINTS];
static bool in_save;

/* The third visit for points that come again, so that there is a checkpoint. */
static void pass_by(int point)
{
    faulty *c = the_case;
    bool by_rank_0 = point == SAVING || point == PROBE;
    visits[point]++;
    if (!c || c->done || c->point != point || visits[point] < (point <= FIRST_STEP || point >= EPOCH_END ? 1 : 3))
        return;
    if (!by_rank_0 && my_rank != c->victim) return;
    c->when = xkd_now();
    c->done = 1;
    if (c->kind == FULL) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_FSIZE, &none);
    } else if (c->kind == CUT) {
        kill(c->proxy, SIGSTOP);
    } else {
        kill(c->rank[c->victim], c->kind == KILLED ? SIGKILL : SIGSTOP);
        if (my_rank == c->victim) pause();
    }
}

/* In front of the library's functions. */
xkd_status __real_xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_run_state *state, int64_t samples);
xkd_status __wrap_xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_run_state *state, int64_t samples);
xkd_status __wrap_xkd_ranks_compare(xkd_context *cx, xkd_dist *dist, const xkd_run_state *state, int64_t samples)
{
    pass_by(START);
    return __real_xkd_ranks_compare(cx, dist, state, samples);
}

void __real_xkd_step_begin(xkd_trainer *t, const xkd_step_values *values);
void __wrap_xkd_step_begin(xkd_trainer *t, const xkd_step_values *values);
void __wrap_xkd_step_begin(xkd_trainer *t, const xkd_step_values *values)
{
    pass_by(FIRST_STEP);
    __real_xkd_step_begin(t, values);
}

void __real_xkd_pass_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale, bool last);
void __wrap_xkd_pass_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale, bool last);
void __wrap_xkd_pass_backward(xkd_backend *be, xkd_pass *p, const xkd_temperatures *t, double scale, bool last)
{
    pass_by(BACKWARD);
    __real_xkd_pass_backward(be, p, t, scale, last);
}

xkd_status __real_xkd_dist_sum(xkd_dist *dist, float *x, int64_t n);
xkd_status __wrap_xkd_dist_sum(xkd_dist *dist, float *x, int64_t n);
xkd_status __wrap_xkd_dist_sum(xkd_dist *dist, float *x, int64_t n)
{
    xkd_status status = __real_xkd_dist_sum(dist, x, n);
    pass_by(REDUCTION); /* between two vectors */
    return status;
}

xkd_status __real_xkd_state_save(xkd_context *cx, const char *folder, const xkd_params *params, const xkd_run_state *s,
                                 int64_t keep);
xkd_status __wrap_xkd_state_save(xkd_context *cx, const char *folder, const xkd_params *params, const xkd_run_state *s,
                                 int64_t keep);
xkd_status __wrap_xkd_state_save(xkd_context *cx, const char *folder, const xkd_params *params, const xkd_run_state *s,
                                 int64_t keep)
{
    in_save = true;
    if (the_case && the_case->kind == FULL) pass_by(SAVING);
    xkd_status status = __real_xkd_state_save(cx, folder, params, s, keep);
    in_save = false;
    return status;
}

/* All is written, and not yet under its name. */
xkd_status __real_xkd_writer_commit(xkd_writer *writer);
xkd_status __wrap_xkd_writer_commit(xkd_writer *writer);
xkd_status __wrap_xkd_writer_commit(xkd_writer *writer)
{
    if (in_save && the_case && the_case->kind != FULL) pass_by(SAVING);
    return __real_xkd_writer_commit(writer);
}

xkd_status __real_xkd_position_log_epoch(xkd_run_position *p, xkd_metrics *metrics);
xkd_status __wrap_xkd_position_log_epoch(xkd_run_position *p, xkd_metrics *metrics);
xkd_status __wrap_xkd_position_log_epoch(xkd_run_position *p, xkd_metrics *metrics)
{
    pass_by(EPOCH_END);
    return __real_xkd_position_log_epoch(p, metrics);
}

/* A probe without files. */
xkd_status __wrap_xkd_probe_new(xkd_context *cx, const xkd_config *config, xkd_trainer *trainer, xkd_probe **out);
xkd_status __wrap_xkd_probe_new(xkd_context *cx, const xkd_config *config, xkd_trainer *trainer, xkd_probe **out)
{
    (void)cx;
    (void)config;
    *out = (xkd_probe *)(void *)trainer;
    return XKD_OK;
}

void __wrap_xkd_probe_free(xkd_probe *probe);
void __wrap_xkd_probe_free(xkd_probe *probe)
{
    (void)probe;
}

bool __wrap_xkd_probe_is_due(const xkd_probe *probe, int64_t epochs);
bool __wrap_xkd_probe_is_due(const xkd_probe *probe, int64_t epochs)
{
    return probe && epochs > 0;
}

xkd_status __wrap_xkd_probe_run(xkd_probe *probe, double figures[XKD_PROBE_FIGURES]);
xkd_status __wrap_xkd_probe_run(xkd_probe *probe, double figures[XKD_PROBE_FIGURES])
{
    (void)probe;
    pass_by(PROBE);
    for (int i = 0; i < XKD_PROBE_FIGURES; i++) figures[i] = 1;
    return XKD_OK;
}

/* Carries bytes between rank 1 and the port of rank 0, until it is killed: stopped, it is a network that is cut. */
static void carry(int listener, int port)
{
    struct pollfd fd[5] = {{.fd = listener, .events = POLLIN}};
    int count = 1;
    char piece[65536];
    xkd_context *cx = xkd_context_new();
    for (;;) {
        poll(fd, (nfds_t)count, -1);
        if (fd[0].revents && count < 5) {
            int from = xkd_accept(listener, xkd_now() + 5), to;
            if (from < 0 || xkd_connect(cx, "127.0.0.1", port, xkd_now() + 5, &to) != XKD_OK) _exit(1);
            fd[count++] = (struct pollfd){.fd = from, .events = POLLIN};
            fd[count++] = (struct pollfd){.fd = to, .events = POLLIN};
        }
        for (int k = 1; k < count; k++) {
            if (!fd[k].revents) continue;
            int other = fd[k % 2 ? k + 1 : k - 1].fd;
            ssize_t n = recv(fd[k].fd, piece, sizeof piece, 0);
            if (n < 0 && errno == EAGAIN) continue;
            if (n <= 0 || !xkd_send_all(other, piece, n, xkd_now() + 60)) {
                shutdown(other, SHUT_RDWR);
                fd[k].fd = -1;
            }
        }
    }
}

static void give_up(void *user, const char *why)
{
    (void)user;
    (void)why;
    _exit(XKD_ERR_PEER);
}

/* A rank as the command line runs one. */
static int be_rank(faulty *c, int rank, int listener, int port)
{
    xkd_config config = {0};
    xkd_run_result result;
    xkd_dist *dist = NULL;
    bool agreed = false;
    xkd_context *cx = xkd_context_new();
    const xkd_run_options options = {.mode = XKD_RUN_NEW};
    const xkd_dist_place place = {.rank = rank,
                                  .size = 2,
                                  .address = "127.0.0.1",
                                  .port = port,
                                  .listener = rank ? -1 : listener,
                                  .timeout = TIMEOUT,
                                  .give_up = give_up};
    the_case = c;
    my_rank = rank;
    signal(SIGXFSZ, SIG_IGN);
    xkd_status status = loop_configure(cx, &config, c->folder);
    config.train.ranks = 2;
    config.run.save_steps = 1;
    config.run.probe_epochs = 1;
    if (status == XKD_OK) status = xkd_config_finish(cx, &config);
    if (status == XKD_OK) status = xkd_dist_join(cx, &place, &dist);
    if (status == XKD_OK) {
        status = xkd_train(cx, &config, &options, dist, &result, &agreed);
        xkd_status left = xkd_dist_leave(dist, agreed ? XKD_OK : status, xkd_last_error(cx));
        if (agreed) status = left;
    }
    snprintf(c->said[rank], sizeof c->said[rank], "%s", xkd_last_error(cx));
    return status;
}

static void start_processes(faulty *c)
{
    int listener, port, door, door_port;
    xkd_context *cx = xkd_context_new();
    assert_int_equal(xkd_listen_everywhere(cx, 0, &listener, &port), XKD_OK);
    assert_int_equal(xkd_listen_everywhere(cx, 0, &door, &door_port), XKD_OK);
    fflush(NULL);
    /* The memory is shared: only the parent writes numbers of processes there. */
    pid_t pid = fork();
    if (pid == 0) {
        close(listener);
        carry(door, port);
    }
    c->proxy = pid;
    close(door);
    for (int r = 0; r < 2; r++) {
        pid = fork();
        if (pid == 0) _exit(be_rank(c, r, listener, r ? door_port : port));
        c->rank[r] = pid;
    }
    close(listener);
    xkd_context_free(cx);
}

static void note_end(faulty *c, int r, int status)
{
    c->ended[r] = xkd_now();
    c->code[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

/* A stopped rank goes on once the other has ended, or after a time that must not pass. */
static void wait_for_ranks(faulty *c)
{
    bool here[2] = {false, false}, woken = false;
    double begin = xkd_now();
    while (!here[0] || !here[1]) {
        for (int r = 0; r < 2; r++) {
            int status;
            if (here[r] || waitpid(c->rank[r], &status, WNOHANG) != c->rank[r]) continue;
            note_end(c, r, status);
            here[r] = true;
        }
        if (c->kind == STOPPED && here[!c->victim] && !woken) woken = kill(c->rank[c->victim], SIGCONT) == 0;
        if (xkd_now() - begin > 60)
            for (int r = 0; r < 2; r++)
                if (!here[r]) kill(c->rank[r], SIGKILL);
        usleep(5000);
    }
    kill(c->proxy, SIGKILL);
    waitpid(c->proxy, NULL, 0);
}

/* Goes on alone; the folder may not exist where it happened before anything was written. */
static bool goes_on(const faulty *c, const char *whole)
{
    char command[400];
    xkd_config config;
    xkd_run_result result;
    the_case = NULL;
    xkd_context *cx = xkd_context_new();
    bool begun = xkd_path_exists(c->folder);
    const xkd_run_options options = {.mode = begun ? XKD_RUN_RESUME : XKD_RUN_NEW};
    bool good = loop_configure(cx, &config, c->folder) == XKD_OK &&
                xkd_train(cx, &config, &options, NULL, &result, NULL) == XKD_OK;
    if (!good) fprintf(stderr, "# resume: %s\n", xkd_last_error(cx));
    xkd_config_free(&config);
    xkd_context_free(cx);
    snprintf(command, sizeof command, "diff -r '%s/backbones' '%s/backbones' >&2", c->folder, whole);
    return good && system(command) == 0;
}

static void judge(faulty *c, const char *whole)
{
    int other = !c->victim;
    char name[16];
    snprintf(name, sizeof name, "rank %d ", c->victim);
    const int wanted = c->kind == KILLED ? 200 + SIGKILL : c->kind == FULL ? XKD_ERR_STORAGE : XKD_ERR_PEER;
    if (!c->done)
        snprintf(c->fault, sizeof c->fault, "it did not happen");
    else if (c->code[other] != XKD_ERR_PEER || c->code[c->victim] != wanted)
        snprintf(c->fault, sizeof c->fault, "exit codes %d and %d: %.120s; %.120s", c->code[0], c->code[1], c->said[0],
                 c->said[1]);
    else if (!strstr(c->said[other], name))
        snprintf(c->fault, sizeof c->fault, "rank %d is not named: %s", c->victim, c->said[other]);
    else if (c->ended[other] - c->when > TIMEOUT + 5)
        snprintf(c->fault, sizeof c->fault, "the other one ended after %.1f s", c->ended[other] - c->when);
    else if (!goes_on(c, whole))
        snprintf(c->fault, sizeof c->fault, "the run does not go on to the same bits");
}

enum { CASES = KINDS * POINTS * 2, SIDE_BY_SIDE = 7 };

static char folder[] = "/tmp/xkd-test-ranks-XXXXXX";

/* Each case has a process of its own, and some run side by side: they mostly wait. */
static void test_all(void **state)
{
    (void)state;
    char whole[100], command[200];
    int count = 0, bad = 0, running = 0;
    faulty *cases = mmap(NULL, CASES * sizeof *cases, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(cases != MAP_FAILED && mkdtemp(folder));
    snprintf(whole, sizeof whole, "%s/whole", folder);
    const faulty nothing = {.folder = ""};
    faulty first = nothing;
    snprintf(first.folder, sizeof first.folder, "%s", whole);
    assert_true(goes_on(&first, whole));
    for (int kind = 0; kind < KINDS; kind++)
        for (int point = 0; point < POINTS; point++)
            for (int victim = 0; victim < (kind == FULL ? 1 : 2); victim++) {
                faulty *c = &cases[count++];
                *c = (faulty){.kind = kind, .point = point, .victim = victim};
                snprintf(c->folder, sizeof c->folder, "%s/%d-%d-%d", folder, kind, point, victim);
                if (running == SIDE_BY_SIDE && wait(NULL) > 0) running--;
                fflush(NULL);
                if (fork() == 0) {
                    start_processes(c);
                    wait_for_ranks(c);
                    judge(c, whole);
                    _exit(0);
                }
                running++;
            }
    while (wait(NULL) > 0) continue;
    for (int i = 0; i < count; i++) {
        const faulty *c = &cases[i];
        fprintf(stderr, "# rank %d is %s at %s: %s (%.1f s)\n", c->victim, kinds[c->kind], points[c->point],
                c->fault[0] ? c->fault : "well", c->ended[!c->victim] - c->when);
        bad += c->fault[0] != 0;
    }
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(count, 49);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests_name("rank faults", tests, NULL, NULL);
}
