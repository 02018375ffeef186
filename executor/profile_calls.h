/* profile_calls.h - the calls that ballast-profile times besides the operations of one rank: decisions, and bytes
 * between ranks and between host and device. Each is one call of its kind of work, for the amount given. */
#ifndef BL_EXECUTOR_PROFILE_CALLS_H
#define BL_EXECUTOR_PROFILE_CALLS_H

#include "executor/profile.h"

enum { BL_BENCH_SEQUENCES = 8, BL_BENCH_CONTROL_BYTES = 4096 }; /* most of a call */

/*! bl_bench_decisions_create() : b->decisions, a policy with copies, on the experts chosen in `choice`
 *  [BL_BENCH_SEQUENCES x sequence x top_k].  bl_bench_release() frees it.
 *  @return : BL_OK or BL_EMACHINE. */
bl_status bl_bench_decisions_create(bl_bench *b, const int32_t *choice);

bl_status bl_bench_choose_hosts(bl_bench *b,
                                int64_t layers); /* a decision for all layers, on counts it has been given */
bl_status bl_bench_solve_shares(bl_bench *b, int64_t calls); /* shares, routes and rows of one micro-batch of a layer */

/* Between ranks, bytes of each: control messages to all (at most BL_BENCH_CONTROL_BYTES), rows to all alike with the
 * own part, to the next rank, to the next rank and added there, summed over all. */
bl_status bl_bench_gather_host(bl_bench *b, int64_t bytes);
bl_status bl_bench_exchange(bl_bench *b, int64_t bytes);
bl_status bl_bench_transfer(bl_bench *b, int64_t bytes);
bl_status bl_bench_accumulate(bl_bench *b, int64_t bytes);
bl_status bl_bench_all_reduce(bl_bench *b, int64_t bytes);

/* Between host and device. */
bl_status bl_bench_to_device(bl_bench *b, int64_t bytes);
bl_status bl_bench_to_host(bl_bench *b, int64_t bytes);

#endif
