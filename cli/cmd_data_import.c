/* xkd data import: a data set as it comes -> manifest. The importers themselves are in data/import.c; here is what is
 * asked and what is said. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "data/import.h"
#include "data/links.h"
#include "data_args.h"

struct values {
    const char *out;
    int64_t fold, classes;
    bool partial;
    bool follow_links;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "M", "manifest to write"},
    {0, "fold", CLI_INT, offsetof(struct values, fold), "N", "fold of UCF101, HMDB51, ESC50 (default: 1)"},
    {0, "classes", CLI_INT, offsetof(struct values, classes), "N", "Kinetics-Sound: 32 or 31 classes (default: 32)"},
    {0, "partial", CLI_FLAG, offsetof(struct values, partial), NULL,
     "accept other counts and any number of absent files"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

/* Counts by split, where it first occurs: the quickest way to see that lists and folders fit together. */
static xkd_status print_splits(xkd_context *cx, const xkd_manifest *m)
{
    xkd_status status = XKD_OK;
    xkd_manifest names = {0}; /* its table of classes finds them */
    int64_t *count = NULL, capacity = 0, split;
    for (int64_t i = 0; i < m->count; i++) {
        XKD_TRY(xkd_manifest_class(cx, &names, m->samples[i].split, true, &split));
        XKD_TRY(xkd_reserve(cx, &count, split, &capacity, sizeof *count));
        count[split]++;
    }
    for (int64_t k = 0; k < names.class_count; k++) printf("  %-14s %" PRId64 "\n", names.classes[k], count[k]);
fail:
    xkd_free(count);
    xkd_manifest_free(&names);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.fold = 1, .classes = 32};
    xkd_manifest m = {0};
    xkd_config config = {0};
    xkd_import_result result = {0};
    xkd_text text = xkd_text_make(cx);
    char *root = NULL;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_import, argc, argv, &v, &rest));
    if (rest < 2 || !v.out) XKD_FAIL(XKD_ERR_CONFIG, "data import: want NAME ROOT --out M ('--help' lists the names)");
    /* Checked whatever the set, so that a typing error never passes unseen. */
    if (v.classes != 31 && v.classes != 32) XKD_FAIL(XKD_ERR_CONFIG, "data import: --classes 31 or 32");
    XKD_TRY(data_configure(cli, NULL, argv + 3, rest - 2, &config));
    xkd_import_options o = {v.fold, v.partial, v.classes, config.data.max_absent_fraction};
    XKD_TRY(xkd_import(cx, argv[1], argv[2], &o, &m, &result));
    XKD_TRY(xkd_manifest_check_links(cx, &m, config.data.follow_links || v.follow_links, &m.follow_links));
    XKD_TRY(data_root_text(cli, v.out, m.root, &root));
    XKD_TRY(xkd_manifest_write(cx, &m, v.out, root));
    XKD_TRY(data_tell_missing(cli, &result, v.out));
    /* JSON for scripts has no splits: they are in the manifest. */
    if (cli->json) {
        xkd_text_puts(&text, "{\"out\": ");
        xkd_text_json_string(&text, v.out);
        xkd_text_printf(&text, ", \"files\": %" PRId64 ", \"classes\": %" PRId64 ", \"missing\": %" PRId64 "}\n",
                        m.count, m.class_count, result.counts.missing);
        XKD_TRY(text.status);
        fputs(text.data, stdout);
    } else {
        printf("%s: %" PRId64 " files, %" PRId64 " classes, %" PRId64 " missing\n", v.out, m.count, m.class_count,
               result.counts.missing);
    }
    if (!cli->json) XKD_TRY(print_splits(cx, &m));
fail:
    xkd_text_free(&text);
    xkd_free(root);
    xkd_import_result_free(&result);
    xkd_manifest_free(&m);
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_data_import = {
    .name = "import",
    .summary = "write the manifest of UCF101, HMDB51, Kinetics400, Kinetics-Sound, ESC50, FSD50K or AudioSet",
    .usage = "NAME ROOT --out M [--fold N] [data.max_absent_fraction=X]",
    .description =
        "ROOT is the data set as it was unpacked; nothing in it is changed. Splits are named as the released\n"
        "configurations name them: trainlist01, test-split2, train-3, train, val, test. Listed files that are absent\n"
        "are named, all of them in M.missing; more than data.max_absent_fraction of them is exit 3: 1 %, of "
        "Kinetics400,\n"
        "Kinetics-Sound and AudioSet, which lose videos with every year, 15 %.",
    .example = "xkd data import UCF101 /data/ucf101 --fold 1 --out ucf101-1.jsonl",
    .options = options,
    .run = run,
};
