/* test_train_gradient.c - one training step against the model written as plain loops over tokens in double: the loss,
 * and every kind of gradient by finite differences; for each gate, on one rank and on several, with micro-batches. */
#include "base/rng.h"
#include "executor/rank.h"
#include "tests/check.h"
#include <pthread.h>

enum { LAYERS = 2, H = 8, HEADS = 2, V = 256, S = 6, E = 4, F = 12, K = 2, BATCH = 8, MAX_RANKS = 4 };

static bl_model tiny_model(void) {
  bl_model m;
  bl_model_default(&m);
  m.layers = LAYERS;
  m.hidden = H;
  m.heads = m.kv_heads = HEADS;
  m.head_width = H / HEADS;
  m.vocabulary = V;
  m.sequence = S;
  m.experts = E;
  m.expert_width = F;
  m.top_k = K;
  return m;
}

/* All parameters in double: the dense range, then every expert's block. */
typedef struct parameters {
  double *value, *grad; /* grad: of the trainer */
  bool *set;
  int64_t dense, block, n;
} parameters;

/* -- the model as loops ---------------------------------------------------------------------------------------------
 */

typedef struct reference {
  const bl_run *run;
  const bl_weights *w; /* for offsets alone */
  const double *p;
  int64_t dense, block;
} reference;

static const double *dense(const reference *r, int32_t layer, const char *suffix) {
  const bl_dense_tensor *t = bl_weights_find(r->w, layer, suffix);
  return r->p + t->offset;
}
static const double *expert(const reference *r, int32_t layer, int32_t e, int tensor) {
  return r->p + r->dense + ((int64_t)layer * E + e) * r->block + r->w->expert_tensor[tensor].offset;
}

static void affine(double *y, const double *x, const double *weight, const double *bias, int n, int k) {
  for (int i = 0; i < n; i++) {
    y[i] = bias ? bias[i] : 0;
    for (int j = 0; j < k; j++) y[i] += weight[i * k + j] * x[j];
  }
}

static void layer_norm(double *y, const double *x, const double *weight, const double *bias) {
  double mean = 0, square = 0;
  for (int i = 0; i < H; i++) mean += x[i] / H;
  for (int i = 0; i < H; i++) square += (x[i] - mean) * (x[i] - mean) / H;
  for (int i = 0; i < H; i++) y[i] = (x[i] - mean) / sqrt(square + 1e-5) * weight[i] + bias[i];
}

static double gelu(double x) {
  return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void attend(const reference *r, int32_t l, double x[S][H]) {
  double qkv[S][3 * H], norm[H], out[H], y[H];
  for (int t = 0; t < S; t++) {
    layer_norm(norm, x[t], dense(r, l, "norm1.weight"), dense(r, l, "norm1.bias"));
    affine(qkv[t], norm, dense(r, l, "attn.qkv.weight"), dense(r, l, "attn.qkv.bias"), 3 * H, H);
  }
  const int width = H / HEADS;
  for (int t = 0; t < S; t++) {
    for (int h = 0; h < HEADS; h++) {
      double score[S], sum = 0;
      for (int u = 0; u <= t; u++) {
        double dot = 0;
        for (int i = 0; i < width; i++) dot += qkv[t][h * width + i] * qkv[u][H + h * width + i];
        sum += score[u] = exp(dot / sqrt(width));
      }
      for (int i = 0; i < width; i++) {
        out[h * width + i] = 0;
        for (int u = 0; u <= t; u++) out[h * width + i] += score[u] / sum * qkv[u][2 * H + h * width + i];
      }
    }
    affine(y, out, dense(r, l, "attn.out.weight"), dense(r, l, "attn.out.bias"), H, H);
    for (int i = 0; i < H; i++) x[t][i] += y[i];
  }
}

/* Choices and weights of one sequence; -1 where dropped. Returns the sequence's balance loss. */
static double choose(const reference *r, int32_t l, int64_t sequence, double logits[S][E], int id[S][K],
                     double weight[S][K]) {
  const bl_gate *gate = &r->run->gate;
  const int k = r->run->top_k;
  double share[E] = {0}, probability[E] = {0};
  for (int t = 0; t < S; t++) {
    double sum_all = 0, sum = 0;
    for (int e = 0; e < E; e++) sum_all += exp(logits[t][e]);
    for (int c = 0; c < k; c++) {
      int best = -1;
      for (int e = 0; e < E; e++)
        if ((c == 0 || e != id[t][0]) && (best < 0 || logits[t][e] > logits[t][best])) best = e;
      id[t][c] = best;
      sum += exp(logits[t][best]);
    }
    for (int c = 0; c < k; c++)
      weight[t][c] = exp(logits[t][id[t][c]]) / (gate->kind == BL_GATE_SWITCH ? sum_all : sum);
    share[id[t][0]] += 1.0 / S;
    for (int e = 0; e < E; e++) probability[e] += exp(logits[t][e]) / sum_all / S;
  }
  if (gate->kind == BL_GATE_NAIVE) return 0;
  double balance = 0;
  for (int e = 0; e < E; e++) balance += gate->balance * E * share[e] * probability[e];
  int taken[E] = {0};
  const int capacity = (int)ceil(gate->capacity_factor * k * S / E);
  for (int c = 0; c < k; c++)
    for (int t = 0; t < S; t++) {
      const uint64_t hash = bl_hash_u64(r->run->seed, 1, (uint64_t)l, (uint64_t)(sequence * S + t));
      if (gate->kind == BL_GATE_GSHARD && c == 1 && (double)(hash >> 11) / 9007199254740992.0 >= 2 * weight[t][1])
        id[t][c] = -1;
      else if (taken[id[t][c]]++ >= capacity)
        id[t][c] = -1;
    }
  return balance;
}

static double mix_experts(const reference *r, int32_t l, int64_t sequence, double x[S][H]) {
  double norm[S][H], logits[S][E], weight[S][K], hidden[F], y[H];
  int id[S][K];
  for (int t = 0; t < S; t++) {
    layer_norm(norm[t], x[t], dense(r, l, "norm2.weight"), dense(r, l, "norm2.bias"));
    affine(logits[t], norm[t], dense(r, l, "moe.gate.weight"), NULL, E, H);
  }
  const double balance = choose(r, l, sequence, logits, id, weight);
  for (int t = 0; t < S; t++)
    for (int c = 0; c < r->run->top_k; c++) {
      if (id[t][c] < 0) continue;
      affine(hidden, norm[t], expert(r, l, id[t][c], 0), expert(r, l, id[t][c], 1), F, H);
      for (int i = 0; i < F; i++) hidden[i] = gelu(hidden[i]);
      affine(y, hidden, expert(r, l, id[t][c], 2), expert(r, l, id[t][c], 3), H, F);
      for (int i = 0; i < H; i++) x[t][i] += weight[t][c] * y[i];
    }
  return balance;
}

/* Mean cross-entropy of step 1; *balance = mean balance loss of its sequences, summed over layers. */
static double reference_loss(const reference *r, double *balance) {
  double loss = 0;
  *balance = 0;
  for (int64_t q = 0; q < BATCH; q++) {
    int32_t token[S], target[S];
    double x[S][H], norm[H], logits[V];
    bl_corpus_sequence(r->run->corpus, r->run->seed, 1, q, S, token, target);
    for (int t = 0; t < S; t++)
      for (int i = 0; i < H; i++)
        x[t][i] = dense(r, -1, "embed.token")[token[t] * H + i] + dense(r, -1, "embed.position")[t * H + i];
    for (int32_t l = 0; l < LAYERS; l++) {
      attend(r, l, x);
      *balance += mix_experts(r, l, q, x) / BATCH;
    }
    for (int t = 0; t < S; t++) {
      layer_norm(norm, x[t], dense(r, -1, "norm.weight"), dense(r, -1, "norm.bias"));
      affine(logits, norm, dense(r, -1, "embed.token"), NULL, V, H);
      double sum = 0;
      for (int v = 0; v < V; v++) sum += exp(logits[v]);
      loss += (log(sum) - logits[target[t]]) / (BATCH * S);
    }
  }
  return loss;
}

/* -- the trainer, one step ------------------------------------------------------------------------------------------
 */

typedef struct job {
  const bl_run *run;
  int32_t rank;
  bl_backend *backend;
  bl_comm *comm;
  parameters *all;
  double loss, balance, norm;
  bool ok, quiet;
  char text[300];
} job;

/* Larger weights than the model's own: gates then have opinions, and gradients are not all alike. */
static void enlarge(bl_rank *r) {
  float *x = r->weights.dense_state.master;
  for (int64_t i = 0; i < r->weights.dense_size; i++) x[i] *= 4;
  for (int32_t i = 0; i < LAYERS * E; i++)
    for (int64_t k = 0; r->weights.expert[i].m && k < r->weights.expert_size; k++) r->weights.expert[i].master[k] *= 8;
}

static void collect(bl_rank *r, parameters *all, bool grads) {
  const bl_weights *w = &r->weights;
  const float *from = grads ? w->dense_state.grad : w->dense_state.master;
  for (int64_t i = 0; r->rank == 0 && i < w->dense_size; i++) (grads ? all->grad : all->value)[i] = from[i];
  for (int32_t b = 0; b < LAYERS * E; b++)
    for (int64_t k = 0; w->expert[b].m && k < w->expert_size; k++) {
      const int64_t at = all->dense + b * all->block + k;
      (grads ? all->grad : all->value)[at] = grads ? w->expert[b].grad[k] : w->expert[b].master[k];
      all->set[at] = true;
    }
}

static void *run_job(void *argument) {
  job *j = argument;
  bl_rank r;
  j->ok = bl_rank_create(j->run, j->rank, j->backend, j->comm, &r) == BL_OK &&
          bl_weights_initialise(&r.weights, r.s, j->run->seed) == BL_OK;
  if (j->ok) {
    enlarge(&r);
    if (j->all != NULL) collect(&r, j->all, false);
    j->ok = bl_rank_step(&r) == BL_OK;
    while (j->quiet && j->ok && r.step < j->run->steps) j->ok = bl_rank_step(&r) == BL_OK;
  }
  if (j->ok && j->all != NULL) collect(&r, j->all, true);
  if (!j->ok) {
    snprintf(j->text, sizeof j->text, "%s", bl_error_text());
    if (!j->quiet) printf("rank %d: %s\n", j->rank, j->text);
    bl_comm_abort(j->comm, bl_error_text());
  }
  j->loss = r.result.loss;
  j->balance = r.result.balance_loss;
  j->norm = r.result.grad_norm;
  bl_rank_free(&r);
  return NULL;
}

/* `apart`: run[ranks], one each, and failures are expected. `all` may be NULL: ranks that disagree both own an expert.
 */
static bool run_ranks(const bl_run *run, bool apart, parameters *all, job jobs[MAX_RANKS]) {
  bl_threads_world *world;
  pthread_t threads[MAX_RANKS];
  bool ok = bl_threads_world_create(run->ranks, 60, &world) == BL_OK;
  for (int32_t p = 0; p < run->ranks; p++) {
    jobs[p] = (job){.run = apart ? &run[p] : run, .rank = p, .all = all, .quiet = apart};
    ok = ok && bl_backend_cpu_create(&jobs[p].backend) == BL_OK &&
         bl_threads_world_join(world, p, jobs[p].backend, &jobs[p].comm) == BL_OK;
  }
  if (!ok) return false;
  for (int32_t p = 0; p < run->ranks; p++) pthread_create(&threads[p], NULL, run_job, &jobs[p]);
  for (int32_t p = 0; p < run->ranks; p++) pthread_join(threads[p], NULL);
  for (int32_t p = 0; p < run->ranks; p++) {
    ok = ok && jobs[p].ok;
    bl_comm_free(jobs[p].comm);
    jobs[p].backend->destroy(jobs[p].backend);
  }
  bl_threads_world_free(world);
  return ok;
}

static void check_gradients(reference *r, parameters *all, const char *name) {
  bl_rng rng;
  bl_rng_seed(&rng, 5, 0);
  int worst_at = -1, checked = 0;
  double worst = 0;
  const int wanted = check_is_small() ? 60 : 300;
  for (int i = 0; checked < wanted && i < 100 * wanted; i++) {
    /* A third from the dense range, the rest from experts; not the alignment gaps, whose gradient is zero on both
     * sides. */
    const int64_t at = i % 3 ? all->dense + (int64_t)bl_rng_below(&rng, (uint64_t)(all->n - all->dense))
                             : (int64_t)bl_rng_below(&rng, (uint64_t)all->dense);
    if (all->grad[at] == 0 && i % 7) continue;
    const double step = 1e-5, old = all->value[at];
    double balance[2], loss[2];
    for (int side = 0; side < 2; side++) {
      all->value[at] = old + (side ? step : -step);
      loss[side] = reference_loss(r, &balance[side]) + balance[side];
    }
    all->value[at] = old;
    const double expected = (loss[1] - loss[0]) / (2 * step), error = fabs(expected - all->grad[at]);
    if (error > worst) {
      worst = error;
      worst_at = (int)at;
    }
    checked++;
  }
  if (!check_count(worst < 2e-5 && checked == wanted))
    printf("%s:%d: failed: %s: gradient of parameter %d of %d is off by %g (%d checked)\n", __FILE__, __LINE__, name,
           worst_at, (int)all->n, worst, checked);
}

static void check_run(bl_gate gate, int32_t ranks, int32_t micro_batches, const char *policy, const char *name) {
  const bl_model model = tiny_model();
  char text[4000];
  for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + (i * i / 7 + i) % 23);
  const bl_corpus corpus = {.bytes = text, .size = sizeof text};
  const int32_t slots[MAX_RANKS] = {4, 4, 4, 4};
  bl_run run = {.model = &model,
                .corpus = &corpus,
                .gate = gate,
                .slots = slots,
                .ranks = ranks,
                .ep = ranks,
                .micro_batches = micro_batches,
                .batch = BATCH,
                .top_k = gate.kind == BL_GATE_SWITCH ? 1 : K,
                .sequences = BATCH / ranks / micro_batches,
                .seed = 3,
                .steps = 1,
                .schedule_steps = 1,
                .lr = 1e-3};
  bl_policy_options_init(&run.policy);
  run.policy.policy = policy;
  const bool ballast = !strcmp(policy, "ballast");
  if (ballast) run.policy.late_repair = 1.01;
  bl_layout layout;
  bl_step program;
  const bl_step_options options = {.moves = true, .copies = ballast, .late_repair = ballast};
  REQUIRE_OK(bl_layout_default(&layout, ranks, model.layers, run.sequences, micro_batches));
  REQUIRE_OK(bl_step_build(&model, &layout, &options, 0, &program));
  run.program = &program;
  bl_backend *be;
  bl_weights shape;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  REQUIRE_OK(bl_weights_create(&model, be, &shape));
  parameters all = {.dense = shape.dense_size, .block = shape.expert_size};
  all.n = all.dense + LAYERS * E * all.block;
  all.value = calloc((size_t)all.n, sizeof *all.value);
  all.grad = calloc((size_t)all.n, sizeof *all.grad);
  all.set = calloc((size_t)all.n, sizeof *all.set);
  job jobs[MAX_RANKS];
  if (check_count(run_ranks(&run, false, &all, jobs))) {
    reference r = {&run, &shape, all.value, all.dense, all.block};
    double balance;
    CHECK_NEAR(reference_loss(&r, &balance), jobs[0].loss, 2e-6);
    CHECK_NEAR(balance, jobs[0].balance, 1e-6);
    double square = 0;
    for (int64_t i = 0; i < all.n; i++) {
      square += all.grad[i] * all.grad[i];
      if (i >= all.dense) CHECK(all.set[i]);
    }
    CHECK_NEAR(sqrt(square), jobs[0].norm, 1e-5 * jobs[0].norm);
    for (int32_t p = 1; p < ranks; p++) CHECK(jobs[p].loss == jobs[0].loss && jobs[p].norm == jobs[0].norm);
    check_gradients(&r, &all, name);
  }
  free(all.value);
  free(all.grad);
  free(all.set);
  bl_weights_free(&shape);
  be->destroy(be);
  bl_step_free(&program);
  bl_layout_free(&layout);
}

/* Ranks that do not agree where experts live stop before the first row is sent. */
static void test_disagreement(void) {
  const bl_model model = tiny_model();
  char text[400] = {'a'};
  const bl_corpus corpus = {.bytes = text, .size = sizeof text};
  const int32_t slots[2] = {4, 4}, home[LAYERS * E] = {0, 0, 1, 1, 0, 1, 0, 1};
  bl_run run[2];
  run[0] = (bl_run){.model = &model,
                    .corpus = &corpus,
                    .slots = slots,
                    .ranks = 2,
                    .ep = 2,
                    .micro_batches = 1,
                    .batch = BATCH,
                    .top_k = K,
                    .sequences = BATCH / 2,
                    .steps = 1,
                    .schedule_steps = 1,
                    .lr = 1e-3};
  bl_policy_options_init(&run[0].policy);
  run[0].policy.policy = "static";
  bl_layout layout;
  bl_step program;
  REQUIRE_OK(bl_layout_default(&layout, 2, model.layers, BATCH / 2, 1));
  REQUIRE_OK(bl_step_build(&model, &layout, &(bl_step_options){0}, 0, &program));
  run[0].program = &program;
  run[1] = run[0];
  run[1].home = home;
  job jobs[MAX_RANKS];
  CHECK(!run_ranks(run, true, NULL, jobs));
  CHECK(strstr(jobs[0].text, "has other expert hosts in force") && strstr(jobs[0].text, "step 1, layer 0"));
  for (int p = 0; p < 2; p++) { /* planned on the device, and one in two minds from the second step on */
    run[p].exchange = BL_EXCHANGE_DEVICE;
    run[p].headroom = 1;
    run[p].steps = 2;
    run[p].home = NULL;
  }
  run[1].policy.policy = "smartmoe:1";
  CHECK(!run_ranks(run, true, NULL, jobs));
  CHECK(strstr(jobs[0].text, "step 2: rank 1 has other expert hosts in force"));
  bl_step_free(&program);
  bl_layout_free(&layout);
}

static const bl_gate naive = {.kind = BL_GATE_NAIVE};
static const bl_gate gshard = {.kind = BL_GATE_GSHARD, .capacity_factor = 1.0, .balance = 0.5};
static const bl_gate one_choice = {.kind = BL_GATE_SWITCH, .capacity_factor = 1.0, .balance = 0.5};

static void test_naive(void) {
  check_run(naive, 1, 1, "static", "naive");
  check_run(naive, 4, 1, "static", "naive on 4 ranks");
  check_run(naive, 2, 2, "static", "naive on 2 ranks, 2 micro-batches");
}
static void test_copies(void) {
  check_run(naive, 4, 1, "ballast", "copies placed late on 4 ranks");
  check_run(naive, 2, 4, "ballast", "copies placed late on 2 ranks, 4 micro-batches");
}
static void test_gshard(void) {
  check_run(gshard, 1, 1, "static", "gshard");
  check_run(gshard, 4, 2, "ballast", "gshard on 4 ranks, 2 micro-batches, copies");
}
static void test_switch(void) {
  check_run(one_choice, 1, 2, "static", "switch");
  check_run(one_choice, 4, 1, "ballast", "switch on 4 ranks, copies");
}

int main(void) {
  RUN(test_naive);
  RUN(test_copies);
  RUN(test_gshard);
  RUN(test_switch);
  RUN(test_disagreement);
  TEST_MAIN_END;
}
