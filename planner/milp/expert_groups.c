#include "planner/milp/expert_groups.h"
#include "base/memory.h"
#include "base/rng.h"
#include "planner/milp/groups_realise.h"
#include <math.h>
#include <string.h>

typedef enum answer { FITS, FITS_NOT, OUT_OF_BUDGET } answer;

typedef struct rank_bin {
  int32_t ranks, places; /* places left */
  double room;           /* capacity left */
} rank_bin;

/* A packing search: experts by descending load into bins. */
typedef struct packing {
  const bl_fewest *problem;
  double *room;    /* [ranks + 1]: what a bin of so many ranks can take, in load and in experts: optimistic, the */
  int32_t *places; /* fastest and the roomiest ranks, or alike, the least slots for all */
  int32_t *order;  /* [experts] by descending load */
  double *prefix;  /* [experts + 1]: sum of the first i loads in that order */
  int32_t *in_bin; /* [experts] by position in that order: the bin, the result */
  rank_bin *bins;  /* [ranks] */
  int32_t n_bins;
  bool emptiest_first; /* the order in which bins are tried */
  int64_t visited;     /* nodes so far */
  int64_t limit;       /* of visited, for this split of the ranks */
  int64_t last;        /* of visited, for this number of copies */
  int64_t split_nodes; /* for one split of the ranks and one order of bins */
  bool quick;          /* exchanges and kicks alone */
  bl_rng rng;          /* of kicks */
} packing;

static int descending(const void *a, const void *b, void *load) {
  const double x = ((const double *)load)[*(const int32_t *)a], y = ((const double *)load)[*(const int32_t *)b];
  if (x != y) return x < y ? 1 : -1;
  return *(const int32_t *)a - *(const int32_t *)b;
}

/* How many of the smallest experts from position `from` on fit into `room`: the largest count whose sum is no more. */
static int32_t smallest_that_fit(const packing *p, int32_t from, double room) {
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
static bool may_fit(const packing *p, int32_t from) {
  const int32_t n = p->problem->experts;
  double load = p->prefix[n] - p->prefix[from];
  int64_t number = n - from;
  const double smallest = p->prefix[n] - p->prefix[n - 1];
  for (int32_t b = 0; b < p->n_bins; ++b) {
    const rank_bin *bin = &p->bins[b];
    if (bin->places == 0 || bin->room < smallest) continue;
    const int32_t places = bin->places < n - from ? bin->places : n - from;
    const double most = p->prefix[from + places] - p->prefix[from];
    load -= most < bin->room ? most : bin->room;
    const int32_t fit = number > 0 ? smallest_that_fit(p, from, bin->room) : 0;
    number -= fit < places ? fit : places;
  }
  return load <= 1e-12 && number <= 0;
}

static bool twin_before(const packing *p, int32_t b) {
  for (int32_t a = 0; a < b; ++a)
    if (p->bins[a].room == p->bins[b].room && p->bins[a].places == p->bins[b].places) return true;
  return false;
}

static answer pack(packing *p, int32_t position);

static answer try_bin(packing *p, int32_t position, int32_t b, double load) {
  rank_bin *bin = &p->bins[b];
  const double room = bin->room;
  bin->room -= load;
  --bin->places;
  p->in_bin[position] = b;
  const answer verdict = pack(p, position + 1);
  bin->room = room;
  ++bin->places;
  return verdict;
}

/* An expert needs ceil(load / cap) hosts. */
static int32_t hosts_of(const bl_fewest *problem, int32_t expert) {
  return (int32_t)ceil(problem->load[expert] / bl_fewest_largest_cap(problem));
}

static int32_t hosts_needed(const bl_fewest *problem) {
  int32_t copies = 0;
  for (int32_t e = 0; e < problem->experts; ++e)
    if (hosts_of(problem, e) > 1) copies += hosts_of(problem, e) - 1;
  return copies;
}

/* Bins in a fixed order by room; ties by number. */
static bool tried_before(const packing *p, int32_t a, int32_t b) {
  const double x = p->bins[a].room, y = p->bins[b].room;
  if (x != y) return p->emptiest_first == (x > y);
  return a < b;
}

static answer pack(packing *p, int32_t position) {
  if (position == p->problem->experts) return FITS;
  if (++p->visited > p->limit) return OUT_OF_BUDGET;
  if (!may_fit(p, position)) return FITS_NOT;
  const double load = p->problem->load[p->order[position]];
  for (int32_t last = -1;;) {
    int32_t next = -1;
    for (int32_t b = 0; b < p->n_bins; ++b) {
      if (p->bins[b].places == 0 || p->bins[b].room < load || twin_before(p, b)) continue;
      if (last >= 0 && !tried_before(p, last, b)) continue;
      if (next < 0 || tried_before(p, b, next)) next = b;
    }
    if (next < 0) return FITS_NOT;
    const answer verdict = try_bin(p, position, next, load);
    if (verdict != FITS_NOT) return verdict;
    last = next;
  }
}

static void open_bins(packing *p) {
  for (int32_t b = 0; b < p->n_bins; ++b) {
    rank_bin *bin = &p->bins[b];
    bin->places = p->places[bin->ranks];
    bin->room = p->room[bin->ranks];
  }
}

static double load_at(const packing *p, int32_t position) { return p->problem->load[p->order[position]]; }

static void put(packing *p, int32_t position, int32_t b) {
  p->in_bin[position] = b;
  p->bins[b].room -= load_at(p, position);
  --p->bins[b].places;
}

static void take(packing *p, int32_t position) {
  p->bins[p->in_bin[position]].room += load_at(p, position);
  ++p->bins[p->in_bin[position]].places;
}

/* Every expert into the emptiest bin that has a place, whether it fits or not. */
static bool spread(packing *p) {
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
static double gain_of(const packing *p, int32_t a, int32_t b, double amount) {
  const double from = p->bins[a].room, to = p->bins[b].room;
  return squared_excess(from) + squared_excess(to) - squared_excess(from + amount) - squared_excess(to - amount);
}

/* The best expert of bin `full` to move to a free place (*other = -1), or to exchange for one elsewhere. */
static void best_exchange(const packing *p, int32_t full, int32_t *position, int32_t *other, int32_t *bin) {
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
static void kick(packing *p, int32_t full) {
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
static bool pack_by_exchange(packing *p) {
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

/* Exchanges first, then the search in both orders, as each finds quickly what the other does not: the emptiest bin
 * first spreads even loads, the tightest keeps what is large for what needs it. */
static answer pack_split(packing *p) {
  if (p->visited >= p->last) return OUT_OF_BUDGET;
  if (pack_by_exchange(p)) return FITS;
  if (p->quick) return OUT_OF_BUDGET;
  answer verdict = OUT_OF_BUDGET;
  for (int32_t way = 0; way < 2 && verdict == OUT_OF_BUDGET && p->visited < p->last; ++way) {
    open_bins(p);
    p->emptiest_first = way == 0;
    p->limit = p->visited + p->split_nodes < p->last ? p->visited + p->split_nodes : p->last;
    verdict = pack(p, 0);
  }
  return verdict;
}

/* Tries every split of `left` more copies over the bins from `b` on, no bin larger than `most` ranks; bin b has 1 rank
 * so far. Large bins first: they must exist for the hottest expert. */
static answer split(packing *p, int32_t b, int32_t left, int32_t most) {
  const int32_t bins_left = p->n_bins - b;
  if (bins_left == 0) return left > 0 ? FITS_NOT : pack_split(p);
  answer worst = FITS_NOT;
  for (int32_t ranks = left + 1 < most ? left + 1 : most; ranks >= 1; --ranks) {
    if ((int64_t)(ranks - 1) * bins_left < left) break; /* the rest is no larger: too little for all */
    p->bins[b].ranks = ranks;
    const answer verdict = split(p, b + 1, left - ranks + 1, ranks);
    if (verdict == FITS) return FITS;
    if (verdict == OUT_OF_BUDGET) worst = verdict;
  }
  return worst;
}

static int fewer(const void *a, const void *b) { return *(const int32_t *)b - *(const int32_t *)a; }

static int slower(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* The most that bins of 1, 2, ... ranks can take: n ranks with s slots hold s - (n - 1) experts, n - 1 of which twice.
 */
static void size_bins_by_best(packing *p) {
  const bl_fewest *problem = p->problem;
  for (int32_t r = 0; r < problem->ranks; ++r) {
    p->room[r + 1] = bl_fewest_cap(problem, r);
    p->places[r + 1] = problem->slots[r];
  }
  qsort(p->room + 1, (size_t)problem->ranks, sizeof *p->room, slower);
  qsort(p->places + 1, (size_t)problem->ranks, sizeof *p->places, fewer);
  for (int32_t n = 1; n <= problem->ranks; ++n) {
    p->room[n] += p->room[n - 1];
    p->places[n] += n == 1 ? 0 : p->places[n - 1] - 1;
  }
}

/* What bins take whichever ranks they have: all have the slots of the least. */
static void size_bins_by_least(packing *p, int32_t least) {
  for (int32_t n = 1; n <= p->problem->ranks; ++n) p->places[n] = n * (least - 1) + 1;
}

static bl_status packing_create(const bl_fewest *problem, packing *p) {
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

static void packing_free(packing *p) {
  free(p->order);
  free(p->prefix);
  free(p->in_bin);
  free(p->bins);
  free(p->room);
  free(p->places);
}

static bl_status realise_all(const packing *p, int32_t slots, bl_hosts *hosts) {
  const int32_t experts = p->problem->experts;
  int32_t *group;
  BL_TRY(bl_new(&group, (size_t)(experts + p->n_bins), sizeof *group, "groups"));
  for (int32_t i = 0; i < experts; ++i) group[p->order[i]] = p->in_bin[i];
  for (int32_t b = 0; b < p->n_bins; ++b) group[experts + b] = p->bins[b].ranks;
  const bl_status status = bl_groups_realise(p->problem, group, group + experts, p->n_bins, slots, hosts);
  free(group);
  return status;
}

/* A bin for each expert that needs several ranks, copies to spare one a bin: what most placements look like. */
static answer natural_split(packing *p, int32_t copies) {
  int32_t b = 0;
  for (; b < p->n_bins && b < p->problem->experts; ++b) {
    const int32_t needed = hosts_of(p->problem, p->order[b]);
    if (needed < 2) break;
    p->bins[b].ranks = needed;
    copies -= needed - 1;
  }
  if (copies < 0) return OUT_OF_BUDGET;
  for (int32_t i = b; i < p->n_bins; ++i) p->bins[i].ranks = 1;
  for (int32_t i = b < p->n_bins ? b : 0; copies > 0; --copies, i = (i + 1) % p->n_bins) ++p->bins[i].ranks;
  return pack_split(p);
}

static answer fits(packing *p, int32_t copies, bool all_splits) {
  p->n_bins = p->problem->ranks - copies;
  if (natural_split(p, copies) == FITS) return FITS;
  return all_splits ? split(p, 0, copies, p->problem->ranks) : OUT_OF_BUDGET;
}

/* The nodes for the next number of copies, 0 where the budget is spent. */
static int64_t next_share(const packing *p, int64_t budget) {
  const int64_t left = budget - p->visited, once_through = 4 * (int64_t)p->problem->experts;
  if (left < once_through) return 0;
  return left / 2 > once_through ? left / 2 : once_through;
}

/* The first number of copies from `copies` on for which exchanges pack the most natural split, `end` if there is none;
 * each number gets as much of `budget`, which the search that follows does not miss. */
static int32_t first_natural(packing *p, int32_t copies, int32_t end, int64_t budget) {
  const int64_t each = budget / (end - copies + 1);
  p->quick = true;
  for (; copies < end; ++copies) {
    p->last = p->visited + each + 8 * (int64_t)p->problem->experts;
    if (fits(p, copies, false) == FITS) break;
  }
  p->quick = false;
  p->visited = 0;
  return copies;
}

bl_status bl_expert_groups_solve(const bl_fewest *problem, const bl_expert_groups_options *options,
                                 bl_expert_groups *out, bl_hosts *hosts) {
  memset(out, 0, sizeof *out);
  int32_t least = problem->slots[0];
  bool fast_alike = true;
  for (int32_t r = 1; r < problem->ranks; ++r) {
    if (problem->slots[r] < least) least = problem->slots[r];
    fast_alike = fast_alike && bl_fewest_cap(problem, r) == bl_fewest_cap(problem, 0);
  }
  const bool alike = bl_fewest_ranks_alike(problem);
  packing p;
  bl_status status = packing_create(problem, &p);
  p.split_nodes = 2 * (int64_t)problem->experts + options->budget / 16;
  const int32_t needed = hosts_needed(problem);
  int32_t end = options->below < problem->ranks ? options->below : problem->ranks;
  bool proved = true; /* so far every smaller number of copies was refuted */
  out->bound = needed > options->bound ? needed : options->bound;
  bool found_first = false;
  if (status == BL_OK && alike) {
    size_bins_by_best(&p);
    const int32_t first = first_natural(&p, out->bound, end, options->budget / 4);
    found_first = first < end;
    if (found_first) status = realise_all(&p, least, hosts);
    end = first;
  }
  for (int32_t copies = out->bound; status == BL_OK && copies < end && !out->found; ++copies) {
    const int64_t share = next_share(&p, options->budget);
    p.last = p.visited + (share ? share : 8 * (int64_t)problem->experts);
    size_bins_by_best(&p);
    answer verdict = fits(&p, copies, share > 0);
    proved = proved && verdict == FITS_NOT;
    if (verdict == FITS && !alike) {
      if (!fast_alike || least == 0) break; /* that it may fit is all that is known */
      size_bins_by_least(&p, least);
      verdict = fits(&p, copies, share > 0);
    }
    out->found = verdict == FITS;
    if (proved) out->bound = copies + 1;
    if (out->found) status = realise_all(&p, least, hosts);
  }
  out->found = out->found || found_first;
  out->infeasible = proved && !out->found; /* a search that broke off has not proved it */
  out->visited = p.visited;
  packing_free(&p);
  return status;
}
