/* reader.h - what the trace writer and the statistics need from a reader beyond trace.h. Private to traces/. */
#ifndef BL_TRACES_READER_H
#define BL_TRACES_READER_H

#include "traces/codec.h"

/*! bl_trace_open_any() : as bl_trace_open(), but a trace without a whole step opens too. */
bl_status bl_trace_open_any(const char *path, bl_trace_reader **out);

uint64_t bl_trace_file_bytes(const bl_trace_reader *reader);

/*! bl_trace_read_block() : block header and compressed payload of step `index` as they lie in the file, CRC checked.
 *  *payload is valid until the next read. */
bl_status bl_trace_read_block(bl_trace_reader *reader, int32_t index, uint8_t header[BL_BLT_BLOCK_BYTES],
                              const uint8_t **payload, uint64_t *n);

#endif
