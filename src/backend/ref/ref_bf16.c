/* The reference backend in bfloat16, with float where it is exact. */
#define STORED uint16_t
#define EXACT float
#define NAME(x) x##_bf16
#include "backend/ref/table.h"
#include "backend/ref/ref.h"

const xkd_ops *xkd_ref_ops_bf16(void)
{
    return &NAME(table);
}
