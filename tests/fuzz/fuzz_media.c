/* libFuzzer: any bytes as a media file, opened and decoded in this process. The library must come back, whatever libav
 * says; crashes inside libav are what worker processes are for, but are worth knowing. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "media/media.h"

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

/* Reads every pixel, so that the sanitizer sees a wrong size. */
static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    unsigned *sum = user;
    (void)index;
    for (int64_t i = 0; i < 3 * width * height; i++) *sum += rgb[i];
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    unsigned *sum = user;
    for (int64_t i = 0; i < count; i++) *sum += (unsigned)samples[i];
    return XKD_OK;
}

static volatile unsigned used; /* so that the reading is not optimised away */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    xkd_context *cx = xkd_context_new();
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    unsigned sum = 0;
    xkd_media_sink sink = {.user = &sum, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (cx && fd >= 0 && write(fd, data, size) == (ssize_t)size &&
        xkd_media_open_source(cx, &(xkd_source){.fd = fd, .size = (int64_t)size}, "fuzz", NULL, &media, &fault) ==
            XKD_OK) {
        xkd_media_request request = {.mode = XKD_CLIP_PLACE,
                                     .start = 0.5,
                                     .duration = 1,
                                     .fps = 8,
                                     .short_side = 32,
                                     .audio_rate = 16000,
                                     .video = true,
                                     .audio = true};
        xkd_media_decode(media, &request, &sink, &tally, &fault);
    }
    xkd_media_free(media);
    xkd_context_free(cx);
    used = sum;
    return 0;
}
