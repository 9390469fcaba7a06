/* xkd data index: a folder or list of videos -> manifest. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/status.h"
#include "data/check.h"
#include "data/index.h"
#include "data/list.h"
#include "data/links.h"
#include "data/tar.h"
#include "data_args.h"

/* Without hash contents are not read beyond their headers; no_hash: what earlier versions needed for that. */
struct values {
    const char *out, *root;
    int64_t workers, hash;
    bool follow_links, no_hash, no_probe;
};

/* Nothing is decoded: a folder of a million files takes as long as reading their headers. */
static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "FILE", "manifest to write (default: DIR/manifest.jsonl)"},
    {0, "root", CLI_TEXT, offsetof(struct values, root), "DIR",
     "folder a list's paths are relative to (default: its own)"},
    {0, "workers", CLI_INT, offsetof(struct values, workers), "N",
     "files looked at side by side (default: data.workers)"},
    FOLLOW_LINKS_OPTION(struct values, follow_links),
    HASH_OPTION(struct values, hash),
    {0, "no-probe", CLI_FLAG, offsetof(struct values, no_probe), NULL,
     "open no file: note names, sizes and times alone; streams and lengths are found by the first clip"},
    {0, "no-hash", CLI_FLAG, offsetof(struct values, no_hash), NULL, "as --hash none"},
    {0},
};

/* A folder is scanned, a file is taken as a list; the manifest lands where the paths are relative to. */
static xkd_status gather(struct cli *cli, const struct values *v, const char *source, xkd_manifest *m, char **out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    char *folder = NULL, *understood = NULL;
    int64_t skipped = 0;
    if (xkd_is_folder(source)) {
        XKD_TRY(xkd_index_folder(cx, source, v->follow_links, m, &skipped));
        /* Told, since a set of an unknown ending would look empty. */
        if (skipped) cli_say(cli, "%" PRId64 " files without a media extension left out", skipped);
        XKD_TRY(v->out ? xkd_copy_string(cx, out, v->out) : xkd_join_path(cx, out, source, "manifest.jsonl"));
    } else if (xkd_is_archive_name(source) && xkd_path_exists(source)) {
        XKD_TRY(xkd_index_archive(cx, source, v->follow_links, m));
        XKD_TRY(v->out ? xkd_copy_string(cx, out, v->out) : xkd_format_string(cx, out, "%s.jsonl", source));
    } else {
        if (!xkd_path_exists(source)) XKD_FAIL(XKD_ERR_DATA, "%s: no such folder or list (check the path)", source);
        XKD_TRY(xkd_copy_string(cx, &folder, source));
        char *slash = strrchr(folder, '/');
        if (slash) slash[slash == folder] = 0; /* "/" for a list in the root folder */
        /* Paths of a list are relative to the list, unless --root says otherwise. */
        const char *root = v->root ? v->root : slash ? folder : ".";
        XKD_TRY(xkd_index_list(cx, source, root, m, &understood));
        cli_say(cli, "%s", understood);
        XKD_TRY(v->out ? xkd_copy_string(cx, out, v->out) : xkd_join_path(cx, out, root, "manifest.jsonl"));
    }
fail:
    xkd_free(folder);
    xkd_free(understood);
    return status;
}

struct dropping {
    struct cli *cli;
    const xkd_finding *findings;
};

/* Sound files without picture stay in the manifest, and `data check` reports them. */
static bool can_be_used(const void *user, const xkd_sample *s, int64_t i)
{
    const struct dropping *d = user;
    const xkd_finding *f = &d->findings[i];
    if (!xkd_fault_is_broken(f->fault) || f->fault == XKD_FAULT_NO_VIDEO) return true;
    /* Each by name: a manifest that is a little too short is the kind of error nobody finds later. */
    cli_say(d->cli, "left out: %s: %s: %s", s->path, xkd_media_fault_name(f->fault), f->message);
    return false;
}

/* A list says what should be there, so much less than that is refused; in a folder whatever is found is all. */
static xkd_status check_list(struct cli *cli, const char *list, const char *out, int64_t listed, int64_t dropped,
                             double most)
{
    if (xkd_is_folder(list) || dropped <= xkd_most_broken(most, listed)) return XKD_OK;
    return xkd_fail(
        cli->cx, XKD_ERR_DATA,
        "%s: %" PRId64 " of %" PRId64
        " listed files are absent or cannot be read, more than data.max_bad_fraction=%g allows "
        "(data.max_bad_fraction=1 takes what is left; %s.partial keeps what was found, so that no file is read again)",
        list, dropped, listed, most, out);
}

/* A summary on stdout, the manifest in its file. */
static xkd_status write(struct cli *cli, const xkd_manifest *m, const xkd_data_config *data, const char *out,
                        int64_t dropped)
{
    xkd_status status = XKD_OK;
    char *root = NULL;
    int64_t silent = 0, unknown = 0;
    double hours = 0;
    XKD_TRY(data_root_text(cli, out, m->root, &root));
    XKD_TRY(xkd_manifest_write(cli->cx, m, out, root));
    for (int64_t i = 0; i < m->count; i++) {
        silent += m->samples[i].has_audio == 0;
        unknown += !m->samples[i].measured;
        hours += xkd_sample_seconds(&m->samples[i], data->left_out) / 3600;
    }
    silent = data->left_out[XKD_AUDIO] ? 0 : silent; /* where pictures alone count, that is nobody's concern */
    if (cli->json)
        printf("{\"files\": %" PRId64 ", \"classes\": %" PRId64 ", \"hours\": %.4f, \"without_sound\": %" PRId64
               ", \"left_out\": %" PRId64 ", \"length_unknown\": %" PRId64 "}\n",
               m->count, m->class_count, hours, silent, dropped, unknown);
    else
        printf("%s: %" PRId64 " files, %" PRId64 " classes, %.2f hours, %" PRId64 " without sound, %" PRId64
               " left out\n",
               out, m->count, m->class_count, hours, silent, dropped);
    if (unknown)
        cli_say(cli, "the length of %" PRId64 " files is unknown and not among the hours; their first clip finds it",
                unknown);
fail:
    xkd_free(root);
    return status;
}

/* Without decoding: only headers are read, and contents where hashes are wanted. A file is known by name, size and time
 * of change without them. */
static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {.workers = DATA_NOT_GIVEN};
    xkd_config config = {0};
    xkd_manifest manifest = {0};
    xkd_finding *findings = NULL;
    char *out = NULL;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_data_index, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "data index: which folder? (xkd data index DIR)");
    XKD_TRY(data_configure(cli, NULL, argv + 2, rest - 1, &config));
    /* Either way of saying it counts. */
    v.follow_links = config.data.follow_links = config.data.follow_links || v.follow_links;
    if (v.no_probe && v.hash != XKD_HASH_NONE)
        XKD_FAIL(XKD_ERR_CONFIG, "data index: --no-probe opens no file, and so --hash cannot read any: leave one out");
    if (v.workers == DATA_NOT_GIVEN) v.workers = config.data.workers ? config.data.workers : xkd_processor_count();
    XKD_TRY(gather(cli, &v, argv[1], &manifest, &out));
    XKD_TRY(xkd_check_folder_of(cx, out)); /* before hours of reading */
    XKD_TRY(xkd_alloc(cx, &findings, manifest.count, sizeof *findings));
    struct data_progress progress = {cli, "index", xkd_now()};
    xkd_check_options check = {
        .hash = v.no_hash ? XKD_HASH_NONE : (int)v.hash, .names_only = v.no_probe, .threads = (int)v.workers};
    XKD_TRY(data_check(&progress, &manifest, &config, out, &check, findings));
    const struct dropping dropping = {cli, findings};
    int64_t count = manifest.count, dropped = xkd_manifest_keep(&manifest, can_be_used, &dropping);
    if (manifest.count == 0)
        XKD_FAIL(XKD_ERR_DATA,
                 "%s: no file in it can be read as video or sound (the warnings above say why; docs/media-formats.md "
                 "lists what is read)",
                 argv[1]);
    if (config.data.follow_links) XKD_TRY(xkd_manifest_check_links(cx, &manifest, true, &manifest.follow_links));
    XKD_TRY(check_list(cli, argv[1], out, count, dropped, config.data.max_bad_fraction));
    XKD_TRY(write(cli, &manifest, &config.data, out, dropped));
    XKD_TRY(data_check_done(cli, out));
fail:
    xkd_free(findings);
    xkd_free(out);
    xkd_manifest_free(&manifest);
    xkd_config_free(&config);
    return status;
}

const struct cli_command cmd_data_index = {
    .name = "index",
    .summary = "write the manifest of a folder of videos",
    .usage = "DIR|LIST [--out FILE] [data.max_bad_fraction=X]",
    .description =
        "DIR holds a folder per class, or train/ and test/ with a folder per class each, or just files.\n"
        "LIST is a CSV file of any dialect, or lines \"path label\" (docs/lists.md); the command says how it read it.\n"
        "The manifest (JSON, a line for each file) holds path, label, split, durations, sizes and rates, and with\n"
        "--hash also a hash of the contents. --no-probe opens no file and takes 20 000 files a second and more.\n"
        "Files that cannot be opened as media are named and left out, but at most data.max_bad_fraction of a LIST,\n"
        "or 10; 'xkd data check' decodes all files. Ctrl-C keeps in FILE.partial what was found, and the same command\n"
        "continues.",
    .example = "xkd data index videos/",
    .options = options,
    .run = run,
};
