/* Reconstructions as strips through the training. Pictures are decoded and encoded again: what goes into the page is ours. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "report/page.h"
#include "report/parts.h"
#include "report/png.h"

/* Of a strip, spread evenly; all of them stay in the folder. */
enum { MOST_PICTURES = 12, MOST_STRIPS = 8 };

/* NAME-STEP.png: the length of NAME, 0 where it is none. */
static size_t name_length(const char *name, int64_t *step)
{
    size_t length = strlen(name);
    const char *dash = strrchr(name, '-');
    char *end;
    if (!dash || dash == name || length < 5 || strcmp(name + length - 4, ".png") != 0) return 0;
    if (dash[1] < '0' || dash[1] > '9') return 0;
    *step = strtoll(dash + 1, &end, 10);
    return strcmp(end, ".png") == 0 ? (size_t)(dash - name) : 0;
}

static void add_rows(xkd_text *out, const xkd_run_files *run, bool sound)
{
    static const char *const rows[] = {"view", "seen", "predicted", "both"};
    xkd_text_puts(out, "<div class=\"rows\">");
    for (int i = 0; i < 4; i++)
        if (sound)
            xkd_text_printf(out, "<span><i>band %" PRId64 "</i><b>%s</b><i>0</i></span>",
                            run->config.model.spec_freq - 1, rows[i]);
        else
            xkd_text_printf(out, "<span><i></i><b>%s</b><i></i></span>", rows[i]);
    xkd_text_puts(out, "</div>");
}

static xkd_status add_picture(xkd_context *cx, xkd_text *out, const xkd_run_files *run, const char *path, int64_t step,
                              bool sound)
{
    xkd_status status = XKD_OK;
    uint8_t *rgb = NULL, *png = NULL;
    int64_t width, height, size;
    status = xkd_png_read(cx, path, &rgb, &width, &height);
    if (status == XKD_ERR_DATA) {
        xkd_log(cx, XKD_LOG_WARN, "%s", xkd_last_error(cx));
        xkd_clear_error(cx);
        return XKD_OK;
    }
    XKD_TRY(status);
    XKD_TRY(xkd_png_encode(cx, rgb, width, height, &png, &size));
    xkd_text_printf(out, "<div class=\"frame%s\" data-step=\"%" PRId64 "\">", sound ? " sound" : "", step);
    add_rows(out, run, sound);
    xkd_text_printf(
        out, "<img width=\"%" PRId64 "\" height=\"%" PRId64 "\" alt=\"reconstruction at step %" PRId64 "\" src=\"",
        width, height, step);
    xkd_page_picture(out, png, size);
    const xkd_model_config *m = &run->config.model;
    xkd_text_printf(out, "\"><div class=\"axis\"><span>%s</span><span>%s</span><span>%" PRId64 "</span></div></div>\n",
                    sound ? "0" : "1",
                    sound ? "time (columns of the spectrogram)" : "frames of the clip, evenly spread",
                    sound ? m->spec_time : m->num_frames);
fail:
    xkd_free(rgb);
    xkd_free(png);
    return status;
}

/* Those of items [from, to), which share a name of `length` characters. */
static xkd_status add_strip(xkd_context *cx, xkd_text *out, const xkd_run_files *run, const char *folder, char **items,
                            int64_t count, size_t length)
{
    xkd_status status = XKD_OK;
    char name[64], *path = NULL;
    bool sound = length == 5 && strncmp(items[0], "audio", 5) == 0;
    int64_t shown = count < MOST_PICTURES ? count : MOST_PICTURES, step;
    snprintf(name, sizeof name, "%.*s", (int)length, items[0]);
    xkd_text_puts(out, "<figure class=\"strip\"><h3>");
    xkd_page_text(out, sound ? "sound" : name, "");
    xkd_text_puts(out, "</h3>\n");
    for (int64_t i = 0; i < shown; i++) {
        char *item = items[shown > 1 ? i * (count - 1) / (shown - 1) : 0];
        name_length(item, &step);
        xkd_free(path);
        path = NULL;
        XKD_TRY(xkd_join_path(cx, &path, folder, item));
        XKD_TRY(add_picture(cx, out, run, path, step, sound));
    }
    xkd_text_puts(out, "<figcaption></figcaption></figure>\n");
fail:
    xkd_free(path);
    return status;
}

/* Sorted by name, and then by the step as a number, which files of other hands need not write with a fixed width. */
static int by_name(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int64_t step_x = 0, step_y = 0;
    size_t n = name_length(x, &step_x), m = name_length(y, &step_y);
    int order = strncmp(x, y, n < m ? n : m);
    if (order) return order;
    if (n != m) return n < m ? -1 : 1;
    return step_x < step_y ? -1 : step_x > step_y ? 1 : strcmp(x, y);
}

xkd_status xkd_parts_pictures(xkd_context *cx, xkd_text *out, const xkd_run_files *run)
{
    xkd_status status = XKD_OK;
    char *folder = NULL;
    xkd_names names = {0};
    int64_t step, kept = 0;
    XKD_TRY(xkd_join_path(cx, &folder, run->folder, "pictures"));
    if (!xkd_is_folder(folder)) goto fail; /* a run without pictures */
    XKD_TRY(xkd_list_folder(cx, folder, &names));
    /* Others, such as temporary files of a killed run, move behind those that count. */
    for (int64_t i = 0; i < names.count; i++)
        if (name_length(names.items[i], &step)) {
            char *other = names.items[kept];
            names.items[kept++] = names.items[i];
            names.items[i] = other;
        }
    if (kept == 0) goto fail;
    qsort(names.items, (size_t)kept, sizeof *names.items, by_name);
    xkd_text_puts(out,
                  "<h2>Reconstructions</h2>\n<p class=\"soft\">From top to bottom: the view, what the student saw of "
                  "it, what the decoder made of the hidden patches, both together.</p>\n");
    for (int64_t from = 0, to, strips = 0; from < kept && strips < MOST_STRIPS; from = to, strips++) {
        size_t length = name_length(names.items[from], &step);
        for (to = from + 1; to < kept && name_length(names.items[to], &step) == length &&
                            strncmp(names.items[to], names.items[from], length) == 0;)
            to++;
        XKD_TRY(add_strip(cx, out, run, folder, names.items + from, to - from, length));
    }
fail:
    xkd_free_names(&names);
    xkd_free(folder);
    return status;
}
