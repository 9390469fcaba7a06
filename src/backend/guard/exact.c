/* The guard's table of operations on exact tensors. */
#define OPS exact
#define TABLE xkd_guard_exact_ops
#include "backend/guard/operations.h"
