/* What the subcommands of the `xkd` program share: the table they stand in, option parsing, help.
 *
 * A subcommand is one `const struct cli_command cmd_NAME` in cli/cmd_NAME.c, listed in the table of main.c. Its options
 * are a table as well: the parser and --help both read it, so they cannot disagree. Results go to stdout, everything
 * else to stderr; the exit code is an xkd_status (or 128 + signal). */
#ifndef XKD_CLI_H
#define XKD_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xkd/context.h>

struct cli {
    xkd_context *cx;
    const char *program; /* argv[0] of the process, for those that start it again */
    char **argv;         /* the whole line as it was given; ends with NULL */
    xkd_log_level level; /* -q: errors only, default: info, -v: debug */
    bool json;           /* --json: the result is one JSON document on stdout */
    double told;         /* seconds into the work at which a log last heard of its progress */
};

typedef enum {
    CLI_FLAG /* bool */,
    CLI_TEXT /* const char * */,
    CLI_INT /* int64_t */,
    CLI_REAL,  /* double */
    CLI_CHOICE /* int64_t: which of the words of `value`, "a|b|c"; the last one where the option stands alone */
} cli_kind;

/* One option of a command. The table ends with an entry whose name is NULL. */
struct cli_option {
    char letter;       /* short form, 0: none */
    const char *name;  /* long form without "--" */
    cli_kind kind;     /* type of the field behind `offset` */
    size_t offset;     /* of the field in the command's struct of values */
    const char *value; /* placeholder in help, e.g. "DIR"; NULL for flags */
    const char *help;
};

struct cli_command {
    const char *name;
    const char *summary;                          /* one line, for lists */
    const char *usage;                            /* what follows the command's name, e.g. "--data DIR --out RUN" */
    const char *description;                      /* paragraphs; NULL: the summary says it all */
    const char *example;                          /* one or more whole command lines */
    const struct cli_option *options;             /* NULL: only the common ones */
    const struct cli_command *const *subcommands; /* ends with NULL; NULL: none */
    int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the command's name; unused with subcommands */
    bool hidden;
};

/* Of every command; ends like a command's table. */
extern const struct cli_option cli_common_options[];

/* The option of every command that reads data, for its table. */
#define FOLLOW_LINKS_OPTION(VALUES, FIELD)                                                                          \
    {                                                                                                               \
        0, "follow-links", CLI_FLAG, offsetof(VALUES, FIELD), NULL, "follow links that lead out of the data folder" \
    }

/* Parses argv[1..argc-1] by the command's table and the common options into *values (the struct that the offsets
 * belong to, filled with defaults by the caller). What is no option stays in argv[1..*rest]; "--" ends the options.
 * Returns XKD_OK or XKD_ERR_CONFIG with a message in the context. */
xkd_status cli_parse(struct cli *cli, const struct cli_command *command, int argc, char **argv, void *values,
                     int *rest);

/* Refuses arguments that are left over. */
xkd_status cli_no_arguments(struct cli *cli, const struct cli_command *command, int rest, char **argv);

/* All commands of the program, ends with NULL. */
extern const struct cli_command *const cli_commands[];

const struct cli_command *cli_find(const struct cli_command *const *commands, const char *name);

/* Full help of a command on stdout; `path` is how it is called, e.g. "xkd data index". */
void cli_print_help(const char *path, const struct cli_command *command);
void cli_print_overview(void);

/* The log sink of the program: one line on stderr, in which control characters are escaped. */
void cli_log(void *user, xkd_log_level level, const char *line);

/* A name out of files of others for a line on stdout: escaped where that is a terminal, as it is for other programs. */
const char *cli_name(char *buffer, size_t size, const char *name);

/* One line for people on stderr, over a progress bar if there is one; honours -q. Control characters are escaped. */
void cli_say(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Shows `line` as the progress bar of a terminal (NULL removes it). Does nothing when stderr is no terminal. */
void cli_progress(struct cli *cli, const char *line);

/* Where stderr is no terminal: a line of how far `seconds` of work have come, once a minute (or XKD_PROGRESS_SECONDS). */
void cli_progress_plain(struct cli *cli, const char *title, int64_t done, int64_t total, double seconds);

/* Called once, before any thread is made: a thread of its own takes SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP (unless that
 * was ignored), which end the program as they always do. */
void cli_start_signals(void);
/* From now on they are noted instead; a second SIGINT kills at once. */
void cli_catch_signals(void);
/* For work that a signal has stopped and that goes on when the command is given again: says so, in place of the library's
 * error, and gives the status to end with. */
xkd_status cli_stopped(struct cli *cli);
/* Number of the first signal noted, 0: none. */
int cli_signal(void);

extern const struct cli_command cmd_bench;
extern const struct cli_command cmd_bench_data;
extern const struct cli_command cmd_bench_dist;
extern const struct cli_command cmd_bench_embed;
extern const struct cli_command cmd_bench_gemm, cmd_bench_kernels, cmd_bench_optimizer, cmd_bench_step;
extern const struct cli_command cmd_bench_svm;
extern const struct cli_command cmd_completion;
extern const struct cli_command cmd_convert;
extern const struct cli_command cmd_data;
extern const struct cli_command cmd_diff;
extern const struct cli_command cmd_doctor;
extern const struct cli_command cmd_embed;
extern const struct cli_command cmd_eval;
extern const struct cli_command cmd_finetune;
extern const struct cli_command cmd_help;
extern const struct cli_command cmd_inspect;
extern const struct cli_command cmd_knn;
extern const struct cli_command cmd_linear;
extern const struct cli_command cmd_map;
extern const struct cli_command cmd_predict;
extern const struct cli_command cmd_pretrain;
extern const struct cli_command cmd_replay;
extern const struct cli_command cmd_plan;
extern const struct cli_command cmd_report;
extern const struct cli_command cmd_retrieve;
extern const struct cli_command cmd_svm;
extern const struct cli_command cmd_verify;
extern const struct cli_command cmd_version;
extern const struct cli_command cmd_viz, cmd_viz_attention, cmd_viz_recon;

#endif
