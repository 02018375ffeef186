/* shim.cpp - inside of the stand-ins: fibers, memory, products. */
#include "executor/cuda/cublas.cuh"
#include <cuda_bf16.h>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;
bool shim_reversed;
shim_counters shim_counts;

/* -- threads of a block ------------------------------------------------------------------------------------------- */

enum { MAX_THREADS = 1024, STACK_BYTES = 64 << 10 };
enum state { READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
  void *stack_pointer; /* where it goes on */
  state at;
  int operation; /* which warp operation it waits in, with what, and what is then to be done for all lanes */
  void *lane;
  void (*all)(void *const lanes[32]);
  uint64_t value;
};

static fiber fibers[MAX_THREADS];
static char *stacks;
static void *scheduler; /* its stack pointer while a fiber runs */
static int n_threads, running;
static size_t shared_bytes; /* that the launch asked for */
static char *shared_memory; /* exactly as many, so that the sanitizer sees what goes beyond */
static const std::function<void()> *thread_body;

[[noreturn]] static void broken(const char *what) {
  fprintf(stderr, "block %u,%u thread %d: %s\n", blockIdx.x, blockIdx.y, running, what);
  abort();
}

/* Leaves the registers that a callee keeps on the stack, whose pointer goes to *save, and takes up another stack. The
 * library's own switch would ask the kernel for signal masks twice, and clear shadow memory, at every barrier. */
extern "C" void shim_switch(void **save, void *to);
#if defined(__x86_64__)
enum { SAVED_WORDS = 6 };
asm(".text\n.globl shim_switch\n.type shim_switch, @function\nshim_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
#else
#error "the stand-ins change stacks on x86-64 only"
#endif

/* Without a frame of its own that the sanitizer would mark: the stack serves the next block. */
__attribute__((no_sanitize("address", "undefined"))) static void start(void) {
  (*thread_body)();
  fibers[running].at = DONE;
  shim_switch(&fibers[running].stack_pointer, scheduler);
}

static void wait_in(state at, int operation) {
  fiber *me = &fibers[running];
  me->at = at;
  me->operation = operation;
  shim_switch(&me->stack_pointer, scheduler);
}

static void block_barrier(void) { wait_in(AT_BLOCK, 0); }

/* Lets a warp go whose lanes all came to one operation, which is done for all of them at once.
 *  @return : false when it does not wait in any. */
static bool release_warp(int first) {
  int waiting = 0;
  for (int i = first; i < first + 32; i++)
    waiting += fibers[i].at == AT_WARP && fibers[i].operation == fibers[first].operation;
  if (waiting == 0) return false;
  if (waiting < 32) broken("not all lanes of the warp came to the same warp operation");
  void *lanes[32];
  for (int i = 0; i < 32; i++) lanes[i] = fibers[first + i].lane;
  fibers[first].all(lanes);
  for (int i = first; i < first + 32; i++) fibers[i].at = READY;
  return true;
}

/* Lets the block go.  @return : false when all threads have ended. */
static bool release_block(void) {
  int done = 0;
  for (int i = 0; i < n_threads; i++) done += fibers[i].at == DONE;
  if (done == n_threads) return false;
  if (done > 0) broken("not all threads of the block came to the barrier");
  for (int i = 0; i < n_threads; i++) fibers[i].at = READY;
  return true;
}

/* As if it had called shim_switch() at its very beginning, on a stack aligned as at a call. */
static void prepare(fiber *f, char *stack) {
  void **top = (void **)(void *)(stack + STACK_BYTES) - 2;
  *top = (void *)start;
  f->stack_pointer = top - SAVED_WORDS;
  f->at = READY;
}

static void resume(int thread) {
  if (fibers[thread].at != READY) return;
  running = thread;
  threadIdx.x = (unsigned)thread;
  shim_switch(&scheduler, fibers[thread].stack_pointer);
}

/* A warp runs on through its own operations up to a barrier of the block, while the others stand still: what it could
 * overwrite too early on a device, it overwrites here. */
static void run_warp(int first) {
  do {
    for (int k = 0; k < 32; k++) resume(first + (shim_reversed ? 31 - k : k));
  } while (release_warp(first));
}

/* A copy into shared memory that has been asked for. */
struct copy_ahead {
  void *to;
  const void *from;
  int bytes;
};
static std::vector<copy_ahead> copies[MAX_THREADS];

static void run_block(void) {
  if (shared_memory) memset(shared_memory, 0xff, shared_bytes);
  for (int i = 0; i < n_threads; i++) prepare(&fibers[i], stacks + (size_t)i * STACK_BYTES);
  do {
    for (int k = 0; k < n_threads; k += 32) run_warp(shim_reversed ? n_threads - 32 - k : k);
  } while (release_block());
}

void __syncthreads(void) { block_barrier(); }

int __syncthreads_or(int value) {
  fibers[running].value = value != 0;
  block_barrier();
  int any = 0;
  for (int i = 0; i < n_threads; i++) any |= (int)fibers[i].value;
  block_barrier();
  return any;
}

void shim_collective(int operation, void *mine, void (*all)(void *const lanes[32])) {
  fibers[running].lane = mine;
  fibers[running].all = all;
  wait_in(AT_WARP, operation);
}

struct exchanged {
  uint64_t in, out;
  int from;
};

uint64_t shim_exchange(uint64_t value, int from_lane, int operation) {
  exchanged mine = {value, 0, from_lane};
  shim_collective(operation, &mine, [](void *const lanes[32]) {
    for (int i = 0; i < 32; i++) {
      exchanged *to = (exchanged *)lanes[i];
      to->out = ((exchanged *)lanes[to->from])->in;
    }
  });
  return mine.out;
}

unsigned __ballot_sync(unsigned, int value) {
  exchanged mine = {value != 0, 0, 0};
  shim_collective(SHIM_BALLOT, &mine, [](void *const lanes[32]) {
    uint64_t mask = 0;
    for (int i = 0; i < 32; i++) mask |= ((exchanged *)lanes[i])->in << i;
    for (int i = 0; i < 32; i++) ((exchanged *)lanes[i])->out = mask;
  });
  return (unsigned)mine.out;
}

/* -- matrix units and copies that run ahead ------------------------------------------------------------------------- */

char *shim_shared(void) { return shared_memory; }

/* Over k in one order for every element; what it reads and writes has been looked at by the sanitizer before. */
__attribute__((optimize("O3"), no_sanitize("address", "undefined"))) static void
add_products(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c) {
  for (int64_t j = 0; j < n; j++)
    for (int64_t l = 0; l < k; l++)
      for (int64_t i = 0; i < m; i++) c[j * m + i] += a[l * m + i] * b[j * k + l];
}

struct mma_lane {
  float *c;
  const uint32_t *a;
  uint32_t b[2];
};

static float half_of(uint32_t pair, int high) {
  return __bfloat162float({(uint16_t)(high ? pair >> 16 : pair & 0xffff)});
}

void shim_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1) {
  mma_lane mine = {c, a, {b0, b1}};
  shim_collective(SHIM_MMA, &mine, [](void *const lanes[32]) {
    float all_a[16][16], all_b[16 * 8], sums[16 * 8] = {};
    for (int lane = 0; lane < 32; lane++) {
      const mma_lane *from = (const mma_lane *)lanes[lane];
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; i++)
        for (int high = 0; high < 2; high++)
          all_a[2 * t + i / 2 * 8 + high][g + i % 2 * 8] = half_of(from->a[i], high);
      for (int i = 0; i < 2; i++)
        for (int high = 0; high < 2; high++) all_b[g * 16 + 2 * t + i * 8 + high] = half_of(from->b[i], high);
    }
    add_products(16, 8, 16, &all_a[0][0], all_b, sums);
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++)
        ((mma_lane *)lanes[lane])->c[i] += sums[(lane % 4 * 2 + i % 2) * 16 + lane / 4 + i / 2 * 8];
  });
}

struct matrices_lane {
  uint32_t *to;
  const char *row;
  bool transposed;
};

void shim_load_matrices(uint32_t *to, const void *row, bool transposed) {
  matrices_lane mine = {to, (const char *)row, transposed};
  if ((uintptr_t)row % 16) broken("a row of a matrix is not aligned");
  shim_collective(SHIM_LOAD_MATRICES + transposed, &mine, [](void *const lanes[32]) {
    for (int i = 0; i < 32 * 4 * 2; i++) { /* lane, matrix, half of the pair */
      const matrices_lane *lane = (const matrices_lane *)lanes[i / 8];
      const int matrix = i / 2 % 4, g = i / 32, t = i / 8 % 4 * 2 + i % 2;
      const int r = lane->transposed ? t : g, column = lane->transposed ? g : t;
      memcpy((char *)(lane->to + matrix) + 2 * (i % 2), ((const matrices_lane *)lanes[8 * matrix + r])->row + 2 * column, 2);
    }
  });
}

static void run_copy(const copy_ahead &c) {
  memcpy(c.to, c.from, (size_t)c.bytes);
  memset((char *)c.to + c.bytes, 0, (size_t)(16 - c.bytes));
}

void shim_copy_ahead(void *shared, const void *global, int bytes) {
  if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || bytes < 0 || bytes > 16) broken("a copy is not aligned");
  if (shim_reversed)
    run_copy({shared, global, bytes});
  else
    copies[running].push_back({shared, global, bytes});
}

void shim_copies_wait(void) {
  for (const copy_ahead &c : copies[running]) run_copy(c);
  copies[running].clear();
}

/* -- streams: work waits until somebody waits for it --------------------------------------------------------------- */

/* Nothing that is issued runs before the host waits for its stream, or another stream's work does: what a device may
 * put off it puts off, so that a wait that is missing shows as a wrong result. With BL_SHIM_AT_ONCE the other extreme
 * beside it: streams that run ahead of those that they should wait for. A piece of work that cannot end yet, since it
 * needs other processes, says so and is asked again. */
typedef std::function<bool()> shim_work;

struct shim_queue {
  std::deque<shim_work> work;
  long issued = 0, done = 0;
  long looked_at = 0;   /* how much had been issued when somebody asked last whether it is done */
  bool at_once = false; /* BL_SHIM_AT_ONCE=N: some streams, by N, run their work when it is issued */
};

/* What streams did between the begin and the end of a capture: a list each, the first of the stream that began. */
struct shim_node {
  shim_work work; /* empty: a wait for the first `position` nodes of a list */
  size_t list, position;
};
struct shim_graph {
  std::vector<std::vector<shim_node>> lists;
  bool open = true;
};

struct shim_stream {
  std::shared_ptr<shim_queue> queue;
  std::shared_ptr<shim_graph> capture; /* NULL: work is to be done */
  size_t list = 0;
};
struct shim_event {
  std::shared_ptr<shim_queue> queue; /* NULL: never recorded, or in a capture */
  long position = 0;
  std::shared_ptr<timespec> at;
  std::shared_ptr<shim_graph> capture;
  size_t list = 0;
};

static std::recursive_mutex device; /* several ranks may share the device */
static std::vector<std::shared_ptr<shim_queue>> queues;
static thread_local int capturing; /* captures that this thread has open */

/* @return : whether all was done. */
static bool drain(shim_queue *q, long position) {
  while (q->done < position) {
    const shim_work &next = q->work.front();
    if (!next()) return false;
    q->work.pop_front();
    q->done++;
  }
  return true;
}

static bool try_to_drain(const std::shared_ptr<shim_queue> &q) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  return drain(q.get(), q->issued);
}

static void drain_stream(cudaStream_t stream) {
  while (!try_to_drain(stream->queue)) usleep(50);
}

static void issue(cudaStream_t stream, shim_work work) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (stream->capture) {
    stream->capture->lists[stream->list].push_back({std::move(work), 0, 0});
    return;
  }
  shim_queue *q = stream->queue.get();
  q->work.push_back(std::move(work));
  q->issued++;
  if (q->at_once) drain(q, q->issued);
}

static void issue_done(cudaStream_t stream, std::function<void()> work) {
  issue(stream, [work] { return work(), true; });
}

static void drain_all(void) {
  for (size_t i = 0; i < queues.size(); i++)
    while (!try_to_drain(queues[i])) usleep(50);
}

void shim_stream_work(cudaStream_t stream, std::function<bool()> work) { issue(stream, std::move(work)); }
bool shim_stream_captured(cudaStream_t stream) { return stream->capture != NULL; }
bool shim_stream_progress(cudaStream_t stream) { return try_to_drain(stream->queue); }

/* -- graphs: what was captured is kept and done again, list by list, as late as the waits allow -------------------- */

struct shim_run {
  std::shared_ptr<shim_graph> graph;
  std::vector<size_t> done;
};

static bool run_list(shim_run *run, size_t list, size_t position, bool pretend) {
  for (size_t &at = run->done[list]; at < position; at++) {
    const shim_node &node = run->graph->lists[list][at];
    if (!(node.work ? pretend || node.work() : run_list(run, node.list, node.position, pretend))) return false;
  }
  return true;
}

struct shim_executable {
  std::shared_ptr<shim_graph> graph;
};

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (stream->capture) return cudaErrorInvalidValue;
  stream->capture = std::make_shared<shim_graph>();
  stream->capture->lists.emplace_back();
  stream->list = 0;
  capturing++;
  return cudaSuccess;
}

static std::vector<cudaStream_t> streams;

/* Every stream that joined must have been waited for, up to its last node. */
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  const std::shared_ptr<shim_graph> graph = stream->capture;
  if (!graph || stream->list != 0) return cudaErrorInvalidValue;
  for (cudaStream_t other : streams)
    if (other->capture == graph) other->capture = NULL;
  capturing--;
  graph->open = false;
  shim_run run = {graph, std::vector<size_t>(graph->lists.size(), 0)};
  run_list(&run, 0, graph->lists[0].size(), true);
  for (size_t i = 0; i < graph->lists.size(); i++)
    if (run.done[i] < graph->lists[i].size()) return cudaErrorStreamCaptureUnjoined;
  const auto kept = std::make_shared<shim_graph>(); /* events of the capture do not keep its work alive */
  kept->lists.swap(graph->lists);
  *out = new shim_executable{kept};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  shim_counts.graphs++;
  return *out = new shim_executable{graph->graph}, cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  shim_counts.replays++;
  const auto run = std::make_shared<shim_run>();
  *run = {graph->graph, std::vector<size_t>(graph->graph->lists.size(), 0)};
  return issue(stream, [run] { return run_list(run.get(), 0, run->graph->lists[0].size(), false); }), cudaSuccess;
}

static void run_kernel(const cudaLaunchConfig_t &config, const std::function<void()> &thread) {
  if (!stacks) stacks = (char *)malloc((size_t)MAX_THREADS * STACK_BYTES);
  thread_body = &thread;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  n_threads = (int)config.blockDim.x;
  shared_bytes = config.dynamicSmemBytes;
  shared_memory = shared_bytes ? (char *)aligned_alloc(16, shared_bytes) : NULL;
  for (unsigned j = 0; j < gridDim.y; j++)
    for (unsigned i = 0; i < gridDim.x; i++) {
      blockIdx = dim3(i, j);
      run_block();
    }
  free(shared_memory);
}

enum { SHARED_AT_FIRST = 48 << 10, SHARED_MOST = 163 << 10 }; /* of sm_80; 227 KB of sm_90 and sm_100 */
static thread_local size_t shared_allowed = SHARED_AT_FIRST;

/* Asked for just before a launch, and good for the next launches of the thread. */
/* SHIM_SHARED_BYTES: of a device with less than SHARED_MOST. */
static size_t shared_most(void) {
  const char *bytes = getenv("SHIM_SHARED_BYTES");
  return bytes ? strtoul(bytes, NULL, 10) : (size_t)SHARED_MOST;
}
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value) {
  if (value < 0 || (size_t)value > shared_most()) return cudaErrorInvalidValue;
  shared_allowed = value > SHARED_AT_FIRST ? (size_t)value : (size_t)SHARED_AT_FIRST;
  return cudaSuccess;
}

cudaError_t shim_launch(const cudaLaunchConfig_t *config, const std::function<void()> &thread) {
  const unsigned threads = config->blockDim.x, x = config->gridDim.x, y = config->gridDim.y;
  if (threads == 0 || threads % 32 || threads > MAX_THREADS || !x || !y || y > 65535)
    return cudaErrorInvalidConfiguration;
  if (config->dynamicSmemBytes > shared_allowed) return cudaErrorInvalidValue;
  shim_counts.launches++;
  issue_done(config->stream, [config = *config, thread] { run_kernel(config, thread); });
  return cudaSuccess;
}

/* What a program asked for, for tests that count: one line at its end. */
static struct shim_report {
  ~shim_report() {
    const char *path = getenv("BL_SHIM_COUNTS");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f) return;
#define X(name) fprintf(f, "%s\"" #name "\": %ld", ftell(f) ? ", " : "{", (long)shim_counts.name);
    SHIM_COUNTERS(X)
#undef X
    fprintf(f, "}\n");
    fclose(f);
  }
} report;

/* -- the runtime
 * ------------------------------------------------------------------------------------------------------------ */

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "no memory" : "failed";
}
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count) {
  const char *devices = getenv("SHIM_DEVICES");
  return *count = devices ? atoi(devices) : 1, cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  int devices;
  cudaGetDeviceCount(&devices);
  return device >= 0 && device < devices ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *about, int device) {
  return *about = {"shim", 9, 0, {{'u', (char)device}}, shared_most()}, cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, const void *) { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *free_bytes = *total = (size_t)1 << 40;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void **out, size_t bytes) {
  if (capturing) return cudaErrorStreamCaptureUnsupported;
  shim_counts.mallocs++;
  *out = NULL; /* exactly as many, so that the sanitizer sees what goes beyond */
  return bytes <= (size_t)1 << 40 && posix_memalign(out, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *pointer) {
  if (capturing) return cudaErrorStreamCaptureUnsupported;
  drain_all();
  return free(pointer), cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaMalloc(out, bytes); }
cudaError_t cudaFreeHost(void *pointer) { return cudaFree(pointer); }
/* To the host the call waits for the stream, as CUDA does where the host's memory is pageable; all that the backend copies
 * to is. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  shim_counts.copies++;
  issue_done(stream, [=] { memcpy(to, from, bytes); });
  if (kind == cudaMemcpyDeviceToHost && !stream->capture) drain_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
  return issue_done(stream, [=] { memset(at, value, bytes); }), cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  *out = new shim_stream;
  (*out)->queue = std::make_shared<shim_queue>();
  queues.push_back((*out)->queue);
  streams.push_back(*out);
  const char *seed = getenv("BL_SHIM_AT_ONCE");
  if (seed) (*out)->queue->at_once = (queues.size() * 2654435761u + strtoul(seed, NULL, 10) * 40503u) >> 7 & 1;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  drain_stream(stream);
  const std::lock_guard<std::recursive_mutex> guard(device);
  for (cudaStream_t &other : streams)
    if (other == stream) {
      other = streams.back();
      streams.pop_back();
      break;
    }
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (capturing) return cudaErrorStreamCaptureUnsupported;
  shim_counts.syncs++;
  drain_stream(stream);
  return cudaSuccess;
}
/* Who asks for the first time after new work begins to wait. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (capturing) return cudaErrorStreamCaptureUnsupported;
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (stream->queue->looked_at != stream->queue->issued) shim_counts.syncs++;
  stream->queue->looked_at = stream->queue->issued;
  return try_to_drain(stream->queue) ? cudaSuccess : cudaErrorNotReady;
}
/* A stream that waits for captured work is captured too; captured work cannot wait for what is not. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (event->capture) {
    if (!event->capture->open || (stream->capture && stream->capture != event->capture))
      return cudaErrorStreamCaptureIsolation;
    if (!stream->capture) {
      stream->capture = event->capture;
      stream->list = event->capture->lists.size();
      event->capture->lists.emplace_back();
    }
    stream->capture->lists[stream->list].push_back({NULL, event->list, (size_t)event->position});
    return cudaSuccess;
  }
  if (stream->capture) return cudaErrorStreamCaptureIsolation;
  if (event->queue)
    issue(stream, [queue = event->queue, position = event->position] { return drain(queue.get(), position); });
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return *out = new shim_event, cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) { return cudaEventCreate(out); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
static void take_time(cudaEvent_t event, cudaStream_t stream) {
  event->at = std::make_shared<timespec>();
  issue_done(stream, [at = event->at] { clock_gettime(CLOCK_MONOTONIC, at.get()); });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  event->capture = stream->capture;
  if (stream->capture) {
    event->queue = NULL;
    event->list = stream->list;
    event->position = (long)stream->capture->lists[stream->list].size();
    return cudaSuccess;
  }
  event->queue = stream->queue;
  take_time(event, stream);
  event->position = stream->queue->issued;
  return cudaSuccess;
}
/* In a capture: the time is taken each time that the graph is there, whoever asks for it afterwards. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (flags != cudaEventRecordExternal || !stream->capture) return cudaErrorInvalidValue;
  event->capture = NULL;
  event->queue = NULL;
  take_time(event, stream);
  return cudaSuccess;
}
/* An event that has been reached costs no wait; one that was never recorded neither. */
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  if (!event->queue || event->queue->done >= event->position) return cudaSuccess;
  if (capturing) return cudaErrorStreamCaptureUnsupported;
  shim_counts.syncs++;
  while (!drain(event->queue.get(), event->position)) usleep(50);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  const std::lock_guard<std::recursive_mutex> guard(device);
  for (cudaEvent_t event : {from, to})
    if (!event->at || (event->queue && event->queue->done < event->position)) return cudaErrorInvalidValue;
  *ms = 1e3f * (float)(to->at->tv_sec - from->at->tv_sec) + 1e-6f * (float)(to->at->tv_nsec - from->at->tv_nsec);
  return cudaSuccess;
}

/* -- cuBLAS: column-major, c is [m][n]
 * ----------------------------------------------------------------------------------- */

static float read(const void *x, cudaDataType_t type, int64_t i) {
  return type == CUDA_R_32F ? ((const float *)x)[i] : __bfloat162float(((const __nv_bfloat16 *)x)[i]);
}

static void write(void *x, cudaDataType_t type, int64_t i, float value) {
  if (type == CUDA_R_32F) ((float *)x)[i] = value;
  if (type == CUDA_R_16BF) ((__nv_bfloat16 *)x)[i] = __float2bfloat16_rn(value);
}

struct shim_blas {
  cudaStream_t stream;
};

/* A matrix of a product and how it is read. */
struct shim_matrix {
  const void *data;
  cudaDataType_t type;
  int64_t stride;
  bool transposed;
  float operator()(int64_t i, int64_t j) const { return read(data, type, transposed ? i * stride + j : j * stride + i); }
};

static void multiply(int64_t m, int64_t n, int64_t k, float scale, const shim_matrix &a, const shim_matrix &b, float keep,
                     void *c, cudaDataType_t c_type, int64_t c_stride) {
  std::vector<float> all_a((size_t)(m * k)), all_b((size_t)(k * n)), sums((size_t)(m * n));
  for (int64_t l = 0; l < k; l++) {
    for (int64_t i = 0; i < m; i++) all_a[(size_t)(l * m + i)] = a(i, l);
    for (int64_t j = 0; j < n; j++) all_b[(size_t)(j * k + l)] = b(l, j);
  }
  add_products(m, n, k, all_a.data(), all_b.data(), sums.data());
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < m; i++) {
      const float old = keep != 0 ? keep * read(c, c_type, j * c_stride + i) : 0;
      write(c, c_type, j * c_stride + i, scale * sums[(size_t)(j * m + i)] + old);
    }
}

static bool fits(cublasOperation_t a_op, cublasOperation_t b_op, int64_t m, int64_t n, int64_t k, int64_t a_stride,
                 int64_t b_stride, int64_t c_stride) {
  return a_stride >= (a_op == CUBLAS_OP_N ? m : k) && b_stride >= (b_op == CUBLAS_OP_N ? k : n) && c_stride >= m;
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op, int64_t m, int64_t n,
                               int64_t k, const void *alpha, const void *a, cudaDataType_t a_type, int64_t a_stride,
                               const void *b, cudaDataType_t b_type, int64_t b_stride, const void *beta, void *c,
                               cudaDataType_t c_type, int64_t c_stride, cublasComputeType_t, cublasGemmAlgo_t) {
  const float scale = *(const float *)alpha, keep = *(const float *)beta;
  if (!fits(a_op, b_op, m, n, k, a_stride, b_stride, c_stride)) return CUBLAS_STATUS_INVALID_VALUE;
  shim_counts.products++;
  issue_done(handle->stream, [=] {
    multiply(m, n, k, scale, {a, a_type, a_stride, a_op == CUBLAS_OP_T}, {b, b_type, b_stride, b_op == CUBLAS_OP_T}, keep,
             c, c_type, c_stride);
  });
  return CUBLAS_STATUS_SUCCESS;
}

/* The tables of addresses are read when the work runs, all else at the call. */
cublasStatus_t cublasGemmGroupedBatchedEx_64(cublasHandle_t handle, const cublasOperation_t a_op[],
                                             const cublasOperation_t b_op[], const int64_t m[], const int64_t n[],
                                             const int64_t k[], const void *alpha, const void *const a[],
                                             cudaDataType_t a_type, const int64_t a_stride[], const void *const b[],
                                             cudaDataType_t b_type, const int64_t b_stride[], const void *beta,
                                             void *const c[], cudaDataType_t c_type, const int64_t c_stride[],
                                             int64_t groups, const int64_t sizes[], cublasComputeType_t) {
  shim_counts.products++;
  for (int64_t g = 0, i = 0; g < groups; g++) {
    if (!fits(a_op[g], b_op[g], m[g], n[g], k[g], a_stride[g], b_stride[g], c_stride[g]))
      return CUBLAS_STATUS_INVALID_VALUE;
    for (const int64_t end = i + sizes[g]; i < end; i++)
      issue_done(handle->stream, [=, rows = m[g], columns = n[g], depth = k[g], scale = ((const float *)alpha)[g],
                             keep = ((const float *)beta)[g], a_s = a_stride[g], b_s = b_stride[g], c_s = c_stride[g],
                             a_t = a_op[g] == CUBLAS_OP_T, b_t = b_op[g] == CUBLAS_OP_T] {
        multiply(rows, columns, depth, scale, {a[i], a_type, a_s, a_t}, {b[i], b_type, b_s, b_t}, keep, c[i], c_type, c_s);
      });
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *out) { return *out = new shim_blas{}, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return handle->stream = stream, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
const char *cublasGetStatusString(cublasStatus_t) { return "invalid value"; }

bl_status bl_cublas_load(const bl_cublas **out) {
  static const bl_cublas table = {
#define X(name) name,
      BL_CUBLAS_FUNCTIONS(X)
#undef X
  };
  *out = &table;
  return BL_OK;
}
