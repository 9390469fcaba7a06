/* Every operation of the backend table as a row: how to call it on a list of tensors, their sizes and roles, shapes to
 * try. test_operations.c compares backends over them. */
#ifndef XKD_TESTS_PARITY_OPERATIONS_H
#define XKD_TESTS_PARITY_OPERATIONS_H

#include "backend/backend.h"

enum { MOST_TENSORS = 10, MOST_DIMS = 6, MOST_SHAPES = 9 };

typedef struct {
    const char *name;
    /* One letter a tensor: i input, o output (=), a accumulated (+=), s saved output; the same in capitals where the tensor
     * is exact; d output of doubles, e accumulated doubles. */
    const char *roles;
    void (*sizes)(const int64_t *d, int64_t *n); /* elements of each tensor */
    void (*run)(xkd_backend *be, void **t, const int64_t *d);
    int64_t (*reduction)(const int64_t *d); /* length of the longest sum, for the tolerance */
    int64_t shapes[MOST_SHAPES][MOST_DIMS]; /* ends with a row of zeros */
    double condition;                       /* how much the operation amplifies rounding; 0 means 1 */
} operation;

extern const operation operations[];
extern const int operation_count;

/* Goes through all operations, and the shapes d of each. */
#define EACH_SHAPE(op, d) \
    for (const operation *op = operations; op < operations + operation_count; op++) \
        for (const int64_t *d = op->shapes[0]; d < op->shapes[MOST_SHAPES] && d[0]; d += MOST_DIMS)

/* Gives back what the last run took of the backend's memory besides its tensors. */
void operations_give_back(xkd_backend *be);

#endif
