/* The clips that are most like a file of a collection:   retrieve FEATURES PATH
 *
 * FEATURES is a file that `xkd embed` wrote. PATH names a file as FEATURES does.
 *
 *     cc examples/retrieve.c $(pkg-config --cflags --libs libxkd) -o retrieve */
#include <stdio.h>
#include <xkd/retrieve.h>

enum { MOST = 10 };

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: retrieve FEATURES PATH\n");
        return XKD_ERR_CONFIG;
    }
    xkd_context *cx = xkd_context_new();
    xkd_collection *collection = NULL;
    xkd_match match[MOST];
    int64_t found = 0;
    if (!cx) return XKD_ERR_MEMORY;
    xkd_status status = xkd_collection_open(cx, argv[1], 0, &collection);
    if (status != XKD_OK) fprintf(stderr, "error: %s\n", xkd_last_error(cx));
    if (status == XKD_OK) {
        xkd_modality modality = xkd_collection_info(collection).clips[XKD_VIDEO] ? XKD_VIDEO : XKD_AUDIO;
        status = xkd_collection_like(collection, argv[2], modality, modality, MOST, match, &found);
        if (status != XKD_OK) fprintf(stderr, "error: %s\n", xkd_collection_error(collection));
    }
    for (int64_t i = 0; i < found; i++) printf("%7.4f %8.2f s  %s\n", match[i].cosine, match[i].seconds, match[i].path);
    xkd_collection_close(collection);
    xkd_context_free(cx);
    return status;
}
