/* Views of a batch from what was decoded (media/augment.h): pictures. A pixel is one word, red in its lowest byte, so that a
 * thread reads and writes a whole one. Products and sums are rounded apart, as the host's are: the bytes are the host's. */
#include "kernel.h"
#include "state.h"

extern "C" {
#include "media/augment.h"
}

namespace
{
/* Rows of a picture that a block of threads makes. */
enum { ROWS = 8, PRECISION_BITS = 22 };

/* Weights of a resize along one axis, as media/resize.c has them. */
struct resize_axis {
    int32_t *first, *count; /* [B,out] */
    int32_t *weight;        /* [B,out,taps] */
    int out, taps;
};

struct video_job {
    const unsigned char *from;
    const xkd_video_change *change; /* [B] */
    int T, H, W, box_height;
    resize_axis x, y;
    uint32_t *middle; /* [B,T,box_height,W] resized along x */
    uint32_t *pixels; /* [B,T,H,W] */
    float *clip;      /* [B,3,T,H,W] */
};

__device__ inline double weight_at(int64_t pixel, double centre, double inverse)
{
    double distance = fabs(__dmul_rn((double)pixel - centre + 0.5, inverse));
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

/* Pillow's weights of output i, in its order of operations. */
__device__ inline void axis_weights(const resize_axis &a, int64_t b, int i, int in)
{
    double scale = (double)in / (double)a.out, support = scale < 1 ? 1 : scale, inverse = 1.0 / support;
    double centre = __dmul_rn((double)i + 0.5, scale), sum = 0;
    int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
    if (low < 0) low = 0;
    if (high > in) high = in;
    if (high > low + a.taps) high = low + a.taps;
    for (int64_t p = low; p < high; p++) sum += weight_at(p, centre, inverse);
    int64_t at = b * a.out + i;
    for (int64_t p = low; p < high; p++) {
        double k = weight_at(p, centre, inverse);
        if (sum != 0.0) k /= sum;
        a.weight[at * a.taps + p - low] = (int32_t)__dadd_rn(0.5, __dmul_rn(k, (double)(1 << PRECISION_BITS)));
    }
    a.first[at] = (int32_t)low;
    a.count[at] = (int32_t)(high - low);
}

struct resize_weights {
    video_job job;
    __device__ void operator()(int64_t i) const
    {
        int both = job.x.out + job.y.out, place = (int)(i % both);
        int64_t b = i / both;
        if (place < job.x.out)
            axis_weights(job.x, b, place, job.change[b].width);
        else
            axis_weights(job.y, b, place - job.x.out, job.change[b].height);
    }
};

__device__ inline uint32_t pack(int r, int g, int b)
{
    return (uint32_t)r | (uint32_t)g << 8 | (uint32_t)b << 16;
}

__device__ inline int channel(uint32_t pixel, int c)
{
    return (int)(pixel >> 8 * c & 255);
}

__device__ inline int to_byte(int sum)
{
    int value = sum >> PRECISION_BITS;
    return value > 255 ? 255 : value;
}

/* Along x: from the box of a frame, three bytes a pixel. */
__global__ void resize_rows(video_job j)
{
    const int64_t frame = blockIdx.x, b = frame / j.T;
    const xkd_video_change *c = &j.change[b];
    const unsigned char *box = j.from + c->at + frame % j.T * c->height * c->width * 3;
    for (int i = (int)threadIdx.x; i < ROWS * j.W; i += THREADS) {
        int y = (int)blockIdx.y * ROWS + i / j.W, x = i % j.W;
        if (y >= c->height) break;
        const int64_t at = b * j.W + x;
        const int32_t *w = j.x.weight + at * j.x.taps;
        const unsigned char *p = box + ((int64_t)y * c->width + j.x.first[at]) * 3;
        int sum[3] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1)};
        for (int t = 0; t < j.x.count[at]; t++, p += 3)
            for (int k = 0; k < 3; k++) sum[k] += p[k] * w[t];
        j.middle[(frame * j.box_height + y) * j.W + x] = pack(to_byte(sum[0]), to_byte(sum[1]), to_byte(sum[2]));
    }
}

/* Along y, mirrored on the way where the view is flipped. */
__global__ void resize_columns(video_job j)
{
    const int64_t frame = blockIdx.x, b = frame / j.T;
    const bool flip = j.change[b].flip;
    for (int i = (int)threadIdx.x; i < ROWS * j.W; i += THREADS) {
        int y = (int)blockIdx.y * ROWS + i / j.W, x = i % j.W;
        if (y >= j.H) break;
        const int64_t at = b * j.H + y;
        const int32_t *w = j.y.weight + at * j.y.taps;
        const uint32_t *p = j.middle + (frame * j.box_height + j.y.first[at]) * j.W + x;
        int sum[3] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1)};
        for (int t = 0; t < j.y.count[at]; t++, p += j.W)
            for (int k = 0; k < 3; k++) sum[k] += channel(*p, k) * w[t];
        j.pixels[(frame * j.H + y) * j.W + (flip ? j.W - 1 - x : x)] =
            pack(to_byte(sum[0]), to_byte(sum[1]), to_byte(sum[2]));
    }
}

/* ---- colours: media/image.c, which says why ---- */

__device__ inline int blend(int base, int x, float factor)
{
    float value = __fadd_rn((float)base, __fmul_rn(factor, (float)(x - base)));
    value = value < 0.0f ? 0.0f : value;
    return (int)(value > 255.0f ? 255.0f : value);
}

__device__ inline uint32_t blend_all(int base, uint32_t x, float factor)
{
    return pack(blend(base, channel(x, 0), factor), blend(base, channel(x, 1), factor),
                blend(base, channel(x, 2), factor));
}

__device__ inline int luma(uint32_t x)
{
    return (19595 * channel(x, 0) + 38470 * channel(x, 1) + 7471 * channel(x, 2) + 32768) >> 16;
}

__device__ inline void to_hsv(uint32_t x, int hsv[3])
{
    int r = channel(x, 0), g = channel(x, 1), b = channel(x, 2), high = max(max(r, g), b), low = min(min(r, g), b);
    float range = (float)(high - low), safe = range > 0.0f ? range : 1.0f, top = high > 0 ? (float)high : 1.0f;
    float rc = (float)(high - r) / safe, gc = (float)(high - g) / safe, bc = (float)(high - b) / safe;
    double base = r == high ? 0.0 : g == high ? 2.0 : 4.0;
    float plus = r == high ? bc : g == high ? rc : gc, minus = r == high ? gc : g == high ? bc : rc;
    float hue = (float)((base + (double)plus) - (double)minus);
    double turn = (double)hue / 6.0 + 1.0;
    hue = (float)(turn >= 1.0 ? turn - 1.0 : turn);
    hsv[0] = (int)((double)hue * 255.0);
    hsv[1] = (int)((double)(range / top) * 255.0);
    hsv[2] = high;
}

/* v (1 - part), to the nearest integer. */
__device__ inline int lessened(int v, double part)
{
    return (int)__dadd_rn(__dmul_rn((double)v, 1.0 - part), 0.5);
}

__device__ inline uint32_t to_rgb(const int hsv[3])
{
    double angle = (double)hsv[0] * 6.0 / 255.0;
    int sector = (int)angle, v = hsv[2];
    float fraction = (float)(angle - (double)sector), fs = (float)((double)hsv[1] / 255.0);
    int p = lessened(v, (double)fs), q = lessened(v, (double)(fs * fraction));
    int t = lessened(v, __dmul_rn((double)fs, 1.0 - (double)fraction));
    sector = sector == 6 ? 0 : sector;
    return pack(sector == 0 || sector == 5 ? v
                : sector == 1              ? q
                : sector == 4              ? t
                                           : p,
                sector == 1 || sector == 2 ? v
                : sector == 0              ? t
                : sector == 3              ? q
                                           : p,
                sector == 3 || sector == 4 ? v
                : sector == 2              ? t
                : sector == 5              ? q
                                           : p);
}

__device__ inline uint32_t turn_hue(uint32_t x, int shift)
{
    int hsv[3];
    to_hsv(x, hsv);
    hsv[0] = (hsv[0] + shift) & 255;
    return to_rgb(hsv);
}

__device__ inline uint32_t change_pixel(uint32_t x, int colour, double factor, int mean)
{
    if (colour == XKD_BRIGHTNESS) return blend_all(0, x, (float)factor);
    if (colour == XKD_CONTRAST) return blend_all(mean, x, (float)factor);
    if (colour == XKD_SATURATION) return blend_all(luma(x), x, (float)factor);
    return turn_hue(x, (int)__dmul_rn(factor, 255.0));
}

/* The mean grey of a frame [n], rounded. */
__device__ inline int mean_grey(const uint32_t *pixel, int n, long long *room)
{
    long long sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) sum += luma(pixel[i]);
    return (int)((double)block_sum(sum, room) / (double)n + 0.5);
}

/* One frame a block. A thread changes its own pixels alone. */
__global__ void change_colours(video_job j)
{
    SHARED(long long, room); /* [WARPS] */
    const int n = j.H * j.W;
    const xkd_video_change *c = &j.change[blockIdx.x / (unsigned)j.T];
    uint32_t *pixel = j.pixels + (int64_t)blockIdx.x * n;
    for (int k = 0; k < c->colours; k++) {
        int colour = c->colour[k], mean = colour == XKD_CONTRAST ? mean_grey(pixel, n, room) : 0;
        for (int i = (int)threadIdx.x; i < n; i += THREADS)
            pixel[i] = change_pixel(pixel[i], colour, c->factor[k], mean);
    }
    for (int i = (int)threadIdx.x; c->grey && i < n; i += THREADS) {
        int grey = luma(pixel[i]);
        pixel[i] = pack(grey, grey, grey);
    }
}

/* ---- blur and normalisation ---- */

__device__ inline int mirror(int i, int n)
{
    if (i < 0) i = -i;
    return i >= n ? 2 * n - 2 - i : i;
}

/* Where channel c of a frame begins in the clip. */
__device__ inline float *plane_of(const video_job &j, int64_t frame, int c)
{
    return j.clip + ((frame / j.T * 3 + c) * j.T + frame % j.T) * j.H * j.W;
}

/* Along y, into the clip. */
__global__ void blur_columns(video_job j)
{
    const int64_t frame = blockIdx.x;
    const xkd_video_change *change = &j.change[frame / j.T];
    const uint32_t *pixel = j.pixels + frame * j.H * j.W;
    for (int i = (int)threadIdx.x; change->taps && i < ROWS * j.W; i += THREADS) {
        int y = (int)blockIdx.y * ROWS + i / j.W, x = i % j.W;
        if (y >= j.H) break;
        float sum[3] = {0, 0, 0};
        for (int k = 0; k < change->taps; k++) {
            uint32_t p = pixel[mirror(y + k - change->taps / 2, j.H) * j.W + x];
            for (int c = 0; c < 3; c++) sum[c] = __fadd_rn(sum[c], __fmul_rn(change->along_y[k], (float)channel(p, c)));
        }
        for (int c = 0; c < 3; c++) plane_of(j, frame, c)[y * j.W + x] = sum[c];
    }
}

__device__ inline float normalised(int value, int c)
{
    const float mean[3] = XKD_IMAGE_MEAN, std[3] = XKD_IMAGE_STD;
    return ((float)value / 255.0f - mean[c]) / std[c];
}

/* Along x and to bytes, halves to even, of one row. */
__device__ inline int blurred(const xkd_video_change *change, const float *row, int x, int W)
{
    float sum = 0;
    for (int k = 0; k < change->taps; k++)
        sum = __fadd_rn(sum, __fmul_rn(change->along_x[k], row[mirror(x + k - change->taps / 2, W)]));
    sum = rintf(sum);
    return (int)(sum < 0.0f ? 0.0f : sum > 255.0f ? 255.0f : sum);
}

/* What is blurred is in the clip by now, and goes through shared memory, since neighbours need it. */
__global__ void finish_rows(video_job j)
{
    SHARED(float, rows); /* [ROWS,W] */
    const int64_t frame = blockIdx.x;
    const xkd_video_change *change = &j.change[frame / j.T];
    const int first = (int)blockIdx.y * ROWS * j.W, n = min(ROWS * j.W, j.H * j.W - first);
    for (int c = 0; c < 3; c++) {
        float *to = plane_of(j, frame, c) + first;
        for (int i = (int)threadIdx.x; change->taps && i < n; i += THREADS) rows[i] = to[i];
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            int value = change->taps ? blurred(change, rows + i / j.W * j.W, i % j.W, j.W)
                                     : channel(j.pixels[frame * j.H * j.W + first + i], c);
            to[i] = normalised(value, c);
        }
        __syncthreads();
    }
}

/* ---- the operation ---- */

/* As many taps as the largest box may need. */
int taps_for(int64_t in, int64_t out)
{
    int64_t scale = (in + out - 1) / out;
    return (int)(scale < 1 ? 1 : scale) * 2 + 1;
}

/* Lays the job's tables and pictures out in `room`; returns their bytes. NULL: only measures. */
int64_t lay_out(video_job *j, char *room, int64_t B)
{
    int64_t used = 0;
    resize_axis *const axes[] = {&j->x, &j->y};
    for (resize_axis *a : axes) {
        a->first = carve<int32_t>(room, &used, B * a->out);
        a->count = carve<int32_t>(room, &used, B * a->out);
        a->weight = carve<int32_t>(room, &used, B * a->out * a->taps);
    }
    j->middle = carve<uint32_t>(room, &used, B * j->T * j->box_height * j->W);
    j->pixels = carve<uint32_t>(room, &used, B * j->T * j->H * j->W);
    return used;
}

/* The account is that of boxes as large as they may be, whose colours change four times and that are blurred. */
void video_view(xkd_backend *be, float *clip, const xkd_video_view_args *a)
{
    const int64_t frames = a->B * a->T, n = frames * a->H * a->W, word = (int64_t)sizeof(uint32_t);
    const int64_t middle = frames * a->box_height * a->W * word;
    const int64_t bytes = 3 * frames * a->box_height * a->box_width + 2 * middle + 2 * n * word + 8 * n * word +
                          n * word + 3 * 3 * n * (int64_t)sizeof(float);
    if (!cuda_begin(be, "video_view", bytes, 400 * n)) return;
    video_job j = {(const unsigned char *)a->from,
                   a->change,
                   (int)a->T,
                   (int)a->H,
                   (int)a->W,
                   (int)a->box_height,
                   {NULL, NULL, NULL, (int)a->W, taps_for(a->box_width, a->W)},
                   {NULL, NULL, NULL, (int)a->H, taps_for(a->box_height, a->H)},
                   NULL,
                   NULL,
                   clip};
    char *scratch = (char *)cuda_scratch(be, lay_out(&j, NULL, a->B));
    if (!scratch) return;
    lay_out(&j, scratch, a->B);
    const dim3 box((unsigned)frames, blocks_for(a->box_height, ROWS)), view((unsigned)frames, blocks_for(a->H, ROWS));
    cuda_each(be, "resize_weights", resize_weights{j}, a->B * (a->W + a->H));
    LAUNCH(be, resize_rows, box, THREADS, 0, j);
    LAUNCH(be, resize_columns, view, THREADS, 0, j);
    LAUNCH(be, change_colours, (unsigned)frames, THREADS, WARPS * sizeof(long long), j);
    LAUNCH(be, blur_columns, view, THREADS, 0, j);
    LAUNCH(be, finish_rows, view, THREADS, (size_t)(ROWS * a->W) * sizeof(float), j);
}
} // namespace

void cuda_fill_video_view(xkd_ops *ops)
{
    ops->video_view = video_view;
}
