/* Features of a file, window by window:   embed MODEL FILE [OUT]
 *
 * Prints where each window begins and the first three numbers of its features. The features of the pictures go to OUT as they
 * are in memory: 32-bit floats, one window after the other.
 *
 *     cc examples/embed.c $(pkg-config --cflags --libs libxkd) -o embed */
#include <stdio.h>
#include <xkd/embed.h>

static void show(const char *name, const float *row)
{
    if (row)
        printf("  %s %.6f %.6f %.6f", name, row[0], row[1], row[2]);
    else
        printf("  no %s", name);
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: embed MODEL FILE [OUT]\n");
        return XKD_ERR_CONFIG;
    }
    xkd_context *cx = xkd_context_new();
    xkd_embedder *embedder = NULL;
    xkd_windows *windows = NULL;
    xkd_window window;
    int more = 1;
    if (!cx) return XKD_ERR_MEMORY;
    FILE *out = argc == 4 ? fopen(argv[3], "wb") : NULL;
    xkd_status status = xkd_embedder_open(cx, argv[1], NULL, &embedder);
    if (status == XKD_OK) status = xkd_embedder_windows(embedder, argv[2], &windows);
    while (status == XKD_OK && more) {
        status = xkd_windows_next(windows, &window, &more);
        if (status != XKD_OK || !more) break;
        printf("%8.2f s", window.seconds);
        show("video", window.row[XKD_VIDEO]);
        show("audio", window.row[XKD_AUDIO]);
        printf("\n");
        xkd_encoder_info info = xkd_embedder_info(embedder, XKD_VIDEO);
        if (out && window.row[XKD_VIDEO])
            fwrite(window.row[XKD_VIDEO], sizeof(float), (size_t)(info.rows * info.width), out);
    }
    if (status != XKD_OK) fprintf(stderr, "error: %s\n", embedder ? xkd_embedder_error(embedder) : xkd_last_error(cx));
    xkd_windows_close(windows);
    xkd_embedder_close(embedder);
    xkd_context_free(cx);
    if (out && fclose(out) != 0) status = XKD_ERR_STORAGE;
    return status;
}
