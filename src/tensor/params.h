/* The parameter table: one row per tensor. It alone drives allocation, initialisation, checkpoint keys, optimiser
 * groups, EMA and test labels. Modules declare their rows (xkd_params_add) and keep pointers to them; rows never move.
 *
 * Order of use: declare all rows -> xkd_params_allocate -> xkd_params_init or load from a file -> compute. */
#ifndef XKD_TENSOR_PARAMS_H
#define XKD_TENSOR_PARAMS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/pool.h"
#include "tensor/tensor.h"

enum { XKD_PARAM_NAME = 96 };

/* How a fresh tensor is drawn; method.md section 7, "Initialisation". `scale` of the row is the number in brackets. */
typedef enum {
    XKD_INIT_ZERO,
    XKD_INIT_ONE,
    XKD_INIT_XAVIER,       /* uniform +-sqrt(6 / (fan_in + fan_out)), shape [fan_out, fan_in] */
    XKD_INIT_NORMAL,       /* N(0, scale) */
    XKD_INIT_TRUNC_NORMAL, /* N(0, scale) cut at +-2 */
    XKD_INIT_UNIFORM       /* uniform +-scale */
} xkd_init;

/* What a row is to the optimiser. */
typedef enum {
    XKD_ROLE_TRAINED, /* has gradient and moments */
    XKD_ROLE_FROZEN,  /* never changes: the gain of the head's last layer */
    XKD_ROLE_TEACHER, /* an exponential moving average of a student row */
    XKD_ROLE_BUFFER   /* state that is neither: the centres */
} xkd_param_role;

typedef struct {
    char name[XKD_PARAM_NAME]; /* public state-dict name */
    xkd_shape shape;
    int64_t count; /* elements */
    xkd_init init;
    double scale;
    xkd_param_role role;
    bool decayed;                   /* weight decay applies: neither one-dimensional nor a bias */
    bool clipped;                   /* per-tensor gradient clipping applies: encoder and head of a student */
    bool last_layer;                /* left out of the update in the first freeze_last_layer epochs */
    bool exact;                     /* operations read the master itself: the head's last layer, classifiers */
    void *master;                   /* exact: what files hold, what is trained and averaged */
    void *value;                    /* what operations read: the master, or its copy in the stored type */
    void *grad, *moment1, *moment2; /* exact; NULL unless trained */
    int64_t steps;                  /* updates so far, for the moments' bias correction, as far as the host knows */
    double *counter;                /* the same where operations count: in the rows' memory; NULL unless training */
} xkd_param;

/* A second public name of a row. */
typedef struct {
    char name[XKD_PARAM_NAME];
    xkd_param *row;
    bool shared; /* blocks shared by two networks: listed in state files; others only in full PyTorch exports */
} xkd_param_alias;

/* Teacher row <- m * teacher + (1 - m) * student row, with the momentum of `modality`, in list order. */
typedef struct {
    xkd_param *teacher, *student;
    int modality;
} xkd_ema_pair;

typedef struct {
    xkd_param **rows;
    int64_t count, capacity;
    xkd_param_alias *aliases;
    int64_t alias_count, alias_capacity;
    xkd_ema_pair *pairs;
    int64_t pair_count, pair_capacity;
    xkd_memory *memory;      /* where the rows lie */
    xkd_dtype dtype, stored; /* of masters, gradients and moments; of working copies */
    xkd_arena values, copies, grads, moments;
    xkd_arena counters; /* one [count] of all rows */
} xkd_params;

/* Adds a copy of `row` (name, shape, init, scale, role and flags filled in; `decayed` is derived here) and returns the
 * stored row in *out, owned by the table. A repeated name is an internal error. */
xkd_status xkd_params_add(xkd_context *cx, xkd_params *params, const xkd_param *row, xkd_param **out);
xkd_status xkd_params_add_alias(xkd_context *cx, xkd_params *params, xkd_param *row, const char *name, bool shared);
xkd_status xkd_params_add_pair(xkd_context *cx, xkd_params *params, xkd_param *teacher, xkd_param *student,
                               int modality);

/* The row with this name or alias, or NULL. */
xkd_param *xkd_params_find(const xkd_params *params, const char *name);

/* Memory for all rows: masters, and working copies where the stored type is another one; gradients and moments too if
 * `training`. Everything is zero. */
xkd_status xkd_params_allocate(xkd_context *cx, xkd_params *params, xkd_memory *memory, xkd_dtype stored,
                               bool training);

/* Brings the working copy of a row up to date with a master that was written from outside, by a file. */
void xkd_param_refresh(const xkd_params *params, const xkd_param *row);

/* Brings the counters up to date with steps that were set from outside, by a file or another rank. */
void xkd_params_set_counters(const xkd_params *params);

/* Draws every row from (seed, row number), rows in parallel, then copies students into teachers. dtype F32 or F64. */
xkd_status xkd_params_init(xkd_context *cx, xkd_params *params, uint64_t seed, xkd_pool *pool);

void xkd_params_free(xkd_params *params);

#endif
