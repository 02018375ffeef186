/* step_build.c - the step program of dp x ep (x edp) on one stage, micro-batch after micro-batch. */
#include "costmodel/step.h"

/* What the builder carries along; `status` keeps the first failure, after which additions do nothing. */
typedef struct builder {
  const bl_model *model;
  const bl_layout *layout;
  const bl_step_options *options;
  bl_step *step;
  bl_status status;
} builder;

static void add(builder *b, bl_action_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_add(b->step, kind, layer, micro_batch);
}

static void reads(builder *b, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_reads(b->step, kind, layer, micro_batch);
}

static void writes(builder *b, bl_buffer_kind kind, int32_t layer, int32_t micro_batch) {
  if (b->status == BL_OK) b->status = bl_step_writes(b->step, kind, layer, micro_batch);
}

enum { LIST_END = -1, MAX_LIST = 12 };
typedef struct list {
  int kinds[MAX_LIST];
} list;
#define BUFFERS(...) ((list){{__VA_ARGS__, LIST_END}})

/* An action with the buffers of its own layer and micro-batch: those it reads, then those it writes. */
static void act(builder *b, bl_action_kind kind, int32_t layer, int32_t micro_batch, list in, list out) {
  add(b, kind, layer, micro_batch);
  for (const int *k = in.kinds; *k != LIST_END; k++) reads(b, (bl_buffer_kind)*k, layer, micro_batch);
  for (const int *k = out.kinds; *k != LIST_END; k++) writes(b, (bl_buffer_kind)*k, layer, micro_batch);
}

#define B(name) BL_BUFFER_##name

static bool copies(const builder *b) { return b->options->copies; }
static bool is_moe(const builder *b, int32_t layer) { return bl_model_layer_is_moe(b->model, layer); }

/* -- between steps --------------------------------------------------------------------------------------------------
 */

static void begin_step(builder *b) {
  const int32_t layers = b->step->layers;
  add(b, BL_ACTION_CHOOSE_HOSTS, -1, -1);
  reads(b, B(HISTORY), -1, -1);
  for (int32_t l = 0; l < layers; l++)
    if (is_moe(b, l)) writes(b, B(HOSTS), l, -1);
  for (int32_t l = 0; l < layers && b->options->moves; l++)
    if (is_moe(b, l))
      act(b, BL_ACTION_MOVE_HOME, l, -1, BUFFERS(B(HOSTS), B(WEIGHT_HOME), B(STATE_HOME)),
          BUFFERS(B(WEIGHT_HOME), B(STATE_HOME)));
  act(b, BL_ACTION_ZERO_GRADS, -1, -1, BUFFERS(LIST_END), BUFFERS(B(GRAD_EMBED)));
  for (int32_t l = 0; l < layers; l++) {
    writes(b, B(GRAD_DENSE), l, -1);
    if (is_moe(b, l)) writes(b, B(GRAD_HOME), l, -1);
    if (is_moe(b, l) && copies(b)) writes(b, B(GRAD_COPY), l, -1);
  }
}

/* -- forward --------------------------------------------------------------------------------------------------------
 */

static void late_fill(builder *b, int32_t l, int32_t m) {
  act(b, BL_ACTION_LATE_FILL, l, m, BUFFERS(B(HOSTS), B(WEIGHT_HOME), B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)),
      BUFFERS(B(WEIGHT_COPY), B(GRAD_HOME), B(GRAD_COPY)));
}

static void moe_fwd(builder *b, int32_t l, int32_t m) {
  const bool shared = b->model->shared_experts > 0;
  act(b, BL_ACTION_GATE_FWD, l, m, BUFFERS(B(MID), B(WEIGHT_DENSE)), BUFFERS(B(NORM2), B(GATE), B(LOCAL_COUNTS)));
  act(b, BL_ACTION_EXCHANGE_COUNTS, l, m, BUFFERS(B(LOCAL_COUNTS)), BUFFERS(B(COUNTS)));
  act(b, BL_ACTION_SOLVE_SHARES, l, m, BUFFERS(B(COUNTS), B(HOSTS), B(HISTORY)), BUFFERS(B(QUOTA), B(HISTORY)));
  if (b->options->late_repair) {
    writes(b, B(HOSTS), l, m);
    late_fill(b, l, m);
  }
  act(b, BL_ACTION_SCATTER, l, m, BUFFERS(B(NORM2), B(GATE), B(QUOTA)), BUFFERS(B(SEND)));
  act(b, BL_ACTION_DISPATCH, l, m, BUFFERS(B(SEND), B(QUOTA)), BUFFERS(B(RECEIVED)));
  if (shared)
    act(b, BL_ACTION_SHARED_FWD, l, m, BUFFERS(B(NORM2), B(WEIGHT_DENSE)), BUFFERS(B(SHARED_SAVED), B(SHARED_OUT)));
  add(b, BL_ACTION_EXPERT_FWD, l, m);
  reads(b, B(RECEIVED), l, m);
  reads(b, B(QUOTA), l, m);
  reads(b, B(WEIGHT_HOME), l, m);
  if (copies(b)) reads(b, B(WEIGHT_COPY), l, m);
  writes(b, B(EXPERT_SAVED), l, m);
  writes(b, B(EXPERT_OUT), l, m);
  act(b, BL_ACTION_COMBINE, l, m, BUFFERS(B(EXPERT_OUT), B(QUOTA)), BUFFERS(B(BACK)));
  act(b, BL_ACTION_GATHER, l, m, BUFFERS(B(BACK), B(GATE), B(QUOTA), B(MID)), BUFFERS(LIST_END));
  if (shared) reads(b, B(SHARED_OUT), l, m);
  writes(b, B(X), l + 1, m);
}

static void forward(builder *b, int32_t m) {
  for (int32_t l = 0; l < b->step->layers; l++) {
    if (m == 0 && copies(b) && is_moe(b, l))
      act(b, BL_ACTION_COPY_FILL, l, -1, BUFFERS(B(HOSTS), B(WEIGHT_HOME)), BUFFERS(B(WEIGHT_COPY)));
    if (l == 0) {
      act(b, BL_ACTION_EMBED_FWD, -1, m, BUFFERS(B(TOKENS), B(WEIGHT_EMBED)), BUFFERS(LIST_END));
      writes(b, B(X), 0, m);
    }
    act(b, BL_ACTION_ATTENTION_FWD, l, m, BUFFERS(B(X), B(WEIGHT_DENSE)), BUFFERS(B(ATTENTION_SAVED), B(MID)));
    if (is_moe(b, l))
      moe_fwd(b, l, m);
    else {
      act(b, BL_ACTION_FFN_FWD, l, m, BUFFERS(B(MID), B(WEIGHT_DENSE)), BUFFERS(B(FFN_SAVED)));
      writes(b, B(X), l + 1, m);
    }
  }
}

static void head(builder *b, int32_t m) {
  const int32_t last = b->step->layers;
  act(b, BL_ACTION_HEAD, -1, m, BUFFERS(B(TOKENS), B(WEIGHT_EMBED), B(GRAD_EMBED)), BUFFERS(LIST_END));
  reads(b, B(X), last, m);
  writes(b, B(GRAD_EMBED), -1, m);
  writes(b, B(LOSS), -1, m);
  writes(b, B(DX), last, m);
}

/* -- backward --------------------------------------------------------------------------------------------------------
 * expert_dw is issued behind dispatch_bwd, so that where links and compute run apart it hides the exchange. */

static void experts_bwd(builder *b, int32_t l, int32_t m) {
  add(b, BL_ACTION_EXPERT_DX, l, m);
  reads(b, B(DEXPERT_OUT), l, m);
  reads(b, B(EXPERT_SAVED), l, m);
  reads(b, B(QUOTA), l, m);
  reads(b, B(WEIGHT_HOME), l, m);
  if (copies(b)) reads(b, B(WEIGHT_COPY), l, m);
  writes(b, B(DHIDDEN), l, m);
  writes(b, B(DRECEIVED), l, m);
  act(b, BL_ACTION_DISPATCH_BWD, l, m, BUFFERS(B(DRECEIVED), B(QUOTA)), BUFFERS(B(DSEND)));
  act(b, BL_ACTION_EXPERT_DW, l, m,
      BUFFERS(B(DEXPERT_OUT), B(DHIDDEN), B(EXPERT_SAVED), B(RECEIVED), B(QUOTA), B(GRAD_HOME)), BUFFERS(LIST_END));
  if (copies(b)) reads(b, B(GRAD_COPY), l, m);
  writes(b, B(GRAD_HOME), l, m);
  if (copies(b)) writes(b, B(GRAD_COPY), l, m);
}

static void moe_bwd(builder *b, int32_t l, int32_t m) {
  const bool shared = b->model->shared_experts > 0;
  act(b, BL_ACTION_GATHER_BWD, l, m, BUFFERS(B(BACK), B(GATE), B(QUOTA)), BUFFERS(LIST_END));
  reads(b, B(DX), l + 1, m);
  writes(b, B(DBACK), l, m);
  writes(b, B(DGATE), l, m);
  act(b, BL_ACTION_COMBINE_BWD, l, m, BUFFERS(B(DBACK), B(QUOTA)), BUFFERS(B(DEXPERT_OUT)));
  if (shared) {
    act(b, BL_ACTION_SHARED_BWD, l, m, BUFFERS(B(SHARED_SAVED), B(NORM2), B(WEIGHT_DENSE), B(GRAD_DENSE)),
        BUFFERS(LIST_END));
    reads(b, B(DX), l + 1, m);
    writes(b, B(DSHARED), l, m);
    writes(b, B(GRAD_DENSE), l, m);
  }
  experts_bwd(b, l, m);
  act(b, BL_ACTION_SCATTER_BWD, l, m, BUFFERS(B(DSEND), B(GATE), B(QUOTA)), BUFFERS(B(DNORM2)));
  act(b, BL_ACTION_GATE_BWD, l, m,
      BUFFERS(B(DNORM2), B(DGATE), B(GATE), B(NORM2), B(MID), B(WEIGHT_DENSE), B(GRAD_DENSE)), BUFFERS(LIST_END));
  reads(b, B(DX), l + 1, m);
  if (shared) reads(b, B(DSHARED), l, m);
  writes(b, B(DMID), l, m);
  writes(b, B(GRAD_DENSE), l, m);
}

static void backward(builder *b, int32_t m) {
  for (int32_t l = b->step->layers - 1; l >= 0; l--) {
    if (is_moe(b, l))
      moe_bwd(b, l, m);
    else {
      act(b, BL_ACTION_FFN_BWD, l, m, BUFFERS(B(FFN_SAVED), B(MID), B(WEIGHT_DENSE), B(GRAD_DENSE)), BUFFERS(LIST_END));
      reads(b, B(DX), l + 1, m);
      writes(b, B(DMID), l, m);
      writes(b, B(GRAD_DENSE), l, m);
    }
    act(b, BL_ACTION_ATTENTION_BWD, l, m, BUFFERS(B(DMID), B(ATTENTION_SAVED), B(X), B(WEIGHT_DENSE), B(GRAD_DENSE)),
        BUFFERS(B(DX), B(GRAD_DENSE)));
  }
  act(b, BL_ACTION_EMBED_BWD, -1, m, BUFFERS(B(TOKENS), B(GRAD_EMBED)), BUFFERS(LIST_END));
  reads(b, B(DX), 0, m);
  writes(b, B(GRAD_EMBED), -1, m);
}

/* -- end of the step ------------------------------------------------------------------------------------------------
 */

static void reduce_grads(builder *b) {
  const int32_t layers = b->step->layers;
  for (int32_t l = layers - 1; l >= 0 && copies(b); l--)
    if (is_moe(b, l))
      act(b, BL_ACTION_COPY_REDUCE, l, -1, BUFFERS(B(HOSTS), B(GRAD_COPY), B(GRAD_HOME)), BUFFERS(B(GRAD_HOME)));
  for (int32_t l = layers - 1; l >= 0 && b->layout->edp > 1; l--)
    if (is_moe(b, l)) act(b, BL_ACTION_EXPERT_REDUCE, l, -1, BUFFERS(B(GRAD_HOME)), BUFFERS(B(GRAD_HOME)));
  if (b->layout->dp == 1) return;
  for (int32_t l = layers - 1; l >= 0; l--)
    act(b, BL_ACTION_DENSE_REDUCE, l, -1, BUFFERS(B(GRAD_DENSE)), BUFFERS(B(GRAD_DENSE)));
  act(b, BL_ACTION_DENSE_REDUCE, -1, -1, BUFFERS(B(GRAD_EMBED)), BUFFERS(B(GRAD_EMBED)));
}

static void update(builder *b) {
  const int32_t layers = b->step->layers;
  for (int32_t l = -1; l < layers; l++) {
    add(b, BL_ACTION_SQUARE_GRADS, l, -1);
    reads(b, l < 0 ? B(GRAD_EMBED) : B(GRAD_DENSE), l, -1);
    if (l >= 0 && is_moe(b, l)) reads(b, B(GRAD_HOME), l, -1);
    writes(b, B(SQUARES), l, -1);
  }
  add(b, BL_ACTION_GRAD_NORM, -1, -1);
  for (int32_t l = -1; l < layers; l++) reads(b, B(SQUARES), l, -1);
  for (int32_t m = 0; m < b->step->micro_batches; m++) reads(b, B(LOSS), -1, m);
  writes(b, B(GRAD_SCALE), -1, -1);
  for (int32_t l = -1; l < layers; l++) {
    if (l < 0)
      act(b, BL_ACTION_OPTIMIZER, l, -1, BUFFERS(B(GRAD_SCALE), B(GRAD_EMBED), B(WEIGHT_EMBED), B(STATE_EMBED)),
          BUFFERS(B(WEIGHT_EMBED), B(STATE_EMBED)));
    else {
      const bool moe = is_moe(b, l);
      act(b, BL_ACTION_OPTIMIZER, l, -1, BUFFERS(B(GRAD_SCALE), B(GRAD_DENSE), B(WEIGHT_DENSE), B(STATE_DENSE)),
          BUFFERS(LIST_END));
      if (moe) reads(b, B(GRAD_HOME), l, -1), reads(b, B(WEIGHT_HOME), l, -1), reads(b, B(STATE_HOME), l, -1);
      writes(b, B(WEIGHT_DENSE), l, -1);
      writes(b, B(STATE_DENSE), l, -1);
      if (moe) writes(b, B(WEIGHT_HOME), l, -1), writes(b, B(STATE_HOME), l, -1);
    }
  }
}

static bl_status refuse_unbuilt(const bl_model *model, const bl_layout *layout, const bl_step_options *options) {
  const struct {
    int32_t value, least;
    const char *name;
  } rules[] = {{layout->tp, 1, "tp"},
               {layout->cp, 1, "cp"},
               {layout->pp, 1, "pp"},
               {layout->vp, 1, "vp"},
               {layout->etp, 1, "etp"},
               {layout->zero, 0, "zero"},
               {model->multi_token, 0, "multi_token"}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (rules[i].value > rules[i].least)
      return bl_fail(BL_ENOTSUP, "the step program has no builder for %s = %d (at most %d)", rules[i].name,
                     rules[i].value, rules[i].least);
  if (options->late_repair && !options->copies)
    return bl_fail(BL_EINPUT, "late repair places copies, and the step program has none");
  return BL_OK;
}

bl_status bl_step_build(const bl_model *model, const bl_layout *layout, const bl_step_options *options, int32_t stage,
                        bl_step *out) {
  if (model->pattern[0])
    return bl_fail(BL_ENOTSUP, "model %s: no step program is built for layers of a pattern", model->name);
  BL_TRY(refuse_unbuilt(model, layout, options));
  BL_TRY(bl_step_begin(out, layout, model->layers, stage, options->ranks_per_node));
  builder b = {model, layout, options, out, BL_OK};
  begin_step(&b);
  for (int32_t m = 0; m < layout->micro_batches; m++) {
    forward(&b, m);
    head(&b, m);
    backward(&b, m);
  }
  reduce_grads(&b);
  update(&b);
  if (b.status == BL_OK) b.status = bl_step_derive_waits(out);
  if (b.status == BL_OK) b.status = bl_step_check(out);
  if (b.status != BL_OK) bl_step_free(out);
  return b.status;
}
