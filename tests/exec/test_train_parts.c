/* test_train_parts.c - the parts of the trainer that decide with integers: forced counts, capacity, random second
 * choice, routes; and those that read: sequences, tensors in files. */
#include "base/file.h"
#include "base/rng.h"
#include "executor/data.h"
#include "executor/gates.h"
#include "executor/pool.h"
#include "executor/rank.h"
#include "executor/route.h"
#include "executor/safetensors.h"
#include "tests/check.h"
#include <unistd.h>

/* Largest remainder in whole numbers, ties to the lower id; nobody is cut. */
static void largest_remainder(const double *load, int32_t E, uint64_t left, uint64_t total, int32_t *count) {
  uint64_t given = 0;
  bool more[12] = {0};
  for (int32_t e = 0; e < E; e++) given += (uint64_t)(count[e] = (int32_t)((uint64_t)load[e] * left / total));
  for (; given < left; given++) {
    int32_t best = -1;
    for (int32_t e = 0; e < E; e++)
      if (!more[e] && (best < 0 || (uint64_t)load[e] * left % total > (uint64_t)load[best] * left % total)) best = e;
    more[best] = true;
    count[best]++;
  }
}

static void test_scale_counts(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 1, 0);
  for (int round = 0; round < 2000; round++) {
    const int32_t E = 1 + (int32_t)bl_rng_below(&rng, 12), T = 1 + (int32_t)bl_rng_below(&rng, 40);
    const int32_t K = 1 + (int32_t)bl_rng_below(&rng, (uint64_t)E);
    double load[12];
    double total = 0;
    for (int32_t e = 0; e < E; e++) {
      const uint64_t kind = bl_rng_below(&rng, 4);
      load[e] = kind == 0 ? 0 : (double)bl_rng_below(&rng, kind == 1 ? 3 : 1000);
      total += load[e];
    }
    int32_t count[12], choice[12 * 40], again[12] = {0};
    bl_gate_scale_counts(load, E, T, K, count);
    int64_t sum = 0, capped = 0;
    for (int32_t e = 0; e < E; e++) {
      CHECK(count[e] >= 0 && count[e] <= T);
      sum += count[e];
      capped += count[e] == T;
    }
    CHECK_INT(sum, (int64_t)K * T);
    if (capped == 0 && total > 0) {
      int32_t exact[12];
      largest_remainder(load, E, (uint64_t)K * (uint64_t)T, (uint64_t)total, exact);
      for (int32_t e = 0; e < E; e++) CHECK_INT(count[e], exact[e]);
    }
    for (int32_t e = 0; e < E; e++) /* more load, no fewer tokens */
      for (int32_t f = 0; f < E; f++)
        if (load[e] > load[f]) CHECK(count[e] >= count[f]);
    bl_gate_assign(count, E, T, K, choice);
    for (int32_t t = 0; t < T; t++)
      for (int32_t c = 0; c < K; c++) {
        again[choice[t * K + c]]++;
        for (int32_t d = 0; d < c; d++) CHECK(choice[t * K + c] != choice[t * K + d]);
      }
    for (int32_t e = 0; e < E; e++) CHECK_INT(again[e], count[e]);
  }
}

static void test_scale_known(void) {
  int32_t count[4];
  bl_gate_scale_counts((double[]){1, 1, 1, 0}, 4, 8, 1,
                       count); /* 2.67 each: two of them get the rest, lower ids first */
  CHECK(count[0] == 3 && count[1] == 3 && count[2] == 2 && count[3] == 0);
  bl_gate_scale_counts((double[]){4, 1, 1}, 3, 8, 1, count); /* 5.33, 1.33, 1.33: equal remainders */
  CHECK(count[0] == 6 && count[1] == 1 && count[2] == 1);
  bl_gate_scale_counts((double[]){100, 1, 1, 2}, 4, 8, 2, count); /* the first is cut at 8, 8 are left for 1:1:2 */
  CHECK(count[0] == 8 && count[1] == 2 && count[2] == 2 && count[3] == 4);
  bl_gate_scale_counts((double[]){5, 0, 0, 0}, 4, 8, 2, count); /* nobody else has any load: equal parts */
  CHECK(count[0] == 8 && count[1] == 3 && count[2] == 3 && count[3] == 2);
}

static void test_capacity(void) {
  int32_t taken[3];
  int32_t choice[] = {0, 1, 0, 1, 0, 2, /* next sequence */ 1, 0, 2, 0, 1, 2};
  bl_gate_drop_over_capacity(choice, 2, 3, 2, 3, 2, taken);
  const int32_t expected[] = {0, 1, 0, 1, -1, 2, 1, 0, 2, 0, 1, 2};
  CHECK(!memcmp(choice, expected, sizeof expected));
  int32_t order[] = {0, 1, 1, 0}; /* first choices come before all second ones */
  bl_gate_drop_over_capacity(order, 1, 2, 2, 2, 1, taken);
  CHECK(order[0] == 0 && order[1] == -1 && order[2] == 1 && order[3] == -1);
  const bl_gate gate = {.capacity_factor = 1.25};
  CHECK_INT(bl_gate_capacity(&gate, 128, 2, 8), 40);
  CHECK_INT(bl_gate_capacity(&gate, 4, 2, 2), 4);
}

static void test_second_choice(void) {
  enum { T = 20000 };
  static int32_t choice[2 * T], other[2 * T];
  static float weight[2 * T];
  for (int t = 0; t < T; t++) {
    choice[2 * t] = other[2 * t] = 0;
    choice[2 * t + 1] = other[2 * t + 1] = 1;
    weight[2 * t + 1] = t % 2 ? 0.1f : 0.6f;
  }
  bl_gate_drop_second(choice, weight, T, 1, 2, 3, 0);
  bl_gate_drop_second(other, weight, T / 2, 1, 2, 3, 0);
  bl_gate_drop_second(other + T, weight + T, T / 2, 1, 2, 3, T / 2);
  CHECK(!memcmp(choice, other, sizeof choice)); /* the same whoever holds the tokens */
  int kept[2] = {0};
  for (int t = 0; t < T; t++) kept[t % 2] += choice[2 * t + 1] == 1;
  CHECK_INT(kept[0], T / 2);
  CHECK_NEAR(kept[1], 0.2 * T / 2, 150);
}

static void test_gate_names(void) {
  bl_gate gate = {0};
  CHECK_OK(bl_gate_parse("trace:a:b", &gate));
  CHECK(gate.kind == BL_GATE_TRACE);
  CHECK_STRING(gate.trace_path, "a:b");
  CHECK_OK(bl_gate_parse("switch", &gate));
  CHECK_FAILS(bl_gate_parse("Naive", &gate), BL_EUSAGE, "--gate Naive");
}

/* A route for random counts and hosts: rows sent are rows received, in the promised order. */
static void check_route(bl_rng *rng, int32_t R, int32_t E, int32_t slots) {
  int32_t slot[8];
  uint32_t counts[8 * 16];
  double load[16] = {0};
  for (int32_t p = 0; p < R; p++) slot[p] = slots;
  for (int32_t i = 0; i < R * E; i++) load[i % E] += counts[i] = (uint32_t)bl_rng_below(rng, 20);
  bl_hosts hosts;
  bl_shares *shares;
  REQUIRE_OK(bl_hosts_create(&hosts, E, R, slot));
  for (int32_t i = 0; i < hosts.n_copy_slots; i++) {
    const int32_t e = (int32_t)bl_rng_below(rng, (uint64_t)E);
    bool there = hosts.home[e] == hosts.copy_rank[i];
    for (int32_t j = 0; j < i; j++) there |= hosts.copy_rank[j] == hosts.copy_rank[i] && hosts.copy_expert[j] == e;
    if (!there) hosts.copy_expert[i] = e;
  }
  REQUIRE_OK(bl_shares_create(E, R, hosts.n_copy_slots, &shares));
  bl_shares_solve(shares, &hosts, load, NULL);
  bl_route route[8];
  for (int32_t p = 0; p < R; p++) {
    REQUIRE_OK(bl_route_create(R, E, p, &route[p]));
    REQUIRE_OK(bl_route_build(&route[p], &hosts, shares, counts));
  }
  for (int32_t p = 0; p < R; p++) {
    int64_t received = 0;
    for (int32_t q = 0; q < R; q++) {
      CHECK_INT(route[p].recv_rows[q], route[q].send_rows[p]);
      received += route[p].recv_rows[q];
    }
    CHECK_INT(received, route[p].recv_total);
    CHECK_INT(received, route[0].rank_tokens[p]);
    /* What arrives, as (expert, source): by source and expert; in expert order it must ascend by (expert, source). */
    int32_t *arrived = calloc((size_t)received + 1, sizeof *arrived);
    int64_t at = 0;
    for (int32_t q = 0; q < R; q++)
      for (int32_t i = 0; i < route[q].entries; i++)
        for (uint32_t k = 0; route[q].host_rank[i] == p && k < route[q].quota[q * route[q].entries + i]; k++) {
          int32_t e = 0;
          while (route[q].first[e + 1] <= i) e++;
          arrived[at++] = e * R + q;
        }
    CHECK_INT(at, received);
    for (int32_t row = 0; row < route[p].recv_total; row++) {
      CHECK_INT(route[p].by_source[route[p].by_expert[row]], row);
      if (row) CHECK(arrived[route[p].by_expert[row - 1]] <= arrived[route[p].by_expert[row]]);
    }
    for (int32_t g = 0; g < route[p].n_groups; g++)
      for (int32_t k = 0; k < route[p].group_rows[g]; k++)
        CHECK_INT(arrived[route[p].by_expert[route[p].group_first[g] + k]] / R, route[p].group_expert[g]);
    free(arrived);
  }
  for (int32_t p = 0; p < R; p++) bl_route_free(&route[p]);
  bl_shares_free(shares);
  bl_hosts_free(&hosts);
}

static void test_routes(void) {
  bl_rng rng;
  bl_rng_seed(&rng, 2, 0);
  for (int round = 0; round < 200; round++) {
    const int32_t R = 1 + (int32_t)bl_rng_below(&rng, 8), E = R + (int32_t)bl_rng_below(&rng, (uint64_t)(17 - R));
    const int32_t slots = (E + R - 1) / R + (int32_t)bl_rng_below(&rng, 3);
    check_route(&rng, R, E, slots < E ? slots : E);
  }
}

static void test_pool(void) {
  bl_backend *be;
  bl_pool *pool;
  REQUIRE_OK(bl_backend_cpu_create(&be));
  REQUIRE_OK(bl_pool_create(be, &pool));
  bl_chunk chunk[3];
  for (size_t bytes = 0; bytes < (1 << 20); bytes = bytes * 5 / 4 + 7) {
    REQUIRE_OK(bl_pool_take(pool, bytes, &chunk[0]));
    memset(chunk[0].data, 1, bytes); /* the sanitizer looks at the size */
    void *data = chunk[0].data;
    bl_pool_give(pool, &chunk[0]);
    CHECK(chunk[0].data == NULL);
    REQUIRE_OK(bl_pool_take(pool, bytes, &chunk[1]));
    CHECK(chunk[1].data == data);
    REQUIRE_OK(bl_pool_take(pool, bytes, &chunk[2]));
    CHECK(chunk[2].data != data);
    bl_pool_give(pool, &chunk[1]);
    bl_pool_give(pool, &chunk[2]);
  }
  bl_pool_free(pool);
  be->destroy(be);
}

static void test_learning_rate(void) {
  CHECK_NEAR(bl_learning_rate(1e-3, 1, 10, 100), 1e-4, 1e-12);
  CHECK_NEAR(bl_learning_rate(1e-3, 10, 10, 100), 1e-3, 1e-12);
  CHECK_NEAR(bl_learning_rate(1e-3, 55, 10, 100), 0.55e-3, 1e-12);
  CHECK_NEAR(bl_learning_rate(1e-3, 100, 10, 100), 1e-4, 1e-12);
  CHECK_NEAR(bl_learning_rate(1e-3, 1000, 10, 100), 1e-4, 1e-12);
  CHECK_NEAR(bl_learning_rate(1e-3, 1, 0, 1), 1e-4, 1e-12);
}

static void write_file(const char *path, const void *bytes, size_t n) {
  FILE *file = fopen(path, "wb");
  REQUIRE(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
}

static void test_safetensors(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/test_train_parts.%ld", (long)getpid());
  const bl_safetensor tensors[] = {{"a.weight", 2, 3}, {"b.bias", 1, 2}};
  const float numbers[] = {1, 2, 3, 4, 5, 6, 7, 8};
  FILE *file = fopen(path, "wb");
  REQUIRE(file != NULL);
  CHECK_OK(bl_safetensors_header(file, tensors, 2));
  CHECK(ftell(file) % 8 == 0);
  fwrite(numbers, sizeof numbers, 1, file);
  fclose(file);
  bl_safetensors_file *read;
  float back[6];
  REQUIRE_OK(bl_safetensors_open(path, &read));
  CHECK(bl_safetensors_has(read, "b.bias") && !bl_safetensors_has(read, "b"));
  CHECK_OK(bl_safetensors_read(read, "b.bias", 1, 2, back));
  CHECK(back[0] == 7 && back[1] == 8);
  CHECK_OK(bl_safetensors_read(read, "a.weight", 2, 3, back));
  CHECK(!memcmp(back, numbers, sizeof back));
  CHECK_FAILS(bl_safetensors_read(read, "a.weight", 3, 2, back), BL_EINPUT, "expected shape [3, 2], found [2, 3]");
  CHECK_FAILS(bl_safetensors_read(read, "c", 1, 1, back), BL_EINPUT, "c");
  bl_safetensors_close(read);

  /* Cut short and flipped anywhere: refused, or the numbers are read from inside the file; never a crash. */
  char *whole;
  uint64_t size;
  REQUIRE_OK(bl_file_read(path, 1 << 20, &whole, &size));
  for (uint64_t i = 0; i < 2 * size; i++) {
    char *copy = malloc(size);
    memcpy(copy, whole, size);
    if (i < size) copy[i] = (char)(copy[i] ^ (1 << (i % 8)));
    write_file(path, copy, i < size ? size : i - size);
    free(copy);
    if (bl_safetensors_open(path, &read) != BL_OK) {
      CHECK(strstr(bl_error_text(), path) != NULL);
      continue;
    }
    if (bl_safetensors_read(read, "a.weight", 2, 3, back) != BL_OK) CHECK(strstr(bl_error_text(), path) != NULL);
    bl_safetensors_close(read);
  }
  free(whole);
  unlink(path);
}

static void test_sequences(void) {
  char text[100];
  for (int i = 0; i < 100; i++) text[i] = (char)(200 + i % 50);
  const bl_corpus corpus = {.bytes = text, .size = sizeof text};
  int32_t token[99], target[99];
  bool seen[100] = {false};
  for (int64_t i = 0; i < 500; i++) {
    bl_corpus_sequence(&corpus, 1, 1 + i / 8, i % 8, 90, token, target);
    CHECK(token[0] >= 200 && token[1] == target[0] && target[89] == (token[0] - 200 + 90) % 50 + 200);
    seen[token[0] - 200] = true;
  }
  for (int start = 0; start < 10; start++) CHECK(seen[start]); /* 100 - 90 places to begin, the last one too */
  CHECK(!seen[10]);
  bl_corpus_sequence(&corpus, 1, 1, 0, 99, token, target);
  CHECK(token[0] == 200 && target[98] == 249);
}

int main(void) {
  RUN(test_scale_counts);
  RUN(test_scale_known);
  RUN(test_capacity);
  RUN(test_second_choice);
  RUN(test_gate_names);
  RUN(test_routes);
  RUN(test_pool);
  RUN(test_learning_rate);
  RUN(test_safetensors);
  RUN(test_sequences);
  TEST_MAIN_END;
}
