/* The keys of the released evaluation files: what they set, and that a written configuration reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "config/config.h"

static void must(xkd_context *cx, xkd_status status)
{
    if (status != XKD_OK) fail_msg("%s", xkd_last_error(cx));
}

static void check_data_keys(const xkd_config *c)
{
    const xkd_data_config *d = &c->data;
    const xkd_video_view_config *v = &d->video_view[XKD_GLOBAL_VIEW];
    const xkd_audio_view_config *a = &d->audio_view[XKD_GLOBAL_VIEW];
    assert_string_equal(d->split, "trainlist02");
    assert_string_equal(c->eval.test_split, "testlist02");
    assert_true(v->color[0] == 0.1 && v->color[3] == 0.4 && v->p_flip == 0.3 && v->p_gray == 0.1);
    assert_true(v->crop_scale[0] == 0.08 && v->crop_scale[1] == 1); /* min_area as one number */
    assert_true(a->volume == 0.15 && a->time_warp && a->warp_window == 20 && a->rand_crop);
    assert_true(d->mel_mean == -7.28733 && d->mel_std == 5.1870246);
}

static void check_eval_keys(const xkd_config *c)
{
    const xkd_eval_config *e = &c->eval;
    assert_true(e->mode == XKD_EVAL_LINEAR && e->frequency == 10 && e->train_clips == 25 && e->test_clips == 8);
    assert_true(e->ensemble == XKD_ENSEMBLE_MAX && e->vid_transform == XKD_TRANSFORM_RANDAUG);
    assert_true(e->aud_transform == XKD_TRANSFORM_STRONG && e->return_video && !e->return_audio);
    assert_true(e->aspect_ratio[1] == 1.4 && !e->flip && e->erase == 0.25);
    assert_string_equal(e->auto_augment, "rand-m7-n4-mstd0.5-inc1");
    assert_true(e->frequency_mask && e->time_mask && e->frequency_mask_width[1] == 9 && e->time_mask_width[0] == 2);
    assert_true(e->frequency_masks == 3 && e->time_masks == 4);
    assert_true(e->lr_form == XKD_LR_STEP && e->milestones.count == 3 && e->milestones.value[2] == 60 &&
                e->gamma == 0.2);
    assert_true(e->mixup == 0.6 && e->cutmix == 0.5 && e->mix_probability == 0.9 && e->switch_probability == 0.4);
    assert_true(e->label_smoothing == 0.1 && e->layer_decay == 0.45);
    assert_true(c->train.weight_decay.base == 0.05 && c->train.weight_decay.final == 0.05 &&
                c->train.betas[1] == 0.999);
    assert_true(e->classes == 101 && e->l2_norm && e->use_dropout && e->dropout == 0.3 && e->feat_op == XKD_FEAT_CLS);
    assert_true(e->batch_norm && e->drop_path == 0.1);
    assert_true(e->cost.count == 3 && e->cost.value[0] == 1e-5 && e->svm_iterations == 500 && e->svm_scale);
}

static void every_key(void **state)
{
    (void)state;
    xkd_context *cx = xkd_context_new();
    xkd_config c;
    char *text, *again;
    must(cx, xkd_config_init(cx, &c));
    must(cx, xkd_config_load(cx, &c, "tests/data/eval_keys.yaml", true));
    must(cx, xkd_config_finish(cx, &c));
    check_data_keys(&c);
    check_eval_keys(&c);
    must(cx, xkd_config_write(cx, &c, &text));
    xkd_config_free(&c);
    must(cx, xkd_config_init(cx, &c));
    must(cx, xkd_config_parse(cx, &c, "written", text, (int64_t)strlen(text), true));
    must(cx, xkd_config_finish(cx, &c));
    check_data_keys(&c);
    check_eval_keys(&c);
    must(cx, xkd_config_write(cx, &c, &again));
    assert_string_equal(text, again);
    xkd_free(text);
    xkd_free(again);
    xkd_config_free(&c);
    xkd_context_free(cx);
}

static void refused(const char *assignment)
{
    xkd_context *cx = xkd_context_new();
    xkd_config c;
    must(cx, xkd_config_init(cx, &c));
    if (xkd_config_override(cx, &c, assignment) != XKD_ERR_CONFIG) fail_msg("%s was accepted", assignment);
    xkd_config_free(&c);
    xkd_context_free(cx);
}

static void what_is_refused(void **state)
{
    (void)state;
    refused("model.svm.cost=[0.1, 0]");
    refused("model.svm.cost=0.1");
    refused("model.svm.cost=[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]");
    refused("dataset.train.vid_aug_kwargs.min_area=2");
    refused("dataset.train.vid_aug_kwargs.min_area=[0.1]");
    refused("hyperparams.weight_decay=many");
    refused("hyperparams.lr.name=linear");
    refused("model.classifier.dropout=1");
    refused("model.backbone.drop_rate=0.1");
    refused("model.backbone.drop_path_rate=1");
    refused("dataset.train.aud_aug_kwargs.DB_NORM=_MINE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_key), cmocka_unit_test(what_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
