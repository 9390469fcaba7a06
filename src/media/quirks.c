/* Where libavformat and libavcodec do something else than what the file means, and cannot be told so. */
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

/* In AVI as DivX and Xvid write it each packet stands for one picture that is shown at its time: an anchor lies in one packet with
 * the first picture that is shown before it, and its own place is held by a packet that codes nothing. libavcodec takes
 * such packets apart, gives pictures in their order, and each of them one packet late. */
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

/* Program and transport streams have a time stamp for each packet of theirs, which may hold several pictures. libavformat counts on
 * from it, but behind a seek it does not know yet what to count on from. */
bool xkd_media_is_guessed(const xkd_media *m, const AVFrame *frame)
{
    return frame->pts == AV_NOPTS_VALUE && m->format->iformat->flags & AVFMT_TS_DISCONT;
}

/* Samples as they are, which cannot be wrong. A recording to a pipe ends in the middle of a packet, or of a sample: that is
 * no damage. Whether it is shorter than its header says is known without decoding. */
bool xkd_media_is_pcm(enum AVCodecID codec)
{
    return codec >= AV_CODEC_ID_FIRST_AUDIO && codec < AV_CODEC_ID_ADPCM_IMA_QT;
}

/* In WAV libavformat seeks by the header's rate of bytes, which holds for PCM alone, and pages of FLAC in Ogg tell where their
 * last packet ends. Sound alone is quickly read through. */
bool xkd_media_misses(const xkd_media *m)
{
    const char *format = m->format->iformat->name;
    enum AVCodecID codec = m->audio ? m->audio->codecpar->codec_id : AV_CODEC_ID_NONE;
    return (!strcmp(format, "wav") && !xkd_media_is_pcm(codec)) ||
           (!strcmp(format, "ogg") && codec == AV_CODEC_ID_FLAC);
}

/* The decoder would find nothing but damage in it. */
xkd_status xkd_media_check_encryption(const xkd_media *m, const AVPacket *packet, xkd_media_fault *fault)
{
    const AVStream *stream = m->format->streams[packet->stream_index];
    if (stream->discard == AVDISCARD_ALL || !av_packet_get_side_data(packet, AV_PKT_DATA_ENCRYPTION_INFO, NULL))
        return XKD_OK;
    *fault = XKD_FAULT_REFUSED;
    return xkd_fail(m->cx, XKD_ERR_DATA,
                    "%s: refused: is encrypted (ffmpeg -decryption_key KEY -i FILE -c copy NEW.mp4 decrypts it)",
                    m->name);
}
