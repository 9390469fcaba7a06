/* A thread that decodes lists of files into clips, ahead of the thread that uses them. The clips stand in a ring; memory depends
 * on its size and not on the length of a file. The thread, its decoder's process and its memory serve list after list. */
#ifndef XKD_EVAL_ENCODE_CLIP_FEED_H
#define XKD_EVAL_ENCODE_CLIP_FEED_H

#include "eval/encode/clips.h"

/* One file to do: a sample of a manifest, or what would be in one. */
typedef struct {
    const xkd_manifest *manifest; /* NULL with memory */
    int64_t sample;               /* index in the manifest */
    int64_t number;               /* what results call it */
    int64_t draw; /* what random draws call it: the number, but where work is shared with other splits */
    const xkd_clip_memory *memory;
} xkd_embed_input;

/* Files that are named one by one; their folders may all be different, so each has a manifest of its own. */
typedef struct {
    xkd_manifest *manifests; /* [count] */
    xkd_embed_input *inputs; /* [count] */
    int64_t count;
} xkd_input_list;

/* A file that is not there costs nothing here; it is a fault of its own when its turn comes. Free with xkd_input_list_free in any
 * case. */
xkd_status xkd_input_list_of(xkd_context *cx, const char *const *paths, int64_t count, xkd_input_list *out);
void xkd_input_list_free(xkd_input_list *list);

/* What stands in the ring: a clip, or the end of a file. */
typedef struct {
    bool end;
    int64_t input; /* index into the list */
    xkd_clip_place place;
    xkd_media_result result; /* of an end */
    float *clip;             /* room for either modality */
} xkd_fed_clip;

typedef struct xkd_clip_feed xkd_clip_feed;

/* A ring of `slots` clips of up to `floats` numbers each. options->data must outlive the feed. Free with xkd_clip_feed_free. */
xkd_status xkd_clip_feed_new(xkd_context *cx, const xkd_clip_options *options, int64_t slots, int64_t floats,
                             xkd_clip_feed **out);

/* Gives up what is at hand. NULL is allowed. */
void xkd_clip_feed_free(xkd_clip_feed *feed);

/* Begins with a list, which must live until it is done or given up. The list before must be one or the other. */
void xkd_clip_feed_begin(xkd_clip_feed *feed, const xkd_embed_input *inputs, int64_t count);

/* Waits for the oldest of the ring. *out is NULL behind the last; then the status tells how decoding ended, with its message in
 * the feed's context. Where that has a progress callback it is asked several times a second: XKD_ERR_INTERRUPTED. */
xkd_status xkd_clip_feed_next(xkd_clip_feed *feed, const xkd_fed_clip **out);

/* Gives the oldest back; its memory is written to at once. */
void xkd_clip_feed_release(xkd_clip_feed *feed);

/* Gives up the list at hand and waits until nothing of it is used any more. */
void xkd_clip_feed_cancel(xkd_clip_feed *feed);

#endif
