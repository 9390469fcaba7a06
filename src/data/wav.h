#ifndef XKD_DATA_WAV_H
#define XKD_DATA_WAV_H

#include <stdint.h>

#include "base/status.h"

/* Writes 16-bit mono samples as a WAV file, atomically. Errors: XKD_ERR_STORAGE, XKD_ERR_MEMORY. */
xkd_status xkd_wav_write(xkd_context *cx, const char *path, const int16_t *samples, int64_t count, int64_t rate);

#endif
