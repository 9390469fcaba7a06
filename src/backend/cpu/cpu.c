/* The table of the cpu backend: the reference's, with what is hot overridden by the kernels of the process's level. */
#include <pthread.h>

#include "backend/cpu/levels.h"

static xkd_ops table;
static const xkd_cpu_level *level;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    table = *xkd_ref_ops(XKD_F32);
    table.name = "cpu";
    level->fill(&table);
}

/* The table is a constant that happens to be computed: the same for everybody, made once. */
xkd_status xkd_cpu_ops(xkd_context *cx, const xkd_ops **out)
{
    const xkd_cpu_level *found;
    xkd_status status = xkd_cpu_level_choose(cx, &found);
    if (status != XKD_OK) return status;
    __atomic_store_n(&level, found, __ATOMIC_RELAXED); /* always the same one */
    pthread_once(&once, fill_table);
    *out = &table;
    return XKD_OK;
}
