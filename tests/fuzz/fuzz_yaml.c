/* libFuzzer: any bytes as a configuration. */
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "config/config.h"
#include "base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    xkd_config config = {0};
    char *written = NULL;
    if (!cx) return 0;
    if (xkd_config_init(cx, &config) == XKD_OK &&
        xkd_config_parse(cx, &config, "fuzz", (const char *)data, (int64_t)size, false) == XKD_OK) {
        /* What was read must also be writable. */
        if (xkd_config_finish(cx, &config) == XKD_OK && xkd_config_write(cx, &config, &written) != XKD_OK) abort();
    } else if (!xkd_last_error(cx)[0]) {
        abort();
    }
    xkd_free(written);
    xkd_config_free(&config);
    xkd_context_free(cx);
    return 0;
}
