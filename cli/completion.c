/* Scripts for three shells. Commands and their options come from the tables; where nothing of them fits, files do. */
#include "completion.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "config/options.h"

/* Whether KEY=VALUE may stand behind the command. */
static bool takes_keys(const struct cli_command *c)
{
    return c->usage && strcasestr(c->usage, "key=value");
}

/* Keys that do something, each followed by `end`. */
static void print_keys(const char *end)
{
    for (int i = 0; i < xkd_option_count(); i++)
        if (xkd_option_at(i)->kind != XKD_OPTION_IGNORED) printf("%s%s", xkd_option_at(i)->key, end);
}

/* Text between single quotes of any of the three shells, without what `special` names. */
static void print_quoted(const char *text, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == '\n')
            putchar(' ');
        else
            printf(strchr(special, *text) ? "\\%c" : "%c", *text);
    }
}

/* ---- bash ---- */

/* Options of one command as words of the shell. No key or option holds a blank. */
static void print_bash_words(const struct cli_command *c)
{
    for (const struct cli_option *o = c->options; o && o->name; o++) printf("--%s ", o->name);
    for (const struct cli_option *o = cli_common_options; o->name; o++) printf("--%s ", o->name);
}

/* One branch of the script's case per command and subcommand. */
static void print_bash_cases(const char *path, const struct cli_command *const *commands)
{
    char deeper[128];
    for (; *commands; commands++) {
        const struct cli_command *c = *commands;
        if (c->hidden) continue;
        snprintf(deeper, sizeof deeper, "%s %s", path, c->name);
        /* Names begin with a blank, which the case's pattern must not have. */
        printf("        \"%s\") words=\"", deeper + 1);
        for (const struct cli_command *const *sub = c->subcommands; sub && *sub; sub++) printf("%s ", (*sub)->name);
        print_bash_words(c);
        printf("\"%s ;;\n", takes_keys(c) ? "; words=\"$words $keys\"" : "");
        if (c->subcommands) print_bash_cases(deeper, c->subcommands);
    }
}

static void print_bash(void)
{
    printf("# bash completion of xkd; put it into /etc/bash_completion.d or source it\n"
           "_xkd() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=\"\" keys=\"");
    print_keys("= ");
    puts("\"\n"
         "    case \"$command\" in");
    printf("        ");
    int groups = 0;
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        if ((*c)->subcommands && !(*c)->hidden) printf("%s%s", groups++ ? "|" : "", (*c)->name);
    puts(") [[ $COMP_CWORD -gt 2 ]] && command=\"$command ${COMP_WORDS[2]}\" ;;\n    esac\n"
         "    if [[ $COMP_CWORD -eq 1 ]]; then");
    printf("        words=\"");
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        if (!(*c)->hidden) printf("%s ", (*c)->name);
    puts("--help\"\n    else\n        case \"$command\" in");
    print_bash_cases("", cli_commands);
    puts("        esac\n"
         "    fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
         "    [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "}\n"
         "complete -F _xkd xkd");
}

/* ---- zsh ---- */

/* "a|b" as zsh wants it: (a b). */
static void print_words(const char *words)
{
    putchar('(');
    for (; *words; words++) putchar(*words == '|' ? ' ' : *words);
    putchar(')');
}

static void print_zsh_options(const struct cli_option *o)
{
    for (; o && o->name; o++) {
        printf(" \\\n                '--%s%s[", o->name, o->value ? "=" : "");
        print_quoted(o->help, "[]\\");
        printf("]");
        if (o->value) {
            printf(":");
            print_quoted(o->value, ":\\");
            printf(":%s", o->kind == CLI_TEXT ? "_files" : "");
            if (o->kind == CLI_CHOICE) print_words(o->value);
        }
        printf("'");
    }
}

/* A list of names with their summaries. */
static void print_zsh_names(const struct cli_command *const *commands)
{
    for (; *commands; commands++) {
        if ((*commands)->hidden) continue;
        printf(" '%s:", (*commands)->name);
        print_quoted((*commands)->summary, ":\\");
        printf("'");
    }
}

static void print_zsh_cases(const char *path, const struct cli_command *const *commands)
{
    char deeper[128];
    for (; *commands; commands++) {
        const struct cli_command *c = *commands;
        if (c->hidden) continue;
        snprintf(deeper, sizeof deeper, "%s %s", path, c->name);
        printf("        '%s')\n", deeper + 1);
        if (c->subcommands) {
            printf("            names=(");
            print_zsh_names(c->subcommands);
            puts(")\n            _describe command names ;;");
            print_zsh_cases(deeper, c->subcommands);
            continue;
        }
        printf("            _arguments -s");
        print_zsh_options(c->options);
        print_zsh_options(cli_common_options);
        printf(" \\\n                '*:file:%s' ;;\n", takes_keys(c) ? "_xkd_files_or_keys" : "_files");
    }
}

static void print_zsh(void)
{
    printf("#compdef xkd\n# zsh completion of xkd; put it into a folder of $fpath as _xkd\n"
           "_xkd_files_or_keys() {\n    local -a keys=(");
    print_keys("= ");
    puts(")\n    compadd -S '' -a keys\n    _files\n}\n"
         "_xkd() {\n    local -a names\n    local command=$words[2]\n    if (( CURRENT == 2 )); then");
    printf("        names=(");
    print_zsh_names(cli_commands);
    puts(")\n        _describe command names\n        return\n    fi\n"
         "    words=(${words[2,-1]})\n    (( CURRENT-- ))\n    case $command in");
    printf("        ");
    int groups = 0;
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        if ((*c)->subcommands && !(*c)->hidden) printf("%s%s", groups++ ? "|" : "", (*c)->name);
    puts(")\n            if (( CURRENT > 2 )); then\n"
         "                command+=\" $words[2]\"\n                words=(${words[2,-1]})\n                (( "
         "CURRENT-- ))\n"
         "            fi ;;\n    esac\n    case $command in");
    print_zsh_cases("", cli_commands);
    puts("    esac\n}\n_xkd \"$@\"");
}

/* ---- fish ---- */

/* `when`: the condition under which the rows of this level are offered. */
static void print_fish_options(const char *when, const struct cli_option *o)
{
    for (; o && o->name; o++) {
        printf("complete -c xkd -n '%s' -l %s", when, o->name);
        if (o->letter) printf(" -s %c", o->letter);
        printf("%s -d '", !o->value ? "" : o->kind == CLI_TEXT ? " -r -F" : " -x");
        /* fish knows \' inside of single quotes, and nothing else. */
        for (const char *c = o->help; *c; c++) printf(*c == '\'' || *c == '\\' ? "\\%c" : "%c", *c);
        puts("'");
    }
}

static void print_fish_name(const char *when, const struct cli_command *c)
{
    printf("complete -c xkd -f -n '%s' -a %s -d '", when, c->name);
    for (const char *s = c->summary; *s; s++) printf(*s == '\'' || *s == '\\' ? "\\%c" : "%c", *s);
    puts("'");
}

static void print_fish_command(const char *when, const struct cli_command *c)
{
    print_fish_options(when, c->options);
    print_fish_options(when, cli_common_options);
    if (takes_keys(c)) printf("complete -c xkd -n '%s' -a '(__xkd_keys)'\n", when);
}

static void print_fish(void)
{
    char when[256];
    printf(
        "# fish completion of xkd; put it into ~/.config/fish/completions\nfunction __xkd_keys\n    printf '%%s\\n' ");
    print_keys("= ");
    puts("\nend\n"
         "# The words that are no options begin with these.\n"
         "function __xkd_at\n    set -l words\n"
         "    for word in (commandline -opc)[2..-1]\n        string match -q -- '-*' $word; or set -a words $word\n    "
         "end\n"
         "    test (count $words) -ge (count $argv); or return 1\n"
         "    for i in (seq (count $argv))\n        test \"$words[$i]\" = \"$argv[$i]\"; or return 1\n    end\nend");
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        if ((*c)->hidden) continue;
        print_fish_name("__fish_use_subcommand", *c);
        for (const struct cli_command *const *sub = (*c)->subcommands; sub && *sub; sub++) {
            /* Offered as long as no subcommand stands there. */
            snprintf(when, sizeof when, "__xkd_at %s; and test (count (commandline -opc)) -eq 2", (*c)->name);
            print_fish_name(when, *sub);
            snprintf(when, sizeof when, "__xkd_at %s %s", (*c)->name, (*sub)->name);
            print_fish_command(when, *sub);
        }
        snprintf(when, sizeof when, "__xkd_at %s", (*c)->name);
        if (!(*c)->subcommands) print_fish_command(when, *c);
    }
}

bool completion_print(const char *shell)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (strcmp(shells[i].name, shell) == 0) {
            shells[i].print();
            return true;
        }
    return false;
}
