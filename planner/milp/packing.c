#include "planner/milp/packing.h"
#include "base/memory.h"
#include <string.h>

static int descending(const void *a, const void *b, void *load) {
  const double x = ((const double *)load)[*(const int32_t *)a], y = ((const double *)load)[*(const int32_t *)b];
  if (x != y) return x < y ? 1 : -1;
  return *(const int32_t *)a - *(const int32_t *)b;
}

/* How many of the smallest experts from position `from` on fit into `room`: the largest count whose sum is no more. */
static int32_t smallest_that_fit(const bl_packing *p, int32_t from, double room) {
  const int32_t n = p->problem->experts;
  int32_t low = 0, high = n - from;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (p->prefix[n] - p->prefix[n - middle] <= room)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

/* Necessary for the experts from `from` on to fit: what each bin can take at most, in load (its places filled with the
 * largest) and in number (its room filled with the smallest), sums to enough. */
static bool may_fit(const bl_packing *p, int32_t from) {
  const int32_t n = p->problem->experts;
  double load = p->prefix[n] - p->prefix[from];
  int64_t number = n - from;
  const double smallest = p->prefix[n] - p->prefix[n - 1];
  for (int32_t b = 0; b < p->n_bins; ++b) {
    const bl_packing_bin *bin = &p->bins[b];
    if (bin->places == 0 || bin->room < smallest) continue;
    const int32_t places = bin->places < n - from ? bin->places : n - from;
    const double most = p->prefix[from + places] - p->prefix[from];
    load -= most < bin->room ? most : bin->room;
    const int32_t fit = number > 0 ? smallest_that_fit(p, from, bin->room) : 0;
    number -= fit < places ? fit : places;
  }
  return load <= 1e-12 && number <= 0;
}

static bool twin_before(const bl_packing *p, int32_t b) {
  for (int32_t a = 0; a < b; ++a)
    if (p->bins[a].room == p->bins[b].room && p->bins[a].places == p->bins[b].places) return true;
  return false;
}

static bl_packing_answer pack(bl_packing *p, int32_t position);

static bl_packing_answer try_bin(bl_packing *p, int32_t position, int32_t b, double load) {
  bl_packing_bin *bin = &p->bins[b];
  const double room = bin->room;
  bin->room -= load;
  --bin->places;
  p->in_bin[position] = b;
  const bl_packing_answer verdict = pack(p, position + 1);
  bin->room = room;
  ++bin->places;
  return verdict;
}

/* Bins in a fixed order by room; ties by number. */
static bool tried_before(const bl_packing *p, int32_t a, int32_t b) {
  const double x = p->bins[a].room, y = p->bins[b].room;
  if (x != y) return p->emptiest_first == (x > y);
  return a < b;
}

static bl_packing_answer pack(bl_packing *p, int32_t position) {
  if (position == p->problem->experts) return BL_PACKING_FITS;
  if (++p->visited > p->limit) return BL_PACKING_OUT_OF_BUDGET;
  if (!may_fit(p, position)) return BL_PACKING_FITS_NOT;
  const double load = p->problem->load[p->order[position]];
  for (int32_t last = -1;;) {
    int32_t next = -1;
    for (int32_t b = 0; b < p->n_bins; ++b) {
      if (p->bins[b].places == 0 || p->bins[b].room < load || twin_before(p, b)) continue;
      if (last >= 0 && !tried_before(p, last, b)) continue;
      if (next < 0 || tried_before(p, b, next)) next = b;
    }
    if (next < 0) return BL_PACKING_FITS_NOT;
    const bl_packing_answer verdict = try_bin(p, position, next, load);
    if (verdict != BL_PACKING_FITS_NOT) return verdict;
    last = next;
  }
}

static void open_bins(bl_packing *p) {
  for (int32_t b = 0; b < p->n_bins; ++b) {
    bl_packing_bin *bin = &p->bins[b];
    bin->places = p->places[bin->ranks];
    bin->room = p->room[bin->ranks];
  }
}

static double load_at(const bl_packing *p, int32_t position) { return p->problem->load[p->order[position]]; }

static void put(bl_packing *p, int32_t position, int32_t b) {
  p->in_bin[position] = b;
  p->bins[b].room -= load_at(p, position);
  --p->bins[b].places;
}

static void take(bl_packing *p, int32_t position) {
  p->bins[p->in_bin[position]].room += load_at(p, position);
  ++p->bins[p->in_bin[position]].places;
}

/* Every expert into the emptiest bin that has a place, whether it fits or not. */
static bool spread(bl_packing *p) {
  open_bins(p);
  p->visited += p->problem->experts;
  for (int32_t i = 0; i < p->problem->experts; ++i) {
    int32_t best = -1;
    for (int32_t b = 0; b < p->n_bins; ++b)
      if (p->bins[b].places > 0 && (best < 0 || p->bins[b].room > p->bins[best].room)) best = b;
    if (best < 0) return false;
    put(p, i, best);
  }
  return true;
}

static double squared_excess(double room) { return room < 0 ? room * room : 0; }

/* What the excess of bins falls by when `amount` goes from bin a to bin b. */
static double gain_of(const bl_packing *p, int32_t a, int32_t b, double amount) {
  const double from = p->bins[a].room, to = p->bins[b].room;
  return squared_excess(from) + squared_excess(to) - squared_excess(from + amount) - squared_excess(to - amount);
}

/* The best expert of bin `full` to move to a free place (*other = -1), or to exchange for one elsewhere. */
static void best_exchange(const bl_packing *p, int32_t full, int32_t *position, int32_t *other, int32_t *bin) {
  double best = 1e-12;
  for (int32_t i = 0; i < p->problem->experts; ++i) {
    if (p->in_bin[i] != full) continue;
    for (int32_t b = 0; b < p->n_bins; ++b) {
      if (b == full || p->bins[b].places == 0 || gain_of(p, full, b, load_at(p, i)) <= best) continue;
      best = gain_of(p, full, b, load_at(p, i));
      *position = i, *other = -1, *bin = b;
    }
    for (int32_t j = i + 1; j < p->problem->experts; ++j) { /* only smaller ones help */
      const int32_t b = p->in_bin[j];
      if (b == full || gain_of(p, full, b, load_at(p, i) - load_at(p, j)) <= best) continue;
      best = gain_of(p, full, b, load_at(p, i) - load_at(p, j));
      *position = i, *other = j, *bin = b;
    }
  }
}

/* Two random experts change bins, one of them of the fullest: out of a place where no exchange helps. */
static void kick(bl_packing *p, int32_t full) {
  int32_t position = -1;
  const int32_t n = p->problem->experts;
  for (int32_t tries = 0; tries < 4 * n && position < 0; ++tries) {
    const int32_t i = (int32_t)bl_rng_below(&p->rng, (uint64_t)n);
    if (p->in_bin[i] == full) position = i;
  }
  const int32_t other = (int32_t)bl_rng_below(&p->rng, (uint64_t)n);
  if (position < 0 || p->in_bin[other] == full) return;
  const int32_t bin = p->in_bin[other];
  take(p, position);
  take(p, other);
  put(p, position, bin);
  put(p, other, full);
}

/* A spread repaired by exchanges (and kicks, where nothing else is tried): decides nothing, but finds most packings of
 * many even experts. */
static bool pack_by_exchange(bl_packing *p) {
  if (!spread(p)) return false;
  for (;;) {
    int32_t full = 0, position = -1, other = -1, bin = -1;
    for (int32_t b = 1; b < p->n_bins; ++b)
      if (p->bins[b].room < p->bins[full].room) full = b;
    if (p->bins[full].room >= 0) return true;
    best_exchange(p, full, &position, &other, &bin);
    p->visited += p->problem->experts / p->n_bins + 1;
    if (p->visited >= p->last || (position < 0 && !p->quick)) return false;
    if (position < 0) {
      kick(p, full);
      continue;
    }
    take(p, position);
    if (other >= 0) {
      take(p, other);
      put(p, other, full);
    }
    put(p, position, bin);
  }
}

bl_packing_answer bl_packing_pack(bl_packing *p) {
  if (p->visited >= p->last) return BL_PACKING_OUT_OF_BUDGET;
  if (pack_by_exchange(p)) return BL_PACKING_FITS;
  if (p->quick) return BL_PACKING_OUT_OF_BUDGET;
  bl_packing_answer verdict = BL_PACKING_OUT_OF_BUDGET;
  for (int32_t way = 0; way < 2 && verdict == BL_PACKING_OUT_OF_BUDGET && p->visited < p->last; ++way) {
    open_bins(p);
    p->emptiest_first = way == 0;
    p->limit = p->visited + p->split_nodes < p->last ? p->visited + p->split_nodes : p->last;
    verdict = pack(p, 0);
  }
  return verdict;
}

bl_status bl_packing_create(const bl_fewest *problem, bl_packing *p) {
  const size_t experts = (size_t)problem->experts;
  memset(p, 0, sizeof *p);
  p->problem = problem;
  bl_rng_seed(&p->rng, 1, 3);
  BL_TRY(bl_new(&p->order, experts, sizeof *p->order, "packing"));
  BL_TRY(bl_new(&p->prefix, experts + 1, sizeof *p->prefix, "packing"));
  BL_TRY(bl_new(&p->in_bin, experts, sizeof *p->in_bin, "packing"));
  BL_TRY(bl_new(&p->bins, (size_t)problem->ranks, sizeof *p->bins, "packing"));
  BL_TRY(bl_new(&p->room, (size_t)problem->ranks + 1, sizeof *p->room, "packing"));
  BL_TRY(bl_new(&p->places, (size_t)problem->ranks + 1, sizeof *p->places, "packing"));
  for (int32_t i = 0; i < problem->experts; ++i) p->order[i] = i;
  qsort_r(p->order, experts, sizeof *p->order, descending, (void *)(uintptr_t)problem->load);
  for (int32_t i = 0; i < problem->experts; ++i) p->prefix[i + 1] = p->prefix[i] + problem->load[p->order[i]];
  return BL_OK;
}

void bl_packing_free(bl_packing *p) {
  free(p->order);
  free(p->prefix);
  free(p->in_bin);
  free(p->bins);
  free(p->room);
  free(p->places);
}
