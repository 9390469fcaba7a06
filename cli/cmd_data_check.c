/* xkd data check: decodes every file and says what is wrong with it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/status.h"
#include "base/text.h"
#include "data/check.h"
#include "data/index.h"
#include "data_args.h"
#include "ranks.h"

/* workers: threads, each with a process of its own. */
struct values {
    const char *out, *config;
    int64_t workers, hash, ranks;
    bool follow_links;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "FILE",
     "clean manifest (default: clean.jsonl beside the data)"},
    {'c', "config", CLI_TEXT, offsetof(struct values, config), "FILE", "configuration (clip length, time limit)"},
    {0, "workers", CLI_INT, offsetof(struct values, workers), "N",
     "files decoded side by side (default: data.workers)"},
    HASH_OPTION(struct values, hash),
    RANKS_OPTION(struct values, ranks),
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    {0},
};

/* The worst finding of a file is its only one, so each file counts once. */
struct counts {
    int64_t fault[XKD_FAULT_COUNT], slow;
};

/* An object of a JSON list. `fault`: NULL: none. */
static void json_entry(xkd_text *text, bool first, const char *path, const char *fault, const char *message)
{
    xkd_text_puts(text, first ? "{\"path\": " : ", {\"path\": ");
    xkd_text_json_string(text, path);
    if (fault) xkd_text_printf(text, ", \"fault\": \"%s\"", fault);
    xkd_text_puts(text, ", \"message\": ");
    xkd_text_json_string(text, message);
    xkd_text_puts(text, "}");
}

/* Files with a finding, or the slow ones among those in order. */
static void json_list(xkd_text *text, const xkd_manifest *m, const xkd_finding *findings, bool slow)
{
    bool first = true;
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_finding *f = &findings[i];
        bool good = f->fault == XKD_FAULT_NONE;
        if (good != slow || (slow && !f->note[0])) continue;
        json_entry(text, first, m->samples[i].path, slow ? NULL : xkd_media_fault_name(f->fault),
                   slow ? f->note : f->message);
        first = false;
    }
}

/* JSON has all kinds, in the order of their numbers. */
static void report_json(xkd_text *text, const xkd_manifest *m, const xkd_finding *findings, const struct counts *c,
                        const char *out)
{
    xkd_text_puts(text, "{\"findings\": [");
    json_list(text, m, findings, false);
    xkd_text_printf(text, "], \"files\": %" PRId64, m->count);
    for (int k = 0; k < XKD_FAULT_COUNT; k++)
        xkd_text_printf(text, ", \"%s\": %" PRId64, xkd_media_fault_name(k), c->fault[k]);
    xkd_text_printf(text, ", \"slow\": %" PRId64 ", \"slow_files\": [", c->slow);
    json_list(text, m, findings, true);
    xkd_text_puts(text, "], \"clean\": ");
    if (out) xkd_text_json_string(text, out);
    xkd_text_puts(text, out ? "}\n" : "null}\n");
}

/* For people those kinds that occur. */
static void report_lines(xkd_text *text, const xkd_manifest *m, const xkd_finding *findings, const struct counts *c,
                         const char *out)
{
    for (int64_t i = 0; i < m->count; i++) {
        const xkd_finding *f = &findings[i];
        char name[4096], message[800]; /* four bytes for each of 200 */
        bool good = f->fault == XKD_FAULT_NONE;
        if (good && !f->note[0]) continue;
        xkd_text_printf(text, "%-12s %s: %s\n", good ? "slow" : xkd_media_fault_name(f->fault),
                        cli_name(name, sizeof name, m->samples[i].path),
                        cli_name(message, sizeof message, good ? f->note : f->message));
    }
    xkd_text_printf(text, "%" PRId64 " files:", m->count);
    for (int k = 0; k < XKD_FAULT_COUNT; k++)
        if (c->fault[k]) xkd_text_printf(text, " %" PRId64 " %s", c->fault[k], xkd_media_fault_name(k));
    if (c->slow) xkd_text_printf(text, " (%" PRId64 " of them slow)", c->slow);
    xkd_text_printf(text, "\nclean manifest: %s\n", out ? out : "none");
}

/* out: NULL where no manifest will be written. Findings in order of the manifest, then counts by kind. The text is built
 * first, so output is all or nothing. */
static void report(struct cli *cli, const xkd_manifest *m, const xkd_finding *findings, const char *out)
{
    struct counts c = {{0}, 0};
    xkd_text text = xkd_text_make(cli->cx);
    for (int64_t i = 0; i < m->count; i++) {
        c.fault[findings[i].fault]++;
        c.slow += findings[i].fault == XKD_FAULT_NONE && findings[i].note[0];
    }
    (cli->json ? report_json : report_lines)(&text, m, findings, &c, out);
    if (text.status == XKD_OK) fputs(text.data, stdout);
    xkd_text_free(&text);
}

static bool is_in_order(const void *user, const xkd_sample *s, int64_t i)
{
    (void)s;
    return ((const xkd_finding *)user)[i].fault == XKD_FAULT_NONE;
}

/* Takes everything with a finding out of the manifest; returns whether a broken file was among it. The findings
 * stay in the order of the whole list, by which `report` has gone before. */
static bool clean(xkd_manifest *m, const xkd_finding *findings)
{
    bool broken = false;
    /* Short or silent files leave the manifest, but are no failure. */
    for (int64_t i = 0; i < m->count; i++) broken = broken || xkd_fault_is_broken(findings[i].fault);
    xkd_manifest_keep(m, is_in_order, findings);
    return broken;
}

/* Where none are asked for: a manifest that has hashes gets those of the files as they are. */
static int64_t hashes_of(const xkd_manifest *m)
{
    for (int64_t i = 0; i < m->count; i++)
        if (m->samples[i].hashed) return m->samples[i].hashed;
    return XKD_HASH_NONE;
}

static bool is_one_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A manifest of nothing could not be read again, and one of an earlier check would be taken for this one's. `data`, which was
 * checked, stays in any case. */
static xkd_status write_clean(struct cli *cli, const xkd_manifest *m, int64_t all, const char *data, const char *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    char *root = NULL;
    if (m->count == 0) {
        xkd_log(
            cx, XKD_LOG_WARN,
            "none of %" PRId64 " files is in order, and %s is not written: where they are short give a smaller "
            "dataset.clip_duration, where they are silent train with data.audio_policy=silence or on pictures alone",
            all, out);
        return is_one_file(data, out) ? XKD_OK : xkd_remove_file(cx, out);
    }
    /* "." where the file lies in the root: the set can then be moved. */
    XKD_TRY(data_root_text(cli, out, m->root, &root));
    XKD_TRY(xkd_manifest_write(cx, m, out, root));
fail:
    xkd_free(root);
    return status;
}

/* Rank 0 says and writes what all have found. The report is printed even if the clean manifest cannot be written afterwards. */
static xkd_status conclude(struct cli *cli, xkd_manifest *m, const xkd_finding *findings, const char *data,
                           const char *out)
{
    xkd_status status = XKD_OK;
    int64_t all = m->count, good = 0;
    for (int64_t i = 0; i < all; i++) good += findings[i].fault == XKD_FAULT_NONE;
    /* Before the manifest is cut down: findings and samples have the same numbers only until then. */
    report(cli, m, findings, good ? out : NULL);
    bool broken = clean(m, findings);
    XKD_TRY(write_clean(cli, m, all, data, out));
    XKD_TRY(data_check_done(cli, out));
    if (broken) status = XKD_ERR_DATA; /* documented: 3 where broken files were found; the report says which */
fail:
    return status;
}

/* *agreed: all ranks return alike, with what rank 0 has come to. */
static xkd_status check(struct cli *cli, struct values *v, char **arguments, int count, xkd_dist *dist, bool *agreed)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_config config = {0};
    xkd_manifest manifest = {0};
    xkd_finding *findings = NULL;
    char *out = NULL;
    /* The first word is the data, the others KEY=VALUE. */
    XKD_TRY(data_configure(cli, v->config, arguments + 1, count - 1, &config));
    /* Either way of saying it counts. */
    config.data.follow_links = config.data.follow_links || v->follow_links;
    /* A worker process for each processor. */
    if (v->workers == DATA_NOT_GIVEN) v->workers = config.data.workers ? config.data.workers : xkd_processor_count();
    XKD_TRY(xkd_manifest_load(cx, arguments[0], config.data.follow_links, &manifest));
    /* Beside the data by default, where relative paths hold. */
    XKD_TRY(v->out ? xkd_copy_string(cx, &out, v->out) : xkd_join_path(cx, &out, manifest.root, "clean.jsonl"));
    XKD_TRY(xkd_check_folder_of(cx, out)); /* before hours of decoding */
    XKD_TRY(xkd_alloc(cx, &findings, manifest.count, sizeof *findings));
    struct data_progress progress = {cli, "check", xkd_now()};
    xkd_check_options options_of_check = {.decode = true,
                                          .hash = (int)(v->hash == DATA_NOT_GIVEN ? hashes_of(&manifest) : v->hash),
                                          .threads = (int)v->workers,
                                          .dist = dist};
    XKD_TRY(data_check(&progress, &manifest, &config, out, &options_of_check, findings));
    if (xkd_dist_rank(dist) == 0) status = conclude(cli, &manifest, findings, arguments[0], out);
    int32_t code = (int32_t)status;
    XKD_TRY(xkd_dist_broadcast(dist, &code, sizeof code));
    *agreed = true;
    status = (xkd_status)code;
fail:
    xkd_free(findings);
    xkd_free(out);
    xkd_manifest_free(&manifest);
    xkd_config_free(&config);
    return status;
}

/* As one process or several, which all end with the status of rank 0. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.workers = DATA_NOT_GIVEN, .hash = DATA_NOT_GIVEN};
    xkd_dist_place place;
    xkd_dist *dist = NULL;
    double timeout;
    bool launch, agreed = false;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_check, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "data check: which data? (xkd data check DIR|MANIFEST)");
    XKD_TRY(cli_ranks(cli, v.ranks, &place, &launch));
    if (launch) return cli_launch_ranks(cli, v.ranks);
    XKD_TRY(cli_peer_timeout(cli, v.config, argv + 2, rest - 1, &timeout));
    XKD_TRY(cli_join_ranks(cli, &place, timeout, &dist));
    status = check(cli, &v, argv + 1, rest, dist, &agreed);
    status = cli_leave_ranks(cli, dist, status, agreed);
fail:
    return status;
}

const struct cli_command cmd_data_check = {
    .name = "check",
    .summary = "decode every file and report broken, short, silent and out-of-sync ones",
    .usage = "DIR|MANIFEST [--out FILE]",
    .description =
        "Decodes every file completely, names what is wrong with each, and writes a manifest of the good ones, if\n"
        "there are any. Exits with 3 if a file is broken (not if it is only short, silent or out of sync). Ctrl-C\n"
        "keeps in FILE.partial what was found, and the same command continues.",
    .example = "xkd data check videos/",
    .options = options,
    .run = run,
};
