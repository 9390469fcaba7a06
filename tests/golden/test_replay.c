/* Whole recorded training steps against the float64 oracle: all four cases on both backends, within the bounds of the
 * recordings' own README: losses 2e-4 relative to max(1, value); each gradient 1e-4 in L2 relative to max(its norm, 1e-5
 * of the largest); each tensor's total update 2e-2 in L2. In float64 the reference must do far better. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>
#include <xkd/replay.h>

#include "checkpoint/safetensors.h"
#include "tensor/params.h"

typedef struct {
    const char *folder, *backend;
    xkd_dtype dtype;
    double loss, gradient, update; /* bounds */
} golden_case;

#define CASE(name) "tests/golden/" name

static xkd_safetensors *open_file(xkd_context *cx, const char *folder, const char *name)
{
    char path[300];
    xkd_safetensors *file = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (xkd_safetensors_open(cx, path, &file) != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    return file;
}

/* L2 norm of a - b over a tensor; b NULL: of a. */
static double distance(const xkd_stored_tensor *a, const xkd_stored_tensor *b)
{
    double sum = 0;
    int64_t n = xkd_shape_count(&a->shape);
    for (int64_t i = 0; i < n; i++) {
        double d = xkd_get(a->dtype, a->data, i) - (b ? xkd_get(b->dtype, b->data, i) : 0);
        sum += d * d;
    }
    return sqrt(sum);
}

static void check_losses(const golden_case *c, const char *out)
{
    char path[300];
    json_error_t error;
    snprintf(path, sizeof path, "%s/losses.json", out);
    json_t *losses = json_load_file(path, 0, &error);
    snprintf(path, sizeof path, "%s/expected.json", c->folder);
    json_t *expected = json_load_file(path, 0, &error), *steps = json_object_get(expected, "losses");
    assert_true(json_array_size(steps) == 3 && json_array_size(losses) == 3);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const char *name;
        json_t *value;
        assert_int_equal(json_object_size(json_array_get(steps, i)), 10);
        json_object_foreach(json_array_get(steps, i), name, value) {
            double want = json_number_value(value);
            double got = json_number_value(json_object_get(json_array_get(losses, i), name));
            if (!(fabs(got - want) <= c->loss * fmax(1, fabs(want))))
                fail_msg("step %zu %s: %.12g, expected %.12g", i + 1, name, got, want);
        }
    }
    json_decref(losses);
    json_decref(expected);
}

static void check_gradients(xkd_context *cx, const golden_case *c, const char *out)
{
    xkd_safetensors *got = open_file(cx, out, "grads.safetensors"), *want = open_file(cx, c->folder, "grads.safetensors");
    double largest = 0;
    int64_t n = xkd_safetensors_count(want);
    assert_true(n > 80);
    assert_int_equal(xkd_safetensors_count(got), n);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, distance(xkd_safetensors_at(want, i), NULL));
    for (int64_t i = 0; i < n; i++) {
        const xkd_stored_tensor *w = xkd_safetensors_at(want, i), *g = xkd_safetensors_find(got, w->name);
        assert_non_null(g);
        assert_true(xkd_shape_equal(&w->shape, &g->shape));
        double error = distance(g, w) / fmax(distance(w, NULL), 1e-5 * largest);
        if (!(error <= c->gradient)) fail_msg("gradient of %s is off by %g", w->name, error);
    }
    xkd_safetensors_close(got);
    xkd_safetensors_close(want);
}

static void check_state(xkd_context *cx, const golden_case *c, const char *out)
{
    xkd_safetensors *got = open_file(cx, out, "state.safetensors"), *want = open_file(cx, c->folder, "final.safetensors");
    xkd_safetensors *init = open_file(cx, c->folder, "init.safetensors");
    int64_t n = xkd_safetensors_count(want);
    assert_true(n > 180);
    assert_int_equal(xkd_safetensors_count(got), n);
    for (int64_t i = 0; i < n; i++) {
        const xkd_stored_tensor *w = xkd_safetensors_at(want, i), *g = xkd_safetensors_find(got, w->name);
        assert_non_null(g);
        double update = distance(w, xkd_safetensors_find(init, w->name)), error = distance(g, w);
        if (!(error <= c->update * update)) fail_msg("update of %s is off by %g of %g", w->name, error, update);
    }
    xkd_safetensors_close(got);
    xkd_safetensors_close(want);
    xkd_safetensors_close(init);
}

/* A GPU, and the simulation of one where it was not built. */
static bool may_be_absent(const char *device)
{
#ifdef XKD_HAVE_CUDASIM
    return strcmp(device, "cuda") == 0;
#else
    return strncmp(device, "cuda", 4) == 0;
#endif
}

static void replay_case(void **state)
{
    const golden_case *c = *state;
    char out[] = "/tmp/xkd-replay-XXXXXX", path[300];
    xkd_context *cx = xkd_context_new();
    assert_non_null(mkdtemp(out));
    xkd_replay_options o = {.folder = c->folder, .out = out, .device = c->backend, .float64 = c->dtype == XKD_F64, .threads = 2};
    xkd_status status = xkd_replay(cx, &o);
    if (status == XKD_ERR_DEVICE && may_be_absent(c->backend)) {
        print_message("# %s\n", xkd_last_error(cx));
        xkd_context_free(cx);
        rmdir(out);
        skip();
    }
    if (status != XKD_OK) fail_msg("%s", xkd_last_error(cx));
    check_losses(c, out);
    check_gradients(cx, c, out);
    check_state(cx, c, out);
    static const char *const files[] = {"losses.json", "grads.safetensors", "state.safetensors"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", out, files[i]);
        unlink(path);
    }
    rmdir(out);
    xkd_context_free(cx);
}

#define ON(name, backend, dtype, loss, gradient, update)                                                               \
    {#name " on " backend " " #dtype, replay_case, NULL, NULL,                                                          \
     &(golden_case){CASE(#name), backend, XKD_##dtype, loss, gradient, update}}
#define ALL(name)                                                                                                      \
    ON(name, "ref", F64, 1e-11, 1e-7, 1e-3), ON(name, "ref", F32, 2e-4, 1e-4, 2e-2), ON(name, "cpu", F32, 2e-4, 1e-4, 2e-2), \
        ON(name, "cuda-sim", F32, 2e-4, 1e-4, 2e-2), ON(name, "cuda", F32, 2e-4, 1e-4, 2e-2)

int main(void)
{
    const struct CMUnitTest tests[] = {ALL(xkd), ALL(xkd_mas), ALL(xkd_mats), ALL(xkd_teacher_global)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
