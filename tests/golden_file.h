/* Reads one tensor of a .safetensors file for tests. Minimal: trusts the file. */
#ifndef XKD_TESTS_GOLDEN_FILE_H
#define XKD_TESTS_GOLDEN_FILE_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* Returns the bytes of tensor `name` in memory that the caller frees with free(), NULL when there is none; its shape
 * (up to 4 sides, the rest 1) in shape, its size in *bytes. */
static inline void *golden_tensor(const char *path, const char *name, int64_t shape[4], int64_t *bytes)
{
    xkd_context *cx = xkd_context_new();
    char *file = NULL;
    void *out = NULL;
    int64_t size = 0;
    if (xkd_read_file(cx, path, 1 << 30, XKD_ERR_STORAGE, &file, &size) == XKD_OK) {
        uint64_t length;
        memcpy(&length, file, 8);
        json_t *header = json_loadb(file + 8, (size_t)length, 0, NULL), *entry = json_object_get(header, name);
        if (entry) {
            json_t *offsets = json_object_get(entry, "data_offsets"), *sides = json_object_get(entry, "shape");
            int64_t from = json_integer_value(json_array_get(offsets, 0));
            *bytes = json_integer_value(json_array_get(offsets, 1)) - from;
            for (size_t i = 0; i < 4; i++)
                shape[i] = i < json_array_size(sides) ? json_integer_value(json_array_get(sides, i)) : 1;
            if (posix_memalign(&out, 64, (size_t)*bytes + 64) == 0)
                memcpy(out, file + 8 + length + from, (size_t)*bytes);
        }
        json_decref(header);
    }
    free(file);
    xkd_context_free(cx);
    return out;
}

#endif
