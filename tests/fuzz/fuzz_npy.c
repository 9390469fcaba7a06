/* libFuzzer: any bytes as npy, and behind its magic and a right header length. */
#include <stdint.h>

#include "tensor_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[1 << 16] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    const uint8_t *end = size < sizeof file - 16 ? memchr(data, '\n', size) : NULL;
    fuzz_tensor_file(data, size);
    if (!end) return 0;
    size_t header = (size_t)(end - data) + 1;
    file[8] = (uint8_t)header;
    file[9] = (uint8_t)(header >> 8);
    memcpy(file + 10, data, size);
    fuzz_tensor_file(file, size + 10);
    return 0;
}
