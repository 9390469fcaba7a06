/* The reference backend in float. */
#define STORED float
#define EXACT float
#define NAME(x) x##_f32
#include "backend/ref/table.h"
#include "backend/ref/ref.h"

const xkd_ops *xkd_ref_ops_f32(void)
{
    return &NAME(table);
}
