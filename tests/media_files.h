/* Media files for tests, made by the library's own encoder: each frame shows its number as ten black or white bars, and
 * the sound is silence with a tone from `tone_from` seconds (of the sound's own clock) on. */
#ifndef XKD_TESTS_MEDIA_FILES_H
#define XKD_TESTS_MEDIA_FILES_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "media/encode.h"

enum { BARS = 10, TEST_WIDTH = 160, TEST_HEIGHT = 112 };

typedef struct {
    xkd_encode_options encode;
    double seconds;
    double tone_from;
    double tone_rise;                      /* Hz a second, of the tone of 1 kHz */
    double picture_seconds, sound_seconds; /* where one of them is shorter; 0: `seconds` */
    int slow_after;                        /* frames after this one come at a quarter of the rate; 0: never */
} test_file;

static inline test_file test_file_default(void)
{
    return (test_file){.encode = {.width = TEST_WIDTH,
                                  .height = TEST_HEIGHT,
                                  .fps = 25,
                                  .sample_rate = 44100,
                                  .channels = 2,
                                  .key_frames = 40},
                       .seconds = 6};
}

static inline void draw_number(uint8_t *rgb, int64_t width, int64_t height, int number)
{
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++)
            memset(rgb + 3 * (y * width + x), number >> (x * BARS / width) & 1 ? 235 : 16, 3);
}

static inline int read_number(const uint8_t *rgb, int64_t width, int64_t height)
{
    int number = 0;
    for (int b = 0; b < BARS; b++) {
        int64_t x = (2 * b + 1) * width / (2 * BARS), y = height / 2;
        number |= (rgb[3 * (y * width + x)] > 128) << b;
    }
    return number;
}

/* Time of frame i after the first one. */
static inline double frame_time(const test_file *f, int i)
{
    double step = 1.0 / (double)f->encode.fps;
    if (f->slow_after && i > f->slow_after) return (f->slow_after + 4.0 * (i - f->slow_after)) * step;
    return i * step;
}

static inline xkd_status make_test_file(xkd_context *cx, const char *path, const test_file *f)
{
    const xkd_encode_options *o = &f->encode;
    xkd_encoder *e = NULL;
    xkd_status status = xkd_encoder_new(cx, path, o, &e);
    if (status != XKD_OK) return status;
    uint8_t *rgb = malloc((size_t)(3 * o->width * o->height));
    int64_t sample = 0;
    for (int i = 0; frame_time(f, i) < f->seconds && status == XKD_OK; i++) {
        draw_number(rgb, o->width, o->height, i);
        if (!f->picture_seconds || frame_time(f, i) < f->picture_seconds)
            status = xkd_encoder_frame(e, rgb, frame_time(f, i));
        while (o->sample_rate && status == XKD_OK &&
               sample < (int64_t)(frame_time(f, i + 1) * (double)o->sample_rate) &&
               (double)sample < (f->sound_seconds ? f->sound_seconds : f->seconds) * (double)o->sample_rate) {
            double t = (double)sample / (double)o->sample_rate;
            int16_t value =
                        t >= f->tone_from ? (int16_t)(12000 * sin(2 * M_PI * (1000 + f->tone_rise / 2 * t) * t)) : 0,
                    both[2] = {value, value};
            status = xkd_encoder_sound(e, both, 1);
            sample++;
        }
    }
    free(rgb);
    if (status == XKD_OK) return xkd_encoder_commit(e);
    xkd_encoder_abort(e);
    return status;
}

/* A fresh folder under the build folder; the same name gives the same folder. */
static inline const char *test_folder(const char *name)
{
    static char path[4096];
    const char *build = getenv("XKD_BUILD");
    snprintf(path, sizeof path, "%s/test-%s-%d", build ? build : "build", name, (int)getpid());
    return path;
}

static inline void remove_test_folder(const char *path)
{
    char command[5000];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0) fprintf(stderr, "cannot remove %s\n", path);
}

#endif
