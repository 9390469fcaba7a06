/* Worker processes: the same result as in this process, and what becomes of crashes, stalls and wrong programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"
#include "media/worker.h"
#include "media/worker_protocol.h"
#include "media_files.h"

typedef struct {
    uint64_t frame_sum, sound_sum;
    int64_t frames, samples;
    xkd_worker *victim; /* gets this signal at frame 3 */
    int signal;
} sums;

static xkd_context *cx;
static char folder[4096], path[5000];

static xkd_status on_begin(void *user, const xkd_media_info *info, double start)
{
    (void)user, (void)info, (void)start;
    return XKD_OK;
}

static xkd_status on_frame(void *user, const uint8_t *rgb, int64_t width, int64_t height, int64_t index)
{
    sums *s = user;
    for (int64_t i = 0; i < 3 * width * height; i++) s->frame_sum = s->frame_sum * 31 + rgb[i];
    assert_int_equal(index, s->frames);
    if (++s->frames == 3 && s->victim) kill(xkd_worker_process(s->victim), s->signal);
    return XKD_OK;
}

static xkd_status on_sound(void *user, const int16_t *samples, int64_t count)
{
    sums *s = user;
    for (int64_t i = 0; i < count; i++) s->sound_sum = s->sound_sum * 31 + (uint16_t)samples[i];
    s->samples += count;
    return XKD_OK;
}

static const xkd_media_request WHOLE = {
    .mode = XKD_CLIP_WHOLE, .fps = 25, .audio_rate = 16000, .video = true, .audio = true};

static xkd_media_result decode(xkd_worker *worker, const xkd_media_request *request, sums *s)
{
    xkd_media_result result;
    xkd_source source = {0};
    xkd_media_sink sink = {.user = s, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    assert_int_equal(xkd_open_read(cx, path, &source.fd, &source.size), XKD_OK);
    assert_int_equal(xkd_worker_decode(worker, &source, request, &sink, &result), XKD_OK);
    close(source.fd);
    return result;
}

static void same_as_in_this_process(void **state)
{
    sums here = {0}, there = {0};
    xkd_media *media = NULL;
    xkd_media_fault fault;
    xkd_media_tally tally;
    xkd_worker *worker = NULL;
    xkd_media_sink sink = {.user = &here, .begin = on_begin, .frame = on_frame, .sound = on_sound};
    (void)state;
    assert_int_equal(xkd_media_open(cx, path, &media, &fault), XKD_OK);
    assert_int_equal(xkd_media_decode(media, &WHOLE, &sink, &tally, &fault), XKD_OK);
    xkd_media_free(media);
    assert_int_equal(xkd_worker_new(cx, NULL, 20, &worker), XKD_OK);
    for (int i = 0; i < 3; i++) {
        there = (sums){0};
        xkd_media_result result = decode(worker, &WHOLE, &there);
        assert_int_equal(result.fault, XKD_FAULT_NONE);
        assert_int_equal(there.frames, here.frames);
        assert_int_equal(there.samples, here.samples);
        assert_true(there.frame_sum == here.frame_sum && there.sound_sum == here.sound_sum);
        assert_int_equal(result.tally.frames, here.frames);
    }
    xkd_media_result probe = decode(worker, NULL, &there);
    assert_int_equal(probe.fault, XKD_FAULT_NONE);
    assert_int_equal(probe.info.width, 640);
    assert_int_equal(xkd_worker_restarts(worker), 0);
    xkd_worker_free(worker);
}

static void a_crash_costs_one_clip(void **state)
{
    sums s = {.signal = SIGSEGV};
    xkd_worker *worker = NULL;
    (void)state;
    assert_int_equal(xkd_worker_new(cx, NULL, 20, &worker), XKD_OK);
    s.victim = worker;
    xkd_media_result result = decode(worker, &WHOLE, &s);
    assert_string_equal(xkd_media_fault_name(result.fault), "crash");
    assert_int_equal(xkd_worker_restarts(worker), 1);
    s = (sums){0};
    result = decode(worker, &WHOLE, &s);
    assert_int_equal(result.fault, XKD_FAULT_NONE);
    xkd_worker_free(worker);
}

/* A worker is renewed once a quarter of the limit is used up; the request that crosses the quarter must still fit in the rest. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { CPU_LIMIT = 8 }; /* seconds; a request takes several times as long */
#else
enum { CPU_LIMIT = 3 };
#endif

/* Decodes under "ulimit -t" for longer than that; returns how many processes it took, and -1 for a fault. */
static int decode_under_limit(void)
{
    const struct rlimit limit = {CPU_LIMIT, CPU_LIMIT};
    xkd_worker *worker = NULL;
    int last = 0, processes = 0;
    xkd_media_request request = WHOLE;
    request.mode = XKD_CLIP_AT;
    request.duration = 1;
    request.short_side = 16; /* the limit holds for this process too, which has little to do */
    if (setrlimit(RLIMIT_CPU, &limit) != 0 || xkd_worker_new(cx, NULL, 20, &worker) != XKD_OK) return -1;
    double until = xkd_now() + 30 * CPU_LIMIT; /* on a loaded machine the worker's own time goes slowly */
    while (processes < 6 && xkd_now() < until) {
        sums s = {0};
        xkd_media_result result = decode(worker, &request, &s);
        if (result.fault != XKD_FAULT_NONE || xkd_worker_restarts(worker) > 0) return -1;
        processes += xkd_worker_process(worker) != last;
        last = xkd_worker_process(worker);
    }
    xkd_worker_free(worker);
    return processes;
}

/* Five processes have used more than the limit of one: no file is blamed for it. */
static void a_limit_of_processor_time_is_no_fault(void **state)
{
    int how = 0;
    (void)state;
    pid_t child = fork();
    if (child == 0) _exit(decode_under_limit() == 6 ? 0 : 1);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

static void a_stall_is_cut_off(void **state)
{
    sums s = {.signal = SIGSTOP};
    xkd_worker *worker = NULL;
    (void)state;
    assert_int_equal(xkd_worker_new(cx, NULL, 0.5, &worker), XKD_OK);
    s.victim = worker;
    xkd_media_request clip = WHOLE;
    clip.mode = XKD_CLIP_AT;
    clip.duration = 3;
    double start = xkd_now();
    xkd_media_result result = decode(worker, &clip, &s);
    assert_string_equal(xkd_media_fault_name(result.fault), "timeout");
    assert_true(xkd_now() - start < 5);
    xkd_worker_free(worker);
}

static void a_wrong_program_is_told_from_a_bad_file(void **state)
{
    static const char *const PROGRAMS[] = {"/bin/true", "/nonexistent/xkd"};
    xkd_media_sink sink = {.begin = on_begin, .frame = on_frame, .sound = on_sound};
    xkd_media_result result;
    xkd_source source = {0};
    (void)state;
    assert_int_equal(xkd_open_read(cx, path, &source.fd, &source.size), XKD_OK);
    for (int i = 0; i < 2; i++) {
        xkd_worker *worker = NULL;
        xkd_clear_error(cx);
        assert_int_equal(xkd_worker_new(cx, PROGRAMS[i], 5, &worker), XKD_OK);
        assert_int_equal(xkd_worker_decode(worker, &source, &WHOLE, &sink, &result), XKD_ERR_INTERNAL);
        xkd_worker_free(worker);
    }
    xkd_clear_error(cx);
    close(source.fd);
}

/* Plays a worker that was taken over by a file. Its socket is descriptor 3 (worker_protocol.h). */
static int rogue(const char *how)
{
    worker_reply r = {.kind = REPLY_HELLO, .count = WORKER_VERSION};
    worker_request q;
    send(WORKER_SOCKET, &r, sizeof r, MSG_NOSIGNAL);
    while (recv(WORKER_SOCKET, &q, sizeof q, 0) > 0) {
        r = (worker_reply){.kind = REPLY_BEGIN, .info = {.has_video = true, .has_audio = true, .end = 5}};
        r.info.video_end = r.info.audio_end = 5;
        if (!strcmp(how, "rate")) r.info.sample_rate = -1;
        if (!strcmp(how, "nan")) r.info.end = NAN;
        if (!strcmp(how, "size")) r.kind = REPLY_END, r.info.width = -5;
        if (!strcmp(how, "names")) r.kind = REPLY_END;
        if (!strcmp(how, "names")) memset(r.info.format, '\n', sizeof r.info.format);
        send(WORKER_SOCKET, &r, sizeof r, MSG_NOSIGNAL);
        r.kind = REPLY_SOUND;
        r.count = WORKER_SOUND;
        /* Never reads an acknowledgement. */
        for (int64_t i = 0; i < 1000000; i++)
            if (send(WORKER_SOCKET, &r, sizeof r, MSG_NOSIGNAL) < 0) return 1;
    }
    return 0;
}

static void a_worker_gone_wrong_is_ended(void **state)
{
    static const char *const HOW[] = {"rate", "nan", "size", "sound", "names"};
    (void)state;
    for (size_t i = 0; i < sizeof HOW / sizeof *HOW; i++) {
        xkd_worker *worker = NULL;
        sums s = {0};
        bool names = !strcmp(HOW[i], "names");
        assert_int_equal(setenv("XKD_ROGUE", HOW[i], 1), 0);
        assert_int_equal(xkd_worker_new(cx, NULL, 20, &worker), XKD_OK);
        double begun = xkd_now();
        xkd_media_result result = decode(worker, &WHOLE, &s);
        assert_string_equal(xkd_media_fault_name(result.fault), names ? "ok" : "crash");
        if (names) assert_int_equal(strlen(result.info.format), sizeof result.info.format - 1);
        if (names) assert_int_equal(result.info.format[0], '?');
        /* Neither without bound nor for ever: 5 s of sound, and what rounding may add. */
        assert_true(s.samples <= 16000 * 20);
        assert_true(xkd_now() - begun < 10);
        xkd_worker_free(worker);
    }
    unsetenv("XKD_ROGUE");
}

/* Ctrl-Z and a suspended job: the whole process stands still for longer than the limit. */
static void time_that_stands_still_does_not_count(void **state)
{
    xkd_worker *worker = NULL;
    char command[200];
    (void)state;
    assert_int_equal(xkd_worker_new(cx, NULL, 1, &worker), XKD_OK);
    snprintf(command, sizeof command, "(sleep 0.4; kill -STOP %d; sleep 2.5; kill -CONT %d) >/dev/null 2>&1 &",
             (int)getpid(), (int)getpid());
    assert_int_equal(system(command), 0);
    double begun = xkd_now();
    int clips = 0;
    xkd_media_request clip = WHOLE;
    clip.mode = XKD_CLIP_AT;
    clip.duration = 3;
    for (; xkd_now() - begun < 3.5 || clips < 2; clips++) { /* a slow machine decodes one in that time */
        sums s = {0};
        assert_int_equal(decode(worker, &clip, &s).fault, XKD_FAULT_NONE);
    }
    assert_true(clips > 1);
    assert_int_equal(xkd_worker_restarts(worker), 0);
    xkd_worker_free(worker);
}

static void faults_come_back_with_words(void **state)
{
    xkd_worker *worker = NULL;
    sums s = {0};
    char good[5000];
    (void)state;
    snprintf(good, sizeof good, "%s", path);
    snprintf(path, sizeof path, "%s/list.mp4", folder);
    assert_int_equal(xkd_write_file(cx, path, "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.mp4\n", 50), XKD_OK);
    assert_int_equal(xkd_worker_new(cx, NULL, 20, &worker), XKD_OK);
    xkd_media_result result = decode(worker, &WHOLE, &s);
    assert_string_equal(xkd_media_fault_name(result.fault), "refused");
    assert_non_null(strstr(result.message, "hls"));
    xkd_worker_free(worker);
    snprintf(path, sizeof path, "%s", good);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv) && getenv("XKD_ROGUE")) return rogue(getenv("XKD_ROGUE"));
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_in_this_process),
        cmocka_unit_test(a_crash_costs_one_clip),
        cmocka_unit_test(a_worker_gone_wrong_is_ended),
        cmocka_unit_test(time_that_stands_still_does_not_count),
        cmocka_unit_test(a_limit_of_processor_time_is_no_fault),
        cmocka_unit_test(a_stall_is_cut_off),
        cmocka_unit_test(a_wrong_program_is_told_from_a_bad_file),
        cmocka_unit_test(faults_come_back_with_words),
    };
    cx = xkd_context_new();
    snprintf(folder, sizeof folder, "%s", test_folder("worker"));
    snprintf(path, sizeof path, "%s/a.mp4", folder);
    test_file file = test_file_default();
    file.encode.width = 640; /* more than the slots hold at once */
    file.encode.height = 480;
    file.seconds = 3;
    file.tone_from = 1;
    if (xkd_make_folder(cx, folder) != XKD_OK || make_test_file(cx, path, &file) != XKD_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_test_folder(folder);
    xkd_context_free(cx);
    return failed;
}
