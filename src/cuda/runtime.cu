/* A queue of work: memory, uploads, waiting, clocks; for a GPU and, below, for the simulator. What a newcomer would get wrong: nothing
 * here stops at a failure. The queue remembers the first one, everything after it does nothing, and finish() reports it. */
#include "cuda/queue.cuh"

#include <stdio.h>
#include <stdlib.h>

#if defined(__CUDACC__)

static bool ok(struct zq_queue *queue, cudaError_t error)
{
    if (error && !queue->error) queue->error = error;
    return !queue->error;
}

int zq_queue_open(struct zq_queue **out, int index, uint64_t seed, char *why, size_t n_why)
{
    (void)seed;
    int n = 0;
    *out = NULL;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error || !n) {
        snprintf(why, n_why, "no NVIDIA GPU can be used: %s", error ? cudaGetErrorString(error) : "none is installed");
        return 1;
    }
    if (index >= n) {
        snprintf(why, n_why, "there is no GPU %d, only %d", index, n);
        return 1;
    }
    struct zq_queue *queue = (struct zq_queue *)calloc(1, sizeof *queue);
    if (!queue) {
        snprintf(why, n_why, "no memory for a queue");
        return 1;
    }
    queue->index = index;
    error = cudaSetDevice(index);
    if (!error) error = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && !error; i++) error = cudaEventCreate(&queue->clock[i]);
    for (int i = 0; i < 2 && !error; i++) error = cudaEventCreateWithFlags(&queue->sent[i], cudaEventDisableTiming);
    if (error) {
        snprintf(why, n_why, "GPU %d cannot be used: %s", index, cudaGetErrorString(error));
        zq_queue_close(queue);
        return 1;
    }
    *out = queue;
    return 0;
}

void zq_queue_close(struct zq_queue *queue)
{
    if (!queue) return;
    if (queue->stream) cudaStreamSynchronize(queue->stream);
    zq_blas_close(queue);
    zq_queue_free(queue, queue->scratch.memory);
    for (int i = 0; i < 2; i++) {
        if (queue->clock[i]) cudaEventDestroy(queue->clock[i]);
        if (queue->sent[i]) cudaEventDestroy(queue->sent[i]);
        if (queue->pinned[i]) cudaFreeHost(queue->pinned[i]);
    }
    if (queue->stream) cudaStreamDestroy(queue->stream);
    free(queue);
}

uint64_t zq_queue_seed(const struct zq_queue *queue) { return (void)queue, 0; }

void zq_queue_describe(struct zq_queue *queue, char *text, size_t n)
{
    struct cudaDeviceProp p;
    int driver = 0, runtime = 0;
    if (cudaGetDeviceProperties(&p, queue->index) || cudaDriverGetVersion(&driver) || cudaRuntimeGetVersion(&runtime)) {
        snprintf(text, n, "GPU %d, which does not tell what it is", queue->index);
        return;
    }
    snprintf(text, n, "%s, compute capability %d.%d, %d multiprocessors, %zu MiB, %d MiB of L2, CUDA %d.%d (driver) %d.%d (built)",
             p.name, p.major, p.minor, p.multiProcessorCount, p.totalGlobalMem >> 20, p.l2CacheSize >> 20, driver / 1000, driver % 1000 / 10,
             runtime / 1000, runtime % 1000 / 10);
}

void *zq_queue_alloc(struct zq_queue *queue, size_t n)
{
    void *p = NULL;
    if (cudaSetDevice(queue->index) || cudaMalloc(&p, n ? n : 1)) {
        cudaGetLastError(); /* else the next launch would report it */
        return NULL;
    }
    return p;
}

void zq_queue_free(struct zq_queue *queue, void *p) { (void)queue, cudaFree(p); }
static void fail_memory(struct zq_queue *queue) { ok(queue, cudaErrorMemoryAllocation); }

/* Through two page-locked buffers by turns: the card fetches one while this processor fills the other, and the caller gets its memory
 * back when the last part has been copied, not when it has been fetched. So packing a matrix overlaps with sending the one before. */
void zq_queue_upload(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    const char *source = (const char *)from;
    if (!ok(queue, cudaSetDevice(queue->index))) return;
    for (int i = 0; i < 2; i++)
        if (!queue->pinned[i] && !ok(queue, cudaMallocHost(&queue->pinned[i], ZQ_PINNED_BYTES))) return;
    for (size_t at = 0, part; at < n; at += part) {
        const int turn = queue->turn ^= 1;
        part = n - at < ZQ_PINNED_BYTES ? n - at : (size_t)ZQ_PINNED_BYTES;
        if (!ok(queue, cudaEventSynchronize(queue->sent[turn]))) return; /* an event that was never recorded is over */
        memcpy(queue->pinned[turn], source + at, part);
        ok(queue, cudaMemcpyAsync((char *)to + at, queue->pinned[turn], part, cudaMemcpyHostToDevice, queue->stream));
        if (!ok(queue, cudaEventRecord(queue->sent[turn], queue->stream))) return;
    }
}

void zq_queue_download(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    if (!n || !ok(queue, cudaSetDevice(queue->index))) return;
    ok(queue, cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToHost, queue->stream));
    ok(queue, cudaStreamSynchronize(queue->stream));
}

void zq_queue_copy(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    if (n && ok(queue, cudaSetDevice(queue->index))) ok(queue, cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice, queue->stream));
}

void zq_queue_clear(struct zq_queue *queue, void *to, size_t n)
{
    if (n && ok(queue, cudaSetDevice(queue->index))) ok(queue, cudaMemsetAsync(to, 0, n, queue->stream));
}

const char *zq_queue_finish(struct zq_queue *queue)
{
    ok(queue, cudaStreamSynchronize(queue->stream));
    if (!queue->error) return NULL;
    snprintf(queue->sentence, sizeof queue->sentence, "GPU %d: %s%s", queue->index, queue->culprit ? queue->culprit : "",
             cudaGetErrorString(queue->error));
    return queue->sentence;
}

void zq_queue_start_clock(struct zq_queue *queue) { ok(queue, cudaEventRecord(queue->clock[0], queue->stream)); }

double zq_queue_read_clock(struct zq_queue *queue)
{
    float ms = 0;
    ok(queue, cudaEventRecord(queue->clock[1], queue->stream));
    ok(queue, cudaEventSynchronize(queue->clock[1]));
    return ok(queue, cudaEventElapsedTime(&ms, queue->clock[0], queue->clock[1])) ? ms : 0;
}

struct zq_graph {
    cudaGraphExec_t exec;
};

void zq_queue_begin_graph(struct zq_queue *queue)
{
    queue->recording = ok(queue, cudaSetDevice(queue->index)) && !cudaStreamBeginCapture(queue->stream, cudaStreamCaptureModeThreadLocal);
}

/* A launch that failed while recording says nothing about the queue: recording is given up, and the error with it. */
struct zq_graph *zq_queue_end_graph(struct zq_queue *queue)
{
    cudaGraph_t recorded = NULL;
    if (!queue->recording) return NULL;
    queue->recording = false;
    struct zq_graph *graph = (struct zq_graph *)calloc(1, sizeof *graph);
    const bool right = !cudaStreamEndCapture(queue->stream, &recorded) && recorded && !queue->error && graph &&
                       !cudaGraphInstantiate(&graph->exec, recorded, 0);
    if (recorded) cudaGraphDestroy(recorded);
    if (right) return graph;
    cudaGetLastError();
    queue->error = cudaSuccess;
    free(graph);
    return NULL;
}

void zq_queue_run_graph(struct zq_queue *queue, struct zq_graph *graph)
{
    if (!queue->error) ok(queue, cudaGraphLaunch(graph->exec, queue->stream));
}

void zq_graph_free(struct zq_graph *graph)
{
    if (!graph) return;
    cudaGraphExecDestroy(graph->exec);
    free(graph);
}

#else

int zq_queue_open(struct zq_queue **out, int index, uint64_t seed, char *why, size_t n_why)
{
    *out = NULL;
    struct zq_queue *queue = (struct zq_queue *)calloc(1, sizeof *queue);
    if (index == 0 && queue && (queue->device = sim_create(seed))) {
        *out = queue;
        return 0;
    }
    snprintf(why, n_why, index ? "there is one simulated device, number 0" : "no memory for a simulated device");
    free(queue);
    return 1;
}

void zq_queue_close(struct zq_queue *queue)
{
    if (!queue) return;
    zq_queue_free(queue, queue->scratch.memory);
    sim_destroy(queue->device);
    free(queue);
}

uint64_t zq_queue_seed(const struct zq_queue *queue) { return sim_seed(queue->device); }
void zq_queue_describe(struct zq_queue *queue, char *text, size_t n) { (void)queue, snprintf(text, n, "a simulated GPU on this processor"); }
void *zq_queue_alloc(struct zq_queue *queue, size_t n) { return (void)queue, aligned_alloc(256, (n + 256) / 256 * 256); }
void zq_queue_free(struct zq_queue *queue, void *p) { (void)queue, free(p); }
static void fail_memory(struct zq_queue *queue) { sim_fail(queue->device, "no memory"); }

/* A graph is the list of what was launched, each with a copy of its arguments. */
struct zq_graph {
    struct zq_recorded *first, **end;
    bool failed;
};
struct zq_recorded {
    struct zq_recorded *next;
    unsigned grid_x, grid_y, n_threads;
    void (*body)(const void *args); /* its arguments follow this struct */
};

static void run_launched(struct zq_queue *queue, unsigned grid_x, unsigned grid_y, unsigned n_threads, void (*body)(const void *), const void *args)
{
    if (n_threads) sim_launch(queue->device, grid_x, grid_y, n_threads, body, args);
    else if (!sim_error(queue->device)) body(args);
}

void zq_queue_launch(struct zq_queue *queue, unsigned grid_x, unsigned grid_y, unsigned n_threads, void (*body)(const void *), const void *args,
                     size_t n_args)
{
    struct zq_graph *graph = queue->recording;
    if (!graph) {
        run_launched(queue, grid_x, grid_y, n_threads, body, args);
        return;
    }
    struct zq_recorded *r = (struct zq_recorded *)malloc(sizeof *r + n_args);
    if (!r) {
        graph->failed = true;
        return;
    }
    r->next = NULL;
    r->grid_x = grid_x, r->grid_y = grid_y, r->n_threads = n_threads, r->body = body;
    memcpy(r + 1, args, n_args);
    *graph->end = r;
    graph->end = &r->next;
}

void zq_queue_begin_graph(struct zq_queue *queue)
{
    queue->recording = (struct zq_graph *)calloc(1, sizeof *queue->recording);
    if (queue->recording) queue->recording->end = &queue->recording->first;
}

struct zq_graph *zq_queue_end_graph(struct zq_queue *queue)
{
    struct zq_graph *graph = queue->recording;
    queue->recording = NULL;
    if (!graph || !graph->failed) return graph;
    zq_graph_free(graph);
    return NULL;
}

void zq_queue_run_graph(struct zq_queue *queue, struct zq_graph *graph)
{
    for (const struct zq_recorded *r = graph->first; r; r = r->next) run_launched(queue, r->grid_x, r->grid_y, r->n_threads, r->body, r + 1);
}

void zq_graph_free(struct zq_graph *graph)
{
    if (!graph) return;
    for (struct zq_recorded *r = graph->first, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    free(graph);
}

struct copied {
    void *to;
    const void *from;
    size_t n;
};
static void run_copied(const void *p) { memcpy(((const struct copied *)p)->to, ((const struct copied *)p)->from, ((const struct copied *)p)->n); }

void zq_queue_copy(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    const struct copied c = {to, from, n};
    if (n) zq_queue_launch(queue, 0, 0, 0, run_copied, &c, sizeof c);
}

struct cleared {
    void *to;
    size_t n;
};
static void run_cleared(const void *p) { memset(((const cleared *)p)->to, 0, ((const cleared *)p)->n); }

void zq_queue_clear(struct zq_queue *queue, void *to, size_t n)
{
    const struct cleared c = {to, n};
    if (n) zq_queue_launch(queue, 0, 0, 0, run_cleared, &c, sizeof c);
}

void zq_queue_upload(struct zq_queue *queue, void *to, const void *from, size_t n)
{
    (void)queue;
    if (n) memcpy(to, from, n);
}
void zq_queue_download(struct zq_queue *queue, void *to, const void *from, size_t n) { zq_queue_upload(queue, to, from, n); }

const char *zq_queue_finish(struct zq_queue *queue) { return sim_error(queue->device); }
void zq_queue_start_clock(struct zq_queue *queue) { (void)queue; }
double zq_queue_read_clock(struct zq_queue *queue) { return (void)queue, 0; }

#endif

/* Freeing waits for what may still be read. */
void *zq_queue_scratch(struct zq_queue *queue, size_t n_bytes)
{
    struct zq_scratch *s = &queue->scratch;
    if (s->n_bytes >= n_bytes) return s->memory;
    zq_queue_free(queue, s->memory);
    s->memory = zq_queue_alloc(queue, n_bytes);
    s->n_bytes = s->memory ? n_bytes : 0;
    if (!s->memory) fail_memory(queue);
    return s->memory;
}
