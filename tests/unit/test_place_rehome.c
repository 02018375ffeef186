/* Homes that move where it pays: layers whose best change is known, and what must hold whatever the loads. */
#include "base/rng.h"
#include "planner/place/rehome.h"
#include "tests/check.h"
#include <string.h>

/* What one layer needs; hosts start from contiguous homes. */
typedef struct layer {
  bl_hosts hosts, spare[2];
  bl_copies *search;
  bl_shares *shares;
  bl_rehome_options options;
} layer;

static void open_layer(layer *t, int32_t experts, int32_t ranks, const int32_t *slots) {
  REQUIRE_OK(bl_hosts_create(&t->hosts, experts, ranks, slots));
  for (int i = 0; i < 2; ++i) REQUIRE_OK(bl_hosts_create(&t->spare[i], experts, ranks, slots));
  REQUIRE_OK(bl_copies_create(experts, ranks, t->hosts.n_copy_slots, &t->search));
  REQUIRE_OK(bl_shares_create(experts, ranks, t->hosts.n_copy_slots, &t->shares));
  bl_rehome_options_init(&t->options);
}

static void close_layer(layer *t) {
  bl_shares_free(t->shares);
  bl_copies_free(t->search);
  bl_hosts_free(&t->hosts);
  for (int i = 0; i < 2; ++i) bl_hosts_free(&t->spare[i]);
}

static int32_t rehome(layer *t, const double *load, int32_t n) {
  int32_t moved = -1;
  CHECK_OK(bl_rehome(t->search, t->shares, &t->hosts, t->spare, load, n, NULL, &t->options, &moved));
  return moved;
}

static int32_t copies_of(const bl_hosts *hosts) {
  int32_t n = 0;
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) n += hosts->copy_expert[s] >= 0;
  return n;
}

/* Eight experts of 0.5 on one of four ranks: with one slot for copies a rank, only moves give back perfect balance. */
static void test_bad_homes(void) {
  enum { E = 32, P = 4 };
  const int32_t slots[P] = {9, 9, 9, 9};
  double load[E] = {0};
  layer t;
  int32_t moved = 0;
  for (int32_t e = 0; e < 8; ++e) load[e] = 0.5;
  open_layer(&t, E, P, slots);
  for (int round = 0; round < 4; ++round) moved += rehome(&t, load, 1);
  CHECK_NEAR(bl_shares_solve(t.shares, &t.hosts, load, NULL), 1.0, 1e-6);
  CHECK(moved > 0 && moved <= 12); /* six of the eight have to leave, each against a home or alone */
  CHECK(copies_of(&t.hosts) <= 3);
  close_layer(&t);
}

/* Rank 0 has 1 + 0.5, rank 1 0.5 + 0: the smaller one into rank 1's free slot, one home moved and not two, no copy. */
static void test_a_home_moves_alone(void) {
  const int32_t slots[2] = {3, 3};
  const double load[4] = {1, 0.5, 0.5, 0};
  layer t;
  open_layer(&t, 4, 2, slots);
  CHECK_INT(rehome(&t, load, 1), 1);
  CHECK_INT(t.hosts.home[1], 1);
  CHECK_INT(copies_of(&t.hosts), 0);
  CHECK_INT(t.hosts.copy_rank[0], 0); /* rank 0 has two slots now, rank 1 none */
  CHECK_INT(t.hosts.copy_rank[1], 0);
  CHECK_INT(t.hosts.n_copy_slots, 2);
  close_layer(&t);
}

/* The same where a copy of the larger one is in the slot: the home that goes alone replaces it. */
static void test_a_home_replaces_a_copy(void) {
  const int32_t slots[2] = {3, 3};
  const double load[4] = {1, 0.5, 0.5, 0};
  layer t;
  open_layer(&t, 4, 2, slots);
  for (int32_t s = 0; s < t.hosts.n_copy_slots; ++s)
    if (t.hosts.copy_rank[s] == 1) t.hosts.copy_expert[s] = 0;
  t.options.copies.copy_price = 0.05;
  CHECK_INT(rehome(&t, load, 1), 1);
  CHECK_INT(t.hosts.home[1], 1);
  CHECK_INT(copies_of(&t.hosts), 0);
  close_layer(&t);
}

/* Rank 1 has nothing to do and no slot, rank 2 a slot and its share of load: an idle expert of rank 1 makes room for a
 * copy of the hot one. */
static void test_an_idle_home_makes_room(void) {
  const int32_t slots[3] = {2, 2, 2};
  const double load[5] = {2, 0, 0, 0, 1};
  layer t;
  open_layer(&t, 5, 3, slots);
  CHECK_INT(rehome(&t, load, 1), 1);
  CHECK_NEAR(bl_shares_solve(t.shares, &t.hosts, load, NULL), 1.0, 1e-6);
  CHECK(t.hosts.home[2] == 2 || t.hosts.home[3] == 2);
  close_layer(&t);
}

/* Slots as a placement with these homes has them; nothing twice on a rank. */
static void check_legal(const bl_hosts *hosts, bl_hosts *fresh) {
  REQUIRE_OK(bl_hosts_assign(fresh, hosts));
  REQUIRE_OK(bl_hosts_set_homes(fresh, hosts->home));
  CHECK_INT(hosts->n_copy_slots, fresh->n_copy_slots);
  CHECK(memcmp(hosts->copy_rank, fresh->copy_rank, (size_t)fresh->n_copy_slots * sizeof *fresh->copy_rank) == 0);
  for (int32_t s = 0; s < hosts->n_copy_slots; ++s) {
    const int32_t e = hosts->copy_expert[s];
    CHECK(e < 0 || hosts->home[e] != hosts->copy_rank[s]);
    for (int32_t t = 0; t < s && e >= 0; ++t)
      CHECK(hosts->copy_expert[t] != e || hosts->copy_rank[t] != hosts->copy_rank[s]);
  }
}

static void test_any_load(void) {
  enum { E = 13, P = 4, N = 3 };
  const int32_t slots[P] = {6, 4, 4, 7};
  bl_rng rng;
  layer t;
  int32_t all = 0;
  bl_rng_seed(&rng, 3, 1);
  open_layer(&t, E, P, slots);

  for (int round = 0; round < 200; ++round) {
    t.options.copies.copy_price = round % 2 ? 0.03 : 0;
    double load[N * E];
    for (int32_t e = 0; e < E; ++e) {
      const double size = bl_rng_unit(&rng) * bl_rng_unit(&rng) * bl_rng_unit(&rng);
      for (int32_t i = 0; i < N; ++i) load[i * E + e] = size * (0.9 + 0.2 * bl_rng_unit(&rng));
    }
    bl_copies_search(t.search, &t.hosts, load, N, NULL, &t.options.copies);
    double before = t.options.copies.copy_price * copies_of(&t.hosts);
    for (int32_t i = 0; i < N; ++i) before += bl_shares_solve(t.shares, &t.hosts, load + i * E, NULL) / N;
    const int32_t moved = rehome(&t, load, N);
    double after = t.options.copies.copy_price * copies_of(&t.hosts);
    for (int32_t i = 0; i < N; ++i) after += bl_shares_solve(t.shares, &t.hosts, load + i * E, NULL) / N;
    CHECK(after <= before - moved * t.options.margin + 1e-9);
    check_legal(&t.hosts, &t.spare[0]);
    all += moved;
  }
  CHECK(all > 100);
  close_layer(&t);
}

int main(void) {
  RUN(test_bad_homes);
  RUN(test_a_home_moves_alone);
  RUN(test_a_home_replaces_a_copy);
  RUN(test_an_idle_home_makes_room);
  RUN(test_any_load);
  TEST_MAIN_END;
}
