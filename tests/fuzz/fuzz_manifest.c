/* libFuzzer: any bytes as a manifest. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "data/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    xkd_context *cx = xkd_context_new();
    xkd_manifest m = {0};
    snprintf(path, sizeof path, "/dev/shm/xkd-fuzz-%d.jsonl", (int)getpid());
    FILE *file = fopen(path, "wb");
    if (cx && file) {
        fwrite(data, 1, size, file);
        fclose(file);
        if (xkd_manifest_read(cx, path, &m) == XKD_OK && m.count < 1) abort();
        xkd_manifest_free(&m);
    }
    unlink(path);
    xkd_context_free(cx);
    return 0;
}
