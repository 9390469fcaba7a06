/* The only door to FFmpeg's Fourier transform: real input of even length n to n/2 + 1 complex
 * numbers. */
#include "media/fft.h"

#include <libavutil/tx.h>

#include "base/alloc.h"

struct xkd_fft {
    AVTXContext *tx;
    av_tx_fn run;
};

xkd_status xkd_fft_new(xkd_context *cx, int64_t n, xkd_fft **out)
{
    xkd_status status = XKD_OK;
    xkd_fft *fft = NULL;
    float scale = 1.0f;
    *out = NULL;
    XKD_TRY(xkd_alloc(cx, &fft, 1, sizeof *fft));
    if (n < 2 || n % 2 || n > 1 << 20 || av_tx_init(&fft->tx, &fft->run, AV_TX_FLOAT_RDFT, 0, (int)n, &scale, 0) < 0)
        XKD_FAIL(XKD_ERR_CONFIG, "n_fft: %lld: no Fourier transform of this length (use a power of two)", (long long)n);
    *out = fft;
    fft = NULL;
fail:
    xkd_fft_free(fft);
    return status;
}

void xkd_fft_free(xkd_fft *fft)
{
    if (!fft) return;
    av_tx_uninit(&fft->tx);
    xkd_free(fft);
}

/* `in` may be destroyed. `out` has n + 2 floats, real and imaginary parts in turn. */
void xkd_fft_run(xkd_fft *fft, float *in, float *out)
{
    fft->run(fft->tx, out, in, sizeof(float));
}
