/* Classifies files:   classify MODEL FILE...
 *
 * Prints the likeliest class of each file and its score. It names a file that it cannot read, and continues with the rest.
 *
 *     cc examples/classify.c $(pkg-config --cflags --libs libxkd) -o classify */
#include <stdio.h>
#include <xkd/classify.h>

struct call {
    const xkd_predictor *predictor;
    char **paths;
};

static int show(void *user, int64_t index, const float *scores, int64_t clips, const char *error)
{
    const struct call *call = user;
    int64_t best = 0, classes = xkd_predictor_info(call->predictor).classes;
    (void)clips;
    if (error) {
        fprintf(stderr, "%s: %s\n", call->paths[index], error);
        return 0;
    }
    for (int64_t k = 1; k < classes; k++)
        if (scores[k] > scores[best]) best = k;
    printf("%s\t%.4f\t%s\n", call->paths[index], scores[best], xkd_predictor_class(call->predictor, best));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: classify MODEL FILE...\n");
        return XKD_ERR_CONFIG;
    }
    xkd_context *cx = xkd_context_new();
    xkd_predictor *predictor = NULL;
    if (!cx) return XKD_ERR_MEMORY;
    xkd_status status = xkd_predictor_open(cx, argv[1], NULL, 0, &predictor);
    if (status != XKD_OK) fprintf(stderr, "error: %s\n", xkd_last_error(cx));
    if (status == XKD_OK) {
        struct call call = {predictor, argv + 2};
        status = xkd_predictor_files(predictor, (const char *const *)argv + 2, argc - 2, show, &call);
        if (status != XKD_OK) fprintf(stderr, "error: %s\n", xkd_predictor_error(predictor));
    }
    xkd_predictor_close(predictor);
    xkd_context_free(cx);
    return status;
}
