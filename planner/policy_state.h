/* policy_state.h - what a policy remembers; private to planner/policy*.c. */
#ifndef BL_PLANNER_POLICY_STATE_H
#define BL_PLANNER_POLICY_STATE_H

#include "planner/place/copies.h"
#include "planner/place/window.h"
#include "planner/policy.h"
#include "planner/policy_options.h"

/* How a search for copy hosts sees the next step: the forecast with errors of earlier forecasts replayed on it. */
enum {
  BL_POLICY_ERRORS = 8,   /* steps whose errors are kept */
  BL_POLICY_OWN = 4,      /* newest errors of the layer itself; all that are kept where there is no other layer */
  BL_POLICY_OTHERS = 20,  /* errors of other layers, newest first */
  BL_POLICY_MIRRORED = 3, /* of the layer's own, with the other sign too: what has just come often goes again */
  BL_POLICY_RISERS = 4,   /* where there is no other layer: experts that have just risen, each rising on by itself */
  BL_POLICY_SCENARIOS = BL_POLICY_OWN + BL_POLICY_OTHERS + BL_POLICY_MIRRORED
};

/* Counts that decisions may see. One record is one step: width numbers a layer, the totals by expert and, where
 * by_source, then [ranks][experts] by source. All arrays lie in one block, so that saving it is one copy. */
typedef struct bl_history {
  int32_t layers, experts, ranks, lag;
  int32_t width;
  bool by_source, forecasts;
  double *newest;     /* [layers][width]: the youngest record old enough */
  double *pending;    /* [lag][layers][width]: younger ones, a ring */
  double *average;    /* [lag or 1][layers][experts]: EWMA of loads (mean rank load 1) after each of the last records */
  double *errors;     /* [BL_POLICY_ERRORS][layers][experts]: load minus the forecast made for it, a ring */
  double *block;      /* all of the above */
  int32_t *order;     /* [layers][experts]: experts by falling forecast, ties to the lower id; follows from `average` */
  int64_t block_size; /* doubles */
  int64_t pushed, known, n_errors;
} bl_history;

bl_status bl_history_create(bl_history *history, int32_t layers, int32_t experts, int32_t ranks, int32_t lag,
                            bool by_source, bool forecasts);
void bl_history_free(bl_history *history);

/*! bl_history_push() : the record of a finished step, [layers][width]; the one that is `lag` steps old becomes known.
 */
void bl_history_push(bl_history *history, const double *record);

/*! bl_history_forecast() : the expected load of a layer, [experts]; mean rank load 1. Needs known > 0 and forecasts. */
const double *bl_history_forecast(const bl_history *history, int32_t layer);

/*! bl_history_sort() : makes `order` anew; for a history whose block was written from outside. */
void bl_history_sort(bl_history *history);

/*! bl_history_scenarios() : writes up to BL_POLICY_SCENARIOS (at least one) loads [n][experts] that the next step may
 *  have, with their weights [n], cut at 0. In the order of the enumeration above: the forecast plus each of the layer's
 *  last errors; plus errors of other layers, carried over by rank of load, since layers change at the same time and
 *  alike; less the layer's newest errors. Where there is no other layer, also the forecast plus three times the rise of
 *  each expert that has just risen, one by one.
 *  @return : n. */
int32_t bl_history_scenarios(const bl_history *history, int32_t layer, double *scenarios, double *weights);

/* How long a layer's hosts stay undecided (--back-off), in recorded steps. */
typedef struct bl_policy_rest {
  int64_t wait, left; /* from the last decision to the next; of these, those to come */
  double imbalance;   /* of the hosts in force: the worst at any decision since they were chosen */
  double error;       /* usual distance of a load from its forecast at the last decision */
  double *forecast;   /* [experts]: of the last decision */
} bl_policy_rest;

/* One layer. */
typedef struct bl_policy_layer {
  bl_hosts hosts;    /* in force */
  bl_hosts planned;  /* as decided by begin_step */
  double *fraction;  /* [max slots]: fixed share of each copy slot (eplb, fastermoe, stale shares) */
  double *taken;     /* [max slots]: tokens taken by each copy in this step */
  double *counts;    /* [experts]: tokens of this step */
  double worst;      /* largest imbalance of this step before any repair */
  double *recent;    /* [bl_policy_recent()]: the same of the last steps, oldest first */
  double sum;        /* of imbalances over the micro-batches */
  int32_t n;         /* micro-batches */
  int64_t last_look; /* records known when better homes were last looked for */
  bl_policy_rest rest;
  bl_policy_layer_report report;
} bl_policy_layer;

enum { BL_POLICY_TRIGGER = 3 }; /* steps whose imbalance has homes looked at */

struct bl_policy {
  bl_policy_config config;
  int32_t layers, experts, ranks;
  int32_t max_copies; /* copy slots of a layer: all slots minus the homes */
  int32_t *slots;     /* [ranks] */
  double *speed;      /* [ranks] or NULL */
  int32_t *layer_id;  /* [layers] */
  bl_policy_layer *layer;
  bl_history history;
  double *record;    /* [layers][width]: the step so far, as history will take it */
  double *scenarios; /* [BL_POLICY_SCENARIOS][experts] */
  double weights[BL_POLICY_SCENARIOS];
  bl_shares *shares;
  bl_copies *copies;
  bl_window *window; /* NULL where not needed */
  bl_hosts spare[2]; /* of late repair */
  FILE *dump;
  int64_t iteration, last_decision;
  bool decided, in_step, timed;
};

/*! bl_policy_recent() : steps whose imbalance a layer remembers: those of the trigger, and younger ones whose counts no
 *  decision may know yet. */
static inline int32_t bl_policy_recent(const bl_policy *policy) {
  return BL_POLICY_TRIGGER + (policy->config.lag > 1 ? policy->config.lag - 1 : 0);
}

/*! bl_policy_decide() : the layer's hosts for the step that begins, from history alone. */
bl_status bl_policy_decide(bl_policy *policy, int32_t layer);

/*! bl_policy_rests() : whether the layer's hosts stay as they are in this step without a decision; counts the step. */
bool bl_policy_rests(bl_policy *policy, int32_t layer);

/*! bl_policy_settle() : after a decision: how long the layer rests now. `changed`: whether it has other hosts. */
void bl_policy_settle(bl_policy *policy, int32_t layer, bool changed);

/*! bl_policy_repair() : hosts chosen again on true counts; under `--homes cost` copies have their price.  @return : the
 * imbalance reached, the shares solved. */
double bl_policy_repair(bl_policy *policy, int32_t layer, const double *counts, double imbalance);

/*! bl_policy_set_hosts() : homes as given, then copies into free slots of their ranks (each fits). */
bl_status bl_policy_set_hosts(bl_hosts *hosts, const int32_t *home, const bl_copy *copies, int32_t n);

/*! bl_policy_write_dump() : one line a layer for the step that ends. */
void bl_policy_write_dump(const bl_policy *policy);

#endif
