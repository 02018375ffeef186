/* A layer's estimate against a plain loop; non-negative least squares against every subset of columns; tables that are
 * fitted to made-up calls come back as they were; the table's file. */
#include "base/rng.h"
#include "costmodel/estimate.h"
#include "costmodel/nnls.h"
#include "tests/check.h"
#include <unistd.h>

enum { RANKS = 4, SLOTS = 3 };

/* Mostly skewed, some slots empty. */
static double random_tokens(bl_rng *rng) {
  const double u = bl_rng_unit(rng);
  if (u < 0.2) return 0;
  return floor(exp(u * 9.5)) + 1;
}

static void fill_calls(bl_rng *rng, double *tokens, int32_t n) {
  for (int32_t i = 0; i < n * RANKS * SLOTS; i++) tokens[i] = random_tokens(rng);
}

/* Straight lines by the definition, point by point. */
static double cost(const bl_curve *c, double t) {
  if (t <= c->x[0]) return c->us[0];
  for (int32_t i = 1; i < c->n; i++)
    if (t <= c->x[i]) return c->us[i - 1] + (c->us[i] - c->us[i - 1]) * (t - c->x[i - 1]) / (c->x[i] - c->x[i - 1]);
  const int32_t l = c->n - 1;
  return c->us[l] + (c->us[l] - c->us[l - 1]) * (t - c->x[l]) / (c->x[l] - c->x[l - 1]);
}

static double brute_estimate(const bl_layer_table *table, const double *tokens) {
  double most = 0;
  for (int32_t r = 0; r < RANKS; r++) {
    double sum = table->constant_us;
    for (int32_t s = 0; s < SLOTS; s++)
      if (tokens[r * SLOTS + s] > 0) sum += cost(&table->expert, tokens[r * SLOTS + s]);
    most = fmax(most, sum);
  }
  return most;
}

static void test_estimate(void) {
  enum { N = 200 };
  static double tokens[N * RANKS * SLOTS];
  bl_rng rng;
  bl_rng_seed(&rng, 1, 0);
  fill_calls(&rng, tokens, N);
  const bl_layer_table table = {.constant_us = 7, .expert = {.n = 4, .x = {2, 30, 400, 5000}, .us = {3, 10, 12, 90}}};
  const bl_layer_calls calls = {.n = N, .ranks = RANKS, .slots = SLOTS, .tokens = tokens};
  for (int32_t i = 0; i < N; i++) {
    CHECK_NEAR(bl_layer_estimate(&table, &calls, i), brute_estimate(&table, tokens + i * RANKS * SLOTS), 1e-9);
    double most = 0;
    for (int32_t r = 0; r < RANKS; r++) {
      const double *t = tokens + (i * RANKS + r) * SLOTS;
      most = fmax(most, t[0] + t[1] + t[2]);
    }
    CHECK_NEAR(bl_layer_hottest(&calls, i), most, 0);
  }
}

/* Least squares over the columns in `mask` by Gaussian elimination; the squares left, or INFINITY where a coefficient
 * is negative or the columns depend on each other. */
static double subset_squares(const double *a, const double *y, int n_rows, int n, unsigned mask, double *x) {
  double m[8][9] = {{0}};
  int set[8], k = 0;
  for (int c = 0; c < n; c++) {
    x[c] = 0;
    if (mask >> c & 1) set[k++] = c;
  }
  for (int i = 0; i < k; i++)
    for (int r = 0; r < n_rows; r++) {
      for (int j = 0; j < k; j++) m[i][j] += a[r * n + set[i]] * a[r * n + set[j]];
      m[i][k] += a[r * n + set[i]] * y[r];
    }
  for (int i = 0; i < k; i++) {
    if (fabs(m[i][i]) < 1e-12) return INFINITY;
    for (int r = 0; r < k; r++) {
      const double f = r == i ? 0 : m[r][i] / m[i][i];
      for (int j = i; j <= k; j++) m[r][j] -= f * m[i][j];
    }
  }
  for (int i = 0; i < k; i++) {
    x[set[i]] = m[i][k] / m[i][i];
    if (x[set[i]] < 0) return INFINITY;
  }
  double squares = 0;
  for (int r = 0; r < n_rows; r++) {
    double error = -y[r];
    for (int c = 0; c < n; c++) error += a[r * n + c] * x[c];
    squares += error * error;
  }
  return squares;
}

static void test_nnls_every_subset(void) {
  enum { ROWS = 9 };
  bl_rng rng;
  bl_rng_seed(&rng, 2, 0);
  for (int trial = 0; trial < 400; trial++) {
    const int n = 1 + trial % 6;
    double a[ROWS * 6], y[ROWS], x[6], found[6], best_x[6] = {0}, best = INFINITY;
    for (int i = 0; i < ROWS * n; i++) a[i] = bl_rng_normal(&rng) + (trial % 3 == 0);
    for (int i = 0; i < ROWS; i++) y[i] = 1000 * bl_rng_normal(&rng);
    for (unsigned mask = 0; mask < 1u << n; mask++) {
      const double squares = subset_squares(a, y, ROWS, n, mask, x);
      if (squares >= best) continue;
      best = squares;
      memcpy(best_x, x, sizeof best_x);
    }
    CHECK_OK(bl_nnls(a, y, ROWS, n, found));
    for (int c = 0; c < n; c++) CHECK_NEAR(found[c], best_x[c], 1e-7 * (1 + fabs(best_x[c])));
  }
}

static void test_nnls_edges(void) {
  const double a[8] = {1, 1, 0, 2, 2, 0, 3, 3}, y[2] = {2, 4}, with_nan[2] = {1, NAN};
  double x[4];
  /* Column 1 repeats column 0 over the first rows, column 2 is zero. */
  const double repeated[6] = {1, 1, 0, 2, 2, 0};
  CHECK_OK(bl_nnls(repeated, y, 2, 3, x));
  CHECK_NEAR(x[0] + x[1], 2, 1e-12);
  CHECK(x[2] == 0 && x[0] >= 0 && x[1] >= 0);
  CHECK_FAILS(bl_nnls(a, with_nan, 2, 4, x), BL_EINPUT, "finite");
}

static const bl_layer_table shapes[] = {
    /* At powers of two: nothing to look for. */
    {.constant_us = 0, .expert = {.n = 4, .x = {1, 64, 1024, 16384}, .us = {5, 20, 400, 9000}}},
    {.constant_us = 50, .expert = {.n = 3, .x = {1, 256, 16384}, .us = {5, 105, 9000}}},
    /* A kink between them. */
    {.constant_us = 30, .expert = {.n = 3, .x = {1, 700, 16384}, .us = {8, 2000, 4000}}},
    /* A cost for any call, and flat. */
    {.constant_us = 0, .expert = {.n = 2, .x = {1, 16384}, .us = {100, 100}}},
};

static void test_fit_recovers(void) {
  enum { N = 500 };
  static double tokens[N * RANKS * SLOTS], us[N], fresh[N * RANKS * SLOTS];
  bl_rng rng;
  bl_rng_seed(&rng, 3, 0);
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
    bl_layer_table found;
    fill_calls(&rng, tokens, N);
    fill_calls(&rng, fresh, N);
    /* Half of the calls have one rank alone, so that costs of few tokens show, too. */
    for (int32_t i = 0; i < N / 2 * RANKS * SLOTS; i++)
      if (i / SLOTS % RANKS != 0) tokens[i] = 0;
    tokens[0] = 1; /* the fewest there are */
    tokens[1] = tokens[2] = 0;
    const bl_layer_calls calls = {.n = N, .ranks = RANKS, .slots = SLOTS, .tokens = tokens};
    const bl_layer_calls others = {.n = N, .ranks = RANKS, .slots = SLOTS, .tokens = fresh};
    for (int32_t i = 0; i < N; i++) us[i] = brute_estimate(&shapes[k], tokens + i * RANKS * SLOTS);
    REQUIRE_OK(bl_layer_table_fit(&calls, us, &found));
    CHECK_NEAR(found.constant_us, shapes[k].constant_us, 1e-3);
    double worst = 0;
    for (int32_t i = 0; i < N; i++)
      worst = fmax(worst,
                   fabs(bl_layer_estimate(&found, &others, i) - brute_estimate(&shapes[k], fresh + i * RANKS * SLOTS)));
    CHECK_NEAR(worst, 0, 1e-2); /* us, of up to 27000 */
    for (int32_t i = 1; i < found.expert.n; i++) CHECK(found.expert.us[i] >= found.expert.us[i - 1]);
  }
}

/* Noise must not breed points: about as far from the truth as it is large. */
static void test_fit_noise(void) {
  enum { N = 400 };
  static double tokens[N * RANKS * SLOTS], us[N];
  bl_rng rng;
  bl_layer_table found;
  bl_rng_seed(&rng, 4, 0);
  fill_calls(&rng, tokens, N);
  const bl_layer_calls calls = {.n = N, .ranks = RANKS, .slots = SLOTS, .tokens = tokens};
  for (int32_t i = 0; i < N; i++)
    us[i] = brute_estimate(&shapes[1], tokens + i * RANKS * SLOTS) * (1 + 0.02 * bl_rng_normal(&rng));
  REQUIRE_OK(bl_layer_table_fit(&calls, us, &found));
  CHECK(found.expert.n <= 16);
  double error = 0;
  for (int32_t i = 0; i < N; i++) {
    const double truth = brute_estimate(&shapes[1], tokens + i * RANKS * SLOTS);
    error += fabs(bl_layer_estimate(&found, &calls, i) - truth) / truth / N;
  }
  CHECK(error < 0.01);
}

static void test_fit_refuses(void) {
  double tokens[2 * RANKS * SLOTS] = {0}, us[2] = {1, 2};
  bl_layer_table found;
  bl_layer_calls calls = {.n = 2, .ranks = RANKS, .slots = SLOTS, .tokens = tokens};
  CHECK_FAILS(bl_layer_table_fit(&calls, us, &found), BL_EINPUT, "no call has a token");
  tokens[3] = -1;
  CHECK_FAILS(bl_layer_table_fit(&calls, us, &found), BL_EINPUT, "-1 tokens");
  tokens[3] = NAN;
  CHECK_FAILS(bl_layer_table_fit(&calls, us, &found), BL_EINPUT, "nan tokens");
  tokens[3] = 10;
  us[1] = INFINITY;
  CHECK_FAILS(bl_layer_table_fit(&calls, us, &found), BL_EINPUT, "a time of inf");
  us[1] = 2;
  calls.n = 1;
  CHECK_FAILS(bl_layer_table_fit(&calls, us, &found), BL_EINPUT, "at least 2 calls");
  /* A single amount, and amounts further apart than there are points. */
  calls.n = 2;
  tokens[3] = tokens[3 + RANKS * SLOTS] = 1;
  us[0] = us[1] = 5;
  CHECK_OK(bl_layer_table_fit(&calls, us, &found));
  CHECK_NEAR(bl_layer_estimate(&found, &calls, 0), 5, 1e-9);
  tokens[3] = 1e-3;
  tokens[3 + RANKS * SLOTS] = 1e12;
  CHECK_OK(bl_layer_table_fit(&calls, us, &found));
  CHECK_NEAR(bl_layer_estimate(&found, &calls, 1), 5, 1e-6);
}

static void write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  REQUIRE(file != NULL);
  fputs(text, file);
  CHECK(fclose(file) == 0);
}

static void test_file(void) {
  char path[64];
  bl_layer_table read;
  snprintf(path, sizeof path, "/tmp/ballast_table_%d.json", (int)getpid());
  CHECK_OK(bl_layer_table_save(path, &shapes[2]));
  CHECK_OK(bl_layer_table_load(path, &read));
  CHECK_NEAR(read.constant_us, 30, 0);
  CHECK_INT(read.expert.n, 3);
  CHECK_NEAR(read.expert.x[1], 700, 0);
  CHECK_NEAR(read.expert.us[2], 4000, 0);
  const struct {
    const char *text, *part;
  } bad[] = {
      {"{\"version\":2}", "version"},
      {"{\"version\":1,\"constant_us\":0}", "expert"},
      {"{\"version\":1,\"constant_us\":-1,\"expert\":{\"per\":\"tokens\",\"amounts\":[1],\"times_us\":[1]}}",
       "constant_us"},
      {"{\"version\":1,\"constant_us\":0,\"expert\":{\"per\":\"rows\",\"amounts\":[1],\"times_us\":[1]}}",
       "\"tokens\""},
      {"{\"version\":1,\"constant_us\":0,\"expert\":{\"per\":\"tokens\",\"amounts\":[2,1],\"times_us\":[1,1]}}",
       "ascending"},
      {"{\"version\":1,\"constant_us\":0,\"expert\":{\"per\":\"tokens\",\"amounts\":[1,2],\"times_us\":[1]}}",
       "times_us"},
      {"{\"version\":1,\"constant_us\":0,\"expert\":{\"per\":\"tokens\",\"amounts\":[],\"times_us\":[]}}", "amounts"},
      {"table", "expected"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_file(path, bad[i].text);
    CHECK_FAILS(bl_layer_table_load(path, &read), BL_EINPUT, bad[i].part);
  }
  unlink(path);
  CHECK_FAILS(bl_layer_table_load(path, &read), BL_EINPUT, path);
}

int main(void) {
  RUN(test_estimate);
  RUN(test_nnls_every_subset);
  RUN(test_nnls_edges);
  RUN(test_fit_recovers);
  RUN(test_fit_noise);
  RUN(test_fit_refuses);
  RUN(test_file);
  TEST_MAIN_END;
}
