/* Logs, event files, pictures and the report of a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "report/html.h"
#include "report/metrics.h"
#include "report/page.h"
#include "report/canvas.h"
#include "report/plot.h"
#include "report/png.h"
#include "report/progress.h"
#include "report/sparkline.h"
#include "report/tensorboard.h"

static char folder[] = "/tmp/xkd-test-report-XXXXXX";

static int setup(void **state)
{
    *state = xkd_context_new();
    return *state == NULL || !mkdtemp(folder);
}

static int teardown(void **state)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    xkd_context_free(*state);
    return system(command);
}

static char *read_text(xkd_context *cx, const char *name, int64_t *size)
{
    char *path, *text;
    int64_t length;
    assert_int_equal(xkd_join_path(cx, &path, folder, name), XKD_OK);
    if (xkd_read_file(cx, path, 1 << 24, XKD_ERR_DATA, &text, &length) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    xkd_free(path);
    if (size) *size = length;
    return text;
}

static void expect_file(xkd_context *cx, const char *name, const char *wanted)
{
    char *text = read_text(cx, name, NULL);
    assert_string_equal(text, wanted);
    xkd_free(text);
}

static const char *const columns[] = {"loss", "lr"};

static void test_resume_drops_later_steps(void **state)
{
    xkd_context *cx = *state;
    xkd_metrics *m;
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, -1, 0, false, &m), XKD_OK);
    for (int step = 1; step <= 3; step++) {
        const double values[] = {1.5 / step, 1e-4};
        assert_int_equal(xkd_metrics_step(m, step, 0, values), XKD_OK);
    }
    assert_int_equal(xkd_metrics_epoch(m, 3, 1, 2, 0.5, 1), XKD_OK);
    xkd_metrics_close(m);
    /* A line that a power cut tore. */
    char *path;
    int fd;
    assert_int_equal(xkd_join_path(cx, &path, folder, "metrics.jsonl"), XKD_OK);
    assert_int_equal(xkd_append_open(cx, path, &fd), XKD_OK);
    assert_int_equal(xkd_append(cx, fd, path, "{\"step\": 1, \"ep", 15), XKD_OK);
    close(fd);
    xkd_free(path);
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, 2, 0, false, &m), XKD_OK);
    const double values[] = {NAN, 0};
    assert_int_equal(xkd_metrics_step(m, 3, 1, values), XKD_OK);
    assert_int_equal(xkd_metrics_line(m, "hello"), XKD_OK);
    xkd_metrics_close(m);
    expect_file(cx, "metrics.jsonl",
                "{\"step\": 1, \"epoch\": 0, \"loss\": 1.5, \"lr\": 0.0001}\n"
                "{\"step\": 2, \"epoch\": 0, \"loss\": 0.75, \"lr\": 0.0001}\n"
                "{\"step\": 3, \"epoch\": 1, \"loss\": null, \"lr\": 0}\n");
    expect_file(cx, "metrics.csv", "step,epoch,loss,lr\n1,0,1.5,0.0001\n2,0,0.75,0.0001\n3,1,nan,0\n");
    expect_file(cx, "epochs.jsonl", "");
}

static void test_crc32c(void **state)
{
    (void)state;
    assert_int_equal(xkd_crc32c("123456789", 9), 0xe3069283u); /* the check value of the polynomial */
}

/* Checks the sums of all records in all event files and returns how many there are; *found += those with `needle`. */
static int count_records(xkd_context *cx, const char *events, const char *needle, int *found)
{
    char name[600] = "", path[400];
    int64_t size, records = 0;
    snprintf(path, sizeof path, "%s/%s", folder, events);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", events, e->d_name);
        char *bytes = read_text(cx, name, &size);
        for (int64_t at = 0; at < size; records++) {
            uint64_t length;
            uint32_t crc;
            memcpy(&length, bytes + at, 8);
            memcpy(&crc, bytes + at + 12 + length, 4);
            uint32_t sum = xkd_crc32c(bytes + at + 12, (int64_t)length);
            assert_int_equal(crc, (sum >> 15 | sum << 17) + 0xa282ead8u);
            *found += memmem(bytes + at, length + 12, needle, strlen(needle)) != NULL;
            at += (int64_t)length + 16;
        }
        xkd_free(bytes);
    }
    closedir(dir);
    return (int)records;
}

static void test_resume_cuts_event_files(void **state)
{
    xkd_context *cx = *state;
    xkd_metrics *m;
    char command[200];
    const double values[] = {2, 3};
    int steps = 0, epochs = 0;
    snprintf(command, sizeof command, "rm -rf '%s/tensorboard'", folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, -1, 0, true, &m), XKD_OK);
    for (int step = 1; step <= 300; step++) {
        assert_int_equal(xkd_metrics_step(m, step, step / 100, values), XKD_OK);
        if (step % 100 == 0) assert_int_equal(xkd_metrics_epoch(m, step, step / 100, 1, 0, 1), XKD_OK);
    }
    xkd_metrics_close(m);
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, 150, 1, true, &m), XKD_OK);
    xkd_metrics_close(m);
    /* version, 150 steps, one epoch; version and session start of the new file */
    assert_int_equal(count_records(cx, "tensorboard", "pretext-iter/", &steps), 1 + 150 + 1 + 2);
    count_records(cx, "tensorboard", "pretext-epoch/", &epochs);
    assert_int_equal(steps, 150);
    assert_int_equal(epochs, 1);
    assert_int_equal(system(command), 0);
}

static void test_event_files(void **state)
{
    xkd_context *cx = *state;
    xkd_metrics *m;
    int found = 0;
    const double values[] = {2, 3};
    const uint8_t rgb[12] = {0};
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, 7, 0, true, &m), XKD_OK);
    assert_int_equal(xkd_metrics_step(m, 8, 0, values), XKD_OK);
    assert_int_equal(xkd_metrics_epoch(m, 8, 1, 2, 0.5, 1), XKD_OK);
    assert_int_equal(xkd_metrics_picture(m, 8, "video", rgb, 2, 2), XKD_OK);
    xkd_metrics_close(m);
    /* version, session start, step, epoch, picture */
    assert_int_equal(count_records(cx, "tensorboard", "pretext-iter/loss", &found), 5);
    assert_int_equal(found, 1);
    /* Event{step: 8, session_log: {status: START}}, the record that makes TensorBoard forget what came after. */
    count_records(cx, "tensorboard", "\x10\x08\x3a\x02\x08\x01", &found);
    assert_int_equal(found, 2);
    /* Value{tag: "pretext-iter/lr", simple_value: 3.0f} */
    count_records(cx, "tensorboard", "\x0a\x0fpretext-iter/lr\x15", &found);
    assert_int_equal(found, 3);
}

static void test_png_round_trip(void **state)
{
    xkd_context *cx = *state;
    uint8_t rgb[3 * 5 * 3], back[3 * 5 * 3], *png;
    int64_t size;
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 7);
    assert_int_equal(xkd_png_encode(cx, rgb, 5, 3, &png, &size), XKD_OK);
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, png, (size_t)size));
    image.format = PNG_FORMAT_RGB;
    assert_int_equal(image.width, 5);
    assert_true(png_image_finish_read(&image, NULL, back, 0, NULL));
    assert_memory_equal(rgb, back, sizeof rgb);
    xkd_free(png);
    assert_int_equal(xkd_png_encode(cx, rgb, 0, 3, &png, &size), XKD_ERR_INTERNAL);
    assert_int_equal(xkd_png_write(cx, "/nonexistent/x.png", rgb, 5, 3), XKD_ERR_STORAGE);
}

static void test_colour_map(void **state)
{
    (void)state;
    uint8_t low[3], middle[3], high[3], bad[3];
    xkd_colour_map(-1, low);
    xkd_colour_map(0.5, middle);
    xkd_colour_map(2, high);
    xkd_colour_map(NAN, bad);
    assert_int_equal(low[0], 68);
    assert_int_equal(middle[1], 144);
    assert_int_equal(high[2], 37);
    assert_int_equal(bad[0], 255);
}

static void test_patches(void **state)
{
    (void)state;
    /* C 3, T 2, H 2, W 4 cut into two patches of 2x2x2x3; element order (t, h, w, c), channels fastest. */
    const xkd_patch_grid grid = {3, 2, 2, 4, 2, 2, 2};
    float clip[48], prediction[48], masked[48], predicted[48], filled[48];
    const uint8_t hidden[2] = {0, 1};
    for (int i = 0; i < 48; i++) {
        clip[i] = (float)i;
        prediction[i] = (float)(1000 + i);
    }
    xkd_show_patches(&grid, clip, hidden, prediction, 0, masked, predicted, filled);
    /* channel 2, t 1, h 0, w 3 lies in patch 1 as element ((1*2+0)*2+1)*3+2 = 17 */
    int at = ((2 * 2 + 1) * 2 + 0) * 4 + 3;
    assert_true(isnan(masked[at]));
    assert_true(predicted[at] == 1000 + 24 + 17);
    assert_true(filled[at] == predicted[at]);
    assert_true(masked[0] == 0 && isnan(predicted[0]) && filled[0] == 0);
    /* Normalised: a prediction of 0 is the patch's mean. */
    float zeros[48] = {0}, mean = 0;
    xkd_show_patches(&grid, clip, hidden, zeros, 1, masked, predicted, filled);
    for (int i = 0; i < 48; i++) mean += isnan(masked[i]) ? clip[i] / 24 : 0;
    assert_true(fabsf(predicted[at] - mean) < 1e-4f);
}

static void test_pictures(void **state)
{
    xkd_context *cx = *state;
    float frames[3 * 2 * 2 * 2], spec[6] = {0, 1, 2, 3, 4, 5};
    for (int i = 0; i < 24; i++) frames[i] = 10; /* white after clamping */
    const float *rows[] = {frames, frames}, *specs[] = {spec};
    const int64_t size[3] = {2, 2, 2};
    xkd_canvas picture;
    assert_int_equal(xkd_canvas_clips(cx, rows, 2, size, &picture), XKD_OK);
    assert_int_equal(picture.width, 4 + 2 * (2 * 56 + 4));
    assert_int_equal(picture.rgb[(4 * picture.width + 4) * 3], 255);
    assert_int_equal(picture.rgb[0], 40);
    xkd_canvas_free(&picture);
    assert_int_equal(xkd_canvas_spectrograms(cx, specs, 1, 2, 3, &picture), XKD_OK);
    /* The lowest band is at the bottom: its first value has the darkest colour. */
    assert_int_equal(picture.rgb[((4 + 2 * 56 - 1) * picture.width + 4) * 3], 68);
    xkd_canvas_free(&picture);
}

static void test_progress(void **state)
{
    (void)state;
    char text[200];
    xkd_format_duration(text, sizeof text, 42);
    assert_string_equal(text, "0:42");
    xkd_format_duration(text, sizeof text, 3 * 3600 + 7 * 60);
    assert_string_equal(text, "3:07:00");
    xkd_format_duration(text, sizeof text, 51.2 * 3600);
    assert_string_equal(text, "2 d 03:12");
    xkd_format_duration(text, sizeof text, NAN);
    assert_string_equal(text, "-");
    xkd_format_count(text, sizeof text, 86.23e6, "");
    assert_string_equal(text, "86.2 M");
    xkd_format_count(text, sizeof text, 812, "");
    assert_string_equal(text, "812");
    xkd_progress_line(text, sizeof text, "train", 0, 5, 10, 10, "loss 1");
    assert_string_equal(text, "train [======>     ]  50 % 5/10  ETA 0:10  loss 1");
    xkd_progress_line(text, sizeof text, "train", 5, 5, 10, 0, "");
    assert_non_null(strstr(text, "ETA -"));
}

static void a_sparkline_spans_all_numbers(void **state)
{
    (void)state;
    char text[100];
    xkd_sparkline s = {.used = 0};
    xkd_sparkline_add(&s, 3);
    xkd_sparkline_draw(&s, text, sizeof text);
    assert_string_equal(text, "");
    xkd_sparkline_add(&s, NAN);
    xkd_sparkline_add(&s, 2);
    xkd_sparkline_add(&s, 1);
    xkd_sparkline_draw(&s, text, sizeof text);
    assert_string_equal(text, "█▅▁");
    s = (xkd_sparkline){.used = 0};
    for (int i = 0; i < 4; i++) xkd_sparkline_add(&s, 5);
    xkd_sparkline_draw(&s, text, sizeof text);
    assert_string_equal(text, "▁▁▁▁");
    /* 0 .. 63: 16 cells of 4; the 65th number makes 8 cells of 8 and one more. */
    s = (xkd_sparkline){.used = 0};
    for (int i = 0; i < 64; i++) xkd_sparkline_add(&s, i);
    xkd_sparkline_draw(&s, text, sizeof text);
    assert_string_equal(text, "▁▁▂▂▃▃▄▄▅▅▆▆▇▇██");
    xkd_sparkline_add(&s, 64);
    assert_int_equal(s.used, 9);
    xkd_sparkline_draw(&s, text, sizeof text);
    assert_string_equal(text, "▁▂▃▄▅▆▇██");
    /* Room for two blocks and the end. */
    xkd_sparkline_draw(&s, text, 7);
    assert_string_equal(text, "▁▂");
}

/* A folder of a run as one would be found. */
static void write_text(xkd_context *cx, const char *name, const char *text)
{
    char *path;
    assert_int_equal(xkd_join_path(cx, &path, folder, name), XKD_OK);
    assert_int_equal(xkd_write_file(cx, path, text, (int64_t)strlen(text)), XKD_OK);
    xkd_free(path);
}

static void clear_folder(void)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    assert_int_equal(system(command), 0);
}

static char *report(xkd_context *cx, int64_t total, int64_t *size)
{
    if (xkd_report_write(cx, folder, total, NULL) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return read_text(cx, "report.html", size);
}

static int count_of(const char *text, const char *needle)
{
    int count = 0;
    for (; (text = strstr(text, needle)); text++) count++;
    return count;
}

static void test_report(void **state)
{
    xkd_context *cx = *state;
    xkd_metrics *m;
    const uint8_t rgb[12] = {0};
    clear_folder();
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, -1, 0, false, &m), XKD_OK);
    for (int step = 1; step <= 2000; step++) {
        const double values[] = {step == 700 ? NAN : 100.0 / step, 1e-4};
        assert_int_equal(xkd_metrics_step(m, step, step / 1000, values), XKD_OK);
    }
    for (int step = 100; step <= 2000; step += 100)
        assert_int_equal(xkd_metrics_picture(m, step, "video", rgb, 2, 2), XKD_OK);
    xkd_metrics_close(m);
    write_text(cx, "tests.jsonl",
               "{\"step\": 9, \"epoch\": 1, \"top1\": 25, \"map\": null}\n{\"step\": 18, \"epoch\": 2, \"top1\": "
               "62.5}\n{\"to");
    write_text(cx, "config.yaml", "name: \"<x>\"\nhyperparams:\n  num_epochs: 3\n");
    int64_t size;
    char *html = report(cx, 0, &size);
    assert_non_null(strstr(html, "default-src 'none'"));
    assert_non_null(strstr(html, "<h1>&lt;x&gt;</h1>"));
    assert_null(strstr(html, "<x>"));
    /* The first epoch has 999 steps, and three are wanted. */
    assert_non_null(strstr(html, "2000 of 2997"));
    assert_non_null(strstr(html, "stopped, still learning"));
    assert_non_null(strstr(html, "xkd finetune --out /tmp/xkd-test-report-"));
    assert_non_null(strstr(html, "<td>hyperparams.num_epochs</td><td><mark>3</mark></td><td class=\"soft\">"));
    assert_non_null(strstr(html,
                           "{\"title\":\"test-by-epoch\",\"x\":\"epoch\",\"series\":[{\"name\":\"top1\",\"run\":0,"
                           "\"sparse\":true,\"x\":[1,2],\"y\":[25,62.5]}]}"));
    assert_non_null(strstr(html, "data:image/png;base64,iVBORw0KGgo"));
    assert_int_equal(count_of(html, "<div class=\"frame\""), 12); /* of 20 pictures */
    assert_non_null(strstr(html, "data-step=\"100\""));
    assert_non_null(strstr(html, "data-step=\"2000\""));
    assert_true(size < 100000); /* 2000 points are averaged down */
    xkd_free(html);
    html = report(cx, 2000, NULL);
    assert_non_null(strstr(html, "finished, still learning"));
    xkd_free(html);
    char *svg = read_text(cx, "curves/loss.svg", NULL);
    assert_memory_equal(svg, "<svg", 4);
    xkd_free(svg);
}

/* What a folder without a step gives, and one that is of no run. */
static void test_report_of_an_empty_run(void **state)
{
    xkd_context *cx = *state;
    xkd_metrics *m;
    clear_folder();
    assert_int_equal(xkd_report_write(cx, folder, 0, NULL), XKD_ERR_STORAGE);
    assert_non_null(strstr(xkd_last_error(cx), "neither metrics.csv nor config.yaml"));
    xkd_clear_error(cx);
    assert_int_equal(xkd_metrics_open(cx, folder, columns, 2, -1, 0, false, &m), XKD_OK);
    xkd_metrics_close(m);
    char *html = report(cx, 0, NULL);
    assert_non_null(strstr(html, "No step is done yet."));
    xkd_free(html);
    write_text(cx, "metrics.csv", "step,epoch,loss\n1,0\n\nrubbish,,\n");
    html = report(cx, 0, NULL);
    assert_non_null(strstr(html, "not finite"));
    xkd_free(html);
}

/* Means of the last 200 steps decide, by the thresholds of the collapse watch. */
static void test_verdicts(void **state)
{
    static const struct {
        double loss, falls, entropy, centre, spread, kd;
        const char *word;
    } cases[] = {
        {2, 0, 3, 0.5, 0.5, 3, "<strong>finished</strong>"},
        {2, 1, 3, 0.5, 0.5, 3, "<strong>finished, still learning</strong>"},
        {2, 0, 3, 0.5, 0.005, 3, "nearly the same answer"},
        {2, 0, 3, 0.99, 0.5, 3, "a centre that explains"},
        {2, 0, 9, 0.5, 0.5, 3, "nearly uniform answers"},
        {2, 0, 0.01, 0.5, 0.5, 0.01, "always picks one output"},
        {2, 0, 3, 0.5, 0.5, 14, "worse than by guessing"},
        {NAN, 0, 3, 0.5, 0.5, 3, "<strong>not finite</strong>"},
    };
    static const char *const names[] = {
        "loss", "recon_loss", "audio_teacher_entropy", "audio_centre_norm", "audio_feature_spread", "at2vs_kd_loss"};
    xkd_context *cx = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        xkd_metrics *m;
        clear_folder();
        assert_int_equal(xkd_metrics_open(cx, folder, names, 6, -1, 0, false, &m), XKD_OK);
        for (int step = 1; step <= 300; step++) {
            const double row[] = {cases[i].loss - 0.005 * step * cases[i].falls,
                                  1,
                                  cases[i].entropy,
                                  cases[i].centre,
                                  cases[i].spread,
                                  cases[i].kd};
            assert_int_equal(xkd_metrics_step(m, step, 0, row), XKD_OK);
        }
        xkd_metrics_close(m);
        write_text(cx, "config.yaml", "name: x\n"); /* 8192 outputs: ln K is 9.01 */
        char *html = report(cx, 300, NULL);
        if (!strstr(html, cases[i].word)) fail_msg("case %zu: no '%s'", i, cases[i].word);
        xkd_free(html);
    }
}

/* Names and configuration of others reach the page as text, whatever they hold. */
static void test_hostile_names(void **state)
{
    xkd_context *cx = *state;
    clear_folder();
    write_text(cx, "metrics.csv", "step,epoch,loss,</script><img src=x onerror=alert(1)>\n1,0,2,3\n");
    write_text(cx, "config.yaml",
               "name: \"</title></script><script>alert('1')</script>\\u202e\\x07\"\n"
               "dataset:\n  data_path: \"\\\"><img src=x onerror='alert(2)'>\"\n");
    write_text(cx, "bad_clips.jsonl",
               "{\"path\": \"a\\\"b'c</script><b>\\u202egpj.mp4\\u0007\", \"reason\": \"broken\", \"message\": "
               "\"<i>no</i>\"}\n"
               "{\"path\": \"a\\\"b'c</script><b>\\u202egpj.mp4\\u0007\", \"reason\": \"broken\", \"message\": "
               "\"<i>no</i>\"}\n"
               "{\"path\": {\"base64\": \"//48Pg==\"}, \"reason\": \"<u>\"}\n[1]\n{\"path\": 7}\nnothing\n");
    char *html = report(cx, 0, NULL);
    assert_int_equal(count_of(html, "<script"), 2); /* ours: the data and the program */
    assert_int_equal(count_of(html, "</script"), 2);
    assert_int_equal(count_of(html, "<img"), 0);
    assert_int_equal(count_of(html, "<b>"), 0);
    assert_int_equal(count_of(html, "<i>"), 0);
    assert_int_equal(count_of(html, "<u>"), 0);
    assert_null(strstr(html, "\xe2\x80\xae"));
    assert_null(strchr(html, 7));
    assert_true(xkd_is_utf8(html));
    assert_non_null(strstr(
        html, "a&quot;b&#39;c&lt;/script&gt;&lt;b&gt;\\xe2\\x80\\xaegpj.mp4\\x07</td><td class=\"number\">2</td>"));
    assert_non_null(strstr(html, "\\xff\\xfe&lt;&gt;"));
    xkd_free(html);
    /* A picture of other hands is left out, and one that is none does not end the report. */
    char *path;
    assert_int_equal(xkd_join_path(cx, &path, folder, "pictures"), XKD_OK);
    assert_int_equal(xkd_make_folder(cx, path), XKD_OK);
    write_text(cx, "pictures/video-<b>-3.png", "no picture");
    write_text(cx, "pictures/video.png", "no picture");
    html = report(cx, 0, NULL);
    assert_int_equal(count_of(html, "<img"), 0);
    assert_non_null(strstr(html, "video-&lt;b&gt;"));
    xkd_free(html);
    xkd_free(path);
    /* Strings of a script are cut nowhere. */
    xkd_text json = xkd_text_make(cx);
    xkd_page_json(&json, "</script><!-- & \" \\ \xe2\x80\xa8\xff");
    assert_string_equal(json.data, "\"\\u003c/script\\u003e\\u003c!-- \\u0026 \\\" \\\\ \\u2028\\ufffd\"");
    xkd_text_free(&json);
}

static void test_comparison(void **state)
{
    xkd_context *cx = *state;
    char *a, *b, *out;
    clear_folder();
    assert_int_equal(xkd_join_path(cx, &a, folder, "a<b>"), XKD_OK);
    assert_int_equal(xkd_join_path(cx, &b, folder, "b"), XKD_OK);
    assert_int_equal(xkd_join_path(cx, &out, folder, "both.html"), XKD_OK);
    assert_int_equal(xkd_make_folder(cx, a), XKD_OK);
    assert_int_equal(xkd_make_folder(cx, b), XKD_OK);
    write_text(cx, "a<b>/metrics.csv", "step,epoch,loss\n1,0,2\n2,0,1.5\n");
    write_text(cx, "b/metrics.csv", "step,epoch,loss\n1,0,3\n");
    write_text(cx, "a<b>/config.yaml", "hyperparams:\n  num_epochs: 3\n  weight_decay: 0.25\n");
    write_text(cx, "b/config.yaml", "hyperparams:\n  weight_decay: 0.25\n");
    char *folders[] = {a, b};
    if (xkd_report_compare(cx, folders, 2, out) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    char *html = read_text(cx, "both.html", NULL);
    assert_non_null(strstr(html, "<td>hyperparams.num_epochs</td><td><mark>3</mark></td><td>"));
    assert_null(strstr(html, "weight_decay")); /* alike in both */
    assert_null(strstr(html, "<b>"));
    assert_non_null(strstr(html, "<td>loss</td><td class=\"number\">1.5</td><td class=\"number\">3</td>"));
    assert_non_null(strstr(html, "\"run\":1,\"sparse\":true,\"x\":[1],\"y\":[3]}]}"));
    xkd_free(html);
    xkd_free(a);
    xkd_free(b);
    xkd_free(out);
}

/* The path of a drawn curve: the picture's second, behind that of the axes. Within `out`. */
static const char *drawn(xkd_text *out, const double *x, const double *y, int64_t count)
{
    const xkd_curve curve = {"c", x, y, count};
    xkd_text_clear(out);
    xkd_plot_svg(out, "t", &curve, 1);
    assert_int_equal(out->status, XKD_OK);
    const char *path = strstr(strstr(out->data, "stroke=\"#888\""), " d=\"");
    assert_non_null(path);
    return path;
}

static int pieces(const char *path)
{
    int count = 0;
    for (const char *end = strchr(path + 4, '"'); path < end; path++) count += *path == 'M';
    return count;
}

/* Values between which no tick fits, or that are as large or small as numbers are, are drawn, and in no time. */
static void test_spans(void **state)
{
    const double x[2] = {0, 1}, one = 1,
                 values[][2] = {{one, nextafter(one, 2)},
                                {one, nextafter(nextafter(one, 2), 2)},
                                {-1e15, nextafter(-1e15, 0)},
                                {1e300, nextafter(1e300, INFINITY)},
                                {-1.7e308, 1.7e308},
                                {0, 5e-324},
                                {1e-310, 3e-310},
                                {0, 0},
                                {NAN, NAN},
                                {INFINITY, 3}};
    xkd_text out = xkd_text_make(*state);
    alarm(20); /* a loop without an end would never come back */
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) drawn(&out, x, values[i], 2);
    const double far[2] = {1e16, nextafter(1e16, 1e17)};
    drawn(&out, far, values[0], 2);
    alarm(0);
    xkd_text_free(&out);
}

/* A loss that is not finite leaves a gap; what comes now and then is joined; one value alone is still to be seen. */
static void test_gaps(void **state)
{
    xkd_text out = xkd_text_make(*state);
    double x[9], loss[9], probe[9], once[9];
    for (int i = 0; i < 9; i++) {
        x[i] = i;
        loss[i] = i == 4 ? NAN : i;
        probe[i] = i % 3 == 0 ? i : NAN;
        once[i] = i == 5 ? 1 : NAN;
    }
    assert_int_equal(pieces(drawn(&out, x, loss, 9)), 2);
    assert_int_equal(pieces(drawn(&out, x, probe, 9)), 1);
    const char *dot = drawn(&out, x, once, 9);
    assert_int_equal(pieces(dot), 1);
    assert_non_null(strstr(dot, "h0\"")); /* with round ends */
    xkd_text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_drops_later_steps),
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_resume_cuts_event_files),
        cmocka_unit_test(test_event_files),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_colour_map),
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(a_sparkline_spans_all_numbers),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_report_of_an_empty_run),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_spans),
    };
    return cmocka_run_group_tests_name("report", tests, setup, teardown);
}
