/* The reference backend in double. */
#define STORED double
#define EXACT double
#define NAME(x) x##_f64
#include "backend/ref/table.h"
#include "backend/ref/ref.h"

const xkd_ops *xkd_ref_ops_f64(void)
{
    return &NAME(table);
}
