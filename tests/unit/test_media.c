/* Files of our own making through the decoder: which frame and which sample stands at which time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "media/media.h"
#include "media_files.h"

enum { MAX_FRAMES = 400, MAX_SAMPLES = 16000 * 30 };

typedef struct {
    int numbers[MAX_FRAMES];
    int64_t frames, samples, width, height;
    uint8_t first[3 * 512 * 512];
    int16_t sound[MAX_SAMPLES];
    xkd_media_info info;
    double start;
    xkd_media_tally tally;
} capture;

static capture got;
static xkd_context *cx;
static char folder[4096];

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user;
    got.info = *info;
    got.start = start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user;
    assert_int_equal(index, got.frames);
    if (got.frames == 0) memcpy(got.first, rgb, (size_t)(3 * width * height));
    if (got.frames < MAX_FRAMES) got.numbers[got.frames] = read_number(rgb, width, height);
    got.frames++;
    got.width = width;
    got.height = height;
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    (void)user;
    assert_true(got.samples + count <= MAX_SAMPLES);
    memcpy(got.sound + got.samples, samples, (size_t)count * sizeof *samples);
    got.samples += count;
    return XKD_OK;
}

static const xkd_media_request CLIP = {
    .mode = XKD_CLIP_AT, .duration = 2, .fps = 8, .audio_rate = 16000, .video = true, .audio = true};

static xkd_media_fault decode(const char *path, const xkd_media_request *request)
{
    xkd_media *media = NULL;
    xkd_media_fault fault = XKD_FAULT_NONE;
    xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    memset(&got, 0, sizeof got);
    xkd_clear_error(cx);
    if (xkd_media_open(cx, path, &media, &fault) == XKD_OK) {
        xkd_status status = xkd_media_decode(media, request, &sink, &got.tally, &fault);
        if (status != XKD_OK && fault == XKD_FAULT_NONE) fault = XKD_FAULT_COUNT;
    }
    xkd_media_free(media);
    return fault;
}

static const char *make(const char *name, const test_file *file)
{
    static char path[5000];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    xkd_clear_error(cx);
    if (make_test_file(cx, path, file) != XKD_OK) {
        print_message("# %s\n", xkd_last_error(cx));
        return NULL;
    }
    return path;
}

static int64_t tone_onset(void)
{
    for (int64_t i = 0; i < got.samples; i++)
        if (abs(got.sound[i]) > 3000) return i;
    return -1;
}

static void frames_on_the_grid_in_every_container(void **state)
{
    static const struct {
        const char *name, *format, *codec;
    } KINDS[] = {{"a.mp4", "mp4", NULL},  {"b.mp4", "mp4", "mpeg4"}, {"c.mkv", "matroska", NULL},
                 {"d.mov", "mov", NULL},  {"e.avi", "avi", "mpeg4"}, {"f.webm", "webm", "libvpx"},
                 {"g.ts", "mpegts", NULL}};
    (void)state;
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        test_file file = test_file_default();
        file.encode.format = KINDS[k].format;
        file.encode.video_codec = KINDS[k].codec;
        const char *path = make(KINDS[k].name, &file);
        if (!path) continue; /* this FFmpeg cannot write it */
        for (double start = 0; start < 3.9; start += 0.37) {
            xkd_media_request request = CLIP;
            request.start = start;
            assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
            if (got.frames != 16) print_message("# %s at %g: %lld frames\n", path, start, (long long)got.frames);
            assert_int_equal(got.frames, 16);
            double lead = got.info.start - got.info.video_start;
            for (int i = 0; i < 16; i++)
                assert_int_equal(got.numbers[i], (int)floor((start + lead + i / 8.0) * 25 + 1e-4));
            if (got.samples < 31990) print_message("# %s at %g: %lld samples\n", path, start, (long long)got.samples);
            assert_true(got.samples >= 31990);
        }
    }
}

static void late_sound_stays_in_step(void **state)
{
    (void)state;
    test_file file = test_file_default();
    file.encode.audio_start = 0.5;
    file.tone_from = 0.7; /* at 1.2 s of the file */
    const char *path = make("late.mkv", &(test_file){.encode = file.encode, .seconds = 6, .tone_from = 0.7});
    xkd_media_request request = CLIP;
    assert_non_null(path);
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    double common = got.info.start;
    assert_true(fabs(common - 0.5) < 0.05);
    assert_int_equal(got.numbers[0], (int)floor(common * 25 + 1e-4));
    assert_true(llabs(tone_onset() - llround((1.2 - common) * 16000)) < 40);
    request.start = 0.4; /* after a seek likewise */
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    assert_true(llabs(tone_onset() - llround((0.8 - common) * 16000)) < 40);
}

static void variable_rate_follows_time_stamps(void **state)
{
    (void)state;
    test_file file = test_file_default();
    file.slow_after = 50; /* 25 fps to 2 s, then 6.25 fps */
    const char *path = make("vfr.mp4", &file);
    assert_non_null(path);
    xkd_media_request request = CLIP;
    request.start = 1.5;
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    for (int i = 0; i < 16; i++) {
        double t = 1.5 + i / 8.0;
        int expected = t < 2 ? (int)floor(t * 25 + 1e-4) : 50 + (int)floor((t - 2) * 6.25 + 1e-4);
        assert_int_equal(got.numbers[i], expected);
    }
}

static void rotation_is_applied(void **state)
{
    (void)state;
    for (int turns = 0; turns < 4; turns++) {
        test_file file = test_file_default();
        file.encode.quarter_turns = turns;
        file.seconds = 1;
        const char *path = make("turn.mp4", &file);
        assert_non_null(path);
        xkd_media_request request = CLIP;
        request.duration = 0.5;
        assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
        assert_int_equal(got.info.quarter_turns, turns);
        assert_int_equal(got.width, turns % 2 ? TEST_HEIGHT : TEST_WIDTH);
        assert_int_equal(got.info.width, got.width);
    }
    /* Frame 1 has its leftmost bar white: a clockwise quarter turn brings it to the top. */
    test_file file = test_file_default();
    file.encode.quarter_turns = 1;
    const char *path = make("turn.mp4", &file);
    xkd_media_request request = CLIP;
    request.start = 0.05;
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    assert_true(got.first[3 * (4 * got.width + got.width / 2)] > 128);
    assert_true(got.first[3 * ((got.height - 5) * got.width + got.width / 2)] < 128);
}

static void whole_file_equals_clips(void **state)
{
    (void)state;
    test_file file = test_file_default();
    file.tone_from = 2.5;
    const char *path = make("whole.mp4", &file);
    assert_non_null(path);
    xkd_media_request request = CLIP;
    request.mode = XKD_CLIP_WHOLE;
    request.short_side = 56;
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    assert_int_equal(got.frames, 48);
    assert_int_equal(got.height, 56);
    assert_int_equal(got.width, 80);
    for (int i = 0; i < 48; i++) assert_int_equal(got.numbers[i], (int)floor(i / 8.0 * 25 + 1e-4));
    assert_true(llabs(got.samples - 96000) < 1100);
    assert_true(llabs(tone_onset() - 40000) < 40);
    assert_int_equal(got.tally.errors, 0);
}

static void silent_and_short_files(void **state)
{
    (void)state;
    test_file file = test_file_default();
    file.encode.sample_rate = 0;
    file.seconds = 1.2;
    const char *path = make("mute.mp4", &file);
    assert_non_null(path);
    xkd_media_request request = CLIP;
    request.mode = XKD_CLIP_PLACE;
    request.start = 0.9;
    assert_int_equal(decode(path, &request), XKD_FAULT_NONE);
    assert_false(got.info.has_audio);
    assert_int_equal(got.samples, 0);
    assert_int_equal(got.frames, 10); /* 0, 1/8, ... 9/8 */
    assert_true(got.start == 0);
}

static void strangers_are_refused(void **state)
{
    static const struct {
        const char *name, *text;
        xkd_media_fault fault;
    } FILES[] = {
        {"hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nwhole.mp4\n#EXT-X-ENDLIST\n", XKD_FAULT_REFUSED},
        {"concat.mp4", "ffconcat version 1.0\nfile 'whole.mp4'\n", XKD_FAULT_REFUSED},
        {"sdp.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
         XKD_FAULT_REFUSED},
        {"zero.mp4", "", XKD_FAULT_EMPTY},
        {"letter.mp4", "Dear Sir,\nthis is a letter and no film at all.\n", XKD_FAULT_NOT_MEDIA},
    };
    char path[5000];
    xkd_media_request request = CLIP;
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, FILES[i].name);
        assert_int_equal(xkd_write_file(cx, path, FILES[i].text, (int64_t)strlen(FILES[i].text)), XKD_OK);
        assert_string_equal(xkd_media_fault_name(decode(path, &request)), xkd_media_fault_name(FILES[i].fault));
    }
    assert_int_equal(decode("concat:a.mp4|b.mp4", &request), XKD_FAULT_MISSING);
    assert_int_equal(decode("/dev/zero", &request), XKD_FAULT_UNREADABLE);
    assert_int_equal(decode(folder, &request), XKD_FAULT_UNREADABLE);
}

/* A codec that is not on the list is not looked into, so that its rate may be unknown: it is refused for what it is, and no
 * damage. */
static void a_codec_is_named_before_its_rate(void **state)
{
    char *bytes, path[5000];
    int64_t size;
    test_file file = test_file_default();
    xkd_media_request request = CLIP;
    (void)state;
    file.seconds = 3;
    file.encode.format = "avi";
    snprintf(path, sizeof path, "%s", make("yamaha.avi", &file));
    assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    char *at = memmem(bytes, (size_t)size, "auds", 4);
    assert_non_null(at);
    at = memmem(at, (size_t)(bytes + size - at), "strf", 4);
    assert_non_null(at);
    memset(at + 8, 0, 4); /* tag and channels */
    at[8] = 0x20;         /* Yamaha's ADPCM */
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
    assert_string_equal(xkd_media_fault_name(decode(path, &request)), "refused");
    assert_non_null(strstr(xkd_last_error(cx), "codec adpcm_yamaha is not on the list"));
}

/* A download that set room aside and did not finish: the message says where the film begins. */
static void zeros_in_front_are_told(void **state)
{
    static const char *const FORMATS[] = {"mp4", "mpegts", "matroska", "avi", "flv"};
    enum { ZEROS = 1 << 20 };
    xkd_media_request request = CLIP;
    char path[5000];
    (void)state;
    for (int i = 0; i < 5; i++) {
        char *bytes, *more;
        int64_t size;
        test_file file = test_file_default();
        file.seconds = 2;
        file.encode.format = FORMATS[i];
        snprintf(path, sizeof path, "%s", make("hole.mp4", &file));
        assert_int_equal(xkd_read_file(cx, path, 1 << 30, XKD_ERR_DATA, &bytes, &size), XKD_OK);
        assert_int_equal(xkd_alloc(cx, &more, size + ZEROS, 1), XKD_OK);
        memcpy(more + ZEROS, bytes, (size_t)size);
        assert_int_equal(xkd_write_file(cx, path, more, size + ZEROS), XKD_OK);
        assert_string_equal(xkd_media_fault_name(decode(path, &request)), "not-media");
        if (!strstr(xkd_last_error(cx), "its first 1048576 bytes are zero") ||
            !strstr(xkd_last_error(cx), "tail -c +1048577 FILE"))
            fail_msg("%s: %s", FORMATS[i], xkd_last_error(cx));
        assert_int_equal(xkd_write_file(cx, path, more, ZEROS), XKD_OK);
        assert_string_equal(xkd_media_fault_name(decode(path, &request)), "not-media");
        assert_non_null(strstr(xkd_last_error(cx), "all of its 1048576 bytes are zero"));
        xkd_free(bytes);
        xkd_free(more);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_on_the_grid_in_every_container),
        cmocka_unit_test(late_sound_stays_in_step),
        cmocka_unit_test(variable_rate_follows_time_stamps),
        cmocka_unit_test(rotation_is_applied),
        cmocka_unit_test(whole_file_equals_clips),
        cmocka_unit_test(silent_and_short_files),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(a_codec_is_named_before_its_rate),
        cmocka_unit_test(zeros_in_front_are_told),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("media"));
    if (xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
