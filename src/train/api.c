/* The public interface of pre-training: opaque settings around the configuration. */
#include <xkd/pretrain.h>

#include "base/alloc.h"
#include "train/loop.h"

struct xkd_settings {
    xkd_context *cx;
    xkd_config config;
};

xkd_status xkd_settings_new(xkd_context *cx, xkd_settings **out)
{
    xkd_status status = XKD_OK;
    xkd_settings *settings = NULL;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &settings, 1, sizeof *settings));
    settings->cx = cx;
    XKD_TRY(xkd_config_init(cx, &settings->config));
    *out = settings;
    settings = NULL;
fail:
    xkd_settings_free(settings);
    return status;
}

void xkd_settings_free(xkd_settings *settings)
{
    if (!settings) return;
    xkd_config_free(&settings->config);
    xkd_free(settings);
}

xkd_status xkd_settings_load(xkd_settings *settings, const char *path)
{
    return xkd_config_load(settings->cx, &settings->config, path, false);
}

xkd_status xkd_settings_set(xkd_settings *settings, const char *assignment)
{
    return xkd_config_override(settings->cx, &settings->config, assignment);
}

/* Derived values and contradictions, once all settings are made. */
static xkd_status finish(xkd_settings *settings)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_config_finish(settings->cx, &settings->config));
    XKD_TRY(xkd_config_check_data(settings->cx, &settings->config));
fail:
    return status;
}

xkd_status xkd_pretrain(xkd_settings *settings, const xkd_run_options *options, xkd_run_result *result)
{
    static const xkd_run_options none = {.mode = XKD_RUN_NEW};
    xkd_status status = XKD_OK;
    *result = (xkd_run_result){0};
    XKD_TRY(finish(settings));
    XKD_TRY(xkd_train(settings->cx, &settings->config, options ? options : &none, result));
fail:
    return status;
}

xkd_status xkd_plan(xkd_settings *settings, xkd_train_plan *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_train_plan){0};
    XKD_TRY(finish(settings));
    XKD_TRY(xkd_plan_training(settings->cx, &settings->config, out));
fail:
    return status;
}
