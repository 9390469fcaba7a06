/* libFuzzer: the header's length is set right, so that inputs reach the JSON and the ranges. */
#include <stdint.h>

#include "tensor_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[1 << 16];
    const uint8_t *end = size < sizeof file - 8 ? memchr(data, 0, size) : NULL;
    fuzz_tensor_file(data, size);
    if (!end) return 0;
    uint64_t header = (uint64_t)(end - data);
    memcpy(file, &header, 8);
    memcpy(file + 8, data, (size_t)header);
    memcpy(file + 8 + header, end + 1, size - (size_t)header - 1);
    fuzz_tensor_file(file, size + 7);
    return 0;
}
