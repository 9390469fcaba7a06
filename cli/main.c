/* The `xkd` program: finds the subcommand and turns its status into an exit code. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#include "backend/cpu/levels.h"
#include "base/alloc.h"
#include "base/spelling.h"
#include "base/text.h"
#include "media/worker.h"

/* Every subcommand, in the order of --help. To add one: write cli/cmd_NAME.c, declare it in cli.h, list it here,
 * a line each so that branches merge. */
/* clang-format off */
const struct cli_command *const cli_commands[] = {
    &cmd_data,
    &cmd_plan,
    &cmd_pretrain,
    &cmd_finetune,
    &cmd_linear,
    &cmd_predict,
    &cmd_eval,
    &cmd_embed,
    &cmd_svm,
    &cmd_knn,
    &cmd_retrieve,
    &cmd_viz,
    &cmd_map,
    &cmd_report,
    &cmd_inspect,
    &cmd_convert,
    &cmd_diff,
    &cmd_verify,
    &cmd_replay,
    &cmd_bench,
    &cmd_doctor,
    &cmd_version,
    &cmd_help,
    &cmd_completion,
    NULL,
};
/* clang-format on */

/* NULL commands have no subcommands. A prefix of a name is not enough: a command added later would change what it
 * means. */
const struct cli_command *cli_find(const struct cli_command *const *commands, const char *name)
{
    for (; commands && *commands; commands++)
        if (strcmp((*commands)->name, name) == 0) return *commands;
    return NULL;
}

/* Before anything is parsed, so that --help works whatever else is wrong with the line. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

/* On stderr by hand: there is no command yet whose message it could be. */
static int unknown_command(const char *path, const struct cli_command *const *commands, const char *name)
{
    const char *best = NULL;
    int distance = 4; /* further apart is no typing error */
    for (; *commands; commands++) {
        /* Hidden commands are not suggested, but are run. */
        if ((*commands)->hidden) continue;
        int d = xkd_edit_distance(name, (*commands)->name, distance);
        if (d < distance) {
            distance = d;
            best = (*commands)->name;
        }
    }
    char safe[300];
    fprintf(stderr, "xkd: error: '%s' is not a command of %s", xkd_escape(safe, sizeof safe, name, strlen(name), ""),
            path);
    if (best) fprintf(stderr, "; did you mean '%s'?", best);
    fprintf(stderr, " ('%s --help' lists them)\n", path);
    return XKD_ERR_CONFIG;
}

/* Follows the names in argv down the tables and runs what they lead to.
 * `path` grows by the names on the way, for help and messages. */
static int dispatch(struct cli *cli, const struct cli_command *const *commands, char *path, size_t size, int argc,
                    char **argv)
{
    const struct cli_command *command = cli_find(commands, argv[0]);
    if (!command) return unknown_command(path, commands, argv[0]);
    size_t length = strlen(path);
    snprintf(path + length, size - length, " %s", command->name);
    /* Looked for here, where the names that lead to the command are still known. */
    bool help = asks_for_help(argc, argv);
    /* A word behind a group's name is the next name; an option is the group's own. */
    if (command->subcommands && argc > 1 && argv[1][0] != '-')
        return dispatch(cli, command->subcommands, path, size, argc - 1, argv + 1);
    if (help) {
        cli_print_help(path, command);
        return XKD_OK;
    }
    if (command->subcommands) {
        fprintf(stderr, "xkd: error: %s needs the name of a subcommand ('%s --help' lists them)\n", path, path);
        return XKD_ERR_CONFIG;
    }
    /* Before the command reads or writes anything; what only informs runs everywhere. */
    const xkd_cpu_level *level;
    bool informs =
        command == &cmd_doctor || command == &cmd_version || command == &cmd_help || command == &cmd_completion;
    xkd_status status = informs ? XKD_OK : xkd_cpu_level_choose(cli->cx, &level);
    if (status != XKD_OK) return status;
    /* Everything after the name is the command's to parse. */
    return command->run(cli, argc, argv);
}

/* Without arguments the overview is an answer, but the exit code says that nothing was done. 128 characters hold the
 * longest path of names, and snprintf cuts what does not fit. */
static int run(struct cli *cli, int argc, char **argv)
{
    char path[128] = "xkd";
    if (argc < 2) {
        cli_print_overview();
        return XKD_ERR_CONFIG;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        cli_print_overview();
        return XKD_OK;
    }
    /* "--version" is the command of that name. */
    if (strcmp(argv[1], "--version") == 0) argv[1] += 2;
    return dispatch(cli, cli_commands, path, sizeof path, argc - 1, argv + 1);
}

/* A media worker is this same program: that question comes first, before anything is set up. */
int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    struct cli cli = {.cx = xkd_context_new(), .program = argv[0], .level = XKD_LOG_INFO};
    if (!cli.cx || xkd_alloc(cli.cx, &cli.argv, argc + 1, sizeof *argv) != XKD_OK) {
        fputs("xkd: error: out of memory\n", stderr);
        return XKD_ERR_MEMORY;
    }
    memcpy(cli.argv, argv, (size_t)argc * sizeof *argv);
    xkd_context_set_log(cli.cx, cli_log, NULL, cli.level);
    cli_start_signals();
    int status = run(&cli, argc, argv);
    /* A bar that an error left behind goes before the message. */
    cli_progress(&cli, NULL);
    if (status != XKD_OK && *xkd_last_error(cli.cx)) cli_log(NULL, XKD_LOG_ERROR, xkd_last_error(cli.cx));
    xkd_free(cli.argv);
    xkd_context_free(cli.cx);
    /* A full disk shows only now when stdout is a file. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == XKD_OK) {
        fputs("xkd: error: cannot write the result to stdout\n", stderr);
        status = XKD_ERR_STORAGE;
    }
    return status;
}
