/* xkd help and xkd completion: everything said here is read from the tables of commands and options. Nothing is kept
 * as text beside the tables, so help, manual page and completion cannot fall behind the program. */
#include <stdio.h>
#include <string.h>
#include <xkd/version.h>

#include "base/status.h"
#include "cli.h"
#include "config/options.h"

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

/* ---- manual page ---- */

/* In roff a backslash begins a command, a dot at a line's start too, and a hyphen should stay a minus. */
static void print_roff(const char *text)
{
    bool line_start = true;
    for (; *text; text++) {
        /* \& is an empty character that hides it. */
        if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        /* "\\e" is roff's backslash, "\\-" a minus that can be copied from the page. */
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        line_start = *text == '\n';
    }
}

/* A command with its options; a group of commands is only the sum of its members. */
static void print_roff_command(const char *path, const struct cli_command *command)
{
    char deeper[128];
    if (command->hidden) return;
    if (command->subcommands) {
        for (const struct cli_command *const *sub = command->subcommands; *sub; sub++) {
            snprintf(deeper, sizeof deeper, "%s %s", path, (*sub)->name);
            /* Two levels at most, but the tables do not limit it. */
            print_roff_command(deeper, *sub);
        }
        return;
    }
    fputs(".SS ", stdout);
    print_roff(path);
    printf(" ");
    print_roff(command->usage ? command->usage : "");
    printf("\n");
    print_roff(command->description ? command->description : command->summary);
    printf("\n");
    for (const struct cli_option *o = command->options; o && o->name; o++) {
        printf(".TP\n.B \\-\\-");
        print_roff(o->name);
        printf(" %s\n", o->value ? o->value : "");
        print_roff(o->help);
        printf("\n");
    }
}

/* For man(1), by way of stdout; made when it is asked for, so it cannot be out of date. */
static void print_manual(void)
{
    char path[128];
    printf(".TH XKD 1 \"\" \"xkd %s\"\n.SH NAME\nxkd \\- self-supervised pre-training of video and audio encoders\n"
           ".SH SYNOPSIS\n.B xkd\nCOMMAND [OPTION ...] [KEY=VALUE ...]\n.SH COMMANDS\n",
           xkd_version());
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        snprintf(path, sizeof path, "xkd %s", (*c)->name);
        print_roff_command(path, *c);
    }
    /* Aliases and keys without effect are keys too: somebody may look for them. */
    puts(".SH CONFIGURATION KEYS");
    for (int i = 0; i < xkd_option_count(); i++) {
        const xkd_option *o = xkd_option_at(i);
        printf(".TP\n.B ");
        print_roff(o->key);
        printf("\n");
        print_roff(o->help);
        /* An alias's initial value is the name it stands for. */
        if (o->initial && o->kind != XKD_OPTION_ALIAS) {
            printf(" Default: ");
            print_roff(*o->initial ? o->initial : "empty");
        }
        printf("\n");
    }
    puts(".SH EXIT STATUS\n0 ok, 1 internal, 2 usage or configuration, 3 data, 4 checkpoint refused, 5 storage, 6 "
         "numeric,\n"
         "7 peer lost, 8 out of memory, 9 device, 75 preempted and saved, 128+n signal n.");
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
    xkd_status status = cli_parse(cli, &cmd_help, argc, argv, NULL, &rest);
    if (status != XKD_OK) return status;
    if (rest == 0)
        cli_print_overview();
    else if (strcmp(argv[1], "options") == 0)
        status = print_options_like(cli, rest > 1 ? argv[2] : "");
    else if (strcmp(argv[1], "manual") == 0)
        print_manual();
    else
        status = print_command_help(cli, rest, argv + 1);
    return status;
}

const struct cli_command cmd_help = {
    .name = "help",
    .summary = "explain a command or the configuration keys",
    .usage = "[COMMAND ... | options [KEY] | manual]",
    .description =
        "'help options' lists the configuration keys, or those that begin with KEY; 'help manual' prints a manual\n"
        "page for man(1).",
    .example = "xkd help options model.fwd_kwargs\n  xkd help manual | man -l -",
    .run = run_help,
};

/* ---- completion ---- */

/* Options of one command as words of the shell. No key or option holds a blank. */
static void print_words(const struct cli_command *command)
{
    for (const struct cli_option *o = command->options; o && o->name; o++) printf("--%s ", o->name);
    printf("--quiet --verbose --json --help");
}

/* One branch of the script's case per command and subcommand. */
static void print_cases(const char *path, const struct cli_command *const *commands)
{
    char deeper[128];
    for (; *commands; commands++) {
        const struct cli_command *c = *commands;
        if (c->hidden) continue;
        snprintf(deeper, sizeof deeper, "%s %s", path, c->name);
        /* Names begin with a blank, which the case's pattern must not have. */
        printf("        \"%s\") words=\"", deeper + 1);
        for (const struct cli_command *const *sub = c->subcommands; sub && *sub; sub++) printf("%s ", (*sub)->name);
        print_words(c);
        puts("\" ;;");
        if (c->subcommands) print_cases(deeper, c->subcommands);
    }
}

/* bash alone: the script relies on its completion functions. */
static int run_completion(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_completion, argc, argv, NULL, &rest);
    if (status != XKD_OK) return status;
    if (rest != 1 || strcmp(argv[1], "bash") != 0)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "completion: the shell must be bash");
    puts("# bash completion of xkd; put it into /etc/bash_completion.d or source it\n"
         "_xkd() {\n"
         "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=\"\" keys");
    printf("    keys=\"");
    for (int i = 0; i < xkd_option_count(); i++)
        /* A key is completed with its '=', so that the value can follow at once. */
        if (xkd_option_at(i)->kind != XKD_OPTION_IGNORED) printf("%s= ", xkd_option_at(i)->key);
    puts("\"\n"
         "    [[ $COMP_CWORD -gt 2 && ${COMP_WORDS[2]} != -* ]] && command=\"$command ${COMP_WORDS[2]}\"\n"
         "    if [[ $COMP_CWORD -eq 1 ]]; then");
    printf("        words=\"");
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        if (!(*c)->hidden) printf("%s ", (*c)->name);
    puts("--help\"\n    else\n        case \"$command\" in");
    print_cases("", cli_commands);
    puts("        esac\n"
         "        [[ -z $words && -n ${COMP_WORDS[1]} ]] && words=$keys\n"
         "        [[ ${COMP_WORDS[1]} == pretrain || ${COMP_WORDS[1]} == bench ]] && words=\"$words $keys\"\n"
         "    fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
         "    [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "}\n"
         "complete -F _xkd xkd");
    return XKD_OK;
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .summary = "print a completion script for a shell",
    .usage = "bash",
    .example = "source <(xkd completion bash)",
    .run = run_completion,
};
