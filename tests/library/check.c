/* What ballast.h promises, seen from outside: compiled against the installed header and library alone, as C and as C++.
 * Arguments: the path of ballast-plan, a model file, a cluster file. */
#include <ballast.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

#define CHECK(good) check((good), #good, __LINE__)
static void check(int good, const char *text, int line) {
  if (good) {
    passed++;
  } else {
    failed++;
    printf("failed: check.c:%d: %s\n", line, text);
  }
}

/* The call was refused with a sentence that has `part` in it. */
#define REFUSED(handle, call, part) refused((handle), (call), (part), __LINE__)
static void refused(ballast *handle, ballast_status status, const char *part, int line) {
  if (status == BALLAST_INVALID && strstr(ballast_message(handle), part) != NULL) {
    passed++;
  } else {
    failed++;
    printf("failed: check.c:%d: expected \"%s\", found %d: %s\n", line, part, (int)status, ballast_message(handle));
  }
}

enum { L = 2, E = 12, P = 4, S = 16, SOURCES = 3 };

static const int32_t slots[P] = {5, 3, 4, 4};
static const double speed[P] = {1, 0.5, 1, 2};
static const double loads[L * E] = {900, 40, 30, 50, 10, 0, 70, 300, 20, 25, 35, 120,
                                    1,   2,  3,  4,  5,  6, 7,  8,   9,  10, 11, 12};

static ballast_shape shape_of(const int32_t *own_slots, const double *own_speed) {
  const ballast_shape shape = {sizeof shape, L, E, P, own_slots, own_speed, NULL};
  return shape;
}

/* max / mean of loads over speeds, where rank r has own_slots[r] slots. */
static double imbalance_of(const double *load, const int32_t *own_slots, const double *own_speed,
                           const int32_t *phy2log, const double *share) {
  double most = 0, total = 0, fast = 0;
  for (int r = 0, i = 0; r < P; r++) {
    double mine = 0;
    for (int k = 0; k < own_slots[r]; k++, i++)
      if (phy2log[i] >= 0) mine += load[phy2log[i]] * share[i];
    const double s = own_speed ? own_speed[r] : 1;
    most = mine / s > most ? mine / s : most;
    total += mine;
    fast += s;
  }
  return most * fast / total;
}

static void check_placement(ballast *b, const char *rule, const double *own_speed, int every_slot) {
  const ballast_shape shape = shape_of(slots, own_speed);
  ballast_placement *p = NULL;
  CHECK(ballast_place(b, &shape, rule, loads, &p) == BALLAST_OK && p != NULL && *ballast_message(b) == '\0');
  CHECK(ballast_placement_slots(p) == S);
  for (int l = 0; l < L; l++) {
    int32_t phy2log[S], home[E];
    double share[S], imbalance = 0, bound = 0, sum[E] = {0};
    int hosts[E] = {0}, at_home = 0, full = 1;
    CHECK(ballast_placement_phy2log(p, l, phy2log, share) == BALLAST_OK);
    CHECK(ballast_placement_home(p, l, home) == BALLAST_OK);
    CHECK(ballast_placement_imbalance(p, l, &imbalance, &bound) == BALLAST_OK);
    for (int r = 0, i = 0; r < P; r++)
      for (int k = 0; k < slots[r]; k++, i++) {
        full = full && phy2log[i] >= 0;
        if (phy2log[i] < 0) continue;
        hosts[phy2log[i]]++;
        sum[phy2log[i]] += share[i];
        at_home += home[phy2log[i]] == r;
      }
    CHECK(at_home >= E);
    CHECK(!every_slot || full);
    for (int e = 0; e < E; e++) CHECK(hosts[e] >= 1 && fabs(sum[e] - 1) < 1e-9);
    CHECK(fabs(imbalance_of(loads + l * E, slots, own_speed, phy2log, share) - imbalance) < 1e-9);
    CHECK(bound >= 1 && imbalance > bound - 1e-9);
    uint32_t counts[SOURCES * E], quota[SOURCES * S];
    for (int i = 0; i < SOURCES * E; i++) counts[i] = (uint32_t)(loads[l * E + i % E]) + (uint32_t)(i % 5);
    CHECK(ballast_placement_quota(p, l, counts, SOURCES, 2, quota, &imbalance) == BALLAST_OK && imbalance >= 1);
    for (int s = 0; s < SOURCES; s++) {
      uint32_t got[E] = {0};
      for (int i = 0; i < S; i++) {
        if (phy2log[i] < 0) CHECK(quota[s * S + i] == 0);
        if (phy2log[i] >= 0) got[phy2log[i]] += quota[s * S + i];
      }
      CHECK(memcmp(got, counts + s * E, sizeof got) == 0);
    }
  }
  ballast_placement_free(p);
}

static double first_imbalance(ballast *b, const ballast_shape *shape, const char *rule) {
  ballast_placement *p = NULL;
  double imbalance = -1;
  if (ballast_place(b, shape, rule, loads, &p) == BALLAST_OK) ballast_placement_imbalance(p, 0, &imbalance, NULL);
  ballast_placement_free(p);
  return imbalance;
}

static void check_rules(ballast *b) {
  const char *const rules[] = {"ballast", "ballast-fixed", "static", "smartmoe", "even", "eplb"};
  for (int i = 0; i < 6; i++) {
    check_placement(b, rules[i], NULL, i >= 4);
    if (i < 3) check_placement(b, rules[i], speed, 0);
  }
  const ballast_shape shape = shape_of(NULL, NULL);
  CHECK(fabs(first_imbalance(b, &shape, "ballast") - 1) < 1e-9); /* a slot to spare on each rank: perfect */
  CHECK(first_imbalance(b, &shape, "even") <= first_imbalance(b, &shape, "eplb"));
  CHECK(first_imbalance(b, &shape, "ballast-fixed") <= first_imbalance(b, &shape, "static"));
}

/* Replicas of one expert that meet on a rank: a slot each, the tokens in the first; and homes alone, with their bound.
 */
static void check_corners(ballast *b) {
  const int32_t four[2] = {4, 4}, homes_only[P] = {3, 3, 3, 3}, uneven[P] = {5, 1, 3, 3};
  const double hot[4] = {1000, 1, 1, 1};
  const uint32_t counts[4] = {1000, 1, 1, 1};
  ballast_shape shape = {sizeof shape, 1, 4, 2, four, NULL, NULL};
  ballast_placement *p = NULL;
  int32_t phy2log[8], twice = 0;
  double share[8], sum[4] = {0}, load[2] = {0}, imbalance = 0, bound = 0;
  uint32_t quota[8], got[4] = {0};
  CHECK(ballast_place(b, &shape, "eplb", hot, &p) == BALLAST_OK);
  CHECK(ballast_placement_phy2log(p, 0, phy2log, share) == BALLAST_OK);
  CHECK(ballast_placement_quota(p, 0, counts, 1, 0, quota, NULL) == BALLAST_OK);
  for (int i = 0; i < 8; i++) {
    CHECK(phy2log[i] >= 0 && share[i] > 0);
    sum[phy2log[i]] += share[i];
    load[i / 4] += share[i] * hot[phy2log[i]];
    got[phy2log[i]] += quota[i];
    for (int k = i / 4 * 4; k < i; k++) twice += phy2log[k] == phy2log[i];
  }
  CHECK(twice > 0);
  for (int e = 0; e < 4; e++) CHECK(fabs(sum[e] - 1) < 1e-12 && got[e] == counts[e]);
  CHECK(ballast_placement_imbalance(p, 0, &imbalance, NULL) == BALLAST_OK);
  CHECK(fabs(imbalance - (load[0] > load[1] ? load[0] : load[1]) * 2 / 1003) < 1e-9);
  ballast_placement_free(p);

  shape = shape_of(homes_only, NULL);
  CHECK(ballast_place(b, &shape, "ballast", loads, &p) == BALLAST_OK);
  CHECK(ballast_placement_imbalance(p, 0, &imbalance, &bound) == BALLAST_OK);
  CHECK(fabs(bound - (900 + 0 + 10) * 4 / 1600.0) < 1e-9); /* the hottest with the two smallest, of a mean of 400 */
  CHECK(imbalance > bound - 1e-9 && imbalance < 1.2 * bound);
  ballast_placement_free(p);
  shape = shape_of(uneven, NULL); /* the hottest can be alone */
  CHECK(ballast_place(b, &shape, "ballast", loads, &p) == BALLAST_OK);
  CHECK(ballast_placement_imbalance(p, 0, &imbalance, &bound) == BALLAST_OK && fabs(bound - 2.25) < 1e-9);
  ballast_placement_free(p);
}

/* -- policy -------------------------------------------------------------------------------------------------------- */

static void counts_of(int step, int layer, uint32_t *counts) {
  for (int i = 0; i < SOURCES * E; i++)
    counts[i] = (uint32_t)(100 + 70 * sin(0.1 * step + layer + 1.7 * (i % E)) + (i % E == step / 20 ? 500 : 0) + i / E);
}

/* Steps from..to; hosts and quotas into a sum that tells them apart. */
static double drive(ballast_policy *p, int from, int to) {
  double told = 0, imbalance = 0;
  for (int step = from; step < to; step++) {
    CHECK(ballast_policy_begin_step(p, step) == BALLAST_OK);
    for (int l = 0; l < L; l++)
      for (int m = 0; m < 2; m++) {
        uint32_t counts[SOURCES * E], quota[SOURCES * S];
        int32_t home[E], phy2log[S], repaired = 0;
        counts_of(step + m, l, counts);
        CHECK(ballast_policy_micro_batch(p, l, counts, SOURCES, 0, quota, &imbalance, &repaired) == BALLAST_OK);
        CHECK(ballast_policy_hosts(p, l, home, phy2log) == BALLAST_OK);
        for (int s = 0; s < SOURCES; s++) {
          uint32_t got[E] = {0};
          for (int i = 0; i < S; i++)
            if (phy2log[i] >= 0) got[phy2log[i]] += quota[s * S + i];
          CHECK(memcmp(got, counts + s * E, sizeof got) == 0);
        }
        for (int i = 0; i < S; i++) told = fmod(told * 1.01 + (phy2log[i] + 2) * 1.5 + quota[i] + repaired, 1e6);
        for (int e = 0; e < E; e++) told = fmod(told * 1.01 + home[e], 1e6);
      }
    CHECK(ballast_policy_end_step(p) == BALLAST_OK);
    ballast_policy_report report;
    CHECK(ballast_policy_report_of(p, 1, &report) == BALLAST_OK);
    CHECK(report.imbalance >= 1 && report.copies <= S - E && report.copies_used <= report.copies && report.moved <= E);
  }
  return told + imbalance;
}

static void check_policy(ballast *b) {
  const ballast_shape shape = shape_of(slots, speed);
  ballast_policy_options options;
  ballast_policy *whole = NULL, *half = NULL, *rest = NULL;
  uint64_t size = 0;
  ballast_policy_options_init(&options);
  options.homes = "cost";
  options.late_repair = 1.02;
  CHECK(ballast_policy_create(b, &shape, &options, &whole) == BALLAST_OK && ballast_policy_slots(whole) == S);
  CHECK(ballast_policy_create(b, &shape, &options, &half) == BALLAST_OK);
  CHECK(ballast_policy_create(b, &shape, &options, &rest) == BALLAST_OK);
  const ballast_policy_extras extras = {sizeof(ballast_policy_extras), -1};
  ballast_policy *refused_one = NULL;
  REFUSED(b, ballast_policy_create_with(b, &shape, &options, &extras, &refused_one), "expected 1 to");
  CHECK(refused_one == NULL);
  const double first = drive(whole, 0, 40);
  CHECK(drive(half, 0, 40) == first);
  CHECK(ballast_policy_save(half, NULL, 0, &size) == BALLAST_OK && size > 100);
  char *bytes = (char *)malloc((size_t)size);
  REFUSED(b, ballast_policy_save(half, bytes, size - 1, &size), "expected room");
  CHECK(ballast_policy_save(half, bytes, size, &size) == BALLAST_OK);
  CHECK(ballast_policy_load(rest, bytes, size) == BALLAST_OK);
  const double on = drive(whole, 40, 80);
  CHECK(drive(rest, 40, 80) == on && on != first);
  bytes[size / 2] ^= 1;
  REFUSED(b, ballast_policy_load(rest, bytes, size), "");
  REFUSED(b, ballast_policy_load(rest, bytes, 7), "");
  REFUSED(b, ballast_policy_begin_step(whole, 79), "expected a higher one");
  REFUSED(b, ballast_policy_end_step(whole), "no step has begun");
  uint32_t counts[SOURCES * E];
  counts_of(0, 0, counts);
  REFUSED(b, ballast_policy_micro_batch(whole, 0, counts, SOURCES, 0, NULL, NULL, NULL), "outside of a step");
  CHECK(ballast_policy_begin_step(whole, 80) == BALLAST_OK);
  REFUSED(b, ballast_policy_begin_step(whole, 81), "has not ended");
  REFUSED(b, ballast_policy_save(whole, NULL, 0, &size), "has not ended");
  REFUSED(b, ballast_policy_micro_batch(whole, L, counts, SOURCES, 0, NULL, NULL, NULL), "layer 2: expected 0 to 1");
  REFUSED(b, ballast_policy_micro_batch(whole, -1, counts, SOURCES, 0, NULL, NULL, NULL), "layer -1");
  REFUSED(b, ballast_policy_micro_batch(whole, 0, NULL, SOURCES, 0, NULL, NULL, NULL), "NULL");
  REFUSED(b, ballast_policy_micro_batch(whole, 0, counts, 0, 0, NULL, NULL, NULL), "0 sources");
  REFUSED(b, ballast_policy_micro_batch(whole, 0, counts, SOURCES, -1, NULL, NULL, NULL), "-1 ranks a node");
  ballast_policy_report report;
  REFUSED(b, ballast_policy_report_of(whole, 0, &report), "no step has ended");
  ballast_policy *none = whole;
  options.rule = "magic";
  REFUSED(b, ballast_policy_create(b, &shape, &options, &none), "magic");
  CHECK(none == NULL);
  options.rule = "fastermoe";
  REFUSED(b, ballast_policy_create(b, &shape, &options, &none), "fastermoe");
  options.rule = "eplb:5";
  REFUSED(b, ballast_policy_create(b, &shape, &options, &none), "follows its own rule");
  options.rule = "ballast";
  options.lag = 0;
  REFUSED(b, ballast_policy_create(b, &shape, &options, &none), "lag of 0");
  free(bytes);
  ballast_policy_free(whole);
  ballast_policy_free(half);
  ballast_policy_free(rest);
}

/* -- search, proof ------------------------------------------------------------------------------------------------- */

static char *read_file(const char *path, uint64_t *size) {
  FILE *file = fopen(path, "rb");
  char *text = (char *)calloc(1, 1 << 16);
  *size = file ? (uint64_t)fread(text, 1, (1 << 16) - 1, file) : 0;
  if (file) fclose(file);
  return text;
}

static void check_search(ballast *b, const char *model, const char *cluster) {
  ballast_search_options options;
  ballast_found *by_path = NULL, *by_text = NULL;
  ballast_search_options_init(&options);
  options.model_path = model;
  options.cluster_path = cluster;
  options.batch = 512;
  options.ranks = 64;
  options.top = 5;
  options.imbalance = 1.1;
  CHECK(ballast_search(b, &options, &by_path) == BALLAST_OK);
  options.model_text = read_file(model, &options.model_bytes);
  options.cluster_text = read_file(cluster, &options.cluster_bytes);
  options.model_path = options.cluster_path = NULL;
  CHECK(ballast_search(b, &options, &by_text) == BALLAST_OK);
  const int32_t n = ballast_found_count(by_path);
  CHECK(n >= 1 && n <= 5 && n == ballast_found_count(by_text) && ballast_found_bound_us(by_path) > 0);
  double before = 0;
  for (int32_t i = 0; i < n; i++) {
    ballast_layout one, other;
    memset(&one, 0, sizeof one); /* padding too: they are compared whole */
    memset(&other, 0, sizeof other);
    CHECK(ballast_found_layout(by_path, i, &one) == BALLAST_OK &&
          ballast_found_layout(by_text, i, &other) == BALLAST_OK);
    CHECK(one.step_us == other.step_us && one.tp == other.tp && one.ep == other.ep && one.pp == other.pp);
    CHECK(one.tp * one.cp * one.dp * one.pp == 64 && one.etp * one.ep * one.edp * one.pp == 64);
    CHECK(one.step_us >= before && one.step_us >= ballast_found_bound_us(by_path) * (1 - 1e-9) && one.memory_bytes > 0);
    before = one.step_us;
    int32_t layers[4096], all = 0, others = 0;
    CHECK(ballast_found_stages(by_path, i, layers) == BALLAST_OK);
    for (int32_t s = 0; s < one.pp * one.vp; s++) all += layers[s];
    CHECK(ballast_found_stages(by_text, i, layers) == BALLAST_OK);
    for (int32_t s = 0; s < other.pp * other.vp; s++) others += layers[s];
    CHECK(all > 0 && all == others);
  }
  ballast_layout one;
  REFUSED(b, ballast_found_layout(by_path, n, &one), "expected 0 to");
  REFUSED(b, ballast_found_layout(by_path, 0, NULL), "NULL");
  ballast_found_free(by_path);
  ballast_found_free(by_text);
  ballast_found *none = NULL;
  const uint64_t whole = options.model_bytes;
  options.model_bytes = whole / 2;
  REFUSED(b, ballast_search(b, &options, &none), "the model:");
  options.model_bytes = whole;
  options.ranks = 1;
  options.memory_fraction = 0.001;
  REFUSED(b, ballast_search(b, &options, &none), "does not fit 1 ranks");
  options.memory_fraction = 2;
  REFUSED(b, ballast_search(b, &options, &none), "memory fraction");
  options.memory_fraction = 0.9;
  options.batch = 0;
  REFUSED(b, ballast_search(b, &options, &none), "batch 0");
  options.batch = 512;
  options.top = 0;
  REFUSED(b, ballast_search(b, &options, &none), "top 0");
  options.top = 5;
  options.tp = -3;
  REFUSED(b, ballast_search(b, &options, &none), "tp -3");
  options.tp = 0;
  options.max_vp = 0;
  REFUSED(b, ballast_search(b, &options, &none), "max_vp 0");
  options.max_vp = 1;
  options.type = "fp1";
  REFUSED(b, ballast_search(b, &options, &none), "fp1");
  options.type = NULL;
  free((void *)options.model_text);
  options.model_text = NULL;
  REFUSED(b, ballast_search(b, &options, &none), "neither a path nor a text");
  options.model_path = "absent.json";
  REFUSED(b, ballast_search(b, &options, &none), "absent.json");
  free((void *)options.cluster_text);
  CHECK(none == NULL);
}

/* Simulated times order what closed forms found; the parts of a step are the step. */
static void check_search_with(ballast *b, const char *model, const char *cluster) {
  ballast_search_options options;
  ballast_search_extras extras;
  ballast_found *found = NULL, *plain = NULL;
  ballast_layout one;
  ballast_layout_detail d;
  memset(&extras, 0, sizeof extras);
  ballast_search_options_init(&options);
  options.model_path = model;
  options.cluster_path = cluster;
  options.batch = 32;
  options.ranks = 16;
  options.top = 3;
  options.pp = 1; /* few layouts, of few actions: sanitizers take their time */
  options.max_micro_batch = 2;
  options.node_dispatch = 1;
  extras.bytes = sizeof extras;
  extras.simulate = 1000;
  extras.max_pieces = 2;
  extras.shard = 4;
  extras.gradient_bytes = 2;
  CHECK(ballast_search_with(b, &options, &extras, &found) == BALLAST_OK);
  const int32_t n = ballast_found_count(found);
  CHECK(n >= 1 && ballast_found_simulated(found) >= n && ballast_found_undecided(found) == 0);
  double before = ballast_found_bound_us(found);
  for (int32_t i = 0; i < n; i++) {
    memset(&d, 1, sizeof d);
    d.bytes = sizeof d;
    CHECK(ballast_found_layout(found, i, &one) == BALLAST_OK && ballast_found_detail(found, i, &d) == BALLAST_OK);
    const double sum = d.dense_us + d.experts_us + d.recompute_us + d.tensor_us + d.context_us + d.exchange_us +
                       d.send_us + d.bubble_us + d.reduce_us + d.optimizer_us;
    CHECK(d.bytes == sizeof d && one.step_us == d.simulated_us && d.closed_form_us > 0 && one.step_us >= before);
    CHECK(fabs(sum - one.step_us) < 1e-6 * sum && (d.pieces == 1 || d.pieces == 2));
    CHECK(one.zero == 0 ? d.shard == 1 : d.shard == (one.dp * one.cp % 4 ? one.dp * one.cp : 4));
    before = one.step_us;
  }
  CHECK(ballast_found_layout(found, 0, &one) == BALLAST_OK && one.step_us == ballast_found_bound_us(found));
  /* A caller whose structure is of an older or of a newer version. */
  struct {
    ballast_layout_detail known;
    double later;
  } newer;
  memset(&newer, 7, sizeof newer);
  newer.known.bytes = sizeof newer;
  CHECK(ballast_found_detail(found, 0, &newer.known) == BALLAST_OK && newer.later == 0 && newer.known.simulated_us > 0);
  d.bytes = offsetof(ballast_layout_detail, simulated_us);
  d.simulated_us = -5;
  CHECK(ballast_found_detail(found, 0, &d) == BALLAST_OK && d.simulated_us == -5 && d.closed_form_us > 0);
  d.bytes = 3;
  REFUSED(b, ballast_found_detail(found, 0, &d), "bytes is 3");
  d.bytes = sizeof d;
  REFUSED(b, ballast_found_detail(found, n, &d), "expected 0 to");
  REFUSED(b, ballast_found_detail(found, 0, NULL), "NULL");
  CHECK(ballast_found_detail(NULL, 0, &d) == BALLAST_INVALID);
  ballast_found_free(found);
  CHECK(ballast_search_with(b, &options, NULL, &plain) == BALLAST_OK && ballast_found_simulated(plain) == 0);
  CHECK(ballast_found_detail(plain, 0, &d) == BALLAST_OK && d.simulated_us == 0 && d.closed_form_us > 0);
  ballast_found_free(plain);
  found = NULL;
  extras.simulate = -1;
  REFUSED(b, ballast_search_with(b, &options, &extras, &found), "simulate -1");
  extras.simulate = 0;
  extras.max_pieces = 65;
  REFUSED(b, ballast_search_with(b, &options, &extras, &found), "max_pieces 65");
  extras.max_pieces = 0;
  extras.shard = -1;
  REFUSED(b, ballast_search_with(b, &options, &extras, &found), "shard -1");
  extras.shard = 0;
  extras.gradient_bytes = 3;
  REFUSED(b, ballast_search_with(b, &options, &extras, &found), "gradient_bytes 3");
  extras.bytes = 1;
  REFUSED(b, ballast_search_with(b, &options, &extras, &found), "extras of a search");
  CHECK(found == NULL && ballast_found_simulated(NULL) == 0 && ballast_found_undecided(NULL) == 0);
}

static void check_prove(ballast *b, const char *program) {
  ballast_prove_options options;
  const ballast_shape shape = shape_of(NULL, NULL);
  ballast_proof proof[L];
  ballast_placement *p = NULL;
  uint32_t counts[L * E];
  memset(&options, 0, sizeof options);
  options.bytes = sizeof options;
  options.program = program;
  options.within = 1.05;
  options.seconds = 5;
  options.deadline = 60;
  for (int i = 0; i < L * E; i++) counts[i] = (uint32_t)loads[i];
  CHECK(ballast_prove(b, &shape, counts, &options, proof, &p) == BALLAST_OK);
  for (int l = 0; p && l < L; l++) {
    double imbalance = 0;
    int32_t phy2log[S], used = 0;
    CHECK(ballast_placement_imbalance(p, l, &imbalance, NULL) == BALLAST_OK);
    CHECK(ballast_placement_phy2log(p, l, phy2log, NULL) == BALLAST_OK);
    for (int i = 0; i < S; i++) used += phy2log[i] >= 0;
    CHECK(proof[l].state == BALLAST_PROVED && proof[l].copies == proof[l].bound);
    CHECK(used - E == proof[l].copies && fabs(proof[l].imbalance - imbalance) < 1e-6 && imbalance <= 1.05 + 1e-9);
  }
  CHECK(proof[0].copies >= 1 && proof[1].copies == 0); /* one expert has half of the load; the others are mild */
  ballast_placement_free(p);
  options.program = "absent/ballast-plan";
  REFUSED(b, ballast_prove(b, &shape, counts, &options, proof, NULL), "absent/ballast-plan: cannot be started");
  options.program = "/bin/false";
  REFUSED(b, ballast_prove(b, &shape, counts, &options, proof, NULL), "exit code 1");
  options.program = "/bin/true";
  CHECK(ballast_prove(b, &shape, counts, &options, proof, &p) == BALLAST_MACHINE && p == NULL);
  CHECK(strstr(ballast_message(b), "answer") != NULL);
  options.program = NULL;
  REFUSED(b, ballast_prove(b, &shape, counts, &options, proof, NULL), "NULL");
  options.program = program;
  options.within = 0.9;
  REFUSED(b, ballast_prove(b, &shape, counts, &options, proof, NULL), "within 0.9");
  options.within = 1.05;
  const ballast_shape fast = shape_of(NULL, speed);
  REFUSED(b, ballast_prove(b, &fast, counts, &options, proof, NULL), "no speeds");
}

/* A program that never answers is killed when the time is over; it stands in for ballast-plan. */
static void check_deadline(ballast *b, const char *sleeper) {
  ballast_prove_options options;
  const ballast_shape shape = shape_of(NULL, NULL);
  ballast_proof proof[L];
  const uint32_t counts[L * E] = {1};
  memset(&options, 0, sizeof options);
  options.bytes = sizeof options;
  options.program = sleeper;
  options.within = 1.05;
  options.seconds = 5;
  options.deadline = 0.3;
  CHECK(ballast_prove(b, &shape, counts, &options, proof, NULL) == BALLAST_DEADLINE);
  CHECK(strstr(ballast_message(b), "0.3 seconds") != NULL);
}

static void check_arguments(ballast *b) {
  ballast *none = b;
  ballast_placement *p = NULL;
  CHECK(ballast_open(BALLAST_VERSION_MAJOR + 1, &none) == BALLAST_VERSION && none == NULL);
  CHECK(ballast_open(BALLAST_VERSION_MAJOR, NULL) == BALLAST_INVALID);
  CHECK(ballast_place(NULL, NULL, "ballast", loads, &p) == BALLAST_INVALID && *ballast_message(NULL) != '\0');
  CHECK(ballast_placement_home(NULL, 0, NULL) == BALLAST_INVALID && ballast_placement_slots(NULL) == 0);
  ballast_shape shape = shape_of(slots, NULL);
  REFUSED(b, ballast_place(b, NULL, "ballast", loads, &p), "the shape: NULL");
  REFUSED(b, ballast_place(b, &shape, NULL, loads, &p), "the rule is NULL");
  REFUSED(b, ballast_place(b, &shape, "ballast", NULL, &p), "the loads are NULL");
  REFUSED(b, ballast_place(b, &shape, "best", loads, &p), "rule \"best\"");
  shape.bytes = 0;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "expected its sizeof");
  shape.bytes = sizeof shape;
  shape.layers = 0;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "0 layers");
  shape = shape_of(slots, NULL);
  shape.ranks = E + 1;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "13 ranks for 12 experts");
  shape = shape_of(slots, NULL);
  const int32_t few[P] = {3, 3, 3, 2}, many[P] = {3, 3, 3, 13}, homes[L * E] = {4};
  shape.slots = few;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "cannot hold 12 experts");
  shape.slots = many;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "rank 3 has 13 slots");
  shape = shape_of(slots, speed);
  REFUSED(b, ballast_place(b, &shape, "even", loads, &p), "no speeds");
  const double slow[P] = {1, 0, 1, 1};
  shape.speed = slow;
  REFUSED(b, ballast_place(b, &shape, "ballast", loads, &p), "rank 1 has speed 0");
  shape = shape_of(slots, NULL);
  shape.home = homes;
  REFUSED(b, ballast_place(b, &shape, "static", loads, &p), "home 4, expected 0 to 3");
  shape = shape_of(slots, NULL);
  double bad[L * E] = {0};
  bad[E + 3] = -1;
  REFUSED(b, ballast_place(b, &shape, "ballast", bad, &p), "layer 1, expert 3: load -1");
  bad[E + 3] = NAN;
  REFUSED(b, ballast_place(b, &shape, "ballast", bad, &p), "load");
  CHECK(p == NULL);
  bad[E + 3] = 0; /* nothing at all to do is fine */
  CHECK(ballast_place(b, &shape, "ballast", bad, &p) == BALLAST_OK && *ballast_message(b) == '\0');
  int32_t home[E];
  REFUSED(b, ballast_placement_home(p, 2, home), "layer 2: expected 0 to 1");
  REFUSED(b, ballast_placement_home(p, 0, NULL), "NULL");
  uint32_t counts[E] = {1}, quota[S];
  REFUSED(b, ballast_placement_quota(p, 0, counts, -1, 0, quota, NULL), "-1 sources");
  REFUSED(b, ballast_placement_quota(p, 0, NULL, 1, 0, quota, NULL), "NULL");
  ballast_placement_free(p);
  ballast_placement_free(NULL);
  ballast_policy_free(NULL);
  ballast_found_free(NULL);
  ballast_close(NULL);
  struct {
    ballast_shape shape;
    uint64_t unknown;
  } newer = {shape_of(slots, NULL), 0};
  newer.shape.bytes = sizeof newer;
  CHECK(ballast_place(b, &newer.shape, "static", loads, &p) == BALLAST_OK);
  ballast_placement_free(p);
  newer.unknown = 1;
  REFUSED(b, ballast_place(b, &newer.shape, "static", loads, &p), "does not know");
}

int main(int argc, char **argv) {
  ballast *b = NULL;
  if (argc != 5) return 2;
  CHECK(ballast_open(BALLAST_VERSION_MAJOR, &b) == BALLAST_OK);
  CHECK(strncmp(ballast_version(), "1.", 2) == 0 && *ballast_message(b) == '\0');
  check_rules(b);
  check_corners(b);
  check_policy(b);
  check_arguments(b);
  check_search(b, argv[2], argv[3]);
  check_search_with(b, argv[2], argv[3]);
  check_prove(b, argv[1]);
  check_deadline(b, argv[4]);
  ballast_close(b);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
