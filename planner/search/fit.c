/* fit.c - efficiencies from measured steps. */
#include "planner/search/fit.h"
#include "base/json.h"
#include "base/memory.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double least_efficiency = 1e-3;

/* -- reading ------------------------------------------------------------------------------------------------------- */

static bl_status read_choice(bl_json object, const char *key, const char *one, const char *other, bool *is_other) {
  const char *text = NULL;
  bl_json member;
  BL_TRY(bl_json_string_or(object, key, &text));
  if (!text) return BL_OK;
  *is_other = strcmp(text, other) == 0;
  if (*is_other || strcmp(text, one) == 0) return BL_OK;
  BL_TRY(bl_json_member(object, key, &member));
  return bl_json_fail(member, "expected \"%s\" or \"%s\", found \"%s\"", one, other, text);
}

static bl_status read_layout(bl_json object, bl_search_options *o) {
  bl_grid *g = &o->fixed;
  const struct {
    const char *key;
    int32_t *at;
    bool required;
  } sizes[] = {
      {"tp", &g->tp, false},     {"cp", &g->cp, false},   {"pp", &g->pp, false}, {"vp", &g->vp, false},
      {"ep", &g->ep, false},     {"etp", &g->etp, false}, {"dp", &g->dp, true},  {"micro_batch", &g->micro_batch, true},
      {"batch", &o->batch, true}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int64_t value = 1;
    if (sizes[i].required || bl_json_has(object, sizes[i].key))
      BL_TRY(bl_json_int(object, sizes[i].key, 1, 1 << 24, &value));
    *sizes[i].at = (int32_t)value;
  }
  const double ranks = (double)g->tp * g->cp * g->dp * g->pp, experts = (double)g->etp * g->ep * g->pp;
  if (ranks > 1 << 20) return bl_json_fail(object, "expected at most %d ranks, found %.0f", 1 << 20, ranks);
  o->ranks = (int32_t)ranks;
  if (fmod(ranks, experts) != 0)
    return bl_json_fail(object, "expected etp x ep x pp to divide %d ranks, found %.0f", o->ranks, experts);
  int64_t zero = -1, gradient_bytes = 4, shard = 0;
  BL_TRY(bl_json_int_or(object, "gradient_bytes", 1, 4, &gradient_bytes));
  BL_TRY(bl_json_int_or(object, "shard", 0, 1 << 20, &shard));
  o->gradient_bytes = (int32_t)gradient_bytes;
  o->shard = (int32_t)shard;
  BL_TRY(bl_json_int_or(object, "zero", 0, 3, &zero));
  if (zero == 2) return bl_json_fail(object, "zero: expected 0, 1 or 3");
  o->zero_fixed = zero >= 0;
  g->zero = (int32_t)zero;
  const char *recompute = NULL;
  BL_TRY(bl_json_string_or(object, "recompute", &recompute));
  for (int r = 0; r < BL_RECOMPUTE_COUNT && recompute; r++)
    if (strcmp(recompute, bl_recompute_names[r]) == 0) o->recompute_fixed = true, g->recompute = (bl_recompute)r;
  if (recompute && !o->recompute_fixed)
    return bl_json_fail(object, "recompute: expected none, selective, ffn or full, found \"%s\"", recompute);
  o->node_dispatch = true;
  BL_TRY(read_choice(object, "dispatch", "choices", "nodes", &o->node_dispatch));
  return read_choice(object, "overlap", "none", "exchange", &o->overlap);
}

static bl_status read_step(bl_json object, double memory_fraction, bl_measured_step *s) {
  const char *path;
  int64_t ranks_per_node = 0;
  bl_search_options *o = &s->options;
  BL_TRY(bl_json_keys(object,
                      "name release model cluster type ranks_per_node batch step_us fitted tp cp pp vp etp ep dp "
                      "micro_batch zero recompute dispatch overlap gradient_bytes shard"));
  BL_TRY(bl_json_text(object, "name", s->name, sizeof s->name));
  BL_TRY(bl_json_text(object, "release", s->release, sizeof s->release));
  BL_TRY(bl_json_text_or(object, "type", s->type, sizeof s->type));
  BL_TRY(bl_json_string(object, "model", &path));
  BL_TRY(bl_model_load(path, &s->model));
  BL_TRY(bl_json_string(object, "cluster", &path));
  BL_TRY(bl_cluster_load(path, &s->cluster));
  if (s->cluster.n_node_groups > 1)
    return bl_json_fail(object, "cluster: expected one with nodes of one kind, found %d node_groups",
                        s->cluster.n_node_groups);
  BL_TRY(bl_cluster_use_type(&s->cluster, s->type[0] ? s->type : NULL));
  BL_TRY(bl_json_int_or(object, "ranks_per_node", 1, bl_cluster_widest_node(&s->cluster), &ranks_per_node));
  if (ranks_per_node > 0) bl_cluster_narrow(&s->cluster, (int32_t)ranks_per_node);
  BL_TRY(bl_json_number(object, "step_us", 1e-3, 1e15, &s->step_us));
  s->named_split = bl_json_has(object, "fitted");
  BL_TRY(bl_json_bool_or(object, "fitted", &s->fitted));
  BL_TRY(read_layout(object, o));
  BL_TRY(bl_new(&s->imbalance, (size_t)s->model.experts + 1, sizeof *s->imbalance, "imbalances"));
  for (int32_t i = 0; i <= s->model.experts; i++) s->imbalance[i] = 1;
  o->model = &s->model, o->cluster = &s->cluster, o->imbalance = s->imbalance;
  o->memory_bytes = memory_fraction * s->cluster.node_group[0].device.memory_bytes;
  o->max_vp = o->fixed.vp, o->max_micro_batch = o->fixed.micro_batch, o->top = 1;
  return BL_OK;
}

static bl_status read_steps(bl_json root, double memory_fraction, bl_fit *fit) {
  int64_t value;
  bl_json list;
  BL_TRY(bl_json_keys(root, "version steps"));
  BL_TRY(bl_json_int(root, "version", 1, 1, &value));
  BL_TRY(bl_json_array(root, "steps", 1, 1 << 16, &list, &value));
  BL_TRY(bl_new(&fit->step, (size_t)value, sizeof *fit->step, "measured steps"));
  for (bl_json item = bl_json_first(list); !bl_json_is_null(item); item = bl_json_next(item)) {
    BL_TRY(bl_new(&fit->step[fit->n_steps++], 1, sizeof **fit->step, "measured steps"));
    BL_TRY(read_step(item, memory_fraction, fit->step[fit->n_steps - 1]));
  }
  return BL_OK;
}

static const bl_device *device_of(const bl_measured_step *s) { return &s->cluster.node_group[0].device; }

static bool same_group(const bl_measured_step *a, const bl_measured_step *b) {
  return strcmp(device_of(a)->name, device_of(b)->name) == 0 && strcmp(a->type, b->type) == 0 &&
         strcmp(a->release, b->release) == 0;
}

static void number_groups(bl_fit *fit) {
  for (int32_t i = 0; i < fit->n_steps; i++) {
    int32_t g = 0;
    while (g < fit->n_groups && !same_group(fit->step[fit->group[g].first], fit->step[i])) g++;
    if (g == fit->n_groups) fit->group[fit->n_groups++].first = i;
    fit->step[i]->group = g;
    fit->group[g].steps++;
  }
}

bl_status bl_fit_load(const char *path, double memory_fraction, bl_fit *out) {
  bl_json_doc *doc;
  bl_json root;
  memset(out, 0, sizeof *out);
  BL_TRY(bl_json_load(path, &doc, &root));
  bl_status status = read_steps(root, memory_fraction, out);
  bl_json_free(doc);
  if (status == BL_OK) status = bl_new(&out->group, (size_t)out->n_steps, sizeof *out->group, "groups of steps");
  if (status == BL_OK)
    number_groups(out);
  else
    bl_fit_free(out);
  return status;
}

void bl_fit_free(bl_fit *fit) {
  for (int32_t i = 0; i < fit->n_steps; i++) {
    if (fit->step[i]) free(fit->step[i]->imbalance);
    free(fit->step[i]);
  }
  free(fit->step);
  free(fit->group);
  memset(fit, 0, sizeof *fit);
}

/* -- fitting ------------------------------------------------------------------------------------------------------- */

static bl_status predict(bl_measured_step *s, double efficiency, double *us) {
  bl_device *device = &s->cluster.node_group[0].device; /* that of all nodes */
  bl_search_result r;
  if (s->type[0])
    device->matrix.efficiency = efficiency;
  else
    device->efficiency = efficiency;
  BL_TRY(bl_search(&s->options, &r));
  const bool found = r.n > 0;
  if (found) *us = r.entry[0].price.step_us;
  bl_search_free(&r);
  return found ? BL_OK : bl_fail(BL_EINPUT, "step %s: its layout does not fold, or holds too much memory", s->name);
}

/* Sum of log(predicted / measured) over the steps of a group that may be fitted, all but `left_out`. */
static bl_status deviation(const bl_fit *fit, int32_t group, int32_t left_out, double efficiency, double *sum) {
  *sum = 0;
  for (int32_t i = 0; i < fit->n_steps; i++) {
    bl_measured_step *s = fit->step[i];
    double us;
    if (s->group != group || i == left_out || (s->named_split && !s->fitted)) continue;
    BL_TRY(predict(s, efficiency, &us));
    *sum += log(us / s->step_us);
  }
  return BL_OK;
}

/* The deviation falls as the efficiency grows: bisection of its logarithm. */
static bl_status solve(const bl_fit *fit, int32_t group, int32_t left_out, double *efficiency) {
  double low = log(least_efficiency), high = 0, sum;
  BL_TRY(deviation(fit, group, left_out, 1, &sum));
  if (sum > 0)
    return bl_fail(BL_EINPUT, "steps of %s, release %s: even at efficiency 1 they are predicted slower than measured",
                   device_of(fit->step[fit->group[group].first])->name, fit->step[fit->group[group].first]->release);
  while (high - low > 1e-6) {
    const double middle = (low + high) / 2;
    BL_TRY(deviation(fit, group, left_out, exp(middle), &sum));
    if (sum > 0)
      low = middle;
    else
      high = middle;
  }
  *efficiency = exp((low + high) / 2);
  return BL_OK;
}

static double error(const bl_measured_step *s, double us) { return fabs(us / s->step_us - 1); }

static bl_status run_group(bl_fit *fit, int32_t g) {
  bl_fit_group *group = &fit->group[g];
  int32_t fitted = 0, left = 0;
  bool named = false;
  for (int32_t i = 0; i < fit->n_steps; i++)
    if (fit->step[i]->group == g) {
      named = named || fit->step[i]->named_split;
      fitted += !fit->step[i]->named_split || fit->step[i]->fitted;
    }
  if (fitted == 0)
    return bl_fail(BL_EINPUT, "steps of %s, release %s: none may be fitted", device_of(fit->step[group->first])->name,
                   fit->step[group->first]->release);
  BL_TRY(solve(fit, g, -1, &group->efficiency));
  for (int32_t i = 0; i < fit->n_steps; i++) {
    bl_measured_step *s = fit->step[i];
    double efficiency = group->efficiency;
    if (s->group != g) continue;
    const bool in_fit = !s->named_split || s->fitted;
    BL_TRY(predict(s, efficiency, &s->predicted_us));
    if (in_fit) group->own_error += error(s, s->predicted_us) / fitted;
    s->judged = named ? !in_fit : fitted > 1;
    if (!s->judged) continue;
    if (!named) {
      BL_TRY(solve(fit, g, i, &efficiency));
      BL_TRY(predict(s, efficiency, &s->predicted_us));
    }
    group->judged_error += error(s, s->predicted_us);
    left++;
  }
  group->judged = left;
  if (left > 0) group->judged_error /= left;
  return BL_OK;
}

bl_status bl_fit_run(bl_fit *fit) {
  for (int32_t g = 0; g < fit->n_groups; g++) BL_TRY(run_group(fit, g));
  return BL_OK;
}
