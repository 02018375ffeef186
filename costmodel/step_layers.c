/* step_layers.c - the actions of one layer and micro-batch, forward and backward, under every layout. */
#include "costmodel/step_builder.h"

static bool copies(const builder *b) { return b->options->copies; }
static bool split(const builder *b) { return b->layout->tp > 1; }

/* -- products that tp splits: all rows in, partial sums out ----------------------------------------------------------
 */

/* Gathers the rows of `from` where tp splits what follows.  @return : the buffer to read. */
static bl_buffer_kind gathered(builder *b, bl_buffer_kind from, int32_t from_layer, int32_t l, int32_t m) {
  if (!split(b)) return from;
  add(b, BL_ACTION_SEQUENCE_GATHER, l, m);
  reads(b, from, from_layer, m);
  writes(b, B(WHOLE), l, m);
  return B(WHOLE);
}

static bl_buffer_kind product_of(const builder *b, bl_buffer_kind to) { return split(b) ? B(PARTIAL) : to; }

/* Adds the partial sums into `to`; `residual`: what the product's rank adds where nothing is split. */
static void scattered(builder *b, bl_buffer_kind residual, int32_t residual_layer, bl_buffer_kind to, int32_t to_layer,
                      int32_t l, int32_t m) {
  if (!split(b)) return;
  add(b, BL_ACTION_SEQUENCE_SCATTER, l, m);
  reads(b, B(PARTIAL), l, m);
  if (residual != BL_BUFFER_COUNT) reads(b, residual, residual_layer, m);
  writes(b, to, to_layer, m);
}

/* What was gathered lies under the gathering action's own layer. */
static void reads_gathered(builder *b, bl_buffer_kind kind, int32_t layer, int32_t l, int32_t m) {
  reads(b, kind, kind == B(WHOLE) ? l : layer, m);
}

/* -- forward --------------------------------------------------------------------------------------------------------
 */

static void attention_fwd(builder *b, int32_t l, int32_t m) {
  const bool ring = b->layout->cp > 1;
  const bl_buffer_kind in = gathered(b, B(X), l, l, m);
  if (ring) act(b, BL_ACTION_CONTEXT_RING, l, m, BUFFERS((int)in, (int)dense_weights(b)), BUFFERS(B(KEYS)));
  act(b, BL_ACTION_ATTENTION_FWD, l, m, BUFFERS((int)in, (int)dense_weights(b)), BUFFERS(LIST_END));
  if (ring) reads(b, B(KEYS), l, m);
  writes(b, B(ATTENTION_SAVED), l, m);
  writes(b, product_of(b, B(MID)), l, m);
  scattered(b, B(X), l, B(MID), l, l, m);
}

static void ffn_fwd(builder *b, int32_t l, int32_t m) {
  const bl_buffer_kind in = gathered(b, B(MID), l, l, m);
  act(b, BL_ACTION_FFN_FWD, l, m, BUFFERS((int)in, (int)dense_weights(b)), BUFFERS(B(FFN_SAVED)));
  writes(b, product_of(b, B(X)), split(b) ? l : l + 1, m);
  scattered(b, B(MID), l, B(X), l + 1, l, m);
}

static void late_fill(builder *b, int32_t l, int32_t m) {
  act(b, BL_ACTION_LATE_FILL, l, m, BUFFERS(B(HOSTS), B(WEIGHT_HOME), B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)),
      BUFFERS(B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)));
}

static void shared_fwd(builder *b, int32_t l, int32_t m) {
  const bl_buffer_kind in = gathered(b, B(NORM2), l, l, m);
  act(b, BL_ACTION_SHARED_FWD, l, m, BUFFERS((int)in, (int)dense_weights(b)), BUFFERS(B(SHARED_SAVED)));
  writes(b, product_of(b, B(SHARED_OUT)), l, m);
  scattered(b, BL_BUFFER_COUNT, -1, B(SHARED_OUT), l, l, m);
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
  act(b, BL_ACTION_GATE_FWD, l, m, BUFFERS(B(MID), (int)dense_weights(b)), BUFFERS(B(NORM2), B(GATE), B(LOCAL_COUNTS)));
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
  act(b, BL_ACTION_GATHER, l, m, BUFFERS(B(BACK), B(GATE), B(QUOTA), B(MID)), BUFFERS(LIST_END));
  if (shared) reads(b, B(SHARED_OUT), l, m);
  writes(b, B(X), l + 1, m);
}

void bl_build_layer_fwd(builder *b, int32_t l, int32_t m) {
  attention_fwd(b, l, m);
  if (is_moe(b, l))
    moe_fwd(b, l, m, false);
  else
    ffn_fwd(b, l, m);
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
  const bl_buffer_kind in = gathered(b, B(DX), l + 1, l, m);
  act(b, BL_ACTION_SHARED_BWD, l, m, BUFFERS(B(SHARED_SAVED), B(NORM2), (int)dense_weights(b), B(GRAD_DENSE)),
      BUFFERS(LIST_END));
  reads_gathered(b, in, l + 1, l, m);
  writes(b, product_of(b, B(DSHARED)), l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, BL_BUFFER_COUNT, -1, B(DSHARED), l, l, m);
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
      BUFFERS(B(DNORM2), B(DGATE), B(GATE), B(NORM2), B(MID), (int)dense_weights(b), B(GRAD_DENSE)), BUFFERS(LIST_END));
  reads(b, B(DX), l + 1, m);
  if (shared) reads(b, B(DSHARED), l, m);
  writes(b, B(DMID), l, m);
  writes(b, B(GRAD_DENSE), l, m);
}

static void ffn_bwd(builder *b, int32_t l, int32_t m) {
  const bl_buffer_kind in = gathered(b, B(DX), l + 1, l, m);
  act(b, BL_ACTION_FFN_BWD, l, m, BUFFERS(B(FFN_SAVED), B(MID), (int)dense_weights(b), B(GRAD_DENSE)),
      BUFFERS(LIST_END));
  reads_gathered(b, in, l + 1, l, m);
  writes(b, product_of(b, B(DMID)), l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, B(DX), l + 1, B(DMID), l, l, m);
}

static void attention_bwd(builder *b, int32_t l, int32_t m) {
  const bool ring = b->layout->cp > 1;
  const bl_buffer_kind in = gathered(b, B(DMID), l, l, m);
  if (ring) act(b, BL_ACTION_CONTEXT_RING_BWD, l, m, BUFFERS((int)in, B(ATTENTION_SAVED), B(KEYS)), BUFFERS(B(KEYS)));
  act(b, BL_ACTION_ATTENTION_BWD, l, m,
      BUFFERS((int)in, B(ATTENTION_SAVED), B(X), (int)dense_weights(b), B(GRAD_DENSE)), BUFFERS(LIST_END));
  if (ring) reads(b, B(KEYS), l, m);
  writes(b, product_of(b, B(DX)), l, m);
  writes(b, B(GRAD_DENSE), l, m);
  scattered(b, B(DMID), l, B(DX), l, l, m);
}

/* What backward needs and forward did not keep. */
static void recompute(builder *b, int32_t l, int32_t m) {
  const bl_recompute what = (bl_recompute)b->layout->recompute;
  const bool moe = is_moe(b, l);
  if (what == BL_RECOMPUTE_FULL) attention_fwd(b, l, m);
  if (what == BL_RECOMPUTE_SELECTIVE || what == BL_RECOMPUTE_FFN)
    act(b, BL_ACTION_RECOMPUTE, l, m, BUFFERS(B(X), B(MID), (int)dense_weights(b), B(ATTENTION_SAVED)),
        BUFFERS(B(ATTENTION_SAVED)));
  if (what != BL_RECOMPUTE_FULL && what != BL_RECOMPUTE_FFN) return;
  if (moe)
    moe_fwd(b, l, m, true);
  else
    ffn_fwd(b, l, m);
}

void bl_build_layer_bwd(builder *b, int32_t l, int32_t m) {
  recompute(b, l, m);
  if (is_moe(b, l))
    moe_bwd(b, l, m);
  else
    ffn_bwd(b, l, m);
  attention_bwd(b, l, m);
}
