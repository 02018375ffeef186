/* The state of a policy as bytes: a resumed run decides as the uninterrupted one would have. */
#include "base/memory.h"
#include "base/rng.h"
#include "planner/policy_state.h"
#include <string.h>

enum { MAGIC = 0x31706c62 }; /* "blp1" */

typedef struct header {
  uint32_t magic, unused;
  uint64_t setting; /* hash of options and shape: state of another policy is refused */
  uint64_t size;    /* bytes behind the header */
  uint64_t hash;    /* of these bytes */
} header;

static uint64_t setting_of(const bl_policy *p) {
  const bl_policy_config *c = &p->config;
  uint64_t h = bl_hash_u64((uint64_t)c->kind, (uint64_t)c->every, (uint64_t)c->lag, (uint64_t)c->stale);
  h = bl_hash_u64(h, (uint64_t)c->homes, (uint64_t)c->ties, bl_hash_bytes(&c->late_repair, sizeof c->late_repair, 1));
  h = bl_hash_bytes(&c->copy_price, sizeof c->copy_price, h);
  h = bl_hash_u64(h, (uint64_t)c->back_off, 0, 0);
  h = bl_hash_u64(h, (uint64_t)p->layers, (uint64_t)p->experts, (uint64_t)p->ranks);
  h = bl_hash_bytes(p->slots, (uint64_t)p->ranks * sizeof *p->slots, h);
  return p->speed ? bl_hash_bytes(p->speed, (uint64_t)p->ranks * sizeof *p->speed, h) : h;
}

/* Copies one array to or from the bytes, or only counts it. */
typedef struct cursor {
  char *write;
  const char *read;
  uint64_t size;
} cursor;

static void visit(cursor *c, void *array, uint64_t n) {
  if (c->write) memcpy(c->write + c->size, array, n);
  if (c->read) memcpy(array, c->read + c->size, n);
  c->size += n;
}

#define VISIT(cursor, array, n) visit(cursor, array, (uint64_t)(n) * sizeof *(array))

/* All that one step hands to the next. */
static void visit_all(bl_policy *p, cursor *c) {
  VISIT(c, &p->last_decision, 1);
  VISIT(c, &p->decided, 1);
  VISIT(c, &p->history.pushed, 1);
  VISIT(c, &p->history.known, 1);
  VISIT(c, &p->history.n_errors, 1);
  VISIT(c, p->history.block, p->history.block_size);
  for (int32_t l = 0; l < p->layers; ++l) {
    bl_policy_layer *layer = &p->layer[l];
    VISIT(c, layer->hosts.home, p->experts);
    VISIT(c, layer->hosts.copy_rank, p->max_copies);
    VISIT(c, layer->hosts.copy_expert, p->max_copies);
    VISIT(c, layer->fraction, p->max_copies);
    VISIT(c, layer->recent, bl_policy_recent(p));
    VISIT(c, &layer->last_look, 1);
    VISIT(c, &layer->rest.wait, 1);
    VISIT(c, &layer->rest.left, 1);
    VISIT(c, &layer->rest.imbalance, 1);
    VISIT(c, &layer->rest.error, 1);
    VISIT(c, layer->rest.forecast, p->experts);
  }
}

bl_status bl_policy_save(const bl_policy *policy, void **bytes, uint64_t *size) {
  bl_policy *p = (bl_policy *)policy; /* read only: the visitor serves both directions */
  cursor c = {0};
  visit_all(p, &c);
  char *out;
  BL_TRY(bl_new(&out, c.size + sizeof(header), 1, "the state of a policy"));
  c = (cursor){.write = out + sizeof(header)};
  visit_all(p, &c);
  const header h = {MAGIC, 0, setting_of(p), c.size, bl_hash_bytes(out + sizeof(header), c.size, MAGIC)};
  memcpy(out, &h, sizeof h);
  *bytes = out;
  *size = c.size + sizeof h;
  return BL_OK;
}

/* Hosts that make sense: the same rules as everywhere, since bytes from a file are not trusted. */
static bl_status check_hosts(bl_policy *p, bl_hosts *hosts) {
  BL_TRY(bl_hosts_assign(&p->spare[0], hosts));
  BL_TRY(bl_hosts_set_homes(&p->spare[0], hosts->home));
  if (memcmp(p->spare[0].copy_rank, hosts->copy_rank, (size_t)p->max_copies * sizeof *hosts->copy_rank) != 0)
    return bl_fail(BL_EINPUT, "the saved state of a policy has copy slots that do not go with its homes");
  for (int32_t s = 0; s < p->max_copies; ++s) {
    const int32_t e = hosts->copy_expert[s];
    bool twice = e >= 0 && e < p->experts && hosts->home[e] == hosts->copy_rank[s];
    for (int32_t t = 0; t < s; ++t)
      twice = twice || (e >= 0 && hosts->copy_expert[t] == e && hosts->copy_rank[t] == hosts->copy_rank[s]);
    if (e < -1 || e >= p->experts || twice)
      return bl_fail(BL_EINPUT, "the saved state of a policy has a copy of expert %d on rank %d that cannot be", e,
                     hosts->copy_rank[s]);
  }
  return BL_OK;
}

/* What was read, against all that a policy can have come to. */
static bl_status check_state(bl_policy *p) {
  const bl_history *h = &p->history;
  unsigned char decided; /* no bool before it is known to be one */
  memcpy(&decided, &p->decided, 1);
  bool good = decided <= 1 && h->pushed >= 0 && h->known >= 0 && h->n_errors >= 0;
  for (int32_t l = 0; l < p->layers; ++l) {
    const bl_policy_layer *layer = &p->layer[l];
    const bl_policy_rest *rest = &layer->rest;
    good = good && layer->last_look >= 0 && layer->last_look <= h->known;
    good = good && rest->wait <= p->config.back_off && rest->left >= 0 && rest->left <= rest->wait;
  }
  if (!good) return bl_fail(BL_EINPUT, "the saved state of a policy is damaged");
  for (int32_t l = 0; l < p->layers; ++l) BL_TRY(check_hosts(p, &p->layer[l].hosts));
  return BL_OK;
}

bool bl_policy_saved_by_other(const bl_policy *p, const void *bytes, uint64_t size) {
  header h;
  if (size < sizeof h) return false;
  memcpy(&h, bytes, sizeof h);
  return h.magic == MAGIC && h.setting != setting_of(p);
}

bl_status bl_policy_load(bl_policy *p, const void *bytes, uint64_t size) {
  header h;
  cursor c = {0};
  visit_all(p, &c);
  if (size < sizeof h) return bl_fail(BL_EINPUT, "the saved state of a policy is cut short");
  memcpy(&h, bytes, sizeof h);
  const char *body = (const char *)bytes + sizeof h;
  if (h.magic != MAGIC) return bl_fail(BL_EINPUT, "this is not the saved state of a policy");
  if (h.setting != setting_of(p))
    return bl_fail(
        BL_EINPUT,
        "expected the state of a policy with the same --policy, --lag, --shares, --late-repair, --homes, --ties, "
        "--copy-price, --back-off, --slots, ranks and experts, found another");
  if (h.size != c.size || size != c.size + sizeof h || h.hash != bl_hash_bytes(body, c.size, MAGIC))
    return bl_fail(BL_EINPUT, "the saved state of a policy is damaged");
  void *before;
  BL_TRY(bl_policy_save(p, &before, &size));
  c = (cursor){.read = body};
  visit_all(p, &c);
  const bl_status status = check_state(p);
  if (status == BL_OK) {
    bl_history_sort(&p->history);
    p->in_step = false;
  } else { /* as if nothing had been read */
    c = (cursor){.read = (const char *)before + sizeof h};
    visit_all(p, &c);
  }
  free(before);
  return status;
}
