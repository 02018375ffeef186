/* Threads with a handle each use the library at once, and come to what one alone comes to.
 * Arguments: a model file, a cluster file, the path of ballast-plan. */
#include <ballast.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 2, E = 32, P = 8, S = 40, L = 3, STEPS = 25 };

typedef struct work {
  const char *model, *cluster, *program;
  double told; /* everything that came out, added up so that any difference shows */
  int failures;
} work;

static void tell(work *w, double value) { w->told = fmod(w->told * 1.3 + value, 1e9); }

static void place(work *w, ballast *b) {
  const char *const rules[] = {"ballast", "ballast-fixed", "even", "eplb", "smartmoe"};
  double load[L * E], share[S];
  int32_t phy2log[S];
  for (int i = 0; i < L * E; i++) load[i] = 1000 / (1.0 + (i * 7) % E) + i;
  const ballast_shape shape = {sizeof shape, L, E, P, NULL, NULL, NULL};
  for (int i = 0; i < 5; i++) {
    ballast_placement *p = NULL;
    w->failures += ballast_place(b, &shape, rules[i], load, &p) != BALLAST_OK;
    for (int l = 0; l < L; l++) {
      w->failures += ballast_placement_phy2log(p, l, phy2log, share) != BALLAST_OK;
      for (int s = 0; s < S; s++) tell(w, phy2log[s] + share[s]);
    }
    ballast_placement_free(p);
  }
  /* every thread fails too, with its own sentence */
  ballast_placement *none = NULL;
  w->failures += ballast_place(b, &shape, "nonsense", load, &none) != BALLAST_INVALID;
  w->failures += strstr(ballast_message(b), "nonsense") == NULL;
}

static void decide(work *w, ballast *b) {
  const ballast_shape shape = {sizeof shape, L, E, P, NULL, NULL, NULL};
  ballast_policy_options options;
  ballast_policy *p = NULL;
  uint32_t counts[2 * E], quota[2 * S];
  ballast_policy_options_init(&options);
  options.homes = "cost";
  options.late_repair = 1.01;
  w->failures += ballast_policy_create(b, &shape, &options, &p) != BALLAST_OK;
  for (int step = 0; step < STEPS; step++) {
    w->failures += ballast_policy_begin_step(p, step) != BALLAST_OK;
    for (int l = 0; l < L; l++) {
      double imbalance = 0;
      for (int i = 0; i < 2 * E; i++)
        counts[i] = (uint32_t)(100 + 90 * sin(0.05 * step + l + i) + (i % E == 5 ? 800 : 0));
      w->failures += ballast_policy_micro_batch(p, l, counts, 2, 4, quota, &imbalance, NULL) != BALLAST_OK;
      for (int s = 0; s < 2 * S; s++) tell(w, quota[s]);
      tell(w, imbalance);
    }
    w->failures += ballast_policy_end_step(p) != BALLAST_OK;
  }
  ballast_policy_free(p);
}

static void search(work *w, ballast *b) {
  ballast_search_options options;
  ballast_found *found = NULL;
  ballast_search_options_init(&options);
  options.model_path = w->model;
  options.cluster_path = w->cluster;
  options.batch = 256;
  options.ranks = 16;
  options.top = 3;
  options.pp = 2;
  ballast_search_extras extras = {sizeof extras, 2, 1, 0, 0};
  w->failures += ballast_search_with(b, &options, &extras, &found) != BALLAST_OK;
  w->failures += ballast_found_simulated(found) == 0;
  for (int32_t i = 0; i < ballast_found_count(found); i++) {
    ballast_layout layout;
    w->failures += ballast_found_layout(found, i, &layout) != BALLAST_OK;
    tell(w, layout.step_us + layout.tp * 3 + layout.ep * 5);
  }
  ballast_found_free(found);
}

static void prove(work *w, ballast *b) {
  const ballast_shape shape = {sizeof shape, 1, E, P, NULL, NULL, NULL};
  const ballast_prove_options options = {sizeof options, w->program, 1.05, 5, 60, 0};
  ballast_proof proof;
  uint32_t counts[E];
  for (int i = 0; i < E; i++) counts[i] = (uint32_t)(4000 / (i + 1));
  w->failures += ballast_prove(b, &shape, counts, &options, &proof, NULL) != BALLAST_OK;
  tell(w, proof.copies + 3 * proof.bound + proof.imbalance);
}

static void *run(void *argument) {
  work *w = (work *)argument;
  ballast *b = NULL;
  w->failures += ballast_open(BALLAST_VERSION_MAJOR, &b) != BALLAST_OK;
  place(w, b);
  decide(w, b);
  search(w, b);
  prove(w, b);
  ballast_close(b);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  work alone = {argv[1], argv[2], argv[3], 0, 0}, w[THREADS];
  pthread_t thread[THREADS];
  for (int i = 0; i < THREADS; i++) w[i] = alone;
  for (int i = 0; i < THREADS; i++)
    if (pthread_create(&thread[i], NULL, run, &w[i]) != 0) return 3;
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
  run(&alone);
  int bad = alone.failures;
  for (int i = 0; i < THREADS; i++) bad += w[i].failures + (w[i].told != alone.told);
  printf("%.17g %.17g %.17g, %d failures\n", alone.told, w[0].told, w[1].told, bad);
  return bad != 0;
}
