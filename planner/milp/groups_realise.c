#include "planner/milp/groups_realise.h"
#include "base/memory.h"
#include <string.h>

/* An item of the window rule: what is left of an expert; -1 pads. */
typedef struct item {
  int32_t expert;
  double tokens;
} item;

static void insert_ascending(item *items, int32_t n, item added) {
  int32_t i = n;
  while (i > 0 && items[i - 1].tokens > added.tokens) {
    items[i] = items[i - 1];
    --i;
  }
  items[i] = added;
}

static void add_host(bl_host *host, int32_t *n, item it, int32_t rank, double tokens) {
  if (it.expert < 0) return;
  host[(*n)++] = (bl_host){.expert = it.expert, .rank = rank, .tokens = tokens};
}

/* The window rule for one group: n ranks from `rank` on, items ascending, n k + 1 of them with padding, total n * mean.
 * A rank takes k = slots - 1 consecutive items whose sum is at most the mean while the next window's exceeds it (or the
 * last window), and a piece of the next item (of the one before the last window). One item fewer than k leaves, so
 * (n - 1) k + 1 remain for n - 1 ranks. */
static void realise(item *items, int32_t n_items, int32_t n, int32_t rank, int32_t k, double mean, bl_host *host,
                    int32_t *n_hosts) {
  for (; n > 1; --n, ++rank) {
    double sum = 0;
    for (int32_t i = 0; i < k; ++i) sum += items[i].tokens;
    int32_t at = 0;
    while (at + k < n_items && sum - items[at].tokens + items[at + k].tokens <= mean) {
      sum += items[at + k].tokens - items[at].tokens;
      ++at;
    }
    const int32_t split = at + k < n_items ? at + k : at - 1;
    for (int32_t i = at; i < at + k; ++i) add_host(host, n_hosts, items[i], rank, items[i].tokens);
    item rest = items[split];
    const double piece = mean - sum;
    if (piece > 1e-12) {
      add_host(host, n_hosts, rest, rank, piece < rest.tokens ? piece : rest.tokens);
      rest = rest.tokens > piece ? (item){.expert = rest.expert, .tokens = rest.tokens - piece} : (item){.expert = -1};
    }
    const int32_t first = split < at ? split : at; /* window and split item are neighbours */
    memmove(items + first, items + first + k + 1, (size_t)(n_items - first - k - 1) * sizeof *items);
    n_items -= k + 1;
    insert_ascending(items, n_items++, rest);
  }
  for (int32_t i = 0; i < n_items; ++i) add_host(host, n_hosts, items[i], rank, items[i].tokens);
}

bl_status bl_groups_realise(const bl_fewest *problem, const int32_t *group, const int32_t *ranks, int32_t groups,
                            int32_t slots, bl_hosts *hosts) {
  const int32_t room = problem->experts + problem->ranks * slots + 1;
  item *items = NULL;
  bl_host *host = NULL;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&items, (size_t)room, sizeof *items, "window rule"), done);
  BL_TRY_GOTO(status, bl_new(&host, (size_t)room, sizeof *host, "window rule"), done);
  int32_t n_hosts = 0, rank = 0;
  for (int32_t g = 0; g < groups; ++g) {
    const int32_t n = ranks[g], size = n * (slots - 1) + 1;
    int32_t n_items = 0;
    double sum = 0;
    for (int32_t e = 0; e < problem->experts; ++e) {
      if (group[e] != g) continue;
      const item added = {.expert = e, .tokens = problem->load[e]};
      sum += added.tokens;
      insert_ascending(items, n_items++, added);
    }
    while (n_items < size) insert_ascending(items, n_items++, (item){.expert = -1});
    realise(items, n_items, n, rank, slots - 1, sum / n, host, &n_hosts);
    rank += n;
  }
  BL_TRY_GOTO(status, bl_fewest_hosts(problem, host, n_hosts, hosts), done);
done:
  free(items);
  free(host);
  return status;
}
