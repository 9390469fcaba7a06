/* Any bytes as a tensor file of the kinds that begin like `lead`: opening must end in XKD_OK or XKD_ERR_CHECKPOINT with a
 * message, and every element of what was opened must be readable. */
#ifndef XKD_TESTS_FUZZ_TENSOR_TARGET_H
#define XKD_TESTS_FUZZ_TENSOR_TARGET_H

#include <string.h>

#include "checkpoint/content.h"
#include "input_file.h"

static inline void fuzz_tensor_file(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    xkd_tensor_file file;
    xkd_content content = {0};
    if (!cx) return;
    xkd_status status = xkd_tensor_file_open(cx, fuzz_input_file(data, size), &file);
    if (status != XKD_OK && (status != XKD_ERR_CHECKPOINT || !xkd_last_error(cx)[0])) abort();
    if (status == XKD_OK) {
        double sum = 0;
        for (int64_t t = 0; t < file.count; t++) {
            int64_t n = xkd_shape_count(&file.tensors[t].shape);
            if (n > 0)
                sum += xkd_element(file.tensors[t].dtype, file.tensors[t].data, 0) +
                       xkd_element(file.tensors[t].dtype, file.tensors[t].data, n - 1);
        }
        if (sum == 0.123456789) puts("unlikely"); /* so that the reads are not left out */
        status = xkd_content_identify(cx, &file, &content);
        if (status != XKD_OK && !xkd_last_error(cx)[0]) abort();
    }
    xkd_content_free(&content);
    xkd_tensor_file_close(&file);
    xkd_context_free(cx);
}

#endif
