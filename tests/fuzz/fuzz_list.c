/* libFuzzer: any bytes as a text or CSV list of files with labels. */
#include <stdint.h>

#include "data/list.h"
#include "input_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    xkd_manifest m = {0};
    if (!cx) return 0;
    if (xkd_index_list(cx, fuzz_input_file(data, size), "/nonexistent", &m, NULL) != XKD_OK && !xkd_last_error(cx)[0])
        abort();
    xkd_manifest_free(&m);
    xkd_context_free(cx);
    return 0;
}
