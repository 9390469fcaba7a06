/* MPEG-4 as DivX and Xvid store it in AVI, where each packet stands for one picture that is shown at its time: an anchor lies in one
 * packet with the first picture that is shown before it, and its own place is held by a packet that codes nothing. libavcodec takes
 * such packets apart, gives pictures in their order, and each of them one packet late. */
#include <stdio.h>
#include <string.h>

#include "media/internal.h"

/* "DivX503b1393p": the version, the build, and p where packets are packed. The same words by which libavcodec knows it. */
static bool names_packing(const char *text)
{
    int version, build;
    char last = 0;
    int found = sscanf(text, "DivX%dBuild%d%c", &version, &build, &last);
    if (found < 2) found = sscanf(text, "DivX%db%d%c", &version, &build, &last);
    return found == 3 && last == 'p';
}

bool xkd_media_is_packed(const AVCodecContext *codec)
{
    static const uint8_t USER_DATA[] = {0, 0, 1, 0xB2};
    char text[64];
    if (codec->codec_id != AV_CODEC_ID_MPEG4 || codec->has_b_frames < 1) return false;
    const uint8_t *at = codec->extradata, *end = at ? at + codec->extradata_size : at;
    while (at && (at = memmem(at, (size_t)(end - at), USER_DATA, sizeof USER_DATA)) != NULL) {
        at += sizeof USER_DATA;
        snprintf(text, sizeof text, "%.*s", (int)(end - at), (const char *)at);
        if (names_packing(text)) return true;
    }
    return false;
}
