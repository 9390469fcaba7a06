/* A made-up data set in which picture and sound belong together: each class is a way of moving
 * (synth_motion.c) with a timbre that sounds at its events, while shape, colours, pitch, place and
 * noise are drawn anew for every clip. What a class is can be told from either modality, in
 * pictures only from change over time. */
#include "data/synth.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/rng.h"
#include "data/synth_motion.h"
#include "media/encode.h"

/* Hz; the background is a grid of CELLS x CELLS random values, interpolated. */
enum { SAMPLE_RATE = 16000, CELLS = 8 };

/* Objects and background differ by at least this much in brightness, so that the motion can be seen. */
static const double MIN_CONTRAST = 90;

/* Everything drawn for one clip. */
typedef struct {
    motion_values values;
    int shape;
    double object[3], back[2][3]; /* colours, 0 .. 255 */
    double cells[CELLS + 1][CELLS + 1];
    double pixel_noise;
    double pitch, loudness, hiss, hum, hum_level; /* Hz, 0 .. 1, deviation, Hz, 0 .. 1 */
} scene;

/* A clip being made. */
typedef struct {
    const xkd_synth_options *options;
    const motion *motion;
    scene scene;
    xkd_rng noise;
    uint8_t *rgb;        /* [H,W,3] */
    uint8_t *background; /* [H,W,3] */
    double *wave;        /* [samples] */
    int16_t *sound;      /* [samples] */
    int64_t samples;
} clip;

typedef struct {
    xkd_context *cx;
    const xkd_synth_options *options;
    int64_t test_clips; /* of a class */
    pthread_mutex_t lock;
    xkd_status status; /* of the first clip that failed */
    int64_t done;
    xkd_synth_progress progress;
    void *user;
    bool begun; /* by an earlier call that was stopped */
} job;

/* Small enough to be made in a minute, large enough to learn from. */
xkd_synth_options xkd_synth_defaults(void)
{
    return (xkd_synth_options){.classes = 12,
                               .clips = 20,
                               .test_share = 0.2,
                               .variety = 1,
                               .seconds = 5,
                               .width = 160,
                               .height = 120,
                               .fps = 16,
                               .threads = 1};
}

int64_t xkd_synth_class_count(void)
{
    return MOTION_COUNT;
}

const char *xkd_synth_class_name(int64_t label)
{
    return label >= 0 && label < MOTION_COUNT ? MOTIONS[label].name : "?";
}

/* Rec. 601 luma. */
static double brightness(const double c[3])
{
    return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2];
}

static void draw_colour(xkd_rng *rng, double c[3])
{
    for (int i = 0; i < 3; i++) c[i] = xkd_rng_range(rng, 0, 255);
}

/* Uniform around the middle of [low, high), over `variety` of its width. */
static double draw_around(xkd_rng *rng, double variety, double low, double high)
{
    double middle = (low + high) / 2;
    return middle + variety * (xkd_rng_range(rng, low, high) - middle);
}

/* The order of the draws is part of the data set: another order gives other clips for the same seed.
 * Lengths are in heights of the picture. Without variety a white object moves before one dark grey, whose shape and turn
 * alone differ. */
static void draw_scene(xkd_rng *rng, const xkd_synth_options *o, scene *s)
{
    motion_values *v = &s->values;
    double variety = o->variety, aspect = (double)o->width / (double)o->height;
    v->aspect = aspect;
    v->period = draw_around(rng, variety, 0.9, 1.5);
    v->phase = xkd_rng_uniform(rng);
    v->radius = draw_around(rng, variety, 0.14, 0.21);
    v->centre_x = aspect / 2 + draw_around(rng, variety, -0.15, 0.15);
    v->centre_y = 0.5 + draw_around(rng, variety, -0.08, 0.08);
    v->reach = draw_around(rng, variety, 0.22, 0.3);
    v->direction = xkd_rng_uniform(rng) < 0.5 ? -1 : 1;
    v->angle = xkd_rng_range(rng, 0, 2 * M_PI);
    s->shape = (int)xkd_rng_below(rng, 5);
    bool dark = xkd_rng_uniform(rng) < 1 - 0.5 * variety;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++) s->back[i][k] = draw_around(rng, variety, dark ? 0 : 150, dark ? 105 : 255);
    double behind = (brightness(s->back[0]) + brightness(s->back[1])) / 2;
    /* Ends: the background keeps to one end of the range, so colours near the other end are always far enough. */
    do draw_colour(rng, s->object);
    while (fabs(brightness(s->object) - behind) < MIN_CONTRAST);
    for (int k = 0; k < 3; k++) s->object[k] += (1 - variety) * ((dark ? 255 : 0) - s->object[k]);
    for (int y = 0; y <= CELLS; y++)
        for (int x = 0; x <= CELLS; x++) s->cells[y][x] = draw_around(rng, variety, 0, 1);
    s->pixel_noise = draw_around(rng, variety, 2, 8);
    s->pitch = 220 * pow(2, draw_around(rng, variety, 0, 1.6));
    s->loudness = draw_around(rng, variety, 0.25, 0.6);
    s->hiss = draw_around(rng, variety, 0.002, 0.03);
    s->hum = draw_around(rng, variety, 60, 400);
    s->hum_level = draw_around(rng, variety, 0, 0.03);
}

/* Smooth random texture between the two background colours. */
static void paint_background(clip *c)
{
    int64_t w = c->options->width, h = c->options->height;
    const scene *s = &c->scene;
    for (int64_t y = 0; y < h; y++) {
        for (int64_t x = 0; x < w; x++) {
            double fx = (double)(x * CELLS) / (double)w, fy = (double)(y * CELLS) / (double)h;
            int i = (int)fx, j = (int)fy;
            fx -= i;
            fy -= j;
            double top = s->cells[j][i] * (1 - fx) + s->cells[j][i + 1] * fx;
            double bottom = s->cells[j + 1][i] * (1 - fx) + s->cells[j + 1][i + 1] * fx;
            double mix = top * (1 - fy) + bottom * fy;
            for (int k = 0; k < 3; k++)
                c->background[3 * (y * w + x) + k] = (uint8_t)(s->back[0][k] * (1 - mix) + s->back[1][k] * mix);
        }
    }
}

/* Signed distance to the outline of a shape of radius 1 in its own coordinates; none is symmetric under all turns. */
static double shape_distance(int shape, double x, double y)
{
    double ax = fabs(x), ay = fabs(y);
    switch (shape) {
    case 0: return fmax(ax - 0.85, ay - 0.85);                                 /* square */
    case 1: return fmax(ax * 0.866 + y * 0.5, -y) - 0.5;                       /* triangle */
    case 2: return fmax(ax - 1.0, ay - 0.45);                                  /* bar */
    case 3: return fmin(fmax(ax - 1.0, ay - 0.33), fmax(ax - 0.33, ay - 1.0)); /* cross */
    default: return fmax(sqrt(x * x + y * y) - 1.0, -y - 0.1);                 /* half disc */
    }
}

/* Coverage of a pixel from the signed distance gives smooth edges, without which motion would
 * flicker. */
static void paint_object(clip *c, const motion_object *o)
{
    int64_t w = c->options->width, h = c->options->height;
    double scale = (double)h, sine = sin(o->angle), cosine = cos(o->angle);
    int64_t x0 = (int64_t)floor((o->x - 1.5 * o->radius) * scale), x1 = (int64_t)ceil((o->x + 1.5 * o->radius) * scale);
    int64_t y0 = (int64_t)floor((o->y - 1.5 * o->radius) * scale), y1 = (int64_t)ceil((o->y + 1.5 * o->radius) * scale);
    for (int64_t y = y0 < 0 ? 0 : y0; y < h && y <= y1; y++) {
        for (int64_t x = x0 < 0 ? 0 : x0; x < w && x <= x1; x++) {
            double dx = ((double)x + 0.5) / scale - o->x, dy = ((double)y + 0.5) / scale - o->y;
            double rx = (dx * cosine + dy * sine) / o->radius, ry = (dy * cosine - dx * sine) / o->radius;
            double cover = 0.5 - shape_distance(c->scene.shape, rx, ry) * o->radius * scale;
            cover = cover < 0 ? 0 : cover > 1 ? 1 : cover;
            uint8_t *p = c->rgb + 3 * (y * w + x);
            for (int k = 0; k < 3; k++) p[k] = (uint8_t)((1 - cover) * p[k] + cover * c->scene.object[k]);
        }
    }
}

/* u counts cycles; the clip begins at a random phase. */
static void paint_frame(clip *c, double time)
{
    motion_object objects[2];
    int64_t bytes = 3 * c->options->width * c->options->height;
    memcpy(c->rgb, c->background, (size_t)bytes);
    int count = c->motion->place(&c->scene.values, time / c->scene.values.period + c->scene.values.phase, objects);
    for (int i = 0; i < count; i++)
        if (objects[i].radius > 0) paint_object(c, &objects[i]);
    /* Four bytes of noise from each random word. */
    for (int64_t i = 0; i < bytes; i += 4) {
        uint32_t word = xkd_rng_u32(&c->noise);
        for (int k = 0; k < 4 && i + k < bytes; k++) {
            double value = c->rgb[i + k] + ((word >> 8 * k & 255) / 127.5 - 1) * c->scene.pixel_noise;
            c->rgb[i + k] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

/* One note of the class's timbre at a drawn pitch: four partials with optional frequency modulation,
 * attack and exponential decay, mixed with noise. Five decay times bring it below one per cent. */
static void add_note(clip *c, double time)
{
    const motion_timbre *t = &c->motion->timbre;
    double length = t->attack + 5 * t->decay, phase[4] = {0}, modulation = 0;
    for (int64_t i = 0; i < (int64_t)(length * SAMPLE_RATE); i++) {
        int64_t at = (int64_t)(time * SAMPLE_RATE) + i;
        double now = (double)i / SAMPLE_RATE, since = now - t->attack, sum = 0;
        double level = now < t->attack ? now / t->attack : exp(-since / t->decay);
        double pitch = c->scene.pitch * pow(2, t->bend * now / length);
        modulation += 2 * M_PI * pitch * t->fm_ratio / SAMPLE_RATE;
        for (int k = 0; k < 4; k++) {
            double frequency = pitch * t->ratio[k];
            phase[k] += 2 * M_PI * frequency / SAMPLE_RATE;
            /* Below the Nyquist frequency of 8 kHz, so that nothing aliases. */
            if (frequency < 7500) sum += t->level[k] * sin(phase[k] + t->fm_index * sin(modulation));
        }
        double hiss = xkd_rng_range(&c->noise, -1, 1);
        if (at >= 0 && at < c->samples)
            c->wave[at] += c->scene.loudness * level * ((1 - t->noise) * 0.5 * sum + t->noise * hiss);
    }
}

/* Hiss and hum differ from clip to clip and say nothing about the class. */
static void make_sound(clip *c)
{
    const motion_values *v = &c->scene.values;
    double seconds = c->options->seconds;
    for (int64_t i = 0; i < c->samples; i++)
        c->wave[i] = c->scene.hiss * xkd_rng_normal(&c->noise) +
                     c->scene.hum_level * sin(2 * M_PI * c->scene.hum * (double)i / SAMPLE_RATE);
    /* Events of cycles that began before the clip may still sound. */
    for (double cycle = -2; (cycle - v->phase) * v->period < seconds; cycle++)
        for (int e = 0; e < c->motion->events; e++) add_note(c, (cycle + c->motion->event[e] - v->phase) * v->period);
    for (int64_t i = 0; i < c->samples; i++) {
        double value = c->wave[i] * 32767;
        c->sound[i] = (int16_t)(value < -32767 ? -32767 : value > 32767 ? 32767 : value);
    }
}

/* Picture and sound are given in step, for the muxer interleaves them. */
static xkd_status encode(xkd_context *cx, clip *c, const char *path)
{
    xkd_status status = XKD_OK;
    xkd_encoder *encoder = NULL;
    const xkd_synth_options *o = c->options;
    xkd_encode_options e = {.width = o->width,
                            .height = o->height,
                            .fps = o->fps,
                            .key_frames = 48,
                            .sample_rate = SAMPLE_RATE,
                            .channels = 1};
    int64_t frames = llround(o->seconds * (double)o->fps), given = 0;
    XKD_TRY(xkd_encoder_new(cx, path, &e, &encoder));
    for (int64_t k = 0; k < frames; k++) {
        paint_frame(c, (double)k / (double)o->fps);
        XKD_TRY(xkd_encoder_frame(encoder, c->rgb, (double)k / (double)o->fps));
        int64_t until = (k + 1) * c->samples / frames;
        XKD_TRY(xkd_encoder_sound(encoder, c->sound + given, until - given));
        given = until;
    }
    xkd_encoder *complete = encoder;
    encoder = NULL;
    XKD_TRY(xkd_encoder_commit(complete));
fail:
    xkd_encoder_abort(encoder);
    return status;
}

/* Keyed by seed, class and number: a clip is the same whatever else is made and by how many threads.
 * The scene and the noise have streams of their own. */
static xkd_status make_clip(xkd_context *cx, const xkd_synth_options *o, int64_t label, int64_t number,
                            const char *path)
{
    xkd_status status = XKD_OK;
    clip c = {.options = o, .motion = &MOTIONS[label], .samples = llround(o->seconds * SAMPLE_RATE)};
    xkd_rng rng = xkd_rng_make(o->seed, 0, (uint32_t)number, (uint32_t)label, XKD_RNG_SYNTH);
    draw_scene(&rng, o, &c.scene);
    c.noise = xkd_rng_make(o->seed, 1, (uint32_t)number, (uint32_t)label, XKD_RNG_SYNTH);
    XKD_TRY(xkd_alloc(cx, &c.rgb, o->width * o->height, 3));
    XKD_TRY(xkd_alloc(cx, &c.background, o->width * o->height, 3));
    XKD_TRY(xkd_alloc(cx, &c.wave, c.samples, sizeof *c.wave));
    XKD_TRY(xkd_alloc(cx, &c.sound, c.samples, sizeof *c.sound));
    paint_background(&c);
    make_sound(&c);
    XKD_TRY(encode(cx, &c, path));
fail:
    xkd_free(c.rgb);
    xkd_free(c.background);
    xkd_free(c.wave);
    xkd_free(c.sound);
    return status;
}

/* Classes alternate, so a run that is stopped early has some of each. The last clips of a class are
 * its test set. */
static void run_one(void *arg, int64_t index, int thread)
{
    job *j = arg;
    const xkd_synth_options *o = j->options;
    int64_t label = index % o->classes, number = index / o->classes;
    bool test = number >= o->clips - j->test_clips;
    char *path = NULL;
    (void)thread;
    pthread_mutex_lock(&j->lock);
    xkd_status status = j->status;
    pthread_mutex_unlock(&j->lock);
    if (status != XKD_OK) return;
    if (j->options->stop && j->options->stop(j->user)) {
        pthread_mutex_lock(&j->lock);
        if (j->status == XKD_OK) j->status = xkd_fail(j->cx, XKD_ERR_INTERRUPTED, "stopped");
        pthread_mutex_unlock(&j->lock);
        return;
    }
    status = xkd_format_string(j->cx, &path, "%s/%s/%s/%05lld.mp4", o->out, test ? "test" : "train",
                               MOTIONS[label].name, (long long)number);
    /* A clip is published whole: one that is there was finished by an earlier call. */
    if (status == XKD_OK && !(j->begun && xkd_path_exists(path))) status = make_clip(j->cx, o, label, number, path);
    xkd_free(path);
    pthread_mutex_lock(&j->lock);
    if (j->status == XKD_OK) j->status = status;
    j->done++;
    if (j->progress) j->progress(j->user, j->done, o->classes * o->clips);
    pthread_mutex_unlock(&j->lock);
}

/* What the clips depend on: a folder that was begun with it is gone on with. */
static void describe(const xkd_synth_options *o, char *out, size_t size)
{
    snprintf(out, size,
             "xkd synth 1: %lld classes of %lld clips, %.17g s, %lldx%lld at %lld, %.17g for testing, variety %.17g, "
             "seed %llu\n",
             (long long)o->classes, (long long)o->clips, o->seconds, (long long)o->width, (long long)o->height,
             (long long)o->fps, o->test_share, o->variety, (unsigned long long)o->seed);
}

/* Whether an earlier call with the same options was stopped here; *marker is the file that says so. The caller frees it. */
static xkd_status was_begun(xkd_context *cx, const xkd_synth_options *o, char **marker, bool *begun)
{
    xkd_status status = XKD_OK;
    char want[400], *have = NULL;
    int64_t size;
    *begun = false;
    describe(o, want, sizeof want);
    XKD_TRY(xkd_join_path(cx, marker, o->out, ".unfinished"));
    if (xkd_path_exists(*marker)) {
        XKD_TRY(xkd_read_file(cx, *marker, 4096, XKD_ERR_CONFIG, &have, &size));
        *begun = strcmp(have, want) == 0;
    }
fail:
    xkd_free(have);
    return status;
}

/* Existing folders are refused: clips of two settings in one set would not be noticed. */
static xkd_status make_folders(xkd_context *cx, const xkd_synth_options *o, const char *marker, bool begun)
{
    static const char *const SPLITS[] = {"train", "test"};
    xkd_status status = XKD_OK;
    char *path = NULL, text[400];
    for (int s = 0; s < 2 && !begun; s++) {
        XKD_TRY(xkd_join_path(cx, &path, o->out, SPLITS[s]));
        if (xkd_path_exists(path))
            XKD_FAIL(XKD_ERR_CONFIG, "%s: exists already (choose another --out or remove it)", path);
        xkd_free(path);
        path = NULL;
    }
    describe(o, text, sizeof text);
    XKD_TRY(xkd_make_folder(cx, o->out));
    XKD_TRY(xkd_write_file(cx, marker, text, (int64_t)strlen(text)));
    for (int s = 0; s < 2; s++) {
        for (int64_t k = 0; k < o->classes; k++) {
            xkd_free(path);
            XKD_TRY(xkd_format_string(cx, &path, "%s/%s/%s", o->out, SPLITS[s], MOTIONS[k].name));
            XKD_TRY(xkd_make_folder(cx, path));
        }
    }
fail:
    xkd_free(path);
    return status;
}

/* Options are checked first; nothing is written if one is wrong. A single test clip at least, where
 * there is a test share. */
xkd_status xkd_synth(xkd_context *cx, const xkd_synth_options *o, xkd_synth_progress progress, void *user)
{
    xkd_status status = XKD_OK;
    xkd_pool *pool = NULL;
    char *marker = NULL;
    job j = {.cx = cx, .options = o, .progress = progress, .user = user};
    pthread_mutex_init(&j.lock, NULL);
    if (o->classes < 2 || o->classes > MOTION_COUNT)
        XKD_FAIL(XKD_ERR_CONFIG, "--classes %lld: from 2 to %d", (long long)o->classes, MOTION_COUNT);
    if (o->clips < 1 || o->clips > 1000000 || !(o->seconds >= 0.5 && o->seconds <= 600) ||
        !(o->test_share >= 0 && o->test_share < 1))
        XKD_FAIL(XKD_ERR_CONFIG, "--clips from 1, --seconds 0.5 to 600, --test-share from 0 to below 1");
    if (!(o->variety >= 0 && o->variety <= 1)) XKD_FAIL(XKD_ERR_CONFIG, "--variety %g: from 0 to 1", o->variety);
    j.test_clips = llround((double)o->clips * o->test_share);
    if (j.test_clips == 0 && o->test_share > 0 && o->clips > 1) j.test_clips = 1;
    XKD_TRY(was_begun(cx, o, &marker, &j.begun));
    XKD_TRY(make_folders(cx, o, marker, j.begun));
    XKD_TRY(xkd_pool_new(cx, &pool, o->threads));
    xkd_parallel_for(pool, o->classes * o->clips, run_one, &j);
    XKD_TRY(j.status);
    XKD_TRY(xkd_remove_file(cx, marker));
fail:
    xkd_free(marker);
    xkd_pool_free(pool);
    pthread_mutex_destroy(&j.lock);
    return status;
}
