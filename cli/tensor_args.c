/* Options that the commands for tensor files share. */
#include "tensor_args.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "checkpoint/state.h"

enum { MOST_MIB = 1024 };

/* A folder stands for the model of a hub that it holds, a run folder for its newest checkpoint. The caller frees *out. */
static xkd_status find_file(xkd_context *cx, const char *path, char **out)
{
    xkd_status status = XKD_OK;
    *out = NULL;
    if (!xkd_is_folder(path)) return xkd_copy_string(cx, out, path);
    XKD_TRY(xkd_find_model_in(cx, path, false, out));
    if (!*out) XKD_TRY(xkd_state_newest(cx, path, out));
    if (!*out)
        XKD_FAIL(
            XKD_ERR_CONFIG,
            "%s: is a folder with neither model.safetensors nor a run's checkpoints/step-*.safetensors: name a file, "
            "or a folder that has one",
            path);
fail:
    return status;
}

xkd_status tensor_args_open(xkd_context *cx, int64_t header_limit, const char *path, xkd_tensor_file *out)
{
    xkd_status status = XKD_OK;
    char *file = NULL;
    *out = (xkd_tensor_file){0};
    if (header_limit < 0 || header_limit > MOST_MIB)
        XKD_FAIL(XKD_ERR_CONFIG, "--header-limit is 1 to %d MiB", MOST_MIB);
    XKD_TRY(find_file(cx, path, &file));
    XKD_TRY(xkd_tensor_file_open_limited(cx, file, header_limit ? header_limit << 20 : XKD_SAFETENSORS_HEADER, out));
fail:
    xkd_free(file);
    return status;
}
