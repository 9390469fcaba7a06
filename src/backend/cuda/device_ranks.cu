/* NCCL under the names of device.h. It is loaded when somebody asks for it: a machine with one GPU need not have it.
 *
 * Communicators are of the kind that does not block: a call that has to wait for other ranks says that it is in progress, and can be
 * aborted. So a rank that dies or fails while the others connect to it does not leave them in a call of NCCL's. */
#include "device.h"

#include <string.h>

#if __has_include(<nccl.h>)
#include <dlfcn.h>
#include <nccl.h>

struct dev_ranks_state {
    ncclComm_t link;
};

/* All of NCCL that is used. */
static struct {
    bool looked, found;
    decltype(&ncclGetVersion) version;
    decltype(&ncclGetErrorString) text;
    decltype(&ncclGetUniqueId) name;
    decltype(&ncclCommInitRankConfig) meet;
    decltype(&ncclCommAbort) leave;
    decltype(&ncclCommGetAsyncError) fault;
    decltype(&ncclGroupStart) begin;
    decltype(&ncclGroupEnd) end;
    decltype(&ncclSend) send;
    decltype(&ncclRecv) receive;
} nccl;

template <class F> static bool find(void *library, const char *symbol, F *out)
{
    *out = (F)dlsym(library, symbol);
    return *out != NULL;
}

/* The library stays: what came from it may be in use until the process ends. */
static bool load(void)
{
    if (nccl.looked) return nccl.found;
    nccl.looked = true;
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    nccl.found = library && find(library, "ncclGetVersion", &nccl.version) &&
                 find(library, "ncclGetErrorString", &nccl.text) && find(library, "ncclGetUniqueId", &nccl.name) &&
                 find(library, "ncclCommInitRankConfig", &nccl.meet) && find(library, "ncclCommAbort", &nccl.leave) &&
                 find(library, "ncclCommGetAsyncError", &nccl.fault) && find(library, "ncclGroupStart", &nccl.begin) &&
                 find(library, "ncclGroupEnd", &nccl.end) && find(library, "ncclSend", &nccl.send) &&
                 find(library, "ncclRecv", &nccl.receive);
    return nccl.found;
}

static int failed(ncclResult_t result)
{
    return result == ncclSuccess || result == ncclInProgress ? 0 : DEV_RANKS_ERRORS + (int)result;
}

const char *dev_ranks_error_text(int error)
{
    return load() ? nccl.text((ncclResult_t)(error - DEV_RANKS_ERRORS)) : "NCCL is not here";
}

/* NCCL says major * 10000 + minor * 100 + patch. */
int dev_ranks_version(void)
{
    int version = 0;
    if (!load() || nccl.version(&version) != ncclSuccess) return 0;
    return version / 10000 * 1000 + version / 100 % 100 * 10;
}

int dev_ranks_name(char name[DEV_RANKS_NAME])
{
    ncclUniqueId id;
    static_assert(sizeof id == DEV_RANKS_NAME, "the name of a meeting is NCCL's");
    int error = load() ? failed(nccl.name(&id)) : DEV_RANKS_ERRORS + (int)ncclSystemError;
    if (!error) memcpy(name, &id, sizeof id);
    return error;
}

int dev_ranks_meet(dev_ranks *out, const char name[DEV_RANKS_NAME], int rank, int size)
{
    ncclUniqueId id;
    memcpy(&id, name, sizeof id);
    *out = NULL;
    if (!load()) return DEV_RANKS_ERRORS + (int)ncclSystemError;
    dev_ranks ranks = new dev_ranks_state();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    int error = failed(nccl.meet(&ranks->link, size, id, rank, &config));
    if (error)
        delete ranks;
    else
        *out = ranks;
    return error;
}

int dev_ranks_ready(dev_ranks ranks, bool *ready)
{
    ncclResult_t state = ncclSuccess;
    int error = failed(nccl.fault(ranks->link, &state));
    *ready = state != ncclInProgress;
    return error ? error : failed(state);
}

/* A destroy would wait for ranks that may be lost. */
int dev_ranks_leave(dev_ranks ranks)
{
    if (!ranks) return 0;
    int error = failed(nccl.leave(ranks->link));
    delete ranks;
    return error;
}

int dev_exchange_begin(dev_ranks)
{
    return failed(nccl.begin());
}

int dev_send(dev_ranks ranks, const void *from, size_t bytes, int to, dev_stream stream)
{
    return failed(nccl.send(from, bytes, ncclUint8, to, ranks->link, (cudaStream_t)stream));
}

int dev_receive(dev_ranks ranks, void *to, size_t bytes, int from, dev_stream stream)
{
    return failed(nccl.receive(to, bytes, ncclUint8, from, ranks->link, (cudaStream_t)stream));
}

int dev_exchange_end(dev_ranks)
{
    return failed(nccl.end());
}

#else

/* Built without NCCL's header: there is none. */
const char *dev_ranks_error_text(int)
{
    return "built without NCCL";
}

int dev_ranks_version(void)
{
    return 0;
}

int dev_ranks_name(char *)
{
    return DEV_RANKS_ERRORS;
}

int dev_ranks_meet(dev_ranks *out, const char *, int, int)
{
    *out = NULL;
    return DEV_RANKS_ERRORS;
}

int dev_ranks_leave(dev_ranks)
{
    return 0;
}

int dev_ranks_ready(dev_ranks, bool *)
{
    return DEV_RANKS_ERRORS;
}

int dev_exchange_begin(dev_ranks)
{
    return DEV_RANKS_ERRORS;
}

int dev_send(dev_ranks, const void *, size_t, int, dev_stream)
{
    return DEV_RANKS_ERRORS;
}

int dev_receive(dev_ranks, void *, size_t, int, dev_stream)
{
    return DEV_RANKS_ERRORS;
}

int dev_exchange_end(dev_ranks)
{
    return DEV_RANKS_ERRORS;
}
#endif
