/* ballast.h - Ballast as a library: where the experts of a Mixture-of-Experts model should live, how their tokens are
 * split over their hosts, and how a model is laid out over a cluster.
 *
 * Everything starts from a handle, `ballast *`. It keeps the sentence that says why a call failed; everything made with
 * it reports there. A handle and what was made with it belong to one thread at a time; handles know nothing of one
 * another, so threads with a handle each work at once. Nothing is printed, nothing exits, no state is global. Results
 * depend on the arguments alone, never on time (ballast_prove() has a deadline, and says what it reached).
 *
 * Functions that can fail return a ballast_status. Results are written only on success, except that a handle-like
 * result (`**out`) is NULL after a failure. What ballast_X_create() and the like give is freed by ballast_X_free(),
 * before ballast_close(); NULL is fine. Structures of options and shapes begin with their size, set it with sizeof: so
 * later versions can add members, which are then 0 for older callers. Arrays are row by row, the last index fastest.
 *
 * Words: every expert has one *home* rank and may have *copies* on others; its *hosts* are both. A rank has *slots*, as
 * many as it can hold experts, homes and copies together. The slots of all ranks are numbered rank by rank: a rank's
 * homes first, by expert, then its copies. Loads are token copies, or anything in proportion. *Imbalance* is the
 * largest load of a rank / the mean (loads divided by speed where speeds differ): 1 is perfect.
 *
 * Link with -lballast (pkg-config: ballast). */
#ifndef BALLAST_H
#define BALLAST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define BALLAST_VERSION_MAJOR 1 /* changes when a program built for the older one cannot use the newer one */
#define BALLAST_VERSION_MINOR 1 /* grows with what is added */

typedef int32_t ballast_status;
enum {
  BALLAST_OK = 0,
  BALLAST_INVALID = 1,  /* an argument or file is wrong */
  BALLAST_MACHINE = 2,  /* memory, disk or a process could not be had */
  BALLAST_DEADLINE = 3, /* time ran out before there was any result */
  BALLAST_VERSION = 4   /* this library is not of the version that was asked for */
};

typedef struct ballast ballast;

/*! ballast_open() : a handle; `major` is the caller's BALLAST_VERSION_MAJOR.
 *  @return : BALLAST_OK, BALLAST_VERSION, BALLAST_MACHINE. */
ballast_status ballast_open(int32_t major, ballast **out);
void ballast_close(ballast *handle);

/*! ballast_message() : the sentence of the last call that failed, "" after one that did not; valid until the next call.
 */
const char *ballast_message(const ballast *handle);

/*! ballast_version() : "1.1". */
const char *ballast_version(void);

/* -- placement ----------------------------------------------------------------------------------------------------- */

typedef struct ballast_shape {
  uint64_t bytes; /* sizeof(ballast_shape) */
  int32_t layers, experts, ranks;
  const int32_t *slots; /* [ranks]; NULL: one more than ceil(experts / ranks) each, at most `experts` */
  const double *speed;  /* [ranks], relative; NULL: all alike */
  const int32_t *home;  /* [layers][experts] to start from; NULL: contiguous, e / ceil(experts / ranks) */
} ballast_shape;

typedef struct ballast_placement ballast_placement; /* homes and copies of all layers */

/*! ballast_place() : places the experts for load[layers][experts] by a rule:
 *    "ballast"        homes and copies, split freely: perfect balance where each rank has a slot to spare
 *    "ballast-fixed"  homes stay, copies are chosen and split freely
 *    "even"           copies split evenly, as EPLB's contract has it, packed more evenly than EPLB does
 *    "eplb", "smartmoe", "static"   to compare with: DeepSeek's, SmartMoE's, contiguous homes
 *  "even" and "eplb" fill every slot, and take neither speeds nor homes to start from.
 *  @return : BALLAST_OK, BALLAST_INVALID, BALLAST_MACHINE. */
ballast_status ballast_place(ballast *handle, const ballast_shape *shape, const char *rule, const double *load,
                             ballast_placement **out);
void ballast_placement_free(ballast_placement *placement);

/*! ballast_placement_slots() : the number of slots of all ranks together. */
int32_t ballast_placement_slots(const ballast_placement *placement);

/*! ballast_placement_home() : home[experts] of a layer. */
ballast_status ballast_placement_home(const ballast_placement *placement, int32_t layer, int32_t *home);

/*! ballast_placement_phy2log() : the expert in each slot (EPLB's phy2log), -1 in an empty one, phy2log[slots]; and the
 *  part of its expert's tokens that each takes under the loads placed for, share[slots] or NULL. */
ballast_status ballast_placement_phy2log(const ballast_placement *placement, int32_t layer, int32_t *phy2log,
                                         double *share);

/*! ballast_placement_imbalance() : that of a layer under the loads placed for, and the least that any placement in
 * these slots could have; bound may be NULL. */
ballast_status ballast_placement_imbalance(const ballast_placement *placement, int32_t layer, double *imbalance,
                                           double *bound);

/*! ballast_placement_quota() : the integers that execute the placement of a layer for fresh counts[sources][experts]:
 *  quota[sources][slots] tokens, by the best shares for these counts (even shares under "even" and "eplb"; where a rank
 *  has several slots of an expert, the first takes their tokens). A source takes its own rank's slots first, then its
 *  node's, tokens in position order. Source s belongs to rank s * ranks / sources; ranks_per_node 0 means one node.
 *  imbalance (may be NULL): that of the shares. */
ballast_status ballast_placement_quota(ballast_placement *placement, int32_t layer, const uint32_t *counts,
                                       int32_t sources, int32_t ranks_per_node, uint32_t *quota, double *imbalance);

/* -- proofs -------------------------------------------------------------------------------------------------------- */

typedef struct ballast_prove_options {
  uint64_t bytes;      /* sizeof(ballast_prove_options) */
  const char *program; /* path of ballast-plan, which is run for it: the solver never enters this process */
  double within;       /* the imbalance allowed, 1 or more */
  double seconds;      /* for each layer, of the search */
  double deadline;     /* seconds for all of it, after which the program is killed; 0: no deadline */
  int32_t fixed_homes; /* 1: homes stay contiguous */
} ballast_prove_options;

enum { BALLAST_PROVED = 0, BALLAST_GAP = 1, BALLAST_INFEASIBLE = 2, BALLAST_UNKNOWN = 3 };

typedef struct ballast_proof {
  int32_t state;         /* BALLAST_PROVED: no placement has fewer copies; _GAP: at least `bound`; _INFEASIBLE: none is
                            balanced enough; _UNKNOWN: none was found, none excluded */
  int32_t copies, bound; /* copies of the placement found, -1 for none; the fewest that any could have */
  double imbalance;      /* of the placement found, else 0 */
} ballast_proof;

/*! ballast_prove() : the fewest copies for counts[layers][experts] (whole tokens), with a proof for each layer,
 *  proof[layers]; and the placement, unless out is NULL. The shape has no speeds and no homes.
 *  @return : BALLAST_OK whatever was proved; BALLAST_DEADLINE, BALLAST_INVALID (with ballast-plan's own sentence where
 * it has one), BALLAST_MACHINE. */
ballast_status ballast_prove(ballast *handle, const ballast_shape *shape, const uint32_t *counts,
                             const ballast_prove_options *options, ballast_proof *proof, ballast_placement **out);

/* -- policy over time ---------------------------------------------------------------------------------------------- */

typedef struct ballast_policy ballast_policy;

typedef struct ballast_policy_options {
  uint64_t bytes;     /* sizeof(ballast_policy_options) */
  const char *rule;   /* "ballast", "static", "smartmoe:N", "eplb:N" (N: steps between decisions) */
  const char *homes;  /* ballast alone: "fixed", "free", or "cost": moved where that pays */
  int64_t lag;        /* decisions see counts at least so many steps old, 1 or more */
  double late_repair; /* imbalance above which hosts are chosen again on the true counts; 0: never */
  double copy_price;  /* homes "cost": of one copy, as a fraction of the layer's balanced time */
} ballast_policy_options;

/*! ballast_policy_options_init() : "ballast", homes "fixed", lag 1, no late repair, price 0.01; sets bytes. */
void ballast_policy_options_init(ballast_policy_options *options);

ballast_status ballast_policy_create(ballast *handle, const ballast_shape *shape, const ballast_policy_options *options,
                                     ballast_policy **out);

/* What a policy can do besides; a member that is 0 asks for nothing. Since 1.1. */
typedef struct ballast_policy_extras {
  uint64_t bytes;   /* sizeof(ballast_policy_extras) */
  int64_t back_off; /* "ballast": a layer whose decisions change nothing waits 2, 4, ... steps for the next, at most so
                       many, and is woken by imbalance or drift; 0 or 1: decides every step */
} ballast_policy_extras;

/*! ballast_policy_create_with() : ballast_policy_create() with extras, NULL for none. Since 1.1. */
ballast_status ballast_policy_create_with(ballast *handle, const ballast_shape *shape,
                                          const ballast_policy_options *options, const ballast_policy_extras *extras,
                                          ballast_policy **out);
void ballast_policy_free(ballast_policy *policy);
int32_t ballast_policy_slots(const ballast_policy *policy); /* of all ranks together */

/*! One step: begin; for every micro-batch and layer ballast_policy_micro_batch(); end.
 *  ballast_policy_begin_step() : chooses the hosts of all layers for this step, from earlier steps alone. `step` grows.
 */
ballast_status ballast_policy_begin_step(ballast_policy *policy, int64_t step);

/*! ballast_policy_hosts() : a layer's homes and slots in force now; either may be NULL. home[experts], phy2log[slots].
 */
ballast_status ballast_policy_hosts(const ballast_policy *policy, int32_t layer, int32_t *home, int32_t *phy2log);

/*! ballast_policy_micro_batch() : shares for counts[sources][experts] of one layer and micro-batch, as
 * quota[sources][slots] (see ballast_placement_quota(); NULL: not wanted), and their imbalance (may be NULL). Late
 * repair may change the layer's hosts here: *repaired (may be NULL) says so, and ballast_policy_hosts() has the new
 * ones. */
ballast_status ballast_policy_micro_batch(ballast_policy *policy, int32_t layer, const uint32_t *counts,
                                          int32_t sources, int32_t ranks_per_node, uint32_t *quota, double *imbalance,
                                          int32_t *repaired);

ballast_status ballast_policy_end_step(ballast_policy *policy);

typedef struct ballast_policy_report {
  double imbalance;                             /* mean over the micro-batches */
  int32_t copies, copies_used, moved, repaired; /* slots with a copy; those with tokens; homes moved; late repair */
} ballast_policy_report;

/*! ballast_policy_report_of() : what the step that ended did in a layer. */
ballast_status ballast_policy_report_of(const ballast_policy *policy, int32_t layer, ballast_policy_report *out);

/*! ballast_policy_save() : the whole state, for a checkpoint, into bytes[capacity]; *size is what it takes. With bytes
 * NULL only *size is set. Not within a step. ballast_policy_load() : takes it up in a policy of the same shape and
 * options: decisions go on as they would have. */
ballast_status ballast_policy_save(const ballast_policy *policy, void *bytes, uint64_t capacity, uint64_t *size);
ballast_status ballast_policy_load(ballast_policy *policy, const void *bytes, uint64_t size);

/* -- layout search --------------------------------------------------------------------------------------------------*/

typedef struct ballast_search_options {
  uint64_t bytes; /* sizeof(ballast_search_options) */
  /* Model and cluster files: by path, or as text in memory (then the path is NULL). */
  const char *model_path, *model_text, *cluster_path, *cluster_text;
  uint64_t model_bytes, cluster_bytes; /* of the texts */
  const char *trace_path;              /* a .blt trace whose loads count; NULL: `imbalance` */
  double imbalance;                    /* assumed, max / mean rows of a rank wherever ep > 1 */
  double memory_fraction;              /* of a device's memory that may be filled */
  int32_t ranks, batch;                /* ranks 0: the whole cluster; batch: sequences of a step */
  int32_t sequence;                    /* 0: the model's */
  int32_t top;                         /* layouts wanted */
  int32_t max_vp, max_micro_batch, copy_slots;
  int32_t tp, cp, dp, pp, vp, etp, ep, micro_batch; /* 0: free */
  int32_t node_dispatch, overlap; /* 1: a token travels once to each node; exchange under expert compute */
  const char *type;               /* of the cluster's narrower compute types; NULL: its first */
} ballast_search_options;

/*! ballast_search_options_init() : top 10, max_vp 12, max_micro_batch 16, imbalance 1, memory 0.9; all else 0; sets
 * bytes. */
void ballast_search_options_init(ballast_search_options *options);

typedef struct ballast_layout {
  int32_t tp, cp, dp, pp, vp, etp, ep, edp, zero, micro_batch, micro_batches;
  int32_t recompute;                                 /* 0 none, 1 selective, 2 feed-forward, 3 full */
  double step_us, bound_us, imbalance, memory_bytes; /* predicted; bound: of any division into stages; fullest rank */
} ballast_layout;

typedef struct ballast_found ballast_found; /* what a search found */

/*! ballast_search() : the best layouts, best first, by closed forms.
 *  @return : BALLAST_OK; BALLAST_INVALID where an input is wrong or nothing fits (how much is missing is said). */
ballast_status ballast_search(ballast *handle, const ballast_search_options *options, ballast_found **out);
void ballast_found_free(ballast_found *found);

/* What a search can do besides; a member that is 0 asks for nothing. Since 1.1. */
typedef struct ballast_search_extras {
  uint64_t bytes;     /* sizeof(ballast_search_extras) */
  int32_t simulate;   /* simulates the step programs of the best by closed form, and of at most so many other layouts
                         that their bounds leave; `ballast-plan search` takes 200 */
  int32_t max_pieces; /* most pieces (1, 2, 4, ... 64) of a MoE layer's rows that simulations try; 0: 1 */
  int32_t shard;      /* a sharded state spreads over so many ranks, with replicas between them; 0: all of dp x cp */
  int32_t gradient_bytes; /* of a number that gradients are summed and reduced in, 2 or 4; 0: 4 */
} ballast_search_extras;

/*! ballast_search_with() : ballast_search() with extras, what `ballast-plan search` finds. Where layouts are simulated,
 *  the simulated times order them and are their step_us. extras: NULL for none.  @return : as ballast_search(). Since
 *  1.1. */
ballast_status ballast_search_with(ballast *handle, const ballast_search_options *options,
                                   const ballast_search_extras *extras, ballast_found **out);

int32_t ballast_found_count(const ballast_found *found);
double ballast_found_bound_us(const ballast_found *found); /* no layout that memory allows takes less */
ballast_status ballast_found_layout(const ballast_found *found, int32_t i, ballast_layout *out);

/* How a layout's step was predicted, and where it goes. Since 1.1. */
typedef struct ballast_layout_detail {
  uint64_t bytes;                      /* sizeof(ballast_layout_detail), set by the caller */
  double closed_form_us, simulated_us; /* 0: not simulated */
  /* Parts of step_us on the ranks that compute most: attention, feed-forward, gate, embedding and head; experts with
     scatter and gather; forward once more; exchange of tp and etp; exposed exchange of cp; dispatch and combine over
     ep; sends between stages; filling and draining the pipeline; exposed reduction of gradients and gather of weights;
     the update. */
  double dense_us, experts_us, recompute_us, tensor_us, context_us, exchange_us, send_us, bubble_us, reduce_us,
      optimizer_us;
  int32_t pieces; /* of a MoE layer's rows */
  int32_t shard;  /* ranks over which the state is sharded, 1 under zero 0 */
} ballast_layout_detail;

ballast_status ballast_found_detail(const ballast_found *found, int32_t i, ballast_layout_detail *out);

/*! ballast_found_simulated() : how many layouts were simulated. ballast_found_undecided() : how many others might be
 * faster than the best by their bounds, 0 where the best is proved. Since 1.1. */
int32_t ballast_found_simulated(const ballast_found *found);
int64_t ballast_found_undecided(const ballast_found *found);

/*! ballast_found_stages() : layers of each of the pp * vp stages of layout i, layers[pp * vp]. */
ballast_status ballast_found_stages(const ballast_found *found, int32_t i, int32_t *layers);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
