/* nccl_shim.cpp - a stand-in for NCCL's library, between processes of one machine.
 *
 * One pipe by name for each pair and direction, in a folder whose name is the unique id. As NCCL does with a config that
 * does not block, calls that concern other ranks answer "in progress" first. Messages go when the stream comes to them,
 * which a thread sees to while there are any: a device does not wait for its host. A message to nobody waits for ever, as
 * with NCCL; so do sizes that do not agree. */
#include <atomic>
#include <errno.h>
#include <fcntl.h>
#include <memory>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

struct message {
  char *data;
  size_t left;
  int fd;
  bool is_send;
};

struct ncclComm {
  std::vector<int> to, from; /* pipes by peer */
  std::string folder;
  int rank, polls; /* so many questions are still answered with "in progress" */
  std::vector<message> messages; /* of the group that is open */
  cudaStream_t stream = nullptr;
  std::thread mover;
  std::atomic<bool> stopping{false}, broken{false}, ending{false};
  std::vector<std::weak_ptr<struct group>> captured;
  std::shared_ptr<struct group> taken; /* on its way to the stream: there once somebody has asked often enough */
};

/* A group: what is to go, and what is left of it while it goes. A graph may do it many times. */
struct group {
  std::vector<message> all, left;
  bool going = false;
};

static ncclComm *current; /* with messages in the group that is open */

static int open_pipe(const std::string &folder, int from, int to) {
  const std::string path = folder + "/" + std::to_string(from) + "-" + std::to_string(to);
  if (mkfifo(path.c_str(), 0600) != 0 && errno != EEXIST) return -1;
  return open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static bool move(message *m) {
  const ssize_t n = m->is_send ? write(m->fd, m->data, m->left) : read(m->fd, m->data, m->left);
  if (n < 0) return errno == EAGAIN;
  m->data += n;
  m->left -= (size_t)n;
  return true;
}

/* Messages of one pipe in their order, all pipes side by side.  @return : whether all have gone. */
static bool move_some(ncclComm *c, group *g) {
  if (!g->going) g->left = g->all;
  g->going = true;
  bool open = false;
  for (size_t i = 0; i < g->left.size() && !c->stopping && !c->broken; i++) {
    message *m = &g->left[i];
    bool first = m->left > 0;
    for (size_t k = 0; k < i && first; k++)
      first = g->left[k].left == 0 || g->left[k].fd != m->fd || g->left[k].is_send != m->is_send;
    if (first && !move(m)) c->broken = true;
    open = open || m->left > 0;
  }
  g->going = open && !c->stopping && !c->broken;
  return !g->going;
}

static void keep_moving(ncclComm *c) {
  while (!c->ending) {
    shim_stream_progress(c->stream);
    usleep(100);
  }
}

static void join(ncclComm *c) {
  c->ending = true;
  if (c->mover.joinable()) c->mover.join();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  const char *tmp = getenv("TMPDIR");
  snprintf(id->internal, sizeof id->internal, "%.100s/nccl.XXXXXX", tmp ? tmp : "/tmp");
  return mkdtemp(id->internal) ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
  if (config->blocking || getenv("SHIM_NCCL_FAILS")) return ncclInvalidArgument;
  ncclComm *c = *out = new ncclComm;
  c->folder = id.internal;
  c->rank = rank;
  c->polls = 3;
  for (int p = 0; p < ranks; p++) {
    c->to.push_back(p == rank ? -1 : open_pipe(c->folder, rank, p));
    c->from.push_back(p == rank ? -1 : open_pipe(c->folder, p, rank));
    if (p != rank && (c->to[(size_t)p] < 0 || c->from[(size_t)p] < 0)) return ncclSystemError;
  }
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state) {
  if (c->polls > 0) c->polls--;
  *state = c->broken ? ncclSystemError : c->polls > 0 ? ncclInProgress : ncclSuccess;
  if (c->polls > 0 || !c->taken) return ncclSuccess;
  if (shim_stream_captured(c->stream)) c->captured.push_back(c->taken);
  shim_stream_work(c->stream, [c, g = c->taken] { return move_some(c, g.get()); });
  c->taken = nullptr;
  if (!c->mover.joinable()) c->mover = std::thread(keep_moving, c);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
  while (c->stream && !shim_stream_progress(c->stream)) usleep(100);
  return join(c), c->polls = 2, ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
  join(c);
  for (size_t p = 0; p < c->to.size(); p++) {
    if (c->to[p] < 0) continue;
    close(c->to[p]);
    close(c->from[p]);
    unlink((c->folder + "/" + std::to_string(p) + "-" + std::to_string(c->rank)).c_str());
  }
  rmdir(c->folder.c_str()); /* of the last one */
  delete c;
  return ncclSuccess;
}

/* What is still to come on streams and in graphs looks at it, and ends. As NCCL does it waits until no graph is left in
 * which the communicator was captured. */
ncclResult_t ncclCommAbort(ncclComm_t c) {
  c->stopping = true;
  for (const std::weak_ptr<group> &g : c->captured)
    while (!g.expired()) usleep(100);
  return join(c), ncclSuccess;
}

static ncclResult_t add(ncclComm *c, char *data, size_t n, const std::vector<int> &pipes, int peer, bool is_send,
                        cudaStream_t stream) {
  if (peer < 0 || (size_t)peer >= pipes.size() || pipes[(size_t)peer] < 0 || (c->stream && c->stream != stream))
    return ncclInvalidArgument;
  c->messages.push_back({data, n, pipes[(size_t)peer], is_send});
  c->stream = stream;
  current = c;
  return ncclSuccess;
}

ncclResult_t ncclSend(const void *data, size_t n, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t stream) {
  return add(c, (char *)const_cast<void *>(data), n, c->to, peer, true, stream);
}

ncclResult_t ncclRecv(void *data, size_t n, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t stream) {
  return add(c, (char *)data, n, c->from, peer, false, stream);
}

ncclResult_t ncclGroupStart(void) { return ncclSuccess; }

ncclResult_t ncclGroupEnd(void) {
  ncclComm *c = current;
  current = nullptr;
  if (!c) return ncclSuccess;
  const auto g = std::make_shared<group>();
  g->all = std::move(c->messages);
  c->messages.clear();
  c->taken = g;
  c->polls = 3;
  return ncclInProgress;
}

const char *ncclGetErrorString(ncclResult_t result) {
  return result == ncclInvalidArgument ? "invalid argument" : "unhandled system error";
}
