/* step_layers.c - the actions of one layer and micro-batch, forward and backward, under every layout. */
#include "costmodel/step_builder.h"

static bool copies(const builder *b) { return b->options->copies; }
static bool split(const builder *b) { return b->layout->tp > 1; }

/* -- the blocks of a layer: a mixer, a feed-forward or experts, or both ----------------------------------------------
 * MID lies between the two. A layer that has one of them alone goes straight from its X to the next. */

static bool has_mixer(const builder *b, int32_t l) {
  return bl_layer_has_attention(kind_of(b, l)) || kind_of(b, l) == BL_LAYER_STATE_SPACE;
}
static bool has_rest(const builder *b, int32_t l) { return is_moe(b, l) || bl_layer_has_ffn(kind_of(b, l)); }

typedef struct place {
  bl_buffer_kind kind;
  int32_t layer;
} place;

static place behind_mixer(const builder *b, int32_t l) {
  return has_rest(b, l) ? (place){B(MID), l} : (place){B(X), l + 1};
}
static place before_rest(const builder *b, int32_t l) {
  return has_mixer(b, l) ? (place){B(MID), l} : (place){B(X), l};
}
static place gradient_behind_mixer(const builder *b, int32_t l) {
  return has_rest(b, l) ? (place){B(DMID), l} : (place){B(DX), l + 1};
}
static place gradient_before_rest(const builder *b, int32_t l) {
  return has_mixer(b, l) ? (place){B(DMID), l} : (place){B(DX), l};
}

/* -- products that tp splits: all rows in, partial sums out ----------------------------------------------------------
 */

static const place nothing = {BL_BUFFER_COUNT, -1};

/* Gathers the rows of `from` where tp splits what follows.  @return : what to read. */
static place gathered(builder *b, place from, int32_t l, int32_t m) {
  if (!split(b)) return from;
  add(b, BL_ACTION_SEQUENCE_GATHER, l, m);
  reads(b, from.kind, from.layer, m);
  writes(b, B(WHOLE), l, m);
  return (place){B(WHOLE), l};
}

/* Where a product writes what ends in `to`. */
static void writes_product(builder *b, place to, int32_t l, int32_t m) {
  writes(b, split(b) ? B(PARTIAL) : to.kind, split(b) ? l : to.layer, m);
}

/* Adds the partial sums into `to`; `residual`: what the product's rank adds where nothing is split. */
static void scattered(builder *b, place residual, place to, int32_t l, int32_t m) {
  if (!split(b)) return;
  add(b, BL_ACTION_SEQUENCE_SCATTER, l, m);
  reads(b, B(PARTIAL), l, m);
  if (residual.kind != BL_BUFFER_COUNT) reads(b, residual.kind, residual.layer, m);
  writes(b, to.kind, to.layer, m);
}

/* -- forward --------------------------------------------------------------------------------------------------------
 */

static bl_buffer_kind mixer_saved(const builder *b, int32_t l) {
  return kind_of(b, l) == BL_LAYER_STATE_SPACE ? B(STATE_SPACE_SAVED) : B(ATTENTION_SAVED);
}

/* Attention or state-space scan; what cp's ranks exchange for it stands before it. */
static void mixer_fwd(builder *b, int32_t l, int32_t m) {
  const bool state = kind_of(b, l) == BL_LAYER_STATE_SPACE, exchanged = b->layout->cp > 1;
  const bl_buffer_kind passed = state ? B(HEADS) : B(KEYS);
  const place x = {B(X), l}, out = behind_mixer(b, l), in = gathered(b, x, l, m);
  if (exchanged)
    act(b, state ? BL_ACTION_HEADS_EXCHANGE : BL_ACTION_CONTEXT_RING, l, m,
        BUFFERS((int)in.kind, (int)dense_weights(b)), BUFFERS((int)passed));
  act(b, state ? BL_ACTION_STATE_SPACE_FWD : BL_ACTION_ATTENTION_FWD, l, m,
      BUFFERS((int)in.kind, (int)dense_weights(b)), BUFFERS(LIST_END));
  if (exchanged) reads(b, passed, l, m);
  writes(b, mixer_saved(b, l), l, m);
  writes_product(b, out, l, m);
  scattered(b, x, out, l, m);
}

static void ffn_fwd(builder *b, int32_t l, int32_t m) {
  const place mid = before_rest(b, l), out = {B(X), l + 1}, in = gathered(b, mid, l, m);
  act(b, BL_ACTION_FFN_FWD, l, m, BUFFERS((int)in.kind, (int)dense_weights(b)), BUFFERS(B(FFN_SAVED)));
  writes_product(b, out, l, m);
  scattered(b, mid, out, l, m);
}

static void late_fill(builder *b, int32_t l, int32_t m) {
  act(b, BL_ACTION_LATE_FILL, l, m, BUFFERS(B(HOSTS), B(WEIGHT_HOME), B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)),
      BUFFERS(B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)));
}

static void shared_fwd(builder *b, int32_t l, int32_t m) {
  const place out = {B(SHARED_OUT), l}, in = gathered(b, (place){B(NORM2), l}, l, m);
  act(b, BL_ACTION_SHARED_FWD, l, m, BUFFERS((int)in.kind, (int)dense_weights(b)), BUFFERS(B(SHARED_SAVED)));
  writes_product(b, out, l, m);
  scattered(b, nothing, out, l, m);
}

static void experts_fwd(builder *b, int32_t l, int32_t m) {
  const bool gather = b->layout->etp > 1;
  if (gather) act(b, BL_ACTION_ROWS_GATHER, l, m, BUFFERS(B(RECEIVED), B(QUOTA)), BUFFERS(B(ROWS)));
  add(b, BL_ACTION_EXPERT_FWD, l, m);
  reads(b, gather ? B(ROWS) : B(RECEIVED), l, m);
  reads(b, B(QUOTA), l, m);
  reads(b, home_weights(b), l, m);
  if (copies(b)) reads(b, B(WEIGHT_COPY), l, m);
  writes(b, B(EXPERT_SAVED), l, m);
  writes(b, gather ? B(ROWS_PARTIAL) : B(EXPERT_OUT), l, m);
  if (gather) act(b, BL_ACTION_ROWS_SCATTER, l, m, BUFFERS(B(ROWS_PARTIAL), B(QUOTA)), BUFFERS(B(EXPERT_OUT)));
}

static void moe_fwd(builder *b, int32_t l, int32_t m, bool again) {
  const bool shared = b->model->shared_experts > 0;
  const bl_buffer_kind mid = before_rest(b, l).kind;
  act(b, BL_ACTION_GATE_FWD, l, m, BUFFERS((int)mid, (int)dense_weights(b)),
      BUFFERS(B(NORM2), B(GATE), B(LOCAL_COUNTS)));
  if (!again) {
    act(b, BL_ACTION_EXCHANGE_COUNTS, l, m, BUFFERS(B(LOCAL_COUNTS)), BUFFERS(B(COUNTS)));
    act(b, BL_ACTION_SOLVE_SHARES, l, m, BUFFERS(B(COUNTS), B(HOSTS), B(HISTORY)), BUFFERS(B(QUOTA), B(HISTORY)));
    if (b->options->late_repair) {
      writes(b, B(HOSTS), l, m);
      late_fill(b, l, m);
    }
  }
  act(b, BL_ACTION_SCATTER, l, m, BUFFERS(B(NORM2), B(GATE), B(QUOTA)), BUFFERS(B(SEND)));
  act(b, BL_ACTION_DISPATCH, l, m, BUFFERS(B(SEND), B(QUOTA)), BUFFERS(B(RECEIVED)));
  if (shared) shared_fwd(b, l, m);
  experts_fwd(b, l, m);
  act(b, BL_ACTION_COMBINE, l, m, BUFFERS(B(EXPERT_OUT), B(QUOTA)), BUFFERS(B(BACK)));
  act(b, BL_ACTION_GATHER, l, m, BUFFERS(B(BACK), B(GATE), B(QUOTA), (int)mid), BUFFERS(LIST_END));
  if (shared) reads(b, B(SHARED_OUT), l, m);
  writes(b, B(X), l + 1, m);
}

static void rest_fwd(builder *b, int32_t l, int32_t m, bool again) {
  if (is_moe(b, l))
    moe_fwd(b, l, m, again);
  else if (has_rest(b, l))
    ffn_fwd(b, l, m);
}

void bl_build_layer_fwd(builder *b, int32_t l, int32_t m) {
  if (has_mixer(b, l)) mixer_fwd(b, l, m);
  rest_fwd(b, l, m, false);
}

/* -- backward --------------------------------------------------------------------------------------------------------
 * expert_dw is issued behind dispatch_bwd, so that where links and compute run apart it hides the exchange. */

static void experts_bwd(builder *b, int32_t l, int32_t m) {
  const bool gather = b->layout->etp > 1;
  const bl_buffer_kind gradients = gather ? B(DROWS) : B(DEXPERT_OUT);
  if (gather) act(b, BL_ACTION_ROWS_GATHER, l, m, BUFFERS(B(DEXPERT_OUT), B(QUOTA)), BUFFERS(B(DROWS)));
  add(b, BL_ACTION_EXPERT_DX, l, m);
  reads(b, gradients, l, m);
  reads(b, B(EXPERT_SAVED), l, m);
  reads(b, B(QUOTA), l, m);
  reads(b, home_weights(b), l, m);
  if (copies(b)) reads(b, B(WEIGHT_COPY), l, m);
  writes(b, B(DHIDDEN), l, m);
  writes(b, gather ? B(ROWS_PARTIAL) : B(DRECEIVED), l, m);
  if (gather) act(b, BL_ACTION_ROWS_SCATTER, l, m, BUFFERS(B(ROWS_PARTIAL), B(QUOTA)), BUFFERS(B(DRECEIVED)));
  act(b, BL_ACTION_DISPATCH_BWD, l, m, BUFFERS(B(DRECEIVED), B(QUOTA)), BUFFERS(B(DSEND)));
  act(b, BL_ACTION_EXPERT_DW, l, m,
      BUFFERS((int)gradients, B(DHIDDEN), B(EXPERT_SAVED), gather ? B(ROWS) : B(RECEIVED), B(QUOTA), B(GRAD_HOME)),
      BUFFERS(LIST_END));
  if (copies(b)) reads(b, B(GRAD_COPY), l, m);
  writes(b, B(GRAD_HOME), l, m);
  if (copies(b)) writes(b, B(GRAD_COPY), l, m);
}

static void shared_bwd(builder *b, int32_t l, int32_t m) {
  const place out = {B(DSHARED), l}, in = gathered(b, (place){B(DX), l + 1}, l, m);
  act(b, BL_ACTION_SHARED_BWD, l, m, BUFFERS(B(SHARED_SAVED), B(NORM2), (int)dense_weights(b), B(GRAD_DENSE)),
      BUFFERS(LIST_END));
  reads(b, in.kind, in.layer, m);
  writes_product(b, out, l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, nothing, out, l, m);
}

static void moe_bwd(builder *b, int32_t l, int32_t m) {
  const bool shared = b->model->shared_experts > 0;
  act(b, BL_ACTION_GATHER_BWD, l, m, BUFFERS(B(BACK), B(GATE), B(QUOTA)), BUFFERS(LIST_END));
  reads(b, B(DX), l + 1, m);
  writes(b, B(DBACK), l, m);
  writes(b, B(DGATE), l, m);
  act(b, BL_ACTION_COMBINE_BWD, l, m, BUFFERS(B(DBACK), B(QUOTA)), BUFFERS(B(DEXPERT_OUT)));
  if (shared) shared_bwd(b, l, m);
  experts_bwd(b, l, m);
  act(b, BL_ACTION_SCATTER_BWD, l, m, BUFFERS(B(DSEND), B(GATE), B(QUOTA)), BUFFERS(B(DNORM2)));
  act(b, BL_ACTION_GATE_BWD, l, m,
      BUFFERS(B(DNORM2), B(DGATE), B(GATE), B(NORM2), (int)before_rest(b, l).kind, (int)dense_weights(b),
              B(GRAD_DENSE)),
      BUFFERS(LIST_END));
  reads(b, B(DX), l + 1, m);
  if (shared) reads(b, B(DSHARED), l, m);
  writes(b, gradient_before_rest(b, l).kind, l, m);
  writes(b, B(GRAD_DENSE), l, m);
}

static void ffn_bwd(builder *b, int32_t l, int32_t m) {
  const place dx = {B(DX), l + 1}, out = gradient_before_rest(b, l), in = gathered(b, dx, l, m);
  act(b, BL_ACTION_FFN_BWD, l, m,
      BUFFERS(B(FFN_SAVED), (int)before_rest(b, l).kind, (int)dense_weights(b), B(GRAD_DENSE)), BUFFERS(LIST_END));
  reads(b, in.kind, in.layer, m);
  writes_product(b, out, l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, dx, out, l, m);
}

static void mixer_bwd(builder *b, int32_t l, int32_t m) {
  const bool state = kind_of(b, l) == BL_LAYER_STATE_SPACE, exchanged = b->layout->cp > 1;
  const bl_buffer_kind passed = state ? B(HEADS) : B(KEYS), saved = mixer_saved(b, l);
  const place dout = gradient_behind_mixer(b, l), out = {B(DX), l}, in = gathered(b, dout, l, m);
  if (exchanged) {
    act(b, state ? BL_ACTION_HEADS_EXCHANGE : BL_ACTION_CONTEXT_RING_BWD, l, m, BUFFERS((int)saved, (int)passed),
        BUFFERS(LIST_END));
    reads(b, in.kind, in.layer, m);
    writes(b, passed, l, m);
  }
  act(b, state ? BL_ACTION_STATE_SPACE_BWD : BL_ACTION_ATTENTION_BWD, l, m,
      BUFFERS((int)saved, B(X), (int)dense_weights(b), B(GRAD_DENSE)), BUFFERS(LIST_END));
  reads(b, in.kind, in.layer, m);
  if (exchanged) reads(b, passed, l, m);
  writes_product(b, out, l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, dout, out, l, m);
}

/* What backward needs and forward did not keep. */
static void recompute(builder *b, int32_t l, int32_t m) {
  const bl_recompute what = (bl_recompute)b->layout->recompute;
  if (what == BL_RECOMPUTE_FULL && has_mixer(b, l)) mixer_fwd(b, l, m);
  if (what == BL_RECOMPUTE_SELECTIVE || what == BL_RECOMPUTE_FFN) {
    const bl_buffer_kind saved = has_mixer(b, l) ? mixer_saved(b, l) : is_moe(b, l) ? B(NORM2) : B(FFN_SAVED);
    act(b, BL_ACTION_RECOMPUTE, l, m, BUFFERS(B(X), (int)dense_weights(b), (int)saved), BUFFERS(LIST_END));
    if (has_mixer(b, l) && has_rest(b, l)) reads(b, B(MID), l, m);
    writes(b, saved, l, m);
  }
  if (what == BL_RECOMPUTE_FULL || what == BL_RECOMPUTE_FFN) rest_fwd(b, l, m, true);
}

void bl_build_layer_bwd(builder *b, int32_t l, int32_t m) {
  recompute(b, l, m);
  if (is_moe(b, l))
    moe_bwd(b, l, m);
  else if (has_rest(b, l))
    ffn_bwd(b, l, m);
  if (has_mixer(b, l)) mixer_bwd(b, l, m);
}
