/* file.h - reading files whole (plain or gzip), and writing them so that nothing half-written stays.
 *
 * Errors name the file. A file that cannot be opened, read or is too long is BL_EINPUT; a failing write (full disk,
 * unwritable folder) is BL_EMACHINE, except that an output path which cannot be created at all is BL_EINPUT. */
#ifndef BL_BASE_FILE_H
#define BL_BASE_FILE_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*! bl_file_read() : the whole file, decompressed when it is gzip, with a NUL behind (not counted in *size).
 *  `max_bytes` bounds the decompressed size. The caller frees *bytes with free(). */
bl_status bl_file_read(const char *path, uint64_t max_bytes, char **bytes, uint64_t *size);

bool bl_path_exists(const char *path);
bool bl_path_is_folder(const char *path);
bool bl_path_same_file(const char *a, const char *b); /* both exist and are one regular file */

/*! bl_folder_create() : mkdir -p: the folder and its missing parents; an existing folder is fine. */
bl_status bl_folder_create(const char *path);

/* Output file. Bytes go to "<path>.tmp.<pid>" beside the target; commit() flushes, syncs, renames; discard() removes.
 * Until commit an older file at the path stays as it is; afterwards its permissions are kept, and a symbolic link still
 * points to the file. "-" is standard output; "/dev/..." and pipes are written directly. At most 64 at a time. */
typedef struct bl_output bl_output;

/*! bl_output_open() : starts the file.  @return : BL_OK, BL_EINPUT when it cannot be created at `path`, BL_EMACHINE. */
bl_status bl_output_open(const char *path, bl_output **out);
/*! bl_output_check() : before long work: could a file be put at `path` (NULL: nothing to write), and is it none of the
 *  n inputs (NULL: not given)?  @return : BL_OK, BL_EUSAGE for an input, else as bl_output_open(). */
bl_status bl_output_check(const char *path, const char *const inputs[], int n);

FILE *bl_output_stream(bl_output *output); /* for fprintf/fwrite; errors are found at commit */
bl_status bl_output_write(bl_output *output, const void *bytes, uint64_t n);
bl_status bl_output_printf(bl_output *output, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*! bl_output_commit() : completes and frees; on failure nothing is left behind.  @return : BL_OK or BL_EMACHINE. */
bl_status bl_output_commit(bl_output *output);
void bl_output_discard(bl_output *output); /* NULL is fine; frees */

/*! bl_output_discard_all() : removes every temporary file still open in this process, for signal handlers and fatal
 *  paths: async-signal-safe; frees nothing. A forked child removes nothing of its parent's.
 *  bl_output_discard_within() : only those whose target was named "<folder>/...". */
void bl_output_discard_all(void);
void bl_output_discard_within(const char *folder);

/*! bl_crc32() : CRC-32 (zlib's) of a range, continuing from `crc` (0 to start). */
uint32_t bl_crc32(uint32_t crc, const void *bytes, uint64_t n);

/*! bl_file_crc32() : CRC-32 of the file's raw bytes. */
bl_status bl_file_crc32(const char *path, uint32_t *crc);

#endif
