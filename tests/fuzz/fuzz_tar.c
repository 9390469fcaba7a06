/* libFuzzer: any bytes as a tar archive. What it names must lie in it, and no name may be a path that leads elsewhere. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[] = "/tmp/xkd-fuzz-XXXXXX", path[64];
    if (!path[0]) {
        if (!mkdtemp(folder)) abort();
        snprintf(path, sizeof path, "%s/x.tar", folder);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size)) abort();
    close(fd);
    xkd_context *cx = xkd_context_new();
    xkd_manifest m = {0};
    if (!cx) return 0;
    if (xkd_index_archive(cx, path, false, &m) != XKD_OK && !xkd_last_error(cx)[0]) abort();
    for (int64_t i = 0; i < m.count; i++) {
        const xkd_sample *s = &m.samples[i];
        xkd_source source;
        xkd_media_fault fault;
        if (!xkd_manifest_path_is_plain(s->path) || !s->more || s->more->member_at < 512 || s->bytes < 0 ||
            s->more->member_at > (int64_t)size - s->bytes)
            abort();
        if (xkd_manifest_open(cx, &m, s, false, &source, &fault) != XKD_OK) abort();
        close(source.fd);
    }
    xkd_manifest_free(&m);
    xkd_context_free(cx);
    return 0;
}
