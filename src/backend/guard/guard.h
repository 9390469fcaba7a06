/* The device "guard": the reference or the CPU's backend in memory that the host cannot read.
 *
 * Its addresses lie in a range that is mapped without any right. The operations exchange each for the address of the same
 * byte in a second range, which can be read and written. A read of a tensor's numbers by the host ends with SIGSEGV where it
 * happens, and an address of the host's that is handed to an operation is refused: XKD_ERR_INTERNAL with the operation's
 * name. So a program that runs on the guard runs on a device whose memory is its own. What is asked for as an arrival is NaN
 * until it is waited for, as if the device were late. Pieces of arenas have red zones (base/arena.h): what writes there is told by
 * the next status, and under the address sanitizer what reads or writes there ends the program where it happens.
 *
 * "guard:N" fails at its Nth operation, counted from 0, as a device fails: XKD_ERR_DEVICE, and from then on nothing is
 * computed. */
#ifndef XKD_BACKEND_GUARD_GUARD_H
#define XKD_BACKEND_GUARD_GUARD_H

#include "backend/backend.h"

typedef struct xkd_guard xkd_guard;

/* Turns `be`, of which context, type and element size are set, into a guard. `name`: "guard" or "guard:N". */
xkd_status xkd_guard_new(xkd_context *cx, xkd_backend *be, const char *name, int threads);
void xkd_guard_free(xkd_guard *guard);

/* The fault of a copy since the last call; clears it. */
xkd_status xkd_guard_fault(xkd_guard *guard);
/* Looks whether the red zones are as they were; a fault is one of a copy from then on. */
void xkd_guard_inspect(xkd_guard *guard);

/* The tables of operations. */
const xkd_ops *xkd_guard_ops(void);
const xkd_ops *xkd_guard_exact_ops(void);

/* For the operations: the readable address, NULL for NULL and for what is not the guard's; the latter is remembered. */
void *xkd_guard_open(xkd_backend *be, const void *address);
/* The backend that runs the operation, NULL where it must not run. */
xkd_backend *xkd_guard_enter(xkd_backend *be, const char *operation);
void xkd_guard_leave(xkd_backend *be);
/* Memory for a copy of a list; the same for every call. NULL: out of memory, which is remembered. */
void *xkd_guard_list(xkd_backend *be, int64_t bytes);

#endif
