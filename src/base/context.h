/* Internal side of a context: the account of allocations, which tests use to count them and to make one fail. */
#ifndef XKD_BASE_CONTEXT_H
#define XKD_BASE_CONTEXT_H

#include <stdatomic.h>
#include <stdint.h>
#include <xkd/context.h>

typedef struct {
    _Atomic int64_t count;   /* allocations so far */
    _Atomic int64_t fail_at; /* the allocation with this number fails, and all after it; -1: none */
} xkd_account;

xkd_account *xkd_context_account(xkd_context *cx);

#endif
