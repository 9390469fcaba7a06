/* Damage of a file by its time, how much of it a clip has, and the words that tell it. */
#ifndef XKD_MEDIA_DAMAGE_H
#define XKD_MEDIA_DAMAGE_H

#include <stddef.h>
#include <xkd/clip.h>

#include "media/media.h"

/* Stretches of one file in the order in which they were met. Starts as zeros; free `item`. */
typedef struct {
    xkd_media_stretch *item; /* [count] */
    int64_t count, capacity;
} xkd_damage;

/* Adds a stretch, or makes the last one longer that it follows without a gap. */
xkd_status xkd_damage_add(xkd_context *cx, xkd_damage *damage, const xkd_media_stretch *stretch);

/* Seconds between `from` and `to` of what is damaged by the decoder's word, or `lost`. */
double xkd_damage_seconds(const xkd_damage *damage, xkd_modality modality, bool lost, double from, double to);

/* Share in [0,1] of the `seconds` from `from` on. */
double xkd_damage_share(const xkd_damage *damage, xkd_modality modality, double from, double seconds);

/* "40 % of WHOSE pictures are damaged or missing (data.max_clip_damage=0.1)" */
void xkd_damage_words(char *out, size_t size, const char *whose, xkd_modality modality, double share, double most);

#endif
