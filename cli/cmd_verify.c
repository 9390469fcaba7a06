/* xkd verify: every rule of the format, checksums, and numbers that are not finite. */
#include <inttypes.h>
#include <stdio.h>

#include "base/status.h"
#include "checkpoint/tensor_file.h"
#include "cli.h"
#include "tensor_args.h"

struct values {
    int64_t header_limit;
};

static const struct cli_option options[] = {
    HEADER_LIMIT_OPTION(header_limit),
    {0},
};

/* Opening checks every rule of the format and all checksums; what is left are the numbers themselves. */
static xkd_status verify(struct cli *cli, int64_t header_limit, const char *path)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    xkd_tensor_file file;
    int64_t tensors = 0, elements = 0;
    const char *first = NULL;
    XKD_TRY(tensor_args_open(cx, header_limit, path, &file));
    for (int64_t i = 0; i < file.count; i++) {
        const xkd_stored_tensor *t = &file.tensors[i];
        /* Infinities and NaN are what a broken training leaves behind; they load without complaint everywhere. */
        int64_t bad = xkd_count_non_finite(t->dtype, t->data, xkd_shape_count(&t->shape));
        if (!bad) continue;
        /* One name helps to find the rest. */
        if (!first) first = t->name;
        tensors++;
        elements += bad;
    }
    if (tensors)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: %" PRId64 " elements of %" PRId64 " tensors are not finite, first in %s",
                 file.path, elements, tensors, first);
    if (cli->json)
        printf("{\"ok\": true, \"tensors\": %" PRId64 ", \"checksummed\": %s}\n", file.count,
               file.checksummed ? "true" : "false");
    else
        printf("%s: ok, %s, %" PRId64 " tensors, all finite, %s\n", file.path, xkd_file_kind_name(file.kind),
               file.count, file.checksummed ? "checksums agree" : "no checksums in this file");
fail:
    xkd_tensor_file_close(&file);
    return status;
}

/* Stops at the first bad file, whose status becomes the exit code. */
static int run(struct cli *cli, int argc, char **argv)
{
    struct values v = {0};
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_verify, argc, argv, &v, &rest);
    if (status != XKD_OK) return status;
    if (rest < 1) return xkd_fail(cli->cx, XKD_ERR_CONFIG, "verify needs a file (see 'xkd verify --help')");
    for (int i = 1; i <= rest && status == XKD_OK; i++) status = verify(cli, v.header_limit, argv[i]);
    return status;
}

const struct cli_command cmd_verify = {
    .name = "verify",
    .summary = "check a tensor file by every rule of its format, its checksums and for non-finite numbers",
    .usage = "FILE|RUN...",
    .description = "Of a run folder the newest checkpoint is checked.",
    .example = "xkd verify runs/first/checkpoints/*.safetensors",
    .options = options,
    .run = run,
};
