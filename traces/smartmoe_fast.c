/* smartmoe_fast.c - parses a SmartMoE trace file written exactly as the artifact writes it, at several GB/s.
 *
 * Numbers differ in length, so a loop that walks from number to number mispredicts a branch or waits for a load on
 * each. Here where numbers end is known first: every count has one '.', found 64 bytes at a time. Then the four
 * characters in front of each dot are loaded without looking at one another, and the rest is arithmetic on whole rows
 * that a compiler turns into vector code: cut off what belongs to the number before, check for digits, combine, add up.
 * Errors are gathered in one word and looked at once a row; whoever sees one starts again with the careful parser. */
#include "traces/smartmoe_text.h"
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

enum {
  CHUNK = 64,     /* counts handled together */
  TEXT_COMMA = 4, /* ".0, " between two counts */
  TEXT_ROW = 6,   /* ".0], [" between two rows, from the dot to the first digit */
  MAX_DIGITS = 4
};

/* Bit i is set where bytes[i] is a dot, for 64 bytes. */
static inline uint64_t dots_in_64(const char *bytes) {
  uint64_t mask = 0;
#if defined(__SSE2__)
  const __m128i dot = _mm_set1_epi8('.');
  for (unsigned i = 0; i < 64; i += 16) {
    __m128i word;
    memcpy(&word, bytes + i, sizeof word);
    mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(word, dot)) << i;
  }
#else
  for (unsigned i = 0; i < 64; i++) mask |= (uint64_t)(bytes[i] == '.') << i;
#endif
  return mask;
}

/* Offsets of all dots of the text.  @return : false unless there are exactly `want`; writes up to 64 more. */
static bool find_dots(const char *text, uint64_t n, uint32_t *dots, uint64_t want) {
  const uint64_t top = UINT64_C(1) << 63; /* keeps the count of trailing zeros defined */
  uint64_t have = 0;
  for (uint64_t at = 0; at < n; at += 64) {
    uint64_t mask = dots_in_64(text + at);
    if (n - at < 64) mask &= (UINT64_C(1) << (n - at)) - 1;
    const int found = __builtin_popcountll(mask);
    uint32_t *to = dots + have;
    have += (uint64_t)found;
    if (have > want) return false;
    for (int i = 0; i < found; i += 4)
      for (int j = 0; j < 4; j++) {
        to[i + j] = (uint32_t)at + (uint32_t)__builtin_ctzll(mask | top);
        mask &= mask - 1;
      }
  }
  return have == want;
}

static inline uint32_t load_u32(const char *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

/* Parses m <= CHUNK counts that end at dots[0..m-1]; dots[-1] + TEXT_COMMA is where the first begins. All but the last
 * are followed by ".0, ".  @return : not 0 when anything is not as expected. */
static uint32_t parse_chunk(const char *text, const uint32_t *restrict dots, size_t m, uint32_t *restrict counts,
                            uint32_t *sum) {
  uint32_t word[CHUNK], tail[CHUNK];
  uint32_t bad = 0, total = 0;
  for (size_t i = 0; i < m; i++) {
    word[i] = load_u32(text + dots[i] - MAX_DIGITS);
    tail[i] = load_u32(text + dots[i]);
  }
  const uint32_t comma = load_u32(".0, ");
  for (size_t i = 0; i + 1 < m; i++) bad |= tail[i] ^ comma;
  for (size_t i = 0; i < m; i++) {
    const uint32_t length = dots[i] - (dots[i - 1] + TEXT_COMMA);
    bad |= (length - 1) & ~UINT32_C(3);
    const uint32_t cut = (8 * (MAX_DIGITS - length)) & 31;
    const uint32_t digits = ((word[i] ^ 0x30303030u) >> cut) << cut; /* the last digit is in the highest byte */
    bad |= (digits | (digits + 0x06060606u)) & 0xf0f0f0f0u;
    const uint32_t pairs = (digits * 10 + (digits >> 8)) & 0x00ff00ffu;
    const uint32_t count = (pairs * 100 + (pairs >> 16)) & 0xffff;
    counts[i] = count;
    total += count;
  }
  *sum += total;
  return bad;
}

/* One row whose first digit is at `first`. dots[-1] is overwritten. */
static bool parse_row(const char *text, uint32_t first, uint32_t *dots, size_t experts, uint32_t *counts,
                      uint32_t *sum) {
  uint32_t bad = 0;
  const uint32_t comma = load_u32(".0, ");
  dots[-1] = first - TEXT_COMMA;
  *sum = 0;
  for (size_t i = 0; i < experts; i += CHUNK) {
    const size_t m = experts - i < CHUNK ? experts - i : CHUNK;
    if (i > 0) bad |= load_u32(text + dots[i - 1]) ^ comma;
    bad |= parse_chunk(text, dots + i, m, counts + i, sum);
  }
  return bad == 0;
}

/* Whether "LAYER:[[" stands at *at; then *at is behind it. */
static bool take_prefix(const char *text, uint64_t n, uint32_t *at, int32_t layer) {
  char prefix[16];
  int length = 0;
  for (int32_t power = 1000000000; power > 0; power /= 10)
    if (layer >= power || length > 0 || power == 1) prefix[length++] = (char)('0' + layer / power % 10);
  memcpy(prefix + length, ":[[", 3);
  length += 3;
  if (n - *at < (uint64_t)length || memcmp(text + *at, prefix, (size_t)length) != 0) return false;
  *at += (uint32_t)length;
  return true;
}

bool bl_text_parse_fast(const char *text, uint64_t n, const bl_text_format *format, uint32_t *counts,
                        int64_t layer_stride) {
  const size_t experts = (size_t)format->experts;
  const uint64_t want = (uint64_t)format->layers * (uint64_t)format->rows * experts;
  uint32_t *dots = format->dots + 1; /* parse_row() writes in front of a row */
  uint32_t at = 0, row_sum = 0;
  if (n > UINT32_MAX - BL_TEXT_PADDING || !find_dots(text, n, dots, want)) return false;
  for (int32_t layer = 0; layer < format->layers; layer++, counts += layer_stride) {
    if (!take_prefix(text, n, &at, layer)) return false;
    for (int32_t row = 0; row < format->rows; row++, dots += experts) {
      uint32_t sum = 0;
      const uint32_t last = dots[experts - 1];
      if (!parse_row(text, at, dots, experts, counts + (size_t)row * experts, &sum)) return false;
      if (layer == 0 && row == 0) row_sum = sum;
      if (sum != row_sum) return false;
      const bool more = row + 1 < format->rows;
      if (n - last < TEXT_ROW - 1 || memcmp(text + last, more ? ".0], [" : ".0]]\n", TEXT_ROW - !more) != 0)
        return false;
      at = last + TEXT_ROW - !more;
    }
  }
  return at == n;
}

#else

bool bl_text_parse_fast(const char *text, uint64_t n, const bl_text_format *format, uint32_t *counts,
                        int64_t layer_stride) {
  (void)text, (void)n, (void)format, (void)counts, (void)layer_stride;
  return false;
}

#endif
