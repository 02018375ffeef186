/* safetensors.h - tensors in a file: 8 bytes of header length (little endian), a JSON header, then the numbers.
 *
 *   { "NAME": {"dtype": "F32", "shape": [out, in], "data_offsets": [begin, end]}, ... }
 *
 * fp32 alone, in the byte order of the machine (little endian is required). */
#ifndef BL_EXECUTOR_SAFETENSORS_H
#define BL_EXECUTOR_SAFETENSORS_H

#include "base/json.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One tensor to write: the header is made of all of them before the first number is written. */
typedef struct bl_safetensor {
  char name[128];
  int32_t rows, cols; /* rows 1: a vector of `cols` */
} bl_safetensor;

/*! bl_safetensors_header() : writes length and header; the numbers of tensors[0], tensors[1]... must follow at once.
 *  Padded with spaces so that the numbers begin at a multiple of 8. Write errors show in ferror(). */
bl_status bl_safetensors_header(FILE *stream, const bl_safetensor *tensors, size_t n);

typedef struct bl_safetensors_file bl_safetensors_file;

/*! bl_safetensors_open() : reads and checks the header: every tensor is F32, of two dimensions at most, and lies inside
 *  the file.  @return : BL_OK, BL_EINPUT (file, tensor, what was expected) or BL_EMACHINE. */
bl_status bl_safetensors_open(const char *path, bl_safetensors_file **out);
void bl_safetensors_close(bl_safetensors_file *file); /* NULL is fine */

/*! bl_safetensors_has() : whether the file holds a tensor of this name. */
bool bl_safetensors_has(const bl_safetensors_file *file, const char *name);

/*! bl_safetensors_read() : the numbers of a tensor of exactly this shape.
 *  @return : BL_OK or BL_EINPUT (absent, another shape, unreadable). */
bl_status bl_safetensors_read(const bl_safetensors_file *file, const char *name, int32_t rows, int32_t cols, float *to);

#endif
