/* stats.h - what a trace holds, and what its load looks like: imbalance, concentration, drift. */
#ifndef BL_TRACES_STATS_H
#define BL_TRACES_STATS_H

#include "traces/trace.h"

enum { BL_STATS_MAX_LAGS = 8 };

typedef struct bl_stats_options {
  int32_t ranks;         /* that the experts are spread over, 1..experts: contiguous homes, e / ceil(E / ranks) */
  int32_t first, last;   /* indices of steps, inclusive */
  bool each_micro_batch; /* imbalance of every micro-batch by itself instead of on their sum */
  int32_t n_lags;        /* in recorded steps */
  int32_t lags[BL_STATS_MAX_LAGS];
} bl_stats_options;

/* Means over steps, of one layer or of all. */
typedef struct bl_load_stats {
  double imbalance, worst_imbalance; /* max load / mean load of the ranks; the worst is a maximum */
  double gini;                       /* of the experts' loads: 0 all equal, towards 1 all on one */
  double herfindahl;                 /* sum of their squared shares: 1/experts all equal, 1 all on one */
  double entropy;                    /* of the experts' shares / ln(experts): 1 all equal */
  double top_share, top4_share;      /* of the hottest expert, of the four hottest together */
  double idle;                       /* fraction of the experts without a token */
  /* between the shares of a step and those `lag` steps before; NaN where the trace is shorter than the lag */
  double drift[BL_STATS_MAX_LAGS]; /* total variation distance: half the sum of |differences| */
  double
      drift_p99[BL_STATS_MAX_LAGS]; /* its 99th percentile (the value at rank ceil(0.99 n)), for all: over layers too */
  double top_kept[BL_STATS_MAX_LAGS]; /* fraction of steps whose hottest expert is the same (ties to the lower id) */
} bl_load_stats;

/*! bl_stats_compute() : reads the chosen steps once; layer_stats[layers], *all = mean (worst: maximum) over layers.
 * Holds every distance for the percentiles: a small part of what the trace itself takes.
 *  @return : BL_OK, BL_EINPUT (more ranks than experts, damaged trace), BL_EMACHINE. */
bl_status bl_stats_compute(bl_trace_reader *reader, const bl_stats_options *options, bl_load_stats *layer_stats,
                           bl_load_stats *all);

typedef struct bl_trace_summary {
  uint64_t min_row, max_row; /* sums of rows (rank, micro-batch) */
  uint64_t copies;           /* of the whole trace */
  int64_t stride;            /* between iterations; 0 when it varies or there is one step */
  uint64_t file_bytes;
} bl_trace_summary;

/*! bl_trace_summarise() : reads every step of the trace, and so checks every block.
 *  @return : BL_OK, BL_EINPUT (damaged trace), BL_EMACHINE. */
bl_status bl_trace_summarise(bl_trace_reader *reader, bl_trace_summary *summary);

/*! bl_stats_imbalance() : max / mean of the loads of `ranks` ranks under contiguous homes; 1 without any load. */
double bl_stats_imbalance(const double *loads, int32_t experts, int32_t ranks);

#endif
