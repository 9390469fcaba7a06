/* Stretches of operations that a GPU keeps as graphs, on the simulation: whole steps are replayed, with the bits of steps that are
 * asked for launch by launch, whatever changes between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <cmocka.h>

#include "absent_device.h"
#include "backend/cuda/cuda.h"
#include "small_model.h"
#include "supervised/finetune.h"

/* Without `kept` operations are counted by name, and so asked for one by one. */
static void build(small_model *s, bool kept)
{
    xkd_status status = XKD_OK;
    s->cx = xkd_context_new();
    small_views(s);
    xkd_batch_shape shape = {
        .B = s->B, .views = {1 + s->locals[0], 1 + s->locals[1]}, .shape = {s->shapes[0], s->shapes[1]}};
    XKD_TRY(xkd_backend_new(s->cx, &s->be, "cuda-sim", XKD_F32, 1));
    if (!kept) xkd_cuda_counts(s->be, NULL, 0);
    XKD_TRY(xkd_trainer_new(s->cx, &s->trainer, s->be, NULL, &s->config, &shape, false));
fail:
    if (status == XKD_ERR_DEVICE && may_be_absent("cuda-sim")) {
        print_message("# %s\n", xkd_last_error(s->cx));
        small_model_free(s);
        skip();
    }
    if (status != XKD_OK) fail_msg("%s", xkd_last_error(s->cx));
}

/* What it asked of the device. */
static int64_t one_step(small_model *s, xkd_step_result *result)
{
    int64_t before = xkd_backend_asked(s->be);
    xkd_step_begin(s->trainer, &s->values);
    for (int64_t i = 0; i < s->config.train.accumulate; i++) xkd_step_micro_batch(s->trainer, &s->input);
    if (xkd_step_finish(s->trainer) != XKD_OK) fail_msg("%s", xkd_last_error(s->cx));
    int64_t asked = xkd_backend_asked(s->be) - before;
    if (xkd_step_collect(s->trainer, result) != XKD_OK) fail_msg("%s", xkd_last_error(s->cx));
    return asked;
}

static void same_bytes(const xkd_backend *a, const xkd_backend *b, const void *x, const void *y, int64_t bytes)
{
    char *host[2] = {malloc((size_t)bytes), malloc((size_t)bytes)};
    xkd_memory_download(a->memory, host[0], x, bytes);
    xkd_memory_download(b->memory, host[1], y, bytes);
    assert_memory_equal(host[0], host[1], (size_t)bytes);
    free(host[0]);
    free(host[1]);
}

static void same_params(const xkd_backend *a, const xkd_backend *b, const xkd_params *x, const xkd_params *y)
{
    assert_int_equal(x->count, y->count);
    for (int64_t i = 0; i < x->count; i++) {
        const xkd_param *r = x->rows[i], *s = y->rows[i];
        int64_t bytes = r->count * (int64_t)sizeof(float);
        same_bytes(a, b, r->master, s->master, bytes);
        same_bytes(a, b, r->counter, s->counter, (int64_t)sizeof *r->counter);
        if (!r->moment1) continue;
        same_bytes(a, b, r->moment1, s->moment1, bytes);
        same_bytes(a, b, r->moment2, s->moment2, bytes);
    }
}

static void same_state(const small_model *a, const small_model *b)
{
    same_params(a->be, b->be, &xkd_trainer_look(a->trainer)->networks.params,
                &xkd_trainer_look(b->trainer)->networks.params);
}

/* Everything that may change from step to step does: rates, momenta, temperatures, data; the last layer joins at the fourth
 * step, and the sixth is not finite. */
static void change(small_model *s, int step)
{
    s->values.lr = 1e-3 * (1 + step);
    s->values.weight_decay = 0.3 - 0.02 * step;
    s->values.epoch = step < 3 ? 0 : 1;
    for (int m = 0; m < XKD_MODALITIES; m++) {
        s->values.ema[m] = 0.9 + 0.01 * step + 0.003 * m;
        s->values.temp.teacher_temp[m] = 0.3 + 0.02 * step + 0.01 * m;
        s->values.temp.student_temp[m] = 0.5 - 0.01 * step + 0.02 * m;
        s->clips[m][0][step] += 0.5f;
    }
    s->clips[XKD_AUDIO][1][3] = step == 5 ? NAN : 0;
}

static void replayed_steps_have_the_bits_of_launched_ones(void **state)
{
    (void)state;
    small_model kept = small_model_defaults(), plain = small_model_defaults();
    kept.config.step.freeze_last_layer = plain.config.step.freeze_last_layer = 1;
    build(&kept, true);
    build(&plain, false);
    int64_t first = 0, asked = 0;
    for (int step = 0; step < 8; step++) {
        xkd_step_result a, b;
        change(&kept, step);
        change(&plain, step);
        asked = one_step(&kept, &a);
        int64_t launched = one_step(&plain, &b);
        assert_memory_equal(&a, &b, sizeof a);
        assert_int_equal(a.skipped, step == 5);
        if (step == 0) first = asked;
        if (step == 0) assert_int_equal(asked, launched);
        assert_true(first > 300);
        /* The second step of either kind is recorded and done as two graphs. */
        if (step % 3 != 0 || step > 4) assert_true(asked < 40);
        same_state(&kept, &plain);
    }
    assert_int_equal(kept.be->products, plain.be->products);
    small_model_free(&kept);
    small_model_free(&plain);
}

/* Full and smaller batches in turn: a graph for each. */
static void plans_have_graphs_of_their_own(void **state)
{
    (void)state;
    small_model s[2] = {small_model_defaults(), small_model_defaults()};
    int64_t asked = 0;
    for (int k = 0; k < 2; k++) {
        s[k].B = 4;
        s[k].config.train.accumulate = 2;
        build(&s[k], k == 0);
    }
    for (int step = 0; step < 6; step++) {
        xkd_step_result result[2];
        for (int k = 0; k < 2; k++) {
            xkd_batch_shape shape = {.B = step % 2 ? 2 : 4, .views = {2, 2}, .shape = {s[k].shapes[0], s[k].shapes[1]}};
            assert_int_equal(xkd_trainer_fit(s[k].cx, s[k].trainer, &shape), XKD_OK);
            change(&s[k], step == 5 ? 4 : step);
            int64_t of_step = one_step(&s[k], &result[k]);
            if (k == 0) asked = of_step;
        }
        assert_memory_equal(&result[0], &result[1], sizeof result[0]);
        same_state(&s[0], &s[1]);
    }
    assert_true(asked < 80);
    for (int k = 0; k < 2; k++) small_model_free(&s[k]);
}

/* ---- fine-tuning ---- */

enum { CLIPS = 2, CLASSES = 3, CLIP_FLOATS = 16 * 32 };

typedef struct {
    xkd_context *cx;
    xkd_backend *be;
    xkd_finetune net;
} tuned;

static void open_tuned(tuned *t, bool kept, bool frozen)
{
    static const xkd_model_config geometry = {.channels = 3,
                                              .frame_height = 32,
                                              .frame_width = 32,
                                              .num_frames = 8,
                                              .vid_patch_t = 2,
                                              .vid_patch_h = 8,
                                              .vid_patch_w = 8,
                                              .spec_freq = 16,
                                              .spec_time = 32,
                                              .spec_patch_f = 4,
                                              .spec_patch_t = 8,
                                              .teacher = {32, 2, 2},
                                              .student = {32, 2, 2}};
    const xkd_encoder_source source = {
        .path = "tests/golden/backbone/aud_teacher.pth.tar", .modality = XKD_AUDIO, .geometry = &geometry};
    const xkd_view_shape shape = {.B = CLIPS, .T = 1, .H = 16, .W = 32};
    xkd_finetune_options o = xkd_finetune_defaults();
    o.dropout = 0.3;
    o.drop_path = frozen ? 0 : 0.2;
    o.batch_norm = o.frozen = frozen;
    o.layer_decay = 0.7;
    *t = (tuned){.cx = xkd_context_new()};
    xkd_status status = xkd_backend_new(t->cx, &t->be, "cuda-sim", XKD_F32, 1);
    if (status == XKD_OK && !kept) xkd_cuda_counts(t->be, NULL, 0);
    if (status == XKD_OK) status = xkd_finetune_new(t->cx, t->be, &source, &shape, CLASSES, &o, &t->net);
    if (status != XKD_OK) fail_msg("%s", xkd_last_error(t->cx));
}

static void close_tuned(tuned *t)
{
    xkd_finetune_free(&t->net);
    xkd_backend_free(t->be);
    xkd_context_free(t->cx);
}

/* Clips, targets, draws, rates and the share of a micro-batch change; `bad`: the clips have a NaN. */
static void ask_to_tune(tuned *t, int step, bool bad)
{
    float clips[CLIPS * CLIP_FLOATS], targets[CLIPS * CLASSES] = {0};
    for (int i = 0; i < CLIPS * CLIP_FLOATS; i++) clips[i] = (float)sin(0.1 * i + step);
    if (bad) clips[7] = NAN;
    for (int b = 0; b < CLIPS; b++) targets[b * CLASSES + (b + step) % CLASSES] = 1;
    xkd_finetune_begin(&t->net);
    xkd_status status = xkd_finetune_micro_batch(t->cx, &t->net, clips, targets, step % 2 ? 1 : 0.5);
    if (status == XKD_OK) status = xkd_finetune_finish(t->cx, &t->net, 1e-2 / (1 + step), 0.05 * step);
    if (status != XKD_OK) fail_msg("step %d: %s", step, xkd_last_error(t->cx));
}

static bool is_skipped(tuned *t, double *loss)
{
    bool skipped;
    if (xkd_finetune_collect(&t->net, loss, &skipped) != XKD_OK) fail_msg("%s", xkd_last_error(t->cx));
    return skipped;
}

/* What it asked of the device. */
static int64_t tune(tuned *t, int step, double *loss)
{
    int64_t before = xkd_backend_asked(t->be);
    ask_to_tune(t, step, false);
    int64_t asked = xkd_backend_asked(t->be) - before;
    assert_false(is_skipped(t, loss));
    return asked;
}

static void tuning_from_graphs(bool frozen)
{
    tuned kept, plain;
    open_tuned(&kept, true, frozen);
    open_tuned(&plain, false, frozen);
    for (int step = 0; step < 6; step++) {
        double a, b;
        int64_t asked = tune(&kept, step, &a), launched = tune(&plain, step, &b);
        assert_true(a == b && a > 0);
        if (step == 0) assert_int_equal(asked, launched);
        /* The share of the second step is another than that of the first. */
        if (step > 1) assert_true(2 * asked < launched);
        same_params(kept.be, plain.be, &kept.net.encoder.params, &plain.net.encoder.params);
    }
    assert_int_equal(kept.be->products, plain.be->products);
    close_tuned(&kept);
    close_tuned(&plain);
}

static void fine_tuning_has_the_bits_of_launched_steps(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    build(&s, true); /* or it is skipped */
    small_model_free(&s);
    tuning_from_graphs(false);
    tuning_from_graphs(true);
}

/* Steps that are collected one late have the numbers of steps that are collected at once, whatever is not finite among them; the host
 * waits once a step, and not while it asks. */
static void late_tuning(bool frozen)
{
    tuned late, prompt;
    double a, b = 0;
    open_tuned(&late, true, frozen);
    open_tuned(&prompt, true, frozen);
    for (int step = 0; step < 8; step++) {
        int64_t before = xkd_backend_waited(late.be);
        ask_to_tune(&late, step, step == 4);
        if (step > 2) assert_int_equal(xkd_backend_waited(late.be), before);
        if (step > 0) {
            assert_int_equal(is_skipped(&late, &a), step == 5);
            assert_true(a == b || (isnan(a) && isnan(b)));
            assert_int_equal(late.net.classifier.w->steps, step < 5 ? step : step - 1);
            if (step > 2) assert_int_equal(xkd_backend_waited(late.be), before + 1);
        }
        ask_to_tune(&prompt, step, step == 4);
        assert_int_equal(is_skipped(&prompt, &b), step == 4);
        assert_int_equal(isnan(b), step == 4);
    }
    assert_false(is_skipped(&late, &a));
    assert_true(a == b);
    same_params(late.be, prompt.be, &late.net.encoder.params, &prompt.net.encoder.params);
    close_tuned(&late);
    close_tuned(&prompt);
}

static void fine_tuning_is_collected_late(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    build(&s, true); /* or it is skipped */
    small_model_free(&s);
    late_tuning(false);
    late_tuning(true);
}

/* The same of pre-training, which has the bits of steps that are collected at once in other tests (test_loop). */
static void pre_training_waits_once_a_step(void **state)
{
    (void)state;
    small_model s = small_model_defaults();
    xkd_step_result result;
    build(&s, true);
    for (int step = 0; step < 6; step++) {
        int64_t before = xkd_backend_waited(s.be);
        change(&s, step);
        xkd_step_begin(s.trainer, &s.values);
        for (int64_t i = 0; i < s.config.train.accumulate; i++) xkd_step_micro_batch(s.trainer, &s.input);
        if (xkd_step_finish(s.trainer) != XKD_OK) fail_msg("%s", xkd_last_error(s.cx));
        if (step > 4) assert_int_equal(xkd_backend_waited(s.be), before);
        if (step > 0) assert_int_equal(xkd_step_collect(s.trainer, &result), XKD_OK);
        if (step > 4) assert_int_equal(xkd_backend_waited(s.be), before + 1);
    }
    assert_int_equal(xkd_step_collect(s.trainer, &result), XKD_OK);
    small_model_free(&s);
}

static xkd_context *cx;
static xkd_backend *be;
static float *x, *y;

static float *take(void)
{
    void *block;
    assert_int_equal(xkd_memory_take(cx, be->memory, &block, 64), XKD_OK);
    return block;
}

static void open_device(void)
{
    small_model s = small_model_defaults();
    build(&s, true); /* or it is skipped */
    small_model_free(&s);
    cx = xkd_context_new();
    assert_int_equal(xkd_backend_new(cx, &be, "cuda-sim", XKD_F32, 1), XKD_OK);
    x = take();
    y = take();
}

static void close_device(void)
{
    assert_int_equal(xkd_backend_status(be), XKD_OK);
    xkd_memory_give(be->memory, x);
    xkd_memory_give(be->memory, y);
    xkd_backend_free(be);
    xkd_context_free(cx);
}

static float first_of(const float *tensor)
{
    float value;
    xkd_memory_download(be->memory, &value, tensor, sizeof value);
    return value;
}

/* x = value, y = y + x under one key. True: nothing was launched for it. */
static bool stretch(double value)
{
    const int64_t key = 7;
    if (xkd_backend_repeat(be, &key, sizeof key)) return true;
    be->ops->fill(be, x, value, 16);
    be->ops->axpby(be, y, x, 1, 1, 16);
    xkd_backend_repeat_end(be);
    return false;
}

/* As on a GPU: a value that changes and is not behind a pointer shows as a wrong result. */
static void what_came_by_value_is_kept(void **state)
{
    (void)state;
    open_device();
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(stretch(i), i > 2);
        assert_true(first_of(x) == (i > 2 ? 2 : (float)i));
    }
    assert_true(first_of(y) == 1 + 2 + 2 + 2);
    close_device();
}

/* Its address may be another tensor's: the graph goes, and the stretch is recorded anew. */
static void memory_that_is_given_back_ends_graphs(void **state)
{
    (void)state;
    open_device();
    for (int i = 1; i <= 3; i++) assert_int_equal(stretch(1), i > 2);
    xkd_memory_give(be->memory, x);
    x = take();
    for (int i = 1; i <= 3; i++) assert_int_equal(stretch(i), i > 2);
    assert_true(first_of(x) == 2);
    close_device();
}

/* A copy from the host in a stretch: it is done launch by launch, every time. */
static void copies_of_the_host_are_not_kept(void **state)
{
    const int64_t key = 8;
    (void)state;
    open_device();
    for (int i = 1; i <= 4; i++) {
        float value = (float)i;
        assert_false(xkd_backend_repeat(be, &key, sizeof key));
        be->ops->fill(be, y, 10 * i, 16);
        xkd_memory_upload(be->memory, x, &value, sizeof value);
        be->ops->axpby(be, y, x, 1, 1, 1);
        xkd_backend_repeat_end(be);
        assert_true(first_of(y) == (float)(11 * i));
    }
    close_device();
}

/* More kinds of stretches than there is room for: the oldest goes, and none is taken for another. */
static void many_stretches(void **state)
{
    (void)state;
    open_device();
    for (int round = 0; round < 3; round++)
        for (int64_t key = 0; key < 20; key++) {
            if (!xkd_backend_repeat(be, &key, sizeof key)) {
                be->ops->fill(be, x, (double)key, 16);
                xkd_backend_repeat_end(be);
            }
            assert_true(first_of(x) == (float)key);
        }
    close_device();
}

/* y = 2 y + what the departure holds. */
static void add_departure(xkd_departure *d, float value)
{
    for (int i = 0; i < 16; i++) ((float *)d->host)[i] = value;
    const float *sent = xkd_departure_lend(be->memory, x, d, 64);
    be->ops->axpby(be, y, sent, 1, 2, 16);
}

/* What departs travels while work that was asked for before is not done, and reaches its place in the order of the work: however
 * early it lands, no step has another one's. */
static void departures_travel_beside_the_work(void **state)
{
    xkd_departure d[3];
    xkd_arrival before;
    float want = 5;
    (void)state;
    open_device();
    assert_int_equal(xkd_arrival_new(cx, be->memory, &before, 64), XKD_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(xkd_departure_new(cx, be->memory, &d[i], 64), XKD_OK);
    be->ops->fill(be, y, want, 16);
    xkd_arrival_ask(be->memory, &before, y, 64);
    for (int i = 0; i < 2; i++, want = 2 * want + (float)i) {
        add_departure(&d[i], (float)i + 1);
        xkd_departure_wait(be->memory, &d[i]);
    }
    assert_int_equal(xkd_backend_waited(be), 0);
    assert_true(*(float *)before.host == 0); /* the simulation has not come to it, as nobody has waited */
    xkd_arrival_wait(be->memory, &before);
    assert_true(*(float *)before.host == 5);
    /* The third one lands where the first did, which must have been taken by then. */
    for (int i = 2; i < 9; i++, want = 2 * want + (float)i) {
        xkd_departure_wait(be->memory, &d[i % 3]);
        add_departure(&d[i % 3], (float)i + 1);
        xkd_departure_wait(be->memory, &d[i % 3]);
    }
    assert_true(first_of(y) == want);
    for (int i = 0; i < 3; i++) xkd_departure_free(be->memory, &d[i]);
    xkd_arrival_free(be->memory, &before);
    close_device();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(departures_travel_beside_the_work),
        cmocka_unit_test(fine_tuning_is_collected_late),
        cmocka_unit_test(replayed_steps_have_the_bits_of_launched_ones),
        cmocka_unit_test(plans_have_graphs_of_their_own),
        cmocka_unit_test(fine_tuning_has_the_bits_of_launched_steps),
        cmocka_unit_test(pre_training_waits_once_a_step),
        cmocka_unit_test(what_came_by_value_is_kept),
        cmocka_unit_test(memory_that_is_given_back_ends_graphs),
        cmocka_unit_test(copies_of_the_host_are_not_kept),
        cmocka_unit_test(many_stretches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
