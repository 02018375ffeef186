#include "planner/milp/child.h"
#include "base/log.h"
#include "base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* sanitizers map terabytes: a limit on address space would stop them */
#else
enum { SANITIZED = 0 };
#endif

enum { MAGIC = 0x424c4350, KIND_DONE = 0x10000, KIND_FAILED, KIND_MEMORY, TEXT_BYTES = 120 };

typedef struct header {
  uint32_t magic, kind, bytes;
} header;

struct bl_child_pipe {
  int fd;
};

/* -- in the child -------------------------------------------------------------------------------------------------- */

void bl_child_write_raw(bl_child_pipe *pipe, const void *bytes, size_t n) {
  const char *at = bytes;
  while (n > 0) {
    const ssize_t written = write(pipe->fd, at, n);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) _exit(1);
    at += written;
    n -= (size_t)written;
  }
}

void bl_child_send(bl_child_pipe *pipe, uint32_t kind, const void *payload, uint32_t bytes) {
  const header h = {.magic = MAGIC, .kind = kind, .bytes = bytes};
  bl_child_write_raw(pipe, &h, sizeof h);
  bl_child_write_raw(pipe, payload, bytes);
}

_Noreturn void bl_child_fail(bl_child_pipe *pipe, bool out_of_memory, const char *text) {
  const size_t length = strnlen(text, TEXT_BYTES);
  bl_child_send(pipe, out_of_memory ? KIND_MEMORY : KIND_FAILED, text, (uint32_t)length);
  _exit(1);
}

static int64_t address_space_now(void) {
  long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  if (fscanf(file, "%lld", &pages) != 1) pages = 0;
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

static void limit_memory(int64_t bytes) {
  if (bytes <= 0 || SANITIZED) return;
  const rlim_t limit = (rlim_t)(address_space_now() + bytes);
  const struct rlimit space = {.rlim_cur = limit, .rlim_max = limit}, no_core = {.rlim_cur = 0, .rlim_max = 0};
  setrlimit(RLIMIT_AS, &space);
  setrlimit(RLIMIT_CORE, &no_core);
}

/* GLPK prints before it aborts, whatever it was told: that must not end up among the parent's results. */
static void mute(void) {
  const int nowhere = open("/dev/null", O_WRONLY);
  if (nowhere < 0) return;
  dup2(nowhere, STDOUT_FILENO);
  if (!SANITIZED) dup2(nowhere, STDERR_FILENO); /* their reports should be seen */
  close(nowhere);
}

static _Noreturn void run_child(int fd, pid_t parent, const bl_child_limits *limits, bl_child_body *body,
                                void *context) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  mute();
  limit_memory(limits->memory_bytes);
  bl_child_pipe pipe = {.fd = fd};
  body(&pipe, context);
  bl_child_send(&pipe, KIND_DONE, NULL, 0);
  _exit(0);
}

/* -- in the parent ------------------------------------------------------------------------------------------------- */

typedef struct receiver {
  uint8_t *bytes; /* what has been read and not yet handed on */
  size_t n, capacity;
  uint32_t max_message;
  bl_child_sink *sink;
  void *context;
  bl_child_report *report;
  bool ended; /* the report is final */
} receiver;

static void end(receiver *r, bl_child_end how, const char *reason) {
  if (r->ended) return;
  r->ended = true;
  r->report->end = how;
  snprintf(r->report->reason, sizeof r->report->reason, "%s", reason);
}

static void take_message(receiver *r, uint32_t kind, const uint8_t *payload, uint32_t bytes) {
  if (kind == KIND_DONE) {
    end(r, BL_CHILD_FINISHED, "");
  } else if (kind == KIND_FAILED || kind == KIND_MEMORY) {
    char text[TEXT_BYTES + 1];
    const size_t length = bytes < TEXT_BYTES ? bytes : TEXT_BYTES;
    memcpy(text, payload, length);
    text[length] = '\0';
    for (char *c = text; *c; ++c)
      if ((unsigned char)*c < ' ') *c = ' ';
    for (size_t i = strlen(text); i > 0 && text[i - 1] == ' '; --i) text[i - 1] = '\0';
    end(r, kind == KIND_MEMORY ? BL_CHILD_MEMORY : BL_CHILD_DIED, text);
  } else if (kind > 0xffff || !r->sink(r->context, kind, payload, bytes)) {
    end(r, BL_CHILD_DIED, "the solver process sent what cannot be true");
  }
}

/* Hands on all whole messages. */
static void take_messages(receiver *r) {
  size_t at = 0;
  while (!r->ended && r->n - at >= sizeof(header)) {
    header h;
    memcpy(&h, r->bytes + at, sizeof h);
    if (h.magic != MAGIC || h.bytes > r->max_message) {
      end(r, BL_CHILD_DIED, "the solver process sent what is no message");
      break;
    }
    if (r->n - at - sizeof h < h.bytes) break;
    take_message(r, h.kind, r->bytes + at + sizeof h, h.bytes);
    at += sizeof h + h.bytes;
  }
  memmove(r->bytes, r->bytes + at, r->n - at);
  r->n -= at;
}

static void receive(receiver *r, int fd, double seconds) {
  const int64_t deadline = bl_now_us() + (int64_t)(seconds * 1e6);
  while (!r->ended) {
    const int64_t left_us = deadline - bl_now_us();
    if (left_us <= 0) {
      end(r, BL_CHILD_TIME, "the solver process was killed at the time limit");
      return;
    }
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    const int ready = poll(&wait, 1, (int)(left_us / 1000 < 1000 ? left_us / 1000 + 1 : 1000));
    if (ready <= 0) continue;
    const ssize_t n = read(fd, r->bytes + r->n, r->capacity - r->n);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return; /* the child closed its end without a last word */
    r->n += (size_t)n;
    take_messages(r);
  }
}

static void bury(pid_t child, receiver *r) {
  kill(child, SIGKILL); /* one that is already ending keeps its own status */
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  char reason[96];
  if (WIFSIGNALED(state))
    snprintf(reason, sizeof reason, "the solver process was killed by signal %d (%s)", WTERMSIG(state),
             strsignal(WTERMSIG(state)));
  else
    snprintf(reason, sizeof reason, "the solver process ended without a result, exit code %d", WEXITSTATUS(state));
  end(r, BL_CHILD_DIED, reason);
}

bl_status bl_child_run(const bl_child_limits *limits, bl_child_body *body, void *body_context, bl_child_sink *sink,
                       void *sink_context, bl_child_report *report) {
  receiver r = {.max_message = limits->max_message > TEXT_BYTES ? limits->max_message : TEXT_BYTES,
                .sink = sink,
                .context = sink_context,
                .report = report};
  r.capacity = sizeof(header) + r.max_message;
  memset(report, 0, sizeof *report);
  BL_TRY(bl_new(&r.bytes, r.capacity, 1, "messages of the solver process"));
  int ends[2];
  if (pipe(ends) != 0) {
    free(r.bytes);
    return bl_fail_errno(BL_EMACHINE, "no pipe for the solver process");
  }
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    close(ends[0]);
    run_child(ends[1], parent, limits, body, body_context);
  }
  close(ends[1]);
  bl_status status = BL_OK;
  if (child < 0) {
    status = bl_fail_errno(BL_EMACHINE, "no solver process");
  } else {
    receive(&r, ends[0], limits->seconds);
    bury(child, &r);
  }
  close(ends[0]);
  free(r.bytes);
  return status;
}
