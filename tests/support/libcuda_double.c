/* A driver of CUDA for hosts without one, so that the real Python bindings run: its GPU's memory is the host's, and work
 * is done when it is queued. It knows what engines.cuda calls; all other functions of the bindings answer "not supported".
 * Declared by hand, not by cuda.h: the layouts are those of CUDA 12's driver API. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_SUPPORTED = 801, CAPTURE = 900 };
enum { H2D, D2H, ROWS };
typedef int Result;
typedef uint64_t Address;

typedef struct {
    size_t x, y; int kind; const void *host; Address device; void *array; size_t pitch;
} Side;
typedef struct { Side from, to; size_t width, height; } Rows;
typedef struct { int kind; void *to; const void *from; size_t size; Rows rows; } Work;
typedef struct { Work work[64]; int count; } Graph;
typedef struct { Graph *capture; } Stream;

static __thread int pushed;
static int context_mark, held;
static Stream default_stream;

#define NEED_CONTEXT if (!pushed) return INVALID_CONTEXT

Result cuInit(unsigned flags) { return getenv("LIBCUDA_DOUBLE_NO_DEVICE") ? NO_DEVICE : flags ? INVALID : OK; }
Result cuDriverGetVersion(int *version) { *version = 12060; return OK; }
Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? INVALID : OK; }
Result cuDeviceGetCount(int *count) { *count = 1; return OK; }
Result cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, length, "NVIDIA Double"); return OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? getenv("LIBCUDA_DOUBLE_INTEGRATED") != NULL : 1;
    return OK;
}
Result cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; *major = 8; *minor = 7; return OK; }
Result cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &context_mark; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return OK; }
Result cuCtxPushCurrent_v2(void *context) { if (context != &context_mark) return INVALID; pushed++; return OK; }
Result cuCtxPopCurrent_v2(void **context) { NEED_CONTEXT; pushed--; if (context) *context = &context_mark; return OK; }
Result cuCtxGetCurrent(void **context) { *context = pushed ? &context_mark : NULL; return OK; }
Result cuCtxSetCurrent(void *context) { pushed = context != NULL; return OK; }
Result cuCtxGetDevice(int *device) { NEED_CONTEXT; *device = 0; return OK; }
Result cuCtxGetApiVersion(void *context, unsigned *version) { (void)context; *version = 3020; return OK; }
Result cuCtxSynchronize(void) { NEED_CONTEXT; return OK; }
Result cuCtxDetach(void *context) { (void)context; return OK; }
Result cuMemGetInfo_v2(size_t *free, size_t *total) { NEED_CONTEXT; *free = 3u << 30; *total = 1ull << 32; return OK; }

static Result take(void **memory, size_t size) {
    NEED_CONTEXT;
    if (size > 1ull << 32 || posix_memalign(memory, 512, size + 1)) return OUT_OF_MEMORY;
    memset(*memory, 0xA5, size);
    held++;
    return OK;
}
static Result give(void *memory) { NEED_CONTEXT; free(memory); held--; return OK; }
Result cuMemAlloc_v2(Address *address, size_t size) { return take((void **)address, size); }
Result cuMemFree_v2(Address address) { return give((void *)address); }
Result cuMemHostAlloc(void **memory, size_t size, unsigned flags) { (void)flags; return take(memory, size); }
Result cuMemFreeHost(void *memory) { return give(memory); }
Result cuMemHostGetDevicePointer_v2(Address *address, void *memory, unsigned flags) {
    NEED_CONTEXT; *address = (Address)memory; return flags ? INVALID : OK;
}

static Result created(void **handle, size_t size) { NEED_CONTEXT; *handle = calloc(1, size); held++; return OK; }
Result cuStreamCreate(void **stream, unsigned flags) { return flags > 1 ? INVALID : created(stream, sizeof(Stream)); }
Result cuStreamSynchronize(Stream *stream) { NEED_CONTEXT; return stream->capture ? CAPTURE : OK; }
Result cuStreamDestroy_v2(Stream *stream) { return give(stream); }
Result cuStreamQuery(Stream *stream) { (void)stream; return OK; }

static void rows(const Rows *rows) {
    for (size_t row = 0; row < rows->height; row++)
        memcpy((char *)rows->to.device + row * rows->to.pitch, (char *)rows->from.device + row * rows->from.pitch, rows->width);
}
static void do_work(const Work *work) {
    if (work->kind == ROWS) rows(&work->rows); else memcpy(work->to, work->from, work->size);
}
static Result queue(Stream *stream, Work work) {
    NEED_CONTEXT;
    if ((uintptr_t)stream <= 2) stream = &default_stream;
    if (stream->capture) stream->capture->work[stream->capture->count++] = work; else do_work(&work);
    return OK;
}
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, Stream *stream) {
    return queue(stream, (Work){.kind = H2D, .to = (void *)to, .from = from, .size = size});
}
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, Stream *stream) {
    return queue(stream, (Work){.kind = D2H, .to = to, .from = (void *)from, .size = size});
}
Result cuMemcpyHtoD_v2(Address to, const void *from, size_t size) {
    return queue(NULL, (Work){.kind = H2D, .to = (void *)to, .from = from, .size = size});
}
Result cuMemcpyDtoH_v2(void *to, Address from, size_t size) {
    return queue(NULL, (Work){.kind = D2H, .to = to, .from = (void *)from, .size = size});
}
Result cuMemcpy2DAsync_v2(const Rows *copy, Stream *stream) {
    if (copy->from.kind != 2 || copy->to.kind != 2 || copy->from.pitch < copy->width) return INVALID;
    return queue(stream, (Work){.kind = ROWS, .rows = *copy});
}

Result cuEventCreate(void **event, unsigned flags) { (void)flags; return created(event, 8); }
Result cuEventRecord(int *event, void *stream) { NEED_CONTEXT; (void)stream; *event += 1; return OK; }
Result cuEventSynchronize(void *event) { (void)event; return OK; }
Result cuEventQuery(void *event) { (void)event; return OK; }
Result cuEventElapsedTime(float *ms, int *start, int *end) { *ms = 1.5f; return *start && *end ? OK : 400; }
Result cuEventElapsedTime_v2(float *ms, int *start, int *end) { return cuEventElapsedTime(ms, start, end); }
Result cuEventDestroy_v2(void *event) { return give(event); }
Result cuStreamWaitEvent(void *stream, int *event, unsigned flags) { (void)stream; return *event && !flags ? OK : INVALID; }

Result cuStreamBeginCapture_v2(Stream *stream, int mode) {
    if (stream->capture || mode != 1) return INVALID;
    return created((void **)&stream->capture, sizeof(Graph));
}
Result cuStreamEndCapture(Stream *stream, Graph **graph) {
    if (!stream->capture) return INVALID;
    *graph = stream->capture; stream->capture = NULL;
    return OK;
}
Result cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
    Result result = flags ? INVALID : created((void **)executable, sizeof(Graph));
    if (result == OK) **executable = *graph;
    return result;
}
Result cuGraphDestroy(Graph *graph) { return give(graph); }
Result cuGraphExecDestroy(Graph *graph) { return give(graph); }
Result cuGraphLaunch(Graph *graph, Stream *stream) {
    NEED_CONTEXT;
    for (int i = 0; i < graph->count; i++) queue(stream, graph->work[i]);
    return OK;
}

Result cuGetErrorName(Result result, const char **name) {
    *name = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : result == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE"
        : result == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : result == INVALID ? "CUDA_ERROR_INVALID_VALUE"
        : result == NOT_SUPPORTED ? "CUDA_ERROR_NOT_SUPPORTED" : "CUDA_ERROR_OTHER";
    return OK;
}
Result cuGetErrorString(Result result, const char **text) {
    *text = result == OUT_OF_MEMORY ? "out of memory" : result == INVALID ? "invalid argument" : "refused by the double";
    return OK;
}
int libcuda_double_held(void) { return held; }

static Result not_supported(void) { return NOT_SUPPORTED; }

/* NVIDIA's bindings find every function through this one, by the name without its version. */
Result cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    static const char *const endings[] = {"", "_v2", "WithFlags"};
    char name[256];
    (void)version; (void)flags;
    *function = (void *)not_supported;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, endings[i]);
        void *found = dlsym(RTLD_DEFAULT, name);
        if (found) { *function = found; break; }
    }
    if (status) *status = 0;
    return OK;
}
