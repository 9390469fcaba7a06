/* CUDA's runtime and cuBLASLt under the names of device.h. */
#include "device.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Errors of cuBLAS stand behind those of the runtime. */
enum { GEMM_ERRORS = 100000 };

const char *dev_error_text(int error)
{
    if (error >= DEV_RANKS_ERRORS) return dev_ranks_error_text(error);
    if (error >= GEMM_ERRORS) return cublasLtGetStatusString((cublasStatus_t)(error - GEMM_ERRORS));
    return cudaGetErrorString((cudaError_t)error);
}

bool dev_error_is_memory(int error)
{
    return error == cudaErrorMemoryAllocation || error == GEMM_ERRORS + CUBLAS_STATUS_ALLOC_FAILED;
}

int dev_driver_version(void)
{
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int dev_runtime_version(void)
{
    int version = 0;
    return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

/* cuBLASLt says major * 10000 + minor * 100 + patch. */
int dev_gemm_version(void)
{
    int version = (int)cublasLtGetVersion();
    return version / 10000 * 1000 + version / 100 % 100 * 10;
}

int dev_count(int *count)
{
    *count = 0;
    return cudaGetDeviceCount(count);
}

int dev_describe(int device, dev_properties *out)
{
    cudaDeviceProp p;
    int error = cudaGetDeviceProperties(&p, device);
    if (error) return error;
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->memory = p.totalGlobalMem;
    out->processors = p.multiProcessorCount;
    return cudaDeviceGetPCIBusId(out->bus, sizeof out->bus, device);
}

/* Any kernel tells: all are built for the same architectures. */
static __global__ void nothing(void)
{
}

int dev_has_kernels(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, (const void *)nothing);
}

int dev_use(int device)
{
    return cudaSetDevice(device);
}

int dev_take(void **out, size_t bytes)
{
    return cudaMalloc(out, bytes);
}

int dev_give(void *block)
{
    return cudaFree(block);
}

/* compute-sanitizer looks after what is beyond a block; pieces within one are the simulation's to watch. */
size_t dev_red_zone(void)
{
    return 0;
}

int dev_fence(void *, size_t, dev_stream)
{
    return cudaErrorNotSupported;
}

int dev_take_pinned(void **out_host, size_t bytes)
{
    return cudaMallocHost(out_host, bytes);
}

int dev_give_pinned(void *host)
{
    return cudaFreeHost(host);
}

/* The handles are CUDA's own pointers. */
static cudaStream_t of(dev_stream stream)
{
    return (cudaStream_t)stream;
}

int dev_stream_new(dev_stream *out)
{
    return cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking);
}

int dev_stream_free(dev_stream stream)
{
    return cudaStreamDestroy(of(stream));
}

int dev_stream_wait(dev_stream stream)
{
    return cudaStreamSynchronize(of(stream));
}

int dev_event_new(dev_event *out)
{
    return cudaEventCreateWithFlags((cudaEvent_t *)out, cudaEventDisableTiming);
}

int dev_event_free(dev_event event)
{
    return cudaEventDestroy((cudaEvent_t)event);
}

int dev_event_record(dev_event event, dev_stream stream)
{
    return cudaEventRecord((cudaEvent_t)event, of(stream));
}

int dev_event_wait(dev_event event)
{
    return cudaEventSynchronize((cudaEvent_t)event);
}

int dev_event_done(dev_event event, bool *done)
{
    cudaError_t error = cudaEventQuery((cudaEvent_t)event);
    *done = error == cudaSuccess;
    return error == cudaErrorNotReady ? 0 : error;
}

int dev_stream_after(dev_stream stream, dev_event event)
{
    return cudaStreamWaitEvent(of(stream), (cudaEvent_t)event, 0);
}

int dev_zero(void *to, size_t bytes, dev_stream stream)
{
    return cudaMemsetAsync(to, 0, bytes, of(stream));
}

int dev_copy(void *to, const void *from, size_t bytes, dev_stream stream)
{
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, of(stream));
}

int dev_upload(void *to, const void *host, size_t bytes, dev_stream stream)
{
    return cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, of(stream));
}

int dev_download(void *host, const void *from, size_t bytes, dev_stream stream)
{
    return cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, of(stream));
}

int dev_capture_begin(dev_stream stream)
{
    return cudaStreamBeginCapture(of(stream), cudaStreamCaptureModeThreadLocal);
}

int dev_capture_end(dev_stream stream, dev_graph *out)
{
    cudaGraph_t graph = NULL;
    int error = cudaStreamEndCapture(of(stream), &graph);
    if (!error) error = cudaGraphInstantiate((cudaGraphExec_t *)out, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    return error;
}

int dev_graph_launch(dev_graph graph, dev_stream stream)
{
    return cudaGraphLaunch((cudaGraphExec_t)graph, of(stream));
}

int dev_graph_free(dev_graph graph)
{
    return cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

int dev_launch_kernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, dev_stream stream)
{
    return cudaLaunchKernel(kernel, grid, block, args, shared, of(stream));
}

int dev_allow_shared(const void *kernel, size_t bytes)
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

/* ---- products ---- */

/* The workspace has one size, so that the choice of an algorithm, and with it the bits of a product, do not depend on what
 * memory is free. NVIDIA recommends 32 MiB for its newer architectures. */
enum { WORKSPACE = 32 << 20, SHAPES = 1024 };

/* What the choice of an algorithm depends on. */
struct shape_key {
    int64_t M, N, K;
    int a_km, b_nk, in, out, has_c, has_bias, tf32;
    unsigned alignment[5]; /* of a, b, c, y, bias: bytes, 256 at most */
};

struct shape_choice {
    shape_key key;
    bool used;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t a, b, y;
    cublasLtMatmulAlgo_t algorithm;
};

struct dev_gemm_state {
    cublasLtHandle_t handle;
    void *workspace;
    shape_choice choice[SHAPES];
};

static int failed(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? 0 : GEMM_ERRORS + (int)status;
}

int dev_gemm_new(dev_gemm *out)
{
    dev_gemm gemm = (dev_gemm)calloc(1, sizeof *gemm);
    *out = NULL;
    if (!gemm) return cudaErrorMemoryAllocation;
    int error = failed(cublasLtCreate(&gemm->handle));
    if (!error) error = cudaMalloc(&gemm->workspace, WORKSPACE);
    if (error)
        dev_gemm_free(gemm);
    else
        *out = gemm;
    return error;
}

static void release(shape_choice *c)
{
    if (c->description) cublasLtMatmulDescDestroy(c->description);
    if (c->a) cublasLtMatrixLayoutDestroy(c->a);
    if (c->b) cublasLtMatrixLayoutDestroy(c->b);
    if (c->y) cublasLtMatrixLayoutDestroy(c->y);
    *c = shape_choice();
}

int dev_gemm_free(dev_gemm gemm)
{
    if (!gemm) return 0;
    for (int i = 0; i < SHAPES; i++) release(&gemm->choice[i]);
    if (gemm->workspace) cudaFree(gemm->workspace);
    if (gemm->handle) cublasLtDestroy(gemm->handle);
    free(gemm);
    return 0;
}

static unsigned alignment_of(const void *pointer)
{
    uintptr_t bits = (uintptr_t)pointer | 256;
    return (unsigned)(bits & -bits);
}

static cudaDataType type_of(int type)
{
    return type == DEV_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* cuBLASLt's matrices are stored by columns, so it is asked for y^T [N,M] = b^T a^T: its first operand is our second. */
static int describe(shape_choice *c)
{
    const shape_key *k = &c->key;
    cublasComputeType_t compute = k->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasOperation_t of_b = k->b_nk ? CUBLAS_OP_T : CUBLAS_OP_N, of_a = k->a_km ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = k->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cudaDataType bias = type_of(k->out);
    int error = failed(cublasLtMatmulDescCreate(&c->description, compute, CUDA_R_32F));
    const struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t size;
    } list[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &of_b, sizeof of_b},
                {CUBLASLT_MATMUL_DESC_TRANSB, &of_a, sizeof of_a},
                {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue},
                {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias, sizeof bias}};
    for (size_t i = 0; !error && i < sizeof list / sizeof *list; i++)
        error = failed(cublasLtMatmulDescSetAttribute(c->description, list[i].name, list[i].value, list[i].size));
    uint64_t b_rows = (uint64_t)(k->b_nk ? k->K : k->N), b_columns = (uint64_t)(k->b_nk ? k->N : k->K);
    uint64_t a_rows = (uint64_t)(k->a_km ? k->M : k->K), a_columns = (uint64_t)(k->a_km ? k->K : k->M);
    cudaDataType in = type_of(k->in);
    if (!error) error = failed(cublasLtMatrixLayoutCreate(&c->b, in, b_rows, b_columns, (int64_t)b_rows));
    if (!error) error = failed(cublasLtMatrixLayoutCreate(&c->a, in, a_rows, a_columns, (int64_t)a_rows));
    if (!error) error = failed(cublasLtMatrixLayoutCreate(&c->y, bias, (uint64_t)k->N, (uint64_t)k->M, k->N));
    return error;
}

/* The first algorithm of the heuristic, which does not measure: the same shape gets the same one in every run. Sums that are
 * split are put together in float32. */
static int choose(dev_gemm gemm, shape_choice *c)
{
    const unsigned *align = c->key.alignment;
    uint64_t workspace = WORKSPACE;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0, error = failed(cublasLtMatmulPreferenceCreate(&wish));
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } list[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[1], sizeof *align},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[0], sizeof *align},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof *align},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[3], sizeof *align}};
    for (size_t i = 0; !error && i < sizeof list / sizeof *list; i++)
        error = failed(cublasLtMatmulPreferenceSetAttribute(wish, list[i].name, list[i].value, list[i].size));
    if (!error)
        error = failed(cublasLtMatmulAlgoGetHeuristic(gemm->handle, c->description, c->b, c->a, c->y, c->y, wish, 1,
                                                      &found, &count));
    if (!error && count == 0) error = GEMM_ERRORS + CUBLAS_STATUS_NOT_SUPPORTED;
    if (!error) c->algorithm = found.algo;
    if (wish) cublasLtMatmulPreferenceDestroy(wish);
    return error;
}

/* The choice for a shape: made once and then looked up. The table has room for far more shapes than a run has; a full one
 * begins anew. */
static int find(dev_gemm gemm, const shape_key *key, shape_choice **out)
{
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    shape_choice *c = NULL;
    for (int i = 0; i < SHAPES; i++) {
        c = &gemm->choice[(hash + (uint64_t)i) % SHAPES];
        if (!c->used || memcmp(&c->key, key, sizeof *key) == 0) break;
    }
    *out = c;
    if (c->used && memcmp(&c->key, key, sizeof *key) == 0) return 0;
    release(c);
    c->key = *key;
    int error = describe(c);
    if (!error) error = choose(gemm, c);
    c->used = !error;
    if (error) release(c);
    return error;
}

int dev_multiply(dev_gemm gemm, const dev_product *p, dev_stream stream)
{
    const float one = 1, beta = p->c ? 1 : 0;
    shape_key key;
    shape_choice *c = NULL;
    memset(&key, 0, sizeof key); /* the gaps between its fields are compared too */
    key.M = p->M;
    key.N = p->N;
    key.K = p->K;
    key.a_km = p->a_stored_km;
    key.b_nk = p->b_stored_nk;
    key.in = p->in;
    key.out = p->out;
    key.has_c = p->c != NULL;
    key.has_bias = p->bias != NULL;
    key.tf32 = p->tf32;
    const void *const pointers[] = {p->a, p->b, p->c ? p->c : p->y, p->y, p->bias};
    for (int i = 0; i < 5; i++) key.alignment[i] = alignment_of(pointers[i]);
    int error = find(gemm, &key, &c);
    if (!error && p->bias)
        error = failed(cublasLtMatmulDescSetAttribute(c->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias,
                                                      sizeof p->bias));
    if (error) return error;
    return failed(cublasLtMatmul(gemm->handle, c->description, &one, p->b, c->b, p->a, c->a, &beta, p->c ? p->c : p->y,
                                 c->y, p->y, c->y, &c->algorithm, gemm->workspace, WORKSPACE, of(stream)));
}
