/* json_scan.h - what cJSON lets pass and RFC 8259 does not. Private to base/json*.c. */
#ifndef BL_BASE_JSON_SCAN_H
#define BL_BASE_JSON_SCAN_H

#include "base/status.h"
#include <stdint.h>

enum { BL_JSON_MAX_DEPTH = 64 };

/*! bl_json_scan() : checks the words of a document, not how they are put together (cJSON does that): nesting depth,
 *  spelling of numbers, control characters, escapes that would put a NUL into a string.
 *  @return : BL_OK or BL_EINPUT, "NAME:LINE:COLUMN: ...". */
bl_status bl_json_scan(const char *name, const char *text, uint64_t size);

/*! bl_json_fail_at() : BL_EINPUT, "NAME:LINE:COLUMN: expected WHAT, found ..." for the byte at `offset`. */
bl_status bl_json_fail_at(const char *name, const char *text, uint64_t size, uint64_t offset, const char *what);

#endif
