/* xkd report: the page of a run made anew from its folder, or a comparison of several. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/text.h"
#include "cli.h"
#include "report/html.h"

struct values {
    const char *out;
};

static const struct cli_option options[] = {
    {'o', "out", CLI_TEXT, offsetof(struct values, out), "FILE", "page to write (default: RUN/report.html)"},
    {0},
};

static xkd_status print_path(struct cli *cli, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_text json = xkd_text_make(cli->cx);
    char name[4096];
    xkd_text_puts(&json, "{\"report\": ");
    xkd_text_json_string(&json, path);
    xkd_text_puts(&json, "}");
    status = json.status;
    if (status == XKD_OK) puts(cli->json ? json.data : cli_name(name, sizeof name, path));
    xkd_text_free(&json);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    struct values v = {0};
    char *path = NULL;
    int rest = 0;
    XKD_TRY(cli_parse(cli, &cmd_report, argc, argv, &v, &rest));
    if (rest < 1) XKD_FAIL(XKD_ERR_CONFIG, "report: name the folder of a run (xkd report runs/first)");
    if (rest > 1 && !v.out) XKD_FAIL(XKD_ERR_CONFIG, "report: a comparison of runs needs --out FILE");
    if (v.out) XKD_TRY(xkd_check_folder_of(cx, v.out));
    if (rest == 1)
        XKD_TRY(xkd_report_write(cx, argv[1], 0, v.out));
    else
        XKD_TRY(xkd_report_compare(cx, argv + 1, rest, v.out));
    if (!v.out) XKD_TRY(xkd_join_path(cx, &path, argv[1], "report.html"));
    XKD_TRY(print_path(cli, v.out ? v.out : path));
fail:
    xkd_free(path);
    return status;
}

const struct cli_command cmd_report = {
    .name = "report",
    .summary = "make a run's page again, or compare several runs on one page",
    .usage = "RUN... [--out FILE]",
    .description = "Of one run: verdict, curves, pictures, figures, unreadable files and configuration, also while it "
                   "runs or after\n"
                   "it was killed. Of several: what their configurations differ in, their figures, and their curves "
                   "over each other.\n"
                   "The page is one file and fetches nothing.",
    .example = "xkd report runs/first\nxkd report runs/first runs/second --out comparison.html",
    .options = options,
    .run = run,
};
