/* Options that the commands for tensor files share. */
#include "tensor_args.h"

#include "base/status.h"

enum { MOST_MIB = 1024 };

xkd_status tensor_args_open(xkd_context *cx, int64_t header_limit, const char *path, xkd_tensor_file *out)
{
    *out = (xkd_tensor_file){0};
    if (header_limit < 0 || header_limit > MOST_MIB)
        return xkd_fail(cx, XKD_ERR_CONFIG, "--header-limit is 1 to %d MiB", MOST_MIB);
    return xkd_tensor_file_open_limited(cx, path, header_limit ? header_limit << 20 : XKD_SAFETENSORS_HEADER, out);
}
