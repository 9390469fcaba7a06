/* The table of the cpu backend: the reference's, with what is hot overridden. */
#include "backend/cpu/cpu.h"

#include <pthread.h>

static xkd_ops table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Order does not matter: no two files override the same entry. */
static void fill_table(void)
{
    table = *xkd_ref_ops(XKD_F32);
    table.name = "cpu";
    xkd_cpu_linear_ops(&table);
    xkd_cpu_norm_ops(&table);
    xkd_cpu_attention_ops(&table);
    xkd_cpu_flat_ops(&table);
    xkd_cpu_row_ops(&table);
}

/* The table is a constant that happens to be computed: the same for everybody, made once. */
const xkd_ops *xkd_cpu_ops(void)
{
    pthread_once(&once, fill_table);
    return &table;
}
