/* What all commands share: parsing of options by their tables, messages on stderr, help texts and
 * signals. Results go to stdout and everything else to stderr, so a result may be piped. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/spelling.h"
#include "base/status.h"
#include "base/text.h"
#include "report/progress.h"
#include "terminal.h"

/* Between lines of progress in a log: few enough to read, often enough to see that it goes on. */
enum { PLAIN_SECONDS = 60 };

/* Options of every command; their fields are in a struct of their own. */
struct common {
    bool quiet, verbose, json, help;
};

/* The list ends with an empty row, as every command's does. */
const struct cli_option cli_common_options[] = {
    {'q', "quiet", CLI_FLAG, offsetof(struct common, quiet), NULL, "log errors only"},
    {'v', "verbose", CLI_FLAG, offsetof(struct common, verbose), NULL, "log more"},
    {0, "json", CLI_FLAG, offsetof(struct common, json), NULL, "print the result as JSON"},
    {'h', "help", CLI_FLAG, offsetof(struct common, help), NULL, "show this help"},
    {0},
};

/* By long name; the word may go on with "=VALUE", hence the length. */
static const struct cli_option *find_long(const struct cli_option *options, const char *name, size_t length)
{
    for (; options && options->name; options++)
        if (strlen(options->name) == length && strncmp(options->name, name, length) == 0) return options;
    return NULL;
}

/* A row without letter has 0 there. */
static const struct cli_option *find_letter(const struct cli_option *options, char letter)
{
    for (; options && options->name; options++)
        if (options->letter && options->letter == letter) return options;
    return NULL;
}

/* Puts the value into the command's struct, in the type its row names. errno catches numbers out of range, the end
 * pointer what follows a number. Numbers are parsed here and their ranges by the commands, which know what they
 * mean. */
static xkd_status store(struct cli *cli, const struct cli_option *option, const char *text, void *values)
{
    char *field = (char *)values + option->offset, *end = NULL;
    errno = 0;
    /* By kind, not by name: the field's type follows from the row. */
    switch (option->kind) {
    case CLI_FLAG: *(bool *)field = true; return XKD_OK;
    case CLI_TEXT: *(const char **)field = text; return XKD_OK;
    case CLI_CHOICE: return XKD_ERR_INTERNAL; /* take_choice has done it */
    case CLI_INT: *(int64_t *)field = strtoll(text, &end, 10); break;
    case CLI_REAL: *(double *)field = strtod(text, &end); break;
    }
    if (end == text || *end || errno)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--%s wants a number, not '%s'", option->name, text);
    return XKD_OK;
}

/* Which of the words "a|b|c" the text is; -1: none. *last: the number of the last one. */
static int64_t choice_of(const char *words, const char *text, int64_t *last)
{
    int64_t found = -1;
    for (*last = 0;; ++*last) {
        size_t length = strcspn(words, "|");
        if (text && strlen(text) == length && !strncmp(words, text, length)) found = *last;
        if (!words[length]) return found;
        words += length + 1;
    }
}

/* The word after an option that may stand alone belongs to it where it is one of its words. */
static xkd_status take_choice(struct cli *cli, const struct cli_option *option, const char *given, char *const *next,
                              int *at, void *into)
{
    int64_t last, number = choice_of(option->value, given ? given : *next, &last);
    if (given && number < 0)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--%s wants one of %s, not '%s'", option->name, option->value, given);
    *at += !given && number >= 0;
    *(int64_t *)(void *)((char *)into + option->offset) = number < 0 ? last : number;
    return XKD_OK;
}

/* With the option that was probably meant, of the command or of all commands. */
static xkd_status unknown_option(struct cli *cli, const struct cli_command *command, const char *given)
{
    const struct cli_option *tables[] = {command->options, cli_common_options};
    const char *best = NULL;
    /* Three typing errors at most; further apart is another word. */
    int distance = 4;
    for (int t = 0; t < 2; t++)
        for (const struct cli_option *o = tables[t]; o && o->name; o++) {
            int d = xkd_edit_distance(given + strspn(given, "-"), o->name, distance);
            if (d < distance) {
                distance = d;
                best = o->name;
            }
        }
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "%s: unknown option '%s'%s%s%s ('--help' lists them)", command->name,
                    given, best ? "; did you mean '--" : "", best ? best : "", best ? "'?" : "");
}

/* Handles the option at argv[*at] and moves *at to the last word it used.
 * Forms: --name VALUE, --name=VALUE, -x VALUE, -xVALUE. Letters are not bundled. The command's own
 * options come before the common ones. */
static xkd_status parse_one(struct cli *cli, const struct cli_command *command, int argc, char **argv, int *at,
                            void *values, struct common *common)
{
    char *word = argv[*at];
    bool is_long = word[1] == '-';
    const char *name = word + 1 + is_long, *equals = is_long ? strchr(name, '=') : NULL;
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    void *into = values;
    const struct cli_option *option =
        is_long ? find_long(command->options, name, length) : find_letter(command->options, *name);
    /* The command's own option wins where both have the letter. */
    if (!option) {
        option = is_long ? find_long(cli_common_options, name, length) : find_letter(cli_common_options, *name);
        into = common;
    }
    if (!option) return unknown_option(cli, command, word);
    if (option->kind == CLI_FLAG) {
        /* -qv would be two flags elsewhere; here it is a mistake, and is told. */
        if (equals || (!is_long && length > 1))
            return xkd_fail(cli->cx, XKD_ERR_CONFIG, "'%s': --%s takes no value", word, option->name);
        return store(cli, option, NULL, into);
    }
    if (option->kind == CLI_CHOICE)
        return take_choice(cli, option, equals ? equals + 1 : NULL, argv + *at + 1, at, into);
    if (equals) return store(cli, option, equals + 1, into);
    if (!is_long && length > 1) return store(cli, option, name + 1, into);
    if (*at + 1 >= argc)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--%s needs a value: %s", option->name, option->value);
    return store(cli, option, argv[++*at], into);
}

/* Warnings must stay readable above a progress bar. Lines name what files of others hold. */
void cli_log(void *user, xkd_log_level level, const char *line)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
    static const char *const colours[] = {"\033[1;31m", "\033[33m", "", "\033[2m"};
    char safe[4 * 9000]; /* the longest message, all escaped */
    bool coloured = terminal_has_colours() && *names[level];
    (void)user;
    /* A progress bar occupies the terminal's last line; it is drawn anew at its next update. */
    fprintf(stderr, "%sxkd: %s%s%s%s\n", terminal_fresh_line(), coloured ? colours[level] : "", names[level],
            coloured ? "\033[0m" : "", xkd_escape(safe, sizeof safe, line, strlen(line), "\n\t"));
}

/* Takes effect after parsing, so that -v may stand anywhere. The log level is set on the context, for the library
 * writes through it as well. */
static void log_level(struct cli *cli, const struct common *common)
{
    cli->json = common->json;
    if (common->quiet) cli->level = XKD_LOG_ERROR;
    if (common->verbose) cli->level = XKD_LOG_DEBUG;
    xkd_context_set_log(cli->cx, cli_log, NULL, cli->level);
}

/* Words that are no options are moved to argv[1] .. argv[*rest], in order, so commands see their
 * arguments alone. Behind "--" everything is an argument; a single "-" is one. */
xkd_status cli_parse(struct cli *cli, const struct cli_command *command, int argc, char **argv, void *values, int *rest)
{
    struct common common = {0};
    bool options = true;
    *rest = 0;
    /* argv[0] is the command's name and stays. */
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1]) {
            xkd_status status = parse_one(cli, command, argc, argv, &i, values, &common);
            if (status != XKD_OK) return status;
        } else
            argv[++*rest] = argv[i];
    }
    log_level(cli, &common);
    return XKD_OK;
}

/* For commands without arguments: a stray word is mostly a forgotten dash. */
xkd_status cli_no_arguments(struct cli *cli, const struct cli_command *command, int rest, char **argv)
{
    if (rest == 0) return XKD_OK;
    return xkd_fail(cli->cx, XKD_ERR_CONFIG, "%s takes no argument '%s' ('--help' shows its use)", command->name,
                    argv[1]);
}

/* Like a log line of level info, but without the program's name. */
void cli_say(struct cli *cli, const char *format, ...)
{
    if (cli->level < XKD_LOG_INFO) return;
    char line[9000], safe[4 * sizeof line];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0) return;
    if (length >= (int)sizeof line) length = (int)sizeof line - 1;
    /* Lines name files of others, whose names may hold anything. */
    fprintf(stderr, "%s%s\n", terminal_fresh_line(), xkd_escape(safe, sizeof safe, line, (size_t)length, "\t"));
}

const char *cli_name(char *buffer, size_t size, const char *name)
{
    return isatty(STDOUT_FILENO) ? xkd_escape(buffer, size, name, strlen(name), "") : name;
}

/* Only where somebody is looking; NULL removes the bar. */
void cli_progress(struct cli *cli, const char *line)
{
    if (cli->level >= XKD_LOG_INFO && terminal_on_stderr()) terminal_draw(line);
}

/* Elsewhere a line from time to time, for logs. */
void cli_progress_plain(struct cli *cli, const char *title, int64_t done, int64_t total, double seconds)
{
    const char *every = getenv("XKD_PROGRESS_SECONDS");
    double distance = every ? atof(every) : PLAIN_SECONDS;
    char left[32];
    if (terminal_on_stderr() || done <= 0 || done >= total || seconds - cli->told < distance) return;
    cli->told = seconds;
    xkd_format_duration(left, sizeof left, seconds / (double)done * (double)(total - done));
    cli_say(cli, "%s: %" PRId64 " of %" PRId64 " (%.0f %%), ETA %s", title, done, total,
            100 * (double)done / (double)total, left);
}

/* Two columns: how to write it, what it does. */
static void print_options(const struct cli_option *options)
{
    for (; options && options->name; options++) {
        char left[64];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", options->letter ? "-" : " ",
                 options->letter ? options->letter : ' ', options->letter ? ", " : "  ", options->name,
                 options->value ? " " : "", options->value ? options->value : "");
        printf("  %-28s %s\n", left, options->help);
    }
}

/* Hidden commands work, but are not advertised. */
static void print_commands(const struct cli_command *const *commands)
{
    for (; *commands; commands++)
        if (!(*commands)->hidden) printf("  %-12s %s\n", (*commands)->name, (*commands)->summary);
}

/* The same tables as for parsing, so help and parser agree. */
void cli_print_help(const char *path, const struct cli_command *command)
{
    printf("%s - %s\n\nUsage: %s %s\n", path, command->summary, path,
           command->subcommands ? "COMMAND ..."
           : command->usage     ? command->usage
                                : "");
    if (command->description) printf("\n%s\n", command->description);
    if (command->subcommands) {
        puts("\nCommands:");
        print_commands(command->subcommands);
    }
    puts("\nOptions:");
    /* Options of the command before those of all commands, as the parser looks them up. */
    print_options(command->options);
    print_options(cli_common_options);
    if (command->example) printf("\nExample:\n  %s\n", command->example);
}

/* Shown without a command and by --help. */
void cli_print_overview(void)
{
    puts("xkd - self-supervised pre-training of video and audio encoders (XKD)\n\n"
         "Usage: xkd COMMAND [OPTION ...] [KEY=VALUE ...]\n\nCommands:");
    print_commands(cli_commands);
    puts("\n'xkd COMMAND --help' explains a command, 'xkd help options' all configuration keys.\n"
         "Results go to stdout, logs to stderr. Exit codes: 0 ok, 1 internal, 2 usage or config, 3 data,\n"
         "4 checkpoint, 5 storage, 6 numeric, 7 peer lost, 8 memory, 9 device, 75 preempted and saved.\n\n"
         "Example:\n  xkd pretrain --data videos/ --out runs/first");
}

/* The first signal received, 0: none; whether a command asks for it instead of being ended. */
static _Atomic int caught;
static _Atomic bool heeded;

/* What they do without this program's doing: a shell, or a program that waits for this one, sees the signal. */
static void end_by(int number)
{
    sigset_t one;
    signal(number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, number);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
}

/* Waits for signals in a thread of its own, so that no handler runs on a thread that computes, and a signal is heard however
 * long a loop takes. (With handlers, oneDNN 2.6.3's generated code, which `bench` still measures, broke the heap in about
 * 1 of 20 stopped runs.) sigwait needs the signals blocked in every thread, and does not care which one takes them. */
static void *wait_for_signals(void *argument)
{
    sigset_t *set = argument;
    for (int number; sigwait(set, &number) == 0;) {
        if (!heeded) end_by(number);
        /* The first Ctrl-C asks the run to stop after its step; the second one means now.
         * Without clean-up: files are published in one step, so none is left half written. */
        if (number == SIGINT && caught) _exit(128 + SIGINT);
        if (!caught) caught = number;
    }
    return NULL;
}

/* The set is static, for the thread reads it until the program ends. If the thread cannot be made, signals keep their usual
 * effect. */
void cli_start_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP};
    static sigset_t set;
    pthread_t thread;
    struct sigaction action = {.sa_handler = SIG_DFL}, before;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        /* nohup has SIGHUP ignored, and means it. */
        bool ignored = sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (numbers[i] == SIGHUP && ignored) continue;
        sigaddset(&set, numbers[i]);
        /* Shells start background jobs with SIGINT ignored, and ignored signals never become pending. */
        sigaction(numbers[i], &action, NULL);
    }
    /* A file that grows beyond "ulimit -f" is an error of its own writer, who says so. */
    signal(SIGXFSZ, SIG_IGN);
    /* Threads made from here on inherit the mask. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_signals, &set) == 0)
        pthread_detach(thread);
    else
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void cli_catch_signals(void)
{
    heeded = true;
}

/* As for trainings: 75 asks a scheduler to start the job again, Ctrl-C does not. */
xkd_status cli_stopped(struct cli *cli)
{
    cli_progress(cli, NULL);
    cli_say(cli, "stopped; the same command goes on");
    xkd_clear_error(cli->cx);
    return cli_signal() == SIGINT ? XKD_ERR_INTERRUPTED : XKD_ERR_PREEMPTED;
}

int cli_signal(void)
{
    return caught;
}
