/* What a warp does together on tensor cores; the layout is that of src/backend/cuda/mma.h. */
#include "tensor_cores.h"

#include "fibers.h"

namespace sim
{
namespace
{
float half_of(unsigned pair, int which)
{
    return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
}
} // namespace

/* Products of bfloat16 are exact in float; the order of the sums is not specified, here it is that of k. */
void warp_multiply(lane_operands *lanes[32])
{
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; l++)
        for (int e = 0; e < 2; e++) {
            int g = l / 4, t = l % 4;
            for (int r = 0; r < 4; r++) a[g + r % 2 * 8][2 * t + e + r / 2 * 8] = half_of(lanes[l]->a[r], e);
            for (int r = 0; r < 2; r++) b[2 * t + e + r * 8][g] = half_of(lanes[l]->b[r], e);
        }
    for (int l = 0; l < 32; l++)
        for (int e = 0; e < 4; e++) {
            int row = l / 4 + e / 2 * 8, column = l % 4 * 2 + e % 2;
            float sum = lanes[l]->c[e];
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            lanes[l]->c[e] = sum;
        }
}

void warp_load(lane_matrices *lanes[32])
{
    for (int l = 0; l < 32; l++)
        if ((uintptr_t)lanes[l]->row % 16) fault("a row of a matrix is not aligned");
    for (int l = 0; l < 32; l++)
        for (int j = 0; j < 4; j++) {
            int g = l / 4, t = l % 4;
            __nv_bfloat16 low, high;
            if (lanes[l]->transposed) {
                low = lanes[8 * j + 2 * t]->row[g];
                high = lanes[8 * j + 2 * t + 1]->row[g];
            } else {
                low = lanes[8 * j + g]->row[2 * t];
                high = lanes[8 * j + g]->row[2 * t + 1];
            }
            lanes[l]->r[j] = low.bits | (unsigned)high.bits << 16;
        }
}
} // namespace sim
