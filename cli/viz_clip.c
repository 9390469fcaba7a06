/* The reader of the public interface gives frames and sound of any place in a file; the clipper of evaluation makes of them what
 * encoders get. */
#include "viz_clip.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xkd/clip.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "eval/encode/clips.h"
#include "report/png.h"

enum { SETTINGS = 7, LENGTH = 80 };

xkd_status viz_check_path(struct cli *cli, const char *path)
{
    xkd_context *cx = cli->cx;
    if (!xkd_path_exists(path)) return xkd_fail(cx, XKD_ERR_DATA, "%s: no such file (check the path)", path);
    if (xkd_is_folder(path)) return xkd_fail(cx, XKD_ERR_DATA, "%s: is a folder: name one of its files", path);
    return XKD_OK;
}

/* Frames come with the short side of which the clipper cuts its centre, so that nothing is resized twice. */
static xkd_status open_reader(struct cli *cli, const xkd_data_config *d, xkd_reader **out)
{
    char text[SETTINGS][LENGTH];
    const char *settings[SETTINGS];
    int n = 0;
    snprintf(text[n++], LENGTH, "dataset.clip_duration=%.17g", d->clip_duration);
    snprintf(text[n++], LENGTH, "dataset.video_fps=%.17g", d->video_fps);
    snprintf(text[n++], LENGTH, "dataset.crop_size=%" PRId64, xkd_clip_short_side(d->crop_size));
    snprintf(text[n++], LENGTH, "dataset.audio_fps=%" PRId64, d->audio_rate);
    snprintf(text[n++], LENGTH, "data.audio_track=%" PRId64, (int64_t)d->audio_track);
    snprintf(text[n++], LENGTH, "data.hold_last_frame=%s", d->hold_last_frame ? "true" : "false");
    snprintf(text[n++], LENGTH, "data.colour=%s", d->stream_colour ? "stream" : "default");
    for (int i = 0; i < n; i++) settings[i] = text[i];
    return xkd_reader_open(cli->cx, settings, n, out);
}

/* A clip_sink function: a modality's clip is decoded into its place. */
static xkd_status reserve(void *user, xkd_modality m, float **clip)
{
    struct viz_clip *c = user;
    *clip = c->clip[m];
    return XKD_OK;
}

static xkd_status commit(void *user, const xkd_clip_place *place)
{
    (void)user;
    (void)place;
    return XKD_OK;
}

static xkd_status make_clips(struct cli *cli, const xkd_config *config, const bool wanted[XKD_MODALITIES],
                             const xkd_clip_data *data, struct viz_clip *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    const bool has[] = {wanted[XKD_VIDEO] && data->frames, wanted[XKD_AUDIO] && data->samples};
    xkd_clip_options options = {
        .data = &config->data, .wanted = {has[XKD_VIDEO], has[XKD_AUDIO]}, .protocol = XKD_CLIPS_TEST, .clips = 1};
    const xkd_clip_memory memory = {
        .frames = {.data = data->frames, .count = data->frame_count, .height = data->height, .width = data->width},
        .samples = {.data = data->samples, .count = data->sample_count}};
    const xkd_clip_sink sink = {out, reserve, commit};
    xkd_clipper *clipper = NULL;
    xkd_media_result result;
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++) {
        xkd_view_shape s = xkd_clip_shape(&config->data, m);
        if (has[m])
            XKD_TRY(xkd_alloc(cx, &out->clip[m], (m == XKD_VIDEO ? 3 : 1) * s.T * s.H * s.W, sizeof *out->clip[m]));
    }
    XKD_TRY(xkd_clipper_new(cx, &options, &clipper));
    XKD_TRY(xkd_clipper_run_memory(clipper, &memory, 0, &sink, &result));
fail:
    xkd_clipper_free(clipper);
    return status;
}

/* In [-1, 1] as the reader gives it. */
static xkd_status keep_sound(struct cli *cli, const xkd_clip_data *data, struct viz_clip *out)
{
    if (!data->samples) return XKD_OK;
    xkd_status status = xkd_alloc(cli->cx, &out->sound, data->sample_count, sizeof *out->sound);
    if (status != XKD_OK) return status;
    for (int64_t i = 0; i < data->sample_count; i++) out->sound[i] = (int16_t)lrintf(32767 * data->samples[i]);
    out->samples = data->sample_count;
    return XKD_OK;
}

xkd_status viz_clip_read(struct cli *cli, const xkd_config *config, const bool wanted[XKD_MODALITIES], const char *path,
                         double at, struct viz_clip *out)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = cli->cx;
    static const char *const names[] = {"pictures", "sound"};
    xkd_reader *reader = NULL;
    xkd_clip_data data;
    XKD_TRY(open_reader(cli, &config->data, &reader));
    status = xkd_reader_clip(reader, path, at, &data);
    if (status != XKD_OK) XKD_FAIL(status, "%s", xkd_reader_error(reader));
    out->start = data.start;
    const bool has[] = {data.frames != NULL, data.samples != NULL};
    for (xkd_modality m = 0; m < XKD_MODALITIES; m++)
        if (wanted[m] && !has[m]) cli_say(cli, "%s: has no %s at %g s", path, names[m], at);
    if (!(wanted[XKD_VIDEO] && has[XKD_VIDEO]) && !(wanted[XKD_AUDIO] && has[XKD_AUDIO]))
        XKD_FAIL(XKD_ERR_DATA, "%s: has nothing at %g s that this model has an encoder for", path, at);
    XKD_TRY(keep_sound(cli, &data, out));
    XKD_TRY(make_clips(cli, config, wanted, &data, out));
fail:
    xkd_reader_close(reader);
    return status;
}

void viz_clip_free(struct viz_clip *c)
{
    for (int m = 0; m < XKD_MODALITIES; m++) xkd_free(c->clip[m]);
    xkd_free(c->sound);
}

xkd_status viz_path(struct viz_output *o, const char *name, const char *end, char **out)
{
    char shown[4096];
    xkd_status status = xkd_format_string(o->cli->cx, out, "%s/%s%s", o->folder, name, end);
    if (status != XKD_OK) return status;
    xkd_text_puts(&o->files, o->cli->json && o->files.size ? ", " : "");
    if (o->cli->json)
        xkd_text_json_string(&o->files, *out);
    else
        xkd_text_printf(&o->files, "%s\n", cli_name(shown, sizeof shown, *out));
    return o->files.status;
}

xkd_status viz_write(struct viz_output *o, const xkd_panels *panels, const char *name)
{
    xkd_status status = XKD_OK;
    xkd_context *cx = o->cli->cx;
    const xkd_data_config *d = &o->config->data;
    xkd_canvas picture = {0};
    char *path = NULL;
    const xkd_film_sound sound = {.fps = d->video_fps,
                                  .seconds = d->clip_duration,
                                  .samples = o->clip->sound,
                                  .count = o->clip->samples,
                                  .rate = d->audio_rate};
    XKD_TRY(viz_path(o, name, ".png", &path));
    XKD_TRY(xkd_panels_strip(cx, panels, &picture));
    XKD_TRY(xkd_png_write(cx, path, picture.rgb, picture.width, picture.height));
    xkd_free(path);
    path = NULL;
    XKD_TRY(viz_path(o, name, ".mp4", &path));
    XKD_TRY(xkd_panels_film(cx, panels, &sound, path));
fail:
    xkd_free(path);
    xkd_canvas_free(&picture);
    return status;
}
