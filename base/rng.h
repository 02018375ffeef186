/* rng.h - random numbers and elementary functions with the same bits on every machine.
 *
 * glibc picks exp/log/pow variants by CPU, whose last bits differ; what must not differ (generated traces, initial
 * weights, simulated choices) uses the functions here: plain additions, multiplications and divisions in a fixed order.
 */
#ifndef BL_BASE_RNG_H
#define BL_BASE_RNG_H

#include <stdint.h>

typedef struct bl_rng {
  uint64_t state[4];
} bl_rng; /* xoshiro256**; copy freely */

/*! bl_rng_seed() : a stream for (seed, stream); different streams are independent. */
void bl_rng_seed(bl_rng *rng, uint64_t seed, uint64_t stream);
uint64_t bl_rng_u64(bl_rng *rng);
double bl_rng_unit(bl_rng *rng);                /* uniform in [0, 1), 53 bits */
uint64_t bl_rng_below(bl_rng *rng, uint64_t n); /* uniform in 0..n-1, unbiased; n >= 1 */
double bl_rng_normal(bl_rng *rng);              /* N(0, 1), Box-Muller from two draws */

/*! bl_hash_u64() : mixes four words into one well spread word (splitmix64 finaliser chained). Stateless randomness, as
 *  in "the random second choice is a hash of (seed, step, layer, token)". */
uint64_t bl_hash_u64(uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/*! bl_hash_bytes() : 64-bit hash of a byte range, for agreement checks (not cryptographic). */
uint64_t bl_hash_bytes(const void *bytes, uint64_t n, uint64_t seed);

/* Within 2 ulp of the true value (pow: 2 + |y ln x| ulp), bit-identical everywhere.
 * bl_det_cos2pi(x) = cos(2 pi x), bl_det_sin2pi(x) = sin(2 pi x), most exact for x in [0, 1). */
double bl_det_exp(double x);
double bl_det_log(double x);
double bl_det_pow(double x, double y); /* x >= 0 */
double bl_det_cos2pi(double x);
double bl_det_sin2pi(double x);

#endif
