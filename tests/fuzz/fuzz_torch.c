/* libFuzzer: any bytes as a PyTorch file, and as the pickle of an archive that is otherwise right, so that inputs need no
 * checksums to reach the machine. */
#include <stdint.h>
#include <libdeflate.h>

#include "tensor_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t file[1 << 17];
static size_t used;

static void put(uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) file[used++] = (uint8_t)(value >> (8 * i));
}

static void put_bytes(const void *data, size_t size)
{
    memcpy(file + used, data, size);
    used += size;
}

/* What local and central headers share. */
static void put_common(const uint8_t *data, size_t size, const char *name)
{
    put(0, 2);
    put(0, 2);
    put(0, 4);
    put(libdeflate_crc32(0, data, size), 4);
    put(size, 4);
    put(size, 4);
    put(strlen(name), 2);
    put(0, 2);
}

static void put_archive(const uint8_t *pickle, size_t size)
{
    static const uint8_t storage[48];
    const char *names[] = {"a/data.pkl", "a/data/0"};
    const uint8_t *contents[] = {pickle, storage};
    size_t sizes[] = {size, sizeof storage}, starts[2];
    used = 0;
    for (int i = 0; i < 2; i++) {
        starts[i] = used;
        put(0x04034b50, 4);
        put(20, 2);
        put_common(contents[i], sizes[i], names[i]);
        put_bytes(names[i], strlen(names[i]));
        put_bytes(contents[i], sizes[i]);
    }
    size_t directory = used;
    for (int i = 0; i < 2; i++) {
        put(0x02014b50, 4);
        put(20, 2);
        put(20, 2);
        put_common(contents[i], sizes[i], names[i]);
        put(0, 2);
        put(0, 2);
        put(0, 2);
        put(0, 4);
        put(starts[i], 4);
        put_bytes(names[i], strlen(names[i]));
    }
    size_t end = used;
    put(0x06054b50, 4);
    put(0, 4);
    put(2, 2);
    put(2, 2);
    put(end - directory, 4);
    put(directory, 4);
    put(0, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > sizeof file - 4096) return 0;
    fuzz_tensor_file(data, size);
    if (size && data[0] == 0x80) {
        put_archive(data, size);
        fuzz_tensor_file(file, used);
    }
    return 0;
}
