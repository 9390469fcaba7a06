/* The options of commands that use encoders, put into the library's words. */
#include "model_args.h"

#include <string.h>

xkd_status models_load(struct cli *cli, const struct model_args *args, const char *path, char **overrides, int count,
                       xkd_models *out)
{
    static const struct {
        const char *word;
        xkd_wanted wanted;
    } words[] = {{"video", XKD_WANT_VIDEO}, {"audio", XKD_WANT_AUDIO}, {"both", XKD_WANT_BOTH}};
    xkd_model_request request = {.config = args->config,
                                 .audio_model = args->audio_model,
                                 .follow_links = args->follow_links,
                                 .student = args->student,
                                 .projector = args->projector,
                                 .config_again = args->config_again,
                                 .heads = args->heads,
                                 .settings = args->settings};
    for (size_t i = 0; args->modality && i < sizeof words / sizeof *words; i++)
        if (strcmp(args->modality, words[i].word) == 0) request.wanted = words[i].wanted;
    if (args->modality && request.wanted == XKD_WANT_ALL)
        return xkd_fail(cli->cx, XKD_ERR_CONFIG, "--modality %s: video, audio or both", args->modality);
    return xkd_models_load(cli->cx, &request, path, overrides, count, out);
}
