#include "planner/policy_options.h"
#include "base/memory.h"
#include "traces/trace.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_LAG = 4096, MAX_BACK_OFF = 4096 };

void bl_policy_options_init(bl_policy_options *options) {
  *options = (bl_policy_options){.policy = "ballast",
                                 .lag = 1,
                                 .shares = "fresh",
                                 .homes = "fixed",
                                 .ties = "stable",
                                 .copy_price = 0.01,
                                 .back_off = 1};
}

void bl_policy_option_rows(bl_policy_options *o, bl_option rows[BL_POLICY_OPTION_ROWS]) {
  const bl_option table[BL_POLICY_OPTION_ROWS] = {
      {.type = BL_OPTION_HEADING, .help = "Policy"},
      {.name = "policy",
       .type = BL_OPTION_STRING,
       .target = &o->policy,
       .metavar = "NAME",
       .help = "static, smartmoe:N, eplb:N (decide every N iterations), fastermoe or ballast"},
      {.name = "lag",
       .type = BL_OPTION_INT,
       .target = &o->lag,
       .metavar = "N",
       .help = "hosts of a step use counts at least N recorded steps older; 0 sees the step itself",
       .min = 0,
       .max = MAX_LAG},
      {.name = "shares",
       .type = BL_OPTION_CHOICE,
       .target = &o->shares,
       .help = "shares of copies: solved on each step's counts, or kept from the last decision",
       .choices = "fresh|stale"},
      {.name = "late-repair",
       .type = BL_OPTION_NUMBER,
       .target = &o->late_repair,
       .metavar = "X",
       .help = "choose copies again within the step where its imbalance exceeds X, such as 1.02; 0 never does",
       .min = 0,
       .max = 1e6},
      {.name = "homes",
       .type = BL_OPTION_CHOICE,
       .target = &o->homes,
       .help = "homes under ballast: never moved, chosen freely each step, or moved where it saves more than it costs",
       .choices = "fixed|free|cost"},
      {.name = "copy-price",
       .type = BL_OPTION_NUMBER,
       .target = &o->copy_price,
       .metavar = "X",
       .help = "under --homes cost, what a copy costs as a fraction of the layer's balanced time: copies and homes are "
               "chosen to be worth it",
       .min = 0,
       .max = 1},
      {.name = "back-off",
       .type = BL_OPTION_INT,
       .target = &o->back_off,
       .metavar = "N",
       .help =
           "under ballast, let a layer whose decision changes nothing wait 2, 4, 8, ... recorded steps for the next "
           "one, N at most, unless imbalance or drift wakes it; 1 decides at every step",
       .min = 1,
       .max = MAX_BACK_OFF},
      {.name = "ties",
       .type = BL_OPTION_CHOICE,
       .target = &o->ties,
       .help = "order of equal loads under smartmoe: by id, or as numpy's argsort left them in the published runs",
       .choices = "stable|numpy"}};
  memcpy(rows, table, sizeof table);
}

/* "NAME:N", N >= 1. */
static bl_status read_cadence(const char *text, const char *name, int64_t *every) {
  const char *digits = text + strlen(name) + 1;
  char *end;
  const long long n = *digits >= '0' && *digits <= '9' ? strtoll(digits, &end, 10) : 0;
  if (n < 1 || n > 1000000000 || *end != '\0')
    return bl_fail(BL_EUSAGE, "--policy %s: expected %s:N with N iterations between decisions, as in %s:10", text, name,
                   name);
  *every = n;
  return BL_OK;
}

static bool is(const char *text, const char *name) { return strcmp(text, name) == 0; }

static bool has_cadence(const char *text, const char *name) {
  const size_t n = strlen(name);
  return strncmp(text, name, n) == 0 && text[n] == ':';
}

static bl_status read_policy(const char *text, bl_policy_config *out) {
  out->every = 1;
  if (has_cadence(text, "smartmoe")) {
    out->kind = BL_POLICY_SMARTMOE;
    return read_cadence(text, "smartmoe", &out->every);
  }
  if (has_cadence(text, "eplb")) {
    out->kind = BL_POLICY_EPLB;
    return read_cadence(text, "eplb", &out->every);
  }
  if (is(text, "smartmoe") || is(text, "eplb"))
    return bl_fail(BL_EUSAGE, "--policy %s: expected %s:N with N iterations between decisions, as in %s:10", text, text,
                   text);
  if (is(text, "static")) return out->kind = BL_POLICY_STATIC, BL_OK;
  if (is(text, "fastermoe")) return out->kind = BL_POLICY_FASTERMOE, BL_OK;
  if (is(text, "ballast")) return out->kind = BL_POLICY_BALLAST, BL_OK;
  return bl_fail(BL_EUSAGE, "--policy %s: expected static, smartmoe:N, eplb:N, fastermoe or ballast", text);
}

static bl_status read_modes(const bl_policy_options *o, bl_policy_config *out) {
  if (!is(o->shares, "fresh") && !is(o->shares, "stale"))
    return bl_fail(BL_EUSAGE, "--shares %s: expected fresh or stale", o->shares);
  out->stale = is(o->shares, "stale");
  if (!is(o->ties, "stable") && !is(o->ties, "numpy"))
    return bl_fail(BL_EUSAGE, "--ties %s: expected stable or numpy", o->ties);
  out->ties = is(o->ties, "numpy") ? BL_TIES_NUMPY : BL_TIES_STABLE;
  out->homes = is(o->homes, "free") ? BL_HOMES_FREE : is(o->homes, "cost") ? BL_HOMES_COST : BL_HOMES_FIXED;
  if (out->homes == BL_HOMES_FIXED && !is(o->homes, "fixed"))
    return bl_fail(BL_EUSAGE, "--homes %s: expected fixed, free or cost", o->homes);
  return BL_OK;
}

bl_status bl_policy_config_read(const bl_policy_options *o, bl_policy_config *out) {
  *out = (bl_policy_config){.late_repair = o->late_repair, .copy_price = o->copy_price, .back_off = o->back_off};
  BL_TRY(read_policy(o->policy, out));
  BL_TRY(read_modes(o, out));
  if (o->lag < 0 || o->lag > MAX_LAG)
    return bl_fail(BL_EUSAGE, "--lag %lld: expected 0 to %d recorded steps", (long long)o->lag, MAX_LAG);
  out->lag = (int32_t)o->lag;
  if (!(o->copy_price >= 0 && o->copy_price <= 1))
    return bl_fail(BL_EUSAGE, "--copy-price %g: expected a fraction from 0 to 1", o->copy_price);
  if (o->late_repair != 0 && !(o->late_repair >= 1))
    return bl_fail(BL_EUSAGE, "--late-repair %g: expected an imbalance of 1 or more, or 0 for never", o->late_repair);
  if (o->back_off < 1 || o->back_off > MAX_BACK_OFF)
    return bl_fail(BL_EUSAGE, "--back-off %lld: expected 1 to %d recorded steps", (long long)o->back_off, MAX_BACK_OFF);
  if (out->kind != BL_POLICY_BALLAST) {
    if (out->homes != BL_HOMES_FIXED)
      return bl_fail(BL_EUSAGE, "--homes %s is for ballast alone: %s follows its own rule", o->homes, o->policy);
    if (out->stale)
      return bl_fail(BL_EUSAGE, "--shares stale is for ballast alone: %s follows its own rule", o->policy);
    if (out->late_repair > 0)
      return bl_fail(BL_EUSAGE, "--late-repair is for ballast alone: %s follows its own rule", o->policy);
    if (out->back_off > 1)
      return bl_fail(BL_EUSAGE, "--back-off is for ballast alone: %s follows its own rule", o->policy);
  }
  if (out->ties == BL_TIES_NUMPY && out->kind != BL_POLICY_SMARTMOE)
    return bl_fail(BL_EUSAGE, "--ties numpy is for smartmoe alone");
  if (out->stale && out->back_off > 1)
    return bl_fail(BL_EUSAGE, "--back-off needs --shares fresh: stale shares would wait with the hosts");
  if (out->stale && out->late_repair > 0)
    return bl_fail(BL_EUSAGE, "--late-repair needs --shares fresh: stale shares would not use the repaired hosts");
  return BL_OK;
}

bl_status bl_parse_slots(const char *text, int32_t experts, int32_t ranks, int32_t *slots) {
  const int32_t homes = (experts + ranks - 1) / ranks;
  for (int32_t r = 0; r < ranks; ++r) slots[r] = homes < experts ? homes + 1 : experts;
  if (!text) return BL_OK;
  const char *at = text;
  for (int32_t r = 0; r < ranks; ++r) {
    char *end;
    const long n = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
    if (n < 0 || n > experts)
      return bl_fail(BL_EUSAGE, "--slots %s: expected numbers of 0 to %d, the number of experts", text, experts);
    slots[r] = (int32_t)n;
    if (*end == '\0' && r == 0) { /* one number for all */
      for (r = 1; r < ranks; ++r) slots[r] = slots[0];
      return BL_OK;
    }
    if (*end != (r == ranks - 1 ? '\0' : ','))
      return bl_fail(BL_EUSAGE, "--slots %s: expected one number, or %d separated by commas, one for each rank", text,
                     ranks);
    at = end + 1;
  }
  return BL_OK;
}

bl_status bl_parse_speeds(const char *text, int32_t ranks, double *speed) {
  const char *at = text;
  for (int32_t r = 0; r < ranks; ++r) {
    char *end;
    speed[r] = (*at >= '0' && *at <= '9') || *at == '.' ? strtod(at, &end) : -1;
    if (!(speed[r] > 0 && speed[r] < 1e9) || *end != (r == ranks - 1 ? '\0' : ','))
      return bl_fail(BL_EUSAGE, "--speeds %s: expected %d numbers above 0 separated by commas, one for each rank", text,
                     ranks);
    at = end + 1;
  }
  return BL_OK;
}

bl_status bl_parse_layers(const char *text, int32_t **layers, int32_t *n) {
  int32_t most = 1;
  for (const char *c = text; *c; ++c) most += *c == ',';
  BL_TRY(bl_new(layers, (size_t)most, sizeof **layers, "--layers"));
  *n = 0;
  for (const char *at = text;;) {
    char *end;
    const long value = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
    if (value < 0 || value > BL_TRACE_MAX_LAYERS || (*end != '\0' && *end != ','))
      return bl_fail(BL_EUSAGE, "--layers %s: expected layer numbers separated by commas", text);
    (*layers)[(*n)++] = (int32_t)value;
    if (*end == '\0') return BL_OK;
    at = end + 1;
  }
}
