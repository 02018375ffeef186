/* Reads the load of each expert from standard input, places them, and prints EPLB's phy2log: the expert in every slot
 * of every rank, and the part of its tokens that the slot takes.
 *
 *   cc place.c $(pkg-config --cflags --libs ballast) -o place
 *   echo 600 560 120 120 20 10 10 10 | ./place 8 2          eight ranks, two slots each
 */
#include <ballast.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 4096 };

static int fail(ballast *handle, const char *what) {
  fprintf(stderr, "place: %s: %s\n", what, ballast_message(handle));
  ballast_close(handle);
  return 1;
}

int main(int argc, char **argv) {
  static double load[MOST], share[MOST];
  static int32_t slots[MOST], phy2log[MOST];
  double imbalance = 0, bound = 0;
  int32_t experts = 0;
  ballast *handle = NULL;
  ballast_placement *placement = NULL;
  const int32_t ranks = argc > 1 ? atoi(argv[1]) : 0, each = argc > 2 ? atoi(argv[2]) : 0;
  if (ranks < 1 || each < 1 || ranks > MOST / each) {
    fprintf(stderr, "usage: place RANKS SLOTS [RULE] <loads\n");
    return 2;
  }
  while (experts < MOST && scanf("%lf", &load[experts]) == 1) experts++;
  for (int32_t r = 0; r < ranks; r++) slots[r] = each;

  ballast_shape shape = {sizeof shape, 1, experts, ranks, slots, NULL, NULL};
  if (ballast_open(BALLAST_VERSION_MAJOR, &handle) != BALLAST_OK) return fail(handle, "the library");
  if (ballast_place(handle, &shape, argc > 3 ? argv[3] : "ballast", load, &placement) != BALLAST_OK)
    return fail(handle, "no placement");
  ballast_placement_phy2log(placement, 0, phy2log, share);
  ballast_placement_imbalance(placement, 0, &imbalance, &bound);

  for (int32_t r = 0, i = 0; r < ranks; r++) {
    printf("rank %d:", r);
    for (const int32_t end = i + each; i < end; i++)
      if (phy2log[i] >= 0) printf(" %d (%.4f)", phy2log[i], share[i]);
    printf("\n");
  }
  printf("imbalance %.6f, no placement in these slots is below %.6f\n", imbalance, bound);
  ballast_placement_free(placement);
  ballast_close(handle);
  return 0;
}
