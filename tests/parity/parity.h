/* Operations on one backend beside the same on another. */
#ifndef XKD_TESTS_PARITY_PARITY_H
#define XKD_TESTS_PARITY_PARITY_H

#include "operations.h"

enum { XKD_PARITY_SEED = 20260301 };

/* Tensors of an operation, in the host's memory. */
typedef struct {
    void *t[MOST_TENSORS];
    int64_t n[MOST_TENSORS];
} tensors;

/* A backend and the stored type of a run on it. */
typedef struct {
    const char *device;
    xkd_dtype dtype;
} place;

/* Inputs are rounded to the types of a run in `rounding`, so that runs in all types see the same numbers. */
void parity_make(xkd_context *cx, const operation *op, const int64_t *d, xkd_dtype dtype, xkd_dtype rounding, tensors *out);
void parity_release(const operation *op, tensors *t);
/* Runs an operation on the tensors, in the backend's memory. */
void parity_run(xkd_backend *be, const operation *op, tensors *t, const int64_t *d);
/* Fails where tensors differ in a bit, told as `when`. */
void parity_same_bits(const operation *op, const tensors *a, const tensors *b, xkd_dtype dtype, const char *when);

/* Tests whose state is a place: all operations against the reference in float64, and with special values in an input against the
 * reference in the same type. Skipped where the place is a GPU, or an unbuilt simulation of one. */
void parity_of_backend(void **state);
void parity_of_special_values(void **state);

/* Those of the cpu, in the place's type: all operations with 1, 2, 3, 5 and 8 threads give the same bits, and the bits of a row do
 * not depend on the rows beside it. */
void parity_of_thread_counts(void **state);
void parity_of_rows(void **state);

#endif
