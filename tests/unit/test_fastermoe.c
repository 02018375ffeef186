/* FasterMoE's shadowing: the rule against a plain copy of its formulas, and the published predictions on the recorded
 * trace. */
#include "base/rng.h"
#include "planner/baselines/fastermoe.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_EXPERTS = 32, MAX_RANKS = 16 };
#define ARCHIVE "../shared/data/smartmoe_moe_trace_1-2491.tar.xz"

/* Time of the layer with the n hottest experts of order[] shadowed, as the artifact's formulas say it. */
static double layer_time(const double *counts, int32_t E, int32_t R, const int32_t *home, const int32_t *order,
                         int32_t n) {
  const double H = 1536, computing = 4 * 2 * H * H / 112e12, feature = 2 * H / 8e9,
               moving = 4 * 2 * H * H * 2 / 8e9 * 4;
  const int32_t x = order[n];
  double total = 0, shadowed = 0;
  for (int32_t r = 0; r < R; r++) total += counts[r * E + x];
  for (int32_t j = 0; j < n; j++) shadowed += counts[home[x] * E + order[j]];
  return 3 * computing * (total + shadowed) + 4 * feature * (total - counts[home[x] * E + x]) + n * moving;
}

static void test_random_counts(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 7, 0);
  const bl_fastermoe_model model = bl_fastermoe_model_default();
  int32_t with_shadows = 0;
  for (int32_t round = 0; round < 500; round++) {
    const int32_t R = 1 + (int32_t)bl_rng_below(&rng, MAX_RANKS), E = R * (1 + (int32_t)bl_rng_below(&rng, 2));
    double counts[MAX_RANKS * MAX_EXPERTS];
    int32_t home[MAX_EXPERTS], order[MAX_EXPERTS];
    for (int32_t e = 0; e < E; e++) {
      home[e] = e / (E / R);
      const double hot = bl_rng_below(&rng, 5) == 0 ? 6000 : 60;
      for (int32_t r = 0; r < R; r++) counts[r * E + e] = (double)(int64_t)(hot * bl_rng_unit(&rng));
    }
    bl_fastermoe_choice choice;
    CHECK(bl_fastermoe_choose(&model, counts, E, R, home, order, &choice) == BL_OK);
    const double base = layer_time(counts, E, R, home, order, 0);
    double best = base;
    int32_t shadows = 0;
    for (int32_t n = 1; n < E; n++) {
      const double now = layer_time(counts, E, R, home, order, n);
      if (now >= base) break;
      if (now < best) best = now, shadows = n;
    }
    CHECK_INT(choice.shadows, shadows);
    CHECK_NEAR(choice.base_s, base, 1e-12);
    CHECK_NEAR(choice.latency_s, best, 1e-12);
    with_shadows += shadows > 0;
  }
  CHECK(with_shadows > 50 && with_shadows < 450);
}

/* Row 0 of a layer of one file: E counts. */
static bool read_row(const char *folder, int32_t iteration, int32_t rank, int32_t layer, int32_t E, double *row) {
  char path[300];
  static char line[8192];
  snprintf(path, sizeof path, "%s/moe_trace/table_iter%d_rank%d.log", folder, iteration, rank);
  FILE *file = fopen(path, "r");
  bool found = false;
  while (file != NULL && fgets(line, sizeof line, file)) {
    char *at = line;
    if (strtol(at, &at, 10) != layer || strncmp(at, ":[[", 3)) continue;
    at += 3;
    for (int32_t e = 0; e < E; e++) row[e] = strtod(at, &at), at += strspn(at, ", ");
    found = true;
  }
  if (file != NULL) fclose(file);
  return found;
}

static void test_published(void) {
  if (access(ARCHIVE, R_OK) != 0) SKIP("the recorded trace is not beside the project");
  double counts[MAX_RANKS * MAX_EXPERTS];
  int32_t home[MAX_EXPERTS], order[MAX_EXPERTS];
  for (int32_t e = 0; e < 32; e++) home[e] = e / 2;
  char folder[] = "/tmp/ballast-test-XXXXXX", command[300];
  REQUIRE(mkdtemp(folder) != NULL);
  snprintf(command, sizeof command, "tar xJf " ARCHIVE " -C %s --wildcards 'moe_trace/table_iter1001_rank*'", folder);
  CHECK(system(command) == 0);
  for (int32_t r = 0; r < 16; r++) CHECK(read_row(folder, 1001, r, 6, 32, counts + r * 32));
  snprintf(command, sizeof command, "rm -rf %s", folder);
  CHECK(system(command) == 0);
  const bl_fastermoe_model model = bl_fastermoe_model_default();
  bl_fastermoe_choice choice;
  CHECK(bl_fastermoe_choose(&model, counts, 32, 16, home, order, &choice) == BL_OK);
  CHECK_INT(choice.shadows, 0);
  CHECK_NEAR(choice.base_s, 0.042198, 1e-6);
}

int main(void) {
  RUN(test_random_counts);
  RUN(test_published);
  TEST_MAIN_END;
}
