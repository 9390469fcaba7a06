/* Pre-trains on a folder of videos through the library:   pretrain CONFIG VIDEOS RUN
 *
 *     cc examples/pretrain.c -Iinclude -Lbuild -lxkd -Wl,-rpath,build -o pretrain */
#include <stdio.h>
#include <xkd/pretrain.h>
#include <xkd/worker.h>

static void show(void *user, xkd_log_level level, const char *line)
{
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

static xkd_status set(xkd_settings *settings, const char *key, const char *value)
{
    char assignment[4200];
    snprintf(assignment, sizeof assignment, "%s=%s", key, value);
    return xkd_settings_set(settings, assignment);
}

int main(int argc, char **argv)
{
    if (xkd_media_worker_requested(argc, argv)) return xkd_media_worker_main(argc, argv);
    if (argc != 4) {
        fprintf(stderr, "usage: pretrain CONFIG VIDEOS RUN\n");
        return XKD_ERR_CONFIG;
    }
    xkd_context *cx = xkd_context_new();
    xkd_settings *settings = NULL;
    xkd_run_result result = {0};
    if (!cx) return XKD_ERR_MEMORY;
    xkd_context_set_log(cx, show, NULL, XKD_LOG_INFO);
    xkd_status status = xkd_settings_new(cx, &settings);
    if (status == XKD_OK) status = xkd_settings_load(settings, argv[1]);
    if (status == XKD_OK) status = set(settings, "data.path", argv[2]);
    if (status == XKD_OK) status = set(settings, "run.out", argv[3]);
    if (status == XKD_OK) status = xkd_pretrain(settings, NULL, &result);
    if (status == XKD_OK)
        printf("%lld steps, loss %.4f\n", (long long)result.step, result.loss);
    else
        fprintf(stderr, "error: %s\n", xkd_last_error(cx));
    xkd_settings_free(settings);
    xkd_context_free(cx);
    return status;
}
