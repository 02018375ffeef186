#include "planner/search/imbalance.h"
#include "base/memory.h"
#include "planner/place/copies.h"
#include "planner/place/homes.h"

enum { MAX_STEPS = 16 };

typedef struct sample {
  int32_t steps, layers, experts;
  double *load; /* [steps][layers][experts] */
  double *mean; /* [layers][experts] */
} sample;

static bl_status read_sample(bl_trace_reader *trace, sample *s) {
  const bl_trace_shape *shape = bl_trace_shape_of(trace);
  const int32_t all = bl_trace_steps(trace);
  const size_t row = (size_t)shape->layers * (size_t)shape->experts;
  uint32_t *counts;
  s->steps = all < MAX_STEPS ? all : MAX_STEPS;
  s->layers = shape->layers;
  s->experts = shape->experts;
  BL_TRY(bl_new(&s->load, (size_t)s->steps * row, sizeof *s->load, "loads of a trace"));
  BL_TRY(bl_new(&s->mean, row, sizeof *s->mean, "loads of a trace"));
  BL_TRY(bl_new(&counts, (size_t)bl_trace_step_size(shape), sizeof *counts, "a step of a trace"));
  bl_status status = BL_OK;
  for (int32_t i = 0; i < s->steps && status == BL_OK; i++) {
    const int32_t index = s->steps > 1 ? (int32_t)((int64_t)i * (all - 1) / (s->steps - 1)) : 0;
    double *load = s->load + (size_t)i * row;
    status = bl_trace_read(trace, index, counts);
    if (status != BL_OK) break;
    bl_trace_loads(shape, counts, -1, -1, load);
    for (size_t k = 0; k < row; k++) s->mean[k] += load[k];
  }
  free(counts);
  return status;
}

/* Sum over layers and steps of the imbalance on hosts chosen for the mean. */
static bl_status measure(const sample *s, bl_hosts *hosts, const int32_t *most, int32_t *home, double *sum) {
  const int32_t copy_slots = hosts->n_copy_slots;
  bl_copies *copies = NULL;
  bl_shares *shares = NULL;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_copies_create(hosts->experts, hosts->ranks, copy_slots, &copies), done);
  BL_TRY_GOTO(status, bl_shares_create(hosts->experts, hosts->ranks, copy_slots, &shares), done);
  for (int32_t l = 0; l < s->layers; l++) {
    const double *mean = s->mean + (int64_t)l * s->experts;
    BL_TRY_GOTO(status, bl_homes_longest_first(mean, s->experts, hosts->ranks, most, NULL, copy_slots > 0, home), done);
    BL_TRY_GOTO(status, bl_hosts_set_homes(hosts, home), done);
    bl_copies_greedy(copies, hosts, mean, NULL);
    for (int32_t i = 0; i < s->steps; i++)
      *sum += bl_shares_solve(shares, hosts, s->load + ((int64_t)i * s->layers + l) * s->experts, NULL);
  }
done:
  bl_copies_free(copies);
  bl_shares_free(shares);
  return status;
}

static bl_status one_size(const sample *s, int32_t ep, int32_t copy_slots, double *imbalance) {
  const int32_t homes = s->experts / ep;
  const int32_t most_slots = homes + copy_slots < s->experts ? homes + copy_slots : s->experts;
  int32_t *slots = NULL, *most = NULL, *home = NULL;
  bl_hosts hosts = {0};
  double sum = 0;
  bl_status status = BL_OK;
  BL_TRY_GOTO(status, bl_new(&slots, (size_t)ep, sizeof *slots, "slots"), done);
  BL_TRY_GOTO(status, bl_new(&most, (size_t)ep, sizeof *most, "homes"), done);
  BL_TRY_GOTO(status, bl_new(&home, (size_t)s->experts, sizeof *home, "homes"), done);
  for (int32_t r = 0; r < ep; r++) slots[r] = most_slots, most[r] = homes;
  BL_TRY_GOTO(status, bl_hosts_create(&hosts, s->experts, ep, slots), done);
  BL_TRY_GOTO(status, measure(s, &hosts, most, home, &sum), done);
  *imbalance = sum / ((double)s->steps * s->layers);
done:
  bl_hosts_free(&hosts);
  free(slots);
  free(most);
  free(home);
  return status;
}

bl_status bl_search_imbalances(bl_trace_reader *trace, int32_t copy_slots, double *imbalance) {
  sample s = {0};
  bl_status status = read_sample(trace, &s);
  for (int32_t ep = 1; ep <= s.experts && status == BL_OK; ep++) {
    imbalance[ep] = 1;
    if (ep > 1 && s.experts % ep == 0) status = one_size(&s, ep, copy_slots, &imbalance[ep]);
  }
  free(s.load);
  free(s.mean);
  return status;
}
