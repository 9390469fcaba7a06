/* The stretches of a file are few, and its clips too: each clip looks through all of them. */
#include "media/damage.h"

#include <math.h>
#include <stdio.h>

#include "base/alloc.h"

/* Ends and starts of neighbours are computed apart and differ by rounding. */
static const double TOUCHING = 1e-6;

/* A share of one frame in ten is a tenth, whatever the last bits of its times are. */
static const double SHARE_STEPS = 1e9;

xkd_status xkd_damage_add(xkd_context *cx, xkd_damage *d, const xkd_media_stretch *s)
{
    for (int64_t i = d->count - 1; i >= 0 && i >= d->count - 2; i--) { /* pictures and sound come in turn */
        xkd_media_stretch *last = &d->item[i];
        if (last->video != s->video || last->lost != s->lost || fabs(s->from - last->to) > TOUCHING) continue;
        last->to = s->to;
        return XKD_OK;
    }
    xkd_status status = xkd_reserve(cx, &d->item, d->count, &d->capacity, sizeof *d->item);
    if (status == XKD_OK) d->item[d->count++] = *s;
    return status;
}

double xkd_damage_seconds(const xkd_damage *d, xkd_modality m, bool lost, double from, double to)
{
    double seconds = 0;
    for (int64_t i = 0; i < d->count; i++) {
        const xkd_media_stretch *s = &d->item[i];
        if (s->video != (m == XKD_VIDEO) || s->lost != lost) continue;
        seconds += fmax(fmin(s->to, to) - fmax(s->from, from), 0);
    }
    return seconds;
}

double xkd_damage_share(const xkd_damage *d, xkd_modality m, double from, double seconds)
{
    double flagged = xkd_damage_seconds(d, m, false, from, from + seconds);
    double lost = xkd_damage_seconds(d, m, true, from, from + seconds), share = 0;
    if (m == XKD_AUDIO)
        share = xkd_media_sound_damage(flagged, lost, seconds);
    else if (seconds > 0)
        share = fmin((flagged + lost) / seconds, 1);
    return round(share * SHARE_STEPS) / SHARE_STEPS;
}

void xkd_damage_words(char *out, size_t size, const char *whose, xkd_modality m, double share, double most)
{
    snprintf(out, size, "%.0f %% of %s %s damaged or missing (data.max_clip_damage=%g)", 100 * share, whose,
             m == XKD_VIDEO ? "pictures are" : "sound is", most);
}
