/* Made-up traces: exact sums, the promised skew, drift that adds up like routing's, and the same bits everywhere. */
#include "tests/unit/trace_files.h"
#include "traces/concentration.h"
#include "traces/generate.h"
#include "traces/generate_rows.h"

static const bl_generate_options usual = {.shape = {.layers = 3, .ranks = 4, .micro_batches = 2, .experts = 32},
                                          .tokens = 2048,
                                          .top_k = 2,
                                          .zipf = 1.1,
                                          .drift = 0.05,
                                          .jumps = 0.01,
                                          .bursts = 0.01,
                                          .seed = 5};

/* Every row sums to tokens * top_k, no count exceeds the tokens. */
static void check_rows(const bl_generate_options *options, int steps) {
  bl_generator *generator = NULL;
  REQUIRE_OK(bl_generator_create(options, &generator));
  const int64_t size = bl_trace_step_size(&options->shape), experts = options->shape.experts;
  uint32_t *counts = malloc((size_t)size * sizeof *counts);
  bool sums = true, caps = true;
  for (int i = 0; i < steps; i++) {
    CHECK_OK(bl_generator_step(generator, counts));
    for (int64_t row = 0; row < size; row += experts) {
      int64_t sum = 0;
      for (int64_t e = 0; e < experts; e++) {
        sum += counts[row + e];
        caps = caps && counts[row + e] <= (uint32_t)options->tokens;
      }
      sums = sums && sum == (int64_t)options->tokens * options->top_k;
    }
  }
  CHECK(sums);
  CHECK(caps);
  free(counts);
  bl_generator_free(generator);
}

static void test_rows(void) {
  bl_generate_options o = usual;
  check_rows(&o, 20);
  for (int i = 0; i < 300; i++) {
    bl_rng rng;
    bl_rng_seed(&rng, 3, (uint64_t)i);
    o.shape = (bl_trace_shape){1, 1 + (int32_t)bl_rng_below(&rng, 3), 1 + (int32_t)bl_rng_below(&rng, 3),
                               1 + (int32_t)bl_rng_below(&rng, 70), false};
    const uint64_t most = o.shape.experts < 9 ? (uint64_t)o.shape.experts : 9;
    o.top_k = 1 + (int32_t)bl_rng_below(&rng, most);
    o.tokens = 1 + (int32_t)bl_rng_below(&rng, i % 2 ? 5 : 100000);
    o.zipf = 64 * bl_rng_unit(&rng) * bl_rng_unit(&rng);
    o.top_share = i % 3 ? 0 : 1.0 / o.top_k;
    o.drift = 0.5 * bl_rng_unit(&rng);
    o.jumps = o.bursts = bl_rng_unit(&rng);
    o.seed = (uint64_t)i;
    check_rows(&o, 3);
  }
}

static double hottest(const double *share, int32_t experts) {
  double most = 0;
  for (int32_t e = 0; e < experts; e++) most = share[e] > most ? share[e] : most;
  return most;
}

/* The first step is an exact Zipf law; the counts follow the popularity they were drawn from. */
static void test_zipf(void) {
  enum { E = 32 };
  bl_generate_options o = usual;
  bl_generator *generator = NULL;
  double want = 0, loads[3 * E];
  o.tokens = 1 << 20;
  for (int r = 1; r <= E; r++) want += pow(r, -1.1);
  uint32_t *counts = malloc((size_t)bl_trace_step_size(&o.shape) * sizeof *counts);
  REQUIRE_OK(bl_generator_create(&o, &generator));
  CHECK_OK(bl_generator_step(generator, counts));
  const double *share = bl_generator_popularity(generator);
  CHECK_NEAR(hottest(share, E), 1 / want, 1e-12);
  bl_trace_loads(&o.shape, counts, -1, -1, loads);
  for (int i = 0; i < 3 * E; i++) CHECK_NEAR(loads[i] / (8.0 * 2 * (1 << 20)), share[i], 1e-3);
  CHECK(memcmp(share, share + E, E * sizeof *share) != 0); /* another layer, another order */
  bl_generator_free(generator);
  free(counts);
}

static void test_top_share(void) {
  bl_generate_options o = usual;
  const double shares[] = {1.0 / 32, 0.05, 0.36, 0.5};
  uint32_t *counts = malloc((size_t)bl_trace_step_size(&o.shape) * sizeof *counts);
  for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
    bl_generator *generator = NULL;
    o.top_share = shares[i];
    REQUIRE_OK(bl_generator_create(&o, &generator));
    for (int step = 0; step < 50; step++) {
      CHECK_OK(bl_generator_step(generator, counts));
      const double *share = bl_generator_popularity(generator);
      for (int layer = 0; layer < 3; layer++) CHECK_NEAR(hottest(share + 32 * layer, 32), shares[i], 1e-9);
    }
    bl_generator_free(generator);
  }
  free(counts);
}

/* Distance of the popularities `lag` steps apart, over all layers. */
static double mean_distance(const double *history, int steps, int lag, int n) {
  double sum = 0;
  for (int t = lag; t < steps; t++)
    for (int i = 0; i < n; i++) sum += fabs(history[t * n + i] - history[(t - lag) * n + i]);
  return 0.5 * sum / ((steps - lag) * 3);
}

/* A walk: ten steps move about sqrt(10) times as far as one, where white noise would move as far. */
static void test_drift(void) {
  enum { STEPS = 200, N = 96 };
  bl_generate_options o = usual;
  bl_generator *generator = NULL;
  double *history = malloc(sizeof *history * STEPS * N);
  uint32_t *counts = malloc((size_t)bl_trace_step_size(&o.shape) * sizeof *counts);
  o.jumps = o.bursts = 0;
  REQUIRE_OK(bl_generator_create(&o, &generator));
  for (int t = 0; t < STEPS; t++) {
    CHECK_OK(bl_generator_step(generator, counts));
    memcpy(history + t * N, bl_generator_popularity(generator), N * sizeof *history);
  }
  const double one = mean_distance(history, STEPS, 1, N), ten = mean_distance(history, STEPS, 10, N);
  CHECK(one > 0.005 && one < 0.05);
  CHECK(ten / one > 2.2 && ten / one < 3.6);
  bl_generator_free(generator);

  o.drift = 0; /* nothing moves */
  REQUIRE_OK(bl_generator_create(&o, &generator));
  CHECK_OK(bl_generator_step(generator, counts));
  memcpy(history, bl_generator_popularity(generator), N * sizeof *history);
  for (int t = 0; t < 5; t++) CHECK_OK(bl_generator_step(generator, counts));
  CHECK(memcmp(history, bl_generator_popularity(generator), N * sizeof *history) == 0);
  bl_generator_free(generator);

  o.jumps = 1; /* at most two experts a layer change, and they exchange */
  REQUIRE_OK(bl_generator_create(&o, &generator));
  CHECK_OK(bl_generator_step(generator, counts));
  memcpy(history, bl_generator_popularity(generator), N * sizeof *history);
  int changed = 0;
  CHECK_OK(bl_generator_step(generator, counts));
  for (int i = 0; i < N; i++) changed += fabs(history[i] - bl_generator_popularity(generator)[i]) > 1e-12;
  CHECK(changed > 0 && changed <= 6);
  bl_generator_free(generator);

  o.jumps = 0;
  o.bursts = 1; /* one expert a layer becomes more popular, the others less, all alike */
  REQUIRE_OK(bl_generator_create(&o, &generator));
  CHECK_OK(bl_generator_step(generator, counts));
  CHECK_OK(bl_generator_step(generator, counts));
  int rose = 0;
  for (int i = 0; i < N; i++) rose += bl_generator_popularity(generator)[i] > history[i] + 1e-12;
  CHECK_INT(rose, 3);
  bl_generator_free(generator);
  free(history);
  free(counts);
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The counts themselves have the index and lie as far apart as asked, in every layer and step of all kinds of shapes.
 */
static void test_index(void) {
  enum { STEPS = 4, E = 70 };
  for (int i = 0; i < 120; i++) {
    bl_rng rng;
    bl_rng_seed(&rng, 8, (uint64_t)i);
    const int32_t experts = 4 + (int32_t)bl_rng_below(&rng, E - 3);
    bl_generate_options o = usual;
    o.shape =
        (bl_trace_shape){2, 1 + (int32_t)bl_rng_below(&rng, 4), 1 + (int32_t)bl_rng_below(&rng, 3), experts, false};
    o.top_k = 1 + (int32_t)bl_rng_below(&rng, (uint64_t)(experts < 8 ? experts / 2 : 4));
    o.tokens = 20000 + (int32_t)bl_rng_below(&rng, 100000);
    o.seed = (uint64_t)i;
    o.tolerance = 0.001;
    o.index = i % 2 ? BL_LOAD_INDEX_GINI : BL_LOAD_INDEX_HERFINDAHL;
    const double low = i % 2 ? 0 : 1.0 / experts, high = i % 2 ? 1 - (double)o.top_k / experts : 1.0 / o.top_k;
    o.index_value = low + (high - low) * (i % 10 == 0 ? 0 : i % 10 == 1 ? 1 : 0.1 + 0.6 * bl_rng_unit(&rng));
    o.has_total_variation = i % 3 == 0 && i % 10 > 1;
    o.total_variation = 0.1 * bl_rng_unit(&rng) * (high - o.index_value) / (high - low);
    check_rows(&o, STEPS);
    bl_generator *generator = NULL;
    double loads[2 * E], before[2 * E], ordered[E];
    uint32_t *counts = malloc((size_t)bl_trace_step_size(&o.shape) * sizeof *counts);
    REQUIRE_OK(bl_generator_create(&o, &generator));
    for (int step = 0; step < STEPS; step++) {
      REQUIRE_OK(bl_generator_step(generator, counts));
      bl_trace_loads(&o.shape, counts, -1, -1, loads);
      const double copies = (double)o.shape.ranks * o.shape.micro_batches * o.tokens * o.top_k;
      for (int e = 0; e < 2 * experts; e++) loads[e] /= copies;
      for (int layer = 0; layer < 2; layer++) {
        const double *now = loads + layer * experts;
        memcpy(ordered, now, (size_t)experts * sizeof *now);
        qsort(ordered, (size_t)experts, sizeof *ordered, ascending);
        const double index = i % 2 ? bl_gini(ordered, experts) : bl_herfindahl(now, experts);
        CHECK_NEAR(index, o.index_value, 0.001);
        if (step > 0 && o.has_total_variation)
          CHECK_NEAR(bl_total_variation(now, before + layer * experts, experts), o.total_variation, 0.001);
      }
      memcpy(before, loads, 2 * (size_t)experts * sizeof *loads);
    }
    bl_generator_free(generator);
    free(counts);
  }
}

static void test_concentration(void) {
  CHECK_NEAR(bl_gini((const double[]){1, 2, 3, 4}, 4), 0.25, 1e-15);
  CHECK_NEAR(bl_gini((const double[]){0, 0, 0, 7}, 4), 0.75, 1e-15);
  CHECK_NEAR(bl_gini((const double[]){0, 0}, 2), 0, 0);
  CHECK_NEAR(bl_herfindahl((const double[]){4, 1, 3, 2}, 4), 0.3, 1e-15);
  CHECK_NEAR(bl_herfindahl((const double[]){0, 9, 0, 0}, 4), 1, 0);
  CHECK_NEAR(bl_herfindahl((const double[]){0, 0, 0, 0}, 4), 0.25, 0);
  CHECK_NEAR(bl_total_variation((const double[]){0.5, 0.25, 0.25}, (const double[]){0.25, 0.25, 0.5}, 3), 0.25, 1e-15);
}

/* Rows that add up to given totals scatter about their part as samples do, the first as the last. */
static void test_split(void) {
  enum { E = 8, ROWS = 20, TRIES = 400, TOKENS = 1000, K = 2 };
  const int64_t total[E] = {20000, 9000, 5000, 3000, 1500, 1000, 500, 0}; /* the first takes every token */
  bl_row_drawer *drawer = NULL;
  double squares[ROWS] = {0};
  bl_rng rng;
  bl_rng_seed(&rng, 1, 1);
  REQUIRE_OK(bl_row_drawer_create(E, TOKENS, K, &drawer));
  for (int i = 0; i < TRIES; i++) {
    int64_t left[E];
    memcpy(left, total, sizeof left);
    for (int row = 0; row < ROWS; row++) {
      uint32_t counts[E];
      int64_t sum = 0;
      bl_row_split(drawer, &rng, ROWS - row, left, counts);
      for (int e = 0; e < E; e++) sum += counts[e];
      CHECK_INT(sum, TOKENS * K);
      CHECK_INT(counts[0], TOKENS);
      CHECK_INT(counts[7], 0);
      const double q = 9000.0 / ROWS / TOKENS, off = counts[1] - q * TOKENS;
      squares[row] += off * off / (TOKENS * q * (1 - q)) / TRIES;
    }
    for (int e = 0; e < E; e++) CHECK_INT(left[e], 0);
  }
  for (int row = 0; row < ROWS; row++) CHECK(squares[row] > 0.35 && squares[row] < 2.2);
  bl_row_drawer_free(drawer);
}

static uint64_t hash_of(const bl_generate_options *o, int steps) {
  bl_generator *generator = NULL;
  const size_t size = (size_t)bl_trace_step_size(&o->shape);
  uint32_t *counts = malloc(size * sizeof *counts);
  uint64_t hash = 0;
  CHECK_OK(bl_generator_create(o, &generator));
  for (int i = 0; i < steps; i++) {
    CHECK_OK(bl_generator_step(generator, counts));
    hash = bl_hash_bytes(counts, size * sizeof *counts, hash);
  }
  bl_generator_free(generator);
  free(counts);
  return hash;
}

/* Noted on one machine, true on all. */
static void test_same_bits(void) {
  bl_generate_options o = usual;
  const uint64_t zipf = hash_of(&o, 40);
  CHECK(zipf == hash_of(&o, 40));
  o.seed++;
  CHECK(zipf != hash_of(&o, 40));
  o.top_share = 0.36;
  const uint64_t top_share = hash_of(&o, 40);
  CHECK(zipf == UINT64_C(0x3c36d0641295bed4));
  CHECK(top_share == UINT64_C(0xcbd4aaae3fa3772a));
  o = usual;
  o.index = BL_LOAD_INDEX_GINI;
  o.index_value = 0.6;
  o.tolerance = 0.001;
  CHECK(hash_of(&o, 20) == UINT64_C(0x8bc29ea9d250c5a5));
  o.has_total_variation = true;
  o.total_variation = 0.05;
  CHECK(hash_of(&o, 20) == UINT64_C(0x3d9ca7e0a3626d8e));
}

static void check_option(const bl_generate_options *options, const char *part) {
  bl_generator *generator = NULL;
  CHECK_FAILS(bl_generator_create(options, &generator), BL_EINPUT, part);
  CHECK(generator == NULL);
}

static void test_options(void) {
  bl_generate_options o = usual;
  o.shape.experts = 0;
  check_option(&o, "0 experts");
  o = usual;
  o.tokens = 0;
  check_option(&o, "0 tokens");
  o.tokens = 1 << 30;
  check_option(&o, "below 2^31");
  o = usual;
  o.top_k = 33;
  check_option(&o, "top-33 of 32 experts");
  o = usual;
  o.zipf = -1;
  check_option(&o, "Zipf");
  o.zipf = NAN;
  check_option(&o, "Zipf");
  o = usual;
  o.top_share = 0.51;
  check_option(&o, "0.51");
  o.top_share = 0.03;
  check_option(&o, "0.03");
  o.top_share = NAN;
  check_option(&o, "top share");
  o = usual;
  o.drift = 0.6;
  check_option(&o, "drift");
  o = usual;
  o.jumps = 1.1;
  check_option(&o, "1.1 of jumps");
  o = usual;
  o.bursts = NAN;
  check_option(&o, "bursts");
  o = usual;
  o.index = BL_LOAD_INDEX_HERFINDAHL;
  o.index_value = 0.031;
  o.tolerance = 0.001;
  check_option(&o, "1 / experts = 0.03125");
  o.index_value = 0.51;
  check_option(&o, "1 / top-k = 0.5");
  o.index_value = NAN;
  check_option(&o, "Herfindahl index of nan");
  o.index = BL_LOAD_INDEX_GINI;
  check_option(&o, "Gini coefficient of nan");
  o.index_value = 0.94;
  check_option(&o, "= 0.9375");
  o.index_value = -0.01;
  check_option(&o, "Gini");
  o.index_value = 0.5;
  o.tolerance = 0;
  check_option(&o, "tolerance of 0");
  o.tolerance = 0.001;
  o.top_share = 0.3;
  check_option(&o, "top share and a Gini");
  o.top_share = 0;
  o.has_total_variation = true;
  o.total_variation = 1.1;
  check_option(&o, "total variation of 1.1");
  o.index = BL_LOAD_INDEX_NONE;
  check_option(&o, "without a Gini");
  bl_generator_free(NULL);
}

int main(void) {
  RUN(test_rows);
  RUN(test_zipf);
  RUN(test_top_share);
  RUN(test_drift);
  RUN(test_concentration);
  RUN(test_index);
  RUN(test_split);
  RUN(test_same_bits);
  RUN(test_options);
  TEST_MAIN_END;
}
