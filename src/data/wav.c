/* 16-bit mono WAV files, for listening to what a clip sounds like. */
#include "data/wav.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

/* RIFF header, format and data chunk heads. */
enum { HEADER = 44 };

/* Little endian on any machine. */
static uint8_t *put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) *at++ = (uint8_t)(value >> 8 * i);
    return at;
}

/* The sizes in the header are 32 bits wide, hence the limit. */
xkd_status xkd_wav_write(xkd_context *cx, const char *path, const int16_t *samples, int64_t count, int64_t rate)
{
    xkd_status status = XKD_OK;
    uint8_t *file = NULL, *at;
    uint64_t bytes = 2 * (uint64_t)count;
    if (count < 0 || bytes > UINT32_MAX - HEADER) XKD_FAIL(XKD_ERR_STORAGE, "%s: too long for a WAV file (4 GB)", path);
    XKD_TRY(xkd_alloc(cx, &file, HEADER + (int64_t)bytes, 1));
    memcpy(file, "RIFF", 4);
    at = put(file + 4, HEADER - 8 + bytes, 4);
    memcpy(at, "WAVEfmt ", 8);
    at = put(at + 8, 16, 4);
    at = put(at, 1, 2); /* PCM */
    at = put(at, 1, 2); /* channels */
    at = put(at, (uint64_t)rate, 4);
    at = put(at, (uint64_t)rate * 2, 4);
    at = put(at, 2, 2);
    at = put(at, 16, 2);
    memcpy(at, "data", 4);
    at = put(at + 4, bytes, 4);
    for (int64_t i = 0; i < count; i++) at = put(at, (uint16_t)samples[i], 2);
    XKD_TRY(xkd_write_file(cx, path, file, HEADER + (int64_t)bytes));
fail:
    xkd_free(file);
    return status;
}
