/* libFuzzer: any bytes as a manifest. */
#include <stdint.h>

#include "data/manifest.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    xkd_manifest m = {0};
    if (!cx) return 0;
    xkd_status status = xkd_manifest_read(cx, fuzz_input_file(data, size), &m);
    if (status == XKD_OK ? m.count < 1 : !xkd_last_error(cx)[0]) abort();
    xkd_manifest_free(&m);
    xkd_context_free(cx);
    return 0;
}
