/* The public interface of pre-training: opaque settings around the configuration. */
#include <xkd/pretrain.h>

#include "base/alloc.h"
#include "train/loop.h"

/* What the opaque handle holds; the configuration owns its strings. */
struct xkd_settings {
    xkd_context *cx;
    xkd_config config;
};

/* A new handle has every default, so a caller need only set the data and a folder. */
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

/* Later calls win over earlier ones, key by key; a file may therefore follow an override and undo it. */
xkd_status xkd_settings_load(xkd_settings *settings, const char *path)
{
    return xkd_config_load(settings->cx, &settings->config, path, false);
}

/* The same text form as the command line takes, so both have one parser and one set of messages. */
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

/* NULL options stand for a new run without callbacks. The handle is not changed by training and may be used
 * again. */
xkd_status xkd_pretrain(xkd_settings *settings, const xkd_run_options *options, xkd_run_result *result)
{
    static const xkd_run_options none = {.mode = XKD_RUN_NEW};
    xkd_status status = XKD_OK;
    *result = (xkd_run_result){0};
    XKD_TRY(finish(settings));
    XKD_TRY(xkd_train(settings->cx, &settings->config, options ? options : &none, NULL, result, NULL));
fail:
    return status;
}

/* Nothing is written to disk and no run folder is needed. */
xkd_status xkd_plan(xkd_settings *settings, xkd_train_plan *out)
{
    xkd_status status = XKD_OK;
    *out = (xkd_train_plan){0};
    XKD_TRY(finish(settings));
    XKD_TRY(xkd_plan_training(settings->cx, &settings->config, out));
fail:
    return status;
}
