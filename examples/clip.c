/* Frames and sound of a file, as training reads them:   clip FILE SECONDS OUT.ppm
 *
 * Writes the first frame as a picture and prints how loud each second of the clip is.
 *
 *     cc examples/clip.c $(pkg-config --cflags --libs libxkd) -lm -o clip */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xkd/clip.h>

static xkd_status write_picture(const char *path, const xkd_clip_data *clip)
{
    FILE *out = fopen(path, "wb");
    if (!out) return XKD_ERR_STORAGE;
    fprintf(out, "P6 %lld %lld 255\n", (long long)clip->width, (long long)clip->height);
    fwrite(clip->frames, 3, (size_t)(clip->width * clip->height), out);
    return fclose(out) == 0 ? XKD_OK : XKD_ERR_STORAGE;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: clip FILE SECONDS OUT.ppm\n");
        return XKD_ERR_CONFIG;
    }
    xkd_context *cx = xkd_context_new();
    xkd_reader *reader = NULL;
    xkd_clip_data clip = {0};
    if (!cx) return XKD_ERR_MEMORY;
    xkd_status status = xkd_reader_open(cx, NULL, 0, &reader);
    if (status == XKD_OK) status = xkd_reader_clip(reader, argv[1], atof(argv[2]), &clip);
    if (status != XKD_OK) fprintf(stderr, "error: %s\n", reader ? xkd_reader_error(reader) : xkd_last_error(cx));
    printf("%lld frames of %lldx%lld, %lld samples\n", (long long)clip.frame_count, (long long)clip.width,
           (long long)clip.height, (long long)clip.sample_count);
    for (int64_t i = 0; i < clip.sample_count; i += clip.sample_rate) {
        double sum = 0;
        int64_t n = clip.sample_count - i < clip.sample_rate ? clip.sample_count - i : clip.sample_rate;
        for (int64_t k = 0; k < n; k++) sum += (double)clip.samples[i + k] * clip.samples[i + k];
        printf("%lld s: %.3f\n", (long long)(i / clip.sample_rate), sqrt(sum / (double)n));
    }
    if (clip.frames) status = write_picture(argv[3], &clip);
    xkd_reader_close(reader);
    xkd_context_free(cx);
    return status;
}
