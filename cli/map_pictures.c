/* Frames and waveforms, decoded in a worker process like everything else. */
#include "map_pictures.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "data/fetch.h"
#include "report/page.h"
#include "report/png.h"

enum { MOST_PICTURES = 1000, SHORT_SIDE = 64, WAVE_WIDTH = 96, WAVE_HEIGHT = 48, MOST_WIDTH = 192 };

/* The middle frame; of a very wide or high one nothing. */
static xkd_status encode_frame(xkd_context *cx, const xkd_clip *clip, uint8_t **png, int64_t *size)
{
    const uint8_t *frame = clip->frames + clip->count / 2 * clip->height * clip->width * 3;
    if (clip->width > MOST_WIDTH || clip->height > MOST_WIDTH) return XKD_OK;
    return xkd_png_encode(cx, frame, clip->width, clip->height, png, size);
}

/* Largest amplitude of each column, from the middle up and down. */
static xkd_status encode_wave(xkd_context *cx, const xkd_clip *clip, uint8_t **png, int64_t *size)
{
    static uint8_t const ground = 32, ink[3] = {125, 190, 240};
    uint8_t rgb[WAVE_HEIGHT * WAVE_WIDTH * 3];
    memset(rgb, ground, sizeof rgb);
    for (int64_t x = 0; x < WAVE_WIDTH; x++) {
        int largest = 0;
        for (int64_t i = x * clip->samples / WAVE_WIDTH; i < (x + 1) * clip->samples / WAVE_WIDTH; i++)
            if (abs(clip->sound[i]) > largest) largest = abs(clip->sound[i]);
        int reach = largest * (WAVE_HEIGHT / 2 - 1) / 32768;
        for (int y = WAVE_HEIGHT / 2 - reach; y <= WAVE_HEIGHT / 2 + reach && y < WAVE_HEIGHT; y++)
            memcpy(rgb + (y * WAVE_WIDTH + x) * 3, ink, 3);
    }
    return xkd_png_encode(cx, rgb, WAVE_WIDTH, WAVE_HEIGHT, png, size);
}

static xkd_status one_picture(struct cli *cli, xkd_fetcher *fetcher, const xkd_manifest *files, int64_t f, bool video,
                              char **out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    const bool wanted[XKD_MODALITIES] = {video, !video};
    xkd_clip clip;
    xkd_media_result result;
    xkd_text text = xkd_text_make(cx);
    uint8_t *png = NULL;
    int64_t size = 0;
    bool silent;
    xkd_fetcher_want(fetcher, wanted, SHORT_SIDE);
    XKD_TRY(xkd_fetch_clip(fetcher, f, 0.5, &clip, &silent, &result));
    if (result.fault != XKD_FAULT_NONE) {
        cli_say(cli, "%s: has no picture in the map: %s: %s", files->samples[f].path,
                xkd_media_fault_name(result.fault), result.message);
        goto fail;
    }
    if (video && clip.count) XKD_TRY(encode_frame(cx, &clip, &png, &size));
    if (!video && clip.samples) XKD_TRY(encode_wave(cx, &clip, &png, &size));
    if (!png) goto fail;
    xkd_page_picture(&text, png, size);
    XKD_TRY(xkd_text_take(&text, out));
fail:
    xkd_free(png);
    xkd_text_free(&text);
    return status;
}

xkd_status map_pictures(struct cli *cli, const xkd_embeddings *e, const int64_t *file, int64_t n, const char *root,
                        char ***out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    xkd_config config = {0};
    xkd_manifest files = e->files; /* the same files below another root */
    xkd_fetcher *fetcher = NULL;
    int64_t shown = n < MOST_PICTURES ? n : MOST_PICTURES;
    files.root = (char *)root;
    files.follow_links = files.named = false;
    XKD_TRY(xkd_alloc(cx, out, n, sizeof **out));
    XKD_TRY(xkd_config_init(cx, &config));
    config.data.clip_duration = 0.5;
    config.data.video_fps = 4;
    XKD_TRY(xkd_fetcher_new(cx, &config.data, &files, NULL, &fetcher));
    for (int64_t k = 0; k < shown; k++) {
        int64_t i = k * n / shown, f = file[i], clip = 0;
        const xkd_feature_table *t = &e->table[XKD_VIDEO];
        while (clip < t->count && t->file[clip] < f) clip++;
        if (cli_signal()) XKD_FAIL(XKD_ERR_INTERRUPTED, "stopped by a signal");
        if (!xkd_manifest_path_is_plain(files.samples[f].path)) continue; /* named outside of any folder */
        XKD_TRY(one_picture(cli, fetcher, &files, f, clip < t->count && t->file[clip] == f, &(*out)[i]));
    }
fail:
    xkd_fetcher_free(fetcher);
    xkd_config_free(&config);
    return status;
}
