/* The table of parameters: every tensor once, by its public name, with aliases for second names and
 * pairs for teacher and student. Networks hold pointers to rows; all memory is the table's. */
#include "tensor/params.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

/* Rows are allocated one by one, because others hold pointers to them. Decay follows PyTorch's
 * custom: neither one-dimensional tensors nor biases (method.md section 7). */
xkd_status xkd_params_add(xkd_context *cx, xkd_params *params, const xkd_param *row, xkd_param **out)
{
    xkd_status status = XKD_OK;
    xkd_param *stored = NULL;
    if (xkd_params_find(params, row->name)) XKD_FAIL(XKD_ERR_INTERNAL, "parameter %s is declared twice", row->name);
    XKD_TRY(xkd_reserve(cx, &params->rows, params->count, &params->capacity, sizeof(xkd_param *)));
    XKD_TRY(xkd_alloc(cx, &stored, 1, sizeof *stored));
    *stored = *row;
    stored->count = xkd_shape_count(&row->shape);
    size_t length = strlen(row->name);
    bool bias = length >= 5 && strcmp(row->name + length - 5, ".bias") == 0;
    stored->decayed = row->shape.ndim > 1 && !bias;
    params->rows[params->count++] = stored;
    *out = stored;
fail:
    return status;
}

/* Names were checked for length when they were made. `shared`: the alias stands for a tensor of
 * another network, and files hold it under both names. */
xkd_status xkd_params_add_alias(xkd_context *cx, xkd_params *params, xkd_param *row, const char *name, bool shared)
{
    xkd_status status = XKD_OK;
    XKD_TRY(xkd_reserve(cx, &params->aliases, params->alias_count, &params->alias_capacity, sizeof(xkd_param_alias)));
    xkd_param_alias *alias = &params->aliases[params->alias_count++];
    strncpy(alias->name, name, sizeof alias->name - 1);
    alias->row = row;
    alias->shared = shared;
fail:
    return status;
}

/* A teacher shared by both modalities has two pairs, in the order in which they are averaged. */
xkd_status xkd_params_add_pair(xkd_context *cx, xkd_params *params, xkd_param *teacher, xkd_param *student,
                               int modality)
{
    xkd_status status = XKD_OK;
    if (!xkd_shape_equal(&teacher->shape, &student->shape))
        XKD_FAIL(XKD_ERR_CONFIG,
                 "teacher_cfg and student_cfg differ: %s and %s have different shapes, but a teacher is "
                 "an average of its student: give both the same size",
                 teacher->name, student->name);
    XKD_TRY(xkd_reserve(cx, &params->pairs, params->pair_count, &params->pair_capacity, sizeof(xkd_ema_pair)));
    params->pairs[params->pair_count++] = (xkd_ema_pair){teacher, student, modality};
fail:
    return status;
}

/* Linear over rows and aliases; used when models are built and files loaded, never in a step. */
xkd_param *xkd_params_find(const xkd_params *params, const char *name)
{
    for (int64_t i = 0; i < params->count; i++)
        if (strcmp(params->rows[i]->name, name) == 0) return params->rows[i];
    for (int64_t i = 0; i < params->alias_count; i++)
        if (strcmp(params->aliases[i].name, name) == 0) return params->aliases[i].row;
    return NULL;
}

/* Planning function of the arenas: runs once to measure and once to assign.
 * Gradients and moments exist for trained rows only. */
static void assign(xkd_params *params, bool training)
{
    int64_t size = xkd_dtype_size(params->dtype);
    double *counters = training ? xkd_arena_take(&params->counters, params->count * (int64_t)sizeof *counters) : NULL;
    for (int64_t i = 0; i < params->count; i++) {
        xkd_param *row = params->rows[i];
        row->counter = counters ? counters + i : NULL;
        row->value = row->master = xkd_arena_take(&params->values, row->count * size);
        if (params->stored != params->dtype && !row->exact)
            row->value = xkd_arena_take(&params->copies, row->count * xkd_dtype_size(params->stored));
        if (!training || row->role != XKD_ROLE_TRAINED) continue;
        row->grad = xkd_arena_take(&params->grads, row->count * size);
        row->moment1 = xkd_arena_take(&params->moments, row->count * size);
        row->moment2 = xkd_arena_take(&params->moments, row->count * size);
    }
}

/* Arenas of their own, so that all gradients lie together and can be cleared with one fill. */
xkd_status xkd_params_allocate(xkd_context *cx, xkd_params *params, xkd_memory *memory, xkd_dtype stored, bool training)
{
    xkd_status status = XKD_OK;
    params->dtype = xkd_exact_dtype(stored);
    params->stored = stored;
    params->memory = params->values.of = params->copies.of = params->grads.of = params->moments.of = memory;
    params->counters.of = memory;
    params->grads.whole = true;
    assign(params, training);
    XKD_TRY(xkd_arena_commit(cx, &params->values));
    XKD_TRY(xkd_arena_commit(cx, &params->copies));
    XKD_TRY(xkd_arena_commit(cx, &params->grads));
    XKD_TRY(xkd_arena_commit(cx, &params->moments));
    XKD_TRY(xkd_arena_commit(cx, &params->counters));
    assign(params, training);
fail:
    return status;
}

void xkd_params_set_counters(const xkd_params *params)
{
    for (int64_t i = 0; i < params->count; i++) {
        double steps = (double)params->rows[i]->steps;
        if (params->rows[i]->counter)
            xkd_memory_upload(params->memory, params->rows[i]->counter, &steps, (int64_t)sizeof steps);
    }
}

void xkd_param_refresh(const xkd_params *params, const xkd_param *row)
{
    if (row->value != row->master)
        xkd_tensor_convert(params->memory, params->stored, row->value, params->dtype, row->master, row->count);
}

/* One value. Truncation is at +-2, as in PyTorch's trunc_normal_, which for std 0.02 never happens. */
static double draw(xkd_rng *rng, const xkd_param *row)
{
    switch (row->init) {
    case XKD_INIT_ZERO: return 0;
    case XKD_INIT_ONE: return 1;
    case XKD_INIT_XAVIER: {
        double bound = sqrt(6.0 / (double)(row->shape.dims[0] + row->shape.dims[1]));
        return xkd_rng_range(rng, -bound, bound);
    }
    case XKD_INIT_NORMAL: return row->scale * xkd_rng_normal(rng);
    case XKD_INIT_TRUNC_NORMAL: {
        double value;
        do value = row->scale * xkd_rng_normal(rng);
        while (fabs(value) > 2);
        return value;
    }
    case XKD_INIT_UNIFORM: return xkd_rng_range(rng, -row->scale, row->scale);
    }
    return 0;
}

/* Arguments of the loop over rows. */
typedef struct {
    xkd_params *params;
    uint64_t seed;
    char *drawn; /* all rows one behind the other, each at its place in the arena of values, or that arena's memory */
} init_job;

static char *drawn_row(const init_job *job, const xkd_param *row)
{
    return job->drawn + ((char *)row->master - job->params->values.memory);
}

/* One row; its numbers depend on the seed and its place in the table alone, so rows may be drawn in any order. */
static void init_row(void *arg, int64_t index, int thread)
{
    const init_job *job = arg;
    xkd_param *row = job->params->rows[index];
    (void)thread;
    if (row->role == XKD_ROLE_TEACHER) return; /* copies of the students, below */
    xkd_rng rng = xkd_rng_make(job->seed, 0, (uint32_t)index, 0, XKD_RNG_INIT);
    for (int64_t k = 0; k < row->count; k++) xkd_set(job->params->dtype, drawn_row(job, row), k, draw(&rng, row));
}

xkd_status xkd_params_init(xkd_context *cx, xkd_params *params, uint64_t seed, xkd_pool *pool)
{
    xkd_status status = XKD_OK;
    init_job job = {params, seed, params->values.memory};
    bool host = xkd_memory_is_host(params->memory);
    if (!host) XKD_TRY(xkd_alloc(cx, &job.drawn, params->values.size, 1));
    xkd_parallel_for(pool, params->count, init_row, &job);
    for (int64_t i = 0; !host && i < params->count; i++)
        xkd_memory_upload(params->memory, params->rows[i]->master, drawn_row(&job, params->rows[i]),
                          params->rows[i]->count * xkd_dtype_size(params->dtype));
    for (int64_t i = 0; i < params->pair_count; i++) {
        const xkd_ema_pair *pair = &params->pairs[i];
        xkd_memory_copy(params->memory, pair->teacher->master, pair->student->master,
                        pair->teacher->count * xkd_dtype_size(params->dtype));
    }
    for (int64_t i = 0; i < params->count; i++) xkd_param_refresh(params, params->rows[i]);
fail:
    if (!host) xkd_free(job.drawn);
    return status;
}

/* Takes a table that was filled in part. */
void xkd_params_free(xkd_params *params)
{
    for (int64_t i = 0; i < params->count; i++) xkd_free(params->rows[i]);
    xkd_free(params->rows);
    xkd_free(params->aliases);
    xkd_free(params->pairs);
    xkd_arena_free(&params->values);
    xkd_arena_free(&params->copies);
    xkd_arena_free(&params->grads);
    xkd_arena_free(&params->moments);
    xkd_arena_free(&params->counters);
    *params = (xkd_params){0};
}
