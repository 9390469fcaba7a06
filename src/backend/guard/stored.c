/* The guard's table of operations on stored tensors. */
#define OPS ops
#define TABLE xkd_guard_ops
#include "backend/guard/operations.h"
