/* policy.h - who decides, from past counts, where experts live next: one object drives both a replay of a trace and a
 * live run, so that what is replayed is what ran.
 *
 * Per recorded step the caller does, in this order:
 *   bl_policy_begin_step(iteration)              hosts for this step, from counts at least `lag` recorded steps old
 *   for each micro-batch, each layer:
 *     bl_policy_micro_batch(layer, counts)       fresh shares on the true counts; late repair may change hosts
 *   bl_policy_end_step()                         counts enter the history; the dump gets one line a layer
 * (With lag 0 - replay's oracle - the caller first gives the whole step's counts to bl_policy_preview().)
 *
 * Deterministic: results depend on configuration and counts alone, never on time or on the number of threads. All
 * ranks of a run hold their own object and reach the same result. Not shared between threads. */
#ifndef BL_PLANNER_POLICY_H
#define BL_PLANNER_POLICY_H

#include "base/status.h"
#include "planner/place/hosts.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum bl_policy_kind {
  BL_POLICY_STATIC,
  BL_POLICY_SMARTMOE,
  BL_POLICY_FASTERMOE,
  BL_POLICY_EPLB,
  BL_POLICY_BALLAST
} bl_policy_kind;
typedef enum bl_homes_mode { BL_HOMES_FIXED, BL_HOMES_FREE, BL_HOMES_COST } bl_homes_mode;

/* What the command line says; the same option table serves `ballast-plan replay` and `ballast-train`. */
typedef struct bl_policy_options {
  const char *policy; /* "static", "smartmoe:N", "eplb:N", "fastermoe", "ballast" */
  int64_t lag;        /* recorded steps; default 1 */
  const char *shares; /* "fresh" | "stale"; default fresh */
  double late_repair; /* imbalance above which hosts are chosen again; 0 = never */
  const char *homes;  /* "fixed" | "free" | "cost" (ballast alone); default fixed */
  const char *ties;   /* "stable" | "numpy" (smartmoe alone); default stable */
  double copy_price; /* `homes` "cost": what one copy costs, as a fraction of the layer's balanced time; default 0.01 */
  int64_t back_off; /* recorded steps between decisions that change nothing, at most; default 1: every step (ballast) */
} bl_policy_options;

void bl_policy_options_init(bl_policy_options *options);

typedef struct bl_policy_shape {
  int32_t layers, experts, ranks;
  const int32_t *slots;    /* [ranks]; borrowed during create */
  const double *speed;     /* [ranks] relative speeds or NULL; borrowed during create */
  const int32_t *home;     /* [layers][experts] to start from, or NULL for contiguous; borrowed during create */
  const int32_t *layer_id; /* [layers] names of the layers in dumps, or NULL for 0, 1, ...; borrowed during create */
} bl_policy_shape;

typedef struct bl_policy bl_policy;

/*! bl_policy_create() : BL_EUSAGE for options that contradict each other or name no policy. */
bl_status bl_policy_create(const bl_policy_options *options, const bl_policy_shape *shape, bl_policy **out);
void bl_policy_free(bl_policy *policy);

/*! bl_policy_moves_homes(), bl_policy_uses_copies() : what this policy can ever do (for sizing buffers). */
bool bl_policy_moves_homes(const bl_policy *policy);
bool bl_policy_uses_copies(const bl_policy *policy);

/*! bl_policy_solves_shares() : whether every micro-batch's shares are solved for its own counts; else they follow a
 * rule or are those of the last decision. */
bool bl_policy_solves_shares(const bl_policy *policy);

/*! bl_policy_dump_to() : from now on end_step writes one JSON line a layer (DESIGN section 8) to `stream` (borrowed).
 */
void bl_policy_dump_to(bl_policy *policy, FILE *stream);

/*! bl_policy_preview() : lag 0 only: the counts of the step about to begin, counts[layers][experts], and for
 *  `fastermoe` also by source, source_counts[layers][ranks][experts] (NULL = spread evenly over sources). */
bl_status bl_policy_preview(bl_policy *policy, const double *counts, const double *source_counts);

/*! bl_policy_time_decisions() : from now on reports carry decide_us. Measured only, never decided by. */
void bl_policy_time_decisions(bl_policy *policy);

bl_status bl_policy_begin_step(bl_policy *policy, int64_t iteration);

/*! bl_policy_hosts() : the layer's hosts in force now (planned after begin_step; possibly repaired after
 *  micro_batch). Valid until the next call that changes them. */
const bl_hosts *bl_policy_hosts(const bl_policy *policy, int32_t layer);

typedef struct bl_policy_outcome {
  double imbalance;        /* max/mean load of this micro-batch under the shares, real-valued */
  bool late;               /* late repair changed the hosts in this call */
  const bl_shares *shares; /* solved for these counts on bl_policy_hosts(); valid until the next call */
} bl_policy_outcome;

/*! bl_policy_micro_batch() : counts[experts], summed over sources. Under `--shares stale` the shares of the last
 * decision are applied instead of solved. `eplb` splits an expert evenly over its replicas (where two of them merged on
 * one rank, that rank takes both parts). `fastermoe` keeps a shadowed expert's tokens at their source, see
 * source_counts ([ranks][experts]; NULL = spread evenly over sources). Late repair in a micro-batch may give a slot
 * that took tokens earlier in the step to another expert: what the old copy gathered is reduced to its home before. */
bl_status bl_policy_micro_batch(bl_policy *policy, int32_t layer, const double *counts, const double *source_counts,
                                bl_policy_outcome *out);

bl_status bl_policy_end_step(bl_policy *policy);

/* What a step did, per layer; valid after end_step until the next begin_step. */
typedef struct bl_policy_layer_report {
  double imbalance;    /* mean over the step's micro-batches */
  int32_t copies;      /* copy slots in force at the end of the step */
  int32_t copies_used; /* of these, those that took tokens in the step */
  int32_t planned;     /* copies that begin_step had in slots: each is filled for the step */
  int32_t changed;     /* of these, those that were not on their rank in the step before */
  int32_t moved;       /* homes that begin_step changed for this step */
  bool decided;        /* begin_step decided on this layer's hosts */
  bool late;
  int32_t late_copies; /* copies filled late */
  double decide_us; /* time of the layer's decision and late repairs; 0 unless bl_policy_time_decisions() was called */
} bl_policy_layer_report;

const bl_policy_layer_report *bl_policy_report(const bl_policy *policy, int32_t layer);

/*! bl_policy_save(), bl_policy_load() : the whole state (history, hosts, counters) as bytes for a checkpoint: a resumed
 *  run decides as the uninterrupted one. save allocates; the caller frees. load checks shape and options. */
bl_status bl_policy_save(const bl_policy *policy, void **bytes, uint64_t *size);

/*! bl_policy_saved_by_other() : whether bytes are what a policy with other options or another shape saved, which load
 *  refuses; false for bytes that are no saved state at all. */
bool bl_policy_saved_by_other(const bl_policy *policy, const void *bytes, uint64_t size);
bl_status bl_policy_load(bl_policy *policy, const void *bytes, uint64_t size);

#endif
