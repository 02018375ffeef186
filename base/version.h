/* version.h - the version of all programs and of nothing else (file formats carry their own). */
#ifndef BL_BASE_VERSION_H
#define BL_BASE_VERSION_H

#define BL_VERSION "0.1.0"

#endif
