/* prove.h - the fewest copies, or copies and moved homes at a price, that keep the largest rank load within (1 + eps)
 * of the mean, with a proof of how few.
 *
 * Offline only: behind `ballast-plan place --prove SECONDS`. Three things work on it, in this order: combinatorial
 * bounds and a search for placements that meet them (milliseconds, in this process), and only where these do not meet,
 * a mixed-integer program solved by GLPK in a child process under a kill timer and a memory limit. Whatever happens to
 * the child, the call returns the best hosts known, a proved lower bound and the reason why there is a gap.
 *
 * Every placement returned has been checked by bl_shares_solve() in this process. A result is called optimal only
 * where the number of copies equals a lower bound proved by the combinatorial argument or by a GLPK status that says
 * so. */
#ifndef BL_PLANNER_MILP_PROVE_H
#define BL_PLANNER_MILP_PROVE_H

#include "base/status.h"
#include "planner/place/hosts.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct bl_prove_problem {
  int32_t experts, ranks;
  const double *load;        /* [experts] tokens (any unit), finite and >= 0, not all zero */
  const int32_t *slots;      /* [ranks] distinct experts a rank can hold, homes plus copies */
  const double *speed;       /* [ranks], > 0, or NULL: all alike; loads count over the rank's speed */
  const int32_t *home;       /* [experts] homes that must stay, or NULL: homes are chosen too */
  const int32_t *current;    /* [experts] homes that may be left for move_price each, or NULL; not with `home` */
  double move_price;         /* what moving a home costs, in copies; 0 to 1e6; a whole one proves more */
  const bl_hosts *incumbent; /* a placement to start from, or NULL; ignored where it breaks the above */
  double eps;                /* allowed imbalance is 1 + eps; eps >= 0 */
  double seconds;            /* for the whole call, up to the kill grace of 0.25 s; > 0 */
  int64_t memory_bytes;      /* what the solver may allocate; 0 = 1 GiB */
} bl_prove_problem;

typedef enum bl_prove_status {
  BL_PROVE_OPTIMAL,    /* price == bound */
  BL_PROVE_GAP,        /* hosts found, bound < price */
  BL_PROVE_INFEASIBLE, /* proved: no placement in these slots reaches 1 + eps */
  BL_PROVE_UNKNOWN     /* nothing found, nothing proved but the bound */
} bl_prove_status;

typedef enum bl_prove_solver {
  BL_PROVE_SOLVER_NOT_NEEDED, /* bound and placement met without it */
  BL_PROVE_SOLVER_FINISHED,
  BL_PROVE_SOLVER_TIME,   /* stopped by itself or killed at the time limit */
  BL_PROVE_SOLVER_MEMORY, /* ran into the memory limit */
  BL_PROVE_SOLVER_DIED,   /* crashed, or sent what cannot be true */
  BL_PROVE_SOLVER_ABSENT  /* this program was built with GLPK=0 */
} bl_prove_solver;

typedef struct bl_prove_result {
  bl_prove_status status;
  bl_prove_solver solver;
  bl_hosts hosts;      /* owned; set for OPTIMAL and GAP; homes as given, or chosen (a home may be any host) */
  int32_t copies;      /* in hosts; -1 where there are none */
  int32_t moves;       /* homes that are not the current ones */
  double price;        /* copies + move_price * moves; infinite where there are no hosts */
  double bound;        /* proved: no placement within 1 + eps has a lower price */
  double imbalance;    /* max/mean (over speed) of hosts under optimal shares; <= (1 + eps)(1 + 1e-9) */
  double lp_imbalance; /* the same by GLPK's linear program of shares, for comparison; 0 where it was not computed */
  const char *proof;   /* name of the bound's proof, static: "groups-of-ranks", "groups-of-experts", "glpk-mip", ... */
  char reason[192];    /* one sentence where status is GAP or UNKNOWN, or the solver failed; else "" */
  double seconds;      /* spent in the call */
  int64_t nodes;       /* branch-and-bound nodes of the solver */
  bool bound_by_glpk;  /* the bound rests on GLPK and not on the combinatorial argument */
} bl_prove_result;

/*! bl_prove_has_solver() : false where built with GLPK=0; only the combinatorial half works then. */
bool bl_prove_has_solver(void);

/*! bl_prove_fewest_copies() : as described above. The result is to be freed with bl_prove_result_free(), also after a
 *  failure. Not to be called while other threads of the process hold locks (it forks).
 *  @return : BL_OK whatever the solver did; BL_EINPUT for a problem that makes no sense; BL_EMACHINE out of memory. */
bl_status bl_prove_fewest_copies(const bl_prove_problem *problem, bl_prove_result *result);
void bl_prove_result_free(bl_prove_result *result);

const char *bl_prove_status_name(bl_prove_status status); /* "optimal", "gap", "infeasible", "unknown" */
const char *bl_prove_solver_name(bl_prove_solver solver); /* "not needed", "finished", "time limit", ... */

#endif
