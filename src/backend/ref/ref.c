/* Picks the table of an element type. All come from the same templates (table.h), so a float result may
 * always be held against the double one. */
#include "backend/backend.h"

#include "backend/ref/ref.h"

const xkd_ops *xkd_ref_ops(xkd_dtype dtype)
{
    if (dtype == XKD_BF16) return xkd_ref_ops_bf16();
    return dtype == XKD_F64 ? xkd_ref_ops_f64() : xkd_ref_ops_f32();
}
