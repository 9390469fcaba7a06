/* The tables of the cpu backend: the reference's, with what is hot overridden by the kernels of the process's level. */
#include <pthread.h>

#include "backend/cpu/levels.h"

static xkd_ops float_table, bfloat16_table;
static const xkd_cpu_level *level;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    float_table = *xkd_ref_ops(XKD_F32);
    bfloat16_table = *xkd_ref_ops(XKD_BF16);
    float_table.name = bfloat16_table.name = "cpu";
    level->fill(&float_table, XKD_F32);
    level->fill(&bfloat16_table, XKD_BF16);
}

/* The tables are constants that happen to be computed: the same for everybody, made once. */
xkd_status xkd_cpu_ops(xkd_context *cx, const xkd_ops **out, xkd_dtype dtype)
{
    const xkd_cpu_level *found;
    xkd_status status = xkd_cpu_level_choose(cx, &found);
    if (status != XKD_OK) return status;
    __atomic_store_n(&level, found, __ATOMIC_RELAXED); /* always the same one */
    pthread_once(&once, fill_tables);
    *out = dtype == XKD_BF16 ? &bfloat16_table : &float_table;
    return XKD_OK;
}
