/* A model started from what people bring: released backbones, checkpoints of DDP, short names, half precision; and what
 * is said of a file that does not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "checkpoint/content.h"
#include "checkpoint/params_file.h"
#include "model/backbone.h"

enum { MOST = 128, LONGEST = 8192 };
static const xkd_model_config geometry = {
    .channels = 3, .frame_height = 16, .frame_width = 16, .num_frames = 4, .vid_patch_t = 2, .vid_patch_h = 8,
    .vid_patch_w = 8, .spec_freq = 8, .spec_time = 32, .spec_patch_f = 4, .spec_patch_t = 8, .cls_token = true};
static const xkd_vit_size size = {16, 2, 2};
static char path[64];

/* The networks that a file may fill, and the tensors of one. */
typedef struct {
    xkd_context *cx;
    xkd_params params;
    xkd_backbone backbones[3];
    xkd_tensor_item items[MOST];
    char names[MOST][160];
    int64_t count;
} model;

/* Small numbers that half precision holds exactly; different in every row. */
static float number(const char *name, int64_t i)
{
    return (float)((int64_t)(strlen(name) * 7 + (size_t)name[strlen(name) - 3]) % 13 + i % 5) / 16;
}

static void declare(model *m, int k, const char *prefix, xkd_modality modality)
{
    xkd_declare at = {.cx = m->cx, .params = &m->params, .prefix = prefix, .role = XKD_ROLE_FROZEN};
    assert_int_equal(xkd_backbone_declare(&at, &m->backbones[k], &geometry, modality, size, NULL), XKD_OK);
}

static int setup(void **state)
{
    model *m = calloc(1, sizeof *m);
    *state = m;
    m->cx = xkd_context_new();
    snprintf(path, sizeof path, "/tmp/xkd-test-params-file-%d", (int)getpid());
    declare(m, 0, "vid_student.backbone.", XKD_VIDEO);
    declare(m, 1, "vid_teacher.backbone.", XKD_VIDEO);
    declare(m, 2, "aud_student.backbone.", XKD_AUDIO);
    return xkd_params_allocate(m->cx, &m->params, NULL, XKD_F32, false) != XKD_OK;
}

static int teardown(void **state)
{
    model *m = *state;
    for (int k = 0; k < 3; k++) xkd_backbone_free(&m->backbones[k]);
    xkd_params_free(&m->params);
    xkd_context_free(m->cx);
    unlink(path);
    free(m);
    return 0;
}

/* Fills the rows that begin with `from` and lists them under `to` and the rest of their names. */
static void list(model *m, const char *from, const char *to)
{
    m->count = 0;
    for (int64_t i = 0; i < m->params.count; i++) {
        xkd_param *row = m->params.rows[i];
        if (strncmp(row->name, from, strlen(from)) != 0) continue;
        assert_true(m->count < MOST);
        const char *own = row->name + strlen(from);
        for (int64_t k = 0; k < row->count; k++) ((float *)row->value)[k] = number(own, k);
        snprintf(m->names[m->count], sizeof m->names[0], "%s%s", to, own);
        m->items[m->count] = (xkd_tensor_item){m->names[m->count], XKD_F32, row->shape, row->value};
        m->count++;
    }
}

/* Writes the list, forgets all values, and starts from the file. */
static xkd_status start(model *m, xkd_file_kind kind)
{
    assert_int_equal(xkd_tensor_file_write(m->cx, path, kind, m->items, m->count, NULL, 0), XKD_OK);
    for (int64_t i = 0; i < m->params.count; i++)
        memset(m->params.rows[i]->value, 0, (size_t)m->params.rows[i]->count * sizeof(float));
    xkd_clear_error(m->cx);
    return xkd_params_start_from(m->cx, &m->params, path);
}

/* Whether the rows that begin with `prefix` have the numbers that `list` gave them, or all are 0. */
static void check(const model *m, const char *prefix, bool filled)
{
    for (int64_t i = 0; i < m->params.count; i++) {
        const xkd_param *row = m->params.rows[i];
        if (strncmp(row->name, prefix, strlen(prefix)) != 0) continue;
        for (int64_t k = 0; k < row->count; k++)
            if (((const float *)row->value)[k] != (filled ? number(row->name + strlen(prefix), k) : 0))
                fail_msg("%s[%lld] is %g", row->name, (long long)k, ((const float *)row->value)[k]);
    }
}

/* A backbone fills student and teacher of its modality. */
static void released_backbone(void **state)
{
    model *m = *state;
    list(m, "vid_student.backbone.", "");
    assert_int_equal(start(m, XKD_FILE_TORCH), XKD_OK);
    check(m, "vid_student.backbone.", true);
    check(m, "vid_teacher.backbone.", true);
    check(m, "aud_student.backbone.", false);
}

static void backbone_saved_by_ddp(void **state)
{
    model *m = *state;
    list(m, "vid_student.backbone.", "module.");
    assert_int_equal(start(m, XKD_FILE_SAFETENSORS), XKD_OK);
    check(m, "vid_teacher.backbone.", true);
}

/* The optimiser beside it is left out. */
static void training_checkpoint(void **state)
{
    model *m = *state;
    static const float moment = 1;
    list(m, "", "model.module.");
    m->items[m->count++] = (xkd_tensor_item){"optimizer.state.0.exp_avg", XKD_F32, {0}, &moment};
    assert_int_equal(start(m, XKD_FILE_TORCH), XKD_OK);
    check(m, "", true);
}

static void short_names(void **state)
{
    static const char *const renames[][2] = {{"encoder.blocks.", "blocks."},
                                             {"encoder_norm.", "norm."},
                                             {"enc_pos_embed", "pos_embed"},
                                             {"cuboid_embed.", "patch_embed."}};
    model *m = *state;
    char own[160];
    list(m, "vid_student.backbone.", "");
    for (int64_t i = 0; i < m->count; i++)
        for (int k = 0; k < 4; k++) {
            if (strncmp(m->names[i], renames[k][0], strlen(renames[k][0])) != 0) continue;
            strcpy(own, m->names[i] + strlen(renames[k][0]));
            snprintf(m->names[i], sizeof m->names[i], "%s%s", renames[k][1], own);
            break;
        }
    assert_int_equal(start(m, XKD_FILE_TORCH), XKD_OK);
    check(m, "vid_student.backbone.", true);
}

/* The upper half of a float32 is a bfloat16; the test's numbers need no more. */
static void half_precision(void **state)
{
    model *m = *state;
    static uint16_t halves[MOST][LONGEST];
    list(m, "vid_student.backbone.", "");
    for (int64_t i = 0; i < m->count; i++) {
        int64_t n = xkd_shape_count(&m->items[i].shape);
        assert_true(n <= LONGEST);
        for (int64_t k = 0; k < n; k++) memcpy(&halves[i][k], (const char *)m->items[i].data + 4 * k + 2, 2);
        m->items[i].dtype = XKD_BF16;
        m->items[i].data = halves[i];
    }
    assert_int_equal(start(m, XKD_FILE_SAFETENSORS), XKD_OK);
    check(m, "vid_student.backbone.", true);
    m->items[3].dtype = XKD_I16;
    assert_int_equal(start(m, XKD_FILE_SAFETENSORS), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(m->cx), "floating-point"));
}

/* All that is wrong is listed by name, up to a number that a terminal can show. */
static void faults_are_listed(void **state)
{
    model *m = *state;
    list(m, "vid_student.backbone.", "");
    strcpy(m->names[m->count - 1], "something.else");
    m->items[m->count - 2].shape = (xkd_shape){1, {1}};
    assert_int_equal(start(m, XKD_FILE_SAFETENSORS), XKD_ERR_CHECKPOINT);
    const char *says = xkd_last_error(m->cx);
    assert_non_null(strstr(says, "3 differences"));
    assert_non_null(strstr(says, "is missing in the file"));
    assert_non_null(strstr(says, "is [1] in the file, ["));
    assert_non_null(strstr(says, "something.else is not in the model"));
    for (int64_t i = 0; i < 22; i++) {
        m->items[m->count] = (xkd_tensor_item){m->names[m->count], XKD_F32, {1, {1}}, m->items[0].data};
        snprintf(m->names[m->count++], sizeof m->names[0], "more.%d", (int)i);
    }
    assert_int_equal(start(m, XKD_FILE_SAFETENSORS), XKD_ERR_CHECKPOINT);
    assert_non_null(strstr(xkd_last_error(m->cx), "25 differences"));
    assert_non_null(strstr(xkd_last_error(m->cx), "and 5 more"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(released_backbone, setup, teardown),
        cmocka_unit_test_setup_teardown(backbone_saved_by_ddp, setup, teardown),
        cmocka_unit_test_setup_teardown(training_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(short_names, setup, teardown),
        cmocka_unit_test_setup_teardown(half_precision, setup, teardown),
        cmocka_unit_test_setup_teardown(faults_are_listed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
