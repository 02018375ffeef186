/* setup.h - from the command line to a run that can start: files loaded, everything checked against everything else. */
#ifndef BL_EXECUTOR_SETUP_H
#define BL_EXECUTOR_SETUP_H

#include "base/status.h"
#include "costmodel/plan.h"
#include "executor/rank.h"
#include <stdbool.h>
#include <stdint.h>

enum { BL_TRAIN_MAX_RANKS = 1024, BL_TRAIN_MAX_BATCH = 1000000 };

/* The command line of ballast-train; texts are borrowed, NULL where not given. */
typedef struct bl_train_options {
  int argc;
  char **argv;
  const char *model, *plan, *data, *slots, *backend, *precision, *expert_gemm, *transport, *gate, *exchange, *graph;
  const char *log, *record_trace, *dump, *checkpoint, *resume, *perfetto, *flop;
  int64_t ranks, ep, steps, seed, batch, micro_batches; /* ep 0: as many as ranks, or as the plan says */
  bool ranks_given, seed_given, batch_given, micro_batches_given, headroom_given, graph_given;
  int64_t warmup, schedule_steps; /* -1: by the number of steps */
  int64_t checkpoint_every;       /* 0: at the end alone */
  double lr, capacity_factor, balance;
  double headroom;
  double peak_tflops; /* 0: by the device's name */
  double deadline_s; /* how long a rank waits for another before that counts as lost */
  bl_policy_options policy;
} bl_train_options;

void bl_train_options_init(bl_train_options *options);

/* A run and what it owns. */
typedef struct bl_setup {
  bl_run run;
  bl_model model;
  bl_plan plan;
  bl_layout layout;
  bl_step program;
  bl_corpus corpus;
  int32_t *slots, *home;
  char *resume_model; /* path inside the checkpoint, where --model was not given */
} bl_setup;

/*! bl_setup_create() : loads model, plan and data, checks the combination, builds the step program. `processes`: how many
 *  were started, one a rank; 0 where ranks are threads. Free also after a failure.  @return : BL_OK, BL_EUSAGE, BL_EINPUT, BL_ENOTSUP or BL_EMACHINE. */
bl_status bl_setup_create(const bl_train_options *options, int32_t processes, bl_setup *out);
void bl_setup_free(bl_setup *setup);

#endif
