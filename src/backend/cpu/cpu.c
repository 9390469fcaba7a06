#include "backend/backend.h"

const xkd_ops *xkd_cpu_ops(void)
{
    return xkd_ref_ops(XKD_F32);
}
