/* xkd data stats: counts of a data set and its log-mel mean and deviation. */
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/status.h"
#include "data/index.h"
#include "data/stats.h"
#include "data_args.h"

/* 0: only what the manifest knows. */
struct values {
    const char *config;
    int64_t max_files;
    bool follow_links;
};

static const struct cli_option options[] = {
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (clip length, mel settings)"},
    {0, "max-files", CLI_INT, offsetof(struct values, max_files), "N", "files to listen to (default: 500, 0: none)"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

/* A class without files is a line too: a split may lack it. */
static xkd_status print_classes(xkd_context *cx, const xkd_manifest *m)
{
    int64_t *count = NULL;
    char name[1024];
    xkd_status status = xkd_alloc(cx, &count, m->class_count, sizeof *count);
    if (status != XKD_OK) return status;
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_sample *s = &m->samples[i];
        if (s->label >= 0 && s->label < m->class_count) count[s->label]++;
        for (int64_t k = 0; k < xkd_sample_label_count(s); k++)
            if (s->more->labels[k] < m->class_count) count[s->more->labels[k]]++;
    }
    for (int64_t k = 0; k < m->class_count; k++)
        printf("class %-8" PRId64 " %6" PRId64 "  %s\n", k, count[k], cli_name(name, sizeof name, m->classes[k]));
    xkd_free(count);
    return XKD_OK;
}

static void print_text(const xkd_manifest *m, const xkd_data_stats *s)
{
    printf("files          %" PRId64 " (%" PRId64 " labelled, %" PRId64 " classes)\n", s->files, s->labelled,
           m->class_count);
    printf("sound          %" PRId64 " with, %" PRId64 " without, %" PRId64 " not known\n", s->with_audio,
           s->without_audio, s->unknown_audio);
    if (s->longest > 0) /* no length is known before `data index` or `data check` */
        printf("length         %.2f hours; %.2f to %.2f s a file\n", s->video_hours, s->shortest, s->longest);
    if (s->mel_files)
        printf("log-mel        mean %.6f, deviation %.6f over %" PRId64 " files\n", s->mel_mean, s->mel_std,
               s->mel_files);
    if (s->silent) printf("without sound  %" PRId64 " of the files listened to\n", s->silent);
    if (s->unreadable) printf("unreadable     %" PRId64 " of the files listened to\n", s->unreadable);
}

/* The same numbers in both forms. Which configuration matters: clip length, rate, hop and bands decide the log-mel
 * values. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    /* 500 clips of 4 s are about half an hour of sound. */
    struct values v = {.max_files = 500};
    xkd_config config = {0};
    xkd_manifest manifest = {0};
    xkd_data_stats s;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_stats, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "data stats: which data? (xkd data stats DIR|MANIFEST)");
    XKD_TRY(data_configure(cli, v.config, argv + 2, rest - 1, &config));
    config.data.follow_links |= v.follow_links;
    XKD_TRY(xkd_manifest_load(cx, argv[1], config.data.follow_links, &manifest));
    XKD_TRY(xkd_stats(cx, &manifest, &config.data, v.max_files, &s));
    if (cli->json)
        printf("{\"files\": %" PRId64 ", \"labelled\": %" PRId64 ", \"classes\": %" PRId64 ", \"with_audio\": %" PRId64
               ", \"without_audio\": %" PRId64 ", \"hours\": %.6f, \"mel_files\": %" PRId64
               ", \"mel_mean\": %.6f, \"mel_std\": %.6f}\n",
               s.files, s.labelled, manifest.class_count, s.with_audio, s.without_audio, s.video_hours, s.mel_files,
               s.mel_mean, s.mel_std);
    else
        print_text(&manifest, &s);
    if (!cli->json) XKD_TRY(print_classes(cx, &manifest));
fail:
    xkd_manifest_free(&manifest);
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_data_stats = {
    .name = "stats",
    .summary = "count files, classes and hours, and measure the log-mel mean and deviation",
    .usage = "DIR|MANIFEST [--max-files N]",
    .description =
        "The mean and deviation are what data.mel_mean and data.mel_std want for a data set of its own kind.",
    .example = "xkd data stats videos/manifest.jsonl",
    .options = options,
    .run = run,
};
