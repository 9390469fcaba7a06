/* The whole step's gradient against central differences of its loss, in float64 on the reference backend, for every
 * tensor and every switch that changes the graph. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <cmocka.h>

#include "small_model.h"

static double loss_of(small_model *s)
{
    xkd_pass *p = &xkd_trainer_look(s->trainer)->pass;
    double loss[XKD_LOSS_COUNT];
    xkd_pass_load(p, &s->input);
    xkd_pass_teachers(s->be, p);
    xkd_pass_students(s->be, p);
    xkd_pass_losses(s->be, p, &s->values.temp);
    xkd_pass_report(p, p->scalars, loss);
    return loss[XKD_LOSS_TOTAL];
}

/* Truncation of a central difference is h^2 and its rounding 1e-16 / h: both about 1e-10 here, relative to gradients
 * that a tensor's largest makes comparable. */
static const double STEP = 1e-5, TOLERANCE = 2e-6;
enum { ELEMENTS_A_TENSOR = 4 };

static int check_row(small_model *s, xkd_param *row, double largest)
{
    int bad = 0;
    xkd_rng rng = xkd_rng_make(5, 0, (uint32_t)row->count, 0, XKD_RNG_TEST);
    for (int e = 0; e < ELEMENTS_A_TENSOR; e++) {
        int64_t k = xkd_rng_below(&rng, row->count);
        double *value = (double *)row->value + k, old = *value, gradient = ((double *)row->grad)[k];
        *value = old + STEP;
        double up = loss_of(s);
        *value = old - STEP;
        double down = loss_of(s);
        *value = old;
        double expected = (up - down) / (2 * STEP);
        if (fabs(gradient - expected) <= TOLERANCE * (fabs(expected) + largest)) continue;
        print_message("%s[%lld]: gradient %.12g, difference %.12g\n", row->name, (long long)k, gradient, expected);
        bad++;
    }
    return bad;
}

static void check_model(small_model *s)
{
    int bad = 0, rows = 0;
    if (small_model_build(s, "ref", XKD_F64, 2) != XKD_OK) fail_msg("%s", xkd_last_error(s->cx));
    xkd_step_begin(s->trainer, &s->values);
    xkd_step_micro_batch(s->trainer, &s->input);
    assert_int_equal(xkd_backend_status(s->be), XKD_OK);
    double loss[XKD_LOSS_COUNT];
    xkd_pass_report(&xkd_trainer_look(s->trainer)->pass, xkd_trainer_look(s->trainer)->pass.scalars, loss);
    assert_true(isfinite(loss[XKD_LOSS_TOTAL]) && loss[XKD_LOSS_TOTAL] > 0);
    xkd_params *params = &xkd_trainer_look(s->trainer)->networks.params;
    double norm;
    xkd_optimizer_norms(s->be, &xkd_trainer_look(s->trainer)->optimizer, NULL, 0);
    double *left = malloc((size_t)xkd_optimizer_left(&xkd_trainer_look(s->trainer)->optimizer) * sizeof *left);
    xkd_optimizer_leave(&xkd_trainer_look(s->trainer)->optimizer, left);
    assert_true(xkd_optimizer_read(&xkd_trainer_look(s->trainer)->optimizer, left, &norm));
    assert_true(norm > 0);
    free(left);
    for (int64_t i = 0; i < params->count; i++) {
        if (params->rows[i]->role != XKD_ROLE_TRAINED) continue;
        bad += check_row(s, params->rows[i], 1e-3 * norm);
        rows++;
    }
    assert_int_equal(bad, 0);
    assert_true(rows > 60);
    small_model_free(s);
}

static void xkd_default(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    check_model(&s);
}

static void mas_global_teacher_no_refine(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.model.variant = XKD_VARIANT_MAS;
    s.config.step.teacher_view = XKD_TEACHER_GLOBAL;
    s.config.step.refine = false;
    s.locals[XKD_VIDEO] = 3;
    check_model(&s);
}

static void mats_softmax_without_class_token(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.model.variant = XKD_VARIANT_MATS;
    s.config.model.cls_token = false;
    s.config.step.attn_mode = XKD_ATTN_SOFTMAX;
    s.config.model.norm_pix_loss = false;
    check_model(&s);
}

static void coral_two_global_views_equal_widths(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.model.align_loss = XKD_ALIGN_CORAL;
    s.config.model.decoder = (xkd_vit_size){16, 1, 2}; /* no mid_proj */
    s.config.step.global_views = 2;
    s.locals[XKD_AUDIO] = 2;
    s.B = 3;
    check_model(&s);
}

static void mmd_groups(void **state)
{
    small_model s = small_model_defaults();
    (void)state;
    s.config.step.mmd_group = 2;
    s.config.step.align_coeff = 50; /* the term would otherwise drown */
    s.B = 4;
    check_model(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xkd_default),
        cmocka_unit_test(mas_global_teacher_no_refine),
        cmocka_unit_test(mats_softmax_without_class_token),
        cmocka_unit_test(coral_two_global_views_equal_widths),
        cmocka_unit_test(mmd_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
