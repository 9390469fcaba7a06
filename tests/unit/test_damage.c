/* Damage by its time: the share of each clip of a file is what a decoder finds that decodes this clip alone, as training
 * does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/damage.h"
#include "data_config.h"
#include "eval/encode/clips.h"
#include "media_files.h"

enum { MOST_CLIPS = 64 };

static xkd_context *cx;
static char folder[4096];

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s: %.9g instead of %.9g", what, got, want);
}

static void add(xkd_damage *d, bool video, bool lost, double from, double to)
{
    const xkd_media_stretch s = {.video = video, .lost = lost, .from = from, .to = to};
    assert_int_equal(xkd_damage_add(cx, d, &s), XKD_OK);
}

static void shares(void **state)
{
    (void)state;
    xkd_damage d = {0};
    char words[160];
    assert_true(xkd_damage_share(&d, XKD_VIDEO, 0, 4) == 0);
    for (int k = 0; k < 8; k++) {
        add(&d, true, false, 1 + k / 8.0, 1 + (k + 1) / 8.0);
        add(&d, false, true, 2 + k * 0.1, 2 + (k + 1) * 0.1);
    }
    add(&d, false, false, 10, 11);
    add(&d, true, false, 20, 20.4);
    assert_int_equal(d.count, 4);
    near("the whole second of pictures", xkd_damage_share(&d, XKD_VIDEO, 0, 4), 0.25, 1e-12);
    near("half of it", xkd_damage_share(&d, XKD_VIDEO, 1.5, 1), 0.5, 1e-12);
    near("behind it", xkd_damage_share(&d, XKD_VIDEO, 2, 4), 0, 0);
    near("all", xkd_damage_share(&d, XKD_VIDEO, 1, 1), 1, 0);
    /* Of lost sound 0.15 s are a decoder's lateness; of sound that is flagged nothing is. */
    near("lost sound", xkd_damage_share(&d, XKD_AUDIO, 1, 4), (0.8 - 0.15) / 4, 1e-9);
    near("a little lost sound", xkd_damage_share(&d, XKD_AUDIO, 2.7, 4), 0, 0);
    near("flagged sound", xkd_damage_share(&d, XKD_AUDIO, 9, 4), 0.25, 1e-12);
    /* One tenth is a tenth, and not more by the last bit. */
    assert_true(xkd_damage_share(&d, XKD_VIDEO, 18, 4) == 0.1);
    assert_true(xkd_damage_share(&d, XKD_VIDEO, 0, 0) == 0);
    xkd_damage_words(words, sizeof words, "the clip's", XKD_VIDEO, 0.254, 0.1);
    assert_string_equal(words, "25 % of the clip's pictures are damaged or missing (data.max_clip_damage=0.1)");
    xkd_damage_words(words, sizeof words, "its", XKD_AUDIO, 1, 0.5);
    assert_string_equal(words, "100 % of its sound is damaged or missing (data.max_clip_damage=0.5)");
    xkd_free(d.item);
}

/* ---- clips of files ---- */

typedef struct {
    float *memory;
    xkd_clip_place place[MOST_CLIPS];
    int count;
} taken;

static xkd_status reserve(void *user, xkd_modality modality, float **clip)
{
    (void)modality;
    *clip = ((taken *)user)->memory;
    return XKD_OK;
}

static xkd_status commit(void *user, const xkd_clip_place *place)
{
    taken *t = user;
    assert_in_range(t->count, 0, MOST_CLIPS - 1);
    t->place[t->count++] = *place;
    return XKD_OK;
}

static xkd_status drop_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static xkd_status drop_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    (void)user, (void)rgb, (void)width, (void)height, (void)index;
    return XKD_OK;
}

static xkd_status drop_sound(void *user, const int16_t *samples, int64_t count)
{
    (void)user, (void)samples, (void)count;
    return XKD_OK;
}

/* What training finds of the clip at `start`. */
static xkd_media_tally alone(const char *path, const xkd_data_config *d, double start)
{
    xkd_media *media = NULL;
    xkd_media_tally tally = {0};
    xkd_media_fault fault = XKD_FAULT_NONE;
    const xkd_media_sink sink = {.begin = drop_begin, .frame = drop_frame, .sound = drop_sound};
    const xkd_media_request q = {.mode = XKD_CLIP_AT,
                                 .start = start,
                                 .duration = d->clip_duration,
                                 .fps = d->video_fps,
                                 .audio_rate = d->audio_rate,
                                 .video = true,
                                 .audio = true,
                                 .all_pictures = true};
    assert_int_equal(xkd_media_open(cx, path, &media, &fault), XKD_OK);
    assert_int_equal(xkd_media_decode(media, &q, &sink, &tally, &fault), XKD_OK);
    xkd_media_free(media);
    return tally;
}

/* A film of 20 s of which the bytes from `from` to `to`, as shares of the file, are overwritten. */
static void make_damaged(char path[5000], const char *name, double from, double to, int byte, bool sound)
{
    char *bytes;
    int64_t size;
    test_file f = test_file_default();
    f.seconds = 20;
    f.encode.key_frames = 25;
    if (!sound) f.encode.sample_rate = f.encode.channels = 0;
    snprintf(path, 5000, "%s/%s", folder, name);
    if (make_test_file(cx, path, &f) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_read_file(cx, path, 1 << 26, XKD_ERR_DATA, &bytes, &size), XKD_OK);
    int64_t a = (int64_t)(from * (double)size), b = (int64_t)(to * (double)size);
    memset(bytes + a, byte, (size_t)(b - a));
    assert_int_equal(xkd_write_file(cx, path, bytes, size), XKD_OK);
    xkd_free(bytes);
}

static void take_clips(const char *path, const xkd_data_config *d, xkd_clip_protocol protocol, taken *out,
                       xkd_media_result *result)
{
    xkd_manifest m = {0};
    xkd_clipper *clipper;
    const xkd_clip_options o = {
        .data = d, .wanted = {true, true}, .protocol = protocol, .clips = 3, .stride = 1, .seed = 5};
    const xkd_clip_sink sink = {out, reserve, commit};
    out->count = 0;
    assert_int_equal(xkd_manifest_of_file(cx, path, &m), XKD_OK);
    assert_int_equal(xkd_clipper_new(cx, &o, &clipper), XKD_OK);
    assert_int_equal(xkd_clipper_run(clipper, &m, 0, 0, 0, &sink, result), XKD_OK);
    xkd_clipper_free(clipper);
    xkd_manifest_free(&m);
}

/* Windows, test and training clips of a film in the middle of which bytes are wrong. */
static void each_clip_has_its_own(void **state)
{
    static const struct {
        const char *name;
        int byte;
        bool sound;
    } FILMS[] = {{"zeros.mp4", 0, true},   {"zeros.mkv", 0, true}, {"ones.mp4", 0xff, true},
                 {"junk.mkv", 0xa5, true}, {"mute.mp4", 0, false}, {"mute.mkv", 0xff, false}};
    (void)state;
    taken t = {0};
    assert_int_equal(xkd_alloc(cx, &t.memory, 3 * 16 * 32 * 32 + 80 * 400, sizeof *t.memory), XKD_OK);
    for (size_t k = 0; k < sizeof FILMS / sizeof *FILMS; k++) {
        char path[5000];
        xkd_media_result result;
        int bad[XKD_MODALITIES] = {0}, good[XKD_MODALITIES] = {0};
        make_damaged(path, FILMS[k].name, 0.40, 0.47, FILMS[k].byte, FILMS[k].sound);
        xkd_data_config d = small_data_config(path);
        d.max_clip_damage = 1;
        for (xkd_clip_protocol p = XKD_CLIPS_WINDOWS; p <= XKD_CLIPS_TRAIN; p++) {
            take_clips(path, &d, p, &t, &result);
            assert_int_equal(result.fault, XKD_FAULT_NONE);
            for (int i = 0; i < t.count; i++) {
                const xkd_clip_place *place = &t.place[i];
                xkd_media_tally tally = alone(path, &d, place->seconds);
                near(FILMS[k].name, place->damage,
                     place->modality == XKD_VIDEO ? tally.video_damage : tally.audio_damage, 1e-6);
                bad[place->modality] += place->damage > 0.1;
                good[place->modality] += place->damage == 0;
            }
        }
        /* 7 % of the film are in two to four of 19 windows, and in one of the others at most. */
        xkd_modality m = FILMS[k].sound ? XKD_AUDIO : XKD_VIDEO;
        if (bad[m] < 2 || bad[m] > 8 || good[m] < 15) fail_msg("%s: %d bad, %d good", path, bad[m], good[m]);
    }
    xkd_free(t.memory);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares), cmocka_unit_test(each_clip_has_its_own)};
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("damage"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
