/* Damage by its time: the share of each clip of a file is what a decoder finds that decodes this clip alone, as training
 * does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>

#include "base/alloc.h"
#include "base/file.h"
#include "data/fetch.h"
#include "data/index.h"
#include "data/pack.h"
#include "data/packing.h"
#include "data_config.h"
#include "eval/encode/clips.h"
#include "media/damage.h"
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

static const struct {
    const char *name;
    int byte;
    bool sound;
} FILMS[] = {{"zeros.mp4", 0, true},   {"zeros.mkv", 0, true}, {"ones.mp4", 0xff, true},
             {"junk.mkv", 0xa5, true}, {"mute.mp4", 0, false}, {"mute.mkv", 0xff, false}};
enum { FILM_COUNT = sizeof FILMS / sizeof *FILMS };

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

static void take_clips(const xkd_manifest *m, int64_t i, const xkd_data_config *d, xkd_clip_protocol protocol,
                       taken *out, xkd_media_result *result)
{
    xkd_clipper *clipper;
    const xkd_clip_options o = {
        .data = d, .wanted = {true, true}, .protocol = protocol, .clips = 3, .stride = 1, .seed = 5};
    const xkd_clip_sink sink = {out, reserve, commit};
    out->count = 0;
    assert_int_equal(xkd_clipper_new(cx, &o, &clipper), XKD_OK);
    assert_int_equal(xkd_clipper_run(clipper, m, i, 0, 0, &sink, result), XKD_OK);
    xkd_clipper_free(clipper);
}

/* Windows, test and training clips of a film in the middle of which bytes are wrong. */
static void each_clip_has_its_own(void **state)
{
    (void)state;
    taken t = {0};
    assert_int_equal(xkd_alloc(cx, &t.memory, 3 * 16 * 32 * 32 + 80 * 400, sizeof *t.memory), XKD_OK);
    for (int k = 0; k < FILM_COUNT; k++) {
        char path[5000];
        xkd_media_result result;
        int bad[XKD_MODALITIES] = {0}, good[XKD_MODALITIES] = {0};
        make_damaged(path, FILMS[k].name, 0.40, 0.47, FILMS[k].byte, FILMS[k].sound);
        xkd_data_config d = small_data_config(path);
        xkd_manifest film;
        d.max_clip_damage = 1;
        assert_int_equal(xkd_manifest_of_file(cx, path, &film), XKD_OK);
        for (xkd_clip_protocol p = XKD_CLIPS_WINDOWS; p <= XKD_CLIPS_TRAIN; p++) {
            take_clips(&film, 0, &d, p, &t, &result);
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
        xkd_manifest_free(&film);
        /* 7 % of the film are in two to four of 19 windows, and in one of the others at most. */
        xkd_modality m = FILMS[k].sound ? XKD_AUDIO : XKD_VIDEO;
        if (bad[m] < 2 || bad[m] > 8 || good[m] < 15) fail_msg("%s: %d bad, %d good", path, bad[m], good[m]);
    }
    xkd_free(t.memory);
}

/* ---- clips of packs ---- */

static xkd_data_config loose_config(char *path)
{
    xkd_data_config d = small_data_config(path);
    d.max_clip_damage = 0.1;
    d.max_bad_fraction = 0.5;
    d.audio_policy = XKD_AUDIO_SILENCE;
    d.cache_memory = 1;
    return d;
}

/* What stands in `from`, which may be a pack, packed into `to`. */
static void pack(char *from, const char *to, int codec)
{
    xkd_data_config d = loose_config(from);
    const xkd_record_options record = {
        .codec = codec, .quality = 95, .full_colour = true, .grid_fps = 8, .audio_rate = d.audio_rate};
    xkd_manifest m;
    xkd_packing_result r;
    if (xkd_manifest_load(cx, from, false, &m) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    const xkd_packing_options o = {
        .out = to, .parts = 1, .threads = 1, .settings = xkd_pack_settings_of(&d, 32, &record, 1 << 30, &m)};
    if (xkd_packing_run(cx, &m, &d, &o, &r) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(r.packed, FILM_COUNT);
    assert_int_equal(r.damaged, FILM_COUNT);
    xkd_manifest_free(&m);
}

/* A fetcher of a folder or pack; with a cache, so that clips of files start on the grid as well. */
typedef struct {
    xkd_data_config d;
    xkd_manifest m;
    xkd_cache *cache;
    xkd_fetcher *fetcher;
} source;

static void open_source(source *s, char *path, double fps)
{
    s->d = loose_config(path);
    s->d.cache = XKD_CACHE_RAM;
    s->d.video_fps = fps;
    if (xkd_manifest_load(cx, path, false, &s->m) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    assert_int_equal(xkd_cache_new(cx, &s->d, s->m.count, &s->cache), XKD_OK);
    assert_int_equal(xkd_fetcher_new(cx, &s->d, &s->m, s->cache, &s->fetcher), XKD_OK);
}

static void close_source(source *s)
{
    xkd_fetcher_free(s->fetcher);
    xkd_cache_free(s->cache);
    xkd_manifest_free(&s->m);
}

static xkd_media_result fetch(source *s, int64_t i, double place)
{
    xkd_clip clip;
    bool silent;
    xkd_media_result r;
    if (xkd_fetch_clip(s->fetcher, i, place, &clip, &silent, &r) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return r;
}

/* Clips all over the films have the shares that decoding each alone finds, and so the verdicts of training. Where it reads files
 * it passes over pictures that nobody sees, and over their damage: a verdict may then be milder. */
static void same_verdicts(char *films, char *packed, double fps)
{
    enum { PLACES = 16 };
    char path[10000];
    source a, b;
    int bad = 0, good = 0, milder = 0;
    open_source(&a, films, fps);
    open_source(&b, packed, fps);
    assert_int_equal(b.m.count, FILM_COUNT);
    for (int64_t i = 0; i < FILM_COUNT; i++) {
        const char *name = a.m.samples[i].path;
        assert_string_equal(name, b.m.samples[i].path);
        snprintf(path, sizeof path, "%s/%s", films, name);
        for (int k = 0; k < PLACES; k++) {
            double place = (double)k / PLACES;
            const xkd_media_result x = fetch(&a, i, place), y = fetch(&b, i, place);
            double seconds = x.info.end - x.info.start;
            double start = (double)xkd_media_grid_start(seconds, a.d.clip_duration, fps, place) / fps;
            const xkd_media_tally t = alone(path, &a.d, start);
            near(name, y.tally.video_damage, t.video_damage, 1e-6);
            near(name, y.tally.audio_damage, t.audio_damage, 1e-6);
            assert_true(x.tally.video_damage <= y.tally.video_damage + 1e-6);
            near(name, x.tally.audio_damage, y.tally.audio_damage, 1e-6);
            if (x.fault != XKD_FAULT_NONE) {
                assert_int_equal(y.fault, x.fault);
                assert_non_null(strstr(y.message, "damaged or missing (data.max_clip_damage=0.1)"));
            }
            *(y.fault != XKD_FAULT_NONE ? &bad : &good) += 1;
            milder += x.fault != y.fault;
        }
    }
    if (bad < 4 || good < PLACES * FILM_COUNT / 2 || milder > 3)
        fail_msg("%d bad, %d good, %d milder", bad, good, milder);
    close_source(&a);
    close_source(&b);
}

/* Clips come in the order in which their last bytes do. */
static double damage_of(const taken *t, const xkd_clip_place *of)
{
    for (int k = 0; k < t->count; k++)
        if (t->place[k].modality == of->modality && t->place[k].clip == of->clip) return t->place[k].damage;
    fail_msg("clip %d is not there", (int)of->clip);
    return -1;
}

/* Windows of whole films, as evaluation takes them. */
static void same_windows(const char *films, char *packed)
{
    static taken t, u;
    xkd_data_config d = loose_config(packed);
    xkd_manifest files, records;
    xkd_media_result result;
    d.max_clip_damage = 1;
    assert_int_equal(xkd_alloc(cx, &t.memory, 3 * 16 * 36 * 36 + 80 * 400, sizeof *t.memory), XKD_OK);
    u.memory = t.memory;
    assert_int_equal(xkd_manifest_load(cx, films, false, &files), XKD_OK);
    assert_int_equal(xkd_manifest_load(cx, packed, false, &records), XKD_OK);
    d.crop_size = 28; /* a short side of 32 */
    for (int64_t i = 0; i < FILM_COUNT; i++) {
        take_clips(&files, i, &d, XKD_CLIPS_WINDOWS, &t, &result);
        assert_int_equal(result.fault, XKD_FAULT_NONE);
        take_clips(&records, i, &d, XKD_CLIPS_WINDOWS, &u, &result);
        assert_int_equal(result.fault, XKD_FAULT_NONE);
        assert_true(t.count == u.count && t.count > 15);
        for (int k = 0; k < t.count; k++)
            near(files.samples[i].path, damage_of(&u, &t.place[k]), t.place[k].damage, 1e-6);
    }
    xkd_manifest_free(&files);
    xkd_manifest_free(&records);
    xkd_free(t.memory);
}

static void a_pack_knows_where(void **state)
{
    static const int CODECS[] = {XKD_CODEC_RAW, XKD_CODEC_JPEG};
    char films[5000], packed[5000], again[5000], path[5000], name[64];
    (void)state;
    snprintf(films, sizeof films, "%s/films", folder);
    assert_int_equal(xkd_make_folder(cx, films), XKD_OK);
    for (int k = 0; k < FILM_COUNT; k++) {
        snprintf(name, sizeof name, "films/%s", FILMS[k].name);
        make_damaged(path, name, 0.40, 0.47, FILMS[k].byte, FILMS[k].sound);
    }
    for (int c = 0; c < 2; c++) {
        snprintf(packed, sizeof packed, "%s/packed%d", folder, c);
        snprintf(again, sizeof again, "%s/again%d", folder, c);
        pack(films, packed, CODECS[c]);
        same_verdicts(films, packed, 8);
        same_verdicts(films, packed, 4);
        same_windows(films, packed);
        /* A pack of a pack. */
        pack(packed, again, CODECS[c]);
        same_verdicts(films, again, 8);
    }
}

/* Changes the head of a record, or what stands `at` in its list. */
static void change(const source *s, int64_t sample, bool list, void (*edit)(xkd_record_head *))
{
    char path[10000];
    xkd_source record;
    xkd_media_fault fault;
    xkd_record_head h;
    uint8_t byte;
    assert_int_equal(xkd_manifest_open(cx, &s->m, &s->m.samples[sample], false, &record, &fault), XKD_OK);
    close(record.fd);
    snprintf(path, sizeof path, "%s/%s", s->d.path, xkd_pack_shard(s->m.pack, s->m.samples[sample].record - 1));
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &h, sizeof h, (off_t)record.offset), sizeof h);
    assert_true(h.damage_at > 0 && h.stretches > 0);
    if (edit) edit(&h);
    h.sum = xkd_record_head_sum(&h);
    assert_int_equal(pwrite(fd, &h, sizeof h, (off_t)record.offset), sizeof h);
    if (list) {
        off_t at = (off_t)(record.offset + h.damage_at + 3);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

static void as_before(xkd_record_head *h)
{
    h->damage_at = 0;
    h->stretches = h->damage_sum = 0;
}

static void outside(xkd_record_head *h)
{
    h->damage_at = h->bytes - 8;
}

/* Records of before they said where have the whole file's shares for every clip, and so does a pack made of them. */
static void early_records_are_judged_as_a_whole(void **state)
{
    char packed[5000], again[5000];
    source s;
    (void)state;
    snprintf(packed, sizeof packed, "%s/packed0", folder);
    snprintf(again, sizeof again, "%s/early", folder);
    open_source(&s, packed, 8);
    for (int64_t i = 0; i < FILM_COUNT; i++) change(&s, i, false, as_before);
    close_source(&s);
    pack(packed, again, XKD_CODEC_RAW);
    for (int made = 0; made < 2; made++) {
        open_source(&s, made ? again : packed, 8);
        for (int64_t i = 0; i < FILM_COUNT; i++) {
            const xkd_media_result first = fetch(&s, i, 0);
            assert_true(first.tally.unplaced);
            assert_true(first.tally.video_damage + first.tally.audio_damage > 0.01);
            for (int k = 1; k < 8; k++) {
                const xkd_media_result r = fetch(&s, i, k / 8.0);
                assert_true(r.tally.video_damage == first.tally.video_damage);
                assert_true(r.tally.audio_damage == first.tally.audio_damage);
            }
        }
        close_source(&s);
    }
}

static void a_damaged_list_is_told(void **state)
{
    char packed[5000];
    source s;
    (void)state;
    snprintf(packed, sizeof packed, "%s/packed1", folder);
    open_source(&s, packed, 8);
    change(&s, 0, true, NULL);
    change(&s, 1, false, outside);
    xkd_media_result r = fetch(&s, 0, 0);
    assert_int_equal(r.fault, XKD_FAULT_BROKEN);
    assert_non_null(
        strstr(r.message, "000000000000.xkdpack: the record's list of where it is damaged is damaged itself"));
    r = fetch(&s, 1, 0);
    assert_int_equal(r.fault, XKD_FAULT_BROKEN);
    assert_non_null(strstr(r.message, "the record has no room for where it is damaged"));
    assert_int_equal(fetch(&s, 2, 0).fault, XKD_FAULT_NONE);
    close_source(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares), cmocka_unit_test(each_clip_has_its_own), cmocka_unit_test(a_pack_knows_where),
        cmocka_unit_test(early_records_are_judged_as_a_whole), cmocka_unit_test(a_damaged_list_is_told)};
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("damage"));
    if (!cx || xkd_make_folder(cx, folder) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
