/* What the `xkd data` commands share: configuration from file and overrides, a progress line, where a manifest's root is. */
#ifndef XKD_CLI_DATA_ARGS_H
#define XKD_CLI_DATA_ARGS_H

#include "cli.h"
#include "config/config.h"
#include "data/check.h"
#include "data/import.h"
#include "data/manifest.h"

/* Of a number on the command line: nobody types it. */
#define DATA_NOT_GIVEN INT64_MIN

/* --hash of the commands that look at files. */
#define HASH_OPTION(VALUES, FIELD)                                                                         \
    {                                                                                                      \
        0, "hash", CLI_CHOICE, offsetof(VALUES, FIELD), "none|head|full",                                  \
            "note a hash of each file: head reads its first and last 64 KiB, full all of it (alone: full)" \
    }

/* Defaults, then `file` (may be NULL), then KEY=VALUE overrides. The caller frees *config in any case. */
xkd_status data_configure(struct cli *cli, const char *file, char **overrides, int count, xkd_config *config);

struct data_progress {
    struct cli *cli;
    const char *title;
    double start;
};

/* Progress callback: user is a struct data_progress. */
void data_show_progress(void *user, int64_t done, int64_t total);

/* xkd_check with a progress bar and signals. What is found stands in OUT.partial until data_check_done; a stop says how to go
 * on and gives the status to end with. *options: what the command wants, the callbacks are filled in. */
xkd_status data_check(struct data_progress *progress, xkd_manifest *manifest, const xkd_config *config, const char *out,
                      xkd_check_options *options, xkd_finding *findings);
/* The result is written: the log goes. */
xkd_status data_check_done(struct cli *cli, const char *out);

/* What a manifest at `path` must say for samples below `root`: "." or the absolute path. The caller frees *out. */
xkd_status data_root_text(struct cli *cli, const char *path, const char *root, char **out);

/* Says on stderr which listed files are not there and writes all their names to MANIFEST.missing, a line each; where none
 * is missing, such a file of a former import is removed. */
xkd_status data_tell_missing(struct cli *cli, const xkd_import_result *result, const char *manifest);

extern const struct cli_command cmd_data_import, cmd_data_index, cmd_data_check, cmd_data_stats, cmd_data_show,
    cmd_data_synth, cmd_data_pack, cmd_data_unpack;

#endif
