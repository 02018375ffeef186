/* step_build.c - the step program of one pipeline position: its stages' blocks, micro-batch after micro-batch, between
 * what begins and what ends a step. */
#include "costmodel/step_builder.h"

static bool copies(const builder *b) { return b->options->copies; }
static int32_t stage_of(const builder *b, int32_t chunk) { return chunk * b->layout->pp + b->step->stage; }
static int32_t first_layer(const builder *b, int32_t stage) { return b->layout->stage_first[stage]; }
static bool is_last(const builder *b, int32_t stage) { return stage == b->layout->pp * b->layout->vp - 1; }

static bool has_embed(const builder *b) { return b->step->stage == 0; }
static bool has_head(const builder *b) { return b->step->stage == b->layout->pp - 1; }

/* The layer of multi-token module i: X of this number enters it, X of the one before is what the module starts from. */
static int32_t module_layer(const builder *b, int32_t i) { return b->model->layers + 1 + 2 * i; }

/* Layers of this position, ascending, those of multi-token modules last: the one behind `layer` (-1: the first), or
 * INT32_MAX at the end. */
static int32_t next_layer(const builder *b, int32_t layer) {
  const int32_t modules = has_head(b) ? b->model->multi_token : 0;
  for (int32_t c = 0; c < b->layout->vp; c++) {
    const int32_t s = stage_of(b, c), first = first_layer(b, s), end = first_layer(b, s + 1);
    const int32_t l = layer + 1 > first ? layer + 1 : first;
    if (l < end) return l;
  }
  for (int32_t i = 0; i < modules; i++)
    if (module_layer(b, i) > layer) return module_layer(b, i);
  return INT32_MAX;
}

static int32_t previous_layer(const builder *b, int32_t layer) {
  int32_t found = -1;
  for (int32_t l = next_layer(b, -1); l < layer; l = next_layer(b, l)) found = l;
  return found;
}

#define EACH_LAYER(l)            \
  int32_t l = next_layer(b, -1); \
  l < INT32_MAX;                 \
  l = next_layer(b, l)
#define EACH_LAYER_BACK(l)                  \
  int32_t l = previous_layer(b, INT32_MAX); \
  l >= 0;                                   \
  l = previous_layer(b, l)

/* -- between steps --------------------------------------------------------------------------------------------------
 */

static void begin_step(builder *b) {
  const bool embedding = has_embed(b) || has_head(b);
  add(b, BL_ACTION_CHOOSE_HOSTS, -1, -1);
  for (EACH_LAYER(l))
    if (is_moe(b, l)) reads(b, B(HISTORY), l, -1);
  for (EACH_LAYER(l))
    if (is_moe(b, l)) writes(b, B(HOSTS), l, -1);
  for (EACH_LAYER(l))
    if (b->options->moves && is_moe(b, l))
      act(b, BL_ACTION_MOVE_HOME, l, -1, BUFFERS(B(HOSTS), B(WEIGHT_HOME), B(STATE_HOME)),
          BUFFERS(B(WEIGHT_HOME), B(STATE_HOME)));
  add(b, BL_ACTION_ZERO_GRADS, -1, -1);
  if (embedding) writes(b, B(GRAD_EMBED), -1, -1);
  for (EACH_LAYER(l)) {
    writes(b, B(GRAD_DENSE), l, -1);
    if (is_moe(b, l)) writes(b, B(GRAD_HOME), l, -1);
    if (is_moe(b, l) && copies(b)) writes(b, B(GRAD_COPY), l, -1);
  }
}

/* -- sharded weights and gradients (ZeRO) ----------------------------------------------------------------------------
 */

/* Weights of a layer (-1: embedding and head) from the owners of their shards. */
static void gather_weights(builder *b, int32_t l, int32_t m) {
  if (dense_is_shared(b))
    act(b, BL_ACTION_WEIGHT_GATHER, l, m, BUFFERS((int)(l < 0 ? B(STATE_EMBED) : B(STATE_DENSE))),
        BUFFERS((int)(l < 0 ? embed_weights(b) : dense_weights(b))));
  if (l >= 0 && is_moe(b, l) && experts_are_shared(b))
    act(b, BL_ACTION_EXPERT_GATHER, l, m, BUFFERS(B(STATE_HOME)), BUFFERS((int)home_weights(b)));
}

static void gather_for_fwd(builder *b, int32_t l, int32_t m) {
  if (b->layout->zero == 1 && m == 0) gather_weights(b, l, -1);
  if (b->layout->zero == 3) gather_weights(b, l, m);
}

static void reduce_experts(builder *b, int32_t l, int32_t m) {
  if (l >= 0 && is_moe(b, l) && experts_are_shared(b))
    act(b, BL_ACTION_EXPERT_REDUCE, l, m, BUFFERS(B(GRAD_HOME)), BUFFERS(B(GRAD_HOME)));
}

static void reduce_dense(builder *b, int32_t l, int32_t m) {
  const list grad = BUFFERS((int)(l < 0 ? B(GRAD_EMBED) : B(GRAD_DENSE)));
  if (dense_is_shared(b)) act(b, BL_ACTION_DENSE_REDUCE, l, m, grad, grad);
}

/* Under zero 3 gradients leave for their owners in every micro-batch. */
static void reduce_for_bwd(builder *b, int32_t l, int32_t m) {
  if (b->layout->zero != 3) return;
  reduce_experts(b, l, m);
  reduce_dense(b, l, m);
}

/* -- forward --------------------------------------------------------------------------------------------------------
 */

static void transfer(builder *b, bl_action_kind kind, int32_t stage, int32_t l, int32_t m) {
  const bool sends = kind == BL_ACTION_SEND_ACTIVATION || kind == BL_ACTION_SEND_GRADIENT;
  const bl_buffer_kind what = kind == BL_ACTION_SEND_ACTIVATION || kind == BL_ACTION_RECV_ACTIVATION ? B(X) : B(DX);
  add(b, kind, l, m);
  if (b->status == BL_OK) b->step->actions[b->step->n_actions - 1].peer_stage = stage % b->layout->pp;
  if (sends)
    reads(b, what, l, m);
  else
    writes(b, what, l, m);
}

static void embed_fwd(builder *b, int32_t m) {
  const bool split = b->layout->tp > 1;
  gather_for_fwd(b, -1, m);
  act(b, BL_ACTION_EMBED_FWD, -1, m, BUFFERS(B(TOKENS), (int)embed_weights(b)), BUFFERS(LIST_END));
  writes(b, split ? B(PARTIAL) : B(X), split ? -1 : 0, m);
  if (!split) return;
  act(b, BL_ACTION_SEQUENCE_SCATTER, -1, m, BUFFERS(B(PARTIAL)), BUFFERS(LIST_END));
  writes(b, B(X), 0, m);
}

static void module_fwd(builder *b, int32_t i, int32_t m) {
  const int32_t l = module_layer(b, i);
  gather_for_fwd(b, l, m);
  act(b, BL_ACTION_MODULE_FWD, l, m, BUFFERS(B(TOKENS), (int)dense_weights(b)), BUFFERS(LIST_END));
  reads(b, B(X), l - 1, m);
  writes(b, B(X), l, m);
  bl_build_layer_fwd(b, l, m);
}

static void forward(builder *b, int32_t chunk, int32_t m) {
  const int32_t s = stage_of(b, chunk), first = first_layer(b, s), end = first_layer(b, s + 1);
  const bool alone = b->layout->pp == 1;
  b->step->part = BL_STEP_FORWARD;
  b->step->chunk = chunk;
  if (s > 0 && !alone) transfer(b, BL_ACTION_RECV_ACTIVATION, s + b->layout->pp - 1, first, m);
  if (s == 0 && first == end) embed_fwd(b, m);
  for (int32_t l = first; l < end; l++) {
    if (m == 0 && copies(b) && is_moe(b, l))
      act(b, BL_ACTION_COPY_FILL, l, -1, BUFFERS(B(HOSTS), B(WEIGHT_HOME)), BUFFERS(B(WEIGHT_COPY)));
    if (s == 0 && l == 0) embed_fwd(b, m);
    gather_for_fwd(b, l, m);
    bl_build_layer_fwd(b, l, m);
  }
  if (!is_last(b, s) && !alone) transfer(b, BL_ACTION_SEND_ACTIVATION, s + 1, end, m);
  for (int32_t i = 0; is_last(b, s) && i < b->model->multi_token; i++) module_fwd(b, i, m);
}

/* -- backward -------------------------------------------------------------------------------------------------------
 */

/* Norm, logits and loss on X of layer `last`, and their backward; l: -1 for the model's own, else a module's layer. */
static void head(builder *b, int32_t l, int32_t last, int32_t m) {
  const bool split = b->layout->tp > 1;
  if (split) {
    add(b, BL_ACTION_SEQUENCE_GATHER, l, m);
    reads(b, B(X), last, m);
    writes(b, B(WHOLE), l, m);
  }
  act(b, BL_ACTION_HEAD, l, m, BUFFERS(B(TOKENS), (int)embed_weights(b), B(GRAD_EMBED)), BUFFERS(LIST_END));
  reads(b, split ? B(WHOLE) : B(X), split ? l : last, m);
  if (l >= 0) reads(b, B(LOSS), -1, m);
  writes(b, B(GRAD_EMBED), -1, m);
  writes(b, B(LOSS), -1, m);
  writes(b, split ? B(PARTIAL) : B(DX), split ? l : last, m);
  if (!split) return;
  act(b, BL_ACTION_SEQUENCE_SCATTER, l, m, BUFFERS(B(PARTIAL)), BUFFERS(LIST_END));
  writes(b, B(DX), last, m);
}

static void heads(builder *b, int32_t m) {
  if (b->layout->zero == 3 || !has_embed(b)) gather_for_fwd(b, -1, m);
  head(b, -1, b->model->layers, m);
  for (int32_t i = 0; i < b->model->multi_token; i++) head(b, module_layer(b, i), module_layer(b, i) + 1, m);
}

static void layer_bwd(builder *b, int32_t l, int32_t m) {
  if (b->layout->zero == 3) gather_weights(b, l, m);
  bl_build_layer_bwd(b, l, m);
}

static void module_bwd(builder *b, int32_t i, int32_t m) {
  const int32_t l = module_layer(b, i);
  layer_bwd(b, l, m);
  act(b, BL_ACTION_MODULE_BWD, l, m, BUFFERS(B(DX), (int)dense_weights(b), B(GRAD_DENSE)), BUFFERS(LIST_END));
  reads(b, B(X), l - 1, m);
  reads(b, B(DX), l - 1, m);
  writes(b, B(DX), l - 1, m);
  writes(b, B(GRAD_DENSE), l, m);
  reduce_for_bwd(b, l, m);
}

static void embed_bwd(builder *b, int32_t m) {
  const bool split = b->layout->tp > 1;
  if (split) {
    add(b, BL_ACTION_SEQUENCE_GATHER, -1, m);
    reads(b, B(DX), 0, m);
    writes(b, B(WHOLE), -1, m);
  }
  act(b, BL_ACTION_EMBED_BWD, -1, m, BUFFERS(B(TOKENS), B(GRAD_EMBED)), BUFFERS(LIST_END));
  reads(b, split ? B(WHOLE) : B(DX), split ? -1 : 0, m);
  writes(b, B(GRAD_EMBED), -1, m);
}

static void backward(builder *b, int32_t chunk, int32_t m) {
  const int32_t s = stage_of(b, chunk), first = first_layer(b, s), end = first_layer(b, s + 1);
  const bool alone = b->layout->pp == 1;
  b->step->part = BL_STEP_BACKWARD;
  b->step->chunk = chunk;
  if (!is_last(b, s) && !alone) transfer(b, BL_ACTION_RECV_GRADIENT, s + 1, end, m);
  if (is_last(b, s)) heads(b, m);
  for (int32_t i = b->model->multi_token - 1; is_last(b, s) && i >= 0; i--) module_bwd(b, i, m);
  if (is_last(b, s) && !alone) reduce_for_bwd(b, -1, m);
  for (int32_t l = end - 1; l >= first; l--) {
    layer_bwd(b, l, m);
    reduce_for_bwd(b, l, m);
  }
  if (s > 0 && !alone) transfer(b, BL_ACTION_SEND_GRADIENT, s + b->layout->pp - 1, first, m);
  if (s > 0) return;
  embed_bwd(b, m);
  reduce_for_bwd(b, -1, m);
}

/* -- end of the step ------------------------------------------------------------------------------------------------
 */

static void reduce_grads(builder *b) {
  const bool embedding = has_embed(b) || has_head(b);
  for (EACH_LAYER_BACK(l))
    if (copies(b) && is_moe(b, l))
      act(b, BL_ACTION_COPY_REDUCE, l, -1, BUFFERS(B(HOSTS), B(GRAD_COPY), B(GRAD_HOME)), BUFFERS(B(GRAD_HOME)));
  if (embedding && b->model->tied_embedding && b->layout->pp > 1)
    act(b, BL_ACTION_TIED_REDUCE, -1, -1, BUFFERS(B(GRAD_EMBED)), BUFFERS(B(GRAD_EMBED)));
  if (b->layout->zero == 3) return;
  for (EACH_LAYER_BACK(l)) reduce_experts(b, l, -1);
  for (EACH_LAYER_BACK(l)) reduce_dense(b, l, -1);
  if (embedding) reduce_dense(b, -1, -1);
}

static void update_layer(builder *b, int32_t l) {
  const bool moe = is_moe(b, l);
  act(b, BL_ACTION_OPTIMIZER, l, -1, BUFFERS(B(GRAD_SCALE), B(GRAD_DENSE), B(WEIGHT_DENSE), B(STATE_DENSE)),
      BUFFERS(LIST_END));
  if (moe) reads(b, B(GRAD_HOME), l, -1), reads(b, B(WEIGHT_HOME), l, -1), reads(b, B(STATE_HOME), l, -1);
  writes(b, B(WEIGHT_DENSE), l, -1);
  writes(b, B(STATE_DENSE), l, -1);
  if (moe) writes(b, B(WEIGHT_HOME), l, -1), writes(b, B(STATE_HOME), l, -1);
}

static void square_layer(builder *b, int32_t l) {
  add(b, BL_ACTION_SQUARE_GRADS, l, -1);
  reads(b, l < 0 ? B(GRAD_EMBED) : B(GRAD_DENSE), l, -1);
  if (l >= 0 && is_moe(b, l)) reads(b, B(GRAD_HOME), l, -1);
  writes(b, B(SQUARES), l, -1);
}

static void update(builder *b) {
  const bool embedding = has_embed(b) || has_head(b);
  if (embedding) square_layer(b, -1);
  for (EACH_LAYER(l)) square_layer(b, l);
  add(b, BL_ACTION_GRAD_NORM, -1, -1);
  if (embedding) reads(b, B(SQUARES), -1, -1);
  for (EACH_LAYER(l)) reads(b, B(SQUARES), l, -1);
  for (int32_t m = 0; has_head(b) && m < b->step->micro_batches; m++) reads(b, B(LOSS), -1, m);
  writes(b, B(GRAD_SCALE), -1, -1);
  if (embedding)
    act(b, BL_ACTION_OPTIMIZER, -1, -1, BUFFERS(B(GRAD_SCALE), B(GRAD_EMBED), B(WEIGHT_EMBED), B(STATE_EMBED)),
        BUFFERS(B(WEIGHT_EMBED), B(STATE_EMBED)));
  for (EACH_LAYER(l)) update_layer(b, l);
}

static bl_status refuse(const bl_layout *layout, const bl_step_options *options, int32_t stage) {
  if (stage < 0 || stage >= layout->pp)
    return bl_fail(BL_EINPUT, "the step program of pipeline position %d: the layout has %d", stage, layout->pp);
  if (options->late_repair && !options->copies)
    return bl_fail(BL_EINPUT, "late repair places copies, and the step program has none");
  return BL_OK;
}

bl_status bl_step_build_unchecked(const bl_model *model, const bl_layout *layout, const bl_step_options *options,
                                  int32_t stage, bl_step *out) {
  BL_TRY(refuse(layout, options, stage));
  BL_TRY(bl_step_begin(out, layout, model->layers, stage, options->ranks_per_node));
  out->exchanges_inline = options->exchanges_inline;
  out->rows_beside = options->rows_beside;
  builder b = {model, layout, options, out, BL_OK};
  begin_step(&b);
  for (int32_t m = 0; m < layout->micro_batches; m++) {
    for (int32_t c = 0; c < layout->vp; c++) forward(&b, c, m);
    for (int32_t c = layout->vp - 1; c >= 0; c--) backward(&b, c, m);
  }
  out->part = BL_STEP_END;
  out->chunk = 0;
  reduce_grads(&b);
  update(&b);
  if (b.status == BL_OK) b.status = bl_step_derive_waits(out);
  if (b.status != BL_OK) bl_step_free(out);
  return b.status;
}

bl_status bl_step_build(const bl_model *model, const bl_layout *layout, const bl_step_options *options, int32_t stage,
                        bl_step *out) {
  BL_TRY(bl_step_build_unchecked(model, layout, options, stage, out));
  const bl_status status = bl_step_check(out);
  if (status != BL_OK) bl_step_free(out);
  return status;
}
