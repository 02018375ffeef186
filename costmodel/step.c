/* step.c - the step program as data: actions, the buffers they use, and the waits that follow. */
#include "costmodel/step.h"
#include "base/memory.h"
#include "base/rng.h"
#include <stdio.h>
#include <string.h>

const char *const bl_resource_names[BL_RESOURCE_COUNT] = {
#define X(name, text) text,
    BL_RESOURCE_LIST(X)
#undef X
};

const char *const bl_action_names[BL_ACTION_COUNT] = {
#define X(name, text, resource, group, amount, what) text,
    BL_ACTION_LIST(X)
#undef X
};

const bl_amount_kind bl_action_amounts[BL_ACTION_COUNT] = {
#define X(name, text, resource, group, amount, what) BL_AMOUNT_##amount,
    BL_ACTION_LIST(X)
#undef X
};

static const struct {
  bl_resource resource;
  bl_group_kind group;
} kind_info[BL_ACTION_COUNT] = {
#define X(name, text, resource, group, amount, what) {BL_RESOURCE_##resource, BL_GROUP_##group},
    BL_ACTION_LIST(X)
#undef X
};

const char *const bl_buffer_names[BL_BUFFER_COUNT] = {
#define X(name, text, kept, scope) text,
    BL_BUFFER_LIST(X)
#undef X
};

const bool bl_buffer_kept[BL_BUFFER_COUNT] = {
#define X(name, text, kept, scope) kept,
    BL_BUFFER_LIST(X)
#undef X
};

/* What tells the instances of a buffer apart. */
typedef enum scope { STEP = 0, LAYER = 1, MICRO = 2, BOTH = LAYER | MICRO } scope;

static const scope buffer_scopes[BL_BUFFER_COUNT] = {
#define X(name, text, kept, scope) scope,
    BL_BUFFER_LIST(X)
#undef X
};

void bl_action_text(const bl_action *action, char *text) {
  int n = snprintf(text, BL_ACTION_TEXT_MAX, "%s", bl_action_names[action->kind]);
  const struct {
    const char *what;
    int32_t value;
    bool shown;
  } parts[] = {{"layer", action->layer, action->layer >= 0},
               {"micro-batch", action->micro_batch, action->micro_batch >= 0},
               {"piece", action->piece, action->pieces > 1}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && n < BL_ACTION_TEXT_MAX; i++)
    if (parts[i].shown)
      n += snprintf(text + n, (size_t)(BL_ACTION_TEXT_MAX - n), " %s %d", parts[i].what, parts[i].value);
}

void bl_step_free(bl_step *step) {
  free(step->actions);
  free(step->order);
  free(step->buffers);
  free(step->uses);
  free(step->waits);
  free(step->table);
  memset(step, 0, sizeof *step);
}

bl_status bl_step_begin(bl_step *step, const bl_layout *layout, int32_t layers, int32_t stage, int32_t ranks_per_node) {
  memset(step, 0, sizeof *step);
  step->layers = layers;
  step->micro_batches = layout->micro_batches;
  step->stage = stage;
  step->pp = layout->pp;
  step->vp = layout->vp;
  for (int g = 0; g < BL_GROUP_COUNT; g++) {
    /* Members are equally spaced from rank 0, so the first group reaches as far as any. */
    int32_t *members;
    const int32_t size = bl_group_size(layout, (bl_group_kind)g);
    BL_TRY(bl_new(&members, (size_t)size, sizeof *members, "the ranks of a group"));
    bl_group_members(layout, (bl_group_kind)g, 0, members);
    const bool one_node = ranks_per_node == 0 || members[size - 1] < ranks_per_node;
    step->link[g] = one_node ? BL_RESOURCE_INTRA_LINK : BL_RESOURCE_INTER_LINK;
    free(members);
  }
  return BL_OK;
}

/* Exchanges that a micro-batch waits for, which inline programs run in the compute stream. */
static bool is_exchange(bl_action_kind kind) {
  const bl_group_kind group = kind_info[kind].group;
  const bl_amount_kind amount = bl_action_amounts[kind];
  return group == BL_GROUP_TP || group == BL_GROUP_CP || group == BL_GROUP_ETP || amount == BL_AMOUNT_COUNTS ||
         amount == BL_AMOUNT_EXCHANGE_ROWS;
}

static bl_resource resource_of(const bl_step *step, bl_action_kind kind) {
  const bool beside = step->rows_beside && bl_action_amounts[kind] == BL_AMOUNT_EXCHANGE_ROWS;
  if (step->exchanges_inline && is_exchange(kind) && !beside) return BL_RESOURCE_COMPUTE;
  const bl_resource resource = kind_info[kind].resource;
  return resource == BL_RESOURCE_LINK ? step->link[kind_info[kind].group] : resource;
}

bl_status bl_step_add(bl_step *step, bl_action_kind kind, int32_t layer, int32_t micro_batch) {
  const size_t n = (size_t)step->n_actions;
  BL_TRY(bl_grow(&step->actions, &step->actions_room, n + 1, sizeof *step->actions, "the step program"));
  BL_TRY(bl_grow(&step->order, &step->order_room, n + 1, sizeof *step->order, "the step program"));
  step->actions[n] = (bl_action){.kind = kind,
                                 .part = step->part,
                                 .chunk = step->chunk,
                                 .layer = layer,
                                 .micro_batch = micro_batch,
                                 .pieces = 1,
                                 .peer_stage = -1,
                                 .resource = resource_of(step, kind),
                                 .group = kind_info[kind].group,
                                 .first_use = step->n_uses};
  step->order[n] = step->n_actions++;
  return BL_OK;
}

/* -- buffers by name: an open-addressing table of buffer numbers, at most half full -------------------------------- */

static bool same_buffer(const bl_buffer *a, const bl_buffer *b) {
  return a->kind == b->kind && a->layer == b->layer && a->micro_batch == b->micro_batch && a->piece == b->piece;
}

static size_t slot_of(const bl_step *step, const bl_buffer *wanted) {
  const uint64_t hash = bl_hash_u64((uint64_t)wanted->kind, (uint64_t)(int64_t)wanted->layer,
                                    (uint64_t)(int64_t)wanted->micro_batch, (uint64_t)(int64_t)wanted->piece);
  size_t slot = (size_t)hash & (step->table_size - 1);
  while (step->table[slot] >= 0 && !same_buffer(&step->buffers[step->table[slot]], wanted))
    slot = (slot + 1) & (step->table_size - 1);
  return slot;
}

static bl_status grow_table(bl_step *step) {
  int32_t *table;
  const size_t size = step->table_size ? 2 * step->table_size : 256;
  BL_TRY(bl_new(&table, size, sizeof *table, "the step program"));
  for (size_t i = 0; i < size; i++) table[i] = -1;
  free(step->table);
  step->table = table;
  step->table_size = size;
  for (int32_t b = 0; b < step->n_buffers; b++) table[slot_of(step, &step->buffers[b])] = b;
  return BL_OK;
}

/* Rows that experts work on in pieces; what they are cut from and put together in is whole. */
static bool has_pieces(bl_buffer_kind kind) {
  switch (kind) {
  case BL_BUFFER_RECEIVED:
  case BL_BUFFER_ROWS:
  case BL_BUFFER_ROWS_PARTIAL:
  case BL_BUFFER_EXPERT_SAVED:
  case BL_BUFFER_EXPERT_OUT:
  case BL_BUFFER_DEXPERT_OUT:
  case BL_BUFFER_DROWS:
  case BL_BUFFER_DHIDDEN:
  case BL_BUFFER_DRECEIVED:
    return true;
  default:
    return false;
  }
}

/* Adds a use of the buffer, which gets a number where the program has not named it yet. */
static bl_status use(bl_step *step, bl_buffer_kind kind, int32_t layer, int32_t micro_batch, int32_t piece) {
  const scope by = buffer_scopes[kind];
  const bl_buffer wanted = {kind, by & LAYER ? layer : -1, by & MICRO ? micro_batch : -1, has_pieces(kind) ? piece : 0};
  const size_t n = (size_t)step->n_buffers;
  if (2 * (n + 1) > step->table_size) BL_TRY(grow_table(step));
  const size_t slot = slot_of(step, &wanted);
  if (step->table[slot] < 0) {
    BL_TRY(bl_grow(&step->buffers, &step->buffers_room, n + 1, sizeof *step->buffers, "the step program"));
    step->buffers[n] = wanted;
    step->table[slot] = step->n_buffers++;
  }
  BL_TRY(bl_grow(&step->uses, &step->uses_room, (size_t)step->n_uses + 1, sizeof *step->uses, "the step program"));
  step->uses[step->n_uses++] = step->table[slot];
  return BL_OK;
}

bl_status bl_step_reads(bl_step *step, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  bl_action *action = &step->actions[step->n_actions - 1];
  action->n_reads++;
  return use(step, kind, layer, micro_batch, action->piece);
}

bl_status bl_step_writes(bl_step *step, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  bl_action *action = &step->actions[step->n_actions - 1];
  action->n_writes++;
  return use(step, kind, layer, micro_batch, action->piece);
}

/* -- waits ------------------------------------------------------------------------------------------------------------
 * Per buffer: who wrote it last, and who has read it since. A reader waits for the last writer; a writer waits for the
 * readers since, or where there are none for the last writer. */
typedef struct tracker {
  int32_t *writer;       /* [buffers]: action or -1 */
  int32_t *first_reader; /* [buffers]: into links, -1: none */
  struct {
    int32_t action, next;
  } * links; /* [uses] */
  int32_t n_links;
} tracker;

static int compare_int32(const void *a, const void *b) {
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

static bl_status add_wait(bl_step *step, int32_t action) {
  const size_t n = (size_t)step->n_waits;
  BL_TRY(bl_grow(&step->waits, &step->waits_room, n + 1, sizeof *step->waits, "the step program"));
  step->waits[n] = action;
  step->n_waits++;
  return BL_OK;
}

static void sort_waits(bl_step *step, bl_action *action) {
  int32_t *waits = step->waits + action->first_wait;
  const int32_t n = step->n_waits - action->first_wait;
  int32_t kept = 0;
  if (n > 1) qsort(waits, (size_t)n, sizeof *waits, compare_int32);
  for (int32_t i = 0; i < n; i++)
    if (kept == 0 || waits[i] != waits[kept - 1]) waits[kept++] = waits[i];
  action->n_waits = kept;
  step->n_waits = action->first_wait + kept;
}

static bl_status waits_of_action(bl_step *step, tracker *t, int32_t number) {
  bl_action *action = &step->actions[number];
  const int32_t *reads = step->uses + action->first_use, *writes = reads + action->n_reads;
  action->first_wait = step->n_waits;
  for (int32_t i = 0; i < action->n_reads; i++)
    if (t->writer[reads[i]] >= 0) BL_TRY(add_wait(step, t->writer[reads[i]]));
  for (int32_t i = 0; i < action->n_writes; i++) {
    const int32_t b = writes[i];
    if (t->writer[b] >= 0 && t->first_reader[b] < 0) BL_TRY(add_wait(step, t->writer[b]));
    for (int32_t l = t->first_reader[b]; l >= 0; l = t->links[l].next) BL_TRY(add_wait(step, t->links[l].action));
  }
  for (int32_t i = 0; i < action->n_reads; i++) {
    t->links[t->n_links].action = number;
    t->links[t->n_links].next = t->first_reader[reads[i]];
    t->first_reader[reads[i]] = t->n_links++;
  }
  for (int32_t i = 0; i < action->n_writes; i++) {
    t->writer[writes[i]] = number;
    t->first_reader[writes[i]] = -1;
  }
  sort_waits(step, action);
  return BL_OK;
}

bl_status bl_step_derive_waits(bl_step *step) {
  tracker t = {0};
  bl_status status = BL_OK;
  const size_t n = (size_t)step->n_buffers;
  step->n_waits = 0;
  BL_TRY_GOTO(status, bl_new(&t.writer, n, sizeof *t.writer, "the step program"), done);
  BL_TRY_GOTO(status, bl_new(&t.first_reader, n, sizeof *t.first_reader, "the step program"), done);
  BL_TRY_GOTO(status, bl_new(&t.links, (size_t)step->n_uses, sizeof *t.links, "the step program"), done);
  for (size_t b = 0; b < n; b++) t.writer[b] = t.first_reader[b] = -1;
  for (int32_t i = 0; i < step->n_actions; i++) BL_TRY_GOTO(status, waits_of_action(step, &t, step->order[i]), done);
done:
  free(t.writer);
  free(t.first_reader);
  free(t.links);
  return status;
}
