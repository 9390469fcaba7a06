/* xkd help and xkd completion: everything said here is read from the tables of commands and options. Nothing is kept
 * as text beside the tables, so help, manual page and completion cannot fall behind the program. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli.h"
#include "completion.h"
#include "config/options.h"
#include "manual.h"

struct values {
    const char *out;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "DIR", "of 'manual': folder for a page of each command"},
    {0},
};

/* Keys are asked for by how they begin, so "model.fwd_kwargs" shows a whole map. */
static bool is_option_key(const xkd_option *o, const char *prefix)
{
    return strncmp(o->key, prefix, strlen(prefix)) == 0;
}

/* Key, meaning, type and default of one row. */
static void print_option(const xkd_option *o)
{
    char type[200];
    xkd_option_type_text(o, type, sizeof type);
    printf("%s\n    ", o->key);
    if (o->kind == XKD_OPTION_IGNORED)
        printf("accepted without effect: %s\n", o->help);
    else if (o->kind == XKD_OPTION_ALIAS)
        printf("%s\n", o->help);
    /* Where a default is none, as for parts of a preset, only the type is told. */
    else if (o->initial)
        printf("%s [%s; default %s]\n", o->help, type, *o->initial ? o->initial : "empty");
    else
        printf("%s [%s]\n", o->help, type);
}

/* A prefix that fits nothing gets the nearest key as a suggestion. All of them with the empty prefix. */
static xkd_status print_options_like(struct cli *cli, const char *prefix)
{
    int shown = 0;
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        if (!is_option_key(o, prefix)) continue;
        print_option(o);
        shown++;
    }
    if (shown > 0) return XKD_OK;
    const char *suggestion = xkd_option_suggest(prefix);
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "no key begins with '%s'%s%s%s", prefix,
                    suggestion ? "; did you mean '" : "", suggestion ? suggestion : "", suggestion ? "'?" : "");
}

/* "help data index" walks down the tables like the command itself. */
static xkd_status print_command_help(struct cli *cli, int count, char **names)
{
    char path[128] = "xkd";
    const struct cli_command *const *commands = cli_commands;
    const struct cli_command *command = NULL;
    /* `path` grows with the words, for the message about the one that does not fit. */
    for (int i = 0; i < count; i++) {
        command = commands ? cli_find(commands, names[i]) : NULL;
        if (!command)
            return xkd_fail(cli->cx, XKD_ERR_CONFIG, "'%s' is not a command of %s ('%s --help' lists them)", names[i],
                            path, path);
        size_t length = strlen(path);
        snprintf(path + length, sizeof path - length, " %s", names[i]);
        commands = command->subcommands;
    }
    cli_print_help(path, command);
    return XKD_OK;
}

/* Words that are neither commands nor one of the two topics are refused with the list. */
static int run_help(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    struct values v = {NULL};
    xkd_status status = cli_parse(cli, &cmd_help, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (v.out && (rest != 1 || strcmp(argv[1], "manual") != 0))
        status = xkd_fail(cli->cx, XKD_ERR_CONFIG, "help: --out DIR is for 'help manual'");
    else if (rest == 0)
        cli_print_overview();
    else if (strcmp(argv[1], "options") == 0)
        status = print_options_like(cli, rest > 1 ? argv[2] : "");
    else if (strcmp(argv[1], "manual") == 0)
        status = v.out ? manual_write(cli, v.out) : manual_print(cli);
    else
        status = print_command_help(cli, rest, argv + 1);
    return status;
}

const struct cli_command cmd_help = {
    .name = "help",
    .summary = "explain a command or the configuration keys",
    .usage = "[COMMAND ... | options [KEY] | manual [--out DIR]]",
    .description =
        "'help options' lists the configuration keys, or those that begin with KEY; 'help manual' prints a manual\n"
        "page for man(1), or writes one for each command.",
    .example = "xkd help options model.fwd_kwargs\n  xkd help manual | man -l -",
    .options = options,
    .run = run_help,
};

/* ---- completion ---- */

static int run_completion(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_completion, argc, argv, NULL, &rest);
    if (status != XKD_OK) return status;
    if (rest != 1 || !completion_print(argv[1]))
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "completion: which shell? bash, zsh or fish");
    return XKD_OK;
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .summary = "print a completion script for a shell",
    .usage = "bash|zsh|fish",
    .example = "source <(xkd completion bash)\n"
               "  xkd completion zsh >~/.zfunc/_xkd\n"
               "  xkd completion fish >~/.config/fish/completions/xkd.fish",
    .run = run_completion,
};
