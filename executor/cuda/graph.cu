/* graph.cu - a stream's work captured as a graph and done again. Host arrays that captured work reads are kept with the
 * graph: their image on the device does not change as long as it is there. */
#include "executor/cuda/device.cuh"
#include <stdlib.h>
#include <string.h>

static const size_t TABLES_BYTES = (size_t)4 << 20; /* for host arrays at first; a graph that needs more says how much */

struct bl_graph {
  bl_cuda_backend *backend;
  cudaGraphExec_t graph; /* NULL: not there yet */
  char *host, *tables;   /* host arrays one behind the other, and where they lie on the device */
  size_t room, used;     /* used: counted on behind the room */
  int64_t releases;      /* of the backend's memory when it was captured */
};

static void destroy(bl_graph *g) {
  if (!g) return;
  if (g->graph) bl_cuda_fail(g->backend, "graph", cudaGraphExecDestroy(g->graph));
  g->backend->base.release(&g->backend->base, g->tables);
  free(g->host);
  free(g);
}

void *bl_cuda_graph_upload(bl_graph *g, const bl_host_part *parts, int32_t n) {
  size_t bytes = 0;
  for (int32_t i = 0; i < n; i++) bytes += parts[i].bytes;
  const size_t at = g->used;
  g->used += (bytes + 255) / 256 * 256;
  if (g->used > g->room) return g->tables; /* a place all the same: this graph will not run */
  char *to = g->host + at;
  for (int32_t i = 0; i < n; to += parts[i++].bytes)
    if (parts[i].bytes) memcpy(to, parts[i].data, parts[i].bytes);
  return g->tables + at;
}

static bl_status make(bl_cuda_backend *cuda, bl_graph **out) {
  bl_graph *g = static_cast<bl_graph *>(calloc(1, sizeof *g));
  if (!g) return bl_fail(BL_EMACHINE, "out of memory: %zu bytes for a graph", sizeof *g);
  g->backend = cuda;
  g->room = cuda->graph_tables_bytes ? cuda->graph_tables_bytes : TABLES_BYTES;
  g->host = static_cast<char *>(malloc(g->room));
  bl_status status = g->host ? BL_OK : bl_fail(BL_EMACHINE, "out of memory: %zu bytes for a graph", g->room);
  if (status == BL_OK) status = cuda->base.alloc(&cuda->base, g->room, &g->tables);
  if (status == BL_OK)
    *out = g;
  else
    destroy(g);
  return status;
}

static bl_status capture_begin(bl_stream *s) {
  bl_cuda_backend *cuda = s->backend;
  bl_graph *g = NULL;
  if (!bl_cuda_enter(s)) return bl_fail(BL_EMACHINE, "%s", cuda->failure);
  BL_TRY(make(cuda, &g));
  bl_cuda_fail(cuda, "capture", cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal));
  if (!cuda->failure[0]) return cuda->capturing = g, BL_OK;
  destroy(g);
  return bl_fail(BL_EMACHINE, "%s", cuda->failure);
}

/* The kept host arrays go to the device before anything of the graph runs. */
static void finish(bl_graph *g, cudaGraph_t captured) {
  bl_cuda_backend *cuda = g->backend;
  bl_cuda_fail(cuda, "graph", cudaGraphInstantiate(&g->graph, captured, 0));
  bl_cuda_fail(cuda, "graph", cudaMemcpyAsync(g->tables, g->host, g->used, cudaMemcpyHostToDevice, cuda->service));
  bl_cuda_fail(cuda, "graph", cudaStreamSynchronize(cuda->service));
}

static bl_status capture_end(bl_stream *s, bl_graph **out) {
  bl_cuda_backend *cuda = s->backend;
  bl_graph *g = cuda->capturing;
  cudaGraph_t captured = NULL;
  *out = NULL;
  cuda->capturing = NULL;
  bl_cuda_fail(cuda, "capture", cudaStreamEndCapture(s->stream, &captured));
  const bool fits = g->used <= g->room;
  if (!fits) cuda->graph_tables_bytes = g->used;
  if (fits && !cuda->failure[0]) finish(g, captured);
  if (captured) bl_cuda_fail(cuda, "graph", cudaGraphDestroy(captured));
  g->releases = cuda->releases;
  if (fits && !cuda->failure[0])
    *out = g;
  else
    destroy(g);
  return cuda->failure[0] ? bl_fail(BL_EMACHINE, "%s", cuda->failure) : BL_OK;
}

static bool graph_holds(const bl_graph *g) { return g->releases == g->backend->releases; }

static void graph_launch(bl_stream *s, bl_graph *g) {
  if (bl_cuda_enter(s)) bl_cuda_fail(s->backend, "graph", cudaGraphLaunch(g->graph, s->stream));
}

void bl_cuda_graph_functions(bl_backend *be) {
  be->capture_begin = capture_begin;
  be->capture_end = capture_end;
  be->graph_holds = graph_holds;
  be->graph_launch = graph_launch;
  be->graph_destroy = destroy;
}
