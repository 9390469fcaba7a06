/* xkd verify: every rule of the format, checksums, and numbers that are not finite. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/status.h"
#include "checkpoint/tensor_file.h"
#include "cli.h"

/* Integers are finite by nature. */
static bool is_real(xkd_dtype dtype)
{
    return dtype == XKD_F32 || dtype == XKD_F64 || dtype == XKD_F16 || dtype == XKD_BF16;
}

/* Number of elements that are infinite or not a number. */
static int64_t count_non_finite(const xkd_stored_tensor *t)
{
    int64_t n = is_real(t->dtype) ? xkd_shape_count(&t->shape) : 0, bad = 0;
    for (int64_t i = 0; i < n; i++) bad += !isfinite(xkd_element(t->dtype, t->data, i));
    return bad;
}

/* Opening checks every rule of the format and all checksums; what is left are the numbers themselves. */
static xkd_status verify(struct cli *cli, const char *path)
{
    xkd_context *cx = cli->cx;
    xkd_status status = XKD_OK;
    xkd_tensor_file file;
    int64_t tensors = 0, elements = 0;
    const char *first = NULL;
    XKD_TRY(xkd_tensor_file_open(cx, path, &file));
    for (int64_t i = 0; i < file.count; i++) {
        int64_t bad = count_non_finite(&file.tensors[i]);
        if (!bad) continue;
        /* One name helps to find the rest. */
        if (!first) first = file.tensors[i].name;
        tensors++;
        elements += bad;
    }
    if (tensors)
        XKD_FAIL(XKD_ERR_CHECKPOINT, "%s: %" PRId64 " elements of %" PRId64 " tensors are not finite, first in %s",
                 path, elements, tensors, first);
    if (cli->json)
        printf("{\"ok\": true, \"tensors\": %" PRId64 ", \"checksummed\": %s}\n", file.count,
               file.checksummed ? "true" : "false");
    else
        printf("%s: ok, %s, %" PRId64 " tensors, all finite, %s\n", path, xkd_file_kind_name(file.kind), file.count,
               file.checksummed ? "checksums agree" : "no checksums in this file");
fail:
    xkd_tensor_file_close(&file);
    return status;
}

/* Stops at the first bad file, whose status becomes the exit code. */
static int run(struct cli *cli, int argc, char **argv)
{
    int rest = 0;
    xkd_status status = cli_parse(cli, &cmd_verify, argc, argv, NULL, &rest);
    if (status != XKD_OK) return status;
    if (rest < 1) return xkd_fail(cli->cx, XKD_ERR_CONFIG, "verify needs a file (see 'xkd verify --help')");
    for (int i = 1; i <= rest && status == XKD_OK; i++) status = verify(cli, argv[i]);
    return status;
}

const struct cli_command cmd_verify = {
    .name = "verify",
    .summary = "check a tensor file by every rule of its format, its checksums and for non-finite numbers",
    .usage = "FILE...",
    .example = "xkd verify runs/first/checkpoints/*.safetensors",
    .run = run,
};
